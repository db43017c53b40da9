"""Fewer, larger operations: affine maps go into the weights before them, residuals and activations into products."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np

from ticketsmith.runtime.graph import PRODUCTS, Graph, Node
from ticketsmith.runtime.patterns import recognise, reshaped

_CARRIERS = (*PRODUCTS, "add", "sub", "mul", "affine", "add_constant")


def simplify(graph: Graph) -> Graph:
    """The same function with fewer nodes. Zeros of weights stay zeros."""
    return reshaped(_merged(recognise(graph)))


def _merged(graph: Graph) -> Graph:
    shapes = graph.shapes()
    nodes = list(graph.nodes)
    tensors = dict(graph.tensors)
    done: list[Node] = []
    uses = Counter(name for node in nodes for name in node.inputs)
    uses.update(graph.outputs)
    for node in nodes:
        makers = {maker.output: index for index, maker in enumerate(done)}

        def only_maker(name: str, makers: dict[str, int] = makers) -> int | None:
            """The index of the node that makes ``name`` for one consumer alone."""
            return makers[name] if name in makers and uses[name] == 1 else None

        merged: Node | None = None
        if node.op == "affine" and (index := only_maker(node.inputs[0])) is not None:
            merged = _scaled(done[index], node, tensors, len(shapes[node.output]))
        elif node.op == "activation" and (index := only_maker(node.inputs[0])) is not None:
            if done[index].op in _CARRIERS and done[index].activation == "linear":
                merged = _renamed(done[index], node.output, activation=node.activation)
        elif node.op == "add":
            for here, other in (node.inputs, node.inputs[::-1]):
                index = only_maker(here)
                if index is None or here == other or done[index].op not in PRODUCTS or shapes[here] != shapes[other]:
                    continue
                if done[index].activation == "linear" and done[index].residual is None:
                    product = replace(done[index], inputs=(*done[index].inputs, other))
                    merged = _renamed(product, node.output, activation=node.activation)
                    break
        if merged is None or index is None:
            done.append(node)
        else:  # the product moves down to where its residual is known
            del done[index]
            done.append(merged)
    used = {key for node in done for key in node.weights.values()}
    return replace(graph, nodes=tuple(done), tensors={key: value for key, value in tensors.items() if key in used})


def _renamed(node: Node, output: str, activation: str) -> Node:
    return replace(node, output=output, attributes={**node.attributes, "activation": activation})


def _scaled(product: Node, affine: Node, tensors: dict[str, np.ndarray], rank: int) -> Node | None:
    again = (
        product.op == "affine"
        or (product.op in ("layer_norm", "rms_norm") and rank < 3)
        or (product.op == "group_norm" and rank == 3)
    )
    if again and product.activation == "linear":
        return _scaled_again(product, affine, tensors)
    if product.op not in PRODUCTS or product.residual is not None or product.activation != "linear":
        return None
    scale, shift = tensors[affine.weights["scale"]], tensors[affine.weights["shift"]]
    weight = tensors[product.weights["weight"]]
    wide = scale.reshape(-1, *[1] * (weight.ndim - 1)).astype(np.float64)
    bias = tensors[product.weights["bias"]].astype(np.float64) if "bias" in product.weights else 0.0
    weights = {"weight": f"{product.output}.weight+{affine.output}", "bias": f"{product.output}.bias+{affine.output}"}
    tensors[weights["weight"]] = (weight * wide).astype(np.float32)
    tensors[weights["bias"]] = (bias * scale + shift).astype(np.float32)
    return _renamed(replace(product, weights=weights), affine.output, activation=affine.activation)


def _scaled_again(first: Node, affine: Node, tensors: dict[str, np.ndarray]) -> Node | None:
    """Two affine maps are one; the second may be that of a norm over features."""
    scale, shift = (tensors[affine.weights[name]].astype(np.float64) for name in ("scale", "shift"))
    if len(scale) != len(tensors[first.weights["scale"]]) or (affine.activation != "linear" and first.op != "affine"):
        return None
    weights = {"scale": f"{first.output}.scale+{affine.output}"}
    tensors[weights["scale"]] = (tensors[first.weights["scale"]] * scale).astype(np.float32)
    if first.op != "rms_norm":
        weights["shift"] = f"{first.output}.shift+{affine.output}"
        tensors[weights["shift"]] = (tensors[first.weights["shift"]] * scale + shift).astype(np.float32)
    elif shift.any():
        return None
    merged = replace(first, weights=weights)
    return (
        replace(merged, output=affine.output)
        if first.op != "affine"
        else _renamed(merged, affine.output, affine.activation)
    )
