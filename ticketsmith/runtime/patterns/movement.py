"""Changes of shape that cancel each other go."""

from __future__ import annotations

from dataclasses import replace

from ticketsmith.runtime.graph import BINARY, Node
from ticketsmith.runtime.patterns.rewriter import Rewriter


class Movement(Rewriter):
    """Reshapes and permutes that follow each other become one, or none; elementwise operations go before them."""

    def rewrite(self, node: Node) -> Node | str | None:
        if node.op in ("reshape", "flatten"):
            source = node.inputs[0]
            while (maker := self.maker(source, "reshape", "flatten")) is not None:
                source = maker.inputs[0]
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
        while (maker := self.maker(source, "permute")) is not None:
            source = maker.inputs[0]
            axes = [maker.attributes["axes"][axis] for axis in axes]
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
            maker is None
            or self.uses[maker.output] > 1
            or (maker.op == "permute") != (first.op == "permute")
            or maker.attributes.get("axes") != first.attributes.get("axes")
            or self.shapes[maker.inputs[0]] != self.shapes[first.inputs[0]]
            for maker in makers
        ):
            return None
        sources = tuple(maker.inputs[0] for maker in makers if maker is not None)
        inner = f"{node.output}.{first.op}ed"
        self.shapes[inner] = self.shapes[sources[0]]
        self.uses[inner] = 1
        self.keep(replace(node, inputs=sources, output=inner))
        return replace(first, inputs=(inner,), output=node.output)
