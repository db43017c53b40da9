"""Rotary positions that an exporter took apart are put together again."""

from __future__ import annotations

import numpy as np

from ticketsmith.runtime.graph import Node
from ticketsmith.runtime.patterns.rewriter import Rewriter


class Rotary(Rewriter):
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
                    match = self._match(node, x, cos, swapped, sin)
                    if match is not None:
                        return match
        return None

    def _times_constant(self, name: str) -> list[tuple[str, np.ndarray]] | None:
        product = self.maker(name, "mul")
        if product is None or product.activation != "linear":
            return None
        left, right = product.inputs
        pairs = [(a, self.constant(b)) for a, b in ((left, right), (right, left))]
        return [(a, b) for a, b in pairs if b is not None]

    def _match(self, node: Node, x: str, cos: np.ndarray, swapped: str, sin: np.ndarray) -> Node | None:
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
            cut = part.attributes
            if (cut["begin"], cut["end"], cut.get("step", 1), cut.get("axis", rank - 1)) != (
                begin, begin + width // 2, 1, rank - 1,
            ):  # fmt: skip
                return None
        return high.inputs[0]
