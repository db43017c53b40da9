"""What commands on a cluster share: options, the target, its records, and tables of Jobs and of what they cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from ticketsmith.cli import options
from ticketsmith.errors import TicketSmithError

if TYPE_CHECKING:
    from ticketsmith.config.target import Target
    from ticketsmith.execute.kubernetes.cluster import Cluster
    from ticketsmith.execute.kubernetes.records import Records
    from ticketsmith.execute.kubernetes.submit import Proposal


target_option = click.option(
    "--target", type=options.file, metavar="FILE", required=True, help="The cluster: configs/targets/aks.yaml."
)
target_overrides = click.option(
    "--set-target", metavar="FIELD=VALUE", multiple=True, help="Override a field of the target; repeatable."
)


def target_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of every command on an experiment of a cluster."""
    return target_option(target_overrides(options.experiment(command)))


def opened(
    target: str, overrides: Sequence[str], experiment: str | None, patience: float = 60.0
) -> tuple[Target, Records, Cluster]:
    """The target of a file, what the store has of an experiment, and the cluster."""
    from ticketsmith.config.target import load_target
    from ticketsmith.execute.kubernetes.cluster import connect

    destination = load_target(target, overrides)
    records = records_of(destination, experiment)
    return destination, records, connect(destination.context, destination.namespace, patience)


def records_of(target: Target, experiment: str | None) -> Records:
    """What the target's store has of an experiment, by name or the only one there."""
    from ticketsmith.execute.kubernetes.records import Records
    from ticketsmith.store import open_store

    store = open_store(target.store)
    return Records(store, name_of(store, experiment))


def name_of(store: Any, experiment: str | None) -> str:
    """The experiment's name; the only one of a store needs none. Raises TicketSmithError."""
    if experiment is not None:
        return experiment
    names = store.experiments()
    if len(names) != 1:
        here = f"Here are: {', '.join(names)}." if names else "There are none."
        raise TicketSmithError(f"{store.url}: name an experiment by --experiment. {here}")
    return str(names[0])


def command_line(verb: str, target: str, records: Records) -> str:
    """A command as a user types it."""
    return f"`ticketsmith {verb} --target {target} --experiment {records.experiment}`"


def tell(text: str) -> None:
    """A line with the time."""
    from datetime import UTC, datetime

    click.echo(f"{datetime.now(UTC):%H:%M:%S} {text}")


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
    whole = total(row.ceiling for row in proposal.rows)
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
    whole = total(row.ceiling for row in proposal.rows)
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


def jobs_table(target: str, experiment: str | None, as_json: bool) -> tuple[str, str, list[dict[str, Any]]]:
    """Prints what the Jobs of an experiment are doing, and why one waits; gives the store and the experiment's name."""
    from dataclasses import asdict

    from ticketsmith.execute.kubernetes.ceiling import total
    from ticketsmith.execute.kubernetes.submit import look

    destination, records, cluster = opened(target, (), experiment, patience=30)
    lines = look(records, cluster, destination)
    if not as_json:
        rows = [
            {
                "variant": line.variant,
                "job": line.job,
                "state": line.state,
                "active": str(line.active),
                "done": str(line.succeeded),
                "failed tries": str(line.failed),
                "why": line.why,
            }
            for line in lines
        ]
        options.print_table(rows, f"{records.experiment}: Jobs in {destination.namespace}")
        spent = total(records.pods())
        click.echo(f"spent so far: {spent.money:.2f}, {spent.gpu_hours:.2f} GPU hours{submitted_budget(records)}")
        _say_what_next(lines, target, records)
    return destination.store, records.experiment, [asdict(line) for line in lines]


def _say_what_next(lines: Sequence[Any], target: str, records: Records) -> None:
    at_work = any(line.component == "conductor" and line.state in ("waiting", "running") for line in lines)
    ended_badly = any(line.component != "conductor" and line.state in ("failed", "stopped") for line in lines)
    if records.submission().cancelled:
        click.echo(f"cancelled; {command_line('resume', target, records)} goes on")
    elif ended_badly and not at_work:
        click.echo(f"something is missing; {command_line('resume', target, records)} tries again")
    elif not at_work and not any(line.variant == "report" and line.state == "complete" for line in lines):
        click.echo(f"no conductor is at work; {command_line('resume', target, records)} begins one")
