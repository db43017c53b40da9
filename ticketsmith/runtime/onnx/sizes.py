"""How many numbers an operator of ONNX would make of constants."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

_UNSIZED = {
    "Conv", "ConvTranspose", "DeformConv", "ConvInteger", "QLinearConv", "LSTM", "GRU", "RNN", "AveragePool", "MaxPool", "LpPool",
    "MaxUnpool", "MaxRoiPool", "RoiAlign", "GridSample", "AffineGrid", "Col2Im", "CenterCropPad", "DFT", "STFT", "HannWindow",
    "HammingWindow", "BlackmanWindow", "MelWeightMatrix", "Multinomial", "ImageDecoder", "Attention", "TfIdfVectorizer", "If",
    "Loop", "Scan", "SequenceMap",
}  # fmt: skip
"""Operators whose results may be of any size, and which nobody needs of constants alone."""


def result_size(node: Any, inputs: Sequence[Any]) -> float:
    """An upper bound of the elements of the outputs of ``node``, of which all ``inputs`` are arrays (or None: left out).

    Infinite where nothing can be said.
    """
    if node.op_type in _UNSIZED:
        return math.inf
    try:
        return _size(node, list(inputs))
    except (ValueError, IndexError, TypeError, AttributeError, KeyError, OverflowError):  # inputs that do not fit
        return math.inf


def _size(node: Any, inputs: list[Any]) -> float:
    import onnx

    op = node.op_type
    attributes = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
    shapes = [np.shape(one) for one in inputs if one is not None]
    total = float(sum(math.prod(shape) for shape in shapes))
    if op == "ConstantOfShape":
        return _product(inputs[0])
    if op == "Expand":
        return float(math.prod(np.broadcast_shapes(shapes[0], tuple(int(n) for n in np.reshape(inputs[1], -1)))))
    if op == "Tile":
        return np.size(inputs[0]) * _product(inputs[1])
    if op == "Range":
        start, limit, step = (float(np.reshape(one, -1)[0]) for one in inputs)
        return abs((limit - start) / step) if step else math.inf
    if op in ("MatMul", "MatMulInteger", "QLinearMatMul"):
        a, b = shapes[0], shapes[3 if op == "QLinearMatMul" else 1]
        rows, columns = (a[-2] if len(a) > 1 else 1), (b[-1] if len(b) > 1 else 1)
        return float(math.prod(np.broadcast_shapes(a[:-2], b[:-2])) * rows * columns)
    if op == "Gemm":
        rows = shapes[0][1 if attributes.get("transA") else 0]
        return float(rows * shapes[1][0 if attributes.get("transB") else 1])
    if op == "OneHot":
        return np.size(inputs[0]) * float(np.reshape(inputs[1], -1)[0])
    if op == "Pad":
        listed = inputs[1] if len(inputs) > 1 else attributes["pads"]
        pads = np.reshape(np.asarray(listed), (2, -1))
        axes = range(len(shapes[0])) if len(inputs) < 4 or inputs[3] is None else [int(n) for n in inputs[3]]
        sizes = [float(n) for n in shapes[0]]
        for axis, pad in zip(axes, pads.astype(float).clip(0).sum(0), strict=True):
            sizes[axis] += pad
        return math.prod(sizes)
    if op in ("Resize", "Upsample"):
        if len(inputs) > 3 and np.size(inputs[3]):
            return _product(inputs[3]) * (math.prod(shapes[0]) if "axes" in attributes else 1)
        place = 2 if len(inputs) > 2 else 1
        scales = inputs[place] if len(inputs) > place else attributes["scales"]
        return np.size(inputs[0]) * math.prod(max(1.0, float(scale)) for scale in scales)
    if op == "Einsum":
        return _einsum(attributes["equation"].decode(), shapes)
    if op in ("Gather", "GatherND"):
        return float(np.size(inputs[1]) * max(1, np.size(inputs[0])) / _gathered(shapes[0], attributes, op))
    if op == "NonZero":
        return total * max(1, len(shapes[0]))
    if op in ("Concat", "ConcatFromSequence", "Split"):
        return total
    try:
        return float(math.prod(np.broadcast_shapes(*shapes)))
    except ValueError:
        return total


def _gathered(shape: tuple[int, ...], attributes: dict[str, Any], op: str) -> int:
    return max(1, shape[attributes.get("axis", 0)]) if op == "Gather" else 1


def _product(shape: Any) -> float:
    return float(np.prod(np.abs(np.asarray(shape, np.float64))))


def _einsum(equation: str, shapes: Sequence[tuple[int, ...]]) -> float:
    left, arrow, right = equation.replace(" ", "").partition("->")
    if "." in left:
        return math.inf
    sizes = {letter: n for term, shape in zip(left.split(","), shapes, strict=True)
             for letter, n in zip(term, shape, strict=True)}  # fmt: skip
    return float(math.prod(sizes[one] for one in (right if arrow else {one for one in sizes if left.count(one) == 1})))
