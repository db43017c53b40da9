"""What ONNX models hold: weights in the file and beside it, with no more trust than a stranger's file deserves; what nodes make
of constants, by ONNX's own reference; and a node as the functions that translate it see it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ticketsmith.errors import TicketSmithError
from ticketsmith.memory import require
from ticketsmith.runtime.builder.core import Array, Builder, UnsupportedError, Value
from ticketsmith.runtime.graph import MOST_ELEMENTS


class OnnxError(TicketSmithError):
    """A file is no ONNX model, is damaged, or reaches beyond its folder; or ``onnx`` is not installed."""


@dataclass(frozen=True)
class Files:
    """What a model may read: its own bytes, and files in its ``folder``; None: none."""

    folder: Path | None

    def plain(self, tensor: Any) -> Any:
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

    def array(self, tensor: Any) -> Array:
        """A tensor as float32, or as whole numbers. Raises OnnxError or UnsupportedError."""
        return array(self.plain(tensor))

    def attribute(self, attribute: Any) -> Any:
        """The value of an attribute: a number, a text, a list, or an array."""
        import onnx

        value = onnx.helper.get_attribute_value(attribute)
        if isinstance(value, bytes):
            return value.decode(errors="replace")
        if isinstance(value, onnx.TensorProto):
            return self.array(value)
        return value


def array(tensor: Any) -> Array:
    """A tensor whose bytes are all there, as float32 or whole numbers."""
    from onnx import numpy_helper

    if math.prod(tensor.dims) > MOST_ELEMENTS or any(n < 0 for n in tensor.dims):
        raise OnnxError(f"weights {tensor.name!r} have an impossible shape {list(tensor.dims)}.")
    require(4 * math.prod(tensor.dims), f"weights {tensor.name!r}", "Take a machine with more memory.", OnnxError)
    try:
        values = numpy_helper.to_array(tensor)
    except Exception as error:  # of many kinds
        raise OnnxError(f"weights {tensor.name!r} are damaged ({error}).") from error
    if values.dtype.kind in "iub":
        return values.copy()
    if values.dtype.kind not in "fV" or values.dtype.names:
        raise UnsupportedError(f"weights {tensor.name!r} are {values.dtype}, which the sparse runtime does not know.")
    return values.astype(np.float32)  # which keeps scalars scalars


def spread(tensor: Any) -> Array:
    """A sparse tensor with its zeros."""
    values, places = array(tensor.values), array(tensor.indices).astype(np.int64)
    size = math.prod(tensor.dims)
    if not 0 <= size <= MOST_ELEMENTS or any(n < 0 for n in tensor.dims):
        raise ValueError("an impossible shape")
    flat = places if places.ndim == 1 else np.ravel_multi_index(tuple(places.T), tuple(tensor.dims))
    dense = np.zeros(size, values.dtype)
    dense[flat] = values
    return dense.reshape(tuple(tensor.dims))


_UNSIZED = {
    "Conv", "ConvTranspose", "DeformConv", "ConvInteger", "QLinearConv", "LSTM", "GRU", "RNN", "AveragePool", "MaxPool", "LpPool",
    "MaxUnpool", "MaxRoiPool", "RoiAlign", "GridSample", "AffineGrid", "Col2Im", "CenterCropPad", "DFT", "STFT", "HannWindow",
    "HammingWindow", "BlackmanWindow", "MelWeightMatrix", "Multinomial", "ImageDecoder", "Attention", "TfIdfVectorizer", "If",
    "Loop", "Scan", "SequenceMap",
}  # fmt: skip
"""Operators whose results may be of any size, and which nobody needs of constants alone."""


def result_size(node: Any, inputs: Sequence[Any]) -> float:
    """An upper bound of the elements of the outputs of ``node``, of which all ``inputs`` are arrays (or None: left out).

    Infinite where nothing can be said.
    """
    if node.op_type in _UNSIZED:
        return math.inf
    try:
        return _size(node, list(inputs))
    except (ValueError, IndexError, TypeError, AttributeError, KeyError, OverflowError):  # inputs that do not fit
        return math.inf


def _size(node: Any, inputs: list[Any]) -> float:
    import onnx

    op = node.op_type
    attributes = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
    shapes = [np.shape(one) for one in inputs if one is not None]
    total = float(sum(math.prod(shape) for shape in shapes))
    if op == "ConstantOfShape":
        return _product(inputs[0])
    if op == "Expand":
        return float(math.prod(np.broadcast_shapes(shapes[0], tuple(int(n) for n in np.reshape(inputs[1], -1)))))
    if op == "Tile":
        return np.size(inputs[0]) * _product(inputs[1])
    if op == "Range":
        start, limit, step = (float(np.reshape(one, -1)[0]) for one in inputs)
        return abs((limit - start) / step) if step else math.inf
    if op in ("MatMul", "MatMulInteger", "QLinearMatMul"):
        a, b = shapes[0], shapes[3 if op == "QLinearMatMul" else 1]
        rows, columns = (a[-2] if len(a) > 1 else 1), (b[-1] if len(b) > 1 else 1)
        return float(math.prod(np.broadcast_shapes(a[:-2], b[:-2])) * rows * columns)
    if op == "Gemm":
        rows = shapes[0][1 if attributes.get("transA") else 0]
        return float(rows * shapes[1][0 if attributes.get("transB") else 1])
    if op == "OneHot":
        return np.size(inputs[0]) * float(np.reshape(inputs[1], -1)[0])
    if op == "Pad":
        listed = inputs[1] if len(inputs) > 1 else attributes["pads"]
        pads = np.reshape(np.asarray(listed), (2, -1))
        axes = range(len(shapes[0])) if len(inputs) < 4 or inputs[3] is None else [int(n) for n in inputs[3]]
        sizes = [float(n) for n in shapes[0]]
        for axis, pad in zip(axes, pads.astype(float).clip(0).sum(0), strict=True):
            sizes[axis] += pad
        return math.prod(sizes)
    if op in ("Resize", "Upsample"):
        if len(inputs) > 3 and np.size(inputs[3]):
            return _product(inputs[3]) * (math.prod(shapes[0]) if "axes" in attributes else 1)
        place = 2 if len(inputs) > 2 else 1
        scales = inputs[place] if len(inputs) > place else attributes["scales"]
        return np.size(inputs[0]) * math.prod(max(1.0, float(scale)) for scale in scales)
    if op == "Einsum":
        return _einsum(attributes["equation"].decode(), shapes)
    if op in ("Gather", "GatherND"):
        rows = max(1, shapes[0][attributes.get("axis", 0)]) if op == "Gather" else 1
        return float(np.size(inputs[1]) * max(1, np.size(inputs[0])) / rows)
    if op == "NonZero":
        return total * max(1, len(shapes[0]))
    if op in ("Concat", "ConcatFromSequence", "Split"):
        return total
    try:
        return float(math.prod(np.broadcast_shapes(*shapes)))
    except ValueError:
        return total


def _product(shape: Any) -> float:
    return float(np.prod(np.abs(np.asarray(shape, np.float64))))


def _einsum(equation: str, shapes: Sequence[tuple[int, ...]]) -> float:
    left, arrow, right = equation.replace(" ", "").partition("->")
    if "." in left:
        return math.inf
    sizes = {letter: n for term, shape in zip(left.split(","), shapes, strict=True)
             for letter, n in zip(term, shape, strict=True)}  # fmt: skip
    return float(math.prod(sizes[one] for one in (right if arrow else {one for one in sizes if left.count(one) == 1})))


def value_of(attributes: dict[str, Any], operator: str) -> Array:
    """The value of a node ``Constant``, whose place ``operator`` tells. Raises UnsupportedError."""
    for name, dtype in (("value_float", np.float32), ("value_floats", np.float32), ("value_int", np.int64),
                        ("value_ints", np.int64)):  # fmt: skip
        if name in attributes:
            return np.array(attributes[name], dtype)
    if not isinstance(attributes.get("value"), np.ndarray):
        raise UnsupportedError(f"{operator} holds no array.")
    value: Array = attributes["value"]
    return value


def opsets(proto: Any) -> list[tuple[str, int]]:
    """The domains that a model uses operators of, each with its version."""
    return [(one.domain, one.version) for one in proto.opset_import]


def node_of_constants(node: Any, constants: Mapping[str, Any], versions: Sequence[tuple[str, int]]) -> dict[str, Array]:
    """The outputs of a node whose inputs are among ``constants``, by ONNX's own reference, which raises whatever NumPy does."""
    import onnx
    from onnx.reference import ReferenceEvaluator

    names = [name for name in dict.fromkeys(node.input) if name]
    ports = [onnx.helper.make_value_info(name, onnx.TypeProto()) for name in names]
    outs = [onnx.helper.make_value_info(name, onnx.TypeProto()) for name in node.output if name]
    graph = onnx.helper.make_graph([node], "constant", ports, outs)
    if node.op_type in ("QuantizeLinear", "DequantizeLinear"):  # the reference has them from then on; they are the same
        versions = [(name, max(n, 19) if name in ("", "ai.onnx") else n) for name, n in versions]
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid(*one) for one in versions])
    with np.errstate(all="ignore"):
        results = ReferenceEvaluator(model).run(None, {name: constants[name] for name in names})
    return {name: np.asarray(value) for name, value in zip([one.name for one in outs], results, strict=True)}


class Constants:
    """What a model computes from constants alone, for whoever looks at its weights. ``folder`` is where the model lies."""

    def __init__(self, proto: Any, folder: Path | None) -> None:
        self._files, self._opsets = Files(folder), opsets(proto)

    def initializers(self, graph: Any) -> dict[str, Array]:
        """The initializers of ``graph`` by name, without those that cannot be read."""
        arrays: dict[str, Array] = {}
        for tensor in graph.initializer:
            with suppress(TicketSmithError):
                arrays[tensor.name] = self._files.array(tensor)
        for tensor in graph.sparse_initializer:
            with suppress(TicketSmithError, ValueError, IndexError):
                arrays[tensor.values.name] = spread(tensor)
        return arrays

    def along(self, graph: Any, constants: Mapping[str, Array] | None = None
              ) -> Iterator[tuple[Any, Mapping[str, Array]]]:  # fmt: skip
        """Each node of ``graph`` and of the graphs within it, in order, with the constants that are known there by name.

        What cannot be read or computed is not known.
        """
        arrays = {**(constants or {}), **self.initializers(graph)}
        for node in graph.node:
            if node.op_type == "Constant":
                with suppress(TicketSmithError):
                    attributes = {one.name: self._files.attribute(one) for one in node.attribute}
                    arrays[node.output[0]] = value_of(attributes, "")
            elif node.input and all(name in arrays or not name for name in node.input):
                size = result_size(node, [arrays.get(name) for name in node.input])
                if not node.op_type.startswith("Random") and size <= MOST_ELEMENTS:
                    with suppress(Exception):  # the reference raises whatever NumPy does
                        require(8 * int(size), f"the constant that {node.op_type} makes", "", OnnxError)
                        arrays |= node_of_constants(node, arrays, self._opsets)
            yield node, arrays
            for attribute in node.attribute:
                for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                    yield from self.along(inner, arrays)


_MEANINGLESS = {
    "auto_pad", "pads", "kernel_shape", "storage_order", "stash_type", "momentum", "saturate", "round_mode", "hidden_size",
    "consumed_inputs", "seed", "ratio", "is_test", "nearest_mode", "cubic_coeff_a", "value", "to", "output_sequence",
    "noop_with_empty_axes", "extrapolation_value",
}  # fmt: skip
"""Attributes that change no number of an output, or do so only together with another one that is read."""


class Call:
    """One node: its inputs, the builder, and its attributes with their defaults. It remembers what was asked for."""

    def __init__(self, b: Builder, inputs: list[Any], attributes: dict[str, Any], opset: int, outputs: int) -> None:
        self.b, self.attributes, self.opset, self.outputs = b, attributes, opset, outputs
        self._inputs = inputs
        self._read: set[str | int] = set()

    @property
    def inputs(self) -> list[Any]:
        self._read.update(range(len(self._inputs)))
        return self._inputs

    def get(self, name: str, default: Any = None) -> Any:
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
        one = self.input(index)
        if not isinstance(one, Value):
            raise ValueError(f"its input {index} is a constant")
        return one

    def input(self, index: int) -> Any:
        """An input, or None."""
        self._read.add(index)
        return self._inputs[index] if index < len(self._inputs) else None

    def constant(self, index: int) -> Array | None:
        """An input that must be a constant, or None."""
        one = self.input(index)
        if isinstance(one, Value):
            raise ValueError(f"its input {index} is computed")
        return one  # type: ignore[no-any-return]

    def numbers(self, index: int, name: str) -> list[int] | None:
        """Whole numbers that newer opsets have as an input and older ones as an attribute."""
        array = self.constant(index)
        if array is not None:
            return [int(n) for n in array.reshape(-1)]
        listed = self.get(name)
        return None if listed is None else [int(n) for n in listed]
