"""What tasks of labelled examples share: splits that are moved to a device once, cross-entropy and accuracy."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ticketsmith.evidence.outcomes import Outcomes
from ticketsmith.evidence.results import Metric
from ticketsmith.tasks.rows import Rows
from ticketsmith.tasks.task import Evaluation

Examples = tuple[Tensor | Rows, Tensor]
"""Inputs, perhaps in a file, and their labels."""

_CPU = torch.device("cpu")


class Labelled(ABC):
    """A task whose examples have one class each; it is measured on ``at_once`` of them at a time."""

    metrics: Sequence[Metric] = (
        Metric("accuracy", higher_is_better=True, unit="%", decimals=2),
        Metric("loss", higher_is_better=False, decimals=4),
    )

    def __init__(self, train: Examples, validation: Examples, test: Examples, at_once: int) -> None:
        self._splits = {(_CPU, "train"): train, (_CPU, "validation"): validation, (_CPU, "test"): test}
        self._at_once = at_once
        self.train_size = len(train[1])
        self.split_sizes = {"validation": len(validation[1]), "test": len(test[1])}

    @abstractmethod
    def _answers(self, model: nn.Module, inputs: Tensor) -> Tensor:
        """The logits of ``inputs`` as they are stored."""

    def evaluate(
        self, model: nn.Module, split: Literal["validation", "test"], device: torch.device
    ) -> Mapping[str, float]:
        inputs, labels = self._on(device, split)
        loss, right = 0.0, []
        for start in range(0, len(labels), self._at_once):
            part, target = (whole[start : start + self._at_once].to(device) for whole in (inputs, labels))
            logits = self._answers(model, part).float()
            loss += float(F.cross_entropy(logits, target, reduction="sum"))
            right.append(logits.argmax(1) == target)
        outcomes = torch.cat(right).cpu().numpy()
        metrics = {"accuracy": 100.0 * int(outcomes.sum()) / len(labels), "loss": loss / len(labels)}
        return Evaluation(metrics, {"accuracy": Outcomes(outcomes, scale=100.0)})

    def abridged(self, count: int) -> Self:
        """The same task, with ``count`` examples in each split that is measured."""
        short = copy.copy(self)
        short._splits = {
            (place, split): (inputs, labels) if split == "train" else (inputs[:count], labels[:count])
            for (place, split), (inputs, labels) in self._splits.items()
        }
        return short

    def _examples(self, count: int) -> Tensor:
        """The first inputs of the test split, repeated."""
        inputs, _ = self._on(_CPU, "test")
        return inputs[torch.arange(count) % len(inputs)]

    def _on(self, device: torch.device, split: str) -> Examples:
        if (device, split) not in self._splits:
            inputs, labels = self._splits[_CPU, split]
            self._splits[device, split] = inputs.to(device), labels.to(device)
        return self._splits[device, split]
