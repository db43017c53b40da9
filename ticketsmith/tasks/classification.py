"""Classification of images or signals that fit in memory: cross-entropy and accuracy.

Inputs stay in the device's memory in their stored type (one byte a pixel) and are normalised a batch at a time: no loader
processes, no copy of the data set in floating point.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ticketsmith import models
from ticketsmith.data import load as load_data
from ticketsmith.data.dataset import Dataset
from ticketsmith.errors import TaskError
from ticketsmith.evidence.outcomes import Outcomes
from ticketsmith.evidence.results import Metric
from ticketsmith.streams import derive
from ticketsmith.tasks.task import Batch, Evaluation, split_component

_EVALUATION_BATCH = 1000
_SPLIT_SEED = (
    0  # validation is the same for every replicate: replicates differ in training, not in what they are judged on
)


class Classification:
    """A data set of labelled inputs, a model that gives one logit a class.

    ``validation`` training examples are held out at random (the same for every replicate); the published test split is
    measured once, at the end. ``augment: crop_flip`` pads by 4, crops, and mirrors at random, as for CIFAR.
    """

    metrics = (
        Metric("accuracy", higher_is_better=True, unit="%", decimals=2),
        Metric("loss", higher_is_better=False, decimals=4),
    )

    def __init__(
        self,
        data: str | dict[str, Any],
        model: str | dict[str, Any],
        validation: int = 5000,
        augment: Literal["none", "crop_flip"] = "none",
        *,
        base: Path,
    ) -> None:
        self._data = _load(data, base)
        self._model = model
        self._augment = augment
        if not 0 < validation < len(self._data.train):
            raise TaskError(
                f"task.validation is {validation}, but {self._data.name!r} has {len(self._data.train)} training examples: "
                "hold out at least 1 and fewer than all."
            )
        if augment == "crop_flip" and len(self._data.input_shape) != 3:
            raise TaskError(
                f"task.augment: crop_flip is for images; inputs of {self._data.name!r} have shape {self._data.input_shape}."
            )
        order = np.random.default_rng(derive(_SPLIT_SEED, "validation")).permutation(len(self._data.train))
        held_out, training = np.sort(order[:validation]), np.sort(order[validation:])
        train = self._data.train
        cpu = torch.device("cpu")
        self._splits = {
            (cpu, "train"): _tensors(train.inputs[training], train.labels[training]),
            (cpu, "validation"): _tensors(train.inputs[held_out], train.labels[held_out]),
            (cpu, "test"): _tensors(self._data.test.inputs, self._data.test.labels),
        }
        self.train_size = len(training)
        self.split_sizes = {split: len(self._splits[cpu, split][1]) for split in ("validation", "test")}
        shape = (1, -1) + (1,) * (len(self._data.input_shape) - 1)
        self._mean = torch.tensor(self._data.mean).view(shape)
        self._std = torch.tensor(self._data.std).view(shape)

    def build_model(self) -> nn.Module:
        name, options = split_component(self._model)
        return models.create(name, options, self._data.input_shape, self._data.classes)

    def batch(self, indices: Tensor, device: torch.device, generator: torch.Generator) -> Batch:
        inputs, labels = self._on(device, "train")
        indices = indices.to(device)
        images = self._normal(inputs[indices])
        if self._augment == "crop_flip":
            images = crop_flip(images, generator)
        return images, labels[indices]

    def loss(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        inputs, labels = batch
        return F.cross_entropy(self._logits(model, inputs), labels)

    def evaluate(
        self, model: nn.Module, split: Literal["validation", "test"], device: torch.device
    ) -> Mapping[str, float]:
        inputs, labels = self._on(device, split)
        loss, correct, right = 0.0, 0, []
        for start in range(0, len(labels), _EVALUATION_BATCH):
            part = slice(start, start + _EVALUATION_BATCH)
            logits = self._logits(model, self._normal(inputs[part]))
            target = labels[part]
            loss += float(F.cross_entropy(logits.float(), target, reduction="sum"))
            right.append(logits.argmax(1) == target)
            correct += int(right[-1].sum())
        return accuracy_and_loss(correct, loss, right)

    def abridged(self, count: int) -> Classification:
        """The same task, with ``count`` examples in each split that is measured."""
        short = copy.copy(self)
        short._splits = {
            (place, split): (inputs, labels) if split == "train" else (inputs[:count], labels[:count])
            for (place, split), (inputs, labels) in self._splits.items()
        }
        return short

    def example(self, batch_size: int) -> Tensor:
        inputs, labels = self._on(torch.device("cpu"), "test")
        return self._normal(inputs[torch.arange(batch_size) % len(labels)])

    def _on(self, device: torch.device, split: str) -> tuple[Tensor, Tensor]:
        if (device, split) not in self._splits:
            inputs, labels = self._splits[torch.device("cpu"), split]
            self._splits[device, split] = inputs.to(device), labels.to(device)
        return self._splits[device, split]

    def _normal(self, inputs: Tensor) -> Tensor:
        scaled = inputs.float().div_(255.0) if inputs.dtype == torch.uint8 else inputs
        return (scaled - self._mean.to(inputs.device)) / self._std.to(inputs.device)

    def _logits(self, model: nn.Module, inputs: Tensor) -> Tensor:
        logits = model(inputs)
        if not isinstance(logits, Tensor) or logits.shape != (len(inputs), self._data.classes):
            got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise TaskError(
                f"task.model gives {got} for {len(inputs)} inputs, but {self._data.name!r} has {self._data.classes} classes: "
                f"the output must have shape ({len(inputs)}, {self._data.classes})."
            )
        return logits


def accuracy_and_loss(correct: int, loss: float, right: list[Tensor]) -> Evaluation:
    """The metrics of a split, of which ``correct`` examples are ``right``, batch by batch, and ``loss`` is the sum."""
    outcomes = torch.cat(right).cpu().numpy()
    metrics = {"accuracy": 100.0 * correct / len(outcomes), "loss": loss / len(outcomes)}
    return Evaluation(metrics, {"accuracy": Outcomes(outcomes, scale=100.0)})


def crop_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Pads each image (``[b, c, h, w]``) by 4 zeros, crops it back at random, and mirrors half of them."""
    count, _, height, width = images.shape
    padded = F.pad(images, (4, 4, 4, 4))
    down = torch.randint(0, 9, (count, 1, 1), generator=generator) + torch.arange(height).view(1, -1, 1)
    right = torch.randint(0, 9, (count, 1, 1), generator=generator) + torch.arange(width).view(1, 1, -1)
    mirrored = torch.rand((count, 1, 1), generator=generator) < 0.5
    right = torch.where(mirrored, right.flip(2), right)
    rows = torch.arange(count).view(-1, 1, 1)
    rows, down, right = (part.to(images.device) for part in (rows, down, right))
    return padded.permute(0, 2, 3, 1)[rows, down, right].permute(0, 3, 1, 2).contiguous()


def _load(component: str | dict[str, Any], base: Path) -> Dataset:
    name, options = split_component(component)
    return load_data(name, options, base=base)


def _tensors(inputs: np.ndarray, labels: np.ndarray) -> tuple[Tensor, Tensor]:
    return torch.tensor(inputs), torch.tensor(labels)
