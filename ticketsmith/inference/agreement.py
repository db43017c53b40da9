"""No timing without the right answer: a runtime's outputs against those of eager PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

from ticketsmith.errors import TicketSmithError


class WrongOutputError(TicketSmithError):
    """A runtime computes something else than the model; it must not be timed, nor served."""


def max_error(expected: Tensor, actual: Tensor, tolerance: float, what: str, floor: float = 1.0) -> float:
    """The largest absolute difference of two outputs of any one shape.

    ``tolerance`` is relative to the largest expected value when that is above ``floor``, to ``floor`` otherwise. Raises
    WrongOutputError, naming ``what`` was run, when the shapes differ, or the values by more than that.
    """
    if actual.shape != expected.shape:
        raise WrongOutputError(f"{what} gives outputs of shape {list(actual.shape)}, the model {list(expected.shape)}.")
    if not expected.numel():
        return 0.0
    exact = expected.double()
    error = float((actual.to(exact.device).double() - exact).abs().max())
    limit = tolerance * max(floor, float(exact.abs().max()))
    if not error <= limit:  # also refuses NaN
        raise WrongOutputError(
            f"{what} gives other outputs than the model: they differ by up to {error:.2g}, {limit:.2g} is allowed. "
            "It was not timed."
        )
    return error


def same_class(expected: Tensor, actual: Tensor) -> float | None:
    """The share of samples (0..1) whose largest output is the same one; None for outputs that are no ``[batch, classes]``."""
    if expected.dim() != 2 or expected.shape[1] < 2 or not len(expected):
        return None
    return float((expected.argmax(1) == actual.to(expected.device).argmax(1)).double().mean())


def finite(outputs: Tensor) -> bool:
    """Whether a model's outputs can be compared with anything."""
    return bool(torch.isfinite(outputs).all())
