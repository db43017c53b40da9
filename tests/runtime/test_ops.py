"""The table of operators has no gaps, and says what is so: each operator is computed, written as ONNX, and by token."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from tests.runtime.networks import ISAS
from tests.runtime.test_to_onnx import assert_equal, dense
from ticketsmith.runtime.graph import ELEMENTWISE, Graph, GraphError, Node, Port, Shape, Step
from ticketsmith.runtime.model import Model
from ticketsmith.runtime.ops import OPERATORS
from ticketsmith.runtime.to_onnx import WRITERS, to_onnx

pytestmark = pytest.mark.skipif(not ISAS, reason="the kernels are not built")


def numbers(*shape: int) -> Any:
    return np.random.default_rng(len(shape)).uniform(0.5, 1.5, shape).astype(np.float32)


@dataclass(frozen=True)
class Example:
    """A node of one or more inputs of one shape. By default they are four tokens of six features."""

    attributes: dict[str, Any] = field(default_factory=dict)
    weights: dict[str, Any] = field(default_factory=dict)
    shape: Shape = (4, 6)
    inputs: int = 1
    dtype: str = "float32"
    step: Step | None = None

    def graph(self, op: str) -> Graph:
        ports = [Port(f"x{index}", self.shape, self.dtype) for index in range(max(1, self.inputs))]
        node = Node(
            op,
            tuple(port.name for port in ports[: self.inputs]),
            "y",
            {key: key for key in self.weights},
            self.attributes,
        )
        first, *rest = ports
        return Graph(first.name, first.shape, first.dtype, (node,), "y", self.weights, tuple(rest), step=self.step)


IMAGE = (4, 6, 8)
WINDOW = {"stride": [1, 1], "padding": [1, 1]}
SCALES = {"scale": numbers(6), "shift": numbers(6)}
PADS = {"before": [1, 0], "behind": [0, 2], "between": [1, 0], "value": 0.5}
HEADS = {"heads": 2, "causal": True, "scale": 0.5}
EXAMPLES = {
    "linear": Example({"activation": "relu"}, {"weight": numbers(5, 6), "bias": numbers(5)}),
    "conv2d": Example({**WINDOW, "dilation": [1, 1], "groups": 2}, {"weight": numbers(6, 2, 3, 3)}, IMAGE),
    "matmul": Example(shape=(6, 6), inputs=2),
    "affine": Example({"activation": "tanh"}, SCALES),
    "activation": Example({"activation": "gelu"}),
    **{op: Example(inputs=3 if op == "where" else 2) for op in ELEMENTWISE},
    "add_constant": Example({}, {"value": numbers(4, 6)}),
    "max_pool": Example({"kernel": [3, 3], **WINDOW}, shape=IMAGE),
    "avg_pool": Example({"kernel": [3, 3], **WINDOW, "count_padding": False}, shape=IMAGE),
    "upsample": Example({"factors": [2, 3]}, shape=IMAGE),
    "layer_norm": Example({"epsilon": 1e-5}, SCALES),
    "rms_norm": Example({"epsilon": 1e-5}, {"scale": numbers(6)}),
    "group_norm": Example({"groups": 2, "epsilon": 1e-5}, {"scale": numbers(4), "shift": numbers(4)}, IMAGE),
    "softmax": Example({"axis": 1}),
    "reduce": Example({"function": "mean", "axes": [1]}),
    "constant": Example({}, {"value": numbers(4, 6)}, inputs=0),
    "cast": Example(shape=(4,), dtype="int64"),
    "flatten": Example(),
    "reshape": Example({"shape": [4, 3, 2]}),
    "permute": Example({"axes": [0, 2, 1]}, shape=IMAGE),
    "concat": Example({"axis": 1}, inputs=2),
    "slice": Example({"axis": 1, "begin": 1, "end": 6, "step": 2}),
    "expand": Example({"shape": [3, 4, 6]}),
    "pad": Example(PADS),
    "embedding": Example({}, {"table": numbers(9, 6)}, (4,), dtype="int64"),
    "rotary": Example({"heads": 1, "interleaved": False}, {"cos": numbers(4, 6), "sin": numbers(4, 6)}),
    "attention": Example(HEADS, inputs=3),
    "rows": Example({}, {"value": numbers(40, 6)}, inputs=0, step=Step(1, 1, 8)),
}


def test_every_operator_has_an_example() -> None:
    assert EXAMPLES.keys() == OPERATORS.keys()


def test_every_operator_is_written_or_says_why_not() -> None:
    assert WRITERS.keys() == {name for name, operator in OPERATORS.items() if not operator.no_onnx}


@pytest.mark.parametrize("op", OPERATORS)
def test_parameters_and_attributes_are_those_of_the_table(op: str) -> None:
    operator, example = OPERATORS[op], EXAMPLES[op]
    example.graph(op).shapes()
    assert set(operator.parameters) <= set(example.weights) <= {*operator.parameters, *operator.optional}
    assert set(example.attributes) <= set(operator.attributes)
    for name in operator.parameters:
        rest = {key: value for key, value in example.weights.items() if key != name}
        with pytest.raises(GraphError, match=f"needs the parameter '{name}'"):
            replace(example, weights=rest).graph(op).shapes()
    if operator.step_only:
        with pytest.raises(GraphError, match="not known"):
            replace(example, step=None).graph(op).shapes()


def values(graph: Graph) -> list[Any]:
    """Inputs of three samples."""
    shapes = [(3, *port.shape) for port in graph.inputs]
    return [
        numbers(*shape) + place if graph.dtype == "float32" else np.full(shape, 2 + place)
        for place, shape in enumerate(shapes)
    ]


@pytest.mark.parametrize("op", [name for name, operator in OPERATORS.items() if not operator.step_only])
def test_kernels_compute_what_a_dense_library_computes(op: str) -> None:
    graph = EXAMPLES[op].graph(op)
    inputs = values(graph)
    outputs = Model(graph)(*inputs)
    assert outputs.shape == (3, *graph.shapes()["y"])
    named = inputs if EXAMPLES[op].inputs else inputs[:1]
    assert_equal(dense(to_onnx(graph), tuple(named)), outputs)


def by_token(op: str) -> bool:
    graph = EXAMPLES[op].graph(op)
    return not OPERATORS[op].step_only and OPERATORS[op].by_token(graph.nodes[0], len(graph.shapes()["y"]))


@pytest.mark.parametrize("op", filter(by_token, OPERATORS))
def test_what_works_by_token_reads_no_later_token(op: str) -> None:
    graph = EXAMPLES[op].graph(op)
    inputs = values(graph)
    later = [one.copy() for one in inputs]
    for one in later:
        one[:, 2:] += 1
    before, after = (Model(graph)(*each) for each in (inputs, later))
    np.testing.assert_array_equal(before[:, :2], after[:, :2])
