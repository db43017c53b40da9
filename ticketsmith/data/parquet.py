"""A user's own Parquet files with images, in the schema that Hugging Face's ``datasets`` writes."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ticketsmith.data import pictures
from ticketsmith.data.arrays import make_dataset
from ticketsmith.data.dataset import Dataset
from ticketsmith.data.extras import need
from ticketsmith.data.holdout import cut
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
    return [(split, file) for split, matches in splits.items() for file in matches]


def load(
    path: str | None = None,
    train: str | list[str] | None = None,
    test: str | list[str] | None = None,
    image: str | None = None,
    label: str | None = None,
    test_fraction: float | None = None,
    split_seed: int = 0,
    size: int | None = None,
    mode: Literal["L", "RGB"] | None = None,
    background: str | None = None,
) -> Dataset:
    """The images and labels in Parquet files, ``[1 or 3, height, width]`` of ``uint8``, or of ``float32`` where deeper.

    Either ``path``, a folder with ``train*.parquet`` and ``test*.parquet``, or ``train`` and ``test``, each a file, a
    pattern, or a list of these. ``image`` and ``label`` name the columns, which are found by name and type otherwise.
    An image is a struct ``{bytes, path}`` or the encoded bytes. Without test files, ``test_fraction`` (0..1) is drawn
    from train with ``split_seed``. ``size``, ``mode`` and ``background`` as for folders of images; without ``mode`` each
    image is grey or colour as it is stored. Raises DataError that names the file and the row.
    """
    splits = _find(path, train, test)
    if "test" in splits and test_fraction is not None:
        raise DataError(f"{_WHAT}: there are test files; leave out `test_fraction`.")
    if "test" not in splits and test_fraction is None:
        raise DataError(f"{_WHAT}: there are no test files; name them with `test`, or say `test_fraction: 0.2`.")
    how = (image, label, size, mode, background)
    names, images, y_train = _read(splits["train"], *how)
    x_train, rules = images.pixels, images.rules
    if test_fraction is None:
        others, test_images, y_test = _read(splits["test"], *how)
        pictures.check_scale(test_images.first, images.first)
        x_test, rules = test_images.pixels, max(rules, test_images.rules)
        if others and others != names:
            raise DataError(
                f"{splits['test'][0]} names its classes {_listed(others)}, {splits['train'][0]} {_listed(names)}: the same "
                "number would be two classes. Write both with the same names, or store the names as labels."
            )
    else:
        (x_train, y_train), (x_test, y_test) = cut(x_train, y_train, test_fraction, split_seed)
    title = Path(path).name if path else splits["train"][0].parent.name
    return make_dataset(
        title,
        (x_train, y_train),
        (x_test, y_test),
        layout="CHW",
        class_names=names,
        names=("train images", "train labels", "test images", "test labels"),
        rules=rules,
    )


def _find(path: str | None, train: str | list[str] | None, test: str | list[str] | None) -> dict[str, list[Path]]:
    if (path is None) == (train is None):
        raise DataError(f"{_WHAT}: say either `path` (a folder) or `train` (files), and not both.")
    if path is not None:
        if test is not None:
            raise DataError(f"{_WHAT}: `test` goes with `train`; `path` finds both by their names.")
        folder = existing(path, _WHAT, folder=True)
        splits = {split: sorted(folder.rglob(f"{split}*.parquet")) for split in ("train", "test")}
        if not splits["train"]:
            raise DataError(
                f"{folder} holds no train*.parquet; rename the files, or name them with `train` and `test`."
            )
    else:
        splits = {split: expand(paths, _WHAT) for split, paths in (("train", train), ("test", test)) if paths}
    return {split: paths for split, paths in splits.items() if paths}


def _read(
    paths: list[Path], image: str | None, label: str | None, size: int | None, mode: str | None, background: str | None
) -> tuple[list[str], pictures.Stack, NDArray[Any]]:
    """Class names (if the files tell), images and labels of one split."""
    arrow = need("pyarrow", _WHAT)
    names: list[str] = []
    images: list[pictures.Picture] = []
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
        class_names = _class_names(table.schema, y_name)
        if names and class_names and class_names != names:
            raise DataError(
                f"{path} names its classes {_listed(class_names)}, {paths[0]} {_listed(names)}: the same number would be two "
                "classes. Write both with the same names."
            )
        names = names or class_names
        labels.append(_labels(arrow, table[y_name], f"{path}: column {y_name!r}"))
        if labels[0].dtype.kind != labels[-1].dtype.kind:
            raise DataError(
                f"{path}: column {y_name!r} holds {_words(labels[-1])}, that of {paths[0]} {_words(labels[0])}; store one kind."
            )
        for number, cell in enumerate(table[x_name].to_pylist()):
            encoded = cell.get("bytes") if isinstance(cell, dict) else cell
            place = f"{path}, row {number}"
            if not isinstance(encoded, bytes):
                raise DataError(f"{place}: no bytes in {x_name!r}; images by path alone are not followed.")
            images.append(pictures.decode(io.BytesIO(encoded), place, size, mode, background))
    if not images:
        raise DataError(f"{paths[0]} holds no rows: every split needs examples.")
    return names, pictures.stack(images, len(images)), np.concatenate(labels)


def _labels(arrow: Any, column: Any, place: str) -> NDArray[Any]:
    """The labels as whole numbers or strings; those of a dictionary (categories) as what it stands for."""
    if arrow.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    values: NDArray[Any] = np.asarray(column.to_numpy())
    if values.dtype.kind == "b" or (values.dtype.kind == "O" and all(isinstance(one, str) for one in values)):
        return values.astype(str)
    if values.dtype.kind not in "iuU":
        raise DataError(
            f"{place} is of the type {column.type}; labels are whole numbers, strings, booleans or categories."
        )
    return values.astype(np.int64) if values.dtype.kind == "u" and values.dtype.itemsize < 8 else values


def _words(labels: NDArray[Any]) -> str:
    return "strings" if labels.dtype.kind == "U" else "numbers"


def _listed(names: list[str]) -> str:
    return ", ".join(names[:5]) + (" ..." if len(names) > 5 else "")


def _column(path: Path, schema: Any, asked: str | None, usual: tuple[str, ...], fits: Any, option: str) -> str:
    """The column that was asked for, or has a usual name, or is the only one of a fitting type."""
    if asked is not None and asked not in schema.names:
        raise DataError(f"{path} has no column {asked!r}, but {', '.join(schema.names)}.")
    fitting = [field.name for field in schema if fits(field.type)]
    columns = [asked] if asked is not None else [name for name in usual if name in fitting] or fitting
    if len(columns) == 1 or (columns and columns[0] in usual):
        if schema.names.count(columns[0]) > 1:
            raise DataError(f"{path} has more than one column {columns[0]!r} ({option}); give each a name of its own.")
        return columns[0]
    raise DataError(
        f"{path}: {'no' if not columns else 'more than one'} column may be the {option}; name it with `{option}: ...`. "
        f"Columns: {', '.join(schema.names)}."
    )


def _is_image(arrow: Any, kind: Any) -> bool:
    types = arrow.types
    if types.is_struct(kind):
        return any(kind.field(i).name == "bytes" for i in range(kind.num_fields))
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _is_label(arrow: Any, kind: Any) -> bool:
    types = arrow.types
    kind = kind.value_type if types.is_dictionary(kind) else kind
    return any(
        fits(kind)
        for fits in (types.is_integer, types.is_string, types.is_large_string, types.is_string_view, types.is_boolean)
    )


def _class_names(schema: Any, label: str) -> list[str]:
    """The names of a Hugging Face ClassLabel, from the file's metadata; none if it has no such thing."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return [str(name) for name in features[label]["names"]]
    except (KeyError, ValueError, TypeError):
        return []
