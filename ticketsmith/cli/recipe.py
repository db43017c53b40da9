"""Commands on recipes: write, check, plan."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any

import click

from ticketsmith.cli import options
from ticketsmith.cli.unpruned import tell_what_is_pruned, what_is_pruned
from ticketsmith.evidence.variants import DENSE
from ticketsmith.units import flops

if TYPE_CHECKING:
    from ticketsmith.evidence.search import Path


@click.command()
@click.argument("path", default="recipe.yaml")
def init(path: str) -> None:
    """Write a commented recipe to PATH (recipe.yaml)."""
    from importlib.resources import files

    from ticketsmith.config.json_schema import recipe_schema
    from ticketsmith.errors import RecipeError, disk_error
    from ticketsmith.native import available

    place = FilePath(path)
    template = files("ticketsmith.config").joinpath("template.yaml").read_text()
    if not available():
        template = template.replace("kernels: native ", "kernels: torch  ")
    try:
        with place.open("x") as file:
            file.write(template)
    except FileExistsError:
        raise RecipeError(f"{path} is there already and was left as it is; give another name.") from None
    except OSError as error:
        raise disk_error(error, place) from error
    schema_place = place.with_name("recipe.schema.json")
    with contextlib.suppress(OSError):  # a help for editors, named in the recipe's first line
        schema_place.write_text(json.dumps(recipe_schema(), indent=2) + "\n")
    click.echo(f"wrote {path}; next: ticketsmith prune --config {path}")


@click.command()
@options.config
@options.overrides
@options.as_json
def validate(config: str, overrides: Sequence[str], as_json: bool) -> None:
    """Check a recipe, its data and its model: every part that a run calls is tried on two examples."""
    from ticketsmith.api import prepare, rehearse
    from ticketsmith.cli.power import powers_of, warning

    prepared = prepare(options.read_recipe(config, overrides, None))
    warnings: list[str] = []
    cut = rehearse(prepared, warnings.append)
    facts, plan_ = prepared.facts, prepared.plan
    warnings += [text for text in map(warning, powers_of(prepared)) if text]
    if as_json:
        options.print_json({"valid": True, "runs": len(plan_.by_key), "warnings": warnings, **what_is_pruned(facts)})
        return
    click.echo(f"{config}: valid")
    most = "at most " if prepared.recipe.search else ""
    click.echo(f"{most}{len(plan_.by_key)} runs; {facts.train_size:,} training examples")
    tell_what_is_pruned(facts)
    for part in cut:
        click.echo(f"{part} takes long: it was tried for a few seconds, and not to its end")
    for text in warnings:
        click.echo(f"warning: {text}", err=True)


@click.command()
@options.config
@options.overrides
@options.store
@options.search
@options.as_json
def plan(config: str, overrides: Sequence[str], store: str | None, search: bool, as_json: bool) -> None:
    """Show the runs of a recipe: what is there, what would be trained, and how much arithmetic that is.

    Of a search: the runs that it has asked for so far, what it may come to, and its share of the full grid.
    """
    from ticketsmith import collect
    from ticketsmith.api import Prepared, prepare
    from ticketsmith.cli.power import power_document, powers_of, tell_power
    from ticketsmith.execute.executor import statuses
    from ticketsmith.pursuit import Pursuit
    from ticketsmith.report.sentences.search import forecast, progress
    from ticketsmith.search import hypotheses
    from ticketsmith.store import open_store
    from ticketsmith.store.index import Index

    prepared: Prepared = prepare(options.read_recipe(config, overrides, store, search))
    recipe, shown = prepared.recipe, prepared.plan
    opened = open_store(recipe.store_component)
    index = Index(opened, recipe.experiment)
    path, paths = None, []
    if recipe.search is not None:
        path, shown = Pursuit(recipe, prepared.plan, index).look()
        paths = hypotheses(recipe)
    states = statuses(shown, opened, index)
    estimates = powers_of(prepared, collect.read_results(index, shown.only([DENSE])))
    rows: list[dict[str, Any]] = [
        {
            "variant": node.variant,
            "level": node.level,
            "seed": node.seed,
            "draw": node.draw,
            "key": node.key,
            "parents": list(node.spec.parents),
            "status": states[node.key],
            "steps": prepared.steps(node),
            "training_flops": prepared.training_flops(node),
        }
        for node in shown.by_key.values()
    ]
    if as_json:
        extent = {} if path is None else {"search": _extent(path, paths)}
        options.print_json(
            {
                "experiment": recipe.experiment,
                "nodes": rows,
                **extent,
                "power": power_document(estimates),
                **what_is_pruned(prepared.facts),
            }
        )
        return
    options.print_table(_grouped(rows), f"{recipe.experiment}: {len(rows)} runs{' so far' if path else ''}")
    missing = [row for row in rows if row["status"] in ("missing", "in part")]
    click.echo(
        f"{len(rows) - len(missing)} cached, {len(missing)} to train: "
        f"{flops(sum(row['training_flops'] for row in missing))} of dense training arithmetic"
    )
    tell_power(estimates)
    if path is not None:
        for line in progress(path):
            click.echo(line)
        click.echo(forecast(paths))
    tell_what_is_pruned(prepared.facts)


def _extent(path: Path, forecasts: Sequence[Path]) -> dict[str, Any]:
    """How many runs a search takes: where the first look decides, at most, and those of the full grid."""
    counts = [len(one.places) for one in forecasts]
    return {
        "over": path.over,
        "runs": len(path.places),
        "first_look": [min(counts), max(counts)],
        "at_most": path.terms.ceiling,
        "grid": path.terms.grid,
    }


def _grouped(rows: list[dict[str, Any]]) -> list[dict[str, str]]:
    """One line a level of a variant: the replicates and draws together."""
    groups: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["variant"], row["level"]), []).append(row)
    names = {row["key"]: f"{row['variant']} {row['level']}" for row in rows}
    return [
        {
            "variant": variant,
            "level": str(level),
            "needs": ", ".join(dict.fromkeys(names[parent] for row in group for parent in row["parents"])) or "-",
            "runs": str(len(group)),
            "cached": str(sum(row["status"] not in ("missing", "in part") for row in group)),
            "to train": str(sum(row["status"] in ("missing", "in part") for row in group)),
            "FLOPs": flops(sum(row["training_flops"] for row in group)),
        }
        for (variant, level), group in sorted(
            groups.items(), key=lambda item: (item[0][1], list(groups).index(item[0]))
        )
    ]


@click.command()
@click.option(
    "--of", type=click.Choice(["recipe", "target"]), default="recipe", show_default=True, help="Of which file."
)
def schema(of: str) -> None:
    """Print the JSON Schema of recipes or targets, for editors."""
    from ticketsmith.config.json_schema import recipe_schema, target_schema

    options.print_json(target_schema() if of == "target" else recipe_schema())
