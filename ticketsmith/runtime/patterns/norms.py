"""Norms that an exporter took apart are put together again."""

from __future__ import annotations

import numpy as np

from ticketsmith.runtime.graph import Node
from ticketsmith.runtime.patterns.rewriter import Rewriter


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
        weights = {
            "scale": self.store(f"{node.output}.scale", np.ones(channels)),
            "shift": self.store(f"{node.output}.shift", np.zeros(channels)),
        }
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
