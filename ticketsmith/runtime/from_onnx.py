"""ONNX models to graphs. Needs the package ``onnx`` and nothing else; weights stay what they are, their zeros make them sparse.

What cannot be translated is named: the caller can then offer a dense runtime instead.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ticketsmith.errors import TicketSmithError
from ticketsmith.memory import read_file, require
from ticketsmith.runtime import interpolate, recurrent
from ticketsmith.runtime.build import Array, Builder, UnsupportedError, Value
from ticketsmith.runtime.graph import MOST_ELEMENTS, Graph
from ticketsmith.runtime.onnx_samples import check_samples
from ticketsmith.runtime.onnx_sizes import result_size
from ticketsmith.runtime.simplify import simplify

__all__ = ["OnnxError", "UnsupportedError", "from_onnx"]

_MOST_NODES = 200_000


class OnnxError(TicketSmithError):
    """A file is no ONNX model, is damaged, or reaches beyond its folder; or ``onnx`` is not installed."""


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
        translator = _Translator(proto, folder, dict(sizes or {}), shape)
        graph = translator.graph()
        check_samples(translator.whole(), translator.build.ports, graph)
        return simplify(graph)
    except OnnxError as error:
        raise OnnxError(f"{where}: {error}") from error


class _Translator:
    def __init__(
        self,
        proto: Any,
        folder: Path | None,
        sizes: dict[str | tuple[str, int], int],
        shape: Sequence[int] | None = None,
    ) -> None:
        self.proto, self.folder, self.sizes, self.one = proto, folder, sizes, shape
        self.build = Builder()
        self.known: dict[str, Any] = {"": None}
        self.opset = max((one.version for one in proto.opset_import if one.domain in ("", "ai.onnx")), default=1)
        self.opsets = [(one.domain, one.version) for one in proto.opset_import]

    def graph(self) -> Graph:
        graph = self.proto.graph
        if graph.sparse_initializer:
            raise UnsupportedError(
                "sparse initializers are not known to the sparse runtime: store weights with their zeros."
            )
        for tensor in graph.initializer:
            array = _array(self._plain(tensor))
            self.known[tensor.name] = array
            self.build.name_constant(array, tensor.name)
        for port in graph.input:
            if port.name not in self.known:
                self.known[port.name] = self._input(port)
        for node in graph.node:
            self._node(node)
        missing = [one.name for one in graph.output if one.name not in self.known]
        if missing:
            raise OnnxError(f"the output {missing[0]!r} is not computed.")
        return self.build.graph([self.known[one.name] for one in graph.output])

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
            tensor.CopyFrom(self._plain(tensor))
        return whole

    def _plain(self, tensor: Any) -> Any:
        """A tensor whose bytes are all there."""
        import onnx

        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            return tensor
        entries = {one.key: one.value for one in tensor.external_data}
        location = entries.get("location", "")
        if self.folder is None:
            raise OnnxError(f"weights {tensor.name!r} lie in another file, {location!r}: give the path of the model.")
        folder = self.folder.resolve()
        path = (folder / location).resolve()
        if not location or Path(location).is_absolute() or not path.is_relative_to(folder) or not path.is_file():
            raise OnnxError(f"weights {tensor.name!r} lie in {location!r}, which is no file in the model's folder.")
        try:
            offset = int(entries.get("offset", 0))
            with open(path, "rb") as file:
                size = os.fstat(file.fileno()).st_size
                length = int(entries.get("length", size - offset))
                if not 0 <= offset <= size or not 0 <= length <= size - offset:
                    raise OnnxError(f"weights {tensor.name!r} lie beyond the end of {location!r}.")
                require(length, f"weights {tensor.name!r}", "Take a machine with more memory.", OnnxError)
                file.seek(offset)
                content = file.read(length)
        except (OSError, ValueError) as error:
            raise OnnxError(f"weights {tensor.name!r} cannot be read from {location!r}: {error}") from error
        plain = onnx.TensorProto()
        plain.CopyFrom(tensor)
        del plain.external_data[:]
        plain.data_location = onnx.TensorProto.DEFAULT
        plain.raw_data = content
        return plain

    def _node(self, node: Any) -> None:
        where = (
            f" (node {node.name!r})" if node.name else f" (which computes {node.output[0]!r})" if node.output else ""
        )
        missing = [name for name in node.input if name not in self.known]
        if missing:
            raise OnnxError(f"{node.op_type}{where} reads {missing[0]!r}, which is not computed before it.")
        inputs = [self.known[name] for name in node.input]
        attributes = {one.name: self._attribute(one) for one in node.attribute}
        operator = f"the operator {node.op_type!r}{where}"
        if node.op_type == "Constant":
            self.known[node.output[0]] = _constant(attributes, operator)
            return
        if not any(isinstance(one, Value) for one in inputs) and node.op_type in _FOLDED:
            self._fold(node, inputs, operator)
            return
        translate = _KNOWN.get(node.op_type) if node.domain in ("", "ai.onnx", "com.microsoft") else None
        if translate is None:
            raise UnsupportedError(
                f"{operator} is not known to the sparse runtime. Serve this model with a dense runtime, such as "
                "`onnxruntime`."
            )
        self.build.begin(node.output[0])
        try:
            call = _Call(self.build, inputs, attributes, self.opset, len(node.output))
            result = translate(call)
            call.check()
        except (TypeError, ValueError, AttributeError, IndexError, KeyError, ZeroDivisionError, OverflowError) as error:
            raise UnsupportedError(
                f"{operator} is used in a way that the sparse runtime does not know ({error}). Serve this model with a dense "
                "runtime, such as `onnxruntime`."
            ) from error
        results = result if isinstance(result, list) else [result]
        for name, one in zip(node.output, results, strict=False):
            self.known[name] = one

    def _attribute(self, attribute: Any) -> Any:
        import onnx

        value = onnx.helper.get_attribute_value(attribute)
        if isinstance(value, bytes):
            return value.decode(errors="replace")
        if isinstance(value, onnx.TensorProto):
            return _array(self._plain(value))
        return value

    def _fold(self, node: Any, inputs: list[Any], operator: str) -> None:
        """A node of constants."""
        size = result_size(node, inputs)
        if size > MOST_ELEMENTS:
            raise UnsupportedError(f"{operator} makes a constant that is too large.")
        require(8 * int(size), f"the constant that {operator} makes", "Take a machine with more memory.", OnnxError)
        try:
            self.known |= node_of_constants(node, self.known, self.opsets)
        except Exception as error:  # the reference raises whatever NumPy does
            raise UnsupportedError(f"{operator} of constants cannot be computed ({error}).") from error


def node_of_constants(node: Any, known: Mapping[str, Any], opsets: Sequence[tuple[str, int]]) -> dict[str, Array]:
    """The outputs of a node whose inputs are ``known``, by ONNX's own reference, which raises whatever NumPy does."""
    import onnx
    from onnx.reference import ReferenceEvaluator

    names = [name for name in dict.fromkeys(node.input) if name]
    ports = [onnx.helper.make_value_info(name, onnx.TypeProto()) for name in names]
    outs = [onnx.helper.make_value_info(name, onnx.TypeProto()) for name in node.output if name]
    graph = onnx.helper.make_graph([node], "constant", ports, outs)
    if node.op_type in (
        "QuantizeLinear",
        "DequantizeLinear",
    ):  # the reference knows them from then on; they are the same
        opsets = [(domain, max(version, 19) if domain in ("", "ai.onnx") else version) for domain, version in opsets]
    evaluator = ReferenceEvaluator(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid(*one) for one in opsets])
    )
    with np.errstate(all="ignore"):
        made = evaluator.run(None, {name: known[name] for name in names})
    return {name: np.asarray(value) for name, value in zip([one.name for one in outs], made, strict=True)}


class Constants:
    """What a model computes from constants alone, for whoever looks at its weights. ``folder`` is where the model lies."""

    def __init__(self, proto: Any, folder: Path | None) -> None:
        self._files = _Translator(proto, folder, {})

    def given(self, graph: Any) -> dict[str, Array]:
        """The initializers of ``graph`` by name, without those that cannot be read."""
        found: dict[str, Array] = {}
        for tensor in graph.initializer:
            with suppress(TicketSmithError):
                found[tensor.name] = _array(self._files._plain(tensor))
        for tensor in graph.sparse_initializer:
            with suppress(TicketSmithError, ValueError, IndexError):
                found[tensor.values.name] = _spread(tensor)
        return found

    def along(self, graph: Any, known: Mapping[str, Array] | None = None) -> Iterator[tuple[Any, Mapping[str, Array]]]:
        """Each node of ``graph`` and of the graphs within it, in order, with the constants that are known there by name.

        What cannot be read or computed is not known.
        """
        found = {**(known or {}), **self.given(graph)}
        for node in graph.node:
            if node.op_type == "Constant":
                with suppress(TicketSmithError):
                    found[node.output[0]] = _constant(
                        {one.name: self._files._attribute(one) for one in node.attribute}, ""
                    )
            elif node.input and all(name in found or not name for name in node.input):
                size = result_size(node, [found.get(name) for name in node.input])
                if not node.op_type.startswith("Random") and size <= MOST_ELEMENTS:
                    with suppress(Exception):  # the reference raises whatever NumPy does
                        require(8 * int(size), f"the constant that {node.op_type} makes", "", OnnxError)
                        found |= node_of_constants(node, found, self._files.opsets)
            yield node, found
            for attribute in node.attribute:
                for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                    yield from self.along(inner, found)


def _spread(tensor: Any) -> Array:
    """A sparse tensor with its zeros."""
    values, places = _array(tensor.values), _array(tensor.indices).astype(np.int64)
    size = math.prod(tensor.dims)
    if not 0 <= size <= MOST_ELEMENTS or any(n < 0 for n in tensor.dims):
        raise ValueError("an impossible shape")
    flat = places if places.ndim == 1 else np.ravel_multi_index(tuple(places.T), tuple(tensor.dims))
    dense = np.zeros(size, values.dtype)
    dense[flat] = values
    return dense.reshape(tuple(tensor.dims))


def _array(tensor: Any) -> Array:
    from onnx import numpy_helper

    if math.prod(tensor.dims) > MOST_ELEMENTS or any(n < 0 for n in tensor.dims):
        raise OnnxError(f"weights {tensor.name!r} have an impossible shape {list(tensor.dims)}.")
    require(4 * math.prod(tensor.dims), f"weights {tensor.name!r}", "Take a machine with more memory.", OnnxError)
    try:
        array = numpy_helper.to_array(tensor)
    except Exception as error:  # of many kinds
        raise OnnxError(f"weights {tensor.name!r} are damaged ({error}).") from error
    if array.dtype.kind in "iub":
        return array.copy()
    if array.dtype.kind not in "fV" or array.dtype.names:
        raise UnsupportedError(f"weights {tensor.name!r} are {array.dtype}, which the sparse runtime does not know.")
    return array.astype(np.float32)  # which keeps scalars scalars


def _constant(attributes: dict[str, Any], operator: str) -> Array:
    for name, dtype in (("value_float", np.float32), ("value_floats", np.float32), ("value_int", np.int64),
                        ("value_ints", np.int64)):  # fmt: skip
        if name in attributes:
            return np.array(attributes[name], dtype)
    if not isinstance(attributes.get("value"), np.ndarray):
        raise UnsupportedError(f"{operator} holds no array.")
    array: Array = attributes["value"]
    return array


_MEANINGLESS = {
    "auto_pad", "pads", "kernel_shape", "storage_order", "stash_type", "momentum", "saturate", "round_mode", "hidden_size",
    "consumed_inputs", "seed", "ratio", "is_test", "nearest_mode", "cubic_coeff_a", "value", "to", "output_sequence",
    "noop_with_empty_axes", "extrapolation_value",
}  # fmt: skip
"""Attributes that change no number of an output, or do so only together with another one that is read."""


class _Call:
    """One node: its inputs, the builder, and its attributes with their defaults. It remembers what was asked for."""

    def __init__(self, build: Builder, inputs: list[Any], attributes: dict[str, Any], opset: int, outputs: int) -> None:
        self.build, self.attributes, self.opset, self.outputs = build, attributes, opset, outputs
        self._inputs = inputs
        self._read: set[str | int] = set()

    @property
    def inputs(self) -> list[Any]:
        """All of them."""
        self._read.update(range(len(self._inputs)))
        return self._inputs

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute."""
        self._read.add(name)
        return self.attributes.get(name, default)

    def check(self) -> None:
        """Raises ValueError for an attribute or an input that nobody asked for: it would be ignored."""
        for name in self.attributes.keys() - self._read - _MEANINGLESS:
            raise ValueError(f"the attribute {name!r}")
        for place, one in enumerate(self._inputs):
            if one is not None and place not in self._read:
                raise ValueError(f"its input {place}")

    @property
    def x(self) -> Value:
        """The first input, which is computed."""
        return self.value(0)

    def value(self, index: int) -> Value:
        one = self.given(index)
        if not isinstance(one, Value):
            raise ValueError(f"its input {index} is a constant")
        return one

    def given(self, index: int) -> Any:
        """An input, or None."""
        self._read.add(index)
        return self._inputs[index] if index < len(self._inputs) else None

    def fixed(self, index: int) -> Array | None:
        """An input that must be a constant, or None."""
        one = self.given(index)
        if isinstance(one, Value):
            raise ValueError(f"its input {index} is computed")
        return one  # type: ignore[no-any-return]

    def numbers(self, index: int, name: str) -> list[int] | None:
        """Whole numbers that newer opsets have as an input and older ones as an attribute."""
        array = self.fixed(index)
        if array is not None:
            return [int(n) for n in array.reshape(-1)]
        listed = self.get(name)
        return None if listed is None else [int(n) for n in listed]


# ---- layers


def _pads(call: _Call, size: Sequence[int], kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
          ) -> tuple[list[int], list[int]]:  # fmt: skip
    auto, axes = call.get("auto_pad", "NOTSET"), len(kernel)
    if auto == "VALID":
        return [0] * axes, [0] * axes
    if auto.startswith("SAME"):
        totals = [
            max(0, (-(-n // s) - 1) * s + d * (k - 1) + 1 - n)
            for n, k, s, d in zip(size, kernel, stride, dilation, strict=True)
        ]
        small, large = [t // 2 for t in totals], [t - t // 2 for t in totals]
        return (small, large) if auto == "SAME_UPPER" else (large, small)
    pads = [int(n) for n in call.get("pads", [0] * 2 * axes)]
    return pads[:axes], pads[axes:]


def _conv(call: _Call) -> Value:
    weight, bias = call.fixed(1), call.fixed(2)
    if weight is None:
        raise ValueError("no weights")
    axes = weight.ndim - 2
    stride, dilation = call.get("strides", [1] * axes), call.get("dilations", [1] * axes)
    begin, end = _pads(call, call.x.shape[2:], weight.shape[2:], stride, dilation)
    return call.build.conv(call.x, weight, bias, stride, begin, end, dilation, call.get("group", 1))


def _conv_transpose(call: _Call) -> Value:
    weight, bias = call.fixed(1), call.fixed(2)
    if weight is None or call.get("output_shape") or call.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise ValueError("an output shape, or automatic padding")
    axes = weight.ndim - 2
    stride, dilation = call.get("strides", [1] * axes), call.get("dilations", [1] * axes)
    begin, end = _pads(call, call.x.shape[2:], weight.shape[2:], stride, dilation)
    more = call.get("output_padding", [0] * axes)
    end = [pad - extra for pad, extra in zip(end, more, strict=True)]
    return call.build.conv_transpose(call.x, weight, bias, stride, begin, end, dilation, call.get("group", 1))


def _pool(kind: str) -> Callable[[_Call], Value]:
    def translate(call: _Call) -> Value:
        kernel = call.get("kernel_shape")
        stride = call.get("strides", [1] * len(kernel))
        dilation = call.get("dilations", [1] * len(kernel))
        if any(d != 1 for d in dilation) or call.outputs > 1:
            raise ValueError("dilation, or the places of maxima")
        begin, end = _pads(call, call.x.shape[2:], kernel, stride, dilation)
        counted = bool(call.get("count_include_pad", 0)) or (kind == "avg_pool" and not any([*begin, *end]))
        return call.build.pool(kind, call.x, kernel, stride, begin, end, counted, bool(call.get("ceil_mode", 0)))

    return translate


def _global_pool(kind: str) -> Callable[[_Call], Value]:
    return lambda call: call.build.adaptive_pool(kind, call.x, [1] * (len(call.x.shape) - 2))


def _gemm(call: _Call) -> Value:
    build, left, right = call.build, call.given(0), call.given(1)
    call.get("broadcast")  # of old opsets; what follows broadcasts
    if call.get("transA", 0):
        left = build.permute(left, (1, 0)) if isinstance(left, Value) else left.T
    beta = call.get("beta", 1.0)
    alpha = call.get("alpha", 1.0)
    bias = call.given(2)
    if not isinstance(right, Value) and isinstance(left, Value):
        weight = right if call.get("transB", 0) else _turned(build, right)
        plain = isinstance(bias, np.ndarray) and bias.size == len(weight) and beta == 1 and alpha == 1
        product = build.linear(left, weight, bias if plain else None)
        call.get("transB")
        if bias is None or plain:
            return product if alpha == 1 else build.scalar("mul", product, alpha)
    else:
        if call.get("transB", 0):
            right = build.permute(right, (1, 0)) if isinstance(right, Value) else right.T
        product = build.matmul(left, right)
    product = product if alpha == 1 else build.scalar("mul", product, alpha)
    if bias is None:
        return product
    if beta != 1:
        bias = build.scalar("mul", bias, beta) if isinstance(bias, Value) else bias * beta
    return build.elementwise("add", product, bias)


def _turned(build: Builder, weight: Array) -> Array:
    turned = np.ascontiguousarray(weight.T)
    if id(weight) in build.names:
        build.name_constant(turned, build.names[id(weight)])
    return turned


def _batch_norm(call: _Call) -> Value:
    scale, shift, mean, variance = (call.fixed(index) for index in range(1, 5))
    if (
        call.get("training_mode", 0)
        or call.get("spatial", 1) != 1
        or scale is None
        or shift is None
        or mean is None
        or variance is None
    ):
        raise ValueError("training mode, or statistics of each place")
    factor = scale * (variance.astype(np.float64) + call.get("epsilon", 1e-5)) ** -0.5
    return call.build.batch_norm(call.x, factor, shift - mean * factor)


def _layer_norm(call: _Call) -> Value:
    axis = call.get("axis", -1) % len(call.x.shape)
    return call.build.norm(
        "layer_norm", call.x, len(call.x.shape) - axis, call.fixed(1), call.fixed(2), call.get("epsilon", 1e-5)
    )


def _rms_norm(call: _Call) -> Value:
    axis = call.get("axis", -1) % len(call.x.shape)
    return call.build.norm("rms_norm", call.x, len(call.x.shape) - axis, call.fixed(1), None, call.get("epsilon", 1e-5))


def _group_norm(call: _Call) -> Value:
    groups, channels = call.get("num_groups"), call.x.shape[1]
    scale, shift = call.fixed(1), call.fixed(2)
    if scale is not None and shift is not None and scale.size == groups != channels:  # before opset 21
        scale, shift = (np.repeat(one, channels // groups) for one in (scale, shift))
    return call.build.group_norm(call.x, groups, scale, shift, call.get("epsilon", 1e-5))


def _instance_norm(call: _Call) -> Value:
    return call.build.group_norm(call.x, call.x.shape[1], call.fixed(1), call.fixed(2), call.get("epsilon", 1e-5))


def _softmax(call: _Call) -> Value:
    axis = call.get("axis", -1 if call.opset >= 13 else 1) % len(call.x.shape)
    if call.opset < 13 and axis != len(call.x.shape) - 1:
        raise ValueError("a softmax of several axes")
    return call.build.softmax(call.x, axis)


def _log_softmax(call: _Call) -> Value:
    axis = call.get("axis", -1 if call.opset >= 13 else 1)
    if call.opset < 13 and axis % len(call.x.shape) != len(call.x.shape) - 1:
        raise ValueError("a softmax of several axes")
    return call.build.log_softmax(call.x, axis)


def _local_response(call: _Call) -> Value:
    """Krizhevsky et al. 2012: each value by a power of the mean square of its neighbours' channels."""
    build, x, size = call.build, call.x, call.get("size")
    before = (size - 1) // 2
    places = np.arange(x.shape[1])
    near = places[None] - places[:, None]
    window = ((-before <= near) & (near < size - before)).astype(np.float32)
    squares = build.along(build.elementwise("mul", x, x), 1, window * call.get("alpha", 1e-4) / size)
    total = build.scalar("add", squares, call.get("bias", 1.0))
    return build.elementwise("div", x, build.power(total, call.get("beta", 0.75)))


def _recurrent(call: _Call, kind: str, default: list[str]) -> list[Value]:
    build, weights, hidden, bias = call.build, call.fixed(1), call.fixed(2), call.fixed(3)
    if weights is None or hidden is None:
        raise ValueError("no weights")
    ways, rows, size = hidden.shape
    named = [name.decode() for name in call.get("activations", [])]
    usual = {tuple(default * ways)} | ({("Relu",) * ways} if kind == "RNN" else set())
    if named and tuple(named) not in usual:
        raise ValueError(f"activations {named}")
    lengths = call.fixed(4)
    if call.get("clip") or call.get("input_forget") or call.get("layout") or call.given(7) is not None:
        raise ValueError("clipping, coupled gates, peepholes, or the batch as the first axis")
    x = call.x
    if lengths is not None and (lengths != x.shape[0]).any():
        raise ValueError("sequences of different lengths")
    bias = np.zeros((ways, 2 * rows), np.float32) if bias is None else bias
    backwards = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}[
        call.get("direction", "forward")
    ]
    directions = [
        recurrent.Direction(weights[way], hidden[way], bias[way, :rows], bias[way, rows:], backwards[way])
        for way in range(ways)
    ]
    start = []
    for way in range(ways):
        states = []
        for place in (5, 6)[: 2 if kind == "LSTM" else 1]:
            given = call.given(place)
            given = np.zeros((ways, 1, size), np.float32) if given is None else given
            states.append(build.select(given, 0, way) if isinstance(given, Value) else given[way])
        start.append(states)
    activation = "relu" if "Relu" in named and kind == "RNN" else "tanh"
    cell = recurrent.Cell(kind, bool(call.get("linear_before_reset", 0)), activation)
    return recurrent.unrolled(build, cell, x, directions, start)


def _embedding(call: _Call) -> Any:
    build, axis = call.build, call.get("axis", 0)
    data, places = call.inputs[:2]
    if isinstance(places, Value):
        if axis != 0 or isinstance(data, Value):
            raise ValueError("places that are computed")
        return build.embedding(data, places)
    if places.ndim == 0:
        return build.select(data, axis, int(places))
    axis %= len(data.shape)
    taken = build.take(data, axis, places.reshape(-1))
    return build.reshape(taken, (*data.shape[:axis], *places.shape, *data.shape[axis + 1 :]))


# ---- elementwise


def _unary(kind: str) -> Callable[[_Call], Value]:
    return lambda call: call.build.unary(kind, call.x)


def _binary(op: str, turned: bool = False, boolean: bool = False) -> Callable[[_Call], Value]:
    def translate(call: _Call) -> Value:
        call.get("broadcast")  # of opsets before 7; with `axis`, which is refused, it is another one than NumPy's
        left, right = call.inputs[::-1] if turned else call.inputs
        return replace(call.build.elementwise(op, left, right), boolean=boolean)

    return translate


def _several(op: str) -> Callable[[_Call], Any]:
    def translate(call: _Call) -> Any:
        total = call.inputs[0]
        for one in call.inputs[1:]:
            total = call.build.elementwise(op, total, one)
        return total

    return translate


def _power(call: _Call) -> Value:
    exponent = call.given(1)
    if isinstance(exponent, np.ndarray) and exponent.size == 1:
        return call.build.power(call.x, float(exponent.reshape(-1)[0]))
    return call.build.elementwise("power", *call.inputs)


def _clip(call: _Call) -> Value:
    low, high = (call.fixed(1), call.fixed(2)) if call.opset >= 11 else (call.get("min"), call.get("max"))
    numbers = [None if one is None else float(np.asarray(one).reshape(-1)[0]) for one in (low, high)]
    return call.build.clip(call.x, *numbers)


def _gelu(call: _Call) -> Value:
    return call.build.unary("gelu_tanh" if call.get("approximate") == "tanh" else "gelu", call.x)


def _swish(call: _Call) -> Value:
    alpha = call.get("alpha", 1.0)
    if alpha == 1:
        return call.build.unary("silu", call.x)
    gate = call.build.unary("sigmoid", call.build.scalar("mul", call.x, alpha))
    return call.build.elementwise("mul", call.x, gate)


def _fast_gelu(call: _Call) -> Value:
    bias = call.given(1)
    x = call.x if bias is None else call.build.elementwise("add", call.x, bias)
    return call.build.unary("gelu_tanh", x)


def _celu(call: _Call) -> Value:
    alpha = call.get("alpha", 1.0)
    return call.build.elu(call.x, alpha, inner=1 / alpha)


def _hard_sigmoid(call: _Call) -> Value:
    alpha, beta = call.get("alpha", 0.2), call.get("beta", 0.5)
    if abs(alpha - 1 / 6) < 1e-6 and beta == 0.5:
        return call.build.unary("hard_sigmoid", call.x)
    line = call.build.scalar("add", call.build.scalar("mul", call.x, alpha), beta)
    return call.build.clip(line, 0.0, 1.0)


def _prelu(call: _Call) -> Value:
    slope = call.fixed(1)
    if slope is None:
        raise ValueError("no slope")
    return call.build.leaky(call.x, slope)


def _where(call: _Call) -> Value:
    return call.build.where(*call.inputs)


def _not(call: _Call) -> Value:
    return replace(call.build.opposite(call.x), boolean=True)


def _is_nan(call: _Call) -> Value:
    return replace(call.build.opposite(call.build.elementwise("equal", call.x, call.x)), boolean=True)


def _cast(call: _Call) -> Value:
    import onnx

    return _as(call, call.get("to"), onnx.TensorProto)


def _cast_like(call: _Call) -> Value:
    import onnx

    target, types = call.given(1), onnx.TensorProto
    if isinstance(target, Value):
        to = types.BOOL if target.boolean else types.INT64 if target.integer else types.FLOAT
    else:
        to = onnx.helper.np_dtype_to_tensor_dtype(target.dtype)
    return _as(call, to, types)


def _as(call: _Call, to: int, types: Any) -> Value:
    """``x`` as numbers of another type."""
    if to == types.BOOL and not call.x.boolean:
        return replace(call.build.opposite(call.build.scalar("equal", call.x, 0.0)), boolean=True)
    if to in (types.INT64, types.INT32) and not (call.x.integer or call.x.boolean):
        raise ValueError("rounding to whole numbers")
    if to not in (types.FLOAT, types.DOUBLE, types.INT64, types.INT32, types.BOOL):
        raise ValueError(f"a cast to {types.DataType.Name(to)}")
    return call.x


# ---- shapes


def _reshape(call: _Call) -> Value:
    sizes = call.numbers(1, "shape") or []
    if not call.get("allowzero", 0):
        sizes = [call.x.shape[axis] if n == 0 else n for axis, n in enumerate(sizes)]
    return call.build.reshape(call.x, sizes)


def _flatten(call: _Call) -> Value:
    axis = call.get("axis", 1)
    axis = axis + len(call.x.shape) if axis < 0 else axis
    return call.build.reshape(call.x, (math.prod(call.x.shape[:axis]), math.prod(call.x.shape[axis:])))


def _transpose(call: _Call) -> Value:
    return call.build.permute(call.x, call.get("perm") or range(len(call.x.shape))[::-1])


def _squeeze(call: _Call) -> Value:
    axes = call.numbers(1, "axes")
    if axes is None:
        raise ValueError("without axes, the batch may go too")
    return call.build.squeeze(call.x, axes)


def _unsqueeze(call: _Call) -> Value:
    return call.build.unsqueeze(call.x, call.numbers(1, "axes") or [])


def _concat(call: _Call) -> Value:
    return call.build.concat(call.inputs, call.get("axis", 0))


def _split(call: _Call) -> list[Value]:
    axis, sizes = call.get("axis", 0), call.numbers(1, "split")
    whole = call.x.shape[axis]
    if sizes is None:
        part = -(-whole // (call.get("num_outputs") or call.outputs))
        sizes = [min(part, whole - begin) for begin in range(0, whole, part)]
    return call.build.split(call.x, sizes, axis)


def _slice(call: _Call) -> Value:
    x = call.x
    starts, ends = call.numbers(1, "starts") or [], call.numbers(2, "ends") or []
    axes = call.numbers(3, "axes") or list(range(len(starts)))
    steps = call.numbers(4, "steps") or [1] * len(starts)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        if step < 0:
            x = call.build.take(x, axis, np.arange(x.shape[axis])[start:end:step])
        else:
            x = call.build.slice(x, axis, start, end, step)
    return x


def _pad(call: _Call) -> Value:
    rank, pads, filler = len(call.x.shape), call.numbers(1, "pads") or [], call.fixed(2)
    mode = call.get("mode", "constant")
    value = call.get("value", 0.0) if filler is None or not filler.size else float(filler.reshape(-1)[0])
    axes = call.numbers(3, "axes")
    before, behind = [0] * rank, [0] * rank
    listed = list(range(rank)) if axes is None else [axis % rank for axis in axes]
    for place, axis in enumerate(listed):
        before[axis], behind[axis] = pads[place], pads[place + len(listed)]
    if mode in ("reflect", "edge", "wrap"):
        return call.build.padded(call.x, before, behind, mode)
    if mode != "constant":
        raise ValueError(f"padding by {mode}")
    return call.build.pad(call.x, before, behind, value)


def _expand(call: _Call) -> Value:
    sizes = call.numbers(1, "shape") or []
    return call.build.expand(call.x, np.broadcast_shapes(call.x.shape, tuple(sizes)))


def _tile(call: _Call) -> Value:
    x, repeats = call.x, call.numbers(1, "repeats") or []
    if math.prod((*x.shape, *repeats)) > MOST_ELEMENTS or max(repeats, default=1) > MOST_ELEMENTS:
        raise ValueError("its result is too large")
    for axis, count in enumerate(repeats):
        x = call.build.concat([x] * count, axis) if count > 1 else x
    return x


def _reduce(function: str) -> Callable[[_Call], Value]:
    def translate(call: _Call) -> Value:
        axes = call.numbers(1, "axes")
        if not axes:
            if call.get("noop_with_empty_axes", 0):
                return call.x
            axes = list(range(len(call.x.shape)))
        return call.build.reduce(function, call.x, axes, bool(call.get("keepdims", 1)))

    return translate


def _resize(call: _Call) -> Value:
    build, x = call.build, call.x
    sizes, scales = (call.fixed(3), call.fixed(2)) if call.opset >= 11 else (None, call.fixed(1))
    call.given(1)  # a region, for a way that is refused
    if call.get("axes") or call.get("antialias") or call.get("exclude_outside"):
        raise ValueError("axes, antialiasing or excluded edges")
    if sizes is not None and sizes.size:
        counts = [int(n) for n in sizes]
        factors = [count / n for count, n in zip(counts, x.shape, strict=True)]
    else:
        factors = (scales if scales is not None else np.asarray(call.get("scales", []))).tolist()
        counts = [int(n * factor) for n, factor in zip(x.shape, factors, strict=True)]
    way = call.get("coordinate_transformation_mode", "half_pixel" if call.opset >= 11 else "asymmetric")
    rounding = call.get("nearest_mode", "round_prefer_floor" if call.opset >= 11 else "floor")
    mode = call.get("mode", "nearest")
    if counts[:2] != list(x.shape[:2]) or call.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise ValueError(f"sizes {counts}")
    matrices = [
        interpolate.matrix(n, count, factor, mode, way, rounding, call.get("cubic_coeff_a", -0.75))
        for n, count, factor in list(zip(x.shape, counts, factors, strict=True))[2:]
    ]
    if mode == "nearest":
        return build.nearest(x, [matrix.argmax(1) for matrix in matrices])
    return build.resized(x, matrices)


def _depth_to_space(call: _Call) -> Value:
    return call.build.depth_to_space(call.x, call.get("blocksize"), call.get("mode", "DCR") == "DCR")


def _space_to_depth(call: _Call) -> Value:
    build, size = call.build, call.get("blocksize")
    _, channels, rows, cols = call.x.shape
    parts = build.reshape(call.x, (1, channels, rows // size, size, cols // size, size))
    return build.reshape(build.permute(parts, (0, 3, 5, 1, 2, 4)), (1, channels * size**2, rows // size, cols // size))


def _cumulative(call: _Call) -> Value:
    axis = int(np.asarray(call.fixed(1)).reshape(-1)[0])
    size = call.x.shape[axis]
    matrix = np.tri(size, k=-1 if call.get("exclusive", 0) else 0, dtype=np.float32)
    return call.build.along(call.x, axis, matrix.T if call.get("reverse", 0) else matrix)


def _over(function: Callable[[Builder, Value, list[int], bool], Value]) -> Callable[[_Call], Value]:
    """A reduction that is made of others."""

    def translate(call: _Call) -> Value:
        axes = call.numbers(1, "axes")
        if not axes and call.get("noop_with_empty_axes", 0):
            raise ValueError("no axes")
        axes = axes or list(range(len(call.x.shape)))
        return function(call.build, call.x, axes, bool(call.get("keepdims", 1)))

    return translate


def _dropout(call: _Call) -> Any:
    training = call.fixed(2)
    ratio = call.fixed(1)
    if training is not None and training.any() and (ratio is None or ratio.any()):
        raise ValueError("training mode")
    return call.given(0)


_KNOWN: dict[str, Callable[[_Call], Any]] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": lambda call: call.build.matmul(*call.inputs),
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm,
    "RMSNormalization": _rms_norm,
    "SimplifiedLayerNormalization": _rms_norm,
    "GroupNormalization": _group_norm,
    "InstanceNormalization": _instance_norm,
    "MaxPool": _pool("max_pool"),
    "AveragePool": _pool("avg_pool"),
    "GlobalAveragePool": _global_pool("avg_pool"),
    "GlobalMaxPool": _global_pool("max_pool"),
    **{
        name: _unary(name.lower())
        for name in ("Relu", "Sigmoid", "Tanh", "Erf", "Exp", "Log", "Sqrt", "Sin", "Cos", "Abs")
    },
    "HardSwish": _unary("hard_swish"),
    "Swish": _swish,
    "Gelu": _gelu,
    "FastGelu": _fast_gelu,
    "HardSigmoid": _hard_sigmoid,
    "LeakyRelu": lambda call: call.build.leaky(call.x, np.array(call.get("alpha", 0.01), np.float32)),
    "PRelu": _prelu,
    "Elu": lambda call: call.build.elu(call.x, call.get("alpha", 1.0)),
    "Selu": lambda call: call.build.elu(
        call.x, call.get("alpha", 1.67326319217681884765625), call.get("gamma", 1.05070102214813232421875)
    ),
    "Celu": _celu,
    "Softplus": lambda call: call.build.softplus(call.x),
    "Mish": lambda call: call.build.mish(call.x),
    "Softsign": lambda call: call.build.elementwise(
        "div", call.x, call.build.scalar("add", call.build.unary("abs", call.x), 1.0)
    ),
    "Neg": lambda call: call.build.scalar("mul", call.x, -1.0),
    "Reciprocal": lambda call: call.build.reversed("div", 1.0, call.x),
    "Clip": _clip,
    "Pow": _power,
    "Add": _binary("add"),
    "Sub": _binary("sub"),
    "Mul": _binary("mul"),
    "Div": _binary("div"),
    "Sum": _several("add"),
    "Max": _several("maximum"),
    "Min": _several("minimum"),
    "Equal": _binary("equal", boolean=True),
    "Less": _binary("less", boolean=True),
    "LessOrEqual": _binary("less_equal", boolean=True),
    "Greater": _binary("less", turned=True, boolean=True),
    "GreaterOrEqual": _binary("less_equal", turned=True, boolean=True),
    "And": _binary("mul", boolean=True),
    "Or": _binary("maximum", boolean=True),
    "Not": _not,
    "IsNaN": _is_nan,
    "Where": _where,
    "Cast": _cast,
    "Softmax": _softmax,
    "LogSoftmax": _log_softmax,
    "Gather": _embedding,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Transpose": _transpose,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Pad": _pad,
    "Expand": _expand,
    "Tile": _tile,
    "ReduceMean": _reduce("mean"),
    "ReduceSum": _reduce("sum"),
    "ReduceMax": _reduce("max"),
    "ReduceMin": _reduce("min"),
    "ReduceL1": _over(lambda b, x, axes, keep: b.norm_of(x, 1, axes, keep)),
    "ReduceL2": _over(lambda b, x, axes, keep: b.norm_of(x, 2, axes, keep)),
    "ReduceSumSquare": _over(lambda b, x, axes, keep: b.reduce("sum", b.elementwise("mul", x, x), axes, keep)),
    "ReduceLogSumExp": _over(lambda b, x, axes, keep: b.logsumexp(x, axes, keep)),
    "CumSum": _cumulative,
    "LRN": _local_response,
    "LSTM": lambda call: _recurrent(call, "LSTM", ["Sigmoid", "Tanh", "Tanh"]),
    "GRU": lambda call: _recurrent(call, "GRU", ["Sigmoid", "Tanh"]),
    "RNN": lambda call: _recurrent(call, "RNN", ["Tanh"]),
    **dict.fromkeys(("Resize", "Upsample"), _resize),
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
    "Shape": lambda call: np.array(call.x.shape[call.get("start", 0) : call.get("end")], np.int64),
    "Size": lambda call: np.array(math.prod(call.x.shape), np.int64),
    "Identity": lambda call: call.given(0),
    "Dropout": _dropout,
    "CastLike": _cast_like,
}

_FOLDED = {
    *(_KNOWN.keys() - {"FastGelu", "SimplifiedLayerNormalization", "Upsample"}),
    "ConstantOfShape", "Range", "Trilu", "Floor", "Ceil", "Round", "Mod", "Sign", "ScatterND", "ReduceProd",
    "GatherElements", "EyeLike", "Xor", "Einsum", "Tan", "Atan", "OneHot", "NonZero", "QuantizeLinear",
    "DequantizeLinear",
}  # fmt: skip
"""What is computed at once where all inputs are constants."""
