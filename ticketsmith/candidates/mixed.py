"""The fastest file of our runtime that passes its gates, each layer in a precision of its own.

Layers are lowered one after another, first those that save the most time for the quality that they lose: time as measured here,
quality on validation, with that layer alone lowered, in every replicate. What is lowered is chosen on validation. On test the
files are then asked the gates in that order, from the mildest on, and the first that does not pass ends the walk: a fixed
sequence of tests, which needs no correction for how many there are.
"""

from __future__ import annotations

import hashlib
import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ticketsmith import units
from ticketsmith.candidates.judging import Scores, TimeIsOverError, judge
from ticketsmith.errors import Exit, TicketSmithError
from ticketsmith.evidence import results as evidence
from ticketsmith.evidence.choice import FLOAT32, MIXED
from ticketsmith.evidence.gates import judge as verdicts_of
from ticketsmith.evidence.outcomes import SealedOutcomes
from ticketsmith.evidence.results import Metric, Result, Split
from ticketsmith.evidence.rounds import Bootstrap, Ratio
from ticketsmith.evidence.statistics import mean
from ticketsmith.evidence.variants import DENSE
from ticketsmith.evidence.verdicts import GatePolicy, Status, Verdict, level_status
from ticketsmith.export.tsk_file import network_choices, step_of
from ticketsmith.inference.runtimes.decoding import by_token
from ticketsmith.race import Runner, Stopwatch, race, warm_up
from ticketsmith.runtime import artifact
from ticketsmith.runtime.from_torch import from_torch
from ticketsmith.runtime.graph import PRODUCTS, Graph
from ticketsmith.runtime.model import PRECISIONS
from ticketsmith.runtime.precision import low_tensors
from ticketsmith.runtime.tune import Measured, choices, tune
from ticketsmith.tasks.build import single_example
from ticketsmith.tasks.task import Phase, Task, serving

LOW = tuple(precision for precision in PRECISIONS if precision != FLOAT32)
"""Those that the runtime has, whatever they are."""

_CONVINCING = 0.97
"""A layer is lowered only where it then takes less than this share of its time; a quiet machine's noise is smaller."""

_ROUNDS = 40

_TRYING, _LOWERING = 0.5, 0.75
"""The shares of a budget after which no layer is tried alone any more, and after which none is lowered beside the others."""


class NothingPassesError(TicketSmithError):
    """No file of any precision passes the gates."""

    exit_status = Exit.GATE_FAILED


@dataclass(frozen=True)
class Move:
    """One layer in one lower precision. ``saved`` is in seconds a call of one input, or a token of a model that decodes; ``loss``
    is what the metric loses on validation by this alone, the mean over replicates, in its unit (positive: worse)."""

    tensor: str
    precision: str
    saved: float
    loss: float

    @property
    def worth(self) -> tuple[float, float]:
        """Seconds saved for the quality lost; what loses nothing comes first."""
        return (math.inf, self.saved) if self.loss <= 0 else (self.saved / self.loss, self.saved)


@dataclass(frozen=True)
class Row:
    """What became of a layer, for a reader: its precision, and why."""

    layer: str
    precision: str
    microseconds: Mapping[str, float]
    losses: Mapping[str, float]
    reason: str


@dataclass(frozen=True)
class Mixed:
    """The file of every replicate, by the key of its run, and how it came about. ``precisions`` are those of tensors below
    float32. ``speedup``: against the file in float32, whole calls of one input; None where that file is the answer. ``words``
    say so in sentences."""

    contents: Mapping[str, bytes]
    precisions: Mapping[str, str]
    rows: tuple[Row, ...]
    verdicts: tuple[Verdict, ...]
    speedup: Ratio | None
    words: tuple[str, ...]
    metrics: Mapping[str, float | None]
    """Of the exported replicate, on test."""

    @property
    def document(self) -> dict[str, Any]:
        """As plain data, for ``export.json``."""
        speedup = self.speedup
        return {
            "precision": MIXED if self.precisions else FLOAT32,
            "precisions": dict(self.precisions),
            "layers": [
                {
                    "layer": row.layer,
                    "precision": row.precision,
                    "microseconds": dict(row.microseconds),
                    "validation_loss": dict(row.losses),
                    "why": row.reason,
                }
                for row in self.rows
            ],
            "gates": [
                {"gate": one.gate.metric, "status": one.status.value, "why": _worse(one)} for one in self.verdicts
            ],
            "speedup_over_float32": None if speedup is None else [speedup.median, speedup.low, speedup.high],
            "said": list(self.words),
            "test": {name: value for name, value in self.metrics.items() if value is not None},
        }


@dataclass(frozen=True, eq=False)
class Question:
    """What is asked for: replicates of one level as runs and modules in evaluation mode, the first of which is exported; all
    results of the experiment, among them the dense runs that gates compare with; the gates; the metric that layers are ordered
    by. ``budget``: seconds for all of it, after which the best so far is the answer. ``note`` is told what is being done."""

    task: Task
    runs: Sequence[Result]
    models: Sequence[nn.Module]
    results: Sequence[Result]
    policy: GatePolicy
    metric: Metric
    budget: float | None = None
    note: Callable[[str], None] = lambda text: None

    @property
    def decode(self) -> Phase | None:
        """How the model generates one token after another; None where it does not."""
        generates = hasattr(self.models[0], "stepper")
        return next((part for part in serving(self.task).phases if part.name == "decode" and generates), None)


def measured(graph: Graph, precision: str) -> list[Measured]:
    """Products timed in a precision, of one token too where it decodes."""
    graphs = [one for one in (graph, step_of(graph)) if one is not None]
    return [one for graph in graphs for one in tune(graph, precision=precision, batches=())]


def fastest(question: Question, clock: Callable[[], float] = time.perf_counter) -> Mixed:
    """Raises NothingPassesError where not even float32 passes, UnsupportedError for what the runtime does not know, and
    TimeIsOverError where the budget does not even allow to judge float32."""
    with tempfile.TemporaryDirectory(prefix="ticketsmith-") as scratch:
        return _Search(question, Path(scratch), clock).answer()


def write_alike(graph: Graph, other: Path, target: Path) -> None:
    """Writes ``graph`` in the precisions and formats of the file ``other`` of another replicate of its level."""
    artifact_of_other = artifact.open_artifact(other)
    artifact.save(target, graph, artifact_of_other.choices, artifact_of_other.precision)


@dataclass(frozen=True, eq=False)
class _File:
    """One choice of precisions, written for every replicate."""

    precisions: Mapping[str, str]
    paths: tuple[Path, ...]


@dataclass(frozen=True, eq=False)
class _Search:
    question: Question
    folder: Path
    clock: Callable[[], float]
    _count: list[int] = field(default_factory=lambda: [0])
    _times: dict[str, list[Measured]] = field(default_factory=dict)
    late: list[str] = field(default_factory=list)
    """What there was no time for, in words."""

    @cached_property
    def graphs(self) -> list[Graph]:
        example = single_example(self.question.task, 1)
        return [from_torch(model, example) for model in self.question.models]

    @cached_property
    def begin(self) -> float:
        return self.clock()

    def check_time(self, share: float = 1.0) -> None:
        """Raises TimeIsOverError when so much of the budget is spent."""
        budget = self.question.budget
        if budget is not None and self.clock() - self.begin > share * budget:
            raise TimeIsOverError(
                "the time was over before the file in float32 was judged: give more of it by --budget."
            )

    def times(self, precision: str) -> list[Measured]:
        """Of the network that is exported, measured when somebody asks."""
        if precision not in self._times:
            self.question.note(f"timing each layer in {precision} ...")
            self._times[precision] = measured(self.graphs[0], precision)
        return self._times[precision]

    def answer(self) -> Mixed:
        question, _ = self.question, self.begin
        plain = self.write({})
        question.note("judging float32 on validation and test ...")
        start, begun = self.judged(plain, "validation"), self.judged(plain, "test")
        status = level_status(begun[1])
        if status is not Status.PASS:
            raise NothingPassesError(
                "--precision auto: not even float32 passes the gates on test, so that nothing lower is tried: "
                + _said(begun[1])
                + ". Choose a milder level, or other gates by --gate."
            )
        moves, losses = self.moves(start[0])
        chain, reasons = self.chain(moves)
        last, verdicts, ended = plain, begun[1], ""
        scores = begun[0]
        for number, file in enumerate(chain, start=1):
            question.note(f"test of file {number} of {len(chain)} ...")
            try:
                tried, asked = self.judged(file, "test")
            except TimeIsOverError:
                self.late.append(f"files {number} to {len(chain)} of {len(chain)} on test")
                break
            if level_status(asked) is not Status.PASS:
                ended = (
                    f"The walk on test ended at file {number} of {len(chain)}, which is not shown to pass: "
                    + _said(asked)
                )
                for name in set(file.precisions) | set(chain[-1].precisions):
                    if chain[-1].precisions.get(name) != last.precisions.get(name):
                        reasons[name] = "on test the gates were not shown to pass with it"
                break
            last, verdicts, scores = file, asked, tried
        speedup = self.raced(plain, last) if last.precisions else None
        words = (
            [f"The time was over; not tried: {'; '.join(self.late)}. Give more of it by --budget."] if self.late else []
        )
        words += [ended] if ended else []
        if speedup is not None and speedup.low <= 1.0:
            words.append(
                f"The file of mixed precision passes, but is not surely faster than float32 ({_times(speedup)}): float32 is kept."
            )
            reasons |= dict.fromkeys(last.precisions, "the whole file was not surely faster with it")
            last, verdicts, scores, speedup = plain, begun[1], begun[0], None
        elif speedup is not None:
            how = "token by token" if question.decode else "one input a call"
            words.append(f"The file is {_times(speedup)} as fast as in float32, {how}.")
        elif not ended and not self.late:
            words.append("No layer is both faster in a lower precision and within the gates: the file is float32.")
        rows = tuple(
            self.row(name, last.precisions.get(name, FLOAT32), losses, reasons) for name in self.seconds(FLOAT32)
        )
        contents = {run.key: path.read_bytes() for run, path in zip(question.runs, last.paths, strict=True)}
        return Mixed(contents, last.precisions, rows, tuple(verdicts), speedup, tuple(words), scores[0].test)

    def moves(self, plain: Sequence[Scores]) -> tuple[list[Move], dict[tuple[str, str], float]]:
        """Every layer that is faster in a lower precision, the best first; and all losses that were measured. Those that save
        most are tried first, since the time may end."""
        moves, losses, before = [], {}, self.seconds(FLOAT32)
        wanted = []
        for index, precision in enumerate(LOW):
            try:
                self.check_time(_TRYING)
            except TimeIsOverError:
                self.late.append(f"{units.listed(LOW[index:])} of every layer")
                break
            wanted += [
                (before[name] - seconds, name, precision)
                for name, seconds in self.seconds(precision).items()
                if name in low_tensors(self.graphs[0], precision) and seconds < _CONVINCING * before[name]
            ]
        for index, (saved, name, precision) in enumerate(sorted(wanted, reverse=True), start=1):
            self.question.note(f"{_layer(name)} alone as {precision}, {index} of {len(wanted)} ...")
            try:
                scores, _ = self.judged(self.write({name: precision}), "validation", _TRYING)
            except TimeIsOverError:
                self.late.append(f"{1 + len(wanted) - index} of {len(wanted)} layers alone")
                break
            loss = losses[name, precision] = self.loss(plain, scores)
            if math.isfinite(loss):
                moves.append(Move(name, precision, saved, loss))
        return sorted(moves, key=lambda move: move.worth, reverse=True), losses

    def chain(self, moves: Sequence[Move]) -> tuple[list[_File], dict[str, str]]:
        """Files, each lower than the one before and within the gates on validation; and why layers are not lower."""
        lowered: dict[str, Move] = {}
        chain, reasons = [], {}
        for index, move in enumerate(moves, start=1):
            if move.tensor in lowered and lowered[move.tensor].saved >= move.saved:
                continue
            trial = {name: one.precision for name, one in lowered.items()} | {move.tensor: move.precision}
            self.question.note(
                f"{_layer(move.tensor)} as {move.precision} beside the others, {index} of {len(moves)} ..."
            )
            file = self.write(trial)
            try:
                _, verdicts = self.judged(file, "validation", _LOWERING)
            except TimeIsOverError:
                self.late.append(f"{1 + len(moves) - index} of {len(moves)} layers beside the others")
                break
            if level_status(verdicts) is Status.PASS:
                lowered[move.tensor] = move
                chain.append(file)
                reasons[move.tensor] = f"saves {1e6 * move.saved:.2g} µs"
            elif move.tensor not in lowered:
                reasons[move.tensor] = f"as {move.precision} the gates were not shown to pass on validation"
        return chain, reasons

    def loss(self, plain: Sequence[Scores], scores: Sequence[Scores]) -> float:
        """The mean over replicates of what the metric loses on validation."""
        metric = self.question.metric
        sign = 1.0 if metric.higher_is_better else -1.0
        losses = []
        for before, after in zip(plain, scores, strict=True):
            values = before.validation.get(metric.name), after.validation.get(metric.name)
            if values[0] is None or values[1] is None:
                return math.inf
            losses.append(sign * (values[0] - values[1]))
        return mean(losses)

    def judged(self, file: _File, split: Split, share: float = 1.0) -> tuple[list[Scores], list[Verdict]]:
        """What running the file of every replicate on a split gives, one input a call, or a token; and what its gates say. Raises
        TimeIsOverError when that share of the budget is spent before."""
        question = self.question
        scores = []
        for path in file.paths:
            served = artifact.load(path)
            arrays = by_token(served) if question.decode else served
            scores.append(judge(question.task, arrays, 1, lambda count: self.check_time(share), (split,)))
        runs = [_result(run, one, split) for run, one in zip(question.runs, scores, strict=True)]
        dense = [run for run in question.results if run.variant == DENSE]
        return scores, [
            verdict
            for verdict in verdicts_of([*dense, *runs], replace(question.policy, at="final"), split)
            if verdict.variant == MIXED
        ]

    def write(self, precisions: Mapping[str, str]) -> _File:
        """The files as they would be served: formats as measured in each layer's own precision."""
        self._count[0] += 1
        tuned = self.formats(precisions)
        if not precisions:
            tuned |= network_choices(self.graphs[0], tuned)
        paths = []
        for seed, graph in enumerate(self.graphs):
            paths.append(self.folder / f"{self._count[0]}-{seed}.tsk")
            artifact.save(paths[-1], graph, {artifact.machine_key(): tuned}, dict(precisions) or FLOAT32)
        return _File(dict(precisions), tuple(paths))

    def formats(self, precisions: Mapping[str, str]) -> dict[str, str]:
        by_output = {node.output: node.weights["weight"] for node in self.graphs[0].nodes if node.op in PRODUCTS}
        own = {precision: choices(self.times(precision)) for precision in {FLOAT32, *precisions.values()}}
        return {
            key: own[precisions.get(by_output[output], FLOAT32)][key]
            for key in own[FLOAT32]
            if (output := key.partition(":")[2]) in by_output
        }

    def seconds(self, precision: str) -> dict[str, float]:
        """What each layer takes of a call of one input, or of a token, in its best format: by tensor, those that share one
        together."""
        by_output = {node.output: node.weights["weight"] for node in self.graphs[0].nodes if node.op in PRODUCTS}
        totals: dict[str, float] = {}
        for one in self.times(precision):
            mode, _, output = one.key.partition(":")
            counts = mode == "vector" if self.question.decode else mode != "lanes"
            if counts and output in by_output:
                name = by_output[output]
                totals[name] = totals.get(name, 0.0) + one.seconds[one.choice]
        return totals

    def row(
        self, name: str, precision: str, losses: Mapping[tuple[str, str], float], reasons: Mapping[str, str]
    ) -> Row:
        return Row(
            _layer(name),
            precision,
            {one: 1e6 * self.seconds(one)[name] for one in PRECISIONS if one in self._times},
            {one: losses[name, one] for one in LOW if (name, one) in losses},
            reasons.get(name, "no lower precision is faster here"),
        )

    def raced(self, plain: _File, mixed: _File) -> Ratio:
        """How many times as fast the exported file is, whole calls of one input, or tokens, in turn; with its interval. In
        float32 either our kernels or the library that it is handed over to, whichever is faster now."""
        question = self.question
        question.note("racing the file against float32 ...")
        inputs: NDArray[Any] = np.ascontiguousarray(single_example(question.task, 1).numpy())
        models = [artifact.load(mixed.paths[0]), *(artifact.load(plain.paths[0], handover=to) for to in (False, True))]
        part = question.decode
        runners = [Runner(*part.begin(model, inputs)) if part else Runner(model, inputs) for model in models]
        stopwatch = Stopwatch()
        calls = [warm.calls for warm in warm_up(runners, stopwatch, None)]
        left = None if question.budget is None else question.budget - (self.clock() - self.begin)
        rounds = race(runners, calls, stopwatch, rounds=_ROUNDS, allowance=left)
        reference = min(rounds[:, 1:].T, key=np.median)
        return Bootstrap(len(rounds), question.policy.confidence).ratio(reference, rounds[:, 0])


def _result(run: Result, scores: Scores, split: Split) -> Result:
    """The sealed run, had it scored what the file did."""
    values = {name: math.nan if value is None else value for name, value in getattr(scores, split).items()}
    sums = hashlib.sha256(scores.outcomes).hexdigest()
    outcomes = SealedOutcomes(lambda: scores.outcomes, sums) if scores.outcomes else None
    final = evidence.Scores(run.steps, *((values, {}) if split == "validation" else ({}, values)))
    return replace(
        run, variant=MIXED, final=final, early_stop=None, curve=(), weights=f"{sums} {run.weights}", outcomes=outcomes
    )


def _said(verdicts: Sequence[Verdict]) -> str:
    """What gates say in a clause each; of those that pass only where all do."""
    failing = [one for one in verdicts if one.status is not Status.PASS] or verdicts
    return "; ".join(f"{one.gate.metric} is {one.status.value}: {_worse(one)}" for one in failing)


def _worse(one: Verdict) -> str:
    """By how much it is worse, to the digits that matter beside its margin."""
    if one.estimate is None:
        return "nothing can be compared"
    scale, unit = (1.0, "") if one.gate.max_drop is not None else (100.0, " %")
    decimals = max(0, 2 - math.floor(math.log10(scale * one.gate.margin)))
    estimate, bound, margin = (
        "" if value is None else f"{scale * value + 0.0:.{decimals}f}{unit}"
        for value in (one.estimate, one.bound, one.gate.margin)
    )
    return f"{estimate} worse{f', at most {bound}' if bound else ''}, where {margin} may be lost"


def _layer(tensor: str) -> str:
    return tensor.removesuffix(".weight")


def _times(ratio: Ratio) -> str:
    return f"{ratio.median:.2f}x, {ratio.low:.2f}x to {ratio.high:.2f}x"
