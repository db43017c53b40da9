"""Classification of images or signals: cross-entropy and accuracy.

Inputs stay in the device's memory in their stored type (one byte a pixel), or in their file where they are memory-mapped, and
are normalised a batch at a time: no loader processes, no copy of the data set in floating point.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from ticketsmith import models
from ticketsmith.data import load as load_data
from ticketsmith.data.dataset import Split
from ticketsmith.errors import TaskError
from ticketsmith.streams import derive
from ticketsmith.tasks.labelled import Examples, Labelled
from ticketsmith.tasks.rows import examples
from ticketsmith.tasks.task import Batch, PlainExamples, TakesStored, inherits_with, split_component

_EVALUATION_BATCH = 1000
_SPLIT_SEED = (
    0  # validation is the same for every replicate: replicates differ in training, not in what they are judged on
)


class Classification(Labelled):
    """A data set of labelled inputs, a model that gives one logit a class.

    ``validation`` training examples are held out at random (the same for every replicate); the published test split is
    measured once, at the end. ``augment: crop_flip`` pads by 4, crops, and mirrors at random, as for CIFAR.
    """

    def __init__(
        self,
        data: str | dict[str, Any],
        model: str | dict[str, Any],
        validation: int = 5000,
        augment: Literal["none", "crop_flip"] = "none",
        *,
        base: Path,
    ) -> None:
        self._data = load_data(*split_component(data), base=base)
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
        super().__init__(
            _examples(train, training),
            _examples(train, held_out),
            _examples(self._data.test, np.arange(len(self._data.test))),
            _EVALUATION_BATCH,
        )
        shape = (1, -1) + (1,) * (len(self._data.input_shape) - 1)
        self._mean = torch.tensor(self._data.mean).view(shape)
        self._std = torch.tensor(self._data.std).view(shape)

    def build_model(self) -> nn.Module:
        return models.create(*split_component(self._model), self._data.input_shape, self._data.classes)

    def batch(self, indices: Tensor, device: torch.device, generator: torch.Generator) -> Batch:
        inputs, labels = self._on(device, "train")
        indices = indices.to(device)
        images = self._normal(inputs[indices].to(device))
        if self._augment == "crop_flip":
            images = crop_flip(images, generator)
        return images, labels[indices]

    def loss(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        inputs, labels = batch
        return F.cross_entropy(self._logits(model, inputs), labels)

    def plain_examples(self) -> PlainExamples | None:
        if not inherits_with(self, "plain_examples", "_normal", "_logits", "_on"):
            return None
        inputs, labels = self._on(torch.device("cpu"), "train")
        if not isinstance(inputs, Tensor):  # they stay in their file
            return None
        plain = inputs.dtype in (torch.uint8, torch.float32) and labels.dtype == torch.int64
        mean, std = (tuple(values.flatten().tolist()) for values in (self._mean, self._std))
        augmented = self._augment != "none"
        return (
            PlainExamples(inputs, labels, mean, std, "cross_entropy", self._data.classes, augmented) if plain else None
        )

    def example(self, batch_size: int) -> Tensor:
        return self._normal(self._examples(batch_size))

    def _normal(self, inputs: Tensor) -> Tensor:
        scaled = inputs.float().div_(255.0) if inputs.dtype == torch.uint8 else inputs
        return (scaled - self._mean.to(inputs.device)) / self._std.to(inputs.device)

    def _answers(self, model: nn.Module, inputs: Tensor) -> Tensor:
        if isinstance(model, TakesStored):
            return model.of_stored(inputs)
        return self._logits(model, self._normal(inputs))

    def _logits(self, model: nn.Module, inputs: Tensor) -> Tensor:
        logits = model(inputs)
        if not isinstance(logits, Tensor) or logits.shape != (len(inputs), self._data.classes):
            got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise TaskError(
                f"task.model gives {got} for {len(inputs)} inputs, but {self._data.name!r} has {self._data.classes} classes: "
                f"the output must have shape ({len(inputs)}, {self._data.classes})."
            )
        return logits


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


def _examples(split: Split, rows: NDArray[np.int64]) -> Examples:
    return examples(split.inputs, rows), torch.tensor(split.labels[rows])
