"""A search in a store: what is sealed of it, how far it has come, and the plan that grows with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path as FilePath
from typing import Protocol

from ticketsmith import collect, search
from ticketsmith.config import Recipe
from ticketsmith.config.load import parse_recipe
from ticketsmith.evidence.looks import with_history
from ticketsmith.evidence.results import Place, Result
from ticketsmith.evidence.search import Move, Path
from ticketsmith.execute.executor import Outcome
from ticketsmith.plan import Plan
from ticketsmith.store.contract import Store
from ticketsmith.store.index import Index

Tell = Callable[[Path, Move], None]
"""Hears of a move, when it begins and when it is judged."""


class Pursuit:
    """One recipe's search; ``whole`` are all runs that it may ask for. What is sealed is read once."""

    def __init__(self, recipe: Recipe, whole: Plan, index: Index) -> None:
        self.recipe, self.whole, self.index = recipe, whole, index
        self._results: dict[Place, Result] = {}

    def look(self) -> tuple[Path, Plan]:
        """How far the search has come by now, and the runs that it has asked for."""
        self.index.refresh()
        new = [
            node for node in self.whole.nodes if (node.variant, node.level, node.seed, node.draw) not in self._results
        ]
        fresh = collect.read_results(self.index, replace(self.whole, nodes=tuple(new)))
        results = [*self._results.values(), *fresh]
        records = collect.read_looks(self.index.store, self.whole.experiment, results)
        so_far = search.path(self.recipe, results, with_history(self.recipe.policy, records, results))
        self._results |= {
            run.place: run for run in fresh if run.bill
        }  # what a run cost may come a moment after its seal
        return so_far, search.part(self.whole, so_far)


def growth_of(recipe: Recipe) -> Callable[[Plan, Index], Plan]:
    """Gives the part of a whole plan that the recipe's search has asked for."""
    return lambda whole, index: Pursuit(recipe, whole, index).look()[1]


def growth(store: Store, experiment: str) -> Callable[[Plan, Index], Plan]:
    """For those who have only the store: gives the part of a whole plan that the stored recipe's search has asked for."""
    text = b""
    pursuit: Pursuit | None = None

    def grow(whole: Plan, index: Index) -> Plan:
        nonlocal text, pursuit
        now = store.get(f"{experiment}/recipe.yaml") or b""
        if pursuit is None or now != text or pursuit.whole != whole:
            recipe = parse_recipe(now.decode(), f"{store.url}/{experiment}/recipe.yaml", FilePath())
            text, pursuit = now, Pursuit(recipe, whole, index)
        return pursuit.look()[1]

    return grow


class Runner(Protocol):
    """An executor that tells what came of a plan."""

    @property
    def outcome(self) -> Outcome:
        """What came of the last one."""
        ...

    def submit(self, plan: Plan) -> None:
        """Takes a plan."""
        ...

    def wait(self) -> object:
        """Makes it."""
        ...


def follow(pursuit: Pursuit, runner: Runner, store: Store, tell: Tell) -> tuple[Plan, Outcome]:
    """Makes what the search asks for until it is over, or something stops it. ``plan.json`` grows before each of its parts.

    Gives all runs that it has asked for, and what came of them.
    """
    trained, outcome = 0, Outcome()
    before: Path | None = None
    while True:
        path, plan = pursuit.look()
        store.put(f"{plan.experiment}/plan.json", plan.to_bytes())
        for old, move in zip(_padded(before, len(path.moves)), path.moves, strict=True):
            if move != old:
                tell(path, move)
        if path.over or path == before or outcome.failed or outcome.interrupted or outcome.fatal:
            return plan, outcome
        runner.submit(plan)
        runner.wait()
        outcome = runner.outcome
        outcome.cached -= trained
        trained += outcome.trained
        outcome.trained = trained
        before = path


def _padded(path: Path | None, count: int) -> list[Move | None]:
    moves = path.moves if path else ()
    return [*islice(moves, count), *[None] * (count - len(moves))]
