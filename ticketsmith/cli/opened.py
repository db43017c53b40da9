"""The experiments that a command works on, and what it says of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from ticketsmith.errors import TicketSmithError

if TYPE_CHECKING:
    from ticketsmith.api import Experiment


def say_verdict(experiment: Experiment) -> None:
    """The answer, in the report's own words."""
    from ticketsmith.report.sentences.caveats import missing
    from ticketsmith.report.sentences.controls import special
    from ticketsmith.report.sentences.headline import headline
    from ticketsmith.report.sentences.search import interval, savings

    findings, path = experiment.findings, experiment.path
    click.echo(f"{experiment.name}: {headline(findings)}")
    if path is not None:
        click.echo(interval(findings, path))
        click.echo(savings(path, findings.results))
    click.echo(special(findings))
    for note in missing(findings):
        click.echo(note)
    sparsity = findings.policy.target_sparsity
    if sparsity is not None and findings.target is None:
        click.echo(f"The target sparsity {sparsity:.1%} was not reached: no level that is sealed is that sparse.")


def experiments(prefix: str, name: str | None, base: str = ".") -> Sequence[Experiment]:
    """The experiments of a folder, or the one that the folder is. Raises TicketSmithError when there are none."""
    from ticketsmith.api import open_experiment
    from ticketsmith.store.locate import experiments_at

    place, names = experiments_at(prefix, name)
    if not names:
        raise TicketSmithError(f"{prefix}: no runs here. Make some: ticketsmith prune --config configs/imp_mnist.yaml")
    return [open_experiment(one, place, base) for one in names]
