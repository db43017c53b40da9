"""Text token by token: greedy, or drawn at a temperature from counter-based chance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ticketsmith.streams import derive


def continuation(
    model: nn.Module,
    prompt: list[int],
    length: int,
    context: int,
    temperature: float,
    stream: int,
    device: torch.device,
) -> list[int]:
    """``length`` tokens after ``prompt``, which has one or more.

    The chance of a step depends on ``stream`` and the step alone, whatever was drawn before it. A model that offers a
    ``session`` is asked for the last token only. Once ``context`` tokens are read, it goes on from the last half of them.
    """
    read = _reader(model, context, device)
    tokens = list(prompt)
    generator = torch.Generator()
    for step in range(length):
        logits = read(tokens)
        if temperature == 0:
            tokens.append(int(logits.argmax()))
            continue
        generator.manual_seed(derive(0, "samples", stream, step))
        tokens.append(_draw(logits / temperature, generator))
    return tokens[len(prompt) :]


def _draw(logits: Tensor, generator: torch.Generator) -> int:
    """One token by inverse transform: near logits draw the same token from the same chance."""
    below = logits.double().softmax(-1).cumsum(-1)
    chance = torch.rand((), dtype=torch.float64, generator=generator) * below[-1]
    return min(int(torch.searchsorted(below, chance, right=True)), len(below) - 1)


def _reader(model: nn.Module, context: int, device: torch.device) -> Callable[[list[int]], Tensor]:
    """From all tokens so far to the logits of the next, ``[size]``, on the CPU."""
    session: Any = model.session(1, context) if hasattr(model, "session") else None  # type: ignore[operator]
    begin = end = 0  # of what the session holds, or of the window

    def read(tokens_read: list[int]) -> Tensor:
        nonlocal begin, end
        if len(tokens_read) - begin > context:
            begin = end = len(tokens_read) - max(1, context // 2)
            if session is not None:
                session.length = 0
        if session is None:
            tokens = torch.tensor([tokens_read[begin:]], device=device)
            logits: Tensor = model(tokens)
        else:
            logits = session(torch.tensor([tokens_read[max(begin, end) :]], device=device))
        end = len(tokens_read)
        return logits[0, -1].float().cpu()

    return read
