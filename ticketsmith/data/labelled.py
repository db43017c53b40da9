"""Labelled texts for classification: a table of the user's own, a data set of the hub, or a function."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ticketsmith import plugins
from ticketsmith.data import hub, tables
from ticketsmith.data.holdout import fraction_count, holdout
from ticketsmith.data.userfiles import existing, settle
from ticketsmith.errors import DataError, TicketSmithError

KIND = "data set"
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


def load(name: str, options: Mapping[str, Any], base: Path) -> LabelledTexts:
    """The labelled texts ``name``: a built-in, or a user's ``package.module:function``, which returns a LabelledTexts or a
    dict with ``train_texts``, ``train_labels``, ``test_texts`` and ``test_labels``.

    Raises RecipeError for a wrong name or option, DataError for what is missing or of the wrong form.
    """
    target = plugins.resolve(KIND, name, BUILTINS)
    given = {"base": base} if "base" in inspect.signature(target).parameters and not plugins.is_dotted(name) else {}
    try:
        made = plugins.build(KIND, name, BUILTINS, options, **given)
    except TicketSmithError:
        raise
    except Exception as error:  # a user's function may fail in any way
        raise DataError(f"{KIND} {name!r} failed: {type(error).__name__}: {error}") from error
    if isinstance(made, LabelledTexts):
        return made
    wanted = ("train_texts", "train_labels", "test_texts", "test_labels")
    if not isinstance(made, Mapping) or set(made) != set(wanted):
        raise DataError(f"{KIND} {name!r} returned {type(made).__name__}; return a dict of {', '.join(wanted)}.")
    return _labelled(name, *(list(made[part]) for part in wanted))


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
    texts, labels = _columns(path, text, label, base)
    if test is not None:
        return _labelled("table", texts, labels, *_columns(test, text, label, base))
    train, held_out = holdout(labels, fraction_count(len(labels), test_fraction), test_seed)
    return _labelled("table", *_chosen(texts, labels, train), *_chosen(texts, labels, held_out))


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
    (train_texts, train_labels), (test_texts, test_labels) = (
        _of_split(part, text, label, f"{KIND} {dataset!r}, split {split!r}")
        for part, split in zip(parts, (train, test), strict=True)
    )
    return _labelled("datasets", train_texts, train_labels, test_texts, test_labels)


def _of_split(part: Any, text: str, label: str, what: str) -> tuple[list[str], list[Any]]:
    table = tables.Table(
        {name: part[name] for name in part.column_names if name in (text, label)}, lambda row: f"row {row}"
    )
    texts, labels = _of_table(table, part.column_names, text, label, what)
    names = getattr(part.features[label], "names", None)
    if not names:
        return texts, labels
    # Labels are numbers, whose names the data set knows; many sets of the hub hide those of test as -1.
    for row, number in enumerate(labels):
        if not 0 <= number < len(names):
            raise DataError(
                f"{what}: row {row} has the label {number} in column {label!r}, which is none of its {len(names)} classes "
                f"(0 to {len(names) - 1}). Name a split that has labels, as by `test: validation`."
            )
    return texts, [names[number] for number in labels]


def _columns(path: str, text: str, label: str, base: Path) -> tuple[list[str], list[Any]]:
    what = f"{KIND} 'table': {path}"
    table = tables.read(existing(settle(path, base), f"{KIND} 'table'"), what)
    texts, labels = _of_table(table, list(table.columns), text, label, what)
    return texts, _in_order_of_numbers(labels) if table.untyped else labels


def _of_table(table: tables.Table, known: list[str], text: str, label: str, what: str) -> tuple[list[str], list[Any]]:
    """The texts and labels of a table, with the kind of each label as it is stored. Raises DataError that names the row."""
    for option, column in (("text", text), ("label", label)):
        if column not in known:
            raise DataError(f"{what} has no column {column!r} ({option}).{plugins.nearest(column, known)}")
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
        if isinstance(mark, list | dict | tuple) or isinstance(mark, str) != isinstance(labels[0], str):
            raise DataError(
                f"{what}, {table.place(row)} has the label {mark!r} in column {label!r}, a {type(mark).__name__}, where "
                f"row 0 has {labels[0]!r}, a {type(labels[0]).__name__}; store all labels as text, or all as numbers."
            )
    _check_spaces(labels, table, label, what)
    return texts, labels


def _in_order_of_numbers(labels: list[str]) -> list[Any]:
    """Labels that are all numbers and read back the same become them: by their order a test split was always drawn."""
    try:
        numbers = [int(mark) if mark.lstrip("-").isdigit() else float(mark) for mark in labels]
    except ValueError:
        return labels
    return numbers if all(_label(number) == mark for number, mark in zip(numbers, labels, strict=True)) else labels


def _is_missing(cell: Any) -> bool:
    """None, text of spaces alone, and what is not a number (NaN differs from itself; pandas' NA is neither)."""
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        return True
    return type(cell).__name__ in ("NAType", "NaTType") or (isinstance(cell, float) and cell != cell)


def _check_spaces(labels: Sequence[Any], table: tables.Table, label: str, what: str) -> None:
    """Refuses two labels that look the same: they differ by the spaces around them only."""
    first: dict[str, str] = {}
    for row, mark in enumerate(labels):
        if isinstance(mark, str) and first.setdefault(mark.strip(), mark) != mark:
            raise DataError(
                f"{what}, {table.place(row)} has the label {mark!r} in column {label!r}, another row {first[mark.strip()]!r}: "
                "two classes that differ by spaces alone. Write them alike."
            )


def _chosen(texts: Sequence[str], labels: Sequence[Any], indices: Any) -> tuple[list[str], list[Any]]:
    return [texts[i] for i in indices], [labels[i] for i in indices]


def _labelled(
    name: str, train_texts: list[str], train_labels: list[Any], test_texts: list[str], test_labels: list[Any]
) -> LabelledTexts:
    if not train_texts or not test_texts:
        raise DataError(f"{KIND} {name!r}: the {'test' if train_texts else 'train'} split is empty.")
    classes = sorted({_label(one) for one in train_labels})
    if len(classes) < len(set(train_labels)):
        raise DataError(
            f"{KIND} {name!r}: some labels of train are text and some are numbers that read alike; give all as text."
        )
    if len(classes) < 2:
        raise DataError(f"{KIND} {name!r}: all texts of train have the same label; there is nothing to tell apart.")
    if len(classes) > 1000 and len(classes) > len(train_labels) // 2:
        raise DataError(
            f"{KIND} {name!r}: {len(classes)} different labels in {len(train_labels)} texts: is it that column?"
        )
    if strange := sorted({_label(one) for one in test_labels} - set(classes)):
        raise DataError(f"{KIND} {name!r}: the label {strange[0]!r} is in test, but never in train.")
    for split, texts in (("train", train_texts), ("test", test_texts)):
        if len(texts) > 1 and len(set(texts)) == 1:
            raise DataError(f"{KIND} {name!r}: all {len(texts)} texts of {split} are the same: is it that column?")
    number = {label: index for index, label in enumerate(classes)}
    return LabelledTexts(
        name,
        tuple(train_texts),
        tuple(number[_label(one)] for one in train_labels),
        tuple(test_texts),
        tuple(number[_label(one)] for one in test_labels),
        tuple(classes),
    )


def _label(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
