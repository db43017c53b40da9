"""Fewer, larger operations: affine maps go into the weights before them, residuals and activations into products."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from ticketsmith.runtime.graph import PRODUCTS, Graph, Node, Shape
from ticketsmith.runtime.ops import OPERATORS
from ticketsmith.runtime.patterns import recognise, reshaped


def simplify(graph: Graph) -> Graph:
    """The same function with fewer nodes. Zeros of weights stay zeros."""
    return reshaped(_merged(recognise(graph)))


def _merged(graph: Graph) -> Graph:
    shapes = graph.shapes()
    tensors = dict(graph.tensors)
    done: dict[str, Node] = {}
    uses = Counter(name for node in graph.nodes for name in node.inputs)
    uses.update(graph.outputs)
    for node in graph.nodes:
        merged: Node | None = None
        for name in node.inputs:
            maker = done.get(name)
            if maker is None or uses[name] > 1:  # others need what it makes
                continue
            if node.op == "affine":
                merged = _scaled(maker, node, tensors, len(shapes[node.output]))
            elif node.op == "activation" and OPERATORS[maker.op].fuses and maker.activation == "linear":
                merged = _renamed(maker, node.output, activation=node.activation)
            elif node.op == "add" and maker.op in PRODUCTS:
                merged = _with_residual(maker, node, shapes)
            if merged is not None:  # the product moves down to where its residual is known
                del done[name]
                break
        done[node.output] = merged or node
    used = {key for node in done.values() for key in node.weights.values()}
    tensors = {key: value for key, value in tensors.items() if key in used}
    return replace(graph, nodes=tuple(done.values()), tensors=tensors)


def _with_residual(product: Node, total: Node, shapes: Mapping[str, Shape]) -> Node | None:
    here, other = total.inputs if total.inputs[0] == product.output else total.inputs[::-1]
    if here == other or shapes[here] != shapes[other] or product.activation != "linear" or product.residual is not None:
        return None
    return _renamed(replace(product, inputs=(*product.inputs, other)), total.output, activation=total.activation)


def _renamed(node: Node, output: str, activation: str) -> Node:
    return replace(node, output=output, attributes={**node.attributes, "activation": activation})


def _scaled(product: Node, affine: Node, tensors: dict[str, np.ndarray], rank: int) -> Node | None:
    kind = "channels" if rank == 3 else "features"
    if kind in OPERATORS[product.op].scales and product.activation == "linear":
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
