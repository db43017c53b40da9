"""Data sets of the Hugging Face hub, or folders that the library ``datasets`` wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ticketsmith import plugins
from ticketsmith.data.dataset import Text
from ticketsmith.data.extras import need
from ticketsmith.data.userfiles import settle
from ticketsmith.errors import DataError

_WHAT = "data set"


def load(
    dataset: str, subset: str | None = None, text: str = "text", split: str = "train", revision: str | None = None
) -> Text:
    """The column ``text`` of a split, as one text; a line break ends each row. Raises DataError."""
    (rows,) = read(dataset, subset, [split], revision)
    if text not in rows.column_names:
        raise DataError(f"{_WHAT} {dataset!r} has no column {text!r} (text).{plugins.nearest(text, rows.column_names)}")
    parts = [row for row in rows[text] if isinstance(row, str)]
    if not any(parts):
        raise DataError(f"{_WHAT} {dataset!r} has no text in column {text!r}.")
    return Text("datasets", "".join(part if part.endswith("\n") else f"{part}\n" for part in parts))


def read(
    dataset: str, subset: str | None, splits: list[str], revision: str | None = None, base: Path | None = None
) -> list[Any]:
    """Splits of a data set by name, or of a folder that ``save_to_disk`` wrote. Raises DataError."""
    library = need("datasets", f"{_WHAT} 'datasets'", extra="hf")
    library.disable_progress_bars()
    folder = Path(settle(dataset, base))
    try:
        if folder.is_dir():
            dataset_dict = library.load_from_disk(str(folder))
        else:
            dataset_dict = library.load_dataset(dataset, subset, revision=revision)
    except Exception as error:  # the library and its network may fail in any way
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise DataError(
            f"{_WHAT} {dataset!r} cannot be loaded ({first.strip()}). Check its name and the network, or name a folder that "
            "`save_to_disk` wrote."
        ) from error
    for split in splits:
        if split not in dataset_dict:
            raise DataError(f"{_WHAT} {dataset!r} has no split {split!r}.{plugins.nearest(split, list(dataset_dict))}")
    return [dataset_dict[split] for split in splits]
