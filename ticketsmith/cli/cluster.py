"""Commands on a cluster: submit, cancel, resume, logs, cost; and what pods run."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from ticketsmith.cli import options
from ticketsmith.errors import Exit, TicketSmithError, gravest

if TYPE_CHECKING:
    from ticketsmith.config.target import Target
    from ticketsmith.execute.kubernetes.cluster import Cluster
    from ticketsmith.execute.kubernetes.records import Records
    from ticketsmith.execute.kubernetes.submit import Proposal


target_option = click.option("--target", metavar="FILE", required=True, help="The cluster: configs/targets/aks.yaml.")
target_overrides = click.option(
    "--set-target", metavar="FIELD=VALUE", multiple=True, help="Override a field of the target; repeatable."
)
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
    from ticketsmith.execute.kubernetes.submit import propose, running
    from ticketsmith.execute.kubernetes.submit import submit as submit_

    chosen = load_target(target, set_target)
    recipe = options.read_recipe(config, overrides, None)
    note(f"{recipe.experiment}: reading data, checking the model ...")
    prepared = prepare(recipe)
    if dry_run:
        _print_manifests(propose(prepared.plan, chosen, None))
        return Exit.OK
    records = _records(chosen, recipe.experiment)
    cluster = connect(chosen.context, chosen.namespace, patience=60)
    proposal = propose(prepared.plan, chosen, records)
    _print_proposal(proposal, running(cluster, proposal))
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
    submit_(records, cluster, proposal, recipe.source, recipe.task_component, recipe.sha256)
    return _conduct(records, cluster, chosen, wait, detach, target)


@click.command()
@target_option
@target_overrides
@options.experiment
def cancel(target: str, set_target: Sequence[str], experiment: str | None) -> None:
    """Stop an experiment on a cluster: pods save their checkpoints and end; nothing that was made is lost."""
    from ticketsmith.execute.kubernetes.submit import cancel as cancel_

    _, records, cluster = _opened(target, set_target, experiment)
    stopped = cancel_(records, cluster, click.echo)
    click.echo(f"{records.experiment}: {stopped} Jobs stopped. {_command('resume', target, records)} goes on.")


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

    chosen, records, cluster = _opened(target, set_target, experiment)
    submission = records.submission()
    plan = records.plan(submission)
    if plan is None:
        raise TicketSmithError(f"{records.experiment}: its plan was changed by somebody meanwhile; submit it again.")
    proposal = propose(plan, chosen, records, again=True)
    _print_proposal(proposal, running(cluster, proposal))
    if not yes:
        if not sys.stdin.isatty():
            raise TicketSmithError("resume: there is nobody to ask; give --yes to begin.")
        click.confirm("Begin?", abort=True)
    for outcome in resume_(records, replace(submission, target=chosen)):
        click.echo(f"again: {outcome.job}: {outcome.message}")
    return _conduct(records, cluster, chosen, wait, detach, target)


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

    chosen, records, cluster = _opened(target, set_target, experiment, patience=20)
    any_line = False
    for line in (follow_ if follow else logs_)(records, cluster, chosen, Choice(variant, replicate)):
        any_line = True
        click.echo(f"[{line.title}] {line.text if line.printed else f'({line.text})'}", err=not line.printed)
    if not any_line:
        click.echo("no logs yet", err=True)


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

    chosen = load_target(target, set_target) if target else None
    store = open_store(chosen.store if chosen else runs_prefix)
    records = Records(store, _name_of(store, experiment))
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
        f"in all {whole.money:.2f} {pods[0].currency}, {whole.gpu_hours:.2f} GPU hours{_submitted_budget(records)}"
    )


def jobs_table(target: str, experiment: str | None, as_json: bool) -> tuple[str, str, list[dict[str, Any]]]:
    """Prints what the Jobs of an experiment are doing, and why one waits; gives the store and the experiment's name."""
    from dataclasses import asdict

    from ticketsmith.execute.kubernetes.ceiling import Amount
    from ticketsmith.execute.kubernetes.submit import look

    chosen, records, cluster = _opened(target, (), experiment, patience=30)
    lines = look(records, cluster, chosen)
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
        options.print_table(rows, f"{records.experiment}: Jobs in {chosen.namespace}")
        spent = sum((pod.amount for pod in records.pods()), Amount())
        click.echo(f"spent so far: {spent.money:.2f}, {spent.gpu_hours:.2f} GPU hours{_submitted_budget(records)}")
        _say_what_next(lines, target, records)
    return chosen.store, records.experiment, [asdict(line) for line in lines]


def _say_what_next(lines: Sequence[Any], target: str, records: Records) -> None:
    at_work = any(line.component == "conductor" and line.state in ("waiting", "running") for line in lines)
    ended_badly = any(line.component != "conductor" and line.state in ("failed", "stopped") for line in lines)
    if records.submission().cancelled:
        click.echo(f"cancelled; {_command('resume', target, records)} goes on")
    elif ended_badly and not at_work:
        click.echo(f"something is missing; {_command('resume', target, records)} tries again")
    elif not at_work and not any(line.variant == "report" and line.state == "complete" for line in lines):
        click.echo(f"no conductor is at work; {_command('resume', target, records)} begins one")


# What pods run. Users have no need of these.


@click.command(hidden=True)
@click.option("--store", required=True)
@click.option("--experiment", required=True)
@click.option("--job", required=True)
@click.option("--sha256", "digest", required=True)
@click.option("--index", type=int, envvar="JOB_COMPLETION_INDEX", required=True)
def work(store: str, experiment: str, job: str, digest: str, index: int) -> int:
    """Make one index's share of a Job."""
    from ticketsmith.cli.progress import Log
    from ticketsmith.execute.kubernetes.pod import work as work_

    return work_(store, experiment, job, digest, index, lambda plan, sealed: Log(plan, sealed).show)


@click.command(hidden=True)
@click.option("--store", required=True)
@click.option("--experiment", required=True)
@click.option("--job", required=True)
def conduct(store: str, experiment: str, job: str) -> int:
    """Begin Jobs when what they need is sealed, until the report is written."""
    from ticketsmith.errors import ClusterError, StoreError
    from ticketsmith.execute.kubernetes.ceiling import rates
    from ticketsmith.execute.kubernetes.cluster import connect
    from ticketsmith.execute.kubernetes.conductor import CONDUCTOR, Conductor
    from ticketsmith.execute.kubernetes.pod import Attended, pod_name
    from ticketsmith.execute.kubernetes.records import PodRecord, Records
    from ticketsmith.store import open_store

    records = Records(open_store(store), experiment)
    target = records.submission().target
    record = PodRecord.of(pod_name(), job, CONDUCTOR, None, rates(target)["cpu"])
    with Attended(records, record) as attended:
        try:
            cluster = connect(None, target.namespace)
            cluster.mark_begun(job, pod_name(), target.limits.experiment, target.limits.keep)
            status = Conductor(records, cluster, _tell).run(target.limits.poll)
        except (ClusterError, StoreError) as error:  # a role that is still spreading, say: Kubernetes tries again
            _tell(f"error: {error}")
            status = Exit.INCOMPLETE
        return attended.finish(status)


@click.command(hidden=True)
@click.option("--store", required=True)
@click.option("--experiment", required=True)
@click.option("--job", required=True)
@click.option("--base", default=".")
@click.option("--benchmark/--no-benchmark", default=True)
def finish(store: str, experiment: str, job: str, base: str, benchmark: bool) -> int:
    """Judge, measure and report what is sealed. A gate that fails is a result: the status is 0."""
    from ticketsmith.api import finish as finish_
    from ticketsmith.api import open_experiment
    from ticketsmith.cli.opened import say_verdict
    from ticketsmith.execute.kubernetes.ceiling import rates
    from ticketsmith.execute.kubernetes.pod import Attended, pod_name
    from ticketsmith.execute.kubernetes.records import PodRecord, Records
    from ticketsmith.prices import lookup
    from ticketsmith.store import open_store

    records = Records(open_store(store), experiment)
    target = records.submission().target
    whole = lookup(target.cpu.machine, target.region, target.cpu.spot)  # the benchmark counts all cores of the machine
    with Attended(records, PodRecord.of(pod_name(), job, "report", None, rates(target)["cpu"])) as attended:
        found = open_experiment(experiment, store, base)
        page = finish_(found, benchmark, _tell, machine=whole)
        if page is None:
            raise TicketSmithError(f"{experiment}: no run is sealed, so there is nothing to report.")
        say_verdict(found)
        click.echo(f"report: {page}")
        return attended.finish(Exit.OK)


def _tell(text: str) -> None:
    from datetime import UTC, datetime

    click.echo(f"{datetime.now(UTC):%H:%M:%S} {text}")


def _wait_until_begun(records: Records, cluster: Cluster, name: str, target: Target, place: str) -> None:
    from ticketsmith.cli.progress import note
    from ticketsmith.execute.kubernetes.launch import wait_until_begun

    try:
        wait_until_begun(records, cluster, name, target, note)
    except KeyboardInterrupt:
        click.echo(
            f"the conductor {name} goes on without this terminal, and begins Jobs when it can. "
            f"{_command('cancel', place, records)} stops it, {_command('status', place, records)} shows it.",
            err=True,
        )
        raise


def _conduct(records: Records, cluster: Cluster, target: Target, wait: bool, detach: bool, place: str) -> int:
    from ticketsmith.api import open_experiment
    from ticketsmith.cli.opened import say_verdict
    from ticketsmith.execute.kubernetes.conductor import Conductor, ensure_conductor

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
        status = Conductor(records, cluster, _tell).run(min(3.0, target.limits.poll))
    except KeyboardInterrupt:
        click.echo("Jobs that run go on; nothing new begins until `ticketsmith resume` (or submit again).", err=True)
        raise
    found = open_experiment(experiment, target.store)
    if found.results:
        say_verdict(found)
        click.echo(f"report: {target.store}/{experiment}/report/index.html")
    return int(gravest((status, found.exit_status)))


def _opened(
    target: str, overrides: Sequence[str], experiment: str | None, patience: float = 60.0
) -> tuple[Target, Records, Cluster]:
    from ticketsmith.config.target import load_target
    from ticketsmith.execute.kubernetes.cluster import connect

    chosen = load_target(target, overrides)
    records = _records(chosen, experiment)
    return chosen, records, connect(chosen.context, chosen.namespace, patience)


def _records(target: Target, experiment: str | None) -> Records:
    from ticketsmith.execute.kubernetes.records import Records
    from ticketsmith.store import open_store

    store = open_store(target.store)
    return Records(store, _name_of(store, experiment))


def _name_of(store: Any, experiment: str | None) -> str:
    if experiment is not None:
        return experiment
    known = store.experiments()
    if len(known) != 1:
        here = f"Here are: {', '.join(known)}." if known else "There are none."
        raise TicketSmithError(f"{store.url}: name an experiment by --experiment. {here}")
    return str(known[0])


def _print_proposal(proposal: Proposal, running: set[str]) -> None:
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
        f"{rate.currency} and {whole.gpu_hours:.1f} GPU hours{_of_budget(target)}: pods at once x hours (deadline, "
        "grace and idle tail of a node) x price of an hour, added up."
    )
    click.echo(f"Prices: {rate.source or 'given by hand'}{f', {rate.dated}' if rate.dated else ''}.")
    if (over := exceeds(whole, target, rate.currency)) is not None:
        click.echo(f"That is {over}. Jobs are begun as long as what they may cost at most keeps within the budget.")


def _print_manifests(proposal: Proposal) -> None:
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
        f"# in all at most {whole.money:.4f} {rate.currency} and {whole.gpu_hours:.2f} GPU hours{_of_budget(target)}"
    )
    if (over := exceeds(whole, target, rate.currency)) is not None:
        click.echo(f"# That is {over}: Jobs are begun as long as what they may cost keeps within the budget.")
    click.echo(yaml.safe_dump_all(proposal.manifests(), sort_keys=False).rstrip())


def _submitted_budget(records: Records) -> str:
    """What counts, whatever a target file says now; nothing where a store holds no submission."""
    try:
        return _of_budget(records.submission().target)
    except TicketSmithError:
        return ""


def _of_budget(target: Target) -> str:
    if target.budget.money is None and target.budget.gpu_hours is None:
        return ""
    parts = [f"{target.budget.money:.2f}"] if target.budget.money is not None else []
    parts += [f"{target.budget.gpu_hours:g} GPU hours"] if target.budget.gpu_hours is not None else []
    return f" (budget: {' and '.join(parts)})"


def _share(pods: Sequence[Any]) -> str:
    known = [(pod.gpu_utilisation, pod.seconds) for pod in pods if pod.gpu_utilisation is not None]
    whole = sum(seconds for _, seconds in known)
    return f"{sum(share * seconds for share, seconds in known) / whole:.0%}" if whole else ""


def _command(verb: str, target: str, records: Records) -> str:
    return f"`ticketsmith {verb} --target {target} --experiment {records.experiment}`"


COMMANDS: tuple[click.Command, ...] = (submit, logs, cancel, resume, cost, work, conduct, finish)
