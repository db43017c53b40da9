"""The contract of a task: data, model, loss and metrics, and nothing about pruning, stores or schedules.

The training loop, the evidence and the benchmark know only this protocol. Name your own in a recipe as
``task: {name: "my_package.my_module:MyTask", ...options}``; ``docs/extending.md`` has a worked example.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from ticketsmith import data, models
from ticketsmith.data import tokens
from ticketsmith.errors import TaskError
from ticketsmith.evidence.outcomes import Outcomes
from ticketsmith.evidence.results import Metric
from ticketsmith.plugins import build, source_fingerprint

BUILTINS = {
    "classification": "ticketsmith.tasks.classification:Classification",
    "denoising": "ticketsmith.tasks.denoising:Denoising",
    "language": "ticketsmith.tasks.language:Language",
    "huggingface": "ticketsmith.tasks.huggingface:huggingface",
}

Batch = tuple[Tensor, ...]


class Evaluation(dict[str, float]):
    """Metrics by name, as ``Task.evaluate`` gives them, with the ``outcomes`` of single examples by metric.

    A plain mapping of metrics does too, and outcomes of some metrics are enough: those that are a mean over examples. Sealed
    runs keep them, and a gate of one replicate is judged by them. The same examples in the same order each time.
    """

    def __init__(self, metrics: Mapping[str, float], outcomes: Mapping[str, Outcomes] | None = None) -> None:
        super().__init__(metrics)
        self.outcomes: Mapping[str, Outcomes] = outcomes or {}


@runtime_checkable
class Task(Protocol):
    """What a run needs to know about a task."""

    metrics: Sequence[Metric]
    """What ``evaluate`` measures; the first is the one that reports lead with. ``loss`` must be among them."""

    train_size: int
    """Training examples, validation held out."""

    def build_model(self) -> nn.Module:
        """A fresh model, on the CPU. All chance comes from torch's global generator, which the caller has seeded."""
        ...

    def batch(self, indices: Tensor, device: torch.device, generator: torch.Generator) -> Batch:
        """The training examples at ``indices`` (``[b]``, 0 .. train_size - 1), augmented with ``generator``."""
        ...

    def loss(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        """The scalar to minimise; chance that the loss needs (noise, say) comes from ``generator``."""
        ...

    def evaluate(
        self, model: nn.Module, split: Literal["validation", "test"], device: torch.device
    ) -> Mapping[str, float]:
        """Every metric of ``metrics`` on a split, by name. ``model`` is in evaluation mode; must be deterministic.

        An ``Evaluation`` has the outcomes of single examples, too.
        """
        ...

    def example(self, batch_size: int) -> Tensor | tuple[Tensor, ...]:
        """Real inputs for counting operations and timing inference: the first ``batch_size`` test inputs, repeated.

        Several tensors where the model takes several: it is called with ``model(*example)``. Speed is measured, and formats
        other than tickets and weights are written, for models of one.
        """
        ...


class CostlyTask(Task, Protocol):
    """A task with metrics that take long, so that they are measured at the end only. Optional: a task may do without it."""

    final_metrics: Sequence[Metric]
    """What ``evaluate_final`` measures, beside ``metrics``; they may have gates, but no curve over training."""

    def evaluate_final(self, model: nn.Module, device: torch.device) -> Mapping[str, Mapping[str, float]]:
        """Every metric of ``final_metrics`` by name, for the splits ``validation`` and ``test``.

        Called once for each state of the weights that is reported. ``model`` is in evaluation mode; must be deterministic.
        """
        ...


class CountedTask(Task, Protocol):
    """A task that counts its examples, so that evidence knows what one of them weighs in a percentage. Optional."""

    split_sizes: Mapping[str, int]
    """Examples by split: ``validation`` and ``test``."""


@dataclass(frozen=True, eq=False)
class PlainExamples:
    """The training examples of a task as they are stored, and what is done with them: enough to train without Python.

    ``inputs`` ``[n, ...]`` are ``uint8`` or ``float32``, on the CPU. The model is given ``(x - mean) / std``, where bytes are
    divided by 255 before; ``mean`` and ``std`` have a number for each channel, the first axis of an example. ``targets`` are
    labels ``[n]`` (``int64``), judged by the mean cross entropy over a batch, or vectors ``[n, outputs]`` (``float32``), judged
    by the mean squared error. ``augmented``: ``batch`` gives other inputs than these, which only it can make.
    """

    inputs: Tensor
    targets: Tensor
    mean: tuple[float, ...]
    std: tuple[float, ...]
    loss: Literal["cross_entropy", "squared_error"]
    outputs: int
    augmented: bool = False


@runtime_checkable
class TakesStored(Protocol):
    """A model that can be given inputs as they are stored, too, and normalises them on its way."""

    def of_stored(self, inputs: Tensor) -> Tensor:
        """Its outputs."""
        ...


class PlainTask(Task, Protocol):
    """A task whose batches and loss are plain data, so that native kernels can train its models. Optional.

    Its ``loss`` is the named one, of ``model(inputs)``, and its ``evaluate`` uses a model by calling it on inputs alone. A class
    that inherits ``plain_examples`` and writes a ``batch`` or ``loss`` of its own is not taken at this word.
    """

    def plain_examples(self) -> PlainExamples | None:
        """What a batch is and how it is judged; None where no plain data says that."""
        ...


class PretrainedTask(Task, Protocol):
    """A task whose ``build_model`` gives pretrained weights. Optional."""

    def random_model(self) -> nn.Module:
        """A model with all weights drawn anew, from torch's global generator: what random re-initialisation begins from.

        Without this method ``build_model`` is asked again, whose weights are then all chance.
        """
        ...


@runtime_checkable
class ContentTask(Protocol):
    """A built-in task that tells itself what of its options enters a run's key."""

    def identity(self) -> dict[str, Any]:
        """Options by name, in place of those in the recipe."""
        ...


class GenerativeTask(Task, Protocol):
    """A task whose models make something that a person can look at. Optional: a task may do without it."""

    def samples(self, model: nn.Module, device: torch.device) -> Mapping[str, bytes]:
        """What ``model`` makes: ``samples.txt`` (UTF-8) or ``samples.png``, or both, by name.

        Called once after training, with the final weights in evaluation mode; the files are sealed with the run, and
        reports show those of all levels beside each other. So begin from the same prompts, or the same noise, each
        time: the same weights must give the same bytes. A line ``=== heading ===`` in the text begins a passage, which
        a report compares between levels.
        """
        ...


@dataclass(frozen=True)
class Phase:
    """A part of serving a model that generates: ``past`` tokens are in its session, and a call brings ``new`` more.

    ``prefill`` reads a prompt (time to first token), ``decode`` one token after another (time per output token).
    """

    name: Literal["prefill", "decode"]
    past: int
    new: int

    def begin(self, model: Decoder, tokens: Any) -> tuple[Callable[[Any], Any], Any]:
        """A call for this phase, which may be made again and again, and what to give it each time: ``[b, new]``.

        ``model`` is of PyTorch or of a runtime that keeps sessions; ``tokens`` ``[b, past + new]`` or more.
        """
        session = model.session(len(tokens), self.past + self.new)
        if self.past:
            session(tokens[:, : self.past])

        def call(new: Any) -> Any:
            session.length = self.past
            return session(new)

        return call, tokens[:, self.past : self.past + self.new]


class Session(Protocol):
    """Decoding with a cache of what was read."""

    length: int
    """Tokens read so far. Setting it back (``session.length = 0``) forgets those that came after."""

    def __call__(self, tokens: Any) -> Any:
        """Reads new tokens ``[b, n]`` and gives their logits ``[b, n, size]``."""
        ...


@runtime_checkable
class Decoder(Protocol):
    """A model that decodes token by token: ``gpt``, and what a runtime makes of it."""

    def session(self, batch: int, capacity: int) -> Session:
        """A place for ``batch`` sequences of up to ``capacity`` tokens each."""
        ...


class Stepper(Protocol):
    """A step of decoding as a function of tensors: what an optional method ``stepper()`` of a Decoder gives.

    A module in evaluation mode that keeps nothing, so that it can be written as ONNX: dense runtimes then decode, too.
    """

    def cache(self, batch: int) -> tuple[Tensor, ...]:
        """The cache before anything was read; axis 0 of each tensor is the batch, axis 2 the tokens so far: 0."""
        ...

    def __call__(self, tokens: Tensor, *cache: Tensor) -> tuple[Tensor, ...]:
        """New tokens ``[b, n]`` and the cache to their logits ``[b, n, size]`` and the longer cache."""
        ...


class ServedTask(Task, Protocol):
    """A task that says how its models are served. Optional: without it, one call on ``example`` is what is timed.

    ``unit`` is what a reader counts ("image", "token"), ``units_per_input`` how many of it one input of ``example`` is.
    """

    unit: str
    units_per_input: float

    def phases(self) -> Sequence[Phase]:
        """The phases to be timed apart, on windows of ``example``; for models that are a Decoder."""
        ...


@dataclass(frozen=True)
class Serving:
    """How a task's models are served; by default one call on one input is what is counted and timed. See ServedTask."""

    unit: str = "request"
    units_per_input: float = 1.0
    phases: tuple[Phase, ...] = ()


ONE_CALL = Serving()


def serving(task: Task) -> Serving:
    """What a task says of how its models are served. Raises TaskError when that makes no sense."""
    unit, units = getattr(task, "unit", ONE_CALL.unit), getattr(task, "units_per_input", ONE_CALL.units_per_input)
    if not isinstance(unit, str) or not unit:
        raise TaskError(f"the task's `unit` is {unit!r}; it is what a reader counts: a word such as 'image'.")
    if isinstance(units, bool) or not isinstance(units, (int, float)) or not 0 < units < math.inf:
        raise TaskError(
            f"the task's `units_per_input` is {units!r}; it is how many {unit}s an input is: a number above 0."
        )
    phases = tuple(task.phases()) if hasattr(task, "phases") else ()
    for phase in phases:
        if phase.past < 0 or phase.new < 1:
            raise TaskError(
                f"the task's phase {phase.name!r} reads {phase.new} tokens after {phase.past}: 1 or more after 0."
            )
    return Serving(unit, float(units), phases)


def plain_examples(task: Task) -> PlainExamples | None:
    """The plain data of a task that tells them; None where a method of a class below, or of this task alone, may differ."""
    if not hasattr(task, "plain_examples") or not inherits_with(task, "plain_examples", "batch", "loss"):
        return None
    examples: PlainExamples | None = task.plain_examples()
    return examples


def inherits_with(task: object, method: str, *others: str) -> bool:
    """Whether these ``others`` are as the class has them that wrote ``method``."""
    owner = next((base for base in type(task).__mro__ if method in vars(base)), None)
    return owner is not None and all(
        getattr(type(task), name, None) is getattr(owner, name, None) and name not in vars(task) for name in others
    )


def final_metrics(task: Task) -> Sequence[Metric]:
    """The metrics that a task measures at the end only; most have none."""
    metrics: Sequence[Metric] = getattr(task, "final_metrics", ())
    return metrics


def create(component: str | Mapping[str, Any], base: Path) -> Task:
    """The task that a recipe's ``task`` names. Relative paths in its options are taken from ``base``.

    Raises RecipeError for unknown names and options, DataError and TaskError for what does not fit.
    """
    name, options = split_component(component)
    place = {"base": base} if name in BUILTINS else {}
    task: Task = build("task", name, BUILTINS, options, **place)
    return task


def identity(component: str | Mapping[str, Any], base: Path, task: Task) -> dict[str, Any]:
    """What of a task enters a run's key: names and options, the content of its data, the source of a user's own parts.

    A user's own task adds what only it can know (the content of files that it reads) by a method ``fingerprint() -> str``.
    """
    name, options = split_component(component)
    plain: dict[str, Any] = {"name": name, **options}
    if name in BUILTINS and isinstance(task, ContentTask):
        plain |= task.identity()
        plain.pop("revision", None)  # of the content, not part of it
    elif name in BUILTINS:
        component_of_data = split_component(options["data"])
        plain["data"] = data.identity(*component_of_data, base=base) | data.rules(*component_of_data, base=base)
        plain["model"] = models.identity(*split_component(options["model"]))
        if "tokenizer" in options:
            plain["tokenizer"] = tokens.identity(options["tokenizer"], base)
    source = source_fingerprint(name)
    if source is not None:
        plain["source"] = source
    if hasattr(task, "fingerprint"):
        plain["fingerprint"] = str(task.fingerprint())
    return plain


def split_component(component: str | Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Name and options of ``mnist_cnn`` or ``{name: mnist_cnn, width: 16}``."""
    if isinstance(component, str):
        return component, {}
    return str(component["name"]), {key: value for key, value in component.items() if key != "name"}
