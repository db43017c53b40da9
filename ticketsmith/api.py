"""The Python API; the commands are thin over it.

``load`` a recipe, ``run`` it, and ask the ``Experiment`` what was found.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ticketsmith import collect
from ticketsmith.config import Recipe, load_recipe
from ticketsmith.config.load import parse_recipe
from ticketsmith.errors import Exit, RecipeError, StoreError, TicketSmithError, gravest
from ticketsmith.evidence import serving
from ticketsmith.evidence.findings import Findings, conclude
from ticketsmith.evidence.results import Result
from ticketsmith.evidence.scorecard import Scorecard
from ticketsmith.evidence.serving import Benchmark, Refusal, Timing
from ticketsmith.evidence.variants import DENSE
from ticketsmith.evidence.verdicts import Status, SweetSpot
from ticketsmith.execute.local import Event, Outcome, default_workers, execute
from ticketsmith.execute.worker import Settings as WorkerSettings
from ticketsmith.inference.settings import Settings
from ticketsmith.plan import Node, Plan, check_schedule, criteria, criterion_name, make_plan, whole_rule
from ticketsmith.plugins import nearest, source_fingerprint
from ticketsmith.prices import Rate, lookup
from ticketsmith.spec import Rewind, in_steps
from ticketsmith.store import open_store
from ticketsmith.store.contract import MANIFEST, RunFolder, SealedRun, Store, to_json
from ticketsmith.store.index import Index
from ticketsmith.store.snapshot import Snapshot

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

    from ticketsmith.export.subject import Subject
    from ticketsmith.export.write import Export
    from ticketsmith.tasks.facts import TaskFacts


Progress = Callable[[str, int, int], None]

BENCHMARK_SECONDS = 20.0
"""How long the benchmark at the end of ``run`` may take; ``ticketsmith benchmark`` takes the time it needs."""


def load(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Reads and checks a recipe; ``overrides`` such as ``"training.lr=0.05"``. Raises RecipeError."""
    return load_recipe(path, overrides)


@dataclass(frozen=True)
class Prepared:
    """A recipe whose task was built and tried, and its plan."""

    recipe: Recipe
    facts: TaskFacts
    plan: Plan

    def steps(self, node: Node) -> int:
        """Iterations that making this run takes."""
        spec = node.spec
        begin = spec.weights.step if isinstance(spec.weights, Rewind) else 0
        whole = in_steps(spec.training.duration, self.facts.train_size, spec.training.batch_size)
        return (whole if spec.stop_after is None else spec.stop_after) - begin

    def training_flops(self, node: Node) -> int:
        """Dense arithmetic of making this run: forward and backward, three times the forward pass."""
        return 3 * self.facts.forward_flops * node.spec.training.batch_size * self.steps(node)


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


def rehearse(prepared: Prepared) -> list[str]:
    """Tries what every run does, in seconds, on the CPU: a training step, each kind of evaluation, samples, a checkpoint.

    A task of your own is measured on whole splits, each for a few seconds at most; those that took longer are given. Raises
    TaskError, which names what fails.
    """
    from ticketsmith.tasks.task import create
    from ticketsmith.training.rehearsal import rehearse

    recipe = prepared.recipe
    return rehearse(create(recipe.task_component, recipe.base), recipe.training, recipe.pruning.include)


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
    is told by ``Experiment.outcome``; mistakes in the recipe raise TicketSmithError.
    """
    if not isinstance(recipe, Recipe):
        recipe = load(recipe)
    rate = _rate(machine)
    experiment = train(
        prepare(recipe), workers=workers, device=device, variants=variants, on_event=on_event, machine=rate
    )
    finish(experiment, benchmark, machine=rate)
    return experiment


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
) -> Experiment:
    """The part of ``run`` that trains. ``checkpoint_every`` is in seconds. ``machine``: the price of this one.

    ``index``: what is sealed in the recipe's store, where somebody has looked already.
    """
    from ticketsmith.training.device import check_device
    from ticketsmith.training.job import Job

    recipe, plan = prepared.recipe, prepared.plan
    device = check_device(device)
    store = open_store(recipe.store_component)
    store.put(f"{recipe.experiment}/recipe.yaml", recipe.source.encode())
    store.put(f"{recipe.experiment}/plan.json", plan.to_bytes())
    rate = _rate(machine)
    settings = WorkerSettings(
        recipe.store_component, device, checkpoint_every, (str(recipe.base), str(Path.cwd())), rate
    )
    experiment = Experiment(store, recipe.experiment, recipe)
    experiment.__dict__["plan"] = plan  # its own, whatever another process writes meanwhile
    experiment.outcome = execute(
        plan if variants is None else plan.only(variants),
        store,
        lambda node: Job(node.spec, node.folder(plan.experiment), recipe.task_component, recipe.base, recipe.sha256),
        settings,
        workers or default_workers(device),
        on_event,
        index,
    )
    return experiment


def open_experiment(name: str, store: str | Path | Mapping[str, Any] = "runs", base: str | Path = ".") -> Experiment:
    """An experiment that is in a store already. Raises TicketSmithError when it is not there.

    ``base`` is the folder where relative paths and own modules of its recipe are found. It is for the caller to say: a
    store is never trusted to name code.
    """
    experiment = Experiment(open_store(store), name, base=base)
    _ = experiment.plan  # or an error
    return experiment


class Experiment:
    """What a store holds of one experiment. Read lazily; nothing here trains."""

    def __init__(self, store: Store, name: str, recipe: Recipe | None = None, base: str | Path = ".") -> None:
        self.store, self.name, self._base = store, name, Path(base)
        self.outcome = Outcome()
        self._recipe = recipe

    def __repr__(self) -> str:
        return (
            f"Experiment({self.name!r}, store={self.store.url!r}: {len(self.results)} of {len(self.plan.results)} runs)"
        )

    @cached_property
    def plan(self) -> Plan:
        """All runs that the experiment consists of."""
        return collect.read_plan(self.store, self.name)

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe that it was last run with.

        Opened from a store, its relative paths and own modules are looked for in ``base``, by default the current directory.
        """
        if self._recipe is not None:
            return self._recipe
        text = self.store.get(f"{self.name}/recipe.yaml")
        if text is None:
            raise StoreError(f"{self.store.url}/{self.name}: recipe.yaml is missing; run the recipe again.")
        return parse_recipe(text.decode(), f"{self.store.url}/{self.name}/recipe.yaml", self._base)

    @cached_property
    def _view(self) -> Snapshot:
        return collect.view(self.store, self.name)

    @cached_property
    def index(self) -> Index:
        """What is sealed of the experiment, as of the first look."""
        return Index(self._view)

    @cached_property
    def results(self) -> list[Result]:
        """Every sealed run of the plan. Raises DamagedRunError when one was changed."""
        return collect.read_results(self.index, self.plan)

    @property
    def exit_status(self) -> Exit:
        """What a pipeline should know: the gravest of what happened while training and of what the store holds."""
        happened = [self.outcome.exit_status]
        sealed = self.index.statuses(self.plan.by_key, self.name)  # rewind points too, which are no results
        diverged = {key for key, status in sealed.items() if status == "diverged"}
        lost = self.plan.needing({*diverged, *self.outcome.diverged})  # missing for good: their cause is told, not they
        if any(node.key not in lost and node.key not in sealed for node in self.plan.results):
            happened.append(Exit.INCOMPLETE)
        if diverged:
            happened.append(Exit.DIVERGED)
        elif self.results:
            target = self.findings.target
            if target is None and self.findings.policy.target_sparsity is not None:
                happened.append(Exit.INCOMPLETE)
            judged = {Status.FAIL: Exit.GATE_FAILED, Status.INCONCLUSIVE: Exit.INCONCLUSIVE}
            happened.append(judged.get(target[1] if target else Status.PASS, Exit.OK))
        return gravest(happened)

    @cached_property
    def findings(self) -> Findings:
        """All evidence: gates, sweet spot, statistics, cost. Raises TicketSmithError when there are no runs."""
        recipe = self.recipe
        pods, unreadable = collect.read_pods(self._view, self.name)
        return conclude(
            self.name,
            self.results,
            recipe.policy,
            recipe_text=recipe.source,
            places=[(node.variant, node.level, node.seed, node.draw) for node in self.plan.results],
            benchmark=self.benchmark,
            facts=_facts(recipe),
            environment=collect.read_environment(self.index, self.plan),
            pods=pods,
            unreadable_pods=unreadable,
        )

    @property
    def benchmark(self) -> Benchmark | None:
        """The measured inference speed, None when it was not measured."""
        content = self.store.get(f"{self.name}/benchmark.json")
        if content is None:
            return None
        try:
            return serving.from_json(json.loads(content))
        except (ValueError, serving.DocumentError) as error:
            raise StoreError(
                f"{self.store.url}/{self.name}/benchmark.json cannot be read ({error}). Delete it and measure again."
            ) from error

    def table(self) -> pd.DataFrame:
        """One row a level of a variant: sparsity, the mean of each metric on the test split, gate, measured speed-up."""
        from ticketsmith.report.tables import frame

        return frame(self.findings)

    def sweet_spot(self) -> SweetSpot | None:
        """The last level of the winning ticket that passes its gates, tried from the mildest on; None when none does."""
        return self.findings.sweet_spot

    def scorecard(self, machine: str | Rate | None = None) -> Scorecard:
        """What serving costs, from the benchmark that is in the store, and the best choice that passes its gates.

        ``machine`` says what an hour of the machine costs, instead of what the benchmark knows; nothing is written.
        Raises TicketSmithError when inference was not measured.
        """
        card = self.findings.scorecard
        if card is None:
            raise TicketSmithError(
                f"{self.name}: inference was not measured. Measure it: ticketsmith benchmark --runs-prefix "
                f"{self.store.url} --experiment {self.name}"
            )
        return card if machine is None else dataclasses.replace(card, rate=_rate(machine))

    def ticket(self, sparsity: float | None = None, *, seed: int = 0, variant: str = "ticket") -> nn.Module:
        """A trained sparse model in evaluation mode, on the CPU: the first level at least as sparse as ``sparsity`` (0..1).

        Without ``sparsity``: that of the sweet spot. Raises TicketSmithError when there is no such run.
        """
        return self.model(self.find(sparsity, seed=seed, variant=variant))

    def find(self, sparsity: float | None = None, *, seed: int = 0, variant: str = "ticket") -> Result:
        """The first level at least as sparse as ``sparsity`` (0..1); without it, the sweet spot's. ``dense`` has one only.

        Sparsity is that of the prunable weights.

        Raises TicketSmithError when there is no such run.
        """
        sealed = [r for r in self.results if (r.variant, r.seed) == (variant, seed) and not r.diverged]
        sealed.sort(key=lambda r: (r.level, r.draw))
        if not sealed:
            there = sorted({f"{r.variant} (seed {r.seed})" for r in self.results if not r.diverged})
            raise TicketSmithError(
                f"{self.name}: no sealed {variant!r} run of seed {seed}. There are: {', '.join(there) or 'none'}."
            )
        known = ", ".join(dict.fromkeys(f"{r.sparsity:.2%}" for r in sealed))
        if variant == DENSE:
            return sealed[0]
        if sparsity is None:
            spot = self.sweet_spot()
            if spot is None:
                raise TicketSmithError(
                    f"{self.name}: no level passes its gates; ask for a sparsity. {variant!r} runs of seed {seed} have {known}."
                )
            answer = [r for r in sealed if r.level == spot.level]
            if answer:  # the very level that passed, and no sparser one
                return answer[0]
            sparsity = spot.sparsity
        found = [r for r in sealed if r.sparsity >= sparsity - 5e-4]
        if not found:
            raise TicketSmithError(
                f"{self.name}: no sealed {variant!r} run of seed {seed} has {sparsity:.1%} of its prunable weights removed, or "
                f"more. These have {known}."
            )
        return found[0]

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
        force: bool = False,
        note: Callable[[str], None] = lambda text: None,
    ) -> Export:
        """Writes one run as files for others, checked against PyTorch; docs/export.md tells the formats.

        The run is that of ``key``, or the one that ``find`` gives. Raises TicketSmithError when there is none, when it
        cannot be written in a format, when a file does not give the model's outputs, and when something is at ``output``
        already and ``force`` is not set.
        """
        from ticketsmith.export.subject import Settings
        from ticketsmith.export.write import check_formats, export

        check_formats(formats, precision)
        result = self.find(sparsity, seed=seed, variant=variant) if key is None else self.result(key)
        return export(
            self._subject(result), Path(output), formats, Settings(precision, tuned, start_weights, force), note
        )

    def _subject(self, result: Result) -> Subject:
        from ticketsmith.export.recipe import portable
        from ticketsmith.export.subject import Subject
        from ticketsmith.export.ticket import Ticket
        from ticketsmith.report.sentences.caveats import against

        run = self._sealed(result)
        model = self.model(result)
        came_from = Plan(self.name, tuple(self.plan.needed_for([result.key]).by_key.values()))
        chain = json.loads(came_from.to_bytes())["nodes"]
        files = {name: run.read(name) for name in run.files} | {MANIFEST: run.manifest}
        sealed = self.index.runs(came_from.by_key, self.name)

        try:
            status = self.findings.statuses.get((result.variant, result.level))
            gate, warnings = status and status.value, against(self.findings, result)
        except TicketSmithError:  # what cannot be judged can be exported
            gate, warnings = None, []
        return Subject(
            Ticket(run.folder, files, portable(self.recipe.source), chain),
            result,
            self.results,
            model,
            self._task,
            self.recipe.policy,
            gate,
            sealed.get,
            warnings,
        )

    def result(self, key: str) -> Result:
        """The run of a key. Raises TicketSmithError when the present plan does not have it."""
        found = next((r for r in self.results if r.key == key), None)
        if found is None and key in self.plan.by_key:
            raise TicketSmithError(
                f"{self.name}: the run {key[:8]} is a rewind point: where others begin, and no result."
            )
        if found is None:
            raise TicketSmithError(f"{self.name}: the run {key[:8]} does not belong to its present plan.")
        return found

    def model(self, result: Result) -> nn.Module:
        """The trained model of one run, in evaluation mode, on the CPU."""
        from ticketsmith.models.state import load
        from ticketsmith.pruning.weights import renewed
        from ticketsmith.tasks.build import build_model
        from ticketsmith.training.start import read_weights

        model = build_model(self._task)
        load(model, read_weights(self._sealed(result)))
        return renewed(model.eval())

    def judge(self) -> Findings:
        """Judges every level of every variant, and writes ``gates.json``."""
        from ticketsmith.report.gates import document

        self.store.put(f"{self.name}/gates.json", to_json(document(self.findings)))
        return self.findings

    def time_inference(
        self,
        settings: Settings | None = None,
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
        rate = _rate(machine)
        seed = next((r.seed for r in self.results if r.variant == "dense" and not r.diverged), None)
        runs = [r for r in self.results if r.seed == seed and not r.diverged and r.draw == 0]
        before = None if force else self.benchmark
        sizes = self.recipe.benchmark.batch_sizes if settings is None else settings.batch_sizes
        wanted = {(r.variant, r.level, r.seed, size) for r in runs for size in sizes}
        if before is not None and {r.key for r in runs} >= _keys(before) and wanted <= _places(before):
            if rate is None or rate == before.machine_rate:
                return before
            benchmark = dataclasses.replace(before, machine_rate=rate)
        else:
            benchmark = dataclasses.replace(self._measure(runs, settings, progress), machine_rate=rate)
        self.store.put(f"{self.name}/benchmark.json", to_json(serving.to_json(benchmark)))
        self.__dict__.pop("findings", None)  # they hold the benchmark
        return benchmark

    def compare_with_dense(
        self,
        key: str,
        settings: Settings | None = None,
        *,
        machine: str | Rate | None = None,
        progress: Progress = lambda what, done, total: None,
    ) -> Benchmark:
        """Measures inference of one run against the dense run of its replicate; writes nothing."""
        rate = _rate(machine)
        run = self.result(key)
        dense = [r for r in self.results if r.variant == "dense" and r.seed == run.seed]
        benchmark = self._measure([*dense, run], settings or Settings(), progress)
        return dataclasses.replace(benchmark, machine_rate=rate)

    def _measure(self, runs: Sequence[Result], settings: Settings | None, progress: Progress) -> Benchmark:
        from ticketsmith.inference import suite
        from ticketsmith.inference.measuring.lineup import Candidate
        from ticketsmith.inference.measuring.measure import Contest
        from ticketsmith.inference.onnx_file import noted
        from ticketsmith.tasks.build import single_example
        from ticketsmith.tasks.task import serving
        from ticketsmith.training.device import check_device

        short = Settings(
            batch_sizes=self.recipe.benchmark.batch_sizes,
            rounds=self.recipe.benchmark.rounds,
            budget=BENCHMARK_SECONDS,
        )
        chosen = settings or short
        check_device(chosen.device)
        candidates = [
            Candidate(r.variant, r.level, r.seed, r.key, r.sparsity, noted(self.model(r), r))
            for r in sorted(runs, key=lambda run: (run.variant != "dense", run.variant != "ticket"))
            if not r.diverged
        ]
        if not candidates or candidates[0].variant != "dense":
            raise TicketSmithError(f"{self.name}: there is no sealed dense run to compare with.")
        return suite.run(
            Contest(candidates[0], candidates, partial(single_example, self._task), serving(self._task)),
            chosen,
            quick=settings is None,
            progress=progress,
        )

    def report(self) -> str:
        """Writes the report into the store, ``<experiment>/report/``; gives the page's place."""
        from ticketsmith.report.gallery import runs_to_show
        from ticketsmith.report.render import render

        samples = collect.read_samples(self._view, runs_to_show(self.findings))
        for name, content in render(self.findings, samples).items():
            self.store.put(f"{self.name}/report/{name}", content)
        return f"{self.store.url}/{self.name}/report/index.html"

    @cached_property
    def _task(self) -> Any:
        from ticketsmith.tasks.task import create

        try:
            return create(self.recipe.task_component, self.recipe.base)
        except TicketSmithError as error:
            raise type(error)(
                f"{error}\nOwn modules and data of the recipe were looked for in {self.recipe.base}; name another folder by "
                "`--base` (in Python: `base=`)."
            ) from error

    def _sealed(self, result: Result) -> SealedRun:
        folder = RunFolder.parse(result.path)
        assert folder is not None
        return SealedRun(self.store, folder)


def _keys(benchmark: Benchmark) -> set[str]:
    return {timing.key for timing in benchmark.timings}


def _places(benchmark: Benchmark) -> set[tuple[str, int, int, int]]:
    """What was measured, or could not be: variant, level, seed and batch size."""
    rows: list[Timing | Refusal] = [*benchmark.timings, *benchmark.refusals]
    return {(row.variant, row.level, row.seed, row.batch_size) for row in rows}


def _rate(machine: str | Rate | None) -> Rate | None:
    return lookup(machine) if isinstance(machine, str) else machine


def _facts(recipe: Recipe) -> dict[str, str]:
    task, training, pruning = recipe.task_component, recipe.training, recipe.pruning
    facts = {"Task": _named(task)}
    facts |= {part.capitalize(): _named(task[part]) for part in ("data", "model") if part in task}
    return facts | {
        "Training": f"{training.optimizer}, learning rate {training.lr:g} ({training.schedule}), batch "
        f"{training.batch_size}, {training.duration}",
        "Pruning": f"{_named(recipe.criterion)}, {', '.join(pruning.pattern)} pattern"
        if pruning.pattern
        else f"{_named(recipe.criterion)}, {pruning.scope} scope, {pruning.fraction:.0%} a round, {pruning.levels} rounds",
        **({"Rewound to": recipe.rewind} if recipe.variants.ticket or recipe.variants.one_shot else {}),
        "Replicates": str(recipe.replicates),
    }


def _named(component: str | dict[str, Any]) -> str:
    if isinstance(component, str):
        return component
    options = ", ".join(f"{k}={v}" for k, v in component.items() if k not in ("name", "data", "model"))
    return f"{component['name']} ({options})" if options else str(component["name"])
