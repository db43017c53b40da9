"""Functions of PyTorch that the kernels compute faster, with their gradients: GELU, and attention of short sequences."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from ticketsmith.models.gpt import Turn, attended
from ticketsmith.native import abi
from ticketsmith.training.native.calls import Call, address

_LEAST = 16_384
"""Numbers of an input from which a kernel is called: below, the call costs as much as it saves."""
_GELU = 16
"""Multiply-adds that take as long as GELU of a number."""
_MOST_TOKENS = 512
"""Of a sequence: all scores of a head lie in a cache."""
_MOST_WIDTH = 128
"""Of a head."""


class Functions(TorchFunctionMode):
    """While it is on, these functions are the kernels', where they take what they are given; else PyTorch's.

    Which they take follows from types and shapes.
    """

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        own = _FUNCTIONS.get(function)
        if own is not None:
            with torch._C.DisableTorchFunction():
                result = own(*args, **kwargs)
            if result is not None:
                return result
        return function(*args, **kwargs)


def name_of(function: Any) -> str | None:
    """What people call a function that kernels may compute."""
    return _NAMES.get(function)


def _fits(*tensors: Tensor) -> bool:
    if torch.is_autocast_enabled("cpu") or torch._C._autograd._top_saved_tensors_default_hooks(True) is not None:
        return False  # of a checkpoint, which would compute anew without the kernels
    return all(
        type(one) in (Tensor, torch.nn.Parameter)
        and one.dtype is torch.float32
        and one.device.type == "cpu"
        and one.numel() >= _LEAST
        and not torch._C._functorch.is_functorch_wrapped_tensor(one)
        for one in tensors
    )


@cache
def _call(kind: type[abi.Operation]) -> Call:
    return Call(kind)


def _again(plain: Callable[..., Tensor], inputs: tuple[Tensor, ...], gradient: Tensor) -> tuple[Tensor | None, ...]:
    """The gradients by PyTorch, for who wants theirs in turn."""
    return torch.autograd.grad(plain(*inputs), inputs, gradient, create_graph=True, allow_unused=True)


def _gelu(input: Tensor, approximate: str = "none") -> Tensor | None:
    if not _fits(input) or approximate not in ("none", "tanh"):
        return None
    result: Tensor = _Gelu.apply(input, approximate)  # type: ignore[no-untyped-call]
    return result


class _Gelu(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, inputs: Tensor, approximate: str) -> Tensor:
        context.save_for_backward(inputs)
        context.approximate = approximate
        plain = inputs.contiguous()
        out = torch.empty_like(plain)
        count, tanh = plain.numel(), approximate == "tanh"
        _call(abi.Gelu)(_GELU * count, in_=address(plain), out=address(out), count=count, tanh=tanh)
        return out

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, None]:
        (inputs,) = context.saved_tensors
        approximate = context.approximate
        if torch.is_grad_enabled():
            return _again(lambda x: F.gelu(x, approximate=approximate), (inputs,), gradient)[0], None
        plain, gradient = inputs.contiguous(), gradient.contiguous()
        slope = torch.empty_like(plain)
        _call(abi.GeluGradient)(
            _GELU * plain.numel(), in_=address(plain), out_gradient=address(gradient), gradient=address(slope),
            count=plain.numel(), tanh=approximate == "tanh",
        )  # fmt: skip
        return slope, None


def _attended(projected: Tensor, heads: int, turn: Turn | None, rate: float) -> Tensor | None:
    tokens, width = projected.shape[1], projected.shape[2] // 3 // heads
    if rate or not _fits(projected) or tokens > _MOST_TOKENS or width > _MOST_WIDTH:
        return None
    if turn is not None and any(one.dtype is not torch.float32 or one.requires_grad for one in turn):
        return None
    result: Tensor = _Projected.apply(projected, heads, turn)  # type: ignore[no-untyped-call]
    return result


class _Projected(torch.autograd.Function):
    """Causal attention of queries, keys and values side by side, [batch, tokens, 3 * heads * width]."""

    @staticmethod
    def forward(context: Any, inputs: Tensor, heads: int, turn: Turn | None) -> Tensor:
        batch, tokens, thrice = inputs.shape
        sums, out = inputs.new_empty(batch, heads, tokens), inputs.new_empty(batch, tokens, thrice // 3)
        context.save_for_backward(inputs, sums)
        context.heads, context.turn, context.angles = heads, turn, (None, None) if turn is None else _angles(*turn)
        plain = inputs.contiguous()
        _call(abi.SelfAttention)(**_projected(plain, heads, sums, *context.angles), out=address(out))
        return out

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, None, None]:
        inputs, sums = context.saved_tensors
        heads, turn = context.heads, context.turn
        if torch.is_grad_enabled():
            return _again(lambda x: attended(x, heads, turn, 0.0), (inputs,), gradient)[0], None, None
        plain, gradient = inputs.contiguous(), gradient.contiguous()
        slope = torch.empty_like(plain)
        query, key, value = _thirds(slope)
        _call(abi.SelfAttentionGradient)(
            **_projected(plain, heads, sums, *context.angles), out_gradient=address(gradient), query_gradient=query,
            key_gradient=key, value_gradient=value,
        )  # fmt: skip
        return slope, None, None


def _angles(cosines: Tensor, sines: Tensor) -> Turn:
    """As the kernels take them: the first half of the sines is negative."""
    first, second = sines.chunk(2, dim=-1)
    return cosines.contiguous(), torch.cat((-first, second), dim=-1)


def _thirds(tensor: Tensor) -> tuple[int, int, int]:
    place, part = tensor.data_ptr(), 4 * (tensor.shape[-1] // 3)
    return place, place + part, place + 2 * part


def _projected(
    inputs: Tensor, heads: int, sums: Tensor, cosines: Tensor | None, sines: Tensor | None
) -> dict[str, Any]:
    batch, tokens, thrice = inputs.shape
    whole = thrice // 3
    width = whole // heads
    query, key, value = _thirds(inputs)
    return {
        "query": query, "key": key, "value": value, "sums": address(sums), "cosines": address(cosines),
        "sines": address(sines), "in_stride": (tokens * thrice, width, thrice), "out_stride": (tokens * whole, width, whole),
        "causal": 1, "scale": width**-0.5, **_sizes(batch, heads, tokens, width),
    }  # fmt: skip


def _sizes(batch: int, heads: int, tokens: int, width: int) -> dict[str, Any]:
    long_tokens, long_width = (-(-size // 16) * 16 for size in (tokens, width))
    room = long_tokens * (6 * long_width + 2 * long_tokens)
    work = 2 * batch * heads * tokens * tokens * width
    return {"batch": batch, "heads": heads, "tokens": tokens, "width": width, "scratch": room, "work": work}


def _scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor | None:
    if attn_mask is not None or dropout_p or enable_gqa or not _fits(query, key, value):
        return None
    if query.dim() != 4 or not query.shape == key.shape == value.shape:
        return None
    if query.shape[2] > _MOST_TOKENS or query.shape[3] > _MOST_WIDTH:
        return None
    scale = query.shape[3] ** -0.5 if scale is None else scale
    result: Tensor = _Heads.apply(query, key, value, is_causal, scale)  # type: ignore[no-untyped-call]
    return result


class _Heads(torch.autograd.Function):
    """Attention of [batch, heads, tokens, width] each; what it gives lies in memory by tokens, then by heads."""

    @staticmethod
    def forward(context: Any, query: Tensor, key: Tensor, value: Tensor, causal: bool, scale: float) -> Tensor:
        batch, heads, tokens, width = query.shape
        sums, out = query.new_empty(batch, heads, tokens), query.new_empty(batch, tokens, heads, width)
        context.save_for_backward(query, key, value, sums)
        context.causal, context.scale = causal, scale
        parts = [one.contiguous() for one in (query, key, value)]
        _call(abi.SelfAttention)(**_heads(parts, sums, causal, scale), out=address(out))
        return out.transpose(1, 2)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, sums = context.saved_tensors
        causal, scale = context.causal, context.scale
        if torch.is_grad_enabled():
            plain = partial(F.scaled_dot_product_attention, is_causal=causal, scale=scale)
            return *_again(plain, (query, key, value), gradient), None, None
        parts = [one.contiguous() for one in (query, key, value)]
        by_tokens = gradient.transpose(1, 2).contiguous()
        slopes = [torch.empty_like(one) for one in parts]
        names = ("query_gradient", "key_gradient", "value_gradient")
        places: dict[str, Any] = {name: address(slope) for name, slope in zip(names, slopes, strict=True)}
        _call(abi.SelfAttentionGradient)(
            **_heads(parts, sums, causal, scale), out_gradient=address(by_tokens), **places
        )
        return *slopes, None, None


def _heads(parts: list[Tensor], sums: Tensor, causal: bool, scale: float) -> dict[str, Any]:
    batch, heads, tokens, width = parts[0].shape
    size = tokens * width
    return {
        **{name: address(one) for name, one in zip(("query", "key", "value"), parts, strict=True)},
        "sums": address(sums), "cosines": None, "sines": None, "in_stride": (heads * size, size, width),
        "out_stride": (heads * size, width, heads * width), "causal": causal, "scale": scale,
        **_sizes(batch, heads, tokens, width),
    }  # fmt: skip


_FUNCTIONS: dict[Any, Callable[..., Tensor | None]] = {
    F.gelu: _gelu,
    F.scaled_dot_product_attention: _scaled_dot_product_attention,
    attended: _attended,
}
"""Each gives None for what it does not take."""

_NAMES: dict[Any, str] = {F.gelu: "GELU", F.scaled_dot_product_attention: "attention", attended: "attention"}
