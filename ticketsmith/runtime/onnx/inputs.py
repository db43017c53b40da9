"""Inputs for ONNX models whose data nobody has at hand: whole numbers from the range that the model can take.

Needs ``onnx``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

_CARRIERS = {
    "Cast", "CastLike", "Identity", "Unsqueeze", "Squeeze", "Reshape", "Flatten", "Transpose", "Expand", "Tile", "Slice",
    "Split", "Gather", "Concat", "Pad", "DynamicSlice",
}  # fmt: skip
"""Operators whose outputs are elements of their first input (or of all, for Concat)."""

_TABLES = {"Gather": {1: 0}, "GatherElements": {1: 0}, "EmbedLayerNormalization": {0: 2, 1: 4}}
"""Which input holds places, and which one is the table that they are places of."""


def ranges(proto: Any) -> dict[str, int]:
    """Of the inputs that are places in tables (tokens, positions, indices): how many rows the smallest table has."""
    sizes = {tensor.name: tuple(tensor.dims) for tensor in proto.graph.initializer}
    sizes |= {node.output[0]: _constant_shape(node) for node in proto.graph.node if node.op_type == "Constant"}
    inferred: dict[str, tuple[int, ...]] | None = None
    carried = {port.name: {port.name} for port in proto.graph.input if port.name not in sizes}
    limits: dict[str, int] = {}
    for node in proto.graph.node:
        for place, table in _TABLES.get(node.op_type, {}).items():
            sources = carried.get(node.input[place], set()) if place < len(node.input) else set()
            if not sources or table >= len(node.input):
                continue
            name = node.input[table]
            if name not in sizes and inferred is None:
                inferred = _inferred(proto)
            shape = sizes.get(name) or (inferred or {}).get(name, ())
            axis = next((one.i for one in node.attribute if one.name == "axis"), 0)
            size = shape[axis] if -len(shape) <= axis < len(shape) else 0
            for source in sources if size > 0 else ():
                limits[source] = min(size, limits.get(source, size))
        if node.op_type == "OneHot" and len(node.input) > 1:
            depth = _number(proto, node.input[1])
            for source in carried.get(node.input[0], set()) if depth else ():
                limits[source] = min(depth, limits.get(source, depth))
        if node.op_type in _CARRIERS and node.input:
            carriers = set().union(
                *(carried.get(name, set()) for name in node.input[: None if node.op_type == "Concat" else 1])
            )
            for name in node.output if carriers else ():
                carried[name] = carriers
    return limits


def whole_numbers(shape: tuple[int, ...], high: int | None, generator: np.random.Generator) -> Array:
    """``[batch, ...]`` below ``high``; where a model has no table for them they are a mask: ones, and zeros behind them."""
    if high is not None:
        return generator.integers(0, high, shape)
    if len(shape) < 2 or shape[-1] < 2:
        return generator.integers(0, 2, shape)
    lengths = generator.integers(1, shape[-1] + 1, (*shape[:-1], 1))
    mask: Array = (np.arange(shape[-1]) < lengths).astype(np.int64)
    return mask


def _constant_shape(node: Any) -> tuple[int, ...]:
    for one in node.attribute:
        if one.name == "value":
            return tuple(one.t.dims)
        if one.name in ("value_floats", "value_ints"):
            return (len(one.floats) or len(one.ints),)
    return ()


def _number(proto: Any, name: str) -> int:
    from onnx import numpy_helper

    for tensor in proto.graph.initializer:
        if tensor.name == name:
            return int(numpy_helper.to_array(tensor).reshape(-1)[0])
    for node in proto.graph.node:
        if node.op_type == "Constant" and node.output[0] == name and node.attribute[0].name == "value":
            return int(numpy_helper.to_array(node.attribute[0].t).reshape(-1)[0])
    return 0


def _inferred(proto: Any) -> dict[str, tuple[int, ...]]:
    import onnx

    try:
        whole = onnx.shape_inference.infer_shapes(proto)
    except Exception:  # of several kinds; a range is then not known
        return {}
    return {
        value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim) for value in whole.graph.value_info
    }
