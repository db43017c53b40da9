"""Attention and rotary positions that an exporter took apart are put together again."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from ticketsmith.runtime.graph import Node, Shape
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
            sizes = full[tokens_axis], 1
            if all(t is not None and (t.shape[tokens_axis], t.shape[1 - tokens_axis]) == sizes for t in tables):
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
            half, axis = (cut["begin"], cut["end"], cut.get("step", 1)), cut.get("axis", rank - 1)
            if half != (begin, begin + width // 2, 1) or axis != rank - 1:
                return None
        return high.inputs[0]


HIDDEN = -1e20
"""What is added to a score below this hides its key."""


class Attention(Rewriter):
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
                match = self._mask(step)
                if match is None:
                    return None
                mask, name = match
            else:
                return None
        return self._replacement(node, product, scale, mask, rank)

    def _mask(self, step: Node) -> tuple[str, str] | None:
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

    def _replacement(self, node: Node, product: Node, scale: float, mask: str | None, rank: int) -> Node | None:
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
        attention = Node("attention", tuple(names), inner, {}, {"heads": heads, "causal": False, "scale": scale})
        self.keep(self._plain(attention))
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
                name = f"{node.output}.{'qkv'[place]}.whole"
                names[place] = self.before(name, "reshape", root, flat, shape=list(flat))

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
