"""What a tracker gets of an experiment, as plain data: a record of the experiment, and one of each sealed run."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ticketsmith.evidence.size import size_of
from ticketsmith.evidence.variants import DENSE

if TYPE_CHECKING:
    from ticketsmith.config.track import Models
    from ticketsmith.evidence.findings import Findings
    from ticketsmith.evidence.results import Result
    from ticketsmith.experiment import ExperimentReader
    from ticketsmith.store.contract import SealedRun

FORMAT = 1
"""Of the records: raised when the same experiment would be told in other words, so that trackers are renewed."""

EXPERIMENT = "experiment"
"""The id of the record of the experiment itself, which is the parent of its runs."""

_LOOSE = (
    "report/index.html",
    "report/report.md",
    "report/results.csv",
    "report/scorecard.csv",
    "recipe.yaml",
    "gates.json",
)
_MODEL = ("model.safetensors", "mask.safetensors")
_SAMPLES = ("samples.txt", "samples.png")
_LONGEST = 500  # characters of a parameter: what every tracker takes


@dataclass(frozen=True)
class File:
    """A file to attach: its name, the SHA-256 of its bytes, and how to read these."""

    name: str
    sha256: str
    read: Callable[[], bytes] = field(compare=False)


@dataclass(frozen=True)
class Point:
    """What was measured after ``step`` iterations."""

    step: int
    values: Mapping[str, float]


@dataclass(frozen=True)
class Record:
    """A run of a tracker. ``id`` is EXPERIMENT, or variant and key: one sealed run may be that of two variants, as one-shot
    pruning to level 1 is the ticket's. ``short`` is that with fewer digits; ``link`` is its place in the store.

    ``step`` is that of ``metrics``: iterations of a run; of the experiment, how many of its runs are sealed. ``seconds`` is
    how long making it took, None where that is not known. All numbers are finite.
    """

    id: str
    name: str
    step: int
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    link: str
    about: str = ""
    curve: Sequence[Point] = ()
    files: Sequence[File] = ()
    seconds: float | None = None
    diverged: bool = False

    @property
    def is_parent(self) -> bool:
        return self.id == EXPERIMENT

    @property
    def short(self) -> str:
        return self.id if self.is_parent else f"{self.tags['variant']}-{self.tags['key'][:8]}"

    @cached_property
    def digest(self) -> str:
        """Of all that is told but the link: equal records need not be sent again, also when the store was moved."""
        plain = {
            "format": FORMAT,
            "id": self.id,
            "name": self.name,
            "step": self.step,
            "params": dict(self.params),
            "metrics": dict(self.metrics),
            "tags": dict(self.tags),
            "about": self.about,
            "curve": [[point.step, dict(point.values)] for point in self.curve],
            "files": {file.name: file.sha256 for file in self.files},
            "seconds": self.seconds,
        }
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def records_of(experiment: ExperimentReader, models: Models = "sweet-spot") -> Iterator[Record]:
    """The experiment's own record, then those of its sealed runs, in the order of the plan.

    ``models``: whose weights are attached. Raises DamagedRunError when a run was changed, and TicketSmithError when there are
    no runs.
    """
    findings = experiment.findings
    link = _link(experiment)
    yield _parent(experiment, findings, link)
    with_model = _keys_with_model(findings, models)
    for result in experiment.results:
        yield _child(experiment, findings, result, link, result.key in with_model)


def _parent(experiment: ExperimentReader, findings: Findings, link: str) -> Record:
    from ticketsmith.report.sentences.headline import headline

    spot, size = findings.sweet_spot, findings.size
    metrics: dict[str, float | None] = {
        "runs/sealed": len(findings.results),
        "runs/planned": findings.planned,
        "runs/diverged": len(findings.diverged),
    }
    if spot is not None:
        metrics |= {
            "sweet_spot/sparsity": spot.sparsity,
            "sweet_spot/level": spot.level,
            "sweet_spot/network_sparsity": spot.network_sparsity,
        }
    for summary in findings.summaries:
        if (summary.split, summary.at) == ("test", findings.policy.at):
            metrics[f"{summary.variant}/level_{summary.level:02d}/test_{_plain(summary.metric)}"] = summary.mean
    for speed in findings.speeds:
        name = f"{speed.variant}/level_{speed.level:02d}/speedup_{_plain(speed.runtime)}_{speed.precision}"
        where = f"{f'_{speed.phase}' if speed.phase else ''}_batch_{speed.batch_size}_threads_{speed.threads}"
        metrics[name + where] = speed.speedup
    target = findings.target
    return Record(
        id=EXPERIMENT,
        name=experiment.name,
        step=len(findings.results),
        params=_params(json.loads(experiment.recipe.model_dump_json(exclude={"store", "track"}))),
        metrics=_finite(metrics),
        tags={
            "experiment": experiment.name,
            "subject": findings.subject,
            "gate": target[1].value if target else "",
            "sparsity": f"{size.sparsity:.6f}" if spot else "",
            "headline": headline(findings),
        },
        link=link,
        about=headline(findings),
        files=tuple(_loose(experiment)),
        seconds=sum(run.seconds or 0.0 for run in findings.results),
    )


def _child(experiment: ExperimentReader, findings: Findings, result: Result, link: str, with_model: bool) -> Record:
    run = experiment.sealed(result)
    size, bill = size_of([result]), result.bill
    metrics: dict[str, float | None] = {
        "sparsity": result.sparsity,
        "network_sparsity": size.network_sparsity,
        "weights/kept": result.kept,
        "weights/prunable": result.total,
        "weights/parameters": result.parameters,
        "cost/training_flops": result.training_flops,
        "cost/seconds": result.seconds,
        "cost/price": bill.price if bill else None,
    }
    for at, scores in (("final", result.final), ("early_stop", result.early_stop)):
        if scores is not None:
            metrics[f"{at}/step"] = scores.step
            metrics |= {f"{at}/validation_{_plain(name)}": value for name, value in scores.validation.items()}
            metrics |= {f"{at}/test_{_plain(name)}": value for name, value in scores.test.items()}
    environment = run.read_json("environment.json")
    status = findings.statuses.get((result.variant, result.level))
    draw = f" draw {result.draw}" if result.draw else ""
    names = [name for name in _SAMPLES if name in run.files]
    names += [name for name in _MODEL if with_model and name in run.files]
    return Record(
        id=f"{result.variant}/{result.key}",
        name=f"{result.variant} level {result.level} seed {result.seed}{draw} {result.key[:8]}",
        step=result.steps,
        params=_params(run.read_json("spec.json")),
        metrics=_finite(metrics),
        tags={
            "experiment": experiment.name,
            "key": result.key,
            "variant": result.variant,
            "level": str(result.level),
            "seed": str(result.seed),
            "draw": str(result.draw),
            "sparsity": f"{result.sparsity:.6f}",
            "gate": "" if result.variant == DENSE or status is None else status.value,
            "status": "diverged" if result.diverged else "trained",
            "weights_sha256": result.weights,
            **{name: str(environment[name]) for name in _MADE_WITH if environment.get(name) is not None},
        },
        link=f"{link}/{result.path.partition('/')[2]}",
        curve=[
            Point(
                point.step,
                _finite({"curve/train_loss": point.train_loss})
                | _finite({f"curve/validation_{_plain(name)}": value for name, value in point.validation.items()}),
            )
            for point in result.curve
        ],
        files=tuple(File(name, run.files[name][0], partial(_read, run, name)) for name in names),
        seconds=result.seconds,
        diverged=result.diverged,
    )


_MADE_WITH = ("ticketsmith", "torch", "device", "git_commit", "recipe_sha256")


def _read(run: SealedRun, name: str) -> bytes:
    return run.read(name)


def _loose(experiment: ExperimentReader) -> Iterator[File]:
    """Report, recipe and gates as they lie in the store."""
    from ticketsmith.export.recipe import portable

    for name in _LOOSE:
        content = experiment.store.get(f"{experiment.name}/{name}")
        if content is None:
            continue
        if name == "recipe.yaml":
            content = portable(content.decode()).encode()  # where stores and trackers lie is nobody else's business
        yield File(name.rpartition("/")[2], hashlib.sha256(content).hexdigest(), partial(bytes, content))


def _keys_with_model(findings: Findings, models: Models) -> set[str]:
    """The runs whose weights go along: of the sweet spot, one replicate and its dense network."""
    sound = [run for run in findings.results if not run.diverged]
    if models == "all":
        return {run.key for run in sound}
    spot = findings.sweet_spot
    if models == "none" or spot is None:
        return set()
    own = [run for run in sound if (run.variant, run.level) == (spot.variant, spot.level)]
    first = min(own, key=lambda run: (run.seed, run.draw), default=None)
    if first is None:
        return set()
    return {first.key, *(run.key for run in sound if (run.variant, run.seed) == (DENSE, first.seed))}


def _link(experiment: ExperimentReader) -> str:
    """Where the experiment lies, for a reader on this machine or, of a store in the cloud, on any."""
    url = experiment.store.url
    return f"{url if '://' in url else Path(url).resolve()}/{experiment.name}"


def _plain(name: str) -> str:
    """A metric's name in characters that every tracker takes."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", name)


def _finite(values: Mapping[str, float | None]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items() if value is not None and math.isfinite(value)}


def _params(plain: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested fields as ``training.lr``; lists as JSON."""
    params: dict[str, str] = {}
    for name, value in plain.items():
        field_ = f"{prefix}{_plain(str(name))}"
        if isinstance(value, Mapping):
            params |= _params(value, f"{field_}.")
        elif value is not None:
            text = value if isinstance(value, str) else json.dumps(value)
            params[field_] = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
    return params
