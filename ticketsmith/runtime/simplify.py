"""Fewer, larger operations: what exporters took apart is put together again; affine maps go into the weights before them,
residuals and activations into products."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from ticketsmith.runtime.graph import BINARY, PRODUCTS, Graph, Node, Shape
from ticketsmith.runtime.ops import OPERATORS
from ticketsmith.runtime.patterns.attention import Attention, Rotary
from ticketsmith.runtime.patterns.functions import Functions, Norms
from ticketsmith.runtime.patterns.rewriter import Rewriter


class Movement(Rewriter):
    """Reshapes and permutes that follow each other become one, or none; elementwise operations go before them."""

    def rewrite(self, node: Node) -> Node | str | None:
        if node.op in ("reshape", "flatten"):
            source = node.inputs[0]
            while (maker := self.maker(source, "reshape", "flatten")) is not None:
                source = maker.inputs[0]
            same = self.shapes[source] == self.shapes[node.output]
            return source if same else replace(node, inputs=(source,))
        if node.op == "permute":
            return self._permuted(node)
        binary = node.op in BINARY and node.inputs[0] != node.inputs[1]
        return self._later(node) if binary or node.op == "activation" else None

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


_PASSES = (Movement, Functions, Norms, Movement, Rotary, Attention, Movement)


def simplify(graph: Graph) -> Graph:
    """The same function with fewer nodes. Zeros of weights stay zeros."""
    for step in _PASSES:
        graph = step(graph).run()
    return Movement(_fuse(graph)).run()


def _fuse(graph: Graph) -> Graph:
    shapes = graph.shapes()
    tensors = dict(graph.tensors)
    nodes: dict[str, Node] = {}
    uses = Counter(name for node in graph.nodes for name in node.inputs)
    uses.update(graph.outputs)
    for node in graph.nodes:
        merged: Node | None = None
        for name in node.inputs:
            maker = nodes.get(name)
            if maker is None or uses[name] > 1:  # others need what it makes
                continue
            if node.op == "affine":
                merged = _fold_affine(maker, node, tensors, len(shapes[node.output]))
            elif node.op == "activation" and OPERATORS[maker.op].fuses and maker.activation == "linear":
                merged = _rename(maker, node.output, activation=node.activation)
            elif node.op == "add" and maker.op in PRODUCTS:
                merged = _add_residual(maker, node, shapes)
            if merged is not None:  # the product moves down to where its residual is known
                del nodes[name]
                break
        nodes[node.output] = merged or node
    return replace(graph, nodes=tuple(nodes.values()), tensors=tensors)


def _add_residual(product: Node, total: Node, shapes: Mapping[str, Shape]) -> Node | None:
    here, other = total.inputs if total.inputs[0] == product.output else total.inputs[::-1]
    if here == other or shapes[here] != shapes[other] or product.activation != "linear" or product.residual is not None:
        return None
    return _rename(replace(product, inputs=(*product.inputs, other)), total.output, activation=total.activation)


def _rename(node: Node, output: str, activation: str) -> Node:
    return replace(node, output=output, attributes={**node.attributes, "activation": activation})


def _fold_affine(product: Node, affine: Node, tensors: dict[str, np.ndarray], rank: int) -> Node | None:
    kind = "channels" if rank == 3 else "features"
    if kind in OPERATORS[product.op].scales and product.activation == "linear":
        return _fold_twice(product, affine, tensors)
    if product.op not in PRODUCTS or product.residual is not None or product.activation != "linear":
        return None
    scale, shift = tensors[affine.weights["scale"]], tensors[affine.weights["shift"]]
    weight = tensors[product.weights["weight"]]
    wide = scale.reshape(-1, *[1] * (weight.ndim - 1)).astype(np.float64)
    bias = tensors[product.weights["bias"]].astype(np.float64) if "bias" in product.weights else 0.0
    weights = {"weight": f"{product.output}.weight+{affine.output}", "bias": f"{product.output}.bias+{affine.output}"}
    tensors[weights["weight"]] = (weight * wide).astype(np.float32)
    tensors[weights["bias"]] = (bias * scale + shift).astype(np.float32)
    return _rename(replace(product, weights=weights), affine.output, activation=affine.activation)


def _fold_twice(first: Node, affine: Node, tensors: dict[str, np.ndarray]) -> Node | None:
    """Two affine maps are one; the second may be that of a norm over features."""
    scale, shift = (tensors[affine.weights[name]].astype(np.float64) for name in ("scale", "shift"))
    fuses = OPERATORS[first.op].fuses
    if len(scale) != len(tensors[first.weights["scale"]]) or not (fuses or affine.activation == "linear"):
        return None
    weights = {"scale": f"{first.output}.scale+{affine.output}"}
    tensors[weights["scale"]] = (tensors[first.weights["scale"]] * scale).astype(np.float32)
    if "shift" in OPERATORS[first.op].parameters:
        weights["shift"] = f"{first.output}.shift+{affine.output}"
        tensors[weights["shift"]] = (tensors[first.weights["shift"]] * scale + shift).astype(np.float32)
    elif shift.any():
        return None
    merged = replace(first, weights=weights)
    return _rename(merged, affine.output, affine.activation) if fuses else replace(merged, output=affine.output)
