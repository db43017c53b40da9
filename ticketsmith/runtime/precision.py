"""Weights of fewer bits: how they are rounded, and what that costs in accuracy. NumPy alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ticketsmith.errors import RecipeError
from ticketsmith.runtime.formats import stored
from ticketsmith.runtime.graph import PRODUCTS, Graph
from ticketsmith.runtime.model import PRECISIONS, Model
from ticketsmith.sparse.values import LEVELS, steps, to_bfloat16, whole

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class LowPrecisionError:
    """What rounding changes, on some inputs: the largest difference of an output, as it is and as a part of the largest
    output; and how often the largest of the last axis stays the same (top-1)."""

    precision: str
    max_error: float
    relative_error: float
    top1_agreement: float


def low_precision_error(
    graph: Graph, inputs: Any, precision: str, choices: Mapping[str, str] | None = None
) -> LowPrecisionError:
    """How far ``graph`` with weights of ``precision`` is from itself in float32, over all its outputs.

    ``inputs`` is an array ``[batch, ...]``, or several for a model of several inputs. Raises RecipeError for a precision that
    is not known, InputError for inputs that do not fit.
    """
    arrays = tuple(inputs) if isinstance(inputs, (list, tuple)) else (inputs,)
    exact = _outputs(Model(graph, choices), arrays)
    near = _outputs(Model(rounded(graph, precision), choices, precision=precision), arrays)
    error = max((float(np.abs(a - b).max(initial=0.0)) for a, b in zip(exact, near, strict=True)), default=0.0)
    largest = max((float(np.abs(a).max(initial=0.0)) for a in exact), default=0.0)
    classes = exact[0].size and exact[0].ndim > 1
    same = np.mean(exact[0].argmax(-1) == near[0].argmax(-1)) if classes else 1.0
    return LowPrecisionError(precision, error, error / largest if largest else 0.0, float(same))


def _outputs(model: Model, inputs: Sequence[Any]) -> tuple[Floats, ...]:
    outputs = model(*inputs)
    return outputs if isinstance(outputs, tuple) else (outputs,)


def low_tensors(graph: Graph, precision: str) -> set[str]:
    """The tensors that have fewer bits: the weights of products, and with bfloat16 also the tables of embeddings."""
    if precision not in PRECISIONS:
        raise RecipeError(f"precision {precision!r} is not one of {', '.join(PRECISIONS)}.")
    if precision == "float32":
        return set()
    names = {node.weights["weight"] for node in graph.nodes if node.op in PRODUCTS}
    if precision == "bfloat16":
        names |= {node.weights["table"] for node in graph.nodes if node.op == "embedding"}
    return names


def by_tensor(graph: Graph, precision: str | Mapping[str, str]) -> dict[str, str]:
    """The precision of each tensor that has fewer bits. ``precision`` is that of all which can have it, or of single ones by
    name. Raises RecipeError for a precision that is not known, or a tensor that cannot have it."""
    if isinstance(precision, str):
        return dict.fromkeys(sorted(low_tensors(graph, precision)), precision)
    for name, kind in precision.items():
        if kind != "float32" and name not in low_tensors(graph, kind):
            raise RecipeError(f"{name!r} is no tensor of this network that can be {kind}.")
    return {name: kind for name, kind in precision.items() if kind != "float32"}


def rounded(graph: Graph, precision: str) -> Graph:
    """``graph`` with the values that a file of this precision holds, as float32."""
    tensors, dtype = dict(graph.tensors), stored(precision)
    for name in low_tensors(graph, precision):
        tensor = tensors[name]
        tensors[name] = from_whole(*to_whole(tensor, dtype)) if dtype in LEVELS else from_bfloat16(to_bfloat16(tensor))
    return replace(graph, tensors=tensors)


def from_bfloat16(values: NDArray[np.uint16]) -> Floats:
    """Upper halves as the float32 that they stand for."""
    wide: Floats = (values.astype(np.uint32) << 16).view(np.float32)
    return wide


def to_whole(tensor: Floats, dtype: str) -> tuple[NDArray[np.int8], Floats]:
    """Whole numbers of 8 or 4 bits, of the shape of ``tensor``, and what one of them is worth in each row (of the first axis)."""
    scales = steps(tensor, dtype)
    numbers = whole(tensor, scales.reshape(-1, *[1] * (tensor.ndim - 1)), LEVELS[dtype])
    return numbers.astype(np.int8), scales


def from_whole(values: NDArray[np.int8], scales: Floats) -> Floats:
    """What ``to_whole`` stands for."""
    with np.errstate(all="ignore"):  # a stranger's scales may be anything
        wide: Floats = values.astype(np.float32) * scales.reshape(-1, *[1] * (values.ndim - 1))
    return wide
