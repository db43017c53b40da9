"""Graphs written as ONNX models: dense libraries compute from them what the runtime computes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.runtime import test_networks as networks
from tests.runtime import test_onnx as models
from tests.runtime.networks import ISAS, Block, Gpt, sparse
from tests.runtime.test_operations import LAYERS, POOLS, Arrays, Residual, Small
from tests.runtime.zoo import ZOO, network, noise, tokens
from ticketsmith.runtime.build import UnsupportedError
from ticketsmith.runtime.from_onnx import OnnxError, from_onnx
from ticketsmith.runtime.from_torch import from_torch
from ticketsmith.runtime.graph import ACTIVATIONS, Graph, Node, Port, Step
from ticketsmith.runtime.model import Model
from ticketsmith.runtime.ops import OPERATORS
from ticketsmith.runtime.to_onnx import to_onnx

onnx = pytest.importorskip("onnx")
pytestmark = pytest.mark.skipif(not ISAS, reason="the kernels are not built")

Case = tuple[Graph, tuple[Any, ...]]
"""A graph, and inputs of three samples."""


def of_torch(module: nn.Module, *inputs: Tensor) -> Case:
    module = module.eval()
    return from_torch(module, inputs), tuple(one.numpy() for one in inputs)


def of_zoo(name: str) -> Case:
    return of_torch(network(name), *ZOO[name][1](3))


def of_onnx(name: str) -> Case:
    (op, attributes), shape, weights = models.CASES[name]
    graph = from_onnx(models.made([models.node(op, "x", *weights, **attributes)], shape, **weights))
    return graph, (models.random(3, *graph.shape),)


def of_nodes(
    shape: tuple[int, ...],
    *nodes: Node,
    outputs: tuple[str, ...] = ("y",),
    scalars: tuple[int, ...] = (),
    **tensors: Any,
) -> Case:
    """Nodes of one input ``x``."""
    return (
        Graph("x", shape, "float32", nodes, outputs[0], tensors, (), outputs[1:], None, scalars),
        (models.random(3, *shape),),
    )


def after(activation: str) -> Case:
    """An activation alone, of a product with a residual, and of other operators that may have one."""
    own = {"activation": activation}
    nodes = (
        Node("activation", ("x",), "alone", {}, {"activation": "abs"}),
        Node("affine", ("alone",), "affine", {"scale": "scale", "shift": "shift"}, own),
        Node("linear", ("affine", "affine"), "product", {"weight": "weight", "bias": "shift"}, own),
        Node("add_constant", ("x",), "constant", {"value": "scale"}, {"activation": "abs"}),
        Node("mul", ("constant", "alone"), "y", {}, own),
    )
    weight = np.abs(models.random(4, 4)) / 4
    scale, shift = np.linspace(0.5, 2, 4, dtype=np.float32), np.full(4, 0.25, np.float32)
    return of_nodes((4,), *nodes, outputs=("y", "product"), weight=weight, scale=scale, shift=shift)


def rotated(interleaved: bool) -> Case:
    attributes = {"heads": 2, "interleaved": interleaved}
    node = Node("rotary", ("x",), "y", {"cos": "cos", "sin": "sin"}, attributes)
    return of_nodes((5, 12), node, cos=models.random(5, 6), sin=models.random(5, 6)[::-1].copy())


def apart() -> Case:
    """Elements with zeros, or something else, between them, which no convolution reads."""
    zeros = {"before": [0, 1], "behind": [2, 0], "between": [1, 0], "value": 0.0}
    ones = {"before": [0, 0], "behind": [0, 3], "between": [2, 1], "value": 1.0}
    return of_nodes((3, 4), Node("pad", ("x",), "wide", {}, zeros), Node("pad", ("wide",), "y", {}, ones))


def far_apart() -> Case:
    """Zeros between elements and more of them around than a transposed convolution could leave out."""
    zeros = {"before": [0, 4, 0], "behind": [0, 1, 2], "between": [0, 1, 2], "value": 0.0}
    window = {"stride": 1, "padding": [0, 1], "dilation": 1, "groups": 1}
    nodes = (
        Node("pad", ("x",), "wide", {}, zeros),
        Node("conv2d", ("wide",), "y", {"weight": "weight"}, window),
    )
    return of_nodes((2, 3, 4), *nodes, weight=models.random(5, 2, 3, 2))


def repeated() -> Case:
    """Of an input, and of a constant, which then is one for each sample."""
    nodes = (
        Node("expand", ("x",), "wide", {}, {"shape": [2, 3, 4]}),
        Node("constant", (), "row", {"value": "row"}),
        Node("expand", ("row",), "rows", {}, {"shape": [2, 1, 4]}),
        Node("concat", ("wide", "rows", "wide"), "y", {}, {"axis": 1}),
    )
    return of_nodes((3, 1), *nodes, row=models.random(4))


def compared() -> Case:
    nodes = (
        Node("flatten", ("x",), "flat"),
        Node("slice", ("flat",), "half", {}, {"begin": 0, "end": 12, "step": 2}),
        Node("less_equal", ("half", "half"), "always"),
        Node("equal", ("flat", "number"), "never"),
        Node("constant", (), "number", {"value": "number"}),
        Node("where", ("flat", "flat", "number"), "same", {}, {"activation": "sigmoid"}),
        Node("less", ("number", "flat"), "signs", {}, {"activation": "sigmoid"}),
        Node("where", ("never", "number", "flat"), "some"),
        Node("where", ("signs", "some", "number"), "y"),
    )
    return of_nodes((3, 4), *nodes[:3], nodes[4], nodes[3], *nodes[5:], outputs=("y", "same", "always"),
                    number=np.full(1, 3, np.float32))  # fmt: skip


def given_twice() -> Case:
    """One value as two outputs and as a number; a constant as an output; and an output that is an input's value."""
    nodes = (
        Node("reduce", ("x",), "sum", {}, {"axes": [0], "function": "sum"}),
        Node("constant", (), "constant", {"value": "values"}),
        Node("activation", ("x",), "same", {}, {"activation": "linear"}),
    )
    return of_nodes((4,), *nodes, outputs=("sum", "sum", "sum", "constant", "constant", "same"), scalars=(2,),
                    values=models.random(2, 3))  # fmt: skip


def awkward_names() -> Case:
    """Tensors that are named as values are, and values as what is added."""
    nodes = (
        Node("linear", ("x",), "x.1", {"weight": "x"}, {"activation": "gelu"}),
        Node("linear", ("x.1",), "y.1", {"weight": "constant"}, {"activation": "silu"}),
        Node("softmax", ("y.1",), "constant"),
        Node("linear", ("constant",), "y", {"weight": "y"}, {"activation": "relu6"}),
    )
    return of_nodes((4,), *nodes, **{name: models.random(4, 4) for name in ("x", "y", "constant")})


CASES: dict[str, Callable[[], Case]] = {
    **{f"zoo: {name}": lambda name=name: of_zoo(name) for name in ZOO},
    **{f"onnx: {name}": lambda name=name: of_onnx(name) for name in models.CASES},
    **{f"layer: {layer}": lambda layer=layer: of_torch(layer, noise(3, 3, 9, 11)) for layer in LAYERS},
    **{f"pool: {pool}": lambda pool=pool: of_torch(pool, noise(3, 5, 16, 33)) for pool in POOLS},
    **{f"activation: {name}": lambda name=name: after(name) for name in ACTIVATIONS},
    "small": lambda: of_torch(sparse(Small((3, 2), (1, 2), (2, 1)), 0.5), noise(3, 3, 12, 14)),
    "residual": lambda: of_torch(sparse(Residual(2), 0.4), noise(3, 4, 15, 18)),
    "arrays": lambda: of_torch(Arrays(), noise(3, 5, 6, 7)),
    "block": lambda: of_torch(sparse(Block(48, 3), 0.5), noise(3, 1, 48)),
    "gpt": lambda: of_torch(sparse(Gpt(), 0.5), tokens(3, 21)),
    "parts": lambda: of_torch(networks.Parts(), noise(3, 6, 5)),
    "recurrent": lambda: of_torch(networks.Recurrent(), noise(3, 6, 5)),
    "towers": lambda: of_torch(networks.Towers(), tokens(3, 3), tokens(3, 7), noise(3, 2)),
    "resized": lambda: of_torch(networks.Resized(), noise(3, 2, 9, 13)),
    "rotary by halves": lambda: rotated(False),
    "rotary by pairs": lambda: rotated(True),
    "apart": apart,
    "far apart": far_apart,
    "repeated": repeated,
    "compared": compared,
    "given twice": given_twice,
    "awkward names": awkward_names,
}


@cache
def case(name: str) -> Case:
    torch.manual_seed(0)
    return CASES[name]()


def several(outputs: Any) -> tuple[Any, ...]:
    return outputs if isinstance(outputs, tuple) else (outputs,)


def assert_equal(given: Any, wanted: Any) -> None:
    for got, want in zip(several(given), several(wanted), strict=True):
        assert got.shape == want.shape
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * max(1.0, float(np.abs(want).max())))


def dense(model: bytes, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """What ONNX Runtime computes."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [port.name for port in session.get_inputs()]
    return tuple(session.run(None, dict(zip(names, inputs, strict=True))))


@pytest.mark.parametrize("name", CASES)
def test_dense_libraries_give_what_the_runtime_gives(name: str) -> None:
    graph, inputs = case(name)
    model = Model(graph)
    free, fixed = to_onnx(graph), to_onnx(graph, 3)
    for one in (free, fixed):
        onnx.checker.check_model(one, full_check=True)
    expected, first = model(*inputs), tuple(one[:1] for one in inputs)
    assert_equal(dense(free, inputs), expected)
    assert_equal(dense(free, first), model(*first))
    assert_equal(dense(fixed, inputs), expected)
    if name != "given twice":  # no network that is read gives its input or a constant
        assert_equal(Model(from_onnx(free))(*inputs), expected)


@pytest.mark.parametrize(
    "name",
    [
        "zoo: mobile",
        "zoo: unet",
        "zoo: segmenter",
        "zoo: encoder",
        "zoo: rotary_shared",
        "apart",
        "compared",
        "given twice",
    ],
)
def test_openvino_gives_what_the_runtime_gives(name: str) -> None:
    import openvino

    graph, inputs = case(name)
    core = openvino.Core()
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = core.compile_model(core.read_model(to_onnx(graph)), "CPU", options)
    given = compiled(list(inputs))
    assert_equal(tuple(given[place] for place in range(len(graph.outputs))), Model(graph)(*inputs))


def test_every_operator_is_written() -> None:
    """A new one must have a case here."""
    assert {node.op for name in CASES for node in case(name)[0].nodes} == {
        name for name, operator in OPERATORS.items() if not operator.no_onnx
    }


@pytest.mark.parametrize("batch", [None, 4])
def test_the_ports_are_those_of_the_graph(batch: int | None) -> None:
    graph, _ = case("towers")
    made = onnx.load_model_from_string(to_onnx(graph, batch)).graph

    def ports(side: Any) -> list[tuple[int, list[Any]]]:
        kinds = [one.type.tensor_type for one in side]
        return [(kind.elem_type, [dim.dim_param or dim.dim_value for dim in kind.shape.dim]) for kind in kinds]

    tokens, numbers, first = onnx.TensorProto.INT64, onnx.TensorProto.FLOAT, batch or "batch"
    assert [one.name for one in made.input] == [port.name for port in graph.inputs]
    assert ports(made.input) == [(tokens, [first, 3]), (tokens, [first, 7]), (numbers, [first, 2])]
    assert ports(made.output) == [(numbers, [first])]  # a cosine a sample


def test_every_input_and_output_has_a_name_of_its_own() -> None:
    made = onnx.load_model_from_string(to_onnx(case("given twice")[0])).graph
    names = [one.name for one in (*made.input, *made.output)]
    assert len(set(names)) == len(names) == 7


def test_zeros_between_elements_are_not_multiplied() -> None:
    made = onnx.load_model_from_string(to_onnx(case("zoo: segmenter")[0]))
    operators = [node.op_type for node in made.graph.node]
    assert operators.count("ConvTranspose") == 1
    assert "Pad" not in operators


def test_what_cannot_be_written_is_refused() -> None:
    port = Port("x", (1,), "int64")
    table = {"table": np.ones((3, 2), np.float32)}
    nodes = (Node("embedding", ("x",), "y", {"table": "table"}),)
    with pytest.raises(UnsupportedError, match="session"):
        to_onnx(Graph(port.name, port.shape, port.dtype, nodes, "y", table, step=Step(1, 1, 3)))
    huge = {"w": np.broadcast_to(np.float32(1), (2**15, 2**15))}  # 4 GiB, which take none
    graph = Graph("x", (2**15,), "float32", (Node("linear", ("x",), "y", {"weight": "w"}),), "y", huge)
    with pytest.raises(UnsupportedError, match="2 GiB"):
        to_onnx(graph)


def test_without_onnx_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, _ = case("apart")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(OnnxError, match=r'pip install "ticketsmith\[serve\]"'):
        to_onnx(graph)
