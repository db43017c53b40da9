"""Labelled texts for classification: a table of the user's own, a data set of the hub, or a function."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ticketsmith import plugins
from ticketsmith.data import hub
from ticketsmith.data.extras import need
from ticketsmith.data.holdout import fraction_count, holdout
from ticketsmith.data.sizes import check_table
from ticketsmith.data.userfiles import existing, settle
from ticketsmith.errors import DataError, TicketSmithError
from ticketsmith.memory import require_file

if TYPE_CHECKING:
    import pandas as pd

KIND = "data set"
BUILTINS = {
    "docstrings": "ticketsmith.data.docstrings:load",
    "table": "ticketsmith.data.labelled:table",
    "datasets": "ticketsmith.data.labelled:datasets",
}
_READERS: dict[str, tuple[str, dict[str, Any]]] = {
    ".csv": ("read_csv", {"keep_default_na": False}),
    ".tsv": ("read_csv", {"keep_default_na": False, "sep": "\t"}),
    ".json": ("read_json", {"dtype": False}),
    ".jsonl": ("read_json", {"dtype": False, "lines": True}),
    ".parquet": ("read_parquet", {}),
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
    texts, labels = _of_columns(part, text, label, what)
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
    file = existing(settle(path, base), f"{KIND} 'table'")
    if file.suffix.lower() not in _READERS:
        raise DataError(f"{KIND} 'table': {path} is of no known kind; known are {', '.join(_READERS)}.")
    import pandas as pd

    reader, options = _READERS[file.suffix.lower()]
    if reader == "read_parquet":
        need("pyarrow", "a Parquet file")
    require_file(file)
    try:
        if reader == "read_parquet":
            check_table(file)
        frame: pd.DataFrame = getattr(pd, reader)(file, **options)
    except (OSError, ValueError, pd.errors.ParserError) as error:
        raise DataError(f"{KIND} 'table': {path} cannot be read: {error}") from error
    return _of_columns({column: frame[column].tolist() for column in frame}, text, label, f"{KIND} 'table': {path}")


def _of_columns(columns: Any, text: str, label: str, what: str) -> tuple[list[str], list[Any]]:
    known = list(columns.column_names if hasattr(columns, "column_names") else columns)
    for option, column in (("text", text), ("label", label)):
        if column not in known:
            raise DataError(
                f"{what} has no column {column!r} ({option}).{plugins.nearest(column, [str(k) for k in known])}"
            )
    texts, labels = list(columns[text]), list(columns[label])
    for row, (one, mark) in enumerate(zip(texts, labels, strict=True)):
        if not isinstance(one, str) or not one.strip():
            raise DataError(f"{what}: row {row} has no text in column {text!r}.")
        if mark is None or mark == "" or mark != mark:  # NaN differs from itself
            raise DataError(f"{what}: row {row} has no label in column {label!r}.")
    return texts, labels


def _chosen(texts: Sequence[str], labels: Sequence[Any], indices: Any) -> tuple[list[str], list[Any]]:
    return [texts[i] for i in indices], [labels[i] for i in indices]


def _labelled(
    name: str, train_texts: list[str], train_labels: list[Any], test_texts: list[str], test_labels: list[Any]
) -> LabelledTexts:
    classes = sorted({_label(one) for one in train_labels})
    if len(classes) < 2:
        raise DataError(f"{KIND} {name!r}: all texts of train have the same label; there is nothing to tell apart.")
    if len(classes) > 1000 and len(classes) > len(train_labels) // 2:
        raise DataError(
            f"{KIND} {name!r}: {len(classes)} different labels in {len(train_labels)} texts: is it that column?"
        )
    if strange := sorted({_label(one) for one in test_labels} - set(classes)):
        raise DataError(f"{KIND} {name!r}: the label {strange[0]!r} is in test, but never in train.")
    number = {label: index for index, label in enumerate(classes)}
    if not test_texts:
        raise DataError(f"{KIND} {name!r}: the test split is empty.")
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
