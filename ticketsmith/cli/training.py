"""Commands that train."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import click

from ticketsmith.cli import options
from ticketsmith.errors import RecipeError, gravest

if TYPE_CHECKING:
    from ticketsmith.api import Experiment
    from ticketsmith.cli.progress import OneLine


_benchmark = click.option("--benchmark/--no-benchmark", default=True, help="Measure inference speed at the end.")


@click.command()
@options.training
def train(**how: Any) -> int:
    """Train the dense baselines only, one for each seed."""
    _keep_to_one_thread()
    experiment = _train(("dense",), **how)
    _say_outcome(experiment)
    for result in (result for result in experiment.results if result.variant == "dense"):
        final = result.final
        measured = (
            "diverged"
            if final is None
            else ", ".join(f"test {name} {value:.4g}{result.metrics[name].unit}" for name, value in final.test.items())
        )
        click.echo(f"{result.variant} seed {result.seed}: {measured}  {experiment.store.url}/{result.path}")
    return int(experiment.outcome.exit_status)


@click.command()
@options.overrides
@options.store
@options.workers
@_benchmark
def demo(overrides: Sequence[str], store: str | None, workers: int | None, benchmark: bool) -> int:
    """Run a whole experiment in a minute: tickets of a small network on MNIST, both controls, a report.

    Its recipe is stored beside its runs, to begin one of your own from.
    """
    from importlib.resources import as_file, files

    from ticketsmith.api import finish
    from ticketsmith.cli.opened import say_verdict
    from ticketsmith.cli.progress import OneLine
    from ticketsmith.native import available

    if not available():
        overrides = ["training.kernels=torch", *overrides]
    with as_file(files("ticketsmith.config").joinpath("demo.yaml")) as recipe, OneLine() as line:
        experiment = _train(
            None,
            config=str(recipe),
            overrides=overrides,
            store=store,
            search=False,
            workers=workers,
            device="auto",
            checkpoint_every=30.0,
            machine=None,
            executor="local",
            line=line,
        )
        page = finish(experiment, benchmark, line.tell)
    if experiment.outcome.exit_status:
        _say_outcome(experiment)
    if page is not None:
        say_verdict(experiment)
        _say_unmeasured(experiment, benchmark)
        click.echo(f"report: {page}")
        click.echo(f"recipe: {experiment.store.url}/{experiment.name}/recipe.yaml")
    return int(experiment.exit_status)


@click.command()
@options.training
@_benchmark
def prune(benchmark: bool, **how: Any) -> int:
    """Run a whole experiment: dense, tickets, controls, gates, benchmark, report.

    What is in the store already is not trained again; after an interruption the same command goes on. With --search, only
    what the sweet spot asks for is made.
    """
    _keep_to_one_thread()
    from ticketsmith.api import finish
    from ticketsmith.cli.opened import say_verdict
    from ticketsmith.cli.progress import note
    from ticketsmith.cli.track import tell

    experiment = _train(None, **how)
    _say_outcome(experiment)
    page = finish(experiment, benchmark, note, how["machine"])
    if page is not None:
        say_verdict(experiment)
        _say_unmeasured(experiment, benchmark)
        click.echo(f"report: {page}")
        statuses = [tell(experiment, tracker) for tracker in experiment.recipe.track]
        return int(gravest([experiment.exit_status, *statuses]))
    return int(experiment.exit_status)


def _say_unmeasured(experiment: Experiment, benchmark: bool) -> None:
    """What speeds lack, the sparse runtime where it has no kernels: a report without it has another answer."""
    measured = experiment.benchmark if benchmark else None
    if measured is not None and (lacking := measured.machine.get("not offered")):
        click.echo(f"not measured: {lacking}", err=True)


def _keep_to_one_thread() -> None:
    """Before what starts threads is imported: a process of one can be forked, with all that it has loaded."""
    from ticketsmith.execute.worker import THREADS

    for name in THREADS:
        os.environ.setdefault(name, "1")


def _train(
    variants: tuple[str, ...] | None,
    *,
    config: str,
    overrides: Sequence[str],
    store: str | None,
    search: bool,
    workers: int | None,
    device: str,
    checkpoint_every: float,
    machine: str | None,
    executor: Literal["local", "debug"],
    line: OneLine | None = None,
) -> Experiment:
    from ticketsmith import api
    from ticketsmith.cli.progress import note, view
    from ticketsmith.prices import lookup
    from ticketsmith.store import open_store
    from ticketsmith.store.index import Index

    if executor == "debug" and workers is not None:
        raise RecipeError("--workers: the debug executor makes one run after the other; leave it out.")
    rate = None if machine is None else lookup(machine)
    recipe = options.read_recipe(config, overrides, store, search)
    if variants is None:
        api.check_trackers(recipe)
    (line.tell if line else note)(f"{recipe.experiment}: reading data, checking the model ...")
    prepared = api.prepare(recipe)
    plan = prepared.plan if variants is None else prepared.plan.only(variants)
    index = Index(open_store(recipe.store_component))
    sealed = index.statuses(plan.by_key, plan.experiment)
    lines = executor == "debug"  # a debugger needs the terminal
    with line.view(prepared, plan, sealed) if line else view(prepared, plan, sealed, lines) as on_event:
        return api.train(
            prepared,
            workers=workers,
            device=device,
            variants=variants,
            checkpoint_every=checkpoint_every,
            on_event=on_event,
            machine=rate,
            index=index,
            executor=executor,
            forked=True,
        )


def _say_outcome(experiment: Experiment) -> None:
    from ticketsmith.cli.progress import name_of, note

    outcome = experiment.outcome

    def name(key: str) -> str:
        return f"{name_of(experiment.plan, key)} ({key[:8]})" if key else experiment.name

    note(f"{outcome.trained} trained, {outcome.cached} cached")
    for key in outcome.diverged:
        note(f"diverged: {name(key)}: a loss is not finite")
    causes: dict[str, list[str]] = {}
    for key, message in outcome.failed.items():
        causes.setdefault(message, []).append(key)
    for message, keys in causes.items():
        more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
        note(f"failed: {name(keys[0])}{more}: {message}")
    if outcome.blocked:
        note(f"not made, since a run that they need is missing: {len(outcome.blocked)}")
    if outcome.interrupted:
        note("interrupted; nothing is lost: the same command goes on from here")
