"""Candidates of a model that nobody trained here: an ONNX file and labelled data instead of an experiment."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ticketsmith import data, native
from ticketsmith.candidates import measure, shelf
from ticketsmith.candidates.forms import Network, forms
from ticketsmith.candidates.judging import judge, without_nan
from ticketsmith.engines import CannotRunError, engine
from ticketsmith.errors import RecipeError, TicketSmithError
from ticketsmith.evidence.candidates import Judgement, Race, Served
from ticketsmith.evidence.findings import Findings, conclude
from ticketsmith.evidence.results import Result, Scores
from ticketsmith.evidence.variants import DENSE
from ticketsmith.evidence.verdicts import Gate, GatePolicy
from ticketsmith.inference.calibration import calibration
from ticketsmith.inference.measuring.weights import of_onnx as weights_of
from ticketsmith.inference.settings import BenchmarkSettings
from ticketsmith.inference.sources import of_onnx
from ticketsmith.prices import Rate
from ticketsmith.runtime.from_onnx import OnnxError, from_onnx
from ticketsmith.runtime.graph import Graph, GraphError
from ticketsmith.runtime.onnx.constants import Constants
from ticketsmith.store.contract import check_name
from ticketsmith.store.directory import DirectoryStore
from ticketsmith.tasks.labelled import Examples, Labelled
from ticketsmith.tasks.task import Batch

PRUNED = "pruned"
"""The variant of a file beside the dense one."""

_AT_ONCE = 500
_CPU = torch.device("cpu")


class OnnxTask(Labelled):
    """Labelled data for a model of inputs ``[batch, *shape]``: half of the test split, drawn at random, is validation."""

    def __init__(self, train: Examples, test: Examples) -> None:
        inputs, labels = test
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
        half = (len(labels) + 1) // 2
        first, second = order[:half].sort().values, order[half:].sort().values
        super().__init__(train, (inputs[first], labels[first]), (inputs[second], labels[second]), _AT_ONCE)

    def build_model(self) -> nn.Module:
        """There is none."""
        raise TicketSmithError("an ONNX file is no model that can be built anew.")

    def batch(self, indices: Tensor, device: torch.device, generator: torch.Generator) -> Batch:
        inputs, labels = self._on(device, "train")
        return inputs[indices], labels[indices]

    def loss(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        """There is none."""
        raise TicketSmithError("an ONNX file is not trained.")

    def example(self, batch_size: int) -> Tensor:
        return self._examples(batch_size)

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of all examples."""
        arrays = (array for split in ("train", "validation", "test") for array in self._on(_CPU, split))
        return hashlib.sha256(b"".join(np.asarray(array).tobytes() for array in arrays)).hexdigest()

    def chance(self) -> float:
        """The accuracy on test that guessing may reach: a class of all that are there, at random, and two standard errors."""
        labels = self._on(_CPU, "test")[1]
        share = 1 / len(set(labels.tolist()))
        return 100 * (share + 2 * math.sqrt(share * (1 - share) / len(labels)))

    def _answers(self, model: nn.Module, inputs: Tensor) -> Tensor:
        logits = model(inputs)
        if logits.dim() != 2 or len(logits) != len(inputs):
            raise TicketSmithError(
                f"the model gives {tuple(logits.shape)} for {len(inputs)} inputs, not a number a class."
            )
        assert isinstance(logits, Tensor)
        return logits


@dataclass(frozen=True, eq=False, kw_only=True)
class OnnxNetwork(Network):
    """The file itself."""

    source: Path

    @cached_property
    def onnx(self) -> Path:
        return self.source

    @cached_property
    def graph(self) -> Graph:
        try:
            native.library()
            return from_onnx(self.source, shape=self.example.shape[1:])
        except (native.NotBuiltError, OnnxError, GraphError) as error:
            raise CannotRunError(str(error)) from error


def labelled(name: str, shape: Sequence[int], dtype: torch.dtype, base: Path) -> OnnxTask:
    """The data set ``name``, or the four arrays of an ``.npz`` file, for inputs ``shape`` of ``dtype``.

    Pixels (whole numbers of a byte) are scaled to 0..1 and normalised by the training split, as tasks here are; numbers are
    given as they are. Raises RecipeError and DataError.
    """
    is_file = name.endswith(".npz")
    source = data.load("npz", {"path": name}, base=base) if is_file else data.load(name, {}, base=base)

    def tensors(split: Any) -> Examples:
        inputs = torch.tensor(split.inputs)
        if math.prod(inputs.shape[1:]) != math.prod(shape):
            raise RecipeError(
                f"--data {name}: inputs of {tuple(inputs.shape[1:])} do not fit the model's, {tuple(shape)}."
            )
        if inputs.dtype == torch.uint8 or not is_file:
            sizes = (1, -1) + (1,) * (inputs.dim() - 2)
            scaled = inputs.float() / 255.0 if inputs.dtype == torch.uint8 else inputs
            inputs = (scaled - torch.tensor(source.mean).view(sizes)) / torch.tensor(source.std).view(sizes)
        return inputs.reshape(len(inputs), *shape).to(dtype), torch.tensor(split.labels)

    if len(source.test.labels) < 2:
        raise RecipeError(f"--data {name}: one test example; half of them are validation, so that two are the least.")
    return OnnxTask(tensors(source.train), tensors(source.test))


def _accuracy(path: Path, task: OnnxTask) -> float:
    """On test, on ONNX Runtime in float32. Raises TicketSmithError where that cannot be said."""
    try:
        scores = judge(task, without_nan(engine("onnxruntime").load(path, 1)), 0, lambda count: None, ("test",))
    except CannotRunError as error:
        raise TicketSmithError(f"{path} cannot be judged in float32 on ONNX Runtime, the reference: {error}") from error
    return scores.test["accuracy"] or 0.0


def measure_onnx(
    path: str,
    against: str | None,
    name: str,
    settings: BenchmarkSettings,
    output: Path,
    *,
    shape: tuple[int, ...] | None = None,
    max_drop: float = 1.0,
    base: Path = Path(),
    rate: Rate | None = None,
    progress: measure.Progress = lambda what, count, total: None,
) -> Findings:
    """The findings on an ONNX file, which is pruned where ``against`` names the dense one, else dense.

    ``name`` is the data (see ``labelled``). The gate is one on accuracy, at most ``max_drop`` points worse than the dense
    file on ONNX Runtime in float32, by examples. Files and judgements are kept below ``output``. Raises TicketSmithError.
    """
    places = {(DENSE, 0): against or path, **({(PRUNED, 1): path} if against else {})}
    models = {place: of_onnx(file, shape) for place, file in places.items()}
    inputs = models[DENSE, 0][1](1)
    task = labelled(name, inputs.shape[1:], inputs.dtype, base)
    for file, (_, sized) in zip(places.values(), models.values(), strict=True):
        try:
            sized(2)
        except RecipeError as error:
            raise RecipeError(f"--onnx {file}: its batch has a fixed size; export it with a free one.") from error
    accuracies = {place: _accuracy(Path(file), task) for place, file in places.items()}
    if accuracies[DENSE, 0] <= task.chance():
        raise TicketSmithError(
            f"{places[DENSE, 0]} scores {accuracies[DENSE, 0]:.3g} % on the test split of {name}, no more than guessing: other "
            "labels than it was trained for, or inputs that are scaled in another way?"
        )
    data_key = task.fingerprint  # what a file gives is known for these examples alone
    keys = {place: hashlib.sha256(f"{one.key} {data_key}".encode()).hexdigest() for place, (one, _) in models.items()}
    runs = [_run(*place, Path(file), keys[place], task) for place, file in places.items()]

    def network(run: Result, folder: Path) -> Network:
        file = Path(places[run.variant, run.level])
        examples = partial(calibration, task)
        return OnnxNetwork(model=None, example=task.example(1), calibration=examples, folder=folder, source=file)

    store, experiment = DirectoryStore(output), check_name(Path(path).stem, "the name of the file")
    own = forms(settings.runtimes, tuple(dict.fromkeys(("float32", *settings.precisions))))
    own = [form for form in own if form.runtime != "torch" and not form.of_level]
    wants: Callable[..., bool] = measure.wanted([(PRUNED, 1)], (PRUNED, 1))
    race = measure.measure(store, experiment, task, measure.Order(runs, own, wants, network, 0), settings, progress)
    measure.put(store, experiment, replace(race, machine_rate=rate))
    served = shelf.served(store, experiment)
    assert served is not None
    policy = GatePolicy((Gate("accuracy", max_drop=max_drop),), method="examples")
    findings = conclude(experiment, [_measured(run, served, race) for run in runs], policy, served=served)
    if findings.choice is None:
        raise TicketSmithError(f"{path}: no candidate could be timed: {race.lacks[0].reason}")
    return findings


def _run(variant: str, level: int, path: Path, key: str, task: OnnxTask) -> Result:
    import onnx

    proto = onnx.load(str(path), load_external_data=False)
    weights = weights_of(proto, Constants(proto, path.parent))
    return Result(
        variant=variant, seed=0, level=level, draw=0, key=key, path=str(path), diverged=False, total=weights.total,
        kept=weights.kept, steps=0, metrics={one.name: one for one in task.metrics}, layers={}, final=None,
        early_stop=None, weights=key, examples=task.split_sizes,
    )  # fmt: skip


def _measured(run: Result, served: Served, race: Race) -> Result:
    """The run with what ONNX Runtime in float32 scores: the reference of the gates. Raises TicketSmithError."""
    own: list[Judgement] = [one for one in served.judgements if (one.key, one.form) == (run.key, "onnxruntime")]
    if not own:
        lack = next((one.reason for one in race.lacks if one.form == "onnxruntime"), "ONNX Runtime was not asked for.")
        raise TicketSmithError(f"{run.path} cannot be judged in float32 on ONNX Runtime, the reference: {lack}")
    validation, test = (
        {name: math.nan if value is None else value for name, value in split.items()}
        for split in (own[0].validation, own[0].test)
    )
    return replace(run, final=Scores(0, validation, test), outcomes=served.outcomes.get(own[0].outcomes))
