"""Pretrained models of Hugging Face: text classification by an encoder, and language models.

The initial weights are the pretrained ones, as in the ticket papers of BERT (Chen et al. 2020): rewinding goes back to
them, and the random re-init control draws all weights anew by the configuration's own initialiser. A head that was not
pretrained is drawn from the replicate's stream.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ticketsmith import data as sets
from ticketsmith.data import labelled, pretrained
from ticketsmith.data.holdout import fraction_count, holdout
from ticketsmith.errors import TaskError
from ticketsmith.evidence.results import Metric
from ticketsmith.tasks import pretrained as networks
from ticketsmith.tasks.classification import accuracy_and_loss
from ticketsmith.tasks.language import Language
from ticketsmith.tasks.pretrained import Head
from ticketsmith.tasks.task import Batch, split_component

_TOKENS_AT_ONCE = 16_384
_SPLIT_SEED = 0  # validation is the same for every replicate


def huggingface(
    model: str,
    data: str | dict[str, Any],
    head: Head = "sequence_classification",
    length: int = 128,
    validation: float = 0.1,
    revision: str | None = None,
    test: float = 0.1,
    prompts: Sequence[str] = (),
    sample_length: int = 160,
    temperature: float = 0.8,
    *,
    base: Path,
) -> TextClassification | CausalLanguageModel:
    """The task of a head. ``model``: a folder, ``package:NAME/FOLDER``, or a name on the hub (with its ``revision``).

    ``length``: tokens of an example; longer texts are cut, or go on in the next example of a language model.
    ``validation``: the part of train that is held out. ``test`` and what follows it are for language models.
    Raises DataError and TaskError for what is missing or does not fit.
    """
    folder = pretrained.find(model, base, revision)
    if head == "causal_lm":
        samples = {"prompts": prompts, "sample_length": sample_length, "temperature": temperature}
        return CausalLanguageModel(folder, data, length, base=base, validation=validation, test=test, **samples)
    return TextClassification(folder, data, length, validation, base=base)


class TextClassification:
    """Texts and their labels, and an encoder with a classifier on top: cross-entropy and accuracy."""

    metrics = (
        Metric("accuracy", higher_is_better=True, unit="%", decimals=2),
        Metric("loss", higher_is_better=False, decimals=4),
    )

    def __init__(self, folder: Path, data: str | dict[str, Any], length: int, validation: float, *, base: Path) -> None:
        name, options = split_component(data)
        self._folder, self._name = folder, name
        texts = self._texts = labelled.load(name, options, base)
        self._config = networks.configuration(folder, "sequence_classification")
        tokenizer = networks.tokenizer(folder)
        order = self._settle_classes(texts.classes)
        self._pad = _padding(tokenizer, self._config)
        _check_length(length, self._config, tokenizer)
        self._length = length
        train = self._encoded(tokenizer, texts.train_texts), order[torch.tensor(texts.train_labels)]
        count = fraction_count(len(train[1]), validation, "task.validation")
        training, held_out = holdout(texts.train_labels, count, _SPLIT_SEED, "task.validation")
        cpu = torch.device("cpu")
        self._splits = {
            (cpu, "train"): (train[0][training], train[1][training]),
            (cpu, "validation"): (train[0][held_out], train[1][held_out]),
            (cpu, "test"): (self._encoded(tokenizer, texts.test_texts), order[torch.tensor(texts.test_labels)]),
        }
        self.train_size = len(training)
        self.split_sizes = {split: len(self._splits[cpu, split][1]) for split in ("validation", "test")}

    def identity(self) -> dict[str, Any]:
        """What enters a run's key for data and model: their content."""
        return {
            "data": {"name": self._name, "fingerprint": self._texts.digest},
            "model": pretrained.content(self._folder),
        }

    def build_model(self) -> nn.Module:
        return networks.load(self._folder, self._config, "sequence_classification", self._pad)

    def random_model(self) -> nn.Module:
        return networks.draw(self._folder, self._config, "sequence_classification", self._pad)

    def batch(self, indices: Tensor, device: torch.device, generator: torch.Generator) -> Batch:
        tokens, labels = self._on(device, "train")
        indices = indices.to(device)
        return self._trimmed(tokens[indices]), labels[indices]

    def loss(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        tokens, labels = batch
        return F.cross_entropy(model(tokens).float(), labels)

    def evaluate(
        self, model: nn.Module, split: Literal["validation", "test"], device: torch.device
    ) -> Mapping[str, float]:
        tokens, labels = self._on(device, split)
        loss, correct, right = 0.0, 0, []
        at_once = max(1, _TOKENS_AT_ONCE // self._length)
        for part, target in zip(torch.split(tokens, at_once), torch.split(labels, at_once), strict=True):
            logits = model(self._trimmed(part)).float()
            loss += float(F.cross_entropy(logits, target, reduction="sum"))
            right.append(logits.argmax(1) == target)
            correct += int(right[-1].sum())
        return accuracy_and_loss(correct, loss, right)

    def abridged(self, count: int) -> TextClassification:
        """The same task, with ``count`` examples in each split that is measured."""
        short = copy.copy(self)
        short._splits = {
            (place, split): (tokens, labels) if split == "train" else (tokens[:count], labels[:count])
            for (place, split), (tokens, labels) in self._splits.items()
        }
        return short

    def example(self, batch_size: int) -> Tensor:
        """Tokens of test texts, ``[b, length]``, padded."""
        tokens, _ = self._on(torch.device("cpu"), "test")
        return tokens[torch.arange(batch_size) % len(tokens)]

    def _settle_classes(self, classes: tuple[str, ...]) -> Tensor:
        """Names the classes in the configuration; the number in the model of each class of the data, ``[classes]``.

        A model that was fine-tuned on the same classes keeps its numbers for them, and so its head.
        """
        numbers = {str(name): int(number) for name, number in (self._config.label2id or {}).items()}
        if set(numbers) != set(classes):
            numbers = {name: number for number, name in enumerate(classes)}
            self._config.num_labels = len(classes)
            self._config.label2id = numbers
            self._config.id2label = {number: name for name, number in numbers.items()}
        return torch.tensor([numbers[name] for name in classes])

    def _encoded(self, tokenizer: Any, texts: tuple[str, ...]) -> Tensor:
        encoded = tokenizer(list(texts), truncation=True, max_length=self._length, padding="max_length")
        return torch.tensor(encoded["input_ids"])

    def _trimmed(self, tokens: Tensor) -> Tensor:
        """Without the columns that are padding in every text."""
        longest = int((tokens != self._pad).any(0).nonzero().max()) + 1
        return tokens[:, :longest]

    def _on(self, device: torch.device, split: str) -> tuple[Tensor, Tensor]:
        if (device, split) not in self._splits:
            tokens, labels = self._splits[torch.device("cpu"), split]
            self._splits[device, split] = tokens.to(device), labels.to(device)
        return self._splits[device, split]


class CausalLanguageModel(Language):
    """The ``language`` task with a pretrained network and its own tokenizer; ``options`` are those of ``Language``."""

    def __init__(self, folder: Path, data: str | dict[str, Any], length: int, *, base: Path, **options: Any) -> None:
        if not (folder / "tokenizer.json").is_file():
            raise TaskError(
                f"task.model: {folder} has no tokenizer.json. Write one where the model comes from: "
                "`AutoTokenizer.from_pretrained(folder).save_pretrained(folder)` of transformers."
            )
        self._folder, self._source = folder, split_component(data)
        self._config = networks.configuration(folder, "causal_lm")
        _check_length(length, self._config, None)
        file = str((folder / "tokenizer.json").resolve())
        super().__init__(data, "", file, length, base=base, **options)
        self._base = base
        if self._tokenizer.size > self._config.vocab_size:
            raise TaskError(
                f"task.model: the tokenizer has {self._tokenizer.size} tokens, the model knows {self._config.vocab_size}: "
                "they do not belong together."
            )
        self._tokenizer.size = self._config.vocab_size  # some models have room for more tokens than their tokenizer has

    def identity(self) -> dict[str, Any]:
        """What enters a run's key for data and model: their content."""
        name, options = self._source
        return {"data": sets.identity(name, options, base=self._base), "model": pretrained.content(self._folder)}

    def build_model(self) -> nn.Module:
        return networks.load(self._folder, self._config, "causal_lm", None)

    def random_model(self) -> nn.Module:
        """All weights drawn anew by the configuration's initialiser."""
        return networks.draw(self._folder, self._config, "causal_lm", None)


def _padding(tokenizer: Any, config: Any) -> int:
    """The token that fills short texts up; of a model without one, that which ends a text."""
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    if pad is None:
        raise TaskError(
            "task.model: the tokenizer has neither a padding token nor one that ends a text, so texts of different length "
            "cannot be read together. Name its `pad_token` in tokenizer_config.json."
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token_id = pad
    config.pad_token_id = pad
    return int(pad)


def _check_length(length: int, config: Any, tokenizer: Any) -> None:
    """Refuses more tokens than the model has places for."""
    places = getattr(config, "max_position_embeddings", None) or length
    longest = getattr(tokenizer, "model_max_length", None) or places
    if length > min(places, longest):
        raise TaskError(
            f"task.length is {length}, but this model reads at most {min(places, longest)} tokens: make it shorter."
        )
