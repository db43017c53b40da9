"""The break-even sparsity: from where on skipping zeros is surely faster than multiplying them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["always", "below", "at", "between", "none", "unclear"]


@dataclass(frozen=True)
class Point:
    """A speed-up over dense with its interval, measured at one sparsity (0..1)."""

    sparsity: float
    speedup: float
    low: float
    high: float


@dataclass(frozen=True)
class BreakEven:
    """Where a curve of measured speed-ups passes 1.

    ``always``: every sparsity that was measured is surely faster, and none of the weights need go. ``below``: so is the
    mildest sparsity that was measured, ``high``. ``at``: at ``sparsity``, within ``low`` .. ``high``, interpolated between
    one that is surely slower and one that is surely faster. ``between``: somewhere in ``low`` .. ``high`` (``low`` None: no
    bound), where measurements in between cannot tell. ``none``: no sparsity up to ``high`` is surely faster. ``unclear``:
    a milder one is, and the sparsest is not.
    """

    kind: Kind
    sparsity: float | None = None
    low: float | None = None
    high: float | None = None


def break_even(points: Sequence[Point]) -> BreakEven | None:
    """From measured speed-ups to the break-even; None without a measurement of a sparse network.

    The logarithm of the speed-up is interpolated over that of the density: where a call costs what its weights cost, that
    is a straight line. Only a segment whose ends are both clear is interpolated.
    """
    curve = sorted(points, key=lambda point: point.sparsity)
    if not curve or curve[-1].sparsity <= 0:
        return None
    sure = [point.low > 1.0 for point in curve]
    if not any(sure):
        return BreakEven("none", high=curve[-1].sparsity)
    if not sure[-1]:
        return BreakEven("unclear")
    first = len(sure) - next((index for index, good in enumerate(reversed(sure)) if not good), len(sure))
    if first == 0:
        return BreakEven("always") if curve[0].sparsity <= 0 else BreakEven("below", high=curve[0].sparsity)
    before, after = curve[first - 1], curve[first]
    if before.high < 1.0:
        middle, low, high = (_crossing(before, after, name) for name in ("speedup", "high", "low"))
        return BreakEven("at", middle, low, high)
    slower = [point.sparsity for point in curve[:first] if point.high < 1.0]
    return BreakEven("between", low=max(slower, default=None), high=after.sparsity)


def _crossing(before: Point, after: Point, name: str) -> float:
    """The sparsity at which the line through one bound of two points passes 1."""
    one, other = math.log(getattr(before, name)), math.log(getattr(after, name))
    share: float = -one / (other - one)
    if after.sparsity >= 1.0:
        return before.sparsity + share * (after.sparsity - before.sparsity)
    densities = math.log1p(-before.sparsity), math.log1p(-after.sparsity)
    return -math.expm1((1.0 - share) * densities[0] + share * densities[1])
