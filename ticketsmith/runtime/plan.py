"""From a graph to a program: layouts chosen, weights packed, memory planned, operations written down.

A program runs in two parts. The first is done for each sample of a batch: images, sequences, and vectors when there are
few samples. The second is done once: vectors of a whole batch, with a lane for each sample, so that a weight is read once
for all of them.
"""

from __future__ import annotations

import ctypes
import math
from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ticketsmith.native import abi
from ticketsmith.native.abi import Space
from ticketsmith.runtime import formats, layout, pack
from ticketsmith.runtime.arrays import ArrayOperators, View
from ticketsmith.runtime.graph import (
    ACTIVATIONS,
    BINARY,
    ELEMENTWISE,
    PRODUCTS,
    Graph,
    GraphError,
    Node,
    Port,
    Shape,
    attention_heads,
    conv_geometry,
    pool_geometry,
)
from ticketsmith.runtime.layout import Halo, Layout, Tensor
from ticketsmith.runtime.ops import OPERATORS
from ticketsmith.runtime.winograd import FREQUENCIES, Part, Tiling, pack_winograd

_LANE_IMAGE = 2048
"""Floats of an image, of which a lane each still fits the second cache with all that a layer reads and writes."""

_FIRST_CACHE = 39_000
"""Bytes of inputs that a tile of a convolution may take: a first cache of 48 KiB, less what weights and outputs need."""

_TILE, _FEW_TAPS_TILE = 16, 14
"""Vectors of a plane that are computed at once, at most: fewer leave registers for sums that are moved."""

_FEW_TAPS, _PLANES_IN_CACHE = 9, 28
"""For each output plane, move, and part of the inputs that fits the first cache (so many planes, or all): where that pays."""

_TAPS_OF_A_MOVE = 3
"""Of an output plane: with fewer, moves cost more than reads from two cache lines."""

_FEW_TO_MOVE = 3
"""Taps of an output plane that are moved alike: so few are rather read from two cache lines each than summed and moved."""

_DENSE_TILE = 6
"""The same where there are few zeros: other registers hold several outputs."""

_MOST_WASTE = 1.4
"""How much longer rows may get so that reads are of whole cache lines."""

_WIDEST_POOL = 4000
"""Columns of a row over which windows move; the kernel keeps one."""

_DTYPES = {"float32": 0, "bfloat16": 1, "int8": 2}


@dataclass(frozen=True)
class Plan:
    """A program in the making: operations, and everything they point to (which must be kept as long as they)."""

    operations: tuple[ctypes.Structure, ...]
    arrays: tuple[NDArray[Any], ...]
    sample_floats: int
    batch_floats: int
    memory_floats: int = 0


@dataclass(frozen=True)
class _Step:
    write: Callable[[], ctypes.Structure]
    tensors: tuple[Tensor, ...]
    batch: bool
    work: int


def plan(graph: Graph, lanes: int = 0, choices: Mapping[str, str] | None = None, dtype: str = "float32") -> Plan:
    """A program for ``graph``. With ``lanes``, the end of the network takes up to that many samples at once.

    ``choices`` maps products by their outputs to the formats that were measured to be fastest; others go by rules of
    thumb. ``dtype`` is that of the weights of sparse products with one vector.
    """
    return _Planner(graph, lanes, choices or {}, dtype).plan()


def lane_nodes(graph: Graph) -> set[str]:
    """Outputs of the nodes at the end of ``graph`` that can be computed for many samples at once: those of vectors, and
    before them those of small images."""
    shapes = graph.shapes()
    found: set[str] = set()
    for node in reversed(graph.nodes):
        values = [shapes[name] for name in (*node.inputs, node.output)]
        if any(user.output not in found for user in graph.users.get(node.output, ())):
            continue
        lanes = OPERATORS[node.op].lanes
        vectors = "vector" in lanes and all(len(shape) == 1 for shape in values)
        if not vectors and not ("image" in lanes and all(_small(shape) for shape in values)):
            continue
        if node.op in ("flatten", "reshape") and len(values[-1]) != 1:
            continue
        if node.op not in BINARY or values[0] == values[1]:
            found.add(node.output)
    return found if any(node.op in PRODUCTS and node.output in found for node in graph.nodes) else set()


def _small(shape: Shape) -> bool:
    if len(shape) == 3:  # with zeros around
        return shape[0] * (shape[1] + 2) * (shape[2] + 2) <= _LANE_IMAGE
    return len(shape) == 1


class _Planner(ArrayOperators):
    def __init__(self, graph: Graph, lanes: int, choices: Mapping[str, str], dtype: str) -> None:
        self.graph, self.lanes, self.choices, self.dtype = graph, lanes, choices, dtype
        self.shapes = graph.shapes()
        self.batched = lane_nodes(graph) if lanes else set()
        self.cold = formats.cold(graph)
        self.halos, self.whole = self._resolutions()
        self.lane_halos = self._lane_halos()
        self.phases: dict[Hashable, tuple[Tensor, list[tuple[int, int]]]] = {}
        self.steps: list[_Step] = []
        self.arrays: list[NDArray[Any]] = []
        self.tensors: dict[str, Tensor] = {}
        self.lifted: dict[str, Tensor] = {}

    def plan(self) -> Plan:
        for index, port in enumerate(self.graph.inputs):
            self._input(index, port)
        for node in self.graph.nodes:
            getattr(self, _METHODS.get(node.op, f"_{node.op}"))(node)
        for index, name in enumerate(self.graph.outputs):
            self._output(index, name)
        # what is done for each sample comes before all that is done once
        order = sorted(range(len(self.steps)), key=lambda index: self.steps[index].batch)
        uses = [(time, tensor) for time, index in enumerate(order) for tensor in self.steps[index].tensors]
        sample_floats = layout.assign(Space.SAMPLE, uses)
        batch_floats = layout.assign(Space.BATCH, uses)
        operations = []
        for step in self.steps:
            operation = step.write()
            operation.op = abi.Op(abi.OPERATIONS.index(type(operation)), step.batch, step.work)
            operations.append(operation)
        return Plan(tuple(operations), tuple(self.arrays), sample_floats, batch_floats, self.memory_floats)

    # ---- helpers

    def _flattens(self, node: Node) -> bool:
        return node.op in ("flatten", "reshape") and len(self.shapes[node.output]) == 1

    def _users(self, name: str) -> tuple[Node, ...]:
        return self.graph.users.get(name, ())

    def _step(
        self, write: Callable[[], ctypes.Structure], *tensors: Tensor, batch: bool = False, work: int = 0
    ) -> None:
        self.steps.append(_Step(write, tensors, batch, work))

    def _address(self, array: NDArray[Any] | None) -> int | None:
        if array is None:
            return None
        self.arrays.append(array)
        return array.ctypes.data

    def _lane_halos(self) -> dict[Shape, Halo]:
        """What convolutions of many samples at once need around the images that they read where they are."""
        halos: dict[Shape, Halo] = {}
        for node in self.graph.nodes:
            if node.op == "conv2d" and node.output in self.batched:
                reach = _Reach.of(self.graph, node, self.shapes[node.inputs[0]])
                if reach.stride == (1, 1):
                    size = self.shapes[node.inputs[0]][1:]
                    halos[size] = halos.get(size, Halo()).union(reach.beyond)
        return halos

    def _resolutions(self) -> tuple[dict[Shape, Halo], set[Shape]]:
        """What convolutions need at each resolution; and those whose rows are whole: where most is computed sparsely.

        Dense kernels read an input once for several outputs, so that what lies across two cache lines costs them little,
        and copies of planes would cost them more.
        """
        halos: dict[Shape, Halo] = {}
        farthest: dict[Shape, int] = {}
        sparse: Counter[Shape] = Counter()
        for node in self.graph.nodes:
            if node.op == "conv2d" and node.output not in self.batched:
                reach = _Reach.of(self.graph, node, self.shapes[node.inputs[0]])
                weight = self.graph.parameter(node, "weight").reshape(self.shapes[node.output][0], -1)
                chosen = self._format(node, weight, "planes", shared=reach.groups == 1)
                if chosen == "winograd":  # reads no padding
                    continue
                if chosen == "dense_px32":
                    size = self.shapes[node.inputs[0]][1:]
                    halos[size] = halos.get(size, Halo()).union(reach.beyond)
                    if reach.beyond.cols:
                        sparse[size] -= weight.size
                    continue
                _, rows, cols = self.shapes[node.output]
                halos[rows, cols] = halos.get((rows, cols), Halo()).union(reach.halo if reach.direct else Halo())
                if np.any(reach.shift_r) or np.any(reach.shift_c):
                    far = int(np.abs(reach.shift_c).max())
                    farthest[rows, cols] = max(farthest.get((rows, cols), 0), far)
                    sparse[rows, cols] += -weight.size if chosen == "dense_hx16" else int(np.count_nonzero(weight))
        whole: set[Shape] = {
            (rows, cols)
            for (rows, cols), far in farthest.items()
            if layout.whole_row(cols) <= _MOST_WASTE * cols and far < layout.LANES and sparse[rows, cols] > 0
        }
        return halos, whole

    def _layout(self, shape: Shape) -> Layout:
        if len(shape) == 1 or (len(shape) == 2 and shape[0] == 1):
            return layout.vector(shape[-1])
        if len(shape) == 2:
            return layout.columns(shape[1], shape[0])
        if len(shape) > 3:
            return layout.vector(math.prod(shape))
        channels, rows, cols = shape
        halo = self.halos.get((rows, cols), Halo())
        if (rows, cols) not in self.whole:
            return layout.image(channels, rows, cols, halo)
        return layout.image(channels, rows, cols, replace(halo, cols=0), layout.whole_row(cols), whole=True)

    def _lane_layout(self, shape: Shape) -> Layout:
        if len(shape) == 1:
            return layout.columns(shape[0], self.lanes)
        planes, rows, cols = shape
        return layout.lanes(planes, rows, cols, self.lanes, self.lane_halos.get((rows, cols), Halo()))

    def _new(self, node: Node) -> Tensor:
        """Memory for what ``node`` computes."""
        shape = self.shapes[node.output]
        if node.output in self.batched:
            tensor = Tensor.new(self._lane_layout(shape), Space.BATCH)
        else:
            tensor = Tensor.new(self._layout(shape), Space.SAMPLE)
        self.tensors[node.output] = tensor
        return tensor

    def _read(self, name: str, node: Node) -> Tensor:
        """The value ``name`` where ``node`` can read it."""
        tensor = self.tensors[name]
        if node.output not in self.batched or tensor.space == Space.BATCH:
            return tensor
        if name not in self.lifted:
            self.lifted[name] = Tensor.new(self._lane_layout(self.shapes[name]), Space.BATCH)
            self._lift(tensor, self.lifted[name], self.shapes[name])
        return self.lifted[name]

    def _lift(self, one: Tensor, many: Tensor, shape: Shape) -> None:
        """A vector or an image of each sample into its lane."""
        features, all_of_them = math.prod(shape), one
        if one.space != Space.INPUT:  # one behind the other first: element by element into lanes would be slow
            all_of_them = Tensor.new(layout.vector(features * self.lanes), Space.BATCH)
            own = one.layout
            self._copy(
                one, lambda: (one.base, own.plane, own.row, 1), all_of_them,
                lambda: (all_of_them.base, own.rows * own.cols, own.cols, 1), (own.planes, own.rows, own.cols),
                out_sample=features,
            )  # fmt: skip
        planes, rows, cols = self._lane_extent(many, shape)
        self._copy(
            all_of_them, lambda: (all_of_them.base, rows * cols, cols, 1), many, lambda: self._lane_strides(many),
            (planes, rows, cols), batch=True, lanes=True, in_sample=features, out_sample=1,
        )  # fmt: skip

    def _lane_extent(self, tensor: Tensor, shape: Shape) -> tuple[int, int, int]:
        """Planes, rows and columns of a value in lanes; all are columns of one row where nothing lies between."""
        own = tensor.layout
        if len(shape) == 1 or (own.row == own.cols and own.plane == own.rows * own.row):
            return 1, 1, math.prod(shape)
        return shape[0], shape[1], shape[2]

    def _lane_strides(self, tensor: Tensor) -> tuple[int, int, int, int]:
        return tensor.base, tensor.layout.plane, tensor.layout.row, self.lanes

    def _copy(
        self,
        source: Tensor,
        from_: Callable[[], tuple[int, int, int, int]],
        target: Tensor,
        to: Callable[[], tuple[int, int, int, int]],
        extent: tuple[int, int, int],
        batch: bool = False,
        lanes: bool = False,
        in_sample: int = 0,
        out_sample: int = 0,
    ) -> None:
        """``from_`` and ``to`` give (base, plane, row, column) once memory is assigned; with ``lanes``, of each sample."""

        def write() -> abi.Copy:
            left = abi.Strided(*from_(), in_sample, int(source.space))
            right = abi.Strided(*to(), out_sample, int(target.space))
            return abi.Copy(in_=left, out=right, planes=extent[0], rows=extent[1], cols=extent[2], lanes=lanes)

        self._step(write, source, target, batch=batch)

    # ---- the ends

    def _input(self, index: int, port: Port) -> None:
        shape = self.shapes[port.name]
        users = self._users(port.name)
        outside = Tensor(self._outside(shape), layout.Slot(abi.input_space(index), None, 0))
        self.tensors[port.name] = outside
        if port.dtype != "float32" or not users:
            return
        vector = outside.layout.is_vector and len(shape) == 1
        batched = all(user.output in self.batched for user in users)
        flattened = all(self._flattens(user) for user in users)
        if index == 0 and (flattened or batched or (vector and self._only_multiplied(port.name))):
            return  # read where it is
        inside = Tensor.new(self._layout(shape), Space.SAMPLE)
        self._move(outside, inside)
        self.tensors[port.name] = inside

    def _only_multiplied(self, name: str) -> bool:
        """Whether a vector can stay in the caller's array: other kernels would read a little beyond its end."""
        users = self._users(name)
        return all(u.output in self.batched or (u.op == "linear" and len(u.inputs) == 1) for u in users)

    def _outside(self, shape: Shape) -> Layout:
        """How callers have their arrays: tokens are rows of features there."""
        if len(shape) == 3:
            return layout.compact(*shape)
        if len(shape) > 3:
            return layout.vector(math.prod(shape))
        return layout.vector(shape[-1]) if len(shape) == 1 or shape[0] == 1 else Layout(shape[1], 1, shape[0], 1, 0)

    def _move(self, source: Tensor, target: Tensor) -> None:
        """One sample between the caller's arrays and ours."""

        def side(tensor: Tensor) -> Callable[[], tuple[int, int, int, int]]:
            own = tensor.layout
            token_rows = own.plane == 1 and own.cols > 1
            return lambda: (tensor.base, own.plane, own.row, own.planes if token_rows else 1)

        own = target.layout
        self._copy(source, side(source), target, side(target), (own.planes, own.rows, own.cols))

    def _output(self, index: int, name: str) -> None:
        shape, result = self.shapes[name], self.tensors[name]
        if result.space == Space.OUTPUT and index == 0:
            return
        outside = Tensor(self._outside(shape), layout.Slot(abi.output_space(index), None, 0))
        plain = self._layout(shape)
        if result.space != Space.BATCH and (result.space != Space.SAMPLE or result.layout.is_vector != plain.is_vector):
            self._map("copy", [View.of(result, shape)], View.of(outside, shape))
            return
        if result.space == Space.BATCH:
            features, (planes, rows, cols) = math.prod(shape), self._lane_extent(result, shape)
            self._copy(
                result, lambda: self._lane_strides(result), outside, lambda: (0, rows * cols, cols, 1), (planes, rows, cols),
                batch=True, lanes=True, in_sample=1, out_sample=features,
            )  # fmt: skip
        else:
            self._move(result, outside)

    # ---- products

    def _linear(self, node: Node) -> None:
        weight = self.graph.parameter(node, "weight")
        source = self._read(node.inputs[0], node)
        if source.layout.is_vector:
            self._vector_product(node, weight, source)
            return
        plane = source.layout.plane
        steps = np.arange(weight.shape[1], dtype=np.int64)
        per_plane = source.layout.sweep[1] * layout.LANES * 4
        where = _Where((steps * plane)[None], steps[None], np.zeros_like(steps)[None], source.layout.cols)
        batched = node.output in self.batched
        chosen = self._format(node, weight, "lanes" if batched else "planes")
        if batched and self.lanes <= layout.LANES and formats.dense_in_few_lanes(weight):
            chosen = "dense_px32"
        if chosen == "dense_px32":
            self._pixel_product(node, weight, source, steps * plane, np.arange(source.layout.cols, dtype=np.int64))
            return
        self._plane_product(node, weight, source, where, per_plane, chosen)

    def _vector_product(self, node: Node, weight: pack.Floats, source: Tensor) -> None:
        outputs = len(weight)
        residual = None if node.residual is None else self._read(node.residual, node)
        if self._is_only_output(node):
            out = self.tensors[node.output] = Tensor(layout.vector(outputs), layout.Slot(Space.OUTPUT, None, 0))
        else:
            out = self._new(node)
        biases = pack.padded(self.graph.tensor(node, "bias"), layout.up(outputs))
        bias = self._address(biases)
        common = {"activation": ACTIVATIONS.index(node.activation), "has_residual": residual is not None}
        tensors = (source, out) if residual is None else (source, out, residual)

        def ends() -> dict[str, Any]:
            return {"in_": source.value(), "out": out.value(), "residual": (residual or out).value()}

        chosen = self._format(node, weight, "vector")
        if chosen == "gemv":
            weights, scales = (self._address(array) for array in pack.pack_gemv(weight, self.dtype))
            self._step(
                lambda: abi.Gemv(
                    **ends(), weights=weights, scales=scales, bias=bias, inputs=weight.shape[1],
                    dtype=_DTYPES[self.dtype], **common,
                ),
                *tensors, work=weight.size,
            )  # fmt: skip
            return
        if chosen == "bitmask":
            bitmap = pack.pack_bitmask(weight, self.dtype)
            parts: list[NDArray[Any] | None] = [bitmap.first, bitmap.bits, bitmap.values, bitmap.scales]
            first, bits, values, scales = (self._address(array) for array in parts)
            self._step(
                lambda: abi.Bitmask(
                    **ends(), first=first, bits=bits, values=values, scales=scales, bias=bias,
                    blocks=bitmap.bits.shape[1], dtype=_DTYPES[self.dtype], **common,
                ),
                *tensors, work=weight.size,
            )  # fmt: skip
            return
        width = 128 if chosen == "sell_wide" else 64
        packed = pack.pack_sell(weight, self.dtype, width)
        arrays: list[NDArray[Any] | None] = [packed.first, packed.slots, packed.columns, packed.values, packed.scales]
        first, slots, columns, values, scales = (self._address(array) for array in arrays)
        order = self._address(packed.order)
        if packed.order is not None:
            bias = self._address(pack.padded(biases[packed.order], len(biases)))
        self._step(
            lambda: abi.Sell(
                **ends(), first=first, slots=slots, columns=columns, values=values, scales=scales, bias=bias, order=order,
                slices=len(packed.slots), blocks=packed.slots.shape[1], width=width, dtype=_DTYPES[self.dtype], **common,
            ),
            *tensors, work=int(packed.first[-1]) * layout.LANES,
        )  # fmt: skip

    def _is_only_output(self, node: Node) -> bool:
        """Whether a vector can be written where the caller wants it: nothing else reads it."""
        name = node.output
        return name == self.graph.output and name not in self.graph.more_outputs and not self._users(name)

    def _conv2d(self, node: Node) -> None:
        weight = self.graph.parameter(node, "weight")
        outputs, inner, high, wide = weight.shape
        flat = weight.reshape(outputs, -1)
        source = self._read(node.inputs[0], node)
        channels = self.shapes[node.inputs[0]][0]
        reach = _Reach.of(self.graph, node, self.shapes[node.inputs[0]])
        if node.output in self.batched:
            self._lane_convolution(node, flat, source, reach)
            return
        chosen = self._format(node, flat, "planes", shared=reach.groups == 1)
        tiling = Tiling.of(self.graph, node, self.shapes[node.inputs[0]])
        if chosen == "winograd" and tiling:
            self._winograd(node, weight, source, tiling)
            return
        out = self._layout(self.shapes[node.output])
        if chosen == "dense_px32" and source.layout.whole and reach.beyond.cols:
            chosen = "dense_hx16"  # without zeros between rows
        if chosen == "dense_px32":
            channel = np.arange(inner)[:, None, None] * source.layout.plane
            offset = channel + (reach.far_r * source.layout.row)[:, None] + reach.far_c
            _, rows, cols = self.shapes[node.output]
            begin = (np.arange(rows) * reach.stride[0] * source.layout.row)[:, None] + np.arange(cols) * reach.stride[1]
            self._pixel_product(node, flat, source, offset.ravel(), begin.ravel())
            return
        phase: NDArray[np.int64] = np.zeros((high, wide), np.int64)
        in_row = moves = np.zeros(wide, np.int64)
        if reach.direct and not (chosen == "dense_hx16" and out.whole and np.any(reach.shift_c)):
            in_row, moves = (in_row, reach.shift_c) if out.whole else (reach.shift_c, moves)
        elif chosen != "dense_hx16" and self._fits(reach, node):
            source, known = self._phases(node, source)
            phase = np.array([[known.index((r, c)) for c in reach.phase_c] for r in reach.phase_r])
            moves = reach.shift_c
        else:
            source = self._split(node, source, reach)
            phase = reach.phase_r[:, None] * wide + np.arange(wide)
        own = source.layout
        group = np.arange(outputs if reach.groups > 1 else 1) // (outputs // reach.groups)
        channel = (group[:, None] * inner + np.arange(inner))[:, :, None, None]  # [outputs or 1, inner, 1, 1]
        plane = channel + phase * channels
        _, vectors = out.sweep
        taps_of_a_move = np.count_nonzero(flat) / flat.size * high * min(inner, _PLANES_IN_CACHE)
        tile = _DENSE_TILE if chosen == "dense_hx16" else _FEW_TAPS_TILE if taps_of_a_move < _FEW_TAPS else _TILE
        in_rows = reach.shift_r * own.row
        many = np.count_nonzero(flat) > _TAPS_OF_A_MOVE * outputs * high * wide
        turned = (
            chosen != "dense_hx16"
            and many
            and reach.direct
            and out.whole
            and vectors <= tile
            and _moves_rows(reach, own.row)
        )
        if turned:
            in_rows, moves = np.zeros_like(in_rows), in_rows[:, None] + moves
        offset = plane * own.plane + in_rows[:, None] + in_row
        move = np.broadcast_to(moves, offset.shape)
        chunk = -(-vectors // -(-vectors // tile))
        offset, plane, move = (each.reshape(len(group), -1) for each in (offset, plane, move))
        where = _Where(offset, plane, move, own.cols if reach.direct else own.row, tile=tile, moves_rows=turned)
        span = int(np.ptp(in_rows))
        self._plane_product(node, flat, source, where, (chunk * layout.LANES + span) * 4, chosen)

    def _lane_convolution(self, node: Node, flat: pack.Floats, source: Tensor, reach: _Reach) -> None:
        """Of many samples at once. A column is a float of each, so that every move is of whole vectors."""
        outputs, inner, high, wide = self.graph.parameter(node, "weight").shape
        channels, lanes = self.shapes[node.inputs[0]][0], self.lanes
        phase: NDArray[np.int64] = np.zeros((high, wide), np.int64)
        if reach.stride != (1, 1):
            source, known = self._lane_phases(node, source, reach)
            phase = np.array([[known.index((r, c)) for c in reach.phase_c] for r in reach.phase_r])
        own = source.layout
        group = np.arange(outputs if reach.groups > 1 else 1) // (outputs // reach.groups)
        plane = (group[:, None] * inner + np.arange(inner))[:, :, None, None] + phase * channels
        offset = plane * own.plane + (reach.shift_r * own.row)[:, None] + reach.shift_c * lanes
        offset, plane = (each.reshape(len(group), -1) for each in (offset, plane))
        out = self._lane_layout(self.shapes[node.output])
        columns = min(out.cols, _TILE * layout.LANES) + (int(np.ptp(reach.shift_c)) + 1) * lanes
        bytes_read = (int(np.ptp(reach.shift_r)) + 1) * columns * 4
        where = _Where(offset, plane, np.zeros_like(offset), own.cols, own.row)
        chosen = self._format(node, flat, "lanes", shared=reach.groups == 1)
        self._plane_product(node, flat, source, where, bytes_read, chosen)

    def _lane_phases(self, node: Node, source: Tensor, reach: _Reach) -> tuple[Tensor, list[tuple[int, int]]]:
        """Every stride-th row and column, for each phase that is read."""
        channels, rows, cols = self.shapes[node.inputs[0]]
        _, high, wide = self.shapes[node.output]
        left, right = max(0, -int(reach.shift_c.min())), max(0, int(reach.shift_c.max()))
        known = sorted({(int(r), int(c)) for r in reach.phase_r for c in reach.phase_c})
        halo, key = Halo(left + right, reach.halo.top, reach.halo.bottom), ("phases", node.output)
        own, other = layout.lanes(channels * len(known), high, wide, self.lanes, halo, key), source.layout
        target = Tensor.new(own, Space.BATCH)
        step_r, step_c = reach.stride
        for index, (r, c) in enumerate(known):
            height, width = (
                min(high + halo.bottom, -(-(rows - r) // step_r)),
                min(wide + right, -(-(cols - c) // step_c)),
            )
            if min(height, width) <= 0:
                continue
            begin, end = r * other.row + c * self.lanes, index * channels * own.plane
            self._copy(
                source,
                lambda b=begin: (source.base + b, other.plane, other.row * step_r, self.lanes * step_c),  # type: ignore[misc]
                target, lambda e=end: (target.base + e, own.plane, own.row, self.lanes),  # type: ignore[misc]
                (channels, height, width), batch=True, lanes=True, in_sample=1, out_sample=1,
            )  # fmt: skip
        return target, known

    def _fits(self, reach: _Reach, node: Node) -> bool:
        """Whether the phases of an input have no more columns that are read than whole rows of the output."""
        _, _, cols = self.shapes[node.inputs[0]]
        own = self._layout(self.shapes[node.output])
        there = -(-cols // reach.stride[1])
        return own.whole and min(there, own.cols + int(reach.shift_c.max())) <= own.row

    def _phases(self, node: Node, source: Tensor) -> tuple[Tensor, list[tuple[int, int]]]:
        """Every stride-th row and column of an input: planes for each phase that is read, with rows like the output's. Made
        once for all convolutions which read the input so."""
        shape, size = self.shapes[node.inputs[0]], self.shapes[node.output][1:]
        first = _Reach.of(self.graph, node, shape)
        key = node.inputs[0], first.stride, size
        if key in self.phases:
            return self.phases[key]
        halo, known = Halo(), []
        for user in self._users(node.inputs[0]):
            if user.op == "conv2d" and user.inputs[0] == node.inputs[0] and self.shapes[user.output][1:] == size:
                reach = _Reach.of(self.graph, user, shape)
                if reach.stride == first.stride and not reach.direct:
                    halo = halo.union(reach.halo)
                    known += [(int(r), int(c)) for r in reach.phase_r for c in reach.phase_c]
        known = sorted(set(known))
        channels, rows, cols = shape
        high, wide = size
        row = layout.whole_row(wide)
        target = Tensor.new(
            layout.image(channels * len(known), high, wide, halo, row, whole=True, key=("phases", *key)), Space.SAMPLE
        )
        own, other = source.layout, target.layout
        step_r, step_c = first.stride
        there = [-(-(cols - c) // step_c) for c in range(step_c)]
        for index, (r, c) in enumerate(known):
            height, width = min(high + halo.bottom, -(-(rows - r) // step_r)), min(row, there[c])
            pair = step_c == 2 and source.space == Space.SAMPLE
            if min(height, width) <= 0 or (pair and c == 1 and (r, 0) in known):
                continue
            begin, end = r * own.row + c, index * channels * other.plane
            if pair and c == 0:
                odds = min(row, there[1]) if (r, 1) in known else 0
                self._deal(source, begin, target, end, step_r, (channels, height, width, odds))
                continue
            self._copy(
                source, lambda b=begin: (source.base + b, own.plane, own.row * step_r, step_c),  # type: ignore[misc]
                target, lambda e=end: (target.base + e, other.plane, other.row, 1),  # type: ignore[misc]
                (channels, height, width),
            )  # fmt: skip
        self.phases[key] = target, known
        return self.phases[key]

    def _deal(
        self, source: Tensor, begin: int, target: Tensor, end: int, step_r: int, extent: tuple[int, int, int, int]
    ) -> None:
        """Rows from ``begin`` of each plane: even columns to ``end``, odd ones to the planes that follow."""
        own, other = source.layout, target.layout
        planes, rows, evens, odds = extent

        def write() -> abi.Deal:
            left = abi.Strided(source.base + begin, own.plane, own.row * step_r, 1, 0, int(source.space))
            right = abi.Strided(target.base + end, other.plane, other.row, 1, 0, int(target.space))
            return abi.Deal(
                in_=left, out=right, planes=planes, rows=rows, evens=evens, odds=odds, distance=planes * other.plane
            )

        self._step(write, source, target, work=planes * rows * evens)

    def _split(self, node: Node, source: Tensor, reach: _Reach) -> Tensor:
        """Every stride-th row and column: for each phase of rows and each column of the kernel, planes that look like the
        output, so that no column is ever read beside its place."""
        _, high, wide = self.shapes[node.output]
        channels, rows, cols = self.shapes[node.inputs[0]]
        row = self._layout(self.shapes[node.output]).row
        halo = Halo(0, reach.halo.top, reach.halo.bottom)
        kernel = len(reach.far_c)
        key = ("split", node.output)  # what is never written in it depends on this very convolution
        planes = channels * reach.phases_r * kernel
        target = Tensor.new(layout.image(planes, high, wide, halo, row, key=key), Space.SAMPLE)
        own, other = source.layout, target.layout
        step_r, step_c = reach.stride
        for index in range(reach.phases_r * kernel):
            phase, far = index // kernel, int(reach.far_c[index % kernel])
            first = max(0, -(far // step_c))  # output columns for which there is an input column
            extent = (
                channels,
                min(high + reach.halo.bottom, -(-(rows - phase) // step_r)),
                min(wide, (cols - 1 - far) // step_c + 1) - first,
            )
            if min(extent) <= 0:
                continue
            begin, end = phase * own.row + first * step_c + far, index * channels * other.plane + first
            self._copy(
                source, lambda b=begin: (source.base + b, own.plane, own.row * step_r, step_c),  # type: ignore[misc]
                target, lambda e=end: (target.base + e, other.plane, other.row, 1),  # type: ignore[misc]
                extent,
            )  # fmt: skip
        return target

    def _pixel_product(
        self,
        node: Node,
        weight: pack.Floats,
        source: Tensor,
        offset: NDArray[np.int64],
        begin: NDArray[np.int64],
    ) -> None:
        """``weight`` [outputs, taps], dense: where each tap reads, from where each column of each row begins to read."""
        residual = None if node.residual is None else self._read(node.residual, node)
        out = self._new(node) if residual else self._new_compact(node)
        own = out.layout
        to = (np.arange(own.rows) * own.row)[:, None] + np.arange(own.cols)
        places = []
        for values in (offset, begin, to.ravel()):
            if values.max() >= 2**31:
                raise GraphError("a layer is too large: its input does not fit 32-bit offsets.")
            memory: NDArray[np.int32] = pack.aligned(len(values), np.int32)
            memory[:] = values
            places.append(self._address(memory))
        bias = self._address(pack.padded(self.graph.tensor(node, "bias"), layout.up(len(weight))))
        weights, activation = self._address(pack.pack_dense_px32(weight)), ACTIVATIONS.index(node.activation)
        self._step(
            lambda: abi.DensePx32(
                in_=source.value(), out=out.value(), residual=(residual or out).value(), offsets=places[0], from_=places[1],
                to=places[2], weights=weights, bias=bias, pixels=len(begin), taps=weight.shape[1], activation=activation,
                has_residual=residual is not None,
            ),
            *((source, out) if residual is None else (source, out, residual)), batch=node.output in self.batched,
            work=weight.size * len(begin),
        )  # fmt: skip

    def _winograd(self, node: Node, weight: pack.Floats, source: Tensor, tiling: Tiling) -> None:
        """In parts: the inputs of each to frequencies, then products and outputs."""
        residual = None if node.residual is None else self._read(node.residual, node)
        out = self._new(node) if residual else self._new_compact(node)
        outputs, inputs = weight.shape[:2]
        bias = self._address(pack.padded(self.graph.tensor(node, "bias"), layout.up(outputs)))
        weights, columns = self._address(pack_winograd(weight)), self._address(tiling.columns())
        _, padding, _, _ = conv_geometry(node)
        tensors = (source, out) if residual is None else (source, out, residual)

        def operations(part: Part) -> None:
            starts, ends = (self._address(mask) for mask in tiling.neighbours(part))
            # an odd number of cache lines, so that the frequencies of a tile lie in different sets of a cache
            plane = (layout.up(layout.up(inputs, part.together) * part.pitch) // layout.LANES | 1) * layout.LANES
            block = FREQUENCIES * layout.LANES * (part.pitch + 1)
            blocks = layout.up(outputs) // layout.LANES
            transformed = Tensor.new(layout.vector(FREQUENCIES * plane), Space.SAMPLE)
            sums = Tensor.new(layout.vector(block * blocks), Space.SAMPLE)

            def write(product: bool) -> abi.Winograd:
                space = int(Space.SAMPLE)
                return abi.Winograd(
                    in_=source.value(), out=out.value(), residual=(residual or out).value(),
                    transformed=abi.Value(transformed.base, plane, part.pitch, space, FREQUENCIES, inputs, part.pitch),
                    sums=abi.Value(sums.base, block, layout.LANES, space, blocks, FREQUENCIES, block // FREQUENCIES),
                    weights=weights, bias=bias, columns=columns, starts=starts, ends=ends, product=product,
                    first=part.first, tile_rows=part.tile_rows, tile_cols=tiling.tile_cols, pitch=part.pitch,
                    together=part.together, pad_rows=padding[0], left=tiling.left, skip=tiling.skip,
                    activation=ACTIVATIONS.index(node.activation), has_residual=residual is not None,
                )  # fmt: skip

            work = FREQUENCIES * part.tiles * inputs
            self._step(lambda: write(False), source, transformed, work=4 * work)
            self._step(lambda: write(True), *tensors, transformed, sums, work=work * outputs)

        for part in tiling.parts():
            operations(part)

    def _plane_product(
        self,
        node: Node,
        weight: pack.Floats,
        source: Tensor,
        where: _Where,
        per_plane: int,
        chosen: str,
    ) -> None:
        """``weight`` [outputs, taps] on shifted planes; ``per_plane`` bytes of each input plane feed a tile."""
        residual = None if node.residual is None else self._read(node.residual, node)
        out = self._new(node)
        _, vectors = out.layout.sweep
        mask = self._address(out.layout.mask)
        stretches = np.array([(0, 0, vectors)], pack.STRETCH)
        if where.row and not where.row == out.layout.row == out.layout.cols:  # row by row, and nothing between them
            mask, row = None, np.arange(out.layout.rows)
            stretches = np.zeros(len(row), pack.STRETCH)
            stretches["in"], stretches["out"] = row * where.row, row * out.layout.row
            stretches["vectors"] = out.layout.cols // layout.LANES
        bias = self._address(pack.padded(self.graph.tensor(node, "bias"), layout.up(len(weight))))
        common = {"activation": ACTIVATIONS.index(node.activation), "has_residual": residual is not None}
        tensors = (source, out) if residual is None else (source, out, residual)
        batch = node.output in self.batched
        stretch_address = self._address(stretches)

        def ends() -> dict[str, Any]:
            return {
                "in_": source.value(), "out": out.value(), "residual": (residual or out).value(), "bias": bias,
                "mask": mask, "stretches": stretch_address, "stretch_count": len(stretches), **common,
            }  # fmt: skip

        if chosen == "dense_hx16":
            height = 8 if stretches["vectors"].max() <= 3 else 4
            blocks = max(1, round(source.layout.planes * per_plane / _FIRST_CACHE))
            tile_offsets = pack.aligned(weight.shape[1], np.int32)
            tile_offsets[:] = where.offset[0]
            address, weights = self._address(tile_offsets), self._address(pack.pack_dense_hx16(weight, height))
            self._step(
                lambda: abi.DenseHx16(
                    **ends(), offsets=address, weights=weights, taps=weight.shape[1], height=height, blocks=blocks
                ),
                *tensors, batch=batch, work=weight.size * vectors * layout.LANES,
            )  # fmt: skip
            return
        block = max(4, _FIRST_CACHE // per_plane)
        count = -(-source.layout.planes // block)
        even = -(-source.layout.planes // count) if chosen == "sparse_conv" else source.layout.planes
        moves = len(np.unique(where.move))
        grouped = len(where.plane) > 1  # other convolutions sum more than they move
        if grouped and moves > 1 and np.count_nonzero(weight) <= _FEW_TO_MOVE * moves * len(weight):
            packed = pack.pack_few_sparse_conv(weight, where.offset, where.plane, where.move)
            groups, hides = 1, self._address(packed.moves)
        else:
            packed = pack.pack_sparse_conv(weight, where.offset, where.plane, where.move, even)
            groups, hides = len(packed.shifts), None
        taps, starts, shifts = (self._address(array) for array in (packed.taps, packed.starts, packed.shifts))
        masks = out.layout.moved_masks(packed.shifts.tolist(), where.cols, where.moves_rows)
        keeps = self._address(masks) if groups > 1 or hides else None
        row_vectors = max(1, out.layout.row // layout.LANES) if groups > 1 else 1
        if where.moves_rows:  # a tile is then a whole plane, or knows its neighbours
            row_vectors = vectors
        self._step(
            lambda: abi.SparseConv(
                **ends(), taps=taps, starts=starts, shifts=shifts, keeps=keeps, hides=hides, vectors=vectors,
                row_vectors=row_vectors, tile=where.tile if groups > 1 else _TILE, blocks=packed.blocks,
                groups=groups,
            ),
            *tensors, batch=batch, work=len(packed.taps) * vectors * layout.LANES,
        )  # fmt: skip

    def _format(self, node: Node, weight: pack.Floats, mode: str, shared: bool = True) -> str:
        tiling = Tiling.of(self.graph, node, self.shapes[node.inputs[0]])
        allowed = formats.candidates(mode, shared, tiling is not None)
        chosen = self.choices.get(f"{mode}:{node.output}")
        return chosen if chosen in allowed else formats.default(mode, shared, weight, self.cold, tiling)

    # ---- everything else

    def _new_compact(self, node: Node) -> Tensor:
        """Memory for an image; without padding where all that read it want a vector."""
        shape, users = self.shapes[node.output], self._users(node.output)
        flattened = users and all(self._flattens(user) for user in users) and node.output not in self.graph.outputs
        if node.output in self.batched or len(shape) != 3 or not flattened:
            return self._new(node)
        tensor = self.tensors[node.output] = Tensor.new(layout.compact(*shape), Space.SAMPLE)
        return tensor

    def _pool(self, node: Node, average: bool) -> None:
        kernel, stride, padding = pool_geometry(node)
        source = self._read(node.inputs[0], node)
        shape, batch = self.shapes[node.output], node.output in self.batched
        out = self._new_compact(node)
        counted = bool(node.attributes.get("count_padding", True))
        if (shape[2] - 1) * stride[1] + kernel[1] > _WIDEST_POOL and kernel != self.shapes[node.inputs[0]][1:]:
            raise GraphError(f"{node.output}: pooling over rows of more than {_WIDEST_POOL:,} columns is not known.")
        self._step(
            lambda: abi.Pool(
                in_=source.value(), out=out.value(), average=average, height=kernel[0], width=kernel[1],
                step_r=stride[0], step_c=stride[1], pad_r=padding[0], pad_c=padding[1], count_padding=counted,
                lanes=self.lanes if batch else 0,
            ),
            source, out, batch=batch, work=source.layout.planes * source.layout.plane,
        )  # fmt: skip

    def _max_pool(self, node: Node) -> None:
        self._pool(node, average=False)

    def _avg_pool(self, node: Node) -> None:
        self._pool(node, average=True)

    def _reshape(self, node: Node) -> None:
        if self._flattens(node) and self.tensors[node.inputs[0]].space in (Space.SAMPLE, Space.BATCH, Space.INPUT):
            self._flatten(node)
        else:
            super()._reshape(node)

    def _flatten(self, node: Node) -> None:
        shape = self.shapes[node.inputs[0]]
        source = self._read(node.inputs[0], node)
        if node.output in self.batched:
            self._flatten_lanes(node, source, shape)
            return
        own, flat = source.layout, layout.vector(self.shapes[node.output][0])
        outside = source.space == Space.INPUT
        dense = outside or own.is_vector or (len(shape) == 3 and own == layout.compact(*shape))
        if dense and not (outside and not self._only_multiplied(node.output)):
            self.tensors[node.output] = source.seen_as(flat)
            return
        out = self._new(node)
        if dense:
            self._move(source.seen_as(flat), out)
            return
        if len(shape) == 3:
            rows, cols = shape[1:]
            to, extent = (lambda: (out.base, rows * cols, cols, 1)), shape
        else:
            to, extent = (lambda: (out.base, 1, 0, shape[1])), (shape[1], 1, shape[0])
        self._copy(source, lambda: (source.base, own.plane, own.row, 1), out, to, extent)

    def _flatten_lanes(self, node: Node, source: Tensor, shape: Shape) -> None:
        extent = self._lane_extent(source, shape)
        if extent[0] == 1:
            self.tensors[node.output] = source.seen_as(layout.columns(math.prod(shape), self.lanes))
            return
        out, (_, rows, cols) = self._new(node), extent
        self._copy(
            source, lambda: self._lane_strides(source), out,
            lambda: (out.base, rows * cols * self.lanes, cols * self.lanes, self.lanes),
            extent, batch=True, lanes=True, in_sample=1, out_sample=1,
        )  # fmt: skip

    def _binary(
        self, node: Node, kind: str, left: Tensor, right: Tensor | None, constant: NDArray[Any] | None = None
    ) -> Tensor:
        """``left`` with another value, or with a constant of one sample's shape."""
        out = self._new(node)
        planes, vectors = out.layout.sweep
        mask = self._address(out.layout.mask)
        fixed = None if constant is None else self._constant(constant, out.layout)
        activation = ACTIVATIONS.index(node.activation)

        def write() -> abi.Binary:
            other = fixed if right is None else right.value(planes)
            return abi.Binary(
                left=left.value(planes), right=other, out=out.value(planes), mask=mask, binary=BINARY.index(kind),
                vectors=vectors, activation=activation,
            )  # fmt: skip

        others = () if right is None else (right,)
        work = planes * vectors * layout.LANES
        self._step(write, left, out, *others, batch=node.output in self.batched, work=work)
        return out

    def _constant(self, value: NDArray[Any], own: Layout) -> abi.Value:
        """``value`` [features], [tokens, features] or [channels, rows, columns], laid out like a value."""
        if value.ndim == 3:
            planes = value
        elif value.ndim == 1:  # the same for each column
            planes = np.repeat(value[:, None, None], own.cols, axis=2)
        else:
            planes = value.T[:, None, :]
        memory = pack.aligned(own.origin + own.size, np.float32)
        strides = (4 * own.plane, 4 * own.row, 4)
        np.lib.stride_tricks.as_strided(memory[own.origin :], (own.planes, own.rows, own.cols), strides)[:] = planes
        # the space of constants begins at address zero
        base = (self._address(memory) or 0) // 4 + own.origin
        return abi.Value(base, own.plane, own.row, int(Space.CONSTANT), own.planes, own.rows, own.cols)

    def _add(self, node: Node) -> None:
        one, other = (self.shapes[name] for name in node.inputs)
        left, right = (self._read(name, node) for name in node.inputs)
        if one == other and Space.CONSTANT not in (left.space, right.space):
            self._binary(node, node.op, left, right)
        else:
            self._elementwise(node)

    _sub = _mul = _add

    def _add_constant(self, node: Node) -> None:
        left = self._read(node.inputs[0], node)
        self._binary(node, "add", left, None, self.graph.parameter(node, "value"))

    def _affine(self, node: Node) -> None:
        source = self._read(node.inputs[0], node)
        scale = shift = None
        if node.op == "affine":
            scale, shift = (self.graph.parameter(node, name) for name in ("scale", "shift"))
        if scale is not None and source.layout.is_vector:  # planes of one float each would be slow: elementwise instead
            between = replace(node, attributes={})
            if shift is None or not shift.any():
                self._binary(node, "mul", source, None, scale)
            else:
                scaled = source if (scale == 1).all() else self._binary(between, "mul", source, None, scale)
                self._binary(node, "add", scaled, None, shift)
            return
        out = self._new(node)
        planes, vectors = out.layout.sweep
        mask, activation = self._address(out.layout.mask), ACTIVATIONS.index(node.activation)
        scales, shifts = (
            None if v is None else self._address(pack.padded(v, layout.up(len(v)))) for v in (scale, shift)
        )
        self._step(
            lambda: abi.Affine(
                in_=source.value(planes), out=out.value(planes), scale=scales, shift=shifts, mask=mask,
                vectors=vectors, activation=activation,
            ),
            source, out, batch=node.output in self.batched, work=planes * vectors * layout.LANES,
        )  # fmt: skip

    _activation = _affine

    def _layer_norm(self, node: Node) -> None:
        if len(self.shapes[node.output]) > 2:
            self._norm_over(node)
            return
        source = self._read(node.inputs[0], node)
        out = self._new(node)
        scale, shift = (
            self._address(pack.padded(self.graph.tensor(node, name), layout.up(out.layout.planes)))
            for name in ("scale", "shift")
        )
        epsilon, rms = node.real("epsilon"), node.op == "rms_norm"
        self._step(
            lambda: abi.Norm(in_=source.value(), out=out.value(), scale=scale, shift=shift, epsilon=epsilon, rms=rms),
            source, out, batch=node.output in self.batched, work=out.layout.size,
        )  # fmt: skip

    def _softmax(self, node: Node) -> None:
        last = len(self.shapes[node.output]) - 1
        axis = node.attributes.get("axis", last)
        if axis != last or last > 1:
            self._softmax_over(node, axis)
            return
        source = self._read(node.inputs[0], node)
        out = self._new(node)
        self._step(
            lambda: abi.Softmax(in_=source.value(), out=out.value()),
            source, out, batch=node.output in self.batched, work=out.layout.size,
        )  # fmt: skip

    def _embedding(self, node: Node) -> None:
        table = np.ascontiguousarray(self.graph.parameter(node, "table"))
        out, address = self._new(node), self._address(table)
        space = self.tensors[node.inputs[0]].space
        self._step(lambda: abi.Embed(out=out.value(), table=address, tokens=len(table), space=space), out)

    def _attention(self, node: Node) -> None:
        alike = len({self.shapes[name] for name in node.inputs}) == 1 and len(node.inputs) == 3
        heads, shared = attention_heads(node)
        if not alike or heads != shared or self.graph.step is not None:
            self._attend(node)
            return
        query, key, value = (self._read(name, node) for name in node.inputs)
        out = self._new(node)
        tokens = self.shapes[node.output][0]
        scratch = Tensor.new(layout.columns(heads * tokens, tokens), Space.SAMPLE)
        causal, scale = bool(node.attributes["causal"]), node.real("scale")
        self._step(
            lambda: abi.Attention(
                query=query.value(), key=key.value(), value=value.value(), out=out.value(), scratch=scratch.value(),
                heads=heads, causal=causal, scale=scale,
            ),
            query, key, value, out, scratch, work=2 * out.layout.planes * tokens * tokens,
        )  # fmt: skip


_METHODS = {
    **dict.fromkeys((op for op in ELEMENTWISE if op not in BINARY), "_elementwise"),
    "constant": "_constant_value",
    "rows": "_rows_of_table",
    "rms_norm": "_layer_norm",
}
"""Of operators whose method has another name."""


def _moves_rows(reach: _Reach, row: int) -> bool:
    """Whether to move sums by rows, too: where several rows are in a vector, one that begins with another row would be read
    from two cache lines. Moves are of less than a vector, and each has one meaning."""
    rows, cols = int(np.abs(reach.shift_r).max()), int(np.abs(reach.shift_c).max())
    return row < layout.LANES and 2 * cols < row and rows * row + cols < layout.LANES


@dataclass(frozen=True, eq=False)
class _Where:
    """What taps read [outputs, or 1 if all read the same; taps]: the offset, the input plane that it lies in, and by how many
    columns what was read is moved afterwards. Of a row of the input, the first ``cols`` columns count. With ``row``, rows of
    the input lie so far apart, and each row of the output is computed by itself. ``tile`` vectors are computed at once.
    ``moves_rows``: a move is by rows, too."""

    offset: NDArray[np.int64]
    plane: NDArray[np.int64]
    move: NDArray[np.int64]
    cols: int
    row: int = 0
    tile: int = _TILE
    moves_rows: bool = False


@dataclass(frozen=True, eq=False)
class _Reach:
    """What a convolution reads.

    With stride s and padding p, kernel row k of output row r reads input row ``s r + d``, ``d = k - p`` ("far"): row
    ``r + d // s`` of those whose index is ``d % s`` modulo s ("phase"). A convolution is ``direct`` when it can read its
    input where it is; otherwise the input is split first. ``beyond`` is how far it reads beyond its input itself.
    """

    direct: bool
    stride: tuple[int, int]
    groups: int
    far_r: NDArray[np.int64]
    far_c: NDArray[np.int64]
    shift_r: NDArray[np.int64]
    shift_c: NDArray[np.int64]
    phase_r: NDArray[np.int64]
    phase_c: NDArray[np.int64]
    phases_r: int
    halo: Halo
    beyond: Halo

    @classmethod
    def of(cls, graph: Graph, node: Node, shape: Shape) -> _Reach:
        stride, padding, dilation, groups = conv_geometry(node)
        kernel = graph.parameter(node, "weight").shape[2:]
        far = [np.arange(k) * d - p for k, d, p in zip(kernel, dilation, padding, strict=True)]
        shift = [d // s for d, s in zip(far, stride, strict=True)]
        same = all(
            n + 2 * p - d * (k - 1) == n for n, k, d, p in zip(shape[1:], kernel, dilation, padding, strict=True)
        )
        direct = stride == (1, 1) and same
        top, bottom = max(0, -int(shift[0].min())), max(0, int(shift[0].max()))
        halo = Halo(padding[1] if direct else 0, top, bottom)
        before = [max(0, -int(d.min())) for d in far]
        last = [(n + p - 1 - int(d.max())) // s * s for n, p, d, s in zip(shape[1:], padding, far, stride, strict=True)]
        behind = [max(0, begin + int(d.max()) - (n - 1)) for begin, d, n in zip(last, far, shape[1:], strict=True)]
        return cls(
            direct, stride, groups, far[0], far[1], shift[0], shift[1], far[0] % stride[0], far[1] % stride[1], stride[0],
            halo, Halo(max(before[1], behind[1]), before[0], behind[0]),
        )  # fmt: skip
