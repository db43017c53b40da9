"""For people: how many replicates the gates are likely to need, and what the test split cannot show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from ticketsmith.cli import options
from ticketsmith.evidence.power import LIKELY, LOSSES, Power, powers
from ticketsmith.units import percent, plural

if TYPE_CHECKING:
    from ticketsmith.api import Prepared
    from ticketsmith.evidence.results import Result


def powers_of(prepared: Prepared, dense: Sequence[Result] = ()) -> list[Power]:
    """Of the gates of a recipe, by the ``dense`` runs that are in its store."""
    recipe, examples = prepared.recipe, prepared.facts.split_sizes.get("test", 0)
    return powers(recipe.policy, recipe.replicates, examples, dense)


def warning(power: Power) -> str | None:
    """What the test split cannot show, with the mend; None where it can."""
    if power.needed is None:
        return None
    gate = power.gate
    return (
        f"gates.metrics.{gate.metric}: {power.examples:,} test examples cannot show a drop of {gate.margin:g}"
        f"{'' if gate.relative else ' points'}; about {power.needed:,} could. Widen the margin, or test on more."
    )


def tell_power(estimates: Sequence[Power]) -> None:
    """For people: the likely number, a line a look, and what cannot be shown."""
    for power in estimates:
        unit = "" if power.gate.relative else " points"
        least = f"not even {power.looks[-1]}, the last look," if len(power.looks) > 1 else "more than 100 replicates"
        likely = least if power.replicates is None else plural(power.replicates, "replicate")
        click.echo(
            f"gate on {power.gate.metric}: {likely} would pass a level that loses nothing with a chance of {percent(LIKELY)} "
            f"(seeds differ by about {power.spread:.2g}{unit}: {power.source})"
        )
        rows = [
            {
                "by": plural(number, "replicate"),
                **{f"{loss:g}": f"{_chance(one.passed[index])} / {_chance(one.failed[index])}" for loss, one in pairs},
            }
            for pairs in [list(zip(LOSSES, power.chances, strict=True))]
            for index, number in enumerate(power.looks)
        ]
        options.print_table(rows, "chance to have passed / failed, of a level that truly loses so many margins")
        if text := warning(power):
            click.echo(f"warning: {text}", err=True)


def power_document(estimates: Sequence[Power]) -> list[dict[str, Any]]:
    """For ``--json``."""
    return [{**asdict(power), "warning": warning(power)} for power in estimates]


def _chance(share: float) -> str:
    return f"{100 * share:.0f} %"
