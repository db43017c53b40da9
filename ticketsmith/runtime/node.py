"""One operation of a graph, and what it may hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ticketsmith.errors import TicketSmithError

Shape = tuple[int, ...]

ACTIVATIONS = (
    "linear", "relu", "gelu", "gelu_tanh", "silu", "sigmoid", "tanh", "relu6", "hard_swish", "hard_sigmoid", "exp", "log",
    "sqrt", "erf", "sin", "cos", "abs",
)  # fmt: skip

MOST_AXES = 6
MOST_ELEMENTS = 2**27
"""Of one value: half a GiB. No network that is meant to be served comes near; a malicious file may."""

_LARGEST = float(np.finfo(np.float32).max)


class GraphError(TicketSmithError):
    """A graph makes no sense: a shape, an attribute or a name is wrong; the message says where."""


@dataclass(frozen=True)
class Step:
    """What makes a graph the step of a session: ``tokens`` new ones of each of ``batch`` sequences, and room for
    ``capacity`` in all. The columns of a sequence of values are then ``batch * tokens``."""

    batch: int
    tokens: int
    capacity: int


@dataclass(frozen=True)
class Node:
    """One operation. ``weights`` maps its parameters to names of tensors; ``inputs`` and ``output`` name values."""

    op: str
    inputs: tuple[str, ...]
    output: str
    weights: Mapping[str, str] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def numbers(self, name: str, count: int, low: int = 0) -> tuple[int, ...]:
        """The attribute ``name`` as ``count`` whole numbers of at least ``low``."""
        value = self.attributes.get(name)
        listed = [value] * count if type(value) is int else value
        if not isinstance(listed, (list, tuple)) or len(listed) != count:
            raise GraphError(f"{self}: {name} needs {count} whole numbers, not {value!r}.")
        for number in listed:
            if type(number) is not int or not low <= number <= 2**20:
                raise GraphError(f"{self}: {name} has {number!r}: not a whole number between {low} and {2**20}.")
        return tuple(listed)

    def number(self, name: str, low: int = 0) -> int:
        """The attribute ``name`` as a whole number of at least ``low``."""
        return self.numbers(name, 1, low)[0]

    def real(self, name: str) -> float:
        """The attribute ``name`` as a number that float32 can hold."""
        value = self.attributes.get(name)
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not abs(value) <= _LARGEST:
            raise GraphError(f"{self}: {name} is {value!r}, not a number of float32.")
        return float(value)

    @property
    def activation(self) -> str:
        """One of ``ACTIVATIONS``."""
        value = self.attributes.get("activation", "linear")
        if value not in ACTIVATIONS:
            raise GraphError(f"{self}: unknown activation {value!r}.")
        return str(value)

    @property
    def residual(self) -> str | None:
        """The value that a product adds before its activation."""
        return self.inputs[1] if "weight" in self.weights and len(self.inputs) > 1 else None

    def __str__(self) -> str:
        return f"{self.op} {self.output!r}"
