"""A user's own Parquet files with images, in the schema that Hugging Face's ``datasets`` writes."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ticketsmith.data.arrays import make_dataset
from ticketsmith.data.dataset import Dataset
from ticketsmith.data.extras import need
from ticketsmith.data.holdout import fraction_count, holdout
from ticketsmith.data.images import decode
from ticketsmith.data.sizes import read_table
from ticketsmith.data.userfiles import existing, expand
from ticketsmith.errors import DataError

IMAGE_NAMES = ("image", "img")
LABEL_NAMES = ("label", "labels", "fine_label")
_WHAT = "data set 'parquet'"


def files(
    path: str | None = None, train: str | list[str] | None = None, test: str | list[str] | None = None, **_: Any
) -> list[tuple[str, Path]]:
    """The files that make the content, each with its role."""
    splits = _find(path, train, test)
    return [(split, file) for split, found in splits.items() for file in found]


def load(
    path: str | None = None,
    train: str | list[str] | None = None,
    test: str | list[str] | None = None,
    image: str | None = None,
    label: str | None = None,
    test_fraction: float | None = None,
    split_seed: int = 0,
) -> Dataset:
    """The images and labels in Parquet files, ``uint8`` ``[1 or 3, height, width]``.

    Either ``path``, a folder with ``train*.parquet`` and ``test*.parquet``, or ``train`` and ``test``, each a file, a
    pattern, or a list of these. ``image`` and ``label`` name the columns, which are found by name and type otherwise.
    An image is a struct ``{bytes, path}`` or the encoded bytes. Without test files, ``test_fraction`` (0..1) is drawn
    from train with ``split_seed``.
    """
    splits = _find(path, train, test)
    if "test" in splits and test_fraction is not None:
        raise DataError(f"{_WHAT}: there are test files; leave out `test_fraction`.")
    if "test" not in splits and test_fraction is None:
        raise DataError(f"{_WHAT}: there are no test files; name them with `test`, or say `test_fraction: 0.2`.")
    names, x_train, y_train = _read(splits["train"], image, label)
    if test_fraction is None:
        _, x_test, y_test = _read(splits["test"], image, label)
    else:
        kept, held = holdout(y_train, fraction_count(len(y_train), test_fraction), split_seed)
        x_train, y_train, x_test, y_test = x_train[kept], y_train[kept], x_train[held], y_train[held]
    title = Path(path).name if path else splits["train"][0].parent.name
    return make_dataset(
        title,
        (x_train, y_train),
        (x_test, y_test),
        layout="CHW",
        class_names=names,
        names=("train images", "train labels", "test images", "test labels"),
    )


def _find(path: str | None, train: str | list[str] | None, test: str | list[str] | None) -> dict[str, list[Path]]:
    if (path is None) == (train is None):
        raise DataError(f"{_WHAT}: say either `path` (a folder) or `train` (files), and not both.")
    if path is not None:
        if test is not None:
            raise DataError(f"{_WHAT}: `test` goes with `train`; `path` finds both by their names.")
        folder = existing(path, _WHAT, folder=True)
        found = {split: sorted(folder.rglob(f"{split}*.parquet")) for split in ("train", "test")}
        if not found["train"]:
            raise DataError(
                f"{folder} holds no train*.parquet; rename the files, or name them with `train` and `test`."
            )
    else:
        found = {split: expand(paths, _WHAT) for split, paths in (("train", train), ("test", test)) if paths}
    return {split: paths for split, paths in found.items() if paths}


def _read(paths: list[Path], image: str | None, label: str | None) -> tuple[list[str], NDArray[np.uint8], NDArray[Any]]:
    """Class names (if the files tell), images ``[n, channels, height, width]`` and labels of one split."""
    arrow = need("pyarrow", _WHAT)
    names: list[str] = []
    images: list[NDArray[np.uint8]] = []
    labels: list[NDArray[Any]] = []
    for path in paths:
        try:
            table = read_table(path)
        except (OSError, arrow.ArrowException) as error:
            raise DataError(f"{path} cannot be read as Parquet: {error}; get it again.") from error
        x_name = _column(path, table.schema, image, IMAGE_NAMES, lambda t: _is_image(arrow, t), "image")
        y_name = _column(path, table.schema, label, LABEL_NAMES, lambda t: _is_label(arrow, t), "label")
        if table[x_name].null_count or table[y_name].null_count:
            raise DataError(f"{path} has empty cells in {x_name!r} or {y_name!r}; drop these rows.")
        names = names or _class_names(table.schema, y_name)
        labels.append(np.asarray(table[y_name].to_numpy()))
        for number, cell in enumerate(table[x_name].to_pylist()):
            encoded = cell.get("bytes") if isinstance(cell, dict) else cell
            if encoded is None:
                raise DataError(f"{path}, row {number}: no bytes in {x_name!r}; images by path alone are not followed.")
            pixels = decode(io.BytesIO(encoded), f"{path}, row {number}")
            if images and pixels.shape != images[0].shape:
                raise DataError(
                    f"{path}, row {number}: the image is {pixels.shape}, the first is {images[0].shape} (channels, "
                    "height, width); make them equal."
                )
            images.append(pixels)
    if not images:
        raise DataError(f"{paths[0]} holds no rows: every split needs examples.")
    return names, np.stack(images), np.concatenate(labels)


def _column(path: Path, schema: Any, asked: str | None, usual: tuple[str, ...], fits: Any, option: str) -> str:
    """The column that was asked for, or has a usual name, or is the only one of a fitting type."""
    if asked is not None:
        if asked not in schema.names:
            raise DataError(f"{path} has no column {asked!r}, but {', '.join(schema.names)}.")
        return asked
    fitting = [field.name for field in schema if fits(field.type)]
    chosen = [name for name in usual if name in fitting] or fitting
    if len(chosen) == 1 or (chosen and chosen[0] in usual):
        return chosen[0]
    raise DataError(
        f"{path}: {'no' if not chosen else 'more than one'} column may be the {option}; name it with `{option}: ...`. "
        f"Columns: {', '.join(schema.names)}."
    )


def _is_image(arrow: Any, kind: Any) -> bool:
    types = arrow.types
    if types.is_struct(kind):
        return any(kind.field(i).name == "bytes" for i in range(kind.num_fields))
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _is_label(arrow: Any, kind: Any) -> bool:
    types = arrow.types
    return bool(types.is_integer(kind) or types.is_string(kind) or types.is_large_string(kind))


def _class_names(schema: Any, label: str) -> list[str]:
    """The names of a Hugging Face ClassLabel, from the file's metadata; none if it has no such thing."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return [str(name) for name in features[label]["names"]]
    except (KeyError, ValueError, TypeError):
        return []
