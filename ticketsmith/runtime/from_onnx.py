"""ONNX models to graphs. Needs the package ``onnx`` and nothing else; weights stay what they are, their zeros make them sparse.

What cannot be translated is named: the caller can then offer a dense runtime instead.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ticketsmith.memory import read_file, require
from ticketsmith.runtime.builder.core import Builder, UnsupportedError, Value
from ticketsmith.runtime.graph import MOST_ELEMENTS, Graph
from ticketsmith.runtime.onnx.arrays import ARRAYS, ELEMENTWISE
from ticketsmith.runtime.onnx.constants import Call, Files, OnnxError, node_of_constants, opsets, result_size, value_of
from ticketsmith.runtime.onnx.layers import LAYERS
from ticketsmith.runtime.onnx.probes import DENSE, check_samples, place_of
from ticketsmith.runtime.simplify import simplify

__all__ = ["OnnxError", "UnsupportedError", "from_onnx"]

_MOST_NODES = 200_000


def from_onnx(
    model: str | os.PathLike[str] | bytes,
    sizes: Mapping[str | tuple[str, int], int] | None = None,
    shape: Sequence[int] | None = None,
) -> Graph:
    """The graph of an ONNX model, given by its path or its bytes.

    The first axis of every input is the batch, whatever the model says about it. ``sizes`` gives other axes their size where
    the model has none (or one below 1, as some exporters write it): by the axis' name, ``{"sequence": 128}``, or by the
    input's name and the place of the axis, ``{("tokens", 1): 128}``. ``shape``, that of one sample, gives them all for a model
    of one input. Weights in files beside the model are read when they lie in its folder.

    Raises OnnxError, UnsupportedError for what the runtime does not know and for models that mix the samples of a batch,
    GraphError for shapes that it cannot have.
    """
    try:
        import onnx
        from onnx import inliner
    except ImportError as error:
        raise OnnxError('reading ONNX models needs onnx: pip install "ticketsmith[serve]".') from error
    folder = None
    if isinstance(model, bytes):
        content, where = model, "the model"
    else:
        where = str(model)
        try:
            content, folder = read_file(model), Path(model).parent
        except OSError as error:
            raise OnnxError(f"{where}: cannot be read: {error.strerror}.") from error
    try:
        proto = onnx.load_model_from_string(content)
        if proto.functions:
            proto = inliner.inline_local_functions(proto)
    except Exception as error:  # protobuf raises its own kinds
        raise OnnxError(f"{where} is no ONNX model, or is damaged ({type(error).__name__}).") from error
    if not proto.graph.node or not proto.graph.output:
        raise OnnxError(f"{where} is no ONNX model: it computes nothing.")
    if len(proto.graph.node) > _MOST_NODES:
        raise OnnxError(f"{where} has {len(proto.graph.node):,} nodes; {_MOST_NODES:,} are read at most.")
    try:
        translator = Translator(proto, folder, dict(sizes or {}), shape)
        graph = translator.graph()
        check_samples(translator.whole(), translator.build.ports, graph)
        return simplify(graph)
    except OnnxError as error:
        raise OnnxError(f"{where}: {error}") from error


OPERATORS: dict[str, Callable[[Call], Any]] = {**LAYERS, **ELEMENTWISE, **ARRAYS}
"""From an operator of ONNX to a function that adds what a node of it computes."""

_FOLDED = {
    *(OPERATORS.keys() - {"FastGelu", "SimplifiedLayerNormalization", "Upsample"}),
    "ConstantOfShape", "Range", "Trilu", "Floor", "Ceil", "Round", "Mod", "Sign", "ScatterND", "ReduceProd",
    "GatherElements", "EyeLike", "Xor", "Einsum", "Tan", "Atan", "OneHot", "NonZero", "QuantizeLinear",
    "DequantizeLinear",
}  # fmt: skip
"""What is computed at once where all inputs are constants."""


class Translator:
    """Reads one model. ``values`` maps names to what they stand for: a ``Value``, or an array that depends on no input.
    ``sizes`` and ``shape`` are those of ``from_onnx``."""

    def __init__(self, proto: Any, folder: Path | None, sizes: dict[str | tuple[str, int], int],
                 shape: Sequence[int] | None) -> None:  # fmt: skip
        self.proto, self.files, self.sizes, self.one = proto, Files(folder), sizes, shape
        self.build = Builder()
        self.values: dict[str, Any] = {"": None}
        self.opset = max((one.version for one in proto.opset_import if one.domain in ("", "ai.onnx")), default=1)

    def graph(self) -> Graph:
        """The graph as it is written, nothing simplified."""
        graph = self.proto.graph
        if graph.sparse_initializer:
            way_out = "store weights with their zeros"
            raise UnsupportedError(f"sparse initializers are not known to the sparse runtime: {way_out}.")
        for tensor in graph.initializer:
            array = self.files.array(tensor)
            self.values[tensor.name] = array
            self.build.name_constant(array, tensor.name)
        for port in graph.input:
            if port.name not in self.values:
                self.values[port.name] = self._input(port)
        for node in graph.node:
            self._node(node)
        missing = [one.name for one in graph.output if one.name not in self.values]
        if missing:
            raise OnnxError(f"the output {missing[0]!r} is not computed.")
        return self.build.graph([self.values[one.name] for one in graph.output])

    def _input(self, port: Any) -> Value:
        import onnx

        kind = port.type.tensor_type
        types = onnx.TensorProto
        if kind.elem_type not in (types.FLOAT, types.INT64, types.INT32, types.BOOL):
            name = types.DataType.Name(kind.elem_type) if kind.elem_type else "no tensor"
            raise UnsupportedError(f"input {port.name!r} is {name}: float32, or int64 for tokens, can be served.")
        shape = []
        for axis, dim in enumerate(kind.shape.dim):
            size = 1 if axis == 0 else int(dim.dim_value)
            if size < 1:  # some exporters write -1 for a size that is free
                size = self.sizes.get((port.name, axis), 0) or self.sizes.get(dim.dim_param, 0)
            if size < 1 and self.one is not None and len(self.one) == len(kind.shape.dim) - 1:
                size = int(self.one[axis - 1])
            if not 0 < size <= 2**31:
                key = dim.dim_param or (port.name, axis)
                raise OnnxError(
                    f"axis {axis} of input {port.name!r} has no size: give it by sizes={{{key!r}: n}}, or export the model "
                    "with fixed sizes behind the batch."
                )
            shape.append(size)
        dtype = "float32" if kind.elem_type == types.FLOAT else "int64"
        value = self.build.input(port.name, tuple(shape), dtype)
        return replace(value, boolean=kind.elem_type == types.BOOL)

    def whole(self) -> Any:
        """The model with all of its weights in it."""
        import onnx

        if all(tensor.data_location != onnx.TensorProto.EXTERNAL for tensor in self.proto.graph.initializer):
            return self.proto
        whole = onnx.ModelProto()
        whole.CopyFrom(self.proto)
        for tensor in whole.graph.initializer:
            tensor.CopyFrom(self.files.plain(tensor))
        return whole

    def _node(self, node: Any) -> None:
        where = place_of(node, node.output[0] if node.output else "")
        missing = [name for name in node.input if name not in self.values]
        if missing:
            raise OnnxError(f"{node.op_type}{where} reads {missing[0]!r}, which is not computed before it.")
        inputs = [self.values[name] for name in node.input]
        attributes = {one.name: self.files.attribute(one) for one in node.attribute}
        operator = f"the operator {node.op_type!r}{where}"
        if node.op_type == "Constant":
            self.values[node.output[0]] = value_of(attributes, operator)
            return
        if not any(isinstance(one, Value) for one in inputs) and node.op_type in _FOLDED:
            self._fold(node, inputs, operator)
            return
        translate = OPERATORS.get(node.op_type) if node.domain in ("", "ai.onnx", "com.microsoft") else None
        if translate is None:
            raise UnsupportedError(f"{operator} is not known to the sparse runtime. {DENSE}")
        self.build.begin(node.output[0])
        try:
            call = Call(self.build, inputs, attributes, self.opset, len(node.output))
            result = translate(call)
            call.check()
        except (TypeError, ValueError, AttributeError, IndexError, KeyError, ZeroDivisionError, OverflowError) as error:
            way = f"is used in a way that the sparse runtime does not know ({error})"
            raise UnsupportedError(f"{operator} {way}. {DENSE}") from error
        results = result if isinstance(result, list) else [result]
        for name, one in zip(node.output, results, strict=False):
            self.values[name] = one

    def _fold(self, node: Any, inputs: list[Any], operator: str) -> None:
        size = result_size(node, inputs)
        if size > MOST_ELEMENTS:
            raise UnsupportedError(f"{operator} makes a constant that is too large.")
        require(8 * int(size), f"the constant that {operator} makes", "Take a machine with more memory.", OnnxError)
        try:
            self.values |= node_of_constants(node, self.values, opsets(self.proto))
        except Exception as error:  # the reference raises whatever NumPy does
            raise UnsupportedError(f"{operator} of constants cannot be computed ({error}).") from error
