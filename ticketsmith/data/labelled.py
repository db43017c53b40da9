"""Labelled texts for classification: a table of the user's own, a data set of the hub, or a function."""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ticketsmith import plugins
from ticketsmith.data import hub, tables
from ticketsmith.data.holdout import fraction_count, holdout
from ticketsmith.data.userfiles import existing, settle
from ticketsmith.errors import DataError

KIND = "data set"
_PLAIN = "labels are text, whole numbers, floats or booleans, so store one of these"
BUILTINS = {
    "docstrings": "ticketsmith.data.docstrings:load",
    "table": "ticketsmith.data.labelled:table",
    "datasets": "ticketsmith.data.labelled:datasets",
}


@dataclass(frozen=True)
class LabelledTexts:
    """Texts and their labels, ``0 .. len(classes) - 1``, in two splits; validation is held out of train by the task."""

    name: str
    train_texts: tuple[str, ...]
    train_labels: tuple[int, ...]
    test_texts: tuple[str, ...]
    test_labels: tuple[int, ...]
    classes: tuple[str, ...]

    @property
    def digest(self) -> str:
        """SHA-256 of all texts, labels and class names."""
        parts = [self.train_texts, self.train_labels, self.test_texts, self.test_labels, self.classes]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class _Split:
    """``row``: where a text stands, in words, and ``column`` where its label does, for messages."""

    texts: list[str]
    labels: list[Any]
    row: Callable[[int], str]
    column: str = ""

    def chosen(self, indices: Sequence[int]) -> _Split:
        texts, labels = [self.texts[i] for i in indices], [self.labels[i] for i in indices]
        return _Split(texts, labels, lambda row: self.row(indices[row]), self.column)

    def label(self, row: int) -> str:
        """Place and value of a label, as the beginning of a message."""
        return f"{self.row(row)} has the label {self.labels[row]!r}{self.column}"


def load(name: str, options: Mapping[str, Any], base: Path) -> LabelledTexts:
    """The labelled texts ``name``: a built-in, or a user's ``package.module:function``, which returns a LabelledTexts or a
    dict with ``train_texts``, ``train_labels``, ``test_texts`` and ``test_labels``.

    Raises RecipeError for a wrong name or option, DataError for what is missing or of the wrong form.
    """
    target = plugins.resolve(KIND, name, BUILTINS)
    place = {"base": base} if "base" in inspect.signature(target).parameters and not plugins.is_dotted(name) else {}
    with plugins.foreign(lambda error: DataError(f"{KIND} {name!r} failed: {type(error).__name__}: {error}")):
        texts = plugins.build(KIND, name, BUILTINS, options, **place)
    if isinstance(texts, LabelledTexts):
        return texts
    names = ("train_texts", "train_labels", "test_texts", "test_labels")
    if not isinstance(texts, Mapping) or set(texts) != set(names):
        raise DataError(f"{KIND} {name!r} returned {type(texts).__name__}; return a dict of {', '.join(names)}.")
    parts = {part: list(texts[part]) for part in names}
    return _labelled(name, *(_of_function(name, split, parts) for split in ("train", "test")))


def table(
    path: str,
    text: str = "text",
    label: str = "label",
    test: str | None = None,
    test_fraction: float = 0.2,
    test_seed: int = 0,
    *,
    base: Path,
) -> LabelledTexts:
    """A CSV, TSV, JSON, JSON lines or Parquet file with a column of texts and one of labels.

    Labels of CSV and TSV are text as they stand: ``0101`` and ``101`` are two classes, and so are ``1.1`` and ``1.10``.
    ``test`` is a second file; without it, ``test_fraction`` of the rows are held out, every class in proportion.
    """
    whole = _of_file(path, text, label, base)
    if test is not None:
        return _labelled("table", whole, _of_file(test, text, label, base))
    parts = holdout(whole.labels, fraction_count(len(whole.labels), test_fraction), test_seed)
    return _labelled("table", *(whole.chosen(part.tolist()) for part in parts))


def datasets(
    dataset: str,
    subset: str | None = None,
    text: str = "text",
    label: str = "label",
    train: str = "train",
    test: str = "test",
    revision: str | None = None,
    *,
    base: Path,
) -> LabelledTexts:
    """A data set of the Hugging Face hub by name, or a folder that ``save_to_disk`` of ``datasets`` wrote.

    ``train`` and ``test`` name its splits (``test: validation`` where test has no labels).
    """
    parts = hub.read(dataset, subset, [train, test], revision, base)
    return _labelled(
        "datasets",
        *(
            _of_part(part, text, label, f"{KIND} {dataset!r}, split {split!r}")
            for part, split in zip(parts, (train, test), strict=True)
        ),
    )


def _of_function(name: str, split: str, parts: Mapping[str, list[Any]]) -> _Split:
    """What a user's function returned for a split. Raises DataError where a label is missing or of no plain kind."""
    part = _Split(parts[f"{split}_texts"], parts[f"{split}_labels"], lambda row: f"{KIND} {name!r}, {split}[{row}]")
    for row, mark in enumerate(part.labels):
        if _is_missing(mark):
            raise DataError(f"{part.row(row)} has no label; give it one, or leave that text out.")
        if not _is_plain(mark):
            raise DataError(f"{part.label(row)}, a {type(mark).__name__}; {_PLAIN}.")
    return part


def _of_part(part: Any, text: str, label: str, what: str) -> _Split:
    schema = part.features.arrow_schema
    table = tables.Table(
        {name: part[name] for name in part.column_names if name in (text, label)},
        lambda row: f"row {row}",
        types={name: str(schema.field(name).type) for name in part.column_names},
    )
    rows = _of_table(table, part.column_names, text, label, what)
    names = getattr(part.features[label], "names", None)
    if not names:
        return rows
    # Labels are numbers, whose names the data set knows; many sets of the hub hide those of test as -1.
    for row, number in enumerate(rows.labels):
        if not 0 <= number < len(names):
            raise DataError(
                f"{what}: row {row} has the label {number} in column {label!r}, which is none of its {len(names)} classes "
                f"(0 to {len(names) - 1}). Name a split that has labels, as by `test: validation`."
            )
    return replace(rows, labels=[names[number] for number in rows.labels])


def _of_file(path: str, text: str, label: str, base: Path) -> _Split:
    what = f"{KIND} 'table': {path}"
    table = tables.read(existing(settle(path, base), f"{KIND} 'table'"), what)
    rows = _of_table(table, list(table.columns), text, label, what)
    return replace(rows, labels=_in_order_of_numbers(rows.labels)) if table.untyped else rows


def _of_table(table: tables.Table, columns: list[str], text: str, label: str, what: str) -> _Split:
    """The texts and labels of a table, with the kind of each label as it is stored. Raises DataError that names the row."""
    for option, column in (("text", text), ("label", label)):
        if column not in columns:
            raise DataError(f"{what} has no column {column!r} ({option}).{plugins.nearest(column, columns)}")
        if column in table.twice:
            raise DataError(f"{what} has more than one column {column!r} ({option}); give each a name of its own.")
    texts, labels = list(table.columns[text]), list(table.columns[label])
    if not texts:
        raise DataError(f"{what} has no rows.")
    for row, (one, mark) in enumerate(zip(texts, labels, strict=True)):
        if _is_missing(one):
            raise DataError(f"{what}, {table.place(row)} has no text in column {text!r}; fill it in, or drop the row.")
        if not isinstance(one, str):
            raise DataError(
                f"{what}, {table.place(row)} has no text in column {text!r}, but {one!r}, a {type(one).__name__}; name the "
                "column of texts with `text: ...`, or store text."
            )
        if _is_missing(mark):
            raise DataError(
                f"{what}, {table.place(row)} has no label in column {label!r}; fill it in, or drop the row."
            )
        if not _is_plain(mark):
            raise DataError(
                f"{what}, {table.place(row)} has the label {mark!r} in column {label!r} of the type "
                f"{table.types.get(label, type(mark).__name__)}; {_PLAIN}."
            )
        if isinstance(mark, str) != isinstance(labels[0], str):
            raise DataError(
                f"{what}, {table.place(row)} has the label {mark!r} in column {label!r}, a {type(mark).__name__}, where "
                f"row 0 has {labels[0]!r}, a {type(labels[0]).__name__}; store all labels as text, or all as numbers."
            )
    _check_spaces(labels, table, label, what)
    return _Split(texts, labels, lambda row: f"{what}, {table.place(row)}", f" in column {label!r}")


def _in_order_of_numbers(labels: list[str]) -> list[Any]:
    """Labels that are all numbers and read back the same become them: by their order a test split was always drawn."""
    try:
        values = [int(mark) if mark.lstrip("-").isdigit() else float(mark) for mark in labels]
    except ValueError:
        return labels
    if any(isinstance(value, float) and math.isnan(value) for value in values):  # which has no place in an order
        return labels
    return values if all(_label(value) == mark for value, mark in zip(values, labels, strict=True)) else labels


def _is_plain(mark: Any) -> bool:
    return isinstance(mark, str | numbers.Real | np.bool_)


def _is_missing(cell: Any) -> bool:
    """None, text of spaces alone, and what is not a number (NaN differs from itself; pandas' NA is neither)."""
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        return True
    return type(cell).__name__ in ("NAType", "NaTType") or (
        isinstance(cell, float | np.floating) and bool(cell != cell)
    )


def _check_spaces(labels: Sequence[Any], table: tables.Table, label: str, what: str) -> None:
    """Refuses two labels that look the same: they differ by the spaces around them only."""
    first: dict[str, str] = {}
    for row, mark in enumerate(labels):
        if isinstance(mark, str) and first.setdefault(mark.strip(), mark) != mark:
            raise DataError(
                f"{what}, {table.place(row)} has the label {mark!r} in column {label!r}, another row {first[mark.strip()]!r}: "
                "two classes that differ by spaces alone. Write them alike."
            )


def _labelled(name: str, train: _Split, test: _Split) -> LabelledTexts:
    if not train.texts or not test.texts:
        raise DataError(f"{KIND} {name!r}: the {'test' if train.texts else 'train'} split is empty.")
    classes = sorted({_label(one) for one in train.labels})
    if len(classes) < len(set(train.labels)):
        _refuse_alike(train)
    if len(classes) < 2:
        raise DataError(
            f"{train.label(0)}, as all texts of train have the same label: there is nothing to tell apart. "
            f"{'Name the column of labels with `label: ...`, or add' if train.column else 'Add'} texts of another class."
        )
    if len(classes) > 1000 and len(classes) > len(train.labels) // 2:
        raise DataError(
            f"{KIND} {name!r}: {len(classes)} different labels{train.column} in {len(train.labels)} texts: is it that "
            "column?"
        )
    _check_known(test, train, classes)
    for words, split in (("train", train), ("test", test)):
        if len(split.texts) > 1 and len(set(split.texts)) == 1:
            raise DataError(
                f"{KIND} {name!r}: all {len(split.texts)} texts of {words} are the same: is it that column?"
            )
    number = {label: index for index, label in enumerate(classes)}
    return LabelledTexts(
        name,
        tuple(train.texts),
        tuple(number[_label(one)] for one in train.labels),
        tuple(test.texts),
        tuple(number[_label(one)] for one in test.labels),
        tuple(classes),
    )


def _refuse_alike(train: _Split) -> None:
    first: dict[str, int] = {}
    for row, mark in enumerate(train.labels):
        other = first.setdefault(_label(mark), row)
        if train.labels[other] != mark:
            raise DataError(
                f"{train.label(row)}, {train.label(other)}: some labels of train are text and some are numbers that read "
                "alike. Give all as text."
            )


def _check_known(test: _Split, train: _Split, classes: list[str]) -> None:
    """Refuses a label of test that train never shows, with the one of train that it may stand for."""
    row_by_label = {_label(mark): row for row, mark in reversed(list(enumerate(train.labels)))}
    for row, mark in enumerate(test.labels):
        if (words := _label(mark)) in row_by_label:
            continue
        unknown = f"{test.label(row)}, which is in test, but never in train"
        if alike := [one for one in classes if _number(one) == _number(words) is not None]:
            raise DataError(
                f"{unknown}: there, that number is {alike[0]!r} ({train.row(row_by_label[alike[0]])}). Write both alike."
            )
        raise DataError(
            f"{unknown}; mend it, drop that row, or add such texts to train.{plugins.nearest(words, classes[:20])}"
        )


def _number(words: str) -> float | None:
    try:
        return float(words)
    except ValueError:
        return None


def _label(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
