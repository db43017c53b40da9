"""Looks: at how many replicates a gate may be asked, and with what error each time, so that all together keep the promise.

Who looks at 3, then at 5, then at 8 replicates, each time with an error of 5 %, is wrong three times as often as they say.
Here the error is shared. Looks that were declared before the first one have the same error each, the largest with which the
chance that any of them passes at the margin is the whole error (Pocock 1977), exactly for paired t statistics of normal
differences. Looks that nobody declared have what is kept for them: a fifth of the error again, of which the k-th takes
1 / (k (k + 1)), so that however many follow, the sum holds (a union bound: valid at any time, under any rule of stopping).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from math import sqrt
from typing import TYPE_CHECKING, Any

from ticketsmith.evidence.results import Result
from ticketsmith.evidence.variants import DENSE
from ticketsmith.evidence.verdicts import Gate, GatePolicy

if TYPE_CHECKING:
    import numpy as np

UNDECLARED = 0.2
"""The error of all looks that were not declared, as a part of the declared ones': a promise of 95 % becomes one of 94 %."""
MOST = 1000
"""The largest number of replicates at which a look may be declared."""


@dataclass(frozen=True)
class Look:
    """One time that a gate is asked: with how many ``replicates``, and with what one-sided ``error``."""

    replicates: int
    error: float
    declared: bool = True


def schedule(
    replicates: int, error: float, declared: Sequence[int] = (), shown: Sequence[int] = ()
) -> tuple[Look, ...]:
    """The looks up to the one at ``replicates``, in the order in which they were or are taken.

    ``error`` is that of all declared ones. ``declared`` are increasing numbers of replicates; without any, ``replicates`` is
    the one look. ``shown`` are the numbers of replicates at which verdicts were shown before, in order; at fewer than the first
    that was declared, nothing was decided.
    """
    numbers = tuple(declared) or (replicates,)
    each = nominal_error(numbers, error)
    looks = [Look(number, each) for number in numbers if number <= replicates]
    others = [number for number in dict.fromkeys((*shown, replicates)) if number not in numbers]
    looks += [
        Look(number, _undeclared_error(error, k), declared=False)
        for k, number in enumerate(others, start=1)
        if number == replicates or numbers[0] < number < replicates
    ]
    return tuple(looks)


def _undeclared_error(error: float, k: int) -> float:
    """Of the ``k``-th look that nobody declared, beside the ``error`` of those that were."""
    return UNDECLARED * error / (k * (k + 1))


def later_error(
    replicates: int, now: int, error: float, declared: Sequence[int] = (), shown: Sequence[int] = ()
) -> float | None:
    """The error of a look at ``replicates`` that comes after one at ``now``; None where another is declared to come first."""
    numbers = tuple(declared) or (now,)
    if replicates not in numbers and replicates < numbers[-1]:
        return None
    if replicates in numbers:
        return nominal_error(numbers, error)
    return _undeclared_error(error, len({*shown, now, replicates}.difference(numbers)))


def promise(confidence: float, declared: bool = True) -> float:
    """The confidence that holds over all looks together, where all were ``declared``, and where they were not."""
    return confidence if declared else 1 - (1 - confidence) * (1 + UNDECLARED)


@dataclass(frozen=True)
class Record:
    """A look that was taken: what a store remembers of it. ``declared`` are the looks that were declared by then, ``dense``
    the keys of the dense runs that it compared with: a look at other networks is another experiment's. ``gates`` are those
    that were asked, none where that is not known."""

    replicates: int
    declared: tuple[int, ...]
    dense: tuple[str, ...]
    gates: tuple[Gate, ...] = ()


def with_history(policy: GatePolicy, records: Iterable[Record], results: Sequence[Result]) -> GatePolicy:
    """The policy with the looks that were declared before the first verdict on these networks, and those that were taken.

    ``records`` are in the order of time. What is declared after a verdict was shown declares nothing; of gates that were
    changed since, those that were asked first are ``agreed``.
    """
    dense = {run.key for run in results if run.variant == DENSE}
    own = [record for record in records if dense & set(record.dense)]
    if not own:
        return replace(policy, shown=())
    shown = tuple(dict.fromkeys(record.replicates for record in own))
    agreed = own[0].gates if set(own[0].gates) != set(policy.gates) else ()
    return replace(policy, looks=own[0].declared or policy.looks, shown=shown, agreed=agreed)


COARSE = 0.2
"""The part of a search's error that its coarse levels have; those between them have the rest."""


def error_of(confidence: float, level: int, deepest: int, coarse: int = 0) -> float:
    """The error of one level over all of its looks.

    A search with ``coarse`` rounds a step walks two fixed sequences: the coarse levels (multiples of ``coarse``, and the
    ``deepest``), and then those of one gap. A false claim needs the first untrue level of one of them to pass, so that their
    errors add up; a coarse level that is untrue is mostly far beyond the cliff, so that little error does for them.
    """
    error = 1 - confidence
    if not coarse:
        return error
    return error * (COARSE if level % coarse == 0 or level == deepest else 1 - COARSE)


@lru_cache(maxsize=256)
def nominal_error(looks: tuple[int, ...], error: float) -> float:
    """The one-sided error of each of ``looks``, such that at the margin any of them passes with a chance of ``error``.

    With differences from the margin x1, x2, ... that are independent and normal with mean 0, the cosine c of the angle
    between (x1, ..., xn) and (1, ..., 1) says all that the t statistic of n of them does. It is independent of their length,
    since their direction is uniform on the sphere, so that from look to look it is a Markov chain. Its distribution, less what
    has passed, is carried along on a grid: right to four digits. Raises ValueError for looks that do not increase from 2 on.
    """
    if len(looks) == 1:
        return error
    if not looks or looks[0] < 2 or any(b <= a for a, b in pairwise(looks)) or looks[-1] > MOST:
        raise ValueError(f"looks are increasing numbers of replicates from 2 to {MOST}, not {list(looks)}")
    steps = [_transition(before, after) for before, after in pairwise(looks)]
    low, high = error / len(looks), error
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (low, middle) if _any_pass(looks, steps, middle) > error * _SURE else (middle, high)
    return low


_SURE = 0.995
"""What the grid may be wrong by, on the safe side."""
_CELLS = 600
"""Of the grid of angles between -90° and 90°, in which probabilities are kept."""


def _any_pass(looks: Sequence[int], steps: Sequence[Any], error: float) -> float:
    """The chance that any look passes when each has this ``error``."""
    import numpy as np
    from scipy.special import stdtr, stdtrit

    edges = np.linspace(-np.pi / 2, np.pi / 2, _CELLS + 1)
    mass = np.diff(stdtr(looks[0] - 1, sqrt(looks[0] - 1) * np.tan(edges)))
    passed = 0.0
    for index, number in enumerate(looks):
        if index:
            mass = mass @ steps[index - 1]
        limit = np.arctan(stdtrit(number - 1, error) / sqrt(number - 1))
        share = np.clip((limit - edges[:-1]) / np.diff(edges), 0, 1)  # of each cell, the part that passes
        passed += float((mass * share).sum())
        mass = mass * (1 - share)
    return passed


def _transition(before: int, after: int) -> np.ndarray[Any, Any]:
    """The chances to come from each cell at ``before`` differences to each at ``after``.

    The new differences add their sum, √m·u, and their length. Of the whole length at ``after``, b is the part of what is not
    u that was there before, and y = u / √rest: Beta and t variables, independent of each other and of the angle.
    """
    import numpy as np
    from scipy.special import betaincinv, stdtrit

    n, m = before, after - before
    middles = (np.arange(_CELLS) + 0.5) * np.pi / _CELLS - np.pi / 2
    chances = (np.arange(200) + 0.5) / 200
    y = stdtrit(n + m - 1, chances) / sqrt(n + m - 1)
    b = betaincinv(n / 2, (m - 1) / 2, (np.arange(24) + 0.5) / 24) if m > 1 else np.ones(1)
    matrix = np.zeros((_CELLS, _CELLS))
    for part in b:
        cosine = (sqrt(n * part) * np.sin(middles)[:, None] + sqrt(m) * y) / (sqrt(n + m) * np.sqrt(1 + y**2))
        place = (np.arcsin(np.clip(cosine, -1, 1)) / np.pi + 0.5) * _CELLS - 0.5
        left = np.clip(np.floor(place).astype(int), 0, _CELLS - 2)
        share = np.clip(place - left, 0, 1)
        rows = np.broadcast_to(np.arange(_CELLS)[:, None], place.shape)
        for cell, weight in ((left, 1 - share), (left + 1, share)):
            matrix += np.bincount((rows * _CELLS + cell).ravel(), weight.ravel(), _CELLS**2).reshape(_CELLS, _CELLS)
    return matrix / (len(b) * len(y))
