"""Activations and norms that an exporter took apart are put together again."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ticketsmith.runtime.graph import Graph, Node
from ticketsmith.runtime.patterns.rewriter import Rewriter

_FAR = np.array([11.0, 15.0, 21.0, 40.0, 88.0, 300.0, 1e3, 1e4, 1e5, 1e6])
_PROBES = np.concatenate([-_FAR[::-1], np.linspace(-9.0, 9.0, 181), _FAR])
"""Also far from zero: a clamp at 20 is no ReLU."""

_DEPTH = 12


class Functions(Rewriter):
    """Activations that were taken apart: whatever follows one value elementwise is tried out on numbers."""

    def __init__(self, graph: Graph) -> None:
        super().__init__(graph)
        self.tried: dict[str, dict[str, tuple[int, np.ndarray]]] = {}

    def rewrite(self, node: Node) -> Node | str | None:
        curves = self._curves(node)
        best: Node | None = None
        for root, (steps, curve) in curves.items():
            if steps < 2 or self.shapes[root] != self.shapes[node.output]:
                continue
            name = _name_of(curve)
            if name is not None:
                best = Node("activation", (root,), node.output, {}, {"activation": name})
        self.tried[node.output] = {node.output: (0, _PROBES), **curves}
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
        curves = self._from(name).items()
        return {root: (steps + 1, function(curve)) for root, (steps, curve) in curves if steps < _DEPTH}

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


def _name_of(curve: np.ndarray) -> str | None:
    """The activation that gives these numbers."""
    for name, reference in _CURVES.items():
        # one probe rules out most: a whole comparison for each value that a node follows from would take milliseconds
        if abs(curve[_PLAIN] - reference[_PLAIN]) <= 1e-3 and np.allclose(curve, reference, rtol=1e-6, atol=2e-5):
            return name
    return None


_PLAIN = len(_FAR) + 60
"""The place of the probe -3, where all curves that are known are apart from the line, and finite."""

_BINARY_OF: dict[str, Callable[[Any, Any], Any]] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "maximum": np.maximum, "minimum": np.minimum,
}  # fmt: skip


class Norms(Rewriter):
    """``c / sqrt(mean(c * c) + epsilon)`` over the last axis, where ``c`` may be ``x - mean(x)``."""

    def rewrite(self, node: Node) -> Node | str | None:
        if node.op == "reshape":
            return self._group_norm(node)
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

    def _group_norm(self, node: Node) -> Node | None:
        """A group norm that was written as one of as many channels as there are groups."""
        norm = self.maker(node.inputs[0], "group_norm")
        groups_of = None if norm is None else self.maker(norm.inputs[0], "reshape")
        if norm is None or groups_of is None or self.shapes[groups_of.inputs[0]] != self.shapes[node.output]:
            return None
        groups, channels = self.shapes[groups_of.output][0], self.shapes[node.output][0]
        scale, shift = (self.tensors[norm.weights[name]] for name in ("scale", "shift"))
        if norm.attributes["groups"] != groups or channels % groups or (scale != 1).any() or shift.any():
            return None
        weights = {"scale": self.store(f"{node.output}.scale", np.ones(channels))}
        weights["shift"] = self.store(f"{node.output}.shift", np.zeros(channels))
        return Node("group_norm", groups_of.inputs, node.output, weights, norm.attributes)

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
