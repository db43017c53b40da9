"""What submitting would begin and cost at most: as a table, and as manifests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ticketsmith.cli import options
from ticketsmith.errors import TicketSmithError

if TYPE_CHECKING:
    from ticketsmith.config.target import Target
    from ticketsmith.execute.kubernetes.records import Records
    from ticketsmith.execute.kubernetes.submit import Proposal


def print_proposal(proposal: Proposal, running: set[str]) -> None:
    """A row a Job; ``running`` are the variants of which one is at work already."""
    from ticketsmith.execute.kubernetes.ceiling import exceeds, total

    target = proposal.target
    rows = []
    for position, row in enumerate(proposal.rows):
        ceiling = row.ceiling
        pool = target.train if position < len(proposal.assignments) else target.cpu
        hours = (ceiling.seconds + ceiling.rate.idle_tail) / 3600
        rows.append(
            {
                "variant": row.variant + (" (running)" if row.variant in running else ""),
                "replicates": str(row.replicates),
                "runs": str(row.runs) if row.runs else "",
                "cached": str(row.cached) if row.runs else "",
                "machine": ceiling.rate.machine + (" spot" if pool.spot else ""),
                "pods x hours x price": f"{ceiling.pods} x {hours:.2f} x {ceiling.rate.ceiling_per_hour:.3f}",
                "GPU hours": f"{ceiling.amount.gpu_hours:.2f}",
                "at most": f"{ceiling.amount.money:.4f}",
            }
        )
    options.print_table(rows, f"{proposal.plan.experiment} in {target.namespace}, runs in {target.store}")
    whole = total([row.ceiling for row in proposal.rows])
    rate = proposal.rows[0].ceiling.rate
    click.echo(
        f"{len(proposal.sealed)} of {len(proposal.plan.by_key)} runs are sealed. The rest costs at most {whole.money:.2f} "
        f"{rate.currency} and {whole.gpu_hours:.1f} GPU hours{of_budget(target)}: pods at once x hours (deadline, "
        "grace and idle tail of a node) x price of an hour, added up."
    )
    click.echo(f"Prices: {rate.source or 'given by hand'}{f', {rate.dated}' if rate.dated else ''}.")
    if (over := exceeds(whole, target, rate.currency)) is not None:
        click.echo(f"That is {over}. Jobs are begun as long as what they may cost at most keeps within the budget.")


def print_manifests(proposal: Proposal) -> None:
    """YAML on standard output, for `kubectl` and reviewers; the table as comments."""
    import yaml

    from ticketsmith.execute.kubernetes.ceiling import exceeds, total

    target = proposal.target
    click.echo(
        f"# {proposal.plan.experiment}: {len(proposal.plan.by_key)} runs, as if none were made. Nothing was changed."
    )
    for row in proposal.rows:
        most, rate = row.ceiling, row.ceiling.rate
        click.echo(
            f"# {row.variant}: {most.pods} pods x ({most.seconds} s + {rate.idle_tail:.0f} s idle) x "
            f"{rate.ceiling_per_hour:.4f} {rate.currency}/h = {most.amount.money:.4f} {rate.currency}, "
            f"{most.amount.gpu_hours:.2f} GPU hours at most"
        )
    whole = total([row.ceiling for row in proposal.rows])
    rate = proposal.rows[0].ceiling.rate
    click.echo(
        f"# in all at most {whole.money:.4f} {rate.currency} and {whole.gpu_hours:.2f} GPU hours{of_budget(target)}"
    )
    if (over := exceeds(whole, target, rate.currency)) is not None:
        click.echo(f"# That is {over}: Jobs are begun as long as what they may cost keeps within the budget.")
    click.echo(yaml.safe_dump_all(proposal.manifests(), sort_keys=False).rstrip())


def submitted_budget(records: Records) -> str:
    """What counts, whatever a target file says now; nothing where a store holds no submission."""
    try:
        return of_budget(records.submission().target)
    except TicketSmithError:
        return ""


def of_budget(target: Target) -> str:
    """The budget of a target, in brackets; nothing without one."""
    if target.budget.money is None and target.budget.gpu_hours is None:
        return ""
    parts = [f"{target.budget.money:.2f}"] if target.budget.money is not None else []
    parts += [f"{target.budget.gpu_hours:g} GPU hours"] if target.budget.gpu_hours is not None else []
    return f" (budget: {' and '.join(parts)})"
