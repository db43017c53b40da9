"""What an ONNX model computes from constants alone, by ONNX's own reference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from ticketsmith.errors import TicketSmithError
from ticketsmith.memory import require
from ticketsmith.runtime.builder.core import Array, UnsupportedError
from ticketsmith.runtime.graph import MOST_ELEMENTS
from ticketsmith.runtime.onnx.files import Files, OnnxError, spread
from ticketsmith.runtime.onnx.sizes import result_size


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
        versions = [
            (domain, max(version, 19) if domain in ("", "ai.onnx") else version) for domain, version in versions
        ]
    evaluator = ReferenceEvaluator(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid(*one) for one in versions])
    )
    with np.errstate(all="ignore"):
        results = evaluator.run(None, {name: constants[name] for name in names})
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

    def along(
        self, graph: Any, constants: Mapping[str, Array] | None = None
    ) -> Iterator[tuple[Any, Mapping[str, Array]]]:
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
