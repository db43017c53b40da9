"""A decoder-only transformer (Radford et al. 2019): pre-norm blocks, rotary or learned positions, a cache for decoding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import handle_torch_function, has_torch_function_unary

from ticketsmith.errors import TaskError

Turn = tuple[Tensor, Tensor]
"""Cosines and sines of rotary positions, each ``[tokens, width of a head]``."""


class GPT(nn.Module):
    """Tokens ``[b, t]`` (whole numbers below ``classes``) to logits ``[b, t, classes]``; ``t`` is at most the context.

    ``input_shape`` is ``(context,)``. ``positions: rotary`` turns queries and keys (Su et al. 2021), ``learned`` adds a
    vector for each place. ``tied`` shares the embedding with the head. The head is not pruned by default. Weights begin
    as in GPT-2: standard deviation 0.02, divided by the root of the number of residual sums where a block adds to them.
    """

    dense_by_default = ("head",)

    def __init__(
        self,
        input_shape: tuple[int, ...],
        classes: int,
        width: int = 128,
        depth: int = 4,
        heads: int = 4,
        positions: Literal["rotary", "learned"] = "rotary",
        tied: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        _check(width, depth, heads, positions, dropout)
        if len(input_shape) != 1:
            raise TaskError(
                f"model gpt reads tokens, not inputs of shape {input_shape}: it is for `task: {{name: language}}`."
            )
        (self.context,) = input_shape
        self.embedding = nn.Embedding(classes, width)
        self.places = nn.Embedding(self.context, width) if positions == "learned" else None
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes, bias=False)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.dim() == 2:
                adds = name.endswith(("attention.output.weight", "mlp.down.weight"))
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * depth) if adds else 0.02)
        if tied:
            self.head.weight = self.embedding.weight
        cosines, sines = angles(self.context, width // heads)
        self.register_buffer("_cosines", cosines, persistent=False)
        self.register_buffer("_sines", sines, persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        return self._logits(tokens, None)

    def session(self, batch: int = 1, capacity: int | None = None) -> Session:
        """A place to decode ``batch`` sequences of up to ``capacity`` tokens each, by default the context."""
        return Session(self, batch, self.context if capacity is None else capacity)

    def stepper(self) -> Stepper:
        """What a session computes, as a function that keeps nothing: for runtimes without a memory of their own."""
        return Stepper(self)

    def _logits(self, tokens: Tensor, layers: Sequence[Memory | Growing] | None) -> Tensor:
        begin = layers[0].length if layers else 0
        end = begin + tokens.shape[1]
        hidden = self.embedding(tokens)
        turn = None
        if self.places is not None:
            hidden = hidden + self.places.weight[begin:end]
        else:
            turn = self._cosines[begin:end], self._sines[begin:end]  # type: ignore[index]
        hidden = self.dropout(hidden)
        for index, block in enumerate(self.blocks):
            hidden = block(hidden, turn, layers[index] if layers else None)
        logits: Tensor = self.head(self.norm(hidden))
        return logits


class Block(nn.Module):
    """Attention, then a multilayer perceptron; each on normed inputs, each added to what came in."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads, dropout)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = Mlp(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: Tensor, turn: Turn | None, memory: Memory | Growing | None) -> Tensor:
        hidden = hidden + self.dropout(self.attention(self.attention_norm(hidden), turn, memory))
        added: Tensor = hidden + self.dropout(self.mlp(self.mlp_norm(hidden)))
        return added


class Mlp(nn.Module):
    """Four times as wide inside, with GELU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, hidden: Tensor) -> Tensor:
        output: Tensor = self.down(F.gelu(self.up(hidden), approximate="tanh"))
        return output


class Attention(nn.Module):
    """Causal attention of a sequence to itself; ``qkv`` is the projection to queries, keys and values in one."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.rate = heads, dropout
        self.qkv = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)

    def forward(self, hidden: Tensor, turn: Turn | None, memory: Memory | Growing | None) -> Tensor:
        projected = self.qkv(hidden)
        if memory is None:
            mixed = attended(projected, self.heads, turn, self.rate if self.training else 0.0)
        else:
            query, key, value = _parts(projected, self.heads, turn)
            key, value, mask = memory.add(key, value)
            mixed = _joined(F.scaled_dot_product_attention(query, key, value, attn_mask=mask))
        result: Tensor = self.output(mixed)
        return result


class Memory:
    """Keys and values of one layer, ``[batch, heads, capacity, width of a head]``, of which ``length`` are filled."""

    def __init__(self, batch: int, heads: int, width: int, capacity: int, like: Tensor) -> None:
        self.keys = like.new_zeros(batch, heads, capacity, width)
        self.values = like.new_zeros(batch, heads, capacity, width)
        self.length = 0

    def add(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Keeps new keys and values; all so far, and what each new token may see of them (None: everything)."""
        begin, end = self.length, self.length + key.shape[2]
        self.keys[:, :, begin:end], self.values[:, :, begin:end] = key, value
        self.length = end
        new = end - begin
        mask = None if new == 1 else torch.ones(new, end, dtype=torch.bool, device=key.device).tril(begin)
        return self.keys[:, :, :end], self.values[:, :, :end], mask


class Growing:
    """Keys and values of one layer that are joined anew at each step, as values: nothing is written in place."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self.keys, self.values = keys, values

    @property
    def length(self) -> int:
        return self.keys.shape[2]

    def add(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As ``Memory.add``; the mask is always there, since a traced program must hold for any number of new tokens."""
        begin = self.length
        self.keys, self.values = torch.cat((self.keys, key), dim=2), torch.cat((self.values, value), dim=2)
        places = torch.arange(self.length, device=key.device)
        return self.keys, self.values, places <= places[begin:, None]


class Stepper(nn.Module):
    """New tokens ``[b, n]`` and the cache to their logits ``[b, n, classes]`` and the longer cache.

    The cache is keys and values of each layer in turn, ``[b, heads, tokens so far, width of a head]``.
    """

    def __init__(self, model: GPT) -> None:
        super().__init__()
        self.model = model
        self.train(model.training)

    def cache(self, batch: int) -> tuple[Tensor, ...]:
        """That of ``batch`` sequences of which nothing was read."""
        heads, width = _heads(self.model)
        empty = self.model.embedding.weight.new_zeros(batch, heads, 0, width)
        return (empty,) * (2 * len(self.model.blocks))

    def forward(self, tokens: Tensor, *cache: Tensor) -> tuple[Tensor, ...]:
        layers = [Growing(*pair) for pair in zip(cache[::2], cache[1::2], strict=True)]
        logits = self.model._logits(tokens, layers)
        return logits, *(value for layer in layers for value in (layer.keys, layer.values))


class Session:
    """Decoding with a cache of keys and values: what was read before is not computed again.

    The logits are those that ``GPT.forward`` gives for the whole sequence, at the places of the new tokens.
    """

    def __init__(self, model: GPT, batch: int, capacity: int) -> None:
        if not 0 < capacity <= model.context:
            raise TaskError(f"a session of {capacity} tokens: the model reads 1 to {model.context}.")
        if batch < 1:
            raise TaskError(f"a session of {batch} sequences: give 1 or more.")
        self.model, self.batch, self.capacity = model, batch, capacity
        self.layers = [Memory(batch, *_heads(model), capacity, model.embedding.weight) for _ in model.blocks]

    @property
    def length(self) -> int:
        """Tokens read so far. Setting it back forgets those that came after."""
        return self.layers[0].length

    @length.setter
    def length(self, length: int) -> None:
        if not 0 <= length <= self.length:
            raise TaskError(f"a session of {self.length} tokens cannot go back to {length}.")
        for layer in self.layers:
            layer.length = length

    def __call__(self, tokens: Tensor) -> Tensor:
        """Reads new tokens ``[batch, n]`` and gives their logits ``[batch, n, classes]``. Raises TaskError when full."""
        if tokens.dim() != 2 or len(tokens) != self.batch or not tokens.shape[1]:
            raise TaskError(f"a session of {self.batch} sequences was given tokens of shape {tuple(tokens.shape)}.")
        if self.length + tokens.shape[1] > self.capacity:
            raise TaskError(
                f"a session of {self.capacity} tokens holds {self.length}: there is no room for {tokens.shape[1]} more."
            )
        with torch.no_grad():
            return self.model._logits(tokens, self.layers)


def _heads(model: GPT) -> tuple[int, int]:
    """How many heads a layer has, and their width."""
    attention = model.blocks[0].attention
    assert isinstance(attention, Attention)
    return attention.heads, model.embedding.embedding_dim // attention.heads


def angles(length: int, width: int) -> Turn:
    """Cosines and sines ``[length, width]`` for the first ``length`` places; both halves turn at the same speeds."""
    speeds = 10_000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    turns = torch.arange(length, dtype=torch.float64)[:, None] * speeds
    turns = torch.cat((turns, turns), dim=-1)
    return turns.cos().float(), turns.sin().float()


def attended(projected: Tensor, heads: int, turn: Turn | None, rate: float) -> Tensor:
    """Causal attention: queries, keys and values side by side ``[b, t, 3 * width]`` to ``[b, t, width]``. ``rate``: of dropout.

    It can be overridden as functions of PyTorch can, by a ``TorchFunctionMode``.
    """
    if has_torch_function_unary(projected):
        result: Tensor = handle_torch_function(attended, (projected,), projected, heads, turn, rate)
        return result
    query, key, value = _parts(projected, heads, turn)
    return _joined(F.scaled_dot_product_attention(query, key, value, dropout_p=rate, is_causal=True))


def _parts(projected: Tensor, heads: int, turn: Turn | None) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values, each ``[b, heads, t, width of a head]``."""
    batch, length, thrice = projected.shape
    width = thrice // 3
    query, key, value = (
        part.view(batch, length, heads, width // heads).transpose(1, 2)
        for part in projected.split(width, dim=-1)  # type: ignore[no-untyped-call]
    )
    return (query, key, value) if turn is None else (rotated(query, turn), rotated(key, turn), value)


def _joined(heads: Tensor) -> Tensor:
    """``[b, heads, t, width of a head]`` to ``[b, t, width]``."""
    batch, count, length, width = heads.shape
    return heads.transpose(1, 2).reshape(batch, length, count * width)


def rotated(heads: Tensor, turn: Turn) -> Tensor:
    """Each pair of features ``(i, i + width / 2)`` of ``[b, heads, t, width]``, turned by the angle of its place."""
    cosines, sines = turn
    first, second = heads.chunk(2, dim=-1)
    return heads * cosines + torch.cat((-second, first), dim=-1) * sines


def _check(width: int, depth: int, heads: int, positions: str, dropout: float) -> None:
    if min(width, depth, heads) < 1 or width % heads:
        raise TaskError(f"model gpt: width {width} is not {heads} heads of the same width; depth {depth}: 1 or more.")
    if positions == "rotary" and (width // heads) % 2:
        raise TaskError(f"model gpt: rotary positions need heads of even width, not {width // heads}.")
    if not 0.0 <= dropout < 1.0:
        raise TaskError(f"model gpt: dropout {dropout:g} does not lie in 0 to 1.")
