"""The learning curve of a run, as its ``curve.csv`` holds it."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import overload

from ticketsmith.errors import DamagedRunError
from ticketsmith.evidence.results import CurvePoint


class Curve(Sequence[CurvePoint]):
    """The points of a ``curve.csv``, each parsed when somebody asks for it: most commands do not.

    ``content`` is the file, ``place`` its name in errors. Reading a point raises DamagedRunError where the file is not what
    TicketSmith writes.
    """

    def __init__(self, content: bytes, place: str) -> None:
        lines = io.StringIO(content.decode(), newline="")
        self._heading = tuple(next(csv.reader(lines), ()))  # a metric's name may hold commas, quotes, even line ends
        self._rows = lines.read().splitlines()  # numbers only
        self._place = place

    @overload
    def __getitem__(self, index: int) -> CurvePoint: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[CurvePoint]: ...

    def __getitem__(self, index: int | slice) -> CurvePoint | Sequence[CurvePoint]:
        if isinstance(index, slice):
            return [self._point(row) for row in self._rows[index]]
        return self._point(self._rows[index])

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[CurvePoint]:
        return map(self._point, self._rows)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(list(self))

    def _point(self, row: str) -> CurvePoint:
        try:
            step, loss, measured = _columns(self._heading)
            values = row.split(",")
            validation = {name: float(values[at]) for at, name in measured}
            return CurvePoint(int(values[step]), float(values[loss]), validation)
        except (IndexError, ValueError) as error:
            raise DamagedRunError(f"{self._place} is not what TicketSmith writes: {error!r}") from error


@lru_cache(maxsize=64)
def _columns(names: tuple[str, ...]) -> tuple[int, int, tuple[tuple[int, str], ...]]:
    """Where step, training loss and each metric stand in a row."""
    begin = "validation_"
    measured = tuple((at, name.removeprefix(begin)) for at, name in enumerate(names) if name.startswith(begin))
    return names.index("step"), names.index("train_loss"), measured
