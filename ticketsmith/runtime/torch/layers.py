"""Operators of PyTorch that compute number by number, and its layers: convolutions, norms, pools, interpolation, attention."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from ticketsmith.runtime.builder import arrays, pointwise, products, reductions, sequences
from ticketsmith.runtime.builder.core import HIDDEN, Builder, Value


def _unary(kind: str) -> Callable[..., Value]:
    return lambda b, x: pointwise.unary(b, kind, x)


def _binary(op: str, b: Builder, left: Any, right: Any, alpha: float = 1, rounding_mode: Any = None,
            turned: bool = False) -> Value:  # fmt: skip
    if rounding_mode is not None:
        raise ValueError(f"rounding {rounding_mode}")
    if turned:
        left, right = right, left
    if alpha != 1:  # of what is taken off
        right = pointwise.operand(right)
        right = pointwise.apply(b, "mul", right, alpha) if isinstance(right, Value) else right * alpha
    return pointwise.apply(b, op, left, right)


def _not(b: Builder, x: Value) -> Value:
    if not x.boolean:
        raise ValueError("bits of whole numbers")
    return pointwise.opposite(b, x)


def _logical(op: str, b: Builder, left: Any, right: Any) -> Value:
    if not all(one.boolean if isinstance(one, Value) else one.dtype == np.bool_ for one in (left, right)):
        raise ValueError("bits of whole numbers")
    return pointwise.apply(b, op, left, right)


def _power(b: Builder, x: Any, exponent: Any) -> Value:
    if isinstance(exponent, (int, float)):
        return pointwise.power(b, x, float(exponent))
    return pointwise.apply(b, "power", x, exponent)


def _to(b: Builder, x: Value, *others: Any, dtype: Any = None, **_: Any) -> Value:
    wanted = dtype or next((one for one in others if isinstance(one, torch.dtype)), None)
    if wanted is None or wanted.is_floating_point or x.boolean:
        return x
    if wanted == torch.bool:
        return pointwise.not_equal(b, x, 0.0)
    if not x.integer:
        raise ValueError(f"rounding to {wanted}")
    return x


def _glu(b: Builder, x: Value, dim: int = -1) -> Value:
    left, right = arrays.split(b, x, [x.shape[dim] // 2] * 2, dim)
    return pointwise.apply(b, "mul", left, pointwise.unary(b, "sigmoid", right))


def _prelu(b: Builder, x: Value, slope: Any) -> Value:
    return pointwise.leaky(b, x, slope.reshape(-1, *[1] * (len(x.shape) - 2)) if slope.size > 1 else slope.reshape(()))


def _softplus(b: Builder, x: Value, beta: float = 1, threshold: float = 20) -> Value:
    scaled = x if beta == 1 else pointwise.apply(b, "mul", x, beta)
    curve = pointwise.softplus(b, scaled)
    curve = curve if beta == 1 else pointwise.apply(b, "div", curve, beta)
    # above the threshold it is the line: beyond 16 the same numbers
    return curve if threshold >= 16 else pointwise.where(b, pointwise.apply(b, "less", threshold, scaled), x, curve)


def _sign(b: Builder, x: Value) -> Value:
    above = pointwise.apply(b, "less", pointwise.apply(b, "mul", x, -1.0), 0.0)
    return pointwise.apply(b, "sub", above, pointwise.apply(b, "less", x, 0.0))


_SAME_NAME = ("relu", "silu", "sigmoid", "tanh", "relu6", "exp", "log", "sqrt", "erf", "sin", "cos", "abs")
"""Activations that PyTorch and the runtime call the same."""

ELEMENTWISE: dict[str, Callable[..., Any]] = {
    **{name: _unary(name) for name in _SAME_NAME},
    "hardswish": _unary("hard_swish"),
    "hardsigmoid": _unary("hard_sigmoid"),
    "gelu": pointwise.gelu,
    "hardtanh": lambda b, x, low=-1.0, high=1.0: pointwise.clip(b, x, low, high),
    "clamp": lambda b, x, low=None, high=None, **named: pointwise.clip(
        b, x, named.get("min", low), named.get("max", high)
    ),
    "clamp_min": lambda b, x, low: pointwise.clip(b, x, low, None),
    "clamp_max": lambda b, x, high: pointwise.clip(b, x, None, high),
    "leaky_relu": lambda b, x, slope=0.01: pointwise.leaky(b, x, slope),
    "prelu": _prelu,
    "elu": pointwise.elu,
    "selu": lambda b, x: pointwise.elu(b, x, 1.6732632423543772, 1.0507009873554805),
    "softplus": _softplus,
    "mish": pointwise.mish,
    "glu": _glu,
    "log1p": lambda b, x: pointwise.unary(b, "log", pointwise.apply(b, "add", x, 1.0)),
    "expm1": lambda b, x: pointwise.apply(b, "sub", pointwise.unary(b, "exp", x), 1.0),
    "sign": _sign,
    "neg": lambda b, x: pointwise.apply(b, "mul", x, -1.0),
    "rsqrt": lambda b, x: pointwise.power(b, x, -0.5),
    "reciprocal": lambda b, x: pointwise.apply(b, "div", 1.0, x),
    "square": lambda b, x: pointwise.power(b, x, 2),
    "pow": _power,
    **{name: partial(_binary, name) for name in ("add", "sub", "mul", "div", "maximum", "minimum")},
    "rsub": partial(_binary, "sub", turned=True),
    "eq": partial(_binary, "equal"),
    "ne": pointwise.not_equal,
    "isnan": lambda b, x: pointwise.not_equal(b, x, x),
    "lt": partial(_binary, "less"),
    "le": partial(_binary, "less_equal"),
    "gt": partial(_binary, "less", turned=True),
    "ge": partial(_binary, "less_equal", turned=True),
    **dict.fromkeys(("logical_not", "bitwise_not", "__invert__"), _not),
    **dict.fromkeys(("logical_and", "bitwise_and", "__and__"), partial(_logical, "mul")),
    **dict.fromkeys(("logical_or", "bitwise_or", "__or__"), partial(_logical, "maximum")),
    "where": pointwise.where,
    "masked_fill": lambda b, x, mask, value: pointwise.where(b, mask, value, x),
    **dict.fromkeys(("to", "_to_copy", "type_as", "float"), _to),
}


def _list(value: Any, count: int) -> list[int]:
    listed = [int(value)] * count if isinstance(value, int) else [int(one) for one in value]
    return listed * count if len(listed) == 1 else listed


def _conv(b: Builder, x: Value, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
          groups: int = 1) -> Value:  # fmt: skip
    axes = weight.ndim - 2
    dilation = _list(dilation, axes)
    if padding == "same":
        spans = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
        begin, end = [span // 2 for span in spans], [span - span // 2 for span in spans]
    else:
        begin = end = [0] * axes if padding == "valid" else _list(padding, axes)
    return products.conv(b, x, weight, bias, _list(stride, axes), begin, end, dilation, groups)


def _conv_transpose(b: Builder, x: Value, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0,
                    output_padding: Any = 0, groups: int = 1, dilation: Any = 1) -> Value:  # fmt: skip
    axes = weight.ndim - 2
    begin = _list(padding, axes)
    end = [pad - more for pad, more in zip(begin, _list(output_padding, axes), strict=True)]
    return products.conv_transpose(b, x, weight, bias, _list(stride, axes), begin, end, _list(dilation, axes), groups)


def _convolution(b: Builder, x: Value, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any,
                 transposed: bool, output_padding: Any, groups: int) -> Value:  # fmt: skip
    if transposed:
        return _conv_transpose(b, x, weight, bias, stride, padding, output_padding, groups, dilation)
    return _conv(b, x, weight, bias, stride, padding, dilation, groups)


def _batch_norm(b: Builder, x: Value, weight: Any, bias: Any, mean: Any, variance: Any, training: bool,
                momentum: float, epsilon: float, *rest: Any) -> Value:  # fmt: skip
    if training or mean is None:
        raise ValueError("batch norm without running statistics")
    return reductions.batch_norm(b, x, weight, bias, mean, variance, epsilon)


def _instance_norm(b: Builder, x: Value, weight: Any, bias: Any, mean: Any, variance: Any, use_input: bool,
                   momentum: float, epsilon: float, *rest: Any) -> Value:  # fmt: skip
    if not use_input:
        return _batch_norm(b, x, weight, bias, mean, variance, False, momentum, epsilon)
    return reductions.group_norm(b, x, x.shape[1], weight, bias, epsilon)


def _pool(kind: str, axes: int, b: Builder, x: Value, kernel: Any, stride: Any = None, padding: Any = 0, *rest: Any,
          **named: Any) -> Value:  # fmt: skip
    names = ("dilation", "ceil_mode") if kind == "max_pool" else ("ceil_mode", "count_include_pad", "divisor_override")
    kernel, pads = _list(kernel, axes), _list(padding, axes)
    step = _list(stride, axes) if stride else kernel
    options = {**dict(zip(names, rest, strict=False)), **named}
    if any(d != 1 for d in _list(options.get("dilation", 1), axes)):
        raise ValueError("dilation")
    if options.get("divisor_override") is not None:
        raise ValueError("divisor_override")
    counted, ceil = options.get("count_include_pad", True), options.get("ceil_mode", False)
    return reductions.pool(b, kind, x, kernel, step, pads, pads, counted, ceil)


def _adaptive(kind: str, axes: int, b: Builder, x: Value, size: Any, several: bool = False) -> Any:
    wanted = [size] * axes if isinstance(size, int) else [*size] * (axes // len(size))
    pooled = reductions.adaptive_pool(b, kind, x, wanted)
    return [pooled, None] if several else pooled  # where the maxima lie is not known


def _embedding_bag(b: Builder, table: Any, tokens: Value, offsets: Any, by_frequency: bool = False, mode: int = 0,
                   sparse: bool = False, weights: Any = None, last: bool = False, padding: Any = None) -> list[Any]:  # fmt: skip
    """One bag a sample: with a batch of one, all tokens are in it."""
    if weights is not None or padding not in (None, -1) or offsets.reshape(-1)[:1].any() or offsets.size != 1 + last:
        raise ValueError("bags of a sample's own, weights, or padding")
    rows = sequences.embedding(b, table, arrays.reshape(tokens, (1, math.prod(tokens.shape))))
    return [reductions.reduce(b, ("sum", "mean", "max")[mode], rows, [1], False), None, None, None]


def _attention(b: Builder, query: Value, key: Value, value: Value, mask: Any = None, dropout: float = 0.0,
               causal: bool = False, scale: float | None = None, enable_gqa: bool = False) -> Value:  # fmt: skip
    if dropout:
        raise ValueError("dropout")
    operands, scale = [query, key, value], 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    three = all(len(one.shape) == 3 for one in operands)
    if three:
        operands = [arrays.unsqueeze(one, (1,)) if isinstance(one, Value) else one[:, None] for one in operands]
    if not enable_gqa and len({one.shape[1] for one in operands}) > 1:
        raise ValueError("different numbers of heads")
    if isinstance(mask, np.ndarray):
        if mask.dtype == np.bool_:
            mask = np.where(mask, 0.0, HIDDEN)
        size = mask.shape[-1]
        plain, past = mask.reshape(-1, *mask.shape[-2:]), np.tri(size, dtype=bool)
        if not plain.any():
            mask = None
        elif mask.shape[-2] == size and (plain[:, past] == 0).all() and (plain[:, ~past] <= -1e20).all():
            mask, causal = None, True
        else:
            mask = np.maximum(mask, HIDDEN)
    elif isinstance(mask, Value) and mask.boolean:
        mask = pointwise.apply(b, "mul", pointwise.apply(b, "sub", 1.0, mask), HIDDEN)
    mixed = sequences.attention(b, operands[0], operands[1], operands[2], mask, causal, scale)
    return arrays.squeeze(mixed, (1,)) if three else mixed


def _addmm(b: Builder, bias: Any, x: Any, y: Any, beta: float = 1, alpha: float = 1) -> Value:
    if beta != 1 or alpha != 1:
        raise ValueError("beta or alpha")
    return pointwise.apply(b, "add", products.matmul(b, x, y), bias)


def _dropout(b: Builder, x: Value, share: float, train: bool) -> Value:
    if train and share:
        raise ValueError("dropout in training mode")
    return x


def _resize(mode: str, b: Builder, x: Value, size: Any, *more: Any, separable: bool = True) -> Value:
    """Interpolation: what PyTorch makes of a unit matrix along each axis is what it does to anything."""
    align, scales = (more[0], more[1:]) if separable else (None, more)
    scales = tuple(scales[0]) if scales and isinstance(scales[0], list) else scales
    factors = [one for one in scales if one is not None]  # where they are given, they say where pixels lie
    matrices = []
    for axis, n in enumerate(x.shape[2:]):
        wanted = {"scale_factor": (1.0, float(factors[axis]))} if factors else {"size": (n, int(size[axis]))}
        options = {"align_corners": align} if separable else {}
        resized = nn.functional.interpolate(torch.eye(n)[None, None], mode=mode, **wanted, **options)  # type: ignore[arg-type]
        matrices.append(np.ascontiguousarray(resized[0, 0].T.numpy()))  # [wanted, n]
    if separable:
        return reductions.resize(b, x, matrices)
    return reductions.nearest(b, x, [matrix.argmax(1) for matrix in matrices])


LAYERS: dict[str, Callable[..., Any]] = {
    "linear": products.linear,
    **dict.fromkeys(("matmul", "bmm", "mm"), products.matmul),
    "addmm": _addmm,
    **dict.fromkeys(("conv1d", "conv2d"), _conv),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d"), _conv_transpose),
    "convolution": _convolution,
    "batch_norm": _batch_norm,
    "_native_batch_norm_legit_no_training": lambda b, x, *rest: [
        _batch_norm(b, x, *rest[:4], False, *rest[4:]),
        None,
        None,
    ],
    "layer_norm": lambda b, x, shape, *rest: reductions.norm(b, "layer_norm", x, len(shape), *rest[:3]),
    "rms_norm": lambda b, x, shape, weight=None, epsilon=None: reductions.norm(
        b, "rms_norm", x, len(shape), weight, None, 2**-23 if epsilon is None else epsilon
    ),
    "group_norm": lambda b, x, groups, *rest: reductions.group_norm(b, x, groups, *rest[:3]),
    "instance_norm": _instance_norm,
    **{f"{kind}_pool{axes}d": partial(_pool, f"{kind}_pool", axes) for kind in ("max", "avg") for axes in (1, 2)},
    "avg_pool3d": partial(_pool, "avg_pool", 3),
    **{f"adaptive_avg_pool{axes}d": partial(_adaptive, "avg_pool", axes) for axes in (1, 2)},
    **{f"adaptive_max_pool{axes}d": partial(_adaptive, "max_pool", axes, several=True) for axes in (1, 2)},
    **{f"upsample_nearest{axes}d": partial(_resize, "nearest", separable=False) for axes in (1, 2)},
    **{f"_upsample_nearest_exact{axes}d": partial(_resize, "nearest-exact", separable=False) for axes in (1, 2)},
    **dict.fromkeys(("upsample_linear1d", "upsample_bilinear2d"), partial(_resize, "bilinear")),
    "upsample_bicubic2d": partial(_resize, "bicubic"),
    "scaled_dot_product_attention": _attention,
    "embedding": lambda b, table, tokens, *_: sequences.embedding(b, table, tokens),
    "embedding_bag": _embedding_bag,
    "one_hot": sequences.one_hot,
    **dict.fromkeys(("dropout", "feature_dropout"), _dropout),
}
