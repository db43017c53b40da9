"""What a store holds of one experiment: read lazily, and nothing is written."""

from __future__ import annotations

import dataclasses
import json
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ticketsmith import collect, search
from ticketsmith.candidates import shelf
from ticketsmith.config import Recipe
from ticketsmith.config.load import parse_recipe
from ticketsmith.errors import Exit, StoreError, TicketSmithError, gravest
from ticketsmith.evidence import serving
from ticketsmith.evidence.findings import Findings, conclude
from ticketsmith.evidence.looks import Record, with_history
from ticketsmith.evidence.payoff import payoffs
from ticketsmith.evidence.results import Result
from ticketsmith.evidence.scorecard import Scorecard
from ticketsmith.evidence.search import Path as SearchPath
from ticketsmith.evidence.serving import Benchmark
from ticketsmith.evidence.variants import DENSE, TICKET
from ticketsmith.evidence.verdicts import GatePolicy, Status, SweetSpot
from ticketsmith.execute.executor import Outcome
from ticketsmith.plan import Plan
from ticketsmith.prices import Rate, lookup
from ticketsmith.store.contract import RunFolder, SealedRun, Store
from ticketsmith.store.index import Index
from ticketsmith.store.snapshot import Snapshot

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn


class ExperimentReader:
    """One experiment of a store. ``outcome`` is what came of training it here; ``plan`` is read, and ``task`` built, unless they
    are handed in.
    """

    def __init__(
        self,
        store: Store,
        name: str,
        recipe: Recipe | None = None,
        base: str | Path = ".",
        plan: Plan | None = None,
        outcome: Outcome | None = None,
        task: Any = None,
    ) -> None:
        self.store, self.name, self._base = store, name, Path(base)
        self.outcome = outcome or Outcome()
        self._recipe = recipe
        self._findings: Findings | None = None
        if plan is not None:
            self.plan = plan  # its own, whatever another process writes meanwhile
        if task is not None:
            self.task = task

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

    def renew(self) -> None:
        """Forgets what was read, but for the plan and the recipe: the store holds something new."""
        for name in ("view", "index", "results", "path"):
            self.__dict__.pop(name, None)
        self._findings = None

    @cached_property
    def view(self) -> Snapshot:
        """The experiment's files, as of the first look."""
        return collect.view(self.store, self.name)

    @cached_property
    def index(self) -> Index:
        """What is sealed of the experiment, as of the first look."""
        return Index(self.view)

    @cached_property
    def results(self) -> list[Result]:
        """Every sealed run of the plan. Raises DamagedRunError when one was changed."""
        return collect.read_results(self.index, self.plan)

    @cached_property
    def path(self) -> SearchPath | None:
        """How far its search has come; None when it is a full grid."""
        return search.path(self.recipe, self.results, self.policy) if self.recipe.search else None

    @property
    def exit_status(self) -> Exit:
        """What a pipeline should know: the gravest of what happened while training and of what the store holds."""
        happened = [self.outcome.exit_status]
        sealed = self.index.statuses(self.plan.by_key, self.name)  # rewind points too, which are no results
        diverged = {key for key, status in sealed.items() if status == "diverged"}
        lost = self.plan.needing({*diverged, *self.outcome.diverged})  # missing for good: their cause is told, not they
        goes_on = self.path is not None and not self.path.over
        if goes_on or any(node.key not in lost and node.key not in sealed for node in self.plan.results):
            happened.append(Exit.INCOMPLETE)
        if diverged:
            happened.append(Exit.DIVERGED)
        elif self.results:
            target = self._concluded().target
            status = target[1] if target else Status.PASS
            if target is None and self._concluded().policy.target_sparsity is not None:
                frontier = self.path.frontier if self.path is not None and self.path.over else None
                if frontier is None:
                    happened.append(Exit.INCOMPLETE)
                else:  # the search ended before the target, which is beyond what did not pass
                    status = self._concluded().statuses.get((TICKET, frontier), Status.INCONCLUSIVE)
            judged = {Status.FAIL: Exit.GATE_FAILED, Status.INCONCLUSIVE: Exit.INCONCLUSIVE}
            happened.append(judged.get(status, Exit.OK))
        return gravest(happened)

    @cached_property
    def looks(self) -> list[Record]:
        """What the store remembers of verdicts that were shown."""
        return collect.read_looks(self.view, self.name, self.results)

    @cached_property
    def policy(self) -> GatePolicy:
        """The recipe's gates, with the looks that were declared before the first verdict and those that were taken."""
        elsewhere = [] if self.recipe.search else collect.read_looks_elsewhere(self.store, self.name, self.results)
        return with_history(self.recipe.policy, [*elsewhere, *self.looks], self.results)

    @property
    def look(self) -> Record | None:
        """The look that the findings are; None where fewer than two seeds were compared at every level.

        Where no level has all of its seeds yet, nothing can pass, but what there is has been seen: it is a look at so many.
        """
        findings = self._concluded()
        own = [verdict for verdict in findings.test if verdict.variant == findings.subject]
        planned = len({node.seed for node in self.plan.results if node.variant == findings.subject})
        there = max((verdict.seeds for verdict in own), default=0)
        count = planned if any(verdict.look is not None for verdict in own) else there
        if count < 2 or findings.policy.method != "non-inferiority":
            return None
        dense = tuple(sorted(run.key for run in self.results if run.variant == DENSE))
        return Record(count, findings.policy.looks or (planned,), dense, findings.policy.gates)

    @property
    def findings(self) -> Findings:
        """All evidence: gates, sweet spot, statistics, cost. Raises TicketSmithError when there are no runs."""
        return self._concluded()

    def _concluded(self) -> Findings:
        if self._findings is None:
            self._findings = self._conclude()
        return self._findings

    def _conclude(self) -> Findings:
        recipe = self.recipe
        pods, unreadable = collect.read_pods(self.view, self.name)
        return conclude(
            self.name,
            self.results,
            self.policy,
            recipe_text=recipe.source,
            places=[(node.variant, node.level, node.seed, node.draw) for node in self.plan.results],
            benchmark=self.benchmark,
            facts=_facts(recipe),
            environment=collect.read_environment(self.index, self.plan),
            pods=pods,
            unreadable_pods=unreadable,
            served=shelf.served(self.view, self.name),
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
        return card if machine is None else dataclasses.replace(card, rate=rate_of(machine))

    def priced(self, machine: str | Rate | None = None) -> Findings:
        """The findings, with what serving costs and what the candidates say at the price of ``machine``, where one is given.

        Raises TicketSmithError when neither was measured.
        """
        findings, rate = self.findings, rate_of(machine)
        card = None if findings.scorecard is None and findings.choice is not None else self.scorecard(rate)
        choice = findings.choice
        if choice is None or rate is None:
            return dataclasses.replace(findings, scorecard=card)
        choice = dataclasses.replace(choice, rate=rate)
        return dataclasses.replace(
            findings, scorecard=card, choice=choice, payoffs=tuple(payoffs(choice, findings.cost))
        )

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
        sparsities = ", ".join(dict.fromkeys(f"{r.sparsity:.2%}" for r in sealed))
        if variant == DENSE:
            return sealed[0]
        if sparsity is None:
            spot = self.sweet_spot()
            if spot is None:
                raise TicketSmithError(
                    f"{self.name}: no level passes its gates; ask for a sparsity. {variant!r} runs of seed {seed} have "
                    f"{sparsities}."
                )
            at_spot = [r for r in sealed if r.level == spot.level]
            if at_spot:  # the very level that passed, and no sparser one
                return at_spot[0]
            sparsity = spot.sparsity
        sparse_enough = [r for r in sealed if r.sparsity >= sparsity - 5e-4]
        if not sparse_enough:
            raise TicketSmithError(
                f"{self.name}: no sealed {variant!r} run of seed {seed} has {sparsity:.1%} of its prunable weights removed, or "
                f"more. These have {sparsities}."
            )
        return sparse_enough[0]

    def result(self, key: str) -> Result:
        """The run of a key. Raises TicketSmithError when the present plan does not have it."""
        result = next((r for r in self.results if r.key == key), None)
        if result is None and key in self.plan.by_key:
            raise TicketSmithError(
                f"{self.name}: the run {key[:8]} is a rewind point: where others begin, and no result."
            )
        if result is None:
            raise TicketSmithError(f"{self.name}: the run {key[:8]} does not belong to its present plan.")
        return result

    def model(self, result: Result) -> nn.Module:
        """The trained model of one run, in evaluation mode, on the CPU."""
        from ticketsmith.models.state import load
        from ticketsmith.pruning.weights import renewed
        from ticketsmith.tasks.build import build_model
        from ticketsmith.training.start import read_weights

        model = build_model(self.task)
        load(model, read_weights(self.sealed(result)))
        return renewed(model.eval())

    @cached_property
    def task(self) -> Any:
        """The recipe's task, built here."""
        from ticketsmith.tasks.task import create

        try:
            return create(self.recipe.task_component, self.recipe.base)
        except TicketSmithError as error:
            raise type(error)(
                f"{error}\nOwn modules and data of the recipe were looked for in {self.recipe.base}; name another folder by "
                "`--base` (in Python: `base=`)."
            ) from error

    def sealed(self, result: Result) -> SealedRun:
        """The run of a result, with its files."""
        folder = RunFolder.parse(result.path)
        assert folder is not None
        return SealedRun(self.store, folder)


def rate_of(machine: str | Rate | None) -> Rate | None:
    """What an hour of a machine costs, which somebody named or says. Raises RecipeError for one without a price."""
    return lookup(machine) if isinstance(machine, str) else machine


def _facts(recipe: Recipe) -> dict[str, str]:
    task, training, pruning = recipe.task_component, recipe.training, recipe.pruning
    facts = {"Task": _named(task)}
    facts |= {part.capitalize(): _named(task[part]) for part in ("data", "model") if part in task}
    whole = "" if pruning.structure == "unstructured" else f", whole {pruning.structure}s"
    if pruning.block:
        whole = ", blocks of {} x {} (outputs x inputs)".format(*pruning.block)
    rounds = f"{pruning.scope} scope{whole}, {pruning.fraction:.0%} a round, {pruning.levels} rounds"
    return facts | {
        "Training": f"{training.optimizer}, learning rate {training.lr:g} ({training.schedule}), batch "
        f"{training.batch_size}, {training.duration}",
        "Pruning": f"{_named(recipe.criterion)}, "
        + (f"{', '.join(pruning.patterns)} pattern" if pruning.patterns else rounds),
        **({"Rewound to": recipe.rewind} if recipe.variants.ticket or recipe.variants.one_shot else {}),
        "Replicates": str(recipe.replicates),
    }


def _named(component: str | dict[str, Any]) -> str:
    if isinstance(component, str):
        return component
    options = ", ".join(f"{k}={v}" for k, v in component.items() if k not in ("name", "data", "model"))
    return f"{component['name']} ({options})" if options else str(component["name"])
