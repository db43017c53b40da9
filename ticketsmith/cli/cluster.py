"""Commands on a cluster: submit, cancel, resume, logs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from ticketsmith.cli import options
from ticketsmith.cli.pod import conduct, finish, work
from ticketsmith.cli.proposal import print_manifests, print_proposal
from ticketsmith.cli.spending import cost
from ticketsmith.cli.targets import command_line, opened, records_of, target_option, target_overrides, tell
from ticketsmith.errors import Exit, TicketSmithError, gravest

if TYPE_CHECKING:
    from ticketsmith.config.target import Target
    from ticketsmith.execute.kubernetes.cluster import Cluster
    from ticketsmith.execute.kubernetes.records import Records


wait_option = click.option(
    "--wait", is_flag=True, help="Conduct from here instead of by a Job, until the report is written."
)
detach_option = click.option(
    "--detach", is_flag=True, help="End as soon as the conductor is made, instead of when it is at work."
)


@click.command()
@options.config
@options.overrides
@target_option
@target_overrides
@click.option(
    "--dry-run", is_flag=True, help="Print the manifests and the price ceiling; change nothing, ask no cluster."
)
@click.option("--yes", is_flag=True, help="Do not ask before money is spent.")
@wait_option
@detach_option
def submit(
    config: str,
    overrides: Sequence[str],
    target: str,
    set_target: Sequence[str],
    dry_run: bool,
    yes: bool,
    wait: bool,
    detach: bool,
) -> int:
    """Run a recipe on a Kubernetes cluster: each variant a Job, the report at the end.

    What is in the store already is not made again, and submitting twice begins nothing twice.
    """
    from ticketsmith.api import prepare
    from ticketsmith.cli.progress import note
    from ticketsmith.config.target import load_target
    from ticketsmith.execute.kubernetes.cluster import connect
    from ticketsmith.execute.kubernetes.executor import KubernetesExecutor
    from ticketsmith.execute.kubernetes.submit import propose, running

    destination = load_target(target, set_target)
    recipe = options.read_recipe(config, overrides, None)
    note(f"{recipe.experiment}: reading data, checking the model ...")
    prepared = prepare(recipe)
    if dry_run:
        print_manifests(propose(prepared.plan, destination, None))
        return Exit.OK
    records = records_of(destination, recipe.experiment)
    cluster = connect(destination.context, destination.namespace, patience=60)
    executor = KubernetesExecutor(records, cluster, destination, recipe, tell)
    proposal = executor.propose(prepared.plan)
    print_proposal(proposal, running(cluster, proposal))
    if proposal.lost:
        click.echo(
            f"{len(proposal.lost)} Jobs ended without all of their runs and are not tried again by this command: "
            "`ticketsmith resume` does that."
        )
        for outcome in proposal.lost:
            click.echo(f"  {outcome.job}: {outcome.message}")
    if not proposal.assignments and not proposal.runs_missing:
        click.echo("Every run is sealed: only the report is written again.")
    if not yes:
        if not sys.stdin.isatty():
            raise TicketSmithError("submit: there is nobody to ask; give --yes to begin, or --dry-run to look.")
        click.confirm("Begin?", abort=True)
    executor.submit(prepared.plan)
    return _conduct(records, cluster, destination, wait, detach, target)


@click.command()
@target_option
@target_overrides
@options.experiment
def cancel(target: str, set_target: Sequence[str], experiment: str | None) -> None:
    """Stop an experiment on a cluster: pods save their checkpoints and end; nothing that was made is lost."""
    from ticketsmith.execute.kubernetes.submit import cancel as cancel_

    _, records, cluster = opened(target, set_target, experiment)
    stopped = cancel_(records, cluster, click.echo)
    click.echo(f"{records.experiment}: {stopped} Jobs stopped. {command_line('resume', target, records)} goes on.")


@click.command()
@target_option
@target_overrides
@options.experiment
@click.option("--yes", is_flag=True, help="Do not ask before money is spent.")
@wait_option
@detach_option
def resume(target: str, set_target: Sequence[str], experiment: str | None, yes: bool, wait: bool, detach: bool) -> int:
    """Try again what failed or was stopped on a cluster, from the last checkpoints, with the target as it is now."""
    from dataclasses import replace

    from ticketsmith.execute.kubernetes.submit import propose, running
    from ticketsmith.execute.kubernetes.submit import resume as resume_

    destination, records, cluster = opened(target, set_target, experiment)
    submission = records.submission()
    plan = records.plan(submission)
    if plan is None:
        raise TicketSmithError(f"{records.experiment}: its plan was changed by somebody meanwhile; submit it again.")
    proposal = propose(plan, destination, records, again=True)
    print_proposal(proposal, running(cluster, proposal))
    if not yes:
        if not sys.stdin.isatty():
            raise TicketSmithError("resume: there is nobody to ask; give --yes to begin.")
        click.confirm("Begin?", abort=True)
    for outcome in resume_(records, replace(submission, target=destination)):
        click.echo(f"again: {outcome.job}: {outcome.message}")
    return _conduct(records, cluster, destination, wait, detach, target)


@click.command()
@target_option
@target_overrides
@options.experiment
@click.option("--variant", help="Only of this variant; `conductor` and `report` are two.")
@click.option("--replicate", type=int, help="Only of this index.")
@click.option("-f", "--follow", is_flag=True, help="Go on as more is printed, until all pods have ended.")
def logs(
    target: str,
    set_target: Sequence[str],
    experiment: str | None,
    variant: str | None,
    replicate: int | None,
    follow: bool,
) -> None:
    """Show what pods print: from the cluster while they are there, from the store when they are gone.

    What a pod waits for that has not begun is told on standard error.
    """
    from ticketsmith.execute.kubernetes.logs import Choice
    from ticketsmith.execute.kubernetes.logs import follow as follow_
    from ticketsmith.execute.kubernetes.logs import logs as logs_

    destination, records, cluster = opened(target, set_target, experiment, patience=20)
    any_line = False
    for line in (follow_ if follow else logs_)(records, cluster, destination, Choice(variant, replicate)):
        any_line = True
        click.echo(f"[{line.title}] {line.text if line.printed else f'({line.text})'}", err=not line.printed)
    if not any_line:
        click.echo("no logs yet", err=True)


def _wait_until_begun(records: Records, cluster: Cluster, name: str, target: Target, place: str) -> None:
    from ticketsmith.cli.progress import note
    from ticketsmith.execute.kubernetes.launch import wait_until_begun

    try:
        wait_until_begun(records, cluster, name, target, note)
    except KeyboardInterrupt:
        click.echo(
            f"the conductor {name} goes on without this terminal, and begins Jobs when it can. "
            f"{command_line('cancel', place, records)} stops it, {command_line('status', place, records)} shows it.",
            err=True,
        )
        raise


def _conduct(records: Records, cluster: Cluster, target: Target, wait: bool, detach: bool, place: str) -> int:
    from ticketsmith.api import open_experiment
    from ticketsmith.cli.opened import say_verdict
    from ticketsmith.execute.kubernetes.conductor import ensure_conductor
    from ticketsmith.execute.kubernetes.executor import conduct

    experiment = records.experiment
    if not wait:
        name = ensure_conductor(records, cluster, target)
        if not detach:
            _wait_until_begun(records, cluster, name, target, place)
        begins = "will begin" if detach else "is at work and begins"
        click.echo(f"submitted: the conductor {name} {begins} the Jobs. You may close this terminal.")
        click.echo(f"  ticketsmith status --target {place} --experiment {experiment}")
        click.echo(f"  ticketsmith logs -f --target {place} --experiment {experiment}")
        return Exit.OK
    try:
        status = conduct(records, cluster, target, tell)
    except KeyboardInterrupt:
        click.echo("Jobs that run go on; nothing new begins until `ticketsmith resume` (or submit again).", err=True)
        raise
    done = open_experiment(experiment, target.store)
    if done.results:
        say_verdict(done)
        click.echo(f"report: {target.store}/{experiment}/report/index.html")
    return int(gravest((status, done.exit_status)))


COMMANDS: tuple[click.Command, ...] = (submit, logs, cancel, resume, cost, work, conduct, finish)
