"""Before anything is trained: how many replicates the gates are likely to need, and what the test split can show."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import click

from ticketsmith.cli import options
from ticketsmith.evidence.looks import nominal_error
from ticketsmith.evidence.power import LIKELY, Chances, by_look, examples_needed, likely_replicates
from ticketsmith.evidence.statistics import deviation, mean
from ticketsmith.evidence.summarise import replicate_values
from ticketsmith.evidence.verdicts import Gate
from ticketsmith.units import percent, plural

if TYPE_CHECKING:
    from ticketsmith.api import Prepared
    from ticketsmith.evidence.results import Result

_QUALITY = 0.95
"""The accuracy that is expected where no dense run tells it."""
_LOSSES = (0.0, 0.5, 1.0, 1.5, 2.0)
"""Of a level, in margins: those whose chances are shown for several looks."""


@dataclass(frozen=True)
class Power:
    """What one gate is likely to need. ``spread``: of a replicate's worsening, in the gate's terms; ``source`` says whence.

    ``replicates`` are likely to pass a level that loses nothing, None where more than 100 would be needed. ``examples``: the
    size of the test split, of which ``needed`` could show the margin; None where that is not known or enough.
    """

    gate: Gate
    spread: float
    source: str
    replicates: int | None
    looks: tuple[int, ...]
    chances: tuple[Chances, ...]
    examples: int = 0
    needed: int | None = None

    @property
    def warning(self) -> str | None:
        """What the test split cannot show, with the mend."""
        if self.needed is None:
            return None
        return (
            f"gates.metrics.{self.gate.metric}: {self.examples:,} test examples cannot show a drop of {self.gate.margin:g}"
            f"{'' if self.gate.relative else ' points'}; about {self.needed:,} could. Widen the margin, or test on more."
        )


def powers(prepared: Prepared, dense: Sequence[Result] = ()) -> list[Power]:
    """For each gate that is tested and whose spread can be known: from ``dense`` runs, else from the size of the test split."""
    return list(_powers(prepared, dense)) if prepared.recipe.policy.method == "non-inferiority" else []


def _powers(prepared: Prepared, dense: Sequence[Result]) -> Iterator[Power]:
    policy, planned = prepared.recipe.policy, prepared.recipe.replicates
    examples = prepared.facts.split_sizes.get("test", 0)
    for gate in policy.gates:
        values = list(replicate_values(dense, gate.metric, "test", policy.at).values())
        shares = gate.metric == "accuracy" and examples > 0  # in percent, as the built-in tasks measure it
        level = mean(values) if values else 100 * _QUALITY
        if len(values) > 1 and deviation(values) > 0:
            spread, source = math.sqrt(2) * deviation(values), f"{len(values)} dense runs"
            spread /= abs(level) if gate.relative else 1.0
        elif shares and not gate.relative:
            wrong = max(1 - level / 100, 1 / examples)
            spread = 100 * math.sqrt(2 * wrong * (1 - wrong) / examples)
            source = f"{examples:,} test examples at an accuracy of {level:.3g} %"
        else:
            continue
        needed = None
        if shares and not gate.relative:
            least = examples_needed(gate.margin / 100, max(1 - level / 100, 1 / examples), policy.confidence)
            needed = least if least > examples else None
        looks = policy.looks or (planned,)
        chances = by_look([loss * gate.margin for loss in _LOSSES], gate.margin, spread, looks, policy.confidence)
        error = 1 - policy.confidence
        # Without declared looks there is one, at whatever number is chosen now.
        errors = dict.fromkeys(policy.looks or range(2, 101), nominal_error(looks, error))
        likely = likely_replicates(gate.margin, spread, errors.get)
        yield Power(gate, spread, source, likely, looks, tuple(chances), examples, needed)


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
            for pairs in [list(zip(_LOSSES, power.chances, strict=True))]
            for index, number in enumerate(power.looks)
        ]
        options.print_table(rows, "chance to have passed / failed, of a level that truly loses so many margins")
        if power.warning:
            click.echo(f"warning: {power.warning}", err=True)


def power_document(estimates: Sequence[Power]) -> list[dict[str, Any]]:
    """For ``--json``."""
    return [{**asdict(power), "warning": power.warning} for power in estimates]


def _chance(share: float) -> str:
    return f"{100 * share:.0f} %"
