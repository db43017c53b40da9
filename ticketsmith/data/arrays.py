"""From anybody's arrays to a checked ``Dataset``: one place for the rules on shapes, types, labels and statistics.

Inputs may be ``[n, length]`` or ``[n, channels, length]`` (signals), ``[n, height, width]``, ``[n, height, width,
channels]`` or ``[n, channels, height, width]`` (images). Left to itself (``layout="auto"``) it reads

* 2 dimensions as signals of one channel (``L``);
* 3 dimensions as ``CL`` when the second is 1, else as grey images (``HW``);
* 4 dimensions as ``CHW`` when the second is 1, 3 or 4, else as ``HWC`` when the last is 1, 3 or 4, else not at all.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ticketsmith.data.dataset import Dataset, Split
from ticketsmith.errors import DataError

Layout = Literal["auto", "HW", "HWC", "CHW", "L", "CL"]
CHANNELS = (1, 3, 4)
_DIMENSIONS = {"L": 2, "CL": 3, "HW": 3, "HWC": 4, "CHW": 4}
_AT_ONCE = 2**24  # bytes of an array in a file that are looked at together


def make_dataset(
    name: str,
    train: tuple[Any, Any],
    test: tuple[Any, Any],
    *,
    layout: Layout = "auto",
    class_names: Sequence[str] = (),
    names: tuple[str, str, str, str] = ("x_train", "y_train", "x_test", "y_test"),
    mean: tuple[float, ...] = (),
    std: tuple[float, ...] = (),
    rules: int = 1,
) -> Dataset:
    """A Dataset of ``(inputs, labels)`` for train and test; ``names`` are what errors call the four arrays.

    Mean and standard deviation are computed from train unless given. ``class_names`` may name the classes ``0 .. C-1``.
    Raises DataError for anything that could not be trained on as it is.
    """
    x_train, x_test = (
        channels_first(inputs, layout, place)
        for inputs, place in zip(_both(train[0], test[0], (names[0], names[2])), (names[0], names[2]), strict=True)
    )
    if x_train.shape[1:] != x_test.shape[1:]:
        raise DataError(
            f"{name}: {names[0]} holds inputs of shape {x_train.shape[1:]}, {names[2]} of {x_test.shape[1:]}; "
            "make them equal."
        )
    if x_train.dtype != x_test.dtype:
        raise DataError(
            f"{name}: {names[0]} is {x_train.dtype}, {names[2]} is {x_test.dtype}; store both in one type and range."
        )
    for inputs, place in ((x_train, names[0]), (x_test, names[2])):
        _differ(inputs, f"{name}: {place}")
    y_train, y_test, class_names = index_labels(train[1], test[1], (names[1], names[3]), class_names)
    if not (mean and std):
        mean, std = statistics(x_train)
    return Dataset(
        name=name,
        train=_split(x_train, y_train, names[0], names[1]),
        test=_split(x_test, y_test, names[2], names[3]),
        classes=len(class_names) or int(y_train.max()) + 1,
        mean=mean,
        std=std,
        class_names=tuple(class_names),
        rules=rules,
    )


def _both(train: Any, test: Any, names: tuple[str, str]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Both splits by ``as_inputs``; whole numbers are pixels in both or in none."""
    first, second = np.asarray(train), np.asarray(test)
    x_train, x_test = as_inputs(first, names[0]), as_inputs(second, names[1])
    if x_train.dtype != x_test.dtype and all(
        one.dtype.kind in "iu" and one.dtype != np.uint8 for one in (first, second)
    ):
        return x_train.astype(np.float32), x_test.astype(np.float32)
    return x_train, x_test


def _differ(inputs: NDArray[Any], place: str) -> None:
    """Refuses inputs that are all the same: what went wrong in making them would be told by nothing else."""
    if len(inputs) > 1 and all(np.array_equal(one, inputs[0]) for one in inputs[1:]):
        raise DataError(
            f"{place}: all {len(inputs)} inputs are the same; there is nothing to learn from. Look at the data: were "
            "they saved or scaled wrongly?"
        )


def as_inputs(values: Any, name: str) -> NDArray[np.uint8] | NDArray[np.float32]:
    """``values`` as ``uint8`` (whole numbers in 0..255; booleans as 0, 255) or finite ``float32``; else DataError."""
    array = np.asarray(values)
    if array.size == 0:
        raise DataError(f"{name} is empty (shape {array.shape}): every split needs examples.")
    if array.dtype == np.uint8:
        return array
    if is_mapped(array):
        return _mapped_floats(array, name)
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype.kind in "iu":
        if array.min() >= 0 and array.max() <= 255:
            return array.astype(np.uint8)
        return array.astype(np.float32)
    if array.dtype.kind != "f":
        raise DataError(f"{name} has the type {array.dtype}; store numbers (uint8 or float32) of one common shape.")
    with np.errstate(over="ignore"):
        floats = array.astype(np.float32)
    if not np.isfinite(floats).all():
        first = tuple(int(i) for i in np.argwhere(~np.isfinite(floats))[0])
        raise DataError(f"{name} holds NaN or infinity (first at index {first}); drop or mend these examples.")
    return floats


def is_mapped(array: NDArray[Any]) -> bool:
    """Whether an array lies in a file, from where it comes into memory as it is looked at."""
    base: Any = array
    while base is not None and not isinstance(base, np.memmap):
        base = getattr(base, "base", None)
    return base is not None


def in_pieces(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """The examples of an array, a few at a time where it lies in a file."""
    step = max(1, _AT_ONCE * len(array) // array.nbytes) if is_mapped(array) else len(array)
    for start in range(0, len(array), step):
        yield array[start : start + step]


def _mapped_floats(array: NDArray[Any], name: str) -> NDArray[np.float32]:
    if array.dtype != np.float32:
        raise DataError(
            f"{name} has the type {array.dtype}, and stays in its file: store what needs no conversion, uint8 or float32."
        )
    start = 0
    for piece in in_pieces(array):
        if not (finite := np.isfinite(piece)).all():
            first = np.argwhere(~finite)[0]
            place = (start + int(first[0]), *map(int, first[1:]))
            raise DataError(f"{name} holds NaN or infinity (first at index {place}); drop or mend these examples.")
        start += len(piece)
    return array


def channels_first(array: NDArray[Any], layout: Layout, name: str) -> NDArray[Any]:
    """``array`` as ``[n, channels, ...]``, contiguous in memory, by the rules at the top of this module; else DataError."""
    axes = layout if layout != "auto" else _guess(array, name)
    if array.ndim != _DIMENSIONS[axes]:
        raise DataError(
            f"{name} has shape {array.shape}; layout {axes} needs {_DIMENSIONS[axes]} dimensions, examples first."
        )
    if axes in ("L", "HW"):
        array = array[:, None]
    elif axes == "HWC":
        array = array.transpose(0, 3, 1, 2)
    return array if is_mapped(array) else np.ascontiguousarray(array)


def _guess(array: NDArray[Any], name: str) -> Layout:
    if array.ndim == 2:
        return "L"
    if array.ndim == 3:
        return "CL" if array.shape[1] == 1 else "HW"
    if array.ndim == 4 and array.shape[1] in CHANNELS:
        return "CHW"
    if array.ndim == 4 and array.shape[3] in CHANNELS:
        return "HWC"
    raise DataError(
        f"{name} has shape {array.shape}, which is not plainly images or signals. Say `layout: CHW` (or HWC, "
        "HW, CL, L), or reshape it to [n, channels, height, width]."
    )


def index_labels(
    train: Any, test: Any, names: tuple[str, str], class_names: Sequence[str] = ()
) -> tuple[NDArray[np.int64], NDArray[np.int64], tuple[str, ...]]:
    """Labels of both splits as ``0 .. C-1``, and the class names (none where the labels are these numbers already).

    Numbers that index ``class_names`` stay as they are. Other numbers, and strings, are numbered in sorted order of
    those that train holds, and name the classes. Raises DataError for labels that are not one an example, not whole
    numbers or strings, in test only, or all the same.
    """
    raw_train, raw_test = _raw_labels(train, names[0]), _raw_labels(test, names[1])
    if (raw_train.dtype.kind == "U") != (raw_test.dtype.kind == "U"):
        raise DataError(f"{names[0]} and {names[1]}: one holds strings, the other numbers; use one kind.")
    values = np.unique(raw_train)
    strange = np.setdiff1d(raw_test, values)
    if strange.size:
        raise DataError(f"{names[1]} holds the label {strange[0].item()!r}, which {names[0]} never shows.")
    if len(values) < 2:
        raise DataError(f"{names[0]} holds a single class, {values[0].item()!r}; there is nothing to tell apart.")
    if values.dtype.kind in "iu":
        named = len(class_names) > 0 and values[0] >= 0 and values[-1] < len(class_names)
        if named or np.array_equal(values, np.arange(len(values))):
            return raw_train.astype(np.int64), raw_test.astype(np.int64), tuple(class_names) if named else ()
    numbers = np.searchsorted(values, raw_train), np.searchsorted(values, raw_test)
    return numbers[0].astype(np.int64), numbers[1].astype(np.int64), tuple(str(value) for value in values)


def _raw_labels(values: Any, name: str) -> NDArray[Any]:
    array = np.asarray(values)
    if array.dtype == object and array.size and all(isinstance(value, str) for value in array.flat):
        array = array.astype(str)
    if array.size == 0:
        raise DataError(f"{name} is empty: every split needs examples.")
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise DataError(f"{name} has shape {array.shape}; give one label an example (of one-hot rows, the argmax).")
    if array.dtype.kind not in "biuU":
        raise DataError(f"{name} has the type {array.dtype}; labels are whole numbers or strings.")
    if array.dtype.kind == "u":  # beside signed ones, NumPy would compare them as floats, which merge large numbers
        if array.max() > np.iinfo(np.int64).max:
            raise DataError(f"{name} holds numbers of 2^63 and above; store such labels as strings.")
        return array.astype(np.int64)
    return array


def _split(inputs: NDArray[Any], labels: NDArray[np.int64], x_name: str, y_name: str) -> Split:
    """A Split whose arrays cannot be written to: loaded sets are shared within the process."""
    if len(inputs) != len(labels):
        raise DataError(f"{x_name} holds {len(inputs)} examples, {y_name} {len(labels)} labels; they must match.")
    inputs, labels = inputs.view(), labels.view()
    inputs.flags.writeable = labels.flags.writeable = False
    return Split(inputs=inputs, labels=labels)


def statistics(inputs: NDArray[Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel of ``[n, channels, ...]``; ``uint8`` counts as 0..1.

    Worked in float64 and cut to six digits, so that machines that add in another order agree. A constant channel has
    the deviation 1, so that dividing by it is harmless.
    """
    means, deviations = [], []
    for channel in range(inputs.shape[1]):
        values = inputs[:, channel]
        if values.dtype == np.uint8:
            counts = np.zeros(256, np.int64)
            for piece in in_pieces(values):
                counts += np.bincount(piece.ravel(), minlength=256)
            levels = np.arange(256) / 255
            mean = float(counts @ levels / counts.sum())
            deviation = float(np.sqrt(counts @ (levels - mean) ** 2 / counts.sum()))
        elif is_mapped(values):
            mean = sum(float(piece.sum(dtype=np.float64)) for piece in in_pieces(values)) / values.size
            squares = sum(float(np.square(piece - np.float64(mean)).sum()) for piece in in_pieces(values))
            deviation = math.sqrt(squares / values.size)
        else:
            mean = float(values.mean(dtype=np.float64))
            deviation = float(values.std(dtype=np.float64))
        means.append(float(f"{mean:.6g}"))
        deviations.append(float(f"{deviation:.6g}") or 1.0)
    return tuple(means), tuple(deviations)


def check(dataset: Dataset) -> Dataset:
    """``dataset`` itself if it keeps the promises of ``Dataset``: for those that a user's own function made."""
    for name, split in (("train", dataset.train), ("test", dataset.test)):
        place = f"data set {dataset.name!r}, {name}"
        inputs, labels = np.asarray(split.inputs), np.asarray(split.labels)
        if inputs.dtype not in (np.uint8, np.float32) or inputs.ndim not in (3, 4):
            raise DataError(
                f"{place}: inputs are {inputs.dtype} of shape {inputs.shape}; give uint8 or float32 of shape "
                "[n, channels, height, width] or [n, channels, length]."
            )
        as_inputs(inputs, f"{place}: inputs")
        _differ(inputs, place)
        if len(inputs) != len(labels):
            raise DataError(f"{place}: {len(inputs)} inputs, but {len(labels)} labels.")
        if labels.dtype.kind not in "iu" or labels.ndim != 1 or labels.min() < 0 or labels.max() >= dataset.classes:
            raise DataError(f"{place}: labels must be whole numbers in 0 .. {dataset.classes - 1}, one an example.")
        channels = inputs.shape[1]
        if len(dataset.mean) != channels or len(dataset.std) != channels or not all(s > 0 for s in dataset.std):
            raise DataError(f"{place}: mean and std need one number a channel ({channels}), each std above 0.")
    if dataset.train.inputs.shape[1:] != dataset.test.inputs.shape[1:]:
        raise DataError(f"data set {dataset.name!r}: train and test inputs differ in shape.")
    return dataset


def digest(dataset: Dataset) -> str:
    """SHA-256 over the content of a data set: shapes, types and values of its arrays, and its statistics."""
    sha = hashlib.sha256(repr((dataset.classes, dataset.mean, dataset.std)).encode())
    for split in (dataset.train, dataset.test):
        for array in (split.inputs, split.labels):
            sha.update(repr((array.shape, array.dtype.str)).encode())
            for piece in in_pieces(array):
                sha.update(np.ascontiguousarray(piece).data)
    return sha.hexdigest()
