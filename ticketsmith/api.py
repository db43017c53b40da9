"""The Python API; the commands are thin over it.

``load`` a recipe, ``run`` it, and ask the ``Experiment`` what was found.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ticketsmith import collect, units
from ticketsmith.config import Recipe, load_recipe
from ticketsmith.config.track import Track
from ticketsmith.errors import RecipeError, StoreError, TicketSmithError
from ticketsmith.evidence import serving
from ticketsmith.evidence.choice import Choice
from ticketsmith.evidence.findings import Findings
from ticketsmith.evidence.results import Result
from ticketsmith.evidence.search import Move
from ticketsmith.evidence.search import Path as SearchPath
from ticketsmith.evidence.serving import Benchmark, Refusal, Timing
from ticketsmith.evidence.variants import DENSE, POST_TRAINING
from ticketsmith.execute.executor import Event
from ticketsmith.execute.local import DebugExecutor, LocalExecutor, default_workers
from ticketsmith.execute.server import Loaded
from ticketsmith.execute.worker import Noted, WorkerSettings
from ticketsmith.experiment import ExperimentReader, rate_of
from ticketsmith.inference.settings import FILE_PRECISIONS, BenchmarkSettings
from ticketsmith.plan import Plan, PlannedRun, check_schedule, criteria, criterion_name, make_plan, whole_rule
from ticketsmith.plugins import nearest, source_fingerprint
from ticketsmith.prices import Rate
from ticketsmith.pursuit import Pursuit, follow
from ticketsmith.store import open_store
from ticketsmith.store.contract import to_json
from ticketsmith.store.index import Index
from ticketsmith.training.job import Job

if TYPE_CHECKING:
    from ticketsmith.candidates.mixed import Mixed
    from ticketsmith.evidence.verdicts import Gate
    from ticketsmith.export.write import Export
    from ticketsmith.tasks.facts import TaskFacts
    from ticketsmith.track.send import Tally
    from ticketsmith.training.profile import Profile


Progress = Callable[[str, int, int], None]

BENCHMARK_SECONDS = 20.0
"""How long the benchmark at the end of ``run`` may take; ``ticketsmith benchmark`` takes the time it needs."""


def load(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Reads and checks a recipe; ``overrides`` such as ``"training.lr=0.05"``. Raises RecipeError."""
    return load_recipe(path, overrides)


@dataclass(frozen=True)
class Prepared:
    """A recipe whose task was built and tried, and its plan; of a search, all runs that it may ask for."""

    recipe: Recipe
    facts: TaskFacts
    plan: Plan

    def steps(self, run: PlannedRun) -> int:
        """Iterations that making this run takes."""
        return run.spec.end(self.facts.train_size) - run.spec.begin

    def training_flops(self, run: PlannedRun) -> int:
        """Dense arithmetic of making this run: forward and backward, three times the forward pass."""
        return 3 * self.facts.forward_flops * run.spec.training.batch_size * self.steps(run)


def prepare(recipe: Recipe) -> Prepared:
    """Checks everything that can be checked before training: data, model, gates, the pruning schedule; makes the plan.

    Raises the TicketSmithError of whatever is wrong.
    """
    from ticketsmith.tasks.facts import examine

    facts = examine(recipe.task_component, recipe.base, whole_rule(recipe.pruning), criteria(recipe))
    for metric in recipe.gates.metrics:
        if metric not in facts.metrics:
            raise RecipeError(
                f"gates.metrics: the task does not measure {metric!r}.{nearest(metric, list(facts.metrics))}"
            )
    check_schedule(recipe, facts.layers)
    sources = {name: source_fingerprint(name) for name in map(criterion_name, criteria(recipe))}
    plan = make_plan(recipe, facts.identity, facts.train_size, sources, facts.layout)
    return Prepared(recipe, facts, plan)


def rehearse(prepared: Prepared, note: Callable[[str], None] = lambda text: None) -> list[str]:
    """Tries what every run does, in seconds, on the CPU: a training step, each kind of evaluation, samples, a checkpoint.

    A task of your own is measured on whole splits, each for a few seconds at most; those that took longer are given. ``note``
    hears what a run would tell. Raises TaskError, which names what fails.
    """
    from ticketsmith.training.rehearsal import rehearse

    recipe = prepared.recipe
    return rehearse(prepared.facts.task, recipe.training, recipe.pruning.include, note)


def profile(prepared: Prepared, *, sparsity: float = 0.9, steps: int | None = None, device: str = "auto") -> Profile:
    """Where the time of a run goes, measured here: its parts, and what sparsity could save at most. Nothing is kept.

    ``steps`` are measured, by default those of a few seconds. Raises TicketSmithError.
    """
    from ticketsmith.training.device import check_device
    from ticketsmith.training.profile import profile

    recipe = prepared.recipe
    dense = next(node.spec for node in prepared.plan.nodes if node.variant == DENSE)
    return profile(prepared.facts.task, dense, whole_rule(recipe.pruning), sparsity, check_device(device), steps)


def run(
    recipe: Recipe | str | Path,
    *,
    workers: int | None = None,
    device: str = "auto",
    variants: Iterable[str] | None = None,
    benchmark: bool = True,
    on_event: Callable[[Event], None] = lambda event: None,
    machine: str | Rate | None = None,
) -> Experiment:
    """Trains what is missing of an experiment, judges it, times it and writes its report.

    ``recipe`` is one that ``load`` gave, or the path of one.

    ``workers``: processes side by side, by default one a core. ``device``: ``auto``, ``cpu``, ``cuda``, ``cuda:1``.
    ``variants`` limits what is trained (with everything that it needs). ``machine`` says what an hour of this machine
    costs: a size of the price table, ``my-laptop=0.10``, or a Rate (see docs/costs.md). What went wrong with single runs
    is told by ``Experiment.outcome``; mistakes in the recipe raise TicketSmithError. The recipe's trackers get the sealed
    runs at the end; one that is down raises TrackError, with all the rest done.
    """
    if not isinstance(recipe, Recipe):
        recipe = load(recipe)
    check_trackers(recipe)
    rate = rate_of(machine)
    experiment = train(
        prepare(recipe), workers=workers, device=device, variants=variants, on_event=on_event, machine=rate
    )
    if finish(experiment, benchmark, machine=rate) is not None:
        for tracker in recipe.track:
            experiment.track(tracker)
    return experiment


def check_trackers(recipe: Recipe) -> None:
    """Whether the recipe's trackers can be used, before hours of training. Raises NoTrackerError."""
    from ticketsmith.track.sink import check

    for tracker in recipe.track:
        check(tracker)


def finish(
    experiment: Experiment,
    benchmark: bool = True,
    note: Callable[[str], None] = lambda text: None,
    machine: str | Rate | None = None,
) -> str | None:
    """The part of ``run`` after training: gates, benchmark, report. The report's place; None when there is nothing to say.

    ``machine`` says what an hour of this machine costs, for what serving costs.
    A benchmark that fails is told by ``note`` and leaves its place in the report empty: the evidence stands without it.
    """
    outcome = experiment.outcome
    if outcome.interrupted or outcome.fatal or not experiment.results:
        return None
    experiment.judge()
    if benchmark:
        note("measuring inference speed ...")
        try:
            experiment.time_inference(machine=machine)
        except TicketSmithError as error:
            note(f"inference speed was not measured: {error}")
        if experiment.recipe.benchmark.candidates and (outcome.trained or experiment.findings.choice is None):
            note("judging and timing candidates ...")
            try:
                experiment.measure_candidates(machine=machine)
            except TicketSmithError as error:
                note(f"candidates were not measured: {error}")
    note("writing the report ...")
    return experiment.report()


def train(
    prepared: Prepared,
    *,
    workers: int | None = None,
    device: str = "auto",
    variants: Iterable[str] | None = None,
    checkpoint_every: float = 30.0,
    on_event: Callable[[Event], None] = lambda event: None,
    machine: str | Rate | None = None,
    index: Index | None = None,
    executor: Literal["local", "debug"] = "local",
    forked: bool = False,
) -> Experiment:
    """The part of ``run`` that trains. ``checkpoint_every`` is in seconds. ``machine``: the price of this one.

    ``index``: what is sealed in the recipe's store, where somebody has looked already. ``executor``: ``local`` processes, or
    ``debug``, one run after the other in this process, where breakpoints work. ``forked``: workers may begin as copies of this
    process, if it has no other threads; for a command, which holds nothing that a copy could disturb.
    """
    from ticketsmith.training.device import check_device  # torch
    from ticketsmith.training.kernels import check_kernels

    recipe, plan = prepared.recipe, prepared.plan
    device = check_device(device)
    check_kernels(recipe.training, device)
    store = open_store(recipe.store_component)
    rate = rate_of(machine)
    if rate is None and recipe.search and recipe.search.budget and recipe.search.budget.money is not None:
        raise RecipeError(
            "search.budget.money: nobody knows what this machine costs. Say it: --machine NAME=PRICE (in Python: machine=), or "
            "give the budget in `hours` or `runs`."
        )
    store.put(f"{recipe.experiment}/recipe.yaml", recipe.source.encode())
    settings = WorkerSettings(
        recipe.store_component, device, checkpoint_every, (str(recipe.base), str(Path.cwd())), rate
    )
    index = index or Index(store)
    common = store, partial(_job, recipe), settings, on_event, index
    facts = prepared.facts
    loaded = Loaded(facts.task, facts.forward_flops) if forked else None
    local = executor == "local"
    runner = LocalExecutor(*common, workers or default_workers(device), loaded) if local else DebugExecutor(*common)
    pursuit = Pursuit(recipe, plan, index) if recipe.search else None
    if pursuit is not None and variants is None:
        with runner:
            plan, outcome = follow(pursuit, runner, store, partial(_tell, on_event))
        return Experiment(store, recipe.experiment, recipe, plan=plan, outcome=outcome, task=facts.task)
    if pursuit is not None:
        _, plan = pursuit.look()
    store.put(f"{recipe.experiment}/plan.json", plan.to_bytes())
    runner.submit(plan if variants is None else plan.only(variants))
    runner.wait()
    return Experiment(store, recipe.experiment, recipe, plan=plan, outcome=runner.outcome, task=facts.task)


def _tell(on_event: Callable[[Event], None], so_far: SearchPath, move: Move) -> None:
    from ticketsmith.report.sentences.search import announcement

    on_event(Noted("", announcement(so_far, move)))


def _job(recipe: Recipe, run: PlannedRun) -> Job:
    folder = run.folder(recipe.experiment)
    return Job(run.spec, folder, recipe.task_component, recipe.base, recipe.sha256)


def open_experiment(name: str, store: str | Path | Mapping[str, Any] = "runs", base: str | Path = ".") -> Experiment:
    """An experiment that is in a store already. Raises TicketSmithError when it is not there.

    ``base`` is the folder where relative paths and own modules of its recipe are found. It is for the caller to say: a
    store is never trusted to name code.
    """
    experiment = Experiment(open_store(store), name, base=base)
    _ = experiment.plan  # or an error
    return experiment


class Experiment(ExperimentReader):
    """What a store holds of one experiment, read lazily; and what is made of it: gates, benchmark, report, exports."""

    _remembered = False

    def export(
        self,
        output: str | Path,
        formats: Sequence[str] = ("ticket",),
        *,
        sparsity: float | None = None,
        seed: int = 0,
        variant: str = "ticket",
        key: str | None = None,
        precision: str = "float32",
        tuned: bool = True,
        start_weights: bool = False,
        licence: str = "unknown",
        force: bool = False,
        gates: Sequence[Gate] = (),
        budget: float | None = None,
        note: Callable[[str], None] = lambda text: None,
    ) -> Export:
        """Writes one run as files for others, checked against PyTorch; docs/export.md tells the formats.

        The run is that of ``key``, or the one that ``find`` gives. ``precision`` of ``tsk`` may be ``auto``: that of each layer
        with which the file is fastest here and passes its gates, judged by running it in every replicate. ``gates`` take the
        place of the recipe's; ``budget`` is for that search, in seconds. Raises TicketSmithError when there is none, when it
        cannot be written in a format, when a file does not give the model's outputs, and when something is at ``output``
        already and ``force`` is not set.
        """
        from ticketsmith.export.subject import ExportSettings, Ready  # these import torch
        from ticketsmith.export.write import AUTO, check_formats, export
        from ticketsmith.exporter import subject_of

        check_formats(formats, precision)
        if budget is not None and not (precision == AUTO and 0 < budget < math.inf):
            raise RecipeError(
                f"--budget {budget:g}: some seconds for --precision {AUTO}; nothing else here has a budget."
            )
        result = self.find(sparsity, seed=seed, variant=variant) if key is None else self.result(key)
        how = ExportSettings(precision, tuned, start_weights, force, licence)
        subject = subject_of(self, result)
        if gates:
            subject = dataclasses.replace(subject, policy=dataclasses.replace(subject.policy, gates=tuple(gates)))
        if precision == AUTO:
            mixed = self._fastest(result, gates, budget, note)
            how = dataclasses.replace(how, ready=Ready(mixed.contents[result.key], mixed.document))
        return export(subject, Path(output), formats, how, note)

    def _fastest(
        self, result: Result, gates: Sequence[Gate], budget: float | None, note: Callable[[str], None]
    ) -> Mixed:
        """The fastest .tsk files of a run and its replicates that pass their gates, each layer in a precision of its own."""
        from ticketsmith.candidates.mixed import Question, fastest

        place = result.variant, result.level, result.draw
        others = [r for r in self.results if (r.variant, r.level, r.draw) == place and r.seed != result.seed]
        runs = [result, *(r for r in others if not r.diverged and r.final is not None)]
        policy = self.findings.policy
        if gates:
            policy = dataclasses.replace(policy, gates=tuple(gates))
        models = [self.model(run) for run in runs]
        return fastest(Question(self.task, runs, models, self.results, policy, self.findings.metric, budget, note))

    def judge(self) -> Findings:
        """Judges every level of every variant, and writes ``gates.json``; the store remembers that verdicts were shown."""
        from ticketsmith.report.gates import document

        self.store.put(f"{self.name}/gates.json", to_json(document(self.findings, self.path)))
        return self.findings

    @property
    def findings(self) -> Findings:
        """All evidence: gates, sweet spot, statistics, cost. Raises TicketSmithError when there are no runs.

        The store remembers with how many replicates verdicts were shown, if it can be written: a later look has to hold what
        all of them promise.
        """
        findings = self._concluded()
        if not self._remembered:
            self._remembered = True
            with suppress(OSError, StoreError):
                self._remember()
        return findings

    def _remember(self) -> None:
        """Writes down the looks of which there is no record yet: this one, and what ``gates.json`` showed before."""
        recorded = len(self.view.files(f"{self.name}/looks"))
        looks, now = self.looks[recorded:], self.look
        if now is not None and now.replicates not in self._concluded().policy.shown:
            looks.append(now)
        for before, look in enumerate(looks, start=recorded):
            self.store.put(*collect.look_file(self.name, look, before))

    def track(self, tracker: Track | str, progress: Progress = lambda what, done, total: None) -> Tally:
        """Brings a tracker (``mlflow``, ``wandb``, ``trackio``, ``tensorboard``, or one with options) up to date.

        Only what is sealed is told, and only what the tracker has not; nothing is trained. Raises TrackError when it cannot
        be reached or refuses, NoTrackerError when its library or address is missing.
        """
        from ticketsmith.track.send import send

        return send(self, tracker if isinstance(tracker, Track) else Track.model_validate({"to": tracker}), progress)

    def time_inference(
        self,
        settings: BenchmarkSettings | None = None,
        *,
        force: bool = False,
        machine: str | Rate | None = None,
        progress: Progress = lambda what, done, total: None,
    ) -> Benchmark:
        """Measures inference of one replicate, dense against every sparse run; writes ``benchmark.json``.

        The replicate is the first whose dense run is sound. Without ``settings``: the short benchmark that ends ``run``,
        with the recipe's batch sizes and rounds, fewer runtimes and ``BENCHMARK_SECONDS`` at most.

        ``machine`` says what an hour of this machine costs. A benchmark that has these runs and batch sizes already is
        kept unless ``force``; its machine's price is renewed when one is given. ``progress(what, done, total)`` is told
        what is being done. Raises TicketSmithError when there is no dense run.
        """
        rate = rate_of(machine)
        seed = next((r.seed for r in self.results if r.variant == "dense" and not r.diverged), None)
        runs = [r for r in self.results if r.seed == seed and not r.diverged and r.draw == 0]
        before = None if force else self.benchmark
        sizes = self.recipe.benchmark.batch_sizes if settings is None else settings.batch_sizes
        places = {(r.variant, r.level, r.seed, size) for r in runs for size in sizes}
        if before is not None and {r.key for r in runs} >= _keys(before) and places <= _places(before):
            if rate is None or rate == before.machine_rate:
                return before
            benchmark = dataclasses.replace(before, machine_rate=rate)
        else:
            benchmark = dataclasses.replace(self._measure(runs, settings, progress), machine_rate=rate)
        self.store.put(f"{self.name}/benchmark.json", to_json(serving.to_json(benchmark)))
        self._findings = None  # they hold the benchmark
        return benchmark

    def compare_with_dense(
        self,
        key: str,
        settings: BenchmarkSettings | None = None,
        *,
        machine: str | Rate | None = None,
        progress: Progress = lambda what, done, total: None,
    ) -> Benchmark:
        """Measures inference of one run against the dense run of its replicate; writes nothing."""
        rate = rate_of(machine)
        run = self.result(key)
        dense = [r for r in self.results if r.variant == "dense" and r.seed == run.seed]
        benchmark = self._measure([*dense, run], settings or BenchmarkSettings(), progress)
        return dataclasses.replace(benchmark, machine_rate=rate)

    def _measure(self, runs: Sequence[Result], settings: BenchmarkSettings | None, progress: Progress) -> Benchmark:
        from ticketsmith.inference import suite
        from ticketsmith.inference.measuring.lineup import Candidate
        from ticketsmith.inference.measuring.measure import Contest
        from ticketsmith.inference.onnx_file import noted
        from ticketsmith.tasks.build import single_example
        from ticketsmith.tasks.task import serving
        from ticketsmith.training.device import check_device

        short = BenchmarkSettings(
            batch_sizes=self.recipe.benchmark.batch_sizes,
            rounds=self.recipe.benchmark.rounds,
            budget=BENCHMARK_SECONDS,
        )
        how = settings or short
        check_device(how.device)
        candidates = [
            Candidate(r.variant, r.level, r.seed, r.key, r.sparsity, noted(self.model(r), r))
            for r in sorted(runs, key=lambda run: (run.variant != "dense", run.variant != "ticket"))
            if not r.diverged
        ]
        if not candidates or candidates[0].variant != "dense":
            raise TicketSmithError(f"{self.name}: there is no sealed dense run to compare with.")
        return suite.run(
            Contest(candidates[0], candidates, partial(single_example, self.task), serving(self.task)),
            how,
            quick=settings is None,
            progress=progress,
        )

    def measure_candidates(
        self,
        settings: BenchmarkSettings | None = None,
        *,
        levels: Collection[int] = (),
        machine: str | Rate | None = None,
        progress: Progress = lambda what, done, total: None,
    ) -> Choice:
        """Prune, quantise, both or neither? Writes each candidate as the file that would be served, judges it by running it
        on validation and test for every replicate, and times the files of the first; all are kept in the store.

        ``settings.runtimes`` are runtimes or forms by name, none: all that are installed; ``precisions`` limits them, and
        float32 always runs. ``levels``: of sparse networks these alone, none: all. What was judged before on this machine is
        not judged again. ``machine`` says what an hour of it costs. Raises TicketSmithError when there is no dense run, or no
        candidate can be judged, and RecipeError for a level that no run has.
        """
        from ticketsmith.candidates import measure
        from ticketsmith.candidates.forms import AUTO, Network, forms
        from ticketsmith.candidates.mixed_files import MixedFiles
        from ticketsmith.inference.calibration import calibration as calibration_of
        from ticketsmith.inference.onnx_file import noted
        from ticketsmith.tasks.build import single_example
        from ticketsmith.tasks.task import serving as serving_of

        rate = rate_of(machine)
        asked = self.recipe.benchmark
        how = settings or BenchmarkSettings(
            batch_sizes=asked.batch_sizes, rounds=asked.rounds, precisions=FILE_PRECISIONS
        )
        if how.device != "cpu":
            raise RecipeError(f"--candidates are files for CPUs; --device {how.device} has none.")
        runs = [r for r in self.results if not r.diverged and r.draw == 0 and r.final is not None]
        seed = next((r.seed for r in runs if r.variant == DENSE), None)
        if seed is None:
            raise TicketSmithError(f"{self.name}: there is no sealed dense run to compare with.")
        about = self.findings.subject
        methods = {DENSE, about, POST_TRAINING}
        spot = self.sweet_spot()
        own_levels = sorted({r.level for r in runs if r.variant == about})
        if unknown := sorted(set(levels) - set(own_levels)):
            raise RecipeError(
                f"{self.name}: no sealed run of {about} has level {unknown[0]}; "
                f"there are {units.listed([str(level) for level in own_levels])}."
            )
        wanted_levels = sorted(levels) or own_levels
        near = spot.level if spot else min(wanted_levels, default=0)
        middle = min(wanted_levels, key=lambda level: abs(level - near), default=0)

        def place(run: Result) -> tuple[bool, bool, int, int, int]:
            """Dense first, then the levels of the subject, those near the sweet spot before others."""
            return run.variant != DENSE, run.variant != about, abs(run.level - middle), run.level, run.seed

        mine = sorted(
            (r for r in runs if r.variant in methods and (r.variant == DENSE or r.level in wanted_levels)), key=place
        )
        own = forms(how.runtimes, tuple(dict.fromkeys(("float32", *how.precisions))))
        wants = measure.wanted([(r.variant, r.level) for r in mine], (about, middle))
        example = single_example(self.task, 1)
        decodes = bool(serving_of(self.task).phases) and hasattr(self.model(mine[0]), "stepper")

        begin, at = time.perf_counter(), (0, 1)

        def tell(what: str, count: int, total: int) -> None:
            nonlocal at
            at = count, total
            progress(what, count, total)

        def search(run: Result) -> Mixed:
            """In half of the time that is left for writing and judging, if that is limited: its files are judged, too."""
            left = None if how.budget is None else measure.JUDGING * how.budget - (time.perf_counter() - begin)
            about = f"{run.variant} level {run.level} as {AUTO}"
            return self._fastest(run, (), left and left / 2, lambda text: progress(f"{about}: {text}", *at))

        place_of_mixed = next((measure.place_of(form, decodes) for form in own if form.of_level), "")
        mixed = MixedFiles(self.store, self.name, place_of_mixed, search)

        def network(run: Result, folder: Path) -> Network:
            model, calibration = noted(self.model(run), run), partial(calibration_of, self.task)
            return Network(
                model=model, example=example, calibration=calibration, folder=folder, decodes=decodes,
                mixed=partial(mixed.write, run),
            )  # fmt: skip

        order = measure.Order(mine, own, wants, network, seed, decodes)
        race = measure.measure(self.store, self.name, self.task, order, how, tell)
        measure.put(self.store, self.name, dataclasses.replace(race, machine_rate=rate))
        self.renew()
        choice = self.findings.choice
        if choice is None:
            raise TicketSmithError(f"{self.name}: no candidate could be timed: {race.lacks[0].reason}")
        return choice

    def report(self) -> str:
        """Writes the report into the store, ``<experiment>/report/``; gives the page's place."""
        from ticketsmith.report.gallery import runs_to_show
        from ticketsmith.report.render import render

        samples = collect.read_samples(self.view, runs_to_show(self.findings))
        for name, content in render(self.findings, samples, self.path).items():
            self.store.put(f"{self.name}/report/{name}", content)
        return f"{self.store.url}/{self.name}/report/index.html"


def _keys(benchmark: Benchmark) -> set[str]:
    return {timing.key for timing in benchmark.timings}


def _places(benchmark: Benchmark) -> set[tuple[str, int, int, int]]:
    """What was measured, or could not be: variant, level, seed and batch size."""
    rows: list[Timing | Refusal] = [*benchmark.timings, *benchmark.refusals]
    return {(row.variant, row.level, row.seed, row.batch_size) for row in rows}
