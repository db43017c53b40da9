"""A table of the user's own: named columns of CSV, TSV, JSON, JSON lines or Parquet.

Cells of CSV and TSV are text as they stand: nothing in such a file says that ``0101`` is a number or ``NA`` is none.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ticketsmith.data import sizes, text
from ticketsmith.errors import DataError
from ticketsmith.memory import require_file

if TYPE_CHECKING:
    import pandas as pd

_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_NAMES = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "'|'"}
KINDS = (*_SEPARATORS, ".json", ".jsonl", ".parquet")


@dataclass(frozen=True, eq=False)
class Table:
    """``columns``: the cells of each. ``place``: where a row, counted from 0, is found in the file, in words.

    ``untyped``: its file holds text alone. ``types``: those of its columns, where the file tells. ``twice``: names that more
    than one column has.
    """

    columns: dict[str, list[Any]]
    place: Callable[[int], str]
    untyped: bool = False
    types: Mapping[str, str] = field(default_factory=dict)
    twice: frozenset[str] = frozenset()


def read(file: Path, what: str) -> Table:
    """The table in a file. Raises DataError that begins with ``what``."""
    kind = file.suffix.lower()
    require_file(file)
    if kind not in KINDS:
        raise DataError(f"{what} is of no known kind; known are {', '.join(KINDS)}.")
    if kind in _SEPARATORS:
        return _separated(file, _SEPARATORS[kind], what)
    import pandas as pd

    types: dict[str, str] = {}
    try:
        if kind == ".parquet":
            stored = sizes.read_table(file)
            types = {column.name: str(column.type) for column in stored.schema}
            frame: pd.DataFrame = stored.to_pandas(use_threads=False)
        else:
            content = io.StringIO(_content(file, what))
            frame = pd.read_json(content, lines=kind == ".jsonl", dtype=False, convert_dates=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{what} cannot be read: {error}") from error
    names = [str(name) for name in frame.columns]
    columns = {name: _cells(frame, place) for place, name in enumerate(names)}
    return Table(columns, _row, types=types, twice=_twice(names))


def _content(file: Path, what: str) -> str:
    """The text of a file, without the byte order mark that some programs begin it with."""
    return text.read(file, what).removeprefix("\ufeff")


def _twice(names: Iterable[str]) -> frozenset[str]:
    return frozenset(name for name, count in Counter(names).items() if count > 1)


def _cells(frame: pd.DataFrame, place: int) -> list[Any]:
    cells: list[Any] = frame.iloc[:, place].tolist()
    return cells


def _row(row: int) -> str:
    return f"row {row}"


def _separated(file: Path, separator: str, what: str) -> Table:
    import pandas as pd

    content = _content(file, what)
    options: dict[str, Any] = {"header": None, "index_col": False, "dtype": str, "keep_default_na": False}
    try:
        frame = pd.read_csv(io.StringIO(content), sep=separator, **options)
    except (ValueError, pd.errors.ParserError) as error:
        reason = str(error).strip().rpartition("C error: ")[2]
        raise DataError(
            f"{what} cannot be read: {reason}. A cell that holds one of its {_NAMES[separator]}, a quote or a line break "
            'stands in quotes, and a quote in it is doubled: "".'
        ) from error
    header = frame.iloc[0].tolist()
    if len(header) == 1 and (others := [other for other in _NAMES if other in header[0]]):
        raise DataError(
            f"{what} has one column, {header[0]!r}: its columns are separated by {_NAMES[others[0]]}, where {file.suffix} "
            f"has {_NAMES[separator]}. Save it with {_NAMES[separator]}."
        )
    if len(frame) == 1:
        raise DataError(f"{what} has a header, and no rows.")
    rows = frame.iloc[1:]
    return Table(
        {name: _cells(rows, place) for place, name in enumerate(header)},
        lambda row: f"line {_line(content, separator, row)}, row {row}",
        untyped=True,
        twice=_twice(header),
    )


def _line(content: str, separator: str, row: int) -> int | str:
    """The line at which a row begins, counted from 1; blank lines and line breaks in cells count too."""
    reader = csv.reader(io.StringIO(content, newline=""), delimiter=separator)
    begin, rows = 1, -1  # the header is no row
    try:
        for cells in reader:
            if cells and rows == row:
                return begin
            rows += bool(cells)
            begin = reader.line_num + 1
    except csv.Error:
        pass
    return "unknown"
