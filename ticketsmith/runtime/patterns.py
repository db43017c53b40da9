"""What exporters take apart is put together again: activations, norms, attention, rotary positions; and changes of shape that
cancel each other go. Every step keeps the function of the graph."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ticketsmith.runtime.graph import BINARY, Graph, Node, Shape

HIDDEN = -1e20
"""What is added to a score below this hides its key."""

_FAR = np.array([11.0, 15.0, 21.0, 40.0, 88.0, 300.0, 1e3, 1e4, 1e5, 1e6])
_PROBES = np.concatenate([-_FAR[::-1], np.linspace(-9.0, 9.0, 181), _FAR])
"""Also far from zero: a clamp at 20 is no ReLU."""

_DEPTH = 12


def recognise(graph: Graph) -> Graph:
    """The same function, of larger operations."""
    for step in (_Shapes, _Functions, _Norms, _Shapes, _Rotary, _Attention, _Shapes):
        graph = step(graph).rewritten()
    return graph


def reshaped(graph: Graph) -> Graph:
    """The same function without changes of shape that cancel each other."""
    return _Shapes(graph).rewritten()


class _Rewriter:
    """Goes through the nodes once, in order; ``rewrite`` returns what takes a node's place."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.shapes = graph.shapes()
        self.uses = Counter(name for node in graph.nodes for name in node.inputs)
        self.uses.update(graph.outputs)
        self.done: list[Node] = []
        self.makers: dict[str, Node] = {}
        self.renamed: dict[str, str] = {}
        self.tensors = dict(graph.tensors)
        self.ports = {port.name for port in graph.inputs}

    def rewritten(self) -> Graph:
        for node in self.graph.nodes:
            node = replace(node, inputs=tuple(self.renamed.get(name, name) for name in node.inputs))
            found = self.rewrite(node)
            if isinstance(found, str):  # the same as a value that is there already
                if found in self.ports and node.output in self.graph.outputs:
                    self.keep(node)
                else:
                    self.renamed[node.output] = found
            else:
                self.keep(node if found is None else found)
        outputs = [self.renamed.get(name, name) for name in self.graph.outputs]
        nodes = _alive(self.done, outputs)
        used = {key for node in nodes for key in node.weights.values()}
        tensors = {key: value for key, value in self.tensors.items() if key in used}
        return replace(
            self.graph, nodes=tuple(nodes), output=outputs[0], more_outputs=tuple(outputs[1:]), tensors=tensors
        )

    def rewrite(self, node: Node) -> Node | str | None:
        """Another node for the same output, the name of a value that is the same, or None to keep it."""
        raise NotImplementedError

    def keep(self, node: Node) -> None:
        self.done.append(node)
        self.makers[node.output] = node

    def before(self, name: str, op: str, value: str, inner: Shape, /, **attributes: Any) -> str:
        """A node more, ahead of the one that is rewritten; its output."""
        self.shapes[name] = inner
        self.keep(Node(op, (value,), name, {}, attributes))
        return name

    def maker(self, name: str, *ops: str) -> Node | None:
        """What computes a value, if it is one of these operators."""
        node = self.makers.get(name)
        return node if node is not None and node.op in ops else None

    def constant(self, name: str) -> np.ndarray | None:
        node = self.maker(name, "constant")
        return None if node is None else self.tensors[node.weights["value"]]

    def uniform(self, node: Node) -> tuple[float, float] | None:
        """The scale and shift of an affine map that is the same everywhere."""
        if node.op != "affine" or node.activation != "linear":
            return None
        scale, shift = (self.tensors[node.weights[name]] for name in ("scale", "shift"))
        if (scale != scale[0]).any() or (shift != shift[0]).any():
            return None
        return float(scale[0]), float(shift[0])

    def store(self, name: str, value: np.ndarray) -> str:
        self.tensors[name] = np.ascontiguousarray(value, np.float32)
        return name

    def order(self, name: str, output: str, axes: Sequence[int], shape: Shape) -> str:
        """``name`` with its axes in another order, and then as ``shape``."""
        turned = tuple(self.shapes[name][axis] for axis in axes)
        permuted = self.before(f"{output}.turned", "permute", name, turned, axes=list(axes))
        return self.before(f"{output}.flat", "reshape", permuted, shape, shape=list(shape))


def _alive(nodes: Sequence[Node], outputs: Sequence[str]) -> list[Node]:
    needed, kept = set(outputs), []
    for node in reversed(nodes):
        if node.output in needed:
            needed.update(node.inputs)
            kept.append(node)
    return kept[::-1]


class _Shapes(_Rewriter):
    """Reshapes and permutes that follow each other become one, or none; elementwise operations go before them."""

    def rewrite(self, node: Node) -> Node | str | None:
        if node.op in ("reshape", "flatten"):
            source = node.inputs[0]
            while (made := self.maker(source, "reshape", "flatten")) is not None:
                source = made.inputs[0]
            target = self.shapes[node.output]
            if self.shapes[source] == target:
                return source
            return replace(node, inputs=(source,))
        if node.op == "permute":
            return self._permuted(node)
        if node.op == "activation":
            return self._later(node)
        if node.op in BINARY and node.inputs[0] != node.inputs[1]:
            return self._later(node)
        return None

    def _permuted(self, node: Node) -> Node | str | None:
        source, axes = node.inputs[0], list(node.attributes["axes"])
        while (made := self.maker(source, "permute")) is not None:
            source = made.inputs[0]
            axes = [made.attributes["axes"][axis] for axis in axes]
        shape = self.shapes[source]
        moved = [axis for axis in axes if shape[axis] > 1]
        if axes == sorted(axes):
            return source
        if moved == sorted(moved):
            return self.rewrite(Node("reshape", (source,), node.output, {}, {"shape": list(self.shapes[node.output])}))
        return replace(node, inputs=(source,), attributes={"axes": axes})

    def _later(self, node: Node) -> Node | None:
        """Changes of shape go behind an elementwise operation, where another one may cancel them."""
        makers = [self.maker(name, "reshape", "flatten", "permute") for name in node.inputs]
        first = makers[0]
        if first is None or any(
            made is None
            or self.uses[made.output] > 1
            or (made.op == "permute") != (first.op == "permute")
            or made.attributes.get("axes") != first.attributes.get("axes")
            or self.shapes[made.inputs[0]] != self.shapes[first.inputs[0]]
            for made in makers
        ):
            return None
        sources = tuple(made.inputs[0] for made in makers if made is not None)
        inner = f"{node.output}.{first.op}ed"
        self.shapes[inner] = self.shapes[sources[0]]
        self.uses[inner] = 1
        self.keep(replace(node, inputs=sources, output=inner))
        return replace(first, inputs=(inner,), output=node.output)


class _Functions(_Rewriter):
    """Activations that were taken apart: whatever follows one value elementwise is tried out on numbers."""

    def __init__(self, graph: Graph) -> None:
        super().__init__(graph)
        self.tried: dict[str, dict[str, tuple[int, np.ndarray]]] = {}

    def rewrite(self, node: Node) -> Node | str | None:
        found = self._curves(node)
        best: Node | None = None
        for root, (steps, curve) in found.items():
            if steps < 2 or self.shapes[root] != self.shapes[node.output]:
                continue
            name = _known_curve(curve)
            if name is not None:
                best = Node("activation", (root,), node.output, {}, {"activation": name})
        self.tried[node.output] = {node.output: (0, _PROBES), **found}
        return best

    def _curves(self, node: Node) -> dict[str, tuple[int, np.ndarray]]:
        """For each value that this one follows from: in how many steps, and how."""
        with np.errstate(all="ignore"):
            if node.op == "activation" and node.activation in _CURVE_OF:
                return self._applied(node.inputs[0], _CURVE_OF[node.activation])
            if (pair := self.uniform(node)) is not None:
                scale, shift = pair
                return self._applied(node.inputs[0], lambda x: x * scale + shift)
            if node.op in _BINARY_OF and node.activation == "linear":
                return self._both(node, _BINARY_OF[node.op])
        return {}

    def _from(self, name: str) -> dict[str, tuple[int, np.ndarray]]:
        return self.tried.get(name, {name: (0, _PROBES)})

    def _applied(self, name: str, function: Callable[[Any], Any]) -> dict[str, tuple[int, np.ndarray]]:
        return {
            root: (steps + 1, function(curve)) for root, (steps, curve) in self._from(name).items() if steps < _DEPTH
        }

    def _both(self, node: Node, function: Callable[[Any, Any], Any]) -> dict[str, tuple[int, np.ndarray]]:
        fixed = [self.constant(name) for name in node.inputs]
        if any(one is not None for one in fixed):
            place = 0 if fixed[0] is not None else 1
            number = fixed[place]
            if number is None or number.size != 1:
                return {}
            value = float(number.reshape(-1)[0])
            other = node.inputs[1 - place]
            return self._applied(other, lambda x: function(value, x) if place == 0 else function(x, value))
        left, right = (self._from(name) for name in node.inputs)
        return {
            root: (max(left[root][0], right[root][0]) + 1, function(left[root][1], right[root][1]))
            for root in left.keys() & right.keys()
            if max(left[root][0], right[root][0]) < _DEPTH
        }


def _sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def _hard(x: Any) -> Any:
    return np.clip(x / 6 + 0.5, 0, 1)


_erf = np.vectorize(math.erf, otypes=[float])
_CURVE_OF: dict[str, Callable[[Any], Any]] = {
    "relu": lambda x: np.maximum(x, 0),
    "gelu": lambda x: x * (1 + _erf(x / math.sqrt(2))) / 2,
    "gelu_tanh": lambda x: x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2,
    "silu": lambda x: x * _sigmoid(x),
    "sigmoid": _sigmoid,
    "tanh": np.tanh,
    "relu6": lambda x: np.clip(x, 0, 6),
    "hard_swish": lambda x: x * _hard(x),
    "hard_sigmoid": _hard,
    "exp": np.exp,
    "erf": _erf,
    "sqrt": np.sqrt,
    "abs": np.abs,
    "log": np.log,
}
with np.errstate(over="ignore"):
    _CURVES = {name: _CURVE_OF[name](_PROBES) for name in (
        "relu", "gelu", "gelu_tanh", "silu", "sigmoid", "tanh", "relu6", "hard_swish", "hard_sigmoid")}  # fmt: skip


def _known_curve(curve: np.ndarray) -> str | None:
    """The activation that gives these numbers."""
    for name, known in _CURVES.items():
        # one probe rules out most: a whole comparison for each value that a node follows from would take milliseconds
        if abs(curve[_PLAIN] - known[_PLAIN]) <= 1e-3 and np.allclose(curve, known, rtol=1e-6, atol=2e-5):
            return name
    return None


_PLAIN = len(_FAR) + 60
"""The place of the probe -3, where all curves that are known are apart from the line, and finite."""

_BINARY_OF: dict[str, Callable[[Any, Any], Any]] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "maximum": np.maximum, "minimum": np.minimum,
}  # fmt: skip


class _Norms(_Rewriter):
    """``c / sqrt(mean(c * c) + epsilon)`` over the last axis, where ``c`` may be ``x - mean(x)``."""

    def rewrite(self, node: Node) -> Node | str | None:
        if node.op == "reshape":
            return self._grouped(node)
        if node.op not in ("div", "mul") or node.activation != "linear":
            return None
        for centred, other in (node.inputs, node.inputs[::-1])[: 2 if node.op == "mul" else 1]:
            root = other
            if node.op == "mul":
                inverse = self.maker(other, "div")
                one = self.constant(inverse.inputs[0]) if inverse is not None else None
                if inverse is None or one is None or (one != 1).any():
                    continue
                root = inverse.inputs[1]
            epsilon = self._epsilon(root, centred)
            if epsilon is None:
                continue
            size = self.shapes[centred][-1]
            weights = {"scale": self.store(f"{node.output}.scale", np.ones(size))}
            minus = self.maker(centred, "sub")
            if minus is not None and self._mean_of(minus.inputs[1]) == minus.inputs[0] and epsilon > 0:
                weights["shift"] = self.store(f"{node.output}.shift", np.zeros(size))
                return Node("layer_norm", (minus.inputs[0],), node.output, weights, {"epsilon": epsilon})
            return Node("rms_norm", (centred,), node.output, weights, {"epsilon": epsilon})
        return None

    def _grouped(self, node: Node) -> Node | None:
        """A group norm that was written as one of as many channels as there are groups."""
        norm = self.maker(node.inputs[0], "group_norm")
        seen = None if norm is None else self.maker(norm.inputs[0], "reshape")
        if norm is None or seen is None or self.shapes[seen.inputs[0]] != self.shapes[node.output]:
            return None
        groups, channels = self.shapes[seen.output][0], self.shapes[node.output][0]
        scale, shift = (self.tensors[norm.weights[name]] for name in ("scale", "shift"))
        if norm.attributes["groups"] != groups or channels % groups or (scale != 1).any() or shift.any():
            return None
        weights = {
            "scale": self.store(f"{node.output}.scale", np.ones(channels)),
            "shift": self.store(f"{node.output}.shift", np.zeros(channels)),
        }
        return Node("group_norm", seen.inputs, node.output, weights, norm.attributes)

    def _mean_of(self, name: str) -> str | None:
        """What this is the mean over the last axis of."""
        node = self.maker(name, "reduce")
        if node is None or node.attributes["function"] != "mean":
            return None
        last = len(self.shapes[node.inputs[0]]) - 1
        return node.inputs[0] if list(node.attributes["axes"]) == [last] else None

    def _epsilon(self, name: str, centred: str) -> float | None:
        root = self.maker(name, "activation")
        if root is None or root.activation != "sqrt":
            return None
        affine = self.maker(root.inputs[0], "affine")
        pair = self.uniform(affine) if affine is not None else None
        if affine is None or pair is None or pair[0] != 1 or pair[1] < 0:
            return None
        squares = self._mean_of(affine.inputs[0])
        product = self.maker(squares, "mul") if squares is not None else None
        return pair[1] if product is not None and product.inputs == (centred, centred) else None


class _Rotary(_Rewriter):
    """Rotary positions (Su et al. 2021): ``x * cos + swapped(x) * sin``, for [heads, tokens, width] or [tokens, heads,
    width]."""

    def rewrite(self, node: Node) -> Node | str | None:
        if node.op != "add" or node.activation != "linear":
            return None
        for one, other in (node.inputs, node.inputs[::-1]):
            plain, turned = self._times_constant(one), self._times_constant(other)
            if plain is None or turned is None:
                continue
            for x, cos in plain:
                for swapped, sin in turned:
                    found = self._matched(node, x, cos, swapped, sin)
                    if found is not None:
                        return found
        return None

    def _times_constant(self, name: str) -> list[tuple[str, np.ndarray]] | None:
        product = self.maker(name, "mul")
        if product is None or product.activation != "linear":
            return None
        left, right = product.inputs
        pairs = [(a, self.constant(b)) for a, b in ((left, right), (right, left))]
        return [(a, b) for a, b in pairs if b is not None]

    def _matched(self, node: Node, x: str, cos: np.ndarray, swapped: str, sin: np.ndarray) -> Node | None:
        shape = self.shapes[x]
        if len(shape) not in (2, 3) or self.shapes[node.output] != shape or self._swap_of(swapped) != x:
            return None
        full = (1,) * (3 - len(shape)) + shape  # one head may have no axis
        tables = [np.asarray(t).reshape((1,) * (3 - t.ndim) + t.shape) if t.ndim <= 3 else None for t in (cos, sin)]
        if any(t is None or t.shape[-1] != full[-1] for t in tables):
            return None
        for tokens_axis in (1, 0):
            if all(
                t is not None and t.shape[1 - tokens_axis] == 1 and t.shape[tokens_axis] == full[tokens_axis]
                for t in tables
            ):
                break
        else:
            return None
        heads, tokens, width = full[1 - tokens_axis], full[tokens_axis], full[2]
        flat, output = (tokens, heads * width), node.output
        c, s = (np.asarray(t).reshape(tokens, width) for t in tables)
        signed = np.concatenate([-s[:, : width // 2], s[:, width // 2 :]], 1)
        weights = {"cos": self.store(f"{output}.cos", c), "sin": self.store(f"{output}.sin", signed)}
        inner = f"{output}.rotary"
        self.shapes[inner] = flat
        if tokens_axis == 0 or len(shape) == 2:
            here = self.before(f"{output}.in", "reshape", x, flat, shape=list(flat))
            self.keep(Node("rotary", (here,), inner, weights, {"heads": heads}))
            return Node("reshape", (inner,), output, {}, {"shape": list(shape)})
        here = self.order(x, f"{output}.in", (1, 0, 2), flat)
        self.keep(Node("rotary", (here,), inner, weights, {"heads": heads}))
        back = self.before(f"{output}.heads", "reshape", inner, (tokens, heads, width), shape=[tokens, heads, width])
        return Node("permute", (back,), output, {}, {"axes": [1, 0, 2]})

    def _swap_of(self, name: str) -> str | None:
        """``x`` for ``[-second half, first half]`` of it."""
        joined = self.maker(name, "concat")
        if joined is None or len(joined.inputs) != 2:
            return None
        rank = len(self.shapes[name])
        negated, low = self.maker(joined.inputs[0], "affine"), self.maker(joined.inputs[1], "slice")
        if negated is None or low is None or self.uniform(negated) != (-1.0, 0.0):
            return None
        high = self.maker(negated.inputs[0], "slice")
        if high is None or high.inputs != low.inputs or joined.attributes.get("axis", rank - 1) != rank - 1:
            return None
        width = self.shapes[high.inputs[0]][-1]
        for part, begin in ((low, 0), (high, width // 2)):
            given = part.attributes
            if (given["begin"], given["end"], given.get("step", 1), given.get("axis", rank - 1)) != (
                begin, begin + width // 2, 1, rank - 1,
            ):  # fmt: skip
                return None
        return high.inputs[0]


class _Attention(_Rewriter):
    """``softmax(q k * scale + mask) v`` for [heads, tokens, width]."""

    def rewrite(self, node: Node) -> Node | str | None:
        if node.op == "attention":
            return self._plain(node)
        if node.op != "matmul" or len(self.shapes[node.output]) not in (2, 3):
            return None
        softmax = self.maker(node.inputs[0], "softmax")
        if softmax is None:
            return None
        rank = len(self.shapes[node.output])
        if softmax.attributes.get("axis", rank - 1) != rank - 1:
            return None
        scale, mask, name = 1.0, None, softmax.inputs[0]
        while (product := self.maker(name, "matmul")) is None:
            step = self.makers.get(name)
            if step is None or step.attributes.get("activation", "linear") != "linear":
                return None
            pair = self.uniform(step)
            if pair is not None and pair[1] == 0:
                scale, name = scale * pair[0], step.inputs[0]
            elif step.op in ("add", "add_constant") and mask is None and scale == 1:
                found = self._mask(step, rank)
                if found is None:
                    return None
                mask, name = found
            else:
                return None
        return self._made(node, product, scale, mask, rank)

    def _mask(self, step: Node, rank: int) -> tuple[str, str] | None:
        """The mask that is added, and the scores it is added to."""
        if step.op == "add_constant":
            value = self.tensors[step.weights["value"]]
            full = f"{step.output}.mask"
            self.shapes[full] = value.shape
            self.keep(Node("constant", (), full, {"value": step.weights["value"]}))
            return full, step.inputs[0]
        for scores, mask in (step.inputs, step.inputs[::-1]):
            if self.shapes[scores] == self.shapes[step.output] and self._leads_to_product(scores):
                return mask, scores
        return None

    def _leads_to_product(self, name: str) -> bool:
        for _ in range(4):
            node = self.makers.get(name)
            if node is None or node.op == "matmul":
                return node is not None
            if node.op not in ("affine", "mul", "div"):
                return False
            name = node.inputs[0]
        return False

    def _made(self, node: Node, product: Node, scale: float, mask: str | None, rank: int) -> Node | None:
        q, kt, v = product.inputs[0], product.inputs[1], node.inputs[1]
        shapes = [(1,) * (3 - rank) + self.shapes[name] for name in (q, kt, v)]
        if any(len(shape) != 3 for shape in shapes) or len({shape[0] for shape in shapes}) > 1:
            return None
        heads, queries, width = shapes[0]
        keys, value_width = shapes[2][1:]
        output = node.output
        flat = (
            (q, "q", (1, 0, 2), (0, 1), (queries, heads * width)),
            (kt, "k", (2, 0, 1), (1, 0), (keys, heads * width)),
            (v, "v", (1, 0, 2), (0, 1), (keys, heads * value_width)),
        )
        names = [
            self.order(name, f"{output}.{letter}", axes if rank == 3 else short, shape)
            for name, letter, axes, short, shape in flat
        ]
        if mask is not None:
            shape = (1,) * (3 - len(self.shapes[mask])) + self.shapes[mask]
            names.append(self.before(f"{output}.mask", "reshape", mask, shape, shape=list(shape)))
            fixed = self.constant(mask)
            if fixed is not None:
                self.shapes[f"{output}.fixed"] = shape
                key = self.store(f"{output}.fixed.value", np.maximum(fixed.reshape(shape), -1e30))
                self.keep(Node("constant", (), f"{output}.fixed", {"value": key}))
                names[-1] = f"{output}.fixed"
        inner = f"{output}.attention"
        self.shapes[inner] = (queries, heads * value_width)
        made = Node("attention", tuple(names), inner, {}, {"heads": heads, "causal": False, "scale": scale})
        self.keep(self._plain(made))
        if rank == 2:
            return Node("reshape", (inner,), output, {}, {"shape": [queries, value_width]})
        apart = self.before(f"{output}.heads", "reshape", inner, (queries, heads, value_width),
                            shape=[queries, heads, value_width])  # fmt: skip
        return Node("permute", (apart,), output, {}, {"axes": [1, 0, 2]})

    def _plain(self, node: Node) -> Node:
        """With queries, keys and values as they were before they were split into heads, scaled or repeated."""
        node = self._causal(node) or node
        if "shared_heads" in node.attributes:
            return node
        names, attributes = list(node.inputs), dict(node.attributes)
        (q, q_order, q_scale), (k, k_order, k_scale), (v, v_order, v_scale) = (self._source(name) for name in names[:3])
        heads, targets = attributes["heads"], [self.shapes[name] for name in names]

        def whole(place: int, root: str, repeats: int) -> None:
            rows, features = targets[place]
            flat = (rows, features // repeats)
            names[place] = root
            if self.shapes[root] != flat:
                names[place] = self.before(
                    f"{node.output}.{'qkv'[place]}.whole", "reshape", root, flat, shape=list(flat)
                )

        if q_order is not None and self._repeats(q, q_order, targets[0], heads) == 1:
            whole(0, q, 1)
            attributes["scale"] *= q_scale
        if k_order is not None and v_order is not None and v_scale == 1:
            repeats = self._repeats(k, k_order, targets[1], heads)
            if repeats and repeats == self._repeats(v, v_order, targets[2], heads):
                whole(1, k, repeats)
                whole(2, v, repeats)
                attributes["scale"] *= k_scale
                if repeats > 1:
                    attributes["shared_heads"] = heads // repeats
        return replace(node, inputs=tuple(names), attributes=attributes)

    def _source(self, name: str) -> tuple[str, np.ndarray | None, float]:
        """What a value's elements are moved from, which one each of them is, and by what it was multiplied."""
        moves, scale, start = [], 1.0, name
        while (node := self.makers.get(name)) is not None:
            pair = self.uniform(node)
            if node.op in ("reshape", "flatten", "permute", "expand"):
                moves.append(node)
            elif pair is not None and pair[1] == 0:
                scale *= pair[0]
            else:
                break
            name = node.inputs[0]
        size = math.prod(self.shapes[name])
        if name == start or size > 2**24:
            return start, None, 1.0
        indices = np.arange(size, dtype=np.int32).reshape(self.shapes[name])
        for node in reversed(moves):
            if node.op == "permute":
                indices = indices.transpose(node.attributes["axes"])
            elif node.op == "expand":
                indices = np.broadcast_to(indices, self.shapes[node.output])
            else:
                indices = indices.reshape(self.shapes[node.output])
        return name, indices, scale

    def _repeats(self, root: str, indices: np.ndarray, target: Shape, heads: int) -> int:
        """How many heads share each one of ``root``; 0 when it is moved in another way."""
        count, rest = divmod(math.prod(target), math.prod(self.shapes[root]))
        if rest or heads % count:
            return 0
        one = np.arange(indices.size // count).reshape(target[0], heads // count, 1, target[1] // heads)
        wide = np.broadcast_to(one, (target[0], heads // count, count, target[1] // heads))
        return count if (indices.reshape(wide.shape) == wide).all() else 0

    def _causal(self, node: Node) -> Node | None:
        """A mask that hides the future and nothing else is no mask."""
        mask = self.constant(node.inputs[3]) if len(node.inputs) == 4 else None
        if mask is None:
            return None
        plain = mask.reshape(-1, *mask.shape[-2:])
        rows, columns = plain.shape[1:]
        if not plain.any():
            return replace(node, inputs=node.inputs[:3])
        queries, keys = (self.shapes[name][0] for name in node.inputs[:2])
        past = np.tri(rows, columns, dtype=bool)
        square = queries == keys == rows == columns > 1
        if not square or (plain[:, past] != 0).any() or (plain[:, ~past] > HIDDEN).any():
            return None
        return replace(node, inputs=node.inputs[:3], attributes={**node.attributes, "causal": True})
