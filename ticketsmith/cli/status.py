"""The command that shows every run: once, or again and again until all are sealed."""

from __future__ import annotations

import contextlib
import io
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from ticketsmith.cli import options
from ticketsmith.cli.opened import experiments
from ticketsmith.errors import StoreError

if TYPE_CHECKING:
    from ticketsmith.evidence.search import Path

Row = dict[str, Any]


@dataclass
class View:
    """What is there of some experiments: a row a run, and the path of those that are a search."""

    runs: list[Row] = field(default_factory=list)
    searches: dict[str, Path] = field(default_factory=dict)

    @property
    def is_over(self) -> bool:
        """Whether nothing is to come."""
        open_ = any(not path.over for path in self.searches.values())
        return not open_ and all(row["status"] in ("trained", "diverged") for row in self.runs)


@click.command()
@options.runs_prefix
@options.experiment
@click.option(
    "--target",
    type=options.file,
    metavar="FILE",
    help="A cluster: its Jobs too, and why one waits; runs are those of its store.",
)
@click.option("-w", "--watch", is_flag=True, help="Show it again as it changes, until every run is sealed.")
@click.option(
    "--interval", type=click.FloatRange(0.1), help="Seconds between two looks.  [default: 2, of a cluster or cloud 10]"
)
@options.as_json
def status(
    runs_prefix: str, experiment: str | None, target: str | None, watch: bool, interval: float | None, as_json: bool
) -> None:
    """Show the runs of every experiment: sealed, in part, missing, diverged. With --target: the Jobs on a cluster too."""
    from ticketsmith.cli.jobs import jobs_table
    from ticketsmith.store.address import AZURE

    if watch and as_json:
        raise click.UsageError("--watch is for people: leave out --json, or ask again and again.")

    def look() -> View:
        prefix, name = runs_prefix, experiment
        jobs: list[Row] = []
        if target is not None:
            prefix, name, jobs = jobs_table(target, experiment, as_json)
        view = _view(prefix, name)
        if as_json:
            options.print_json(view.runs if target is None else {"jobs": jobs, "runs": view.runs})
        else:
            _show(view, few=watch)
        return view

    if watch:
        far = target is not None or runs_prefix.startswith(AZURE)
        _watch(look, interval or (10.0 if far else 2.0))
    else:
        look()


def _view(prefix: str, name: str | None) -> View:
    from ticketsmith.evidence.results import finite
    from ticketsmith.evidence.size import size_of
    from ticketsmith.execute.executor import statuses

    view = View()
    for one in experiments(prefix, name):
        if one.path is not None:
            view.searches[one.name] = one.path
        states = statuses(one.plan, one.store, one.index)
        results = {result.key: result for result in one.results}
        for node in one.plan.results:
            result = results.get(node.key)
            view.runs.append(
                {
                    "experiment": one.name,
                    "variant": node.variant,
                    "level": node.level,
                    "seed": node.seed,
                    "draw": node.draw,
                    "key": node.key,
                    "status": states[node.key],
                    "sparsity": result.sparsity if result else None,
                    "network_sparsity": size_of([result]).network_sparsity if result else None,
                    "test": finite(result.final.test) if result and result.final else None,
                    "seconds": result.seconds if result else None,
                }
            )
    return view


def _show(view: View, few: bool) -> None:
    """A table an experiment: a row a run or, where only a ``few`` rows fit the terminal, a row a level."""
    from ticketsmith.report.sentences.search import progress

    for name in dict.fromkeys(str(row["experiment"]) for row in view.runs):
        rows = [row for row in view.runs if row["experiment"] == name]
        sealed = sum(row["status"] in ("trained", "diverged") for row in rows)
        shown = list(map(_cells, rows))
        if few and len(shown) > options.height() - 8:
            shown = _by_level(rows)
        options.print_table(shown, f"{name}: {sealed} of {len(rows)} runs sealed")
        if name in view.searches:
            for line in progress(view.searches[name]):
                click.echo(line)


def _cells(row: Row) -> dict[str, str]:
    wide = options.is_wide()
    return {
        "variant": str(row["variant"]),
        "level": str(row["level"]),
        "seed": str(row["seed"]),
        **({"draw": str(row["draw"])} if wide else {}),
        "key": str(row["key"]) if wide else str(row["key"])[:8],
        "status": str(row["status"]),
        "sparsity": "" if row["sparsity"] is None else f"{row['sparsity']:.2%}",
        "of network": "" if row["network_sparsity"] is None else f"{row['network_sparsity']:.2%}",
        "test": ", ".join(f"{k} {v:.4g}" if v is not None else f"{k} -" for k, v in row["test"].items())
        if isinstance(row["test"], dict)
        else "",
        "seconds": "" if row["seconds"] is None else f"{row['seconds']:.1f}",
    }


def _by_level(rows: Sequence[Row]) -> list[dict[str, str]]:
    levels: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        levels.setdefault((row["variant"], row["level"]), []).append(row)
    shown = []
    for (variant, level), own in levels.items():
        counts = {state: sum(row["status"] == state for row in own) for state in ("in part", "missing", "diverged")}
        sparsity = next((row["sparsity"] for row in own if row["sparsity"] is not None), None)
        shown.append(
            {
                "variant": variant,
                "level": str(level),
                "sealed": f"{sum(row['status'] in ('trained', 'diverged') for row in own)} of {len(own)}",
                **{state: str(count) if count else "" for state, count in counts.items()},
                "sparsity": "" if sparsity is None else f"{sparsity:.2%}",
            }
        )
    return shown


def _watch(look: Callable[[], View], interval: float) -> None:
    """Looks until everything is sealed. On a terminal the table is drawn anew; elsewhere a line a run that changed."""
    if not sys.stdout.isatty():
        _follow(look, interval)
        return
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console()
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        while True:
            frame, view = io.StringIO(), None
            with options.drawn_into(frame, console):
                try:
                    view = look()
                except StoreError as error:  # far away it may be out of reach for a while
                    click.echo(f"{error}\nLooking again in {interval:g} s.")
                if view is not None and not view.is_over:
                    click.echo(
                        f"{time.strftime('%H:%M:%S')}, every {interval:g} s; Ctrl-C ends this view and nothing else"
                    )
            live.update(Text.from_ansi(frame.getvalue()), refresh=True)
            if view is not None and view.is_over:
                return
            time.sleep(interval)


def _follow(look: Callable[[], View], interval: float) -> None:
    before: dict[tuple[Any, ...], str] = {}
    while True:
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                view = look()
        except StoreError as error:
            click.echo(f"{error}", err=True)
            time.sleep(interval)
            continue
        for row in view.runs:
            place = tuple(row[name] for name in ("experiment", "variant", "level", "seed", "draw"))
            if before.get(place) != row["status"] and (before or row["status"] != "missing"):
                click.echo(
                    f"{time.strftime('%H:%M:%S')} {row['experiment']}: {options.name_of_run(row)}: {row['status']}"
                )
            before[place] = row["status"]
        if view.is_over:
            return
        time.sleep(interval)
