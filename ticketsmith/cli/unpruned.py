"""How much of a network a recipe prunes, and what stays dense."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ticketsmith.cli import options
from ticketsmith.units import plural, share

if TYPE_CHECKING:
    from ticketsmith.pruning.unpruned import UnprunedMatrix
    from ticketsmith.tasks.facts import TaskFacts

_LARGE = 0.01
"""Matrices of one kind that together are this part of the parameters are shown to people; JSON has all."""
_ROWS = 12
"""As many matrices have a row each; of more, those of one kind share one."""


def what_is_pruned(facts: TaskFacts) -> dict[str, Any]:
    """For ``--json``: all parameters, those that are prunable by layer, and the matrices that stay dense."""
    layers = {name: layer.weights for name, layer in facts.layers.items()}
    return {
        "parameters": facts.parameters,
        "prunable": sum(layers.values()),
        "prunable_share": sum(layers.values()) / facts.parameters,
        "layers": layers,
        "dense_matrices": [
            {
                "name": one.name,
                "shape": list(one.shape),
                "weights": one.count,
                "share": one.share,
                "why": one.why,
                "include": one.include,
            }
            for one in facts.unpruned
        ],
    }


def tell_what_is_pruned(facts: TaskFacts) -> None:
    """The share of the network that is prunable, and the large matrices that are not, those of one kind in one row."""
    prunable = sum(layer.weights for layer in facts.layers.values())
    click.echo(
        f"model of {facts.parameters:,} parameters, {prunable:,} of them ({share(prunable / facts.parameters)}) prunable in "
        f"{plural(len(facts.layers), 'layer')}"
    )
    kinds: dict[tuple[str, str | None], list[UnprunedMatrix]] = {}
    for one in facts.unpruned:
        kinds.setdefault((one.why, one.include or one.name), []).append(one)
    large = [kind for kind in kinds.values() if sum(one.share for one in kind) >= _LARGE]
    if not large:
        return
    count = sum(one.count for kind in large for one in kind)
    click.echo(f"{count:,} parameters ({share(count / facts.parameters)}) are in large matrices that stay dense:")
    if len([one for kind in large for one in kind]) <= _ROWS:
        large = [[one] for kind in large for one in kind]
    rows = [
        {
            "matrix": kind[0].name if len(kind) == 1 else f"{kind[0].name} and {len(kind) - 1} more",
            "shape": ", ".join(dict.fromkeys(" x ".join(map(str, one.shape)) for one in kind)),
            "weights": f"{sum(one.count for one in kind):,}",
            "of the network": share(sum(one.share for one in kind)),
            "why": kind[0].why,
            "pruning.include": kind[0].include or "-",
        }
        for kind in large
    ]
    options.print_table(rows)
