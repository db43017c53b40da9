"""Commands that read a store: gate, report, verify. Nothing here trains."""

from __future__ import annotations

import dataclasses
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
@click.option("--config", metavar="FILE", help="Judge by the gates of this recipe instead of the stored one.")
@options.as_json
def gate(runs_prefix: str, experiment: str | None, config: str | None, as_json: bool) -> int:
    """Judge every level of every variant by its gates; the exit status is for pipelines."""
    from ticketsmith.api import Experiment
    from ticketsmith.config import load_recipe
    from ticketsmith.report.gates import search_document
    from ticketsmith.report.sentences.verdicts import reason

    recipe = load_recipe(config) if config else None
    statuses, documents = [], []
    for one in experiments(runs_prefix, experiment or (recipe.experiment if recipe else None)):
        judged = Experiment(one.store, one.name, recipe) if recipe else one
        findings = judged.findings if recipe else judged.judge()  # gates that are only tried are not written down
        statuses.append(judged.exit_status)
        rows = [
            {
                "experiment": one.name,
                **{name: getattr(verdict, name) for name in ("variant", "level", "sparsity", "network_sparsity")},
                "prunable": findings.size.prunable,
                "parameters": findings.size.parameters,
                "metric": verdict.gate.metric,
                "margin": verdict.gate.margin,
                "relative": verdict.gate.relative,
                "status": verdict.status.value,
                **{
                    name: getattr(verdict, name)
                    for name in (
                        "estimate",
                        "bound",
                        "worst",
                        "worst_seed",
                        "replicates",
                        "seeds",
                        "look",
                        "looks",
                        "declared",
                        "error",
                        "replicates_needed",
                    )
                },
                "examples": dataclasses.asdict(verdict.examples) if verdict.examples else None,
                "diverged": list(verdict.diverged),
                "missing": list(verdict.missing),
                "reason": reason(verdict, findings.metrics[verdict.gate.metric], findings.policy),
            }
            for verdict in findings.test
        ]
        documents += rows
        if judged.path is not None:
            documents.append({"experiment": one.name, "search": search_document(findings, judged.path)})
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
            options.print_table(shown, f"{one.name}: gates on the test split; sparsity is that of the prunable weights")
            say_verdict(judged)
    if as_json:
        options.print_json(documents)
    return int(gravest(statuses))


@click.command()
@options.runs_prefix
@options.experiment
@options.as_json
def report(runs_prefix: str, experiment: str | None, as_json: bool) -> int:
    """Write the report of every experiment below a folder, and a page that compares them."""
    from ticketsmith.report.render import render_comparison

    errors, reported, pages = [], [], {}
    for one in experiments(runs_prefix, experiment):
        try:
            one.judge()
            pages[one.name] = one.report()
        except TicketSmithError as error:  # the others are reported all the same
            errors.append(error)
            click.echo(f"{one.name}: {error}", err=True)
            continue
        reported.append(one)
        if not as_json:
            say_verdict(one)
            click.echo(f"report: {pages[one.name]}")
    if len(reported) > 1:
        store = reported[0].store
        for name, content in render_comparison([one.findings for one in reported]).items():
            store.put(f"report/{name}", content)
        pages["comparison"] = f"{store.url}/report/index.html"
        if not as_json:
            click.echo(f"comparison: {pages['comparison']}")
    if as_json:
        options.print_json(pages)
    return int(gravest(error.exit_status for error in errors))


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
    for one in experiments(runs_prefix, experiment):
        store, folders = one.store, one.store.folders(one.name)
        present: dict[str, list[str]] = {}  # by one listing
        for file in store.files(one.name):
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
