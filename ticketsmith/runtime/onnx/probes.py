"""ONNX models that mix the samples of a batch are named, with the node that does. See ``runtime.probes``.

The model is run by ONNX Runtime where it is installed, else by ONNX's own reference, which may be slow.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ticketsmith.engines import onnx_runtime
from ticketsmith.runtime import probes
from ticketsmith.runtime.builder.core import UnsupportedError
from ticketsmith.runtime.graph import Graph, Port
from ticketsmith.runtime.probes import Array

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
            sources = node.input if node.op_type == "Concat" else node.input[:1]
            carriers = set().union(*(carried.get(name, set()) for name in sources))
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
    return np.asarray(np.arange(shape[-1]) < lengths, np.int64)


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


_NO_VALUES = {"Shape", "Size", "EyeLike", "RandomNormalLike", "RandomUniformLike"}
"""Operators that look at a value's shape alone."""

DENSE = "Serve this model with a dense runtime, such as `onnxruntime`."
_WAY_OUT = f"The sparse runtime computes each sample of a batch by itself. {DENSE}"


def check_samples(proto: Any, ports: Sequence[Port], graph: Graph) -> None:
    """Raises UnsupportedError, with the node's name, where a model does not compute each sample of a batch alike and apart.

    ``proto`` holds all weights itself; ``ports`` are its inputs with all sizes known, ``graph`` what is to compute it. A model
    for batches of 1 alone is a function of one sample, and nothing is asked.
    """
    batches = _batches(proto)
    if set(batches) == {1}:
        return
    if 1 in batches:
        fixed = [port.name for port, batch in zip(ports, batches, strict=True) if batch == 1]
        raise UnsupportedError(
            f"the input {fixed[0]!r} has a batch of 1 and others have not: the first axis of each input is the batch. "
            f"{_WAY_OUT}"
        )
    whole = 4 * sum(math.prod(shape) for shape in graph.shapes().values()) * (probes.SMALL + probes.LARGE)
    follows = _from_inputs(proto)
    makers = {name: node for node in proto.graph.node for name in node.output if name in follows}
    if whole > probes.MOST_BYTES:
        makers = {one.name: makers[one.name] for one in proto.graph.output if one.name in makers}
    inputs = _batch(proto, ports)
    run = _runner(proto, list(makers), inputs)
    if run is None:
        return
    try:
        few = run({name: probes.small(array) for name, array in inputs.items()})
        many = run(inputs)
    except Exception as error:  # of many kinds
        first = next(iter(str(error).splitlines()), "")
        raise UnsupportedError(f"the model takes one sample, and no batch of several ({first}). {_WAY_OUT}") from error
    values = dict(zip(makers, few, strict=True))
    for (name, node), one, other in zip(makers.items(), few, many, strict=True):
        scale = probes.largest([values[source] for source in node.input if source in values])
        reason = probes.fault(one, other, scale)
        if reason is not None:
            where = f"the operator {node.op_type!r}{place_of(node, name)}"
            raise UnsupportedError(f"{where} mixes the samples of a batch: {reason}. {_WAY_OUT}")


def place_of(node: Any, output: str) -> str:
    """Where a node lies, in words: its name, or else the ``output`` that it computes."""
    if node.name:
        return f" (node {node.name!r})"
    return f" (which computes {output!r})" if output else ""


def _batches(proto: Any) -> list[int]:
    """The batch that each input is made for; 0 where it is free."""
    constants = {tensor.name for tensor in proto.graph.initializer}
    ports = [port for port in proto.graph.input if port.name not in constants]
    return [max(0, int(port.type.tensor_type.shape.dim[0].dim_value)) for port in ports]


def _from_inputs(proto: Any) -> set[str]:
    """The values that follow from the inputs' values, and not from their shapes alone."""
    constants = {tensor.name for tensor in proto.graph.initializer}
    names = {port.name for port in proto.graph.input} - constants
    for node in proto.graph.node:
        if node.op_type not in _NO_VALUES and any(name in names for name in node.input):
            names.update(name for name in node.output if name)
    return names


def _batch(proto: Any, ports: Sequence[Port]) -> dict[str, Array]:
    import onnx

    types = {port.name: port.type.tensor_type.elem_type for port in proto.graph.input}
    high, generator = ranges(proto), np.random.default_rng(0)
    batch: dict[str, Array] = {}
    for port in ports:
        shape = (probes.LARGE, *port.shape)
        dtype = onnx.helper.tensor_dtype_to_np_dtype(types[port.name])
        if port.dtype == "float32":
            values = generator.standard_normal(shape)
        else:
            values = whole_numbers(shape, high.get(port.name), generator)
        batch[port.name] = values.astype(dtype)
    return batch


def _runner(proto: Any, outputs: Sequence[str], inputs: Mapping[str, Array]) -> Any:
    """A function from inputs to these values; None where nothing runs this model, even for one sample."""
    import onnx

    free = onnx.ModelProto()
    free.CopyFrom(proto)
    for port in free.graph.input:
        if port.name in inputs:
            port.type.tensor_type.shape.dim[0].Clear()
            port.type.tensor_type.shape.dim[0].dim_param = "batch"
    del free.graph.value_info[:]
    del free.graph.output[:]
    free.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    for make in (_by_onnxruntime, _by_reference):
        try:
            run = make(free)
            run({name: array[:1] for name, array in inputs.items()})
        except Exception:  # of many kinds: the other one may know it
            continue
        return run
    return None


def _by_onnxruntime(proto: Any) -> Any:
    opened = onnx_runtime.session(proto.SerializeToString(), 1, optimised=False)
    return lambda inputs: opened.run(None, dict(inputs))


def _by_reference(proto: Any) -> Any:
    import onnx
    from onnx.reference import ReferenceEvaluator

    for index, output in enumerate(proto.graph.output):
        proto.graph.output[index].CopyFrom(onnx.helper.make_value_info(output.name, onnx.TypeProto()))
    evaluator = ReferenceEvaluator(proto)

    def run(inputs: Mapping[str, Array]) -> list[Array]:
        with np.errstate(all="ignore"):
            return [np.asarray(one) for one in evaluator.run(None, dict(inputs))]

    return run
