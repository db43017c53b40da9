"""What an experiment does and has cost on a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from ticketsmith.cli import options
from ticketsmith.cli.proposal import submitted_budget
from ticketsmith.cli.targets import command_line, name_of, opened, target_overrides

if TYPE_CHECKING:
    from ticketsmith.execute.kubernetes.records import Records


@click.command()
@click.option("--target", metavar="FILE", help="The cluster whose store holds the runs; or --runs-prefix.")
@target_overrides
@options.runs_prefix
@options.experiment
@options.as_json
def cost(
    target: str | None, set_target: Sequence[str], runs_prefix: str, experiment: str | None, as_json: bool
) -> None:
    """Show what an experiment has cost on a cluster so far: every pod, tries that failed and idle nodes included."""
    from dataclasses import asdict

    from ticketsmith.config.target import load_target
    from ticketsmith.execute.kubernetes.ceiling import Amount
    from ticketsmith.execute.kubernetes.records import Records
    from ticketsmith.store import open_store

    destination = load_target(target, set_target) if target else None
    store = open_store(destination.store if destination else runs_prefix)
    records = Records(store, name_of(store, experiment))
    pods = records.pods()
    if as_json:
        options.print_json([{**asdict(pod), "money": round(pod.amount.money, 6)} for pod in pods])
        return
    rows, whole = [], Amount()
    for variant in dict.fromkeys(pod.variant for pod in pods):
        mine = [pod for pod in pods if pod.variant == variant]
        amount = sum((pod.amount for pod in mine), Amount())
        whole += amount
        rows.append(
            {
                "variant": variant,
                "machine": ", ".join(dict.fromkeys(pod.machine + (" spot" if pod.spot else "") for pod in mine)),
                "pods": str(len(mine)),
                "hours": f"{sum(pod.seconds for pod in mine) / 3600:.2f}",
                "idle hours": f"{sum(pod.idle_tail_seconds for pod in mine) / 3600:.2f}",
                "GPU hours": f"{amount.gpu_hours:.2f}",
                "GPU use": _share(mine),
                "price": f"{amount.money:.2f} {mine[0].currency}",
            }
        )
    if not rows:
        click.echo(f"{records.experiment}: no pods of a cluster have worked on it.")
        return
    options.print_table(rows, f"{records.experiment}: pods of all tries, up to now")
    click.echo(
        f"in all {whole.money:.2f} {pods[0].currency}, {whole.gpu_hours:.2f} GPU hours{submitted_budget(records)}"
    )


def jobs_table(target: str, experiment: str | None, as_json: bool) -> tuple[str, str, list[dict[str, Any]]]:
    """Prints what the Jobs of an experiment are doing, and why one waits; gives the store and the experiment's name."""
    from dataclasses import asdict

    from ticketsmith.execute.kubernetes.ceiling import Amount
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
        spent = sum((pod.amount for pod in records.pods()), Amount())
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


def _share(pods: Sequence[Any]) -> str:
    shares = [(pod.gpu_utilisation, pod.seconds) for pod in pods if pod.gpu_utilisation is not None]
    whole = sum(seconds for _, seconds in shares)
    return f"{sum(share * seconds for share, seconds in shares) / whole:.0%}" if whole else ""
