"""The passes of the compiler, each alone."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from ticketsmith.native import abi, available
from ticketsmith.native.abi import Space
from ticketsmith.runtime import layout
from ticketsmith.runtime.analysis import analyse, lane_nodes
from ticketsmith.runtime.assembly import assemble, assign
from ticketsmith.runtime.compiler import LOWERINGS, compile_graph, lower
from ticketsmith.runtime.graph import Graph, GraphError, Node, Port
from ticketsmith.runtime.layout import Halo
from ticketsmith.runtime.model import Model
from ticketsmith.runtime.operands import Tensor, View, common_axes, compact, loops
from ticketsmith.runtime.ops import OPERATORS
from ticketsmith.runtime.resolutions import resolve

needs_kernels = pytest.mark.skipif(not available(), reason="the kernels are not built")


def convolution(name: str, source: str, weight: str, **attributes: Any) -> Node:
    geometry = {"stride": 1, "padding": 1, "dilation": 1, "groups": 1, **attributes}
    return Node("conv2d", (source,), name, {"weight": weight}, geometry)


def images(density: float, rows: int = 20, cols: int = 30) -> Graph:
    """Two convolutions, the second with a stride, and a product at the end."""
    chance = np.random.default_rng(0)
    tensors = {
        name: chance.standard_normal(shape, dtype=np.float32) * (chance.random(shape) < density)
        for name, shape in {"w": (8, 3, 3, 3), "v": (4, 8, 3, 3), "last": (5, 4 * rows * cols // 4)}.items()
    }
    nodes = (
        convolution("a", "x", "w"),
        convolution("b", "a", "v", stride=2),
        Node("flatten", ("b",), "c"),
        Node("linear", ("c",), "d", {"weight": "last"}),
    )
    return Graph("x", (3, rows, cols), "float32", nodes, "d", tensors)


def chain(count: int, nodes: type[tuple[Node, ...]] = tuple) -> Graph:
    links = [Node("add", (f"v{max(0, i - 3)}", f"v{i}"), f"v{i + 1}") for i in range(count)]
    links.append(Node("linear", (f"v{count}",), "out", {"weight": "w"}))
    return Graph("v0", (16,), "float32", nodes(links), "out", {"w": np.eye(16, dtype=np.float32)})


def test_every_operator_of_the_table_has_a_function_and_no_other_has() -> None:
    assert set(LOWERINGS) == set(OPERATORS)


def test_no_pass_goes_through_all_nodes_for_each_of_them() -> None:
    class Counted(tuple[Node, ...]):
        passes = 0

        def __iter__(self) -> Iterator[Node]:
            Counted.passes += 1
            return super().__iter__()

        def __reversed__(self) -> Iterator[Node]:
            Counted.passes += 1
            return iter(self[::-1])

    def passes(count: int) -> int:
        graph = chain(count, Counted)
        Counted.passes = 0
        assert len(compile_graph(graph, 16).operations) > count
        return Counted.passes

    assert passes(40) == passes(10)


def test_an_analysis_says_what_is_read_where_and_in_which_format() -> None:
    graph = images(0.1)
    analysis = analyse(graph, lanes=16, choices={"planes:a": "dense_px32", "planes:b": "gemv"})
    assert analysis.shapes["b"] == (4, 10, 15)
    assert [node.output for node in analysis.users("a")] == ["b"]
    assert analysis.users("d") == ()
    assert analysis.batched == {"c", "d"} == lane_nodes(graph)
    assert analyse(graph).batched == set()
    assert analysis.format(graph.nodes[0], "planes") == "dense_px32"
    assert analysis.format(graph.nodes[1], "planes") == "sparse_conv"  # what cannot be is not chosen
    assert analysis.reaches["a"].direct
    assert not analysis.reaches["b"].direct
    assert analysis.reaches["b"].phases == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert analysis.tilings["a"] is not None
    assert analysis.tilings["b"] is None


def test_rows_are_whole_where_most_is_sparse_and_little_is_wasted() -> None:
    sparse = resolve(analyse(images(0.1)))
    assert sparse.whole == {(20, 30), (10, 15)}
    assert sparse.layout((8, 20, 30)).row == 32
    dense = resolve(analyse(images(1.0), choices={"planes:a": "dense_hx16"}))
    assert (20, 30) not in dense.whole
    assert dense.layout((8, 20, 30)).row == 31  # a zero column between rows
    wasteful = resolve(analyse(images(0.1, cols=20)))
    assert (20, 20) not in wasteful.whole
    winograd = resolve(analyse(images(1.0), choices={"planes:a": "winograd"}))
    assert winograd.layout((8, 20, 30)).origin == 0  # it reads no padding


def test_lowering_packs_weights_and_leaves_addresses_open() -> None:
    analysis = analyse(images(0.1))
    lowering = lower(analysis, resolve(analysis))
    kinds = [instruction.kind for instruction in lowering.instructions]
    assert kinds == [abi.Copy, abi.SparseConv, *[abi.Deal] * 2, abi.SparseConv, abi.Copy, abi.Sell]
    assert {operand.tensor.slot.offset for one in lowering.instructions for operand in one.uses} == {0}
    assembly = assemble(lowering)
    assert [type(operation) for operation in assembly.operations] == kinds
    assert {int(array.ctypes.data) for array in assembly.arrays} >= {assembly.operations[1].taps.value}
    assert assembly.sample_floats > 0 == assembly.batch_floats


def test_memory_is_shared_between_values_of_one_layout_that_never_meet() -> None:
    flat = [Tensor.new(layout.vector(100), Space.SAMPLE) for _ in range(4)]
    image = Tensor.new(layout.image(2, 5, 6, Halo(1, 1, 1)), Space.SAMPLE)
    other = Tensor.new(layout.vector(100), Space.BATCH)
    uses = [
        (0, flat[0]),
        (1, flat[0]),
        (1, flat[1]),
        (2, flat[1]),
        (2, flat[2]),
        (3, image),
        (3, flat[2]),
        (4, flat[3]),
    ]
    total = assign(Space.SAMPLE, [*uses, (4, other)])
    offsets = [one.slot.offset for one in flat]
    assert offsets[0] != offsets[1] != offsets[2]
    assert offsets[2] == offsets[0]
    assert image.slot.offset not in offsets
    places = sorted({(one.slot.offset, one.slot.size) for one in (*flat, image)})
    assert all(begin + size <= following for (begin, size), (following, _) in pairwise(places))
    assert total >= places[-1][0] + places[-1][1]
    with pytest.raises(GraphError, match="bytes of scratch memory"):
        assign(Space.SAMPLE, [(0, Tensor.new(layout.vector(layout.MOST_FLOATS), Space.SAMPLE))])


def test_axes_that_lie_one_behind_the_other_are_one_loop() -> None:
    assert loops((4, 5, 6), [(30, 6, 1), (30, 6, 1)], 3) == ([1, 1, 120], [[0, 0, 1], [0, 0, 1]])
    assert loops((4, 5, 6), [(30, 6, 1), (1, 4, 20)], 3) == ([6, 5, 4], [[1, 6, 30], [20, 4, 1]])
    with pytest.raises(GraphError, match="more axes"):
        loops((2, 2), [(2, 1), (1, 2)], 1)
    assert common_axes((6, 4), (2, 12)) == (2, 3, 4)
    assert common_axes((6, 4), (4, 6)) is None


def test_views_split_and_broadcast_as_numpy_does() -> None:
    tensor = Tensor.at(layout.vector(24), Space.CONSTANT)
    view = View(tensor, (2, 12), compact((2, 12)))
    split = view.split((2, 3, 4))
    assert split is not None
    assert split.strides == (12, 4, 1)
    assert view.split((3, 8)) is None
    assert view.permuted((1, 0)).strides == (1, 12)
    assert View(tensor, (1, 12), (12, 1)).expanded((5, 3, 12)).strides == (0, 0, 1)


@needs_kernels
def test_a_slice_in_steps_is_that_slice_for_any_batch() -> None:
    chance = np.random.default_rng(0)
    first, last = (chance.standard_normal(shape, dtype=np.float32) for shape in ((12, 6), (5, 6)))
    nodes = (
        Node("linear", ("x",), "a", {"weight": "first"}),
        Node("slice", ("a",), "b", {}, {"begin": 0, "end": 12, "step": 2}),
        Node("linear", ("b",), "c", {"weight": "last"}),
    )
    model = Model(Graph("x", (6,), "float32", nodes, "c", {"first": first, "last": last}))
    for batch in (1, 20):
        inputs = chance.standard_normal((batch, 6), dtype=np.float32)
        np.testing.assert_allclose(model(inputs), (inputs @ first.T)[:, ::2] @ last.T, rtol=0, atol=1e-4)


@needs_kernels
def test_products_and_norms_read_constants_of_several_axes() -> None:
    chance = np.random.default_rng(0)
    shapes = {"value": (5, 6), "weight": (4, 6), "scale": (6,), "shift": (6,)}
    tensors = {name: chance.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}
    nodes = (
        Node("constant", (), "c", {"value": "value"}),
        Node("linear", ("c",), "product", {"weight": "weight"}),
        Node("layer_norm", ("c",), "norm", {"scale": "scale", "shift": "shift"}, {"epsilon": 0.1}),
        Node("add", ("x", "product"), "sum"),
        Node("add", ("y", "norm"), "other"),
    )
    graph = Graph("x", (5, 4), "float32", nodes, "sum", tensors, (Port("y", (5, 6)),), ("other",))
    x, y = (chance.standard_normal((2, 5, size), dtype=np.float32) for size in (4, 6))
    value, weight, scale, shift = tensors.values()
    centred = value - value.mean(axis=1, keepdims=True)
    norm = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 0.1) * scale + shift
    for answer, expected in zip(Model(graph)(x, y), (x + value @ weight.T, y + norm), strict=True):
        np.testing.assert_allclose(answer, expected, rtol=0, atol=1e-4)
