"""Small networks with zeros, for tests of the runtime."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from ticketsmith.native import Isa, has_isa
from ticketsmith.runtime import Graph, handover
from ticketsmith.runtime.from_torch import from_torch
from ticketsmith.runtime.model import Model

_SESSION = handover.session

ISAS = [isa for isa in Isa if has_isa(isa)]


def sparse(model: nn.Module, density: float, seed: int = 0) -> nn.Module:
    """``model`` with random masks, and batch norms that do something."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(torch.rand(parameter.shape, generator=generator) < density)
                parameter.div_(density**0.5)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                for values, low, high in (
                    (module.running_mean, -0.3, 0.3),
                    (module.running_var, 0.5, 2.0),
                    (module.weight, 0.5, 1.5),
                    (module.bias, -0.3, 0.3),
                ):
                    values.copy_(torch.rand(values.shape, generator=generator) * (high - low) + low)
    return model.eval()


def assert_same(
    module: nn.Module,
    inputs: Tensor,
    isas: Sequence[Isa | None] = (None,),
    choices: Sequence[dict[str, str] | None] = (None,),
    threads: Sequence[int] = (1,),
    tolerance: float = 1e-4,
    precision: str = "float32",
    graph: Graph | None = None,
) -> Model:
    """The runtime gives what PyTorch gives, in every combination; the last model, for more questions.

    To read a module takes many times as long as to compile it, so that it is read once for all of them.
    """
    graph = graph or from_torch(module, inputs)
    with torch.inference_mode():
        expected = module(inputs).numpy()
    bound = tolerance * max(1e-3, float(np.abs(expected).max()))
    for isa, choice, number in product(isas, choices, threads):
        model = Model(graph, choice, isa=isa, threads=number, precision=precision)
        for _ in range(2):  # scratch memory is used again: nothing of the first call may be left in it
            outputs = model(inputs.numpy())
            assert outputs.dtype == np.float32
            told = f"{isa!r}, {choice}, {number} threads"
            np.testing.assert_allclose(outputs, expected, rtol=0, atol=bound, err_msg=told)
    return model


def instant(library: str, graph: Graph, threads: int, batch: int | None) -> handover.Call | None:
    """In place of ``handover.session``: a library that has every answer ready, after the first time. Its tests are no races."""
    call, known = _SESSION(library, graph, threads, batch), {}

    def answer(inputs: Sequence[NDArray[Any]]) -> list[NDArray[np.float32]]:
        key = inputs[0].shape, float(inputs[0].flat[0])
        if key not in known:
            known[key] = call(inputs)
        return known[key]

    return None if call is None else answer


class Block(nn.Module):
    """A transformer block with dense attention around sparse projections."""

    def __init__(self, width: int, heads: int, causal: bool = True) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        split = self.qkv(self.norm1(x)).split(width, 2)
        query, key, value = (one.view(batch, tokens, self.heads, -1).transpose(1, 2) for one in split)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=self.causal)
        x = x + self.proj(mixed.transpose(1, 2).contiguous().view(batch, tokens, width))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Gpt(nn.Module):
    """Tokens to logits."""

    def __init__(self, vocabulary: int = 40, width: int = 48, heads: int = 3, tokens: int = 21) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.position = nn.Parameter(torch.randn(tokens, width) * 0.1)
        self.blocks = nn.Sequential(Block(width, heads), Block(width, heads))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens) + self.position[: tokens.shape[1]]
        return self.head(self.norm(self.blocks(x)))
