"""No timing without the right answer: a runtime's outputs against what the model says."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ticketsmith.errors import TicketSmithError


class WrongOutputError(TicketSmithError):
    """A runtime computes something else than the model; it must not be timed, nor served, nor exported."""


@dataclass(frozen=True, eq=False)
class Reference:
    """What a model says: ``plain`` in float32 by ``library``, and ``exact`` in float64, which is None where that could not be
    had. ``exact_name`` says by what."""

    plain: Tensor
    library: str
    exact: Tensor | None = None
    exact_name: str = ""

    @property
    def name(self) -> str:
        """What runtimes are compared with, as a reader is told of it."""
        return f"{self.library} in float32" if self.exact is None else self.exact_name


_FARTHER = 2.0
"""Than the library in float32 from float64: rounding is a matter of luck, and a runtime may have so much less of it."""

_MOST_FARTHER = 0.05
"""Of the largest output: farther from float64 than this is wrong, however far the library itself may be."""


def judged(reference: Reference, actual: Tensor, tolerance: float, what: str, floor: float = 1.0) -> float:
    """The largest absolute difference of an output from what the model says, in float64 where that is known.

    ``tolerance`` is relative to the largest expected value when that is above ``floor``, to ``floor`` otherwise. A runtime may
    also be as far from float64 as the model's own library is in float32, and somewhat farther. Raises WrongOutputError, naming
    ``what`` was run, when the shapes differ, or the values by more than that.
    """
    plain, exact = reference.plain.double(), reference.exact
    if actual.shape != plain.shape:
        raise WrongOutputError(
            f"{what} gives outputs of shape {list(actual.shape)}, {reference.library} {list(plain.shape)}."
        )
    if not plain.numel():
        return 0.0
    outputs = actual.to(plain.device).double()
    largest = max(floor, float(plain.abs().max()))
    difference, limit = _distance(outputs, plain), tolerance * largest
    if exact is None:
        if difference <= limit:  # not for NaN
            return difference
        raise WrongOutputError(
            f"{what} gives other outputs than {reference.library}: they differ by up to {difference:.2g}, {limit:.2g} is "
            "allowed."
        )
    error, own = _distance(outputs, exact), _distance(plain, exact)
    allowed = max(limit, min(_FARTHER * own, _MOST_FARTHER * largest))
    if error <= allowed or difference <= limit:
        return error
    raise WrongOutputError(
        f"{what} gives other outputs than {reference.library}: they differ by up to {difference:.2g}. From "
        f"{reference.exact_name} they differ by {error:.2g}, {reference.library} itself by {own:.2g}; {allowed:.2g} is "
        "allowed."
    )


def _distance(one: Tensor, other: Tensor) -> float:
    return float((one - other.to(one.device)).abs().max())


def same_class(expected: Tensor, actual: Tensor) -> float | None:
    """The share of samples (0..1) whose largest output is the same one; None for outputs that are no ``[batch, classes]``."""
    if expected.dim() != 2 or expected.shape[1] < 2 or not len(expected):
        return None
    return float((expected.argmax(1) == actual.to(expected.device).argmax(1)).double().mean())


def finite(outputs: Tensor) -> bool:
    """Whether a model's outputs can be compared with anything."""
    return bool(torch.isfinite(outputs).all())
