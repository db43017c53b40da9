"""Commands that read a store: status, gate, report, verify. Nothing here trains."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ticketsmith.cli import options
from ticketsmith.cli.opened import experiments, say_verdict
from ticketsmith.errors import DamagedRunError, Exit, TicketSmithError, gravest

if TYPE_CHECKING:
    from ticketsmith.store.contract import Store


@click.command()
@options.runs_prefix
@options.experiment
@click.option(
    "--target", metavar="FILE", help="A cluster: its Jobs too, and why one waits; runs are those of its store."
)
@options.as_json
def status(runs_prefix: str, experiment: str | None, target: str | None, as_json: bool) -> None:
    """Show the runs of every experiment: sealed, in part, missing, diverged. With --target: the Jobs on a cluster too."""
    from ticketsmith.cli.spending import jobs_table
    from ticketsmith.evidence.results import finite
    from ticketsmith.evidence.size import size_of
    from ticketsmith.execute.schedule import statuses

    jobs: list[dict[str, object]] = []
    if target is not None:
        runs_prefix, experiment, jobs = jobs_table(target, experiment, as_json)
    listed = []
    for found in experiments(runs_prefix, experiment):
        states = statuses(found.plan, found.store, found.index)
        results = {result.key: result for result in found.results}
        for node in found.plan.results:
            result = results.get(node.key)
            listed.append(
                {
                    "experiment": found.name,
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
    if as_json:
        options.print_json(listed if target is None else {"jobs": jobs, "runs": listed})
        return
    for name in dict.fromkeys(str(row["experiment"]) for row in listed):
        rows = [row for row in listed if row["experiment"] == name]
        sealed = sum(row["status"] in ("trained", "diverged") for row in rows)
        shown = [
            {
                "variant": str(row["variant"]),
                "level": str(row["level"]),
                "seed": str(row["seed"]),
                "key": str(row["key"])[:8],
                "status": str(row["status"]),
                "sparsity": "" if row["sparsity"] is None else f"{row['sparsity']:.2%}",
                "of network": "" if row["network_sparsity"] is None else f"{row['network_sparsity']:.2%}",
                "test": ", ".join(f"{k} {v:.4g}" if v is not None else f"{k} -" for k, v in row["test"].items())
                if isinstance(row["test"], dict)
                else "",
                "seconds": "" if row["seconds"] is None else f"{row['seconds']:.1f}",
            }
            for row in rows
        ]
        options.print_table(shown, f"{name}: {sealed} of {len(rows)} runs sealed")


@click.command()
@options.runs_prefix
@options.experiment
@click.option("--config", metavar="FILE", help="Judge by the gates of this recipe instead of the stored one.")
@options.as_json
def gate(runs_prefix: str, experiment: str | None, config: str | None, as_json: bool) -> int:
    """Judge every level of every variant by its gates; the exit status is for pipelines."""
    from ticketsmith.api import Experiment
    from ticketsmith.config import load_recipe

    recipe = load_recipe(config) if config else None
    ends, documents = [], []
    for found in experiments(runs_prefix, experiment or (recipe.experiment if recipe else None)):
        judged = Experiment(found.store, found.name, recipe) if recipe else found
        findings = judged.findings if recipe else judged.judge()  # gates that are only tried are not written down
        ends.append(judged.exit_status)
        rows = [
            {
                "experiment": found.name,
                "variant": verdict.variant,
                "level": verdict.level,
                "sparsity": verdict.sparsity,
                "network_sparsity": verdict.network_sparsity,
                "prunable": findings.size.prunable,
                "parameters": findings.size.parameters,
                "metric": verdict.gate.metric,
                "margin": verdict.gate.margin,
                "relative": verdict.gate.relative,
                "status": verdict.status.value,
                "estimate": verdict.estimate,
                "bound": verdict.bound,
                "worst": verdict.worst,
                "worst_seed": verdict.worst_seed,
                "replicates": verdict.replicates,
                "seeds": verdict.seeds,
                "diverged": list(verdict.diverged),
                "missing": list(verdict.missing),
                "reason": verdict.reason,
            }
            for verdict in findings.test
        ]
        documents += rows
        if not as_json:
            shown = [
                {
                    "variant": str(row["variant"]),
                    "level": str(row["level"]),
                    "sparsity": f"{row['sparsity']:.2%}",
                    "of network": "" if row["network_sparsity"] is None else f"{row['network_sparsity']:.2%}",
                    "gate": str(row["status"]),
                    "metric": str(row["metric"]),
                    "margin": f"{row['margin']:g}",
                    "worse by": "" if row["estimate"] is None else f"{row['estimate']:.3f}",
                    "bound": "" if row["bound"] is None else f"{row['bound']:.3f}",
                    "worst": "" if row["worst"] is None else f"{row['worst']:.3f}",
                    "n": str(row["replicates"]),
                }
                for row in rows
            ]
            options.print_table(
                shown, f"{found.name}: gates on the test split; sparsity is that of the prunable weights"
            )
            say_verdict(judged)
    if as_json:
        options.print_json(documents)
    return int(gravest(ends))


@click.command()
@options.runs_prefix
@options.experiment
@options.as_json
def report(runs_prefix: str, experiment: str | None, as_json: bool) -> int:
    """Write the report of every experiment below a folder, and a page that compares them."""
    from ticketsmith.report.render import render_comparison

    told, found, pages = [], [], {}
    for one in experiments(runs_prefix, experiment):
        try:
            one.judge()
            pages[one.name] = one.report()
        except TicketSmithError as error:  # the others are reported all the same
            told.append(error)
            click.echo(f"{one.name}: {error}", err=True)
            continue
        found.append(one)
        if not as_json:
            say_verdict(one)
            click.echo(f"report: {pages[one.name]}")
    if len(found) > 1:
        store = found[0].store
        for name, content in render_comparison([one.findings for one in found]).items():
            store.put(f"report/{name}", content)
        pages["comparison"] = f"{store.url}/report/index.html"
        if not as_json:
            click.echo(f"comparison: {pages['comparison']}")
    if as_json:
        options.print_json(pages)
    return int(gravest(error.exit_status for error in told))


@click.command()
@options.runs_prefix
@options.experiment
@options.as_json
def verify(runs_prefix: str, experiment: str | None, as_json: bool) -> int:
    """Re-hash every file of every sealed run against its manifest, and find files that nobody sealed.

    A spec that is not the one of the run's key is found too. The exit status is 5 when any run is damaged.
    """
    from ticketsmith.store.contract import RunFolder, SealedRun
    from ticketsmith.store.parallel import each

    damaged, count = [], 0
    for found in experiments(runs_prefix, experiment):
        store, folders = found.store, found.store.folders(found.name)
        present: dict[str, list[str]] = {}  # by one listing
        for file in store.files(found.name):
            *run, name = file.path.split("/", 4)
            present.setdefault("/".join(run), []).append(name)

        def problem(folder: RunFolder, store: Store = store, present: dict[str, list[str]] = present) -> str | None:
            try:
                SealedRun(store, folder).verify(present.get(str(folder), ()))
            except DamagedRunError as error:
                return str(error)
            return None

        problems = zip(folders, each(problem, folders), strict=True)
        damaged += [{"run": str(folder), "problem": text} for folder, text in problems if text is not None]
        count += len(folders)
    if as_json:
        options.print_json({"runs": count, "damaged": damaged})
    else:
        for entry in damaged:
            click.echo(f"damaged: {entry['problem']}", err=True)
        click.echo(f"{count} sealed runs, {len(damaged)} damaged")
    return int(Exit.INCOMPLETE if damaged else Exit.OK)
