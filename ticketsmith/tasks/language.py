"""Language: text is cut into tokens, and a model learns to tell the next one."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ticketsmith import models
from ticketsmith.data import load_text, tokens
from ticketsmith.errors import TaskError
from ticketsmith.evidence.outcomes import Outcomes
from ticketsmith.evidence.results import Metric
from ticketsmith.tasks.generation import continuation
from ticketsmith.tasks.task import Batch, Evaluation, Phase, split_component

_TOKENS_AT_ONCE = 16_384
_PROMPTS = 3
_PROMPT_LENGTH = 32


class Language:
    """A text, a tokenizer, and a model that gives logits for each token.

    The text is cut into three parts, one after another: train, then ``validation`` and ``test``, parts of the whole by
    characters. An example is a window of ``context`` tokens and the token after each of them; an epoch visits every
    part of the text about once, each window beginning at a place that is drawn anew. Loss is in nats a token.

    After training, ``prompts`` (by default lines from the test part) are continued by ``sample_length`` tokens at
    ``temperature``; 0 takes the likeliest token each time.
    """

    metrics = (
        Metric("loss", higher_is_better=False, decimals=4),
        Metric("bits_per_character", higher_is_better=False, unit="bits", decimals=4),
        Metric("perplexity", higher_is_better=False, decimals=3),
    )
    unit = "token"

    def __init__(
        self,
        data: str | dict[str, Any],
        model: str | dict[str, Any],
        tokenizer: str = "characters",
        context: int = 64,
        validation: float = 0.1,
        test: float = 0.1,
        prompts: Sequence[str] = (),
        sample_length: int = 160,
        temperature: float = 0.8,
        *,
        base: Path,
    ) -> None:
        name, options = split_component(data)
        text = load_text(name, options, base=base)
        self._name, self._model, self._context = text.name, model, context
        self._tokenizer = tokens.create(tokenizer, text.content, base)
        parts = _cut(text.content, validation, test)
        self._parts: dict[tuple[torch.device, str], Tensor] = {}
        self._characters: dict[str, float] = {}
        for split, content in parts.items():
            encoded = torch.from_numpy(self._encoded(content))
            if len(encoded) <= context:
                raise TaskError(
                    f"the {split} part of {text.name!r} has {len(encoded):,} tokens ({len(content):,} characters): a window "
                    f"needs {context + 1:,}. Take a longer text, a smaller task.context, or larger parts."
                )
            self._parts[torch.device("cpu"), split] = encoded
            self._characters[split] = len(content) / len(encoded)
        self.train_size = (len(self._on(torch.device("cpu"), "train")) - 1) // context
        self.units_per_input = context
        self._length, self._temperature = sample_length, temperature
        self._prompts = tuple(prompts) or _lines(parts["test"], _PROMPTS, min(_PROMPT_LENGTH, context))
        for prompt in self._prompts:
            if not len(self._encoded(prompt)):
                raise TaskError(f"task.prompts: {prompt!r} has no token; begin with at least one.")

    def build_model(self) -> nn.Module:
        name, options = split_component(self._model)
        return models.create(name, options, (self._context,), self._tokenizer.size)

    def batch(self, indices: Tensor, device: torch.device, generator: torch.Generator) -> Batch:
        text = self._on(device, "train")
        offsets = torch.randint(self._context, indices.shape, generator=generator)
        begins = (indices * self._context + offsets).clamp_(max=len(text) - self._context - 1)
        return self._windows(text, begins.to(device))

    def loss(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        inputs, targets = batch
        return F.cross_entropy(self._logits(model, inputs).flatten(0, 1), targets.flatten())

    def evaluate(
        self, model: nn.Module, split: Literal["validation", "test"], device: torch.device
    ) -> Mapping[str, float]:
        text, context = self._on(device, split), self._context
        predicted = len(text) - 1
        begins = torch.arange(0, predicted, context, device=device)
        news = torch.full_like(begins, context)  # of each window, how many of its last tokens no other has predicted
        news[-1] = predicted - begins[-1]
        begins[-1] = predicted - context
        total, at_once, sums = 0.0, max(1, _TOKENS_AT_ONCE // context), []
        for part, new in zip(torch.split(begins, at_once), torch.split(news, at_once), strict=True):
            inputs, targets = self._windows(text, part)
            logits = self._logits(model, inputs).float()
            losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view_as(targets)
            counted = torch.arange(context, device=device) >= context - new[:, None]
            new_losses = losses.masked_fill(~counted, 0.0)
            total += float(new_losses.sum(dtype=torch.float64))
            sums.append(new_losses.sum(1, dtype=torch.float64))
        loss, bits = total / predicted, 1.0 / math.log(2) / self._characters[split]
        metrics = {
            "loss": loss,
            "bits_per_character": loss / math.log(2) / self._characters[split],
            "perplexity": math.exp(min(loss, 700.0)),
        }
        return Evaluation(metrics, self._outcomes(torch.cat(sums) / news, news, bits))

    @staticmethod
    def _outcomes(losses: Tensor, sizes: Tensor, bits: float) -> dict[str, Outcomes]:
        """Those of the windows of a split, which are all of one text: it does not say where its documents begin."""
        means, tokens = losses.detach().float().cpu().numpy(), sizes.cpu().numpy()
        kinds: dict[str, dict[str, Any]] = {
            "loss": {},
            "bits_per_character": {"scale": bits},
            "perplexity": {"exponential": True},
        }
        return {name: Outcomes(means, tokens, np.array([len(means)]), **kind) for name, kind in kinds.items()}

    def abridged(self, count: int) -> Language:
        """The same task, with ``count`` windows in each split that is measured, and short samples."""
        short = copy.copy(self)
        short._parts = {
            (place, split): text if split == "train" else text[: count * self._context + 1]
            for (place, split), text in self._parts.items()
        }
        short._prompts, short._length = self._prompts[:1], min(self._length, count)
        return short

    def example(self, batch_size: int) -> Tensor:
        """Windows of the test part, ``[b, context]``."""
        text = self._on(torch.device("cpu"), "test")
        begins = torch.arange(batch_size) * self._context % (len(text) - self._context)
        return self._windows(text, begins)[0]

    def samples(self, model: nn.Module, device: torch.device) -> Mapping[str, bytes]:
        """Continuations of the prompts. The same chance at every step of every run: only weights make a difference."""
        passages = []
        for index, prompt in enumerate(self._prompts):
            begin = self._encoded(prompt).tolist()
            tokens = continuation(model, begin, self._length, self._context, self._temperature, index, device)
            text = self._tokenizer.decode(tokens)
            # A line of the text must not be taken for a heading.
            body = "\n".join(f" {line}" if line.startswith("=== ") else line for line in text.split("\n"))
            passages.append(f"=== {_on_one_line(prompt)} ===\n{body}\n")
        return {"samples.txt": "\n".join(passages).encode(errors="replace")}

    def phases(self) -> Sequence[Phase]:
        """A prompt of half the context, then token by token."""
        prompt = max(1, self._context // 2)
        return (Phase("prefill", 0, prompt), Phase("decode", prompt, 1))

    def _encoded(self, text: str) -> tokens.Tokens:
        return self._tokenizer.encode(text)

    def _on(self, device: torch.device, split: str) -> Tensor:
        if (device, split) not in self._parts:
            self._parts[device, split] = self._parts[torch.device("cpu"), split].to(device)
        return self._parts[device, split]

    def _windows(self, text: Tensor, begins: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs and the tokens after them, each ``[b, context]``, ``int64``."""
        windows = text[begins[:, None] + torch.arange(self._context + 1, device=text.device)].long()
        return windows[:, :-1], windows[:, 1:]

    def _logits(self, model: nn.Module, inputs: Tensor) -> Tensor:
        logits = model(inputs)
        expected = (*inputs.shape, self._tokenizer.size)
        if not isinstance(logits, Tensor) or logits.shape != expected:
            got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise TaskError(
                f"task.model gives {got} for tokens of shape {tuple(inputs.shape)}: a language model gives logits for each, "
                f"of shape {expected}."
            )
        return logits


def _cut(text: str, validation: float, test: float) -> dict[str, str]:
    if not (0 < validation < 1 and 0 < test < 1 and validation + test < 1):
        raise TaskError(
            f"task.validation {validation:g} and task.test {test:g} are parts of the text, above 0 and together below 1."
        )
    first, second = round(len(text) * (1 - validation - test)), round(len(text) * (1 - test))
    return {"train": text[:first], "validation": text[first:second], "test": text[second:]}


def _lines(text: str, count: int, length: int) -> tuple[str, ...]:
    """``count`` beginnings of lines, far from each other, of up to ``length`` characters."""
    lines = []
    for index in range(count):
        place = index * len(text) // count
        line = text.find("\n", place, place + 1_000) + 1 if place else 0
        lines.append(text[line or place :].lstrip()[:length].partition("\n")[0] or text[place : place + length])
    return tuple(lines)


def _on_one_line(text: str) -> str:
    return " ".join(text.split()) or repr(text)
