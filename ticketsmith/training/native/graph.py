"""A network and its loss as plain data: what the training kernels can run without Python.

Shapes are those of one example, ``(channels, height, width)``; a vector of n features is ``(n, 1, 1)``, so that a linear
layer is a convolution of one pixel. Weights and biases are named as in the module's ``state_dict``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Node:
    """A value: its ``name``, the values that it is made of, and the shape of one example of it."""

    name: str
    inputs: tuple[str, ...]
    shape: Shape


@dataclass(frozen=True)
class Linear(Node):
    """``weight`` is [outputs, inputs]; inputs are counted channel by channel, row by row, as ``flatten`` does."""

    weight: str
    bias: str | None


@dataclass(frozen=True)
class Conv(Node):
    """``weight`` is [outputs, inputs / groups, height, width]; pairs are (vertical, horizontal)."""

    weight: str
    bias: str | None
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    groups: int = 1


@dataclass(frozen=True)
class Relu(Node):
    """max(0, x)."""


@dataclass(frozen=True)
class Pool(Node):
    """The maximum or mean over windows; padding counts in neither."""

    kind: Literal["max", "mean"]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Dropout(Node):
    """Zero with probability ``rate``, else divided by 1 - rate; the identity outside of training."""

    rate: float


@dataclass(frozen=True)
class BatchNorm(Node):
    """Over all examples and pixels of a channel (Ioffe and Szegedy 2015); names are those of the ``state_dict``."""

    weight: str
    bias: str
    running_mean: str
    running_var: str
    num_batches_tracked: str
    momentum: float
    eps: float


@dataclass(frozen=True)
class Add(Node):
    """The sum of two values of one shape."""


@dataclass(frozen=True)
class Graph:
    """Nodes in an order in which they can be computed. The value ``input`` is an example; the last node is what ``loss``
    judges: the mean over a batch of the cross entropy with a label, or of the squared error with a vector. ``bfloat16``: what
    nodes of a step hand on is rounded to it, and so is what products multiply: weights, and gradients of outputs. Sums and the
    rest are float32."""

    input_shape: Shape
    nodes: tuple[Node, ...]
    loss: Literal["cross_entropy", "squared_error"]
    bfloat16: bool = False
