"""Commands on a cluster: submit, cancel, resume, logs, cost; and those that its pods run, which users have no need of."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from ticketsmith.cli import options
from ticketsmith.cli.jobs import (
    command_line,
    name_of,
    opened,
    print_manifests,
    print_proposal,
    records_of,
    submitted_budget,
    target_option,
    target_options,
    target_overrides,
    tell,
)
from ticketsmith.errors import Exit, TicketSmithError, gravest

if TYPE_CHECKING:
    from ticketsmith.config import Recipe
    from ticketsmith.config.target import Target
    from ticketsmith.execute.kubernetes.executor import KubernetesExecutor
    from ticketsmith.execute.kubernetes.pod import Attended


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
    from ticketsmith.pursuit import growth_of
    from ticketsmith.report.sentences.search import forecast
    from ticketsmith.search import hypotheses, part, path

    destination = load_target(target, set_target, blanks=dry_run)
    recipe = _recipe_for(destination.train.gpus, config, overrides)
    note(f"{recipe.experiment}: reading data, checking the model ...")
    prepared = prepare(recipe)
    if dry_run:
        for field, value in destination.blanks.items():
            note(f"warning: {target}: {field} is still {value!r}: put your own value there before you submit")
        plan = part(prepared.plan, path(recipe, [])) if recipe.search else prepared.plan
        print_manifests(propose(plan, destination, None))
        return Exit.OK
    records = records_of(destination, recipe.experiment)
    cluster = connect(destination.context, destination.namespace, patience=60)
    grow = growth_of(recipe) if recipe.search else None
    executor = KubernetesExecutor(records, cluster, destination, tell, recipe, grow)
    proposal = executor.propose(prepared.plan)
    print_proposal(proposal, running(cluster, proposal))
    if recipe.search:
        click.echo(
            f"These are the first Jobs of a search; what they find decides the next. {forecast(hypotheses(recipe))}"
        )
    if proposal.lost:
        click.echo(
            f"{len(proposal.lost)} Jobs ended without all of their runs and are not tried again by this command: "
            "`ticketsmith resume` does that."
        )
        for outcome in proposal.lost:
            click.echo(f"  {outcome.job}: {outcome.message}")
    if not proposal.assignments and not proposal.runs_missing:
        click.echo("Every run is sealed: only the report is written again.")
    _ask(yes, "submit: there is nobody to ask; give --yes to begin, or --dry-run to look.")
    executor.submit(prepared.plan)
    return _conduct(executor, wait, detach, target)


def _recipe_for(gpus: int, config: str, overrides: Sequence[str]) -> Recipe:
    """The recipe as pods of so many GPUs make it: with a rank on each, unless it says itself how many ranks there are."""
    from ticketsmith.cli.progress import note

    recipe = options.read_recipe(config, overrides, None)
    if gpus < 2 or "ranks" in recipe.training.model_fields_set:
        return recipe
    note(f"train.gpus is {gpus}: each run is made by {gpus} ranks, one a GPU, as with `--set training.ranks={gpus}`")
    return options.read_recipe(config, [*overrides, f"training.ranks={gpus}"], None)


@click.command()
@target_options
def cancel(target: str, set_target: Sequence[str], experiment: str | None) -> None:
    """Stop an experiment on a cluster: pods save their checkpoints and end; nothing that was made is lost."""
    from ticketsmith.execute.kubernetes.submit import cancel as cancel_

    _, records, cluster = opened(target, set_target, experiment)
    stopped = cancel_(records, cluster, click.echo)
    click.echo(f"{records.experiment}: {stopped} Jobs stopped. {command_line('resume', target, records)} goes on.")


@click.command()
@target_options
@click.option("--yes", is_flag=True, help="Do not ask before money is spent.")
@wait_option
@detach_option
def resume(target: str, set_target: Sequence[str], experiment: str | None, yes: bool, wait: bool, detach: bool) -> int:
    """Try again what failed or was stopped on a cluster, from the last checkpoints, with the target as it is now."""
    from dataclasses import replace

    from ticketsmith.execute.kubernetes.executor import KubernetesExecutor
    from ticketsmith.execute.kubernetes.submit import resume as resume_
    from ticketsmith.execute.kubernetes.submit import running
    from ticketsmith.pursuit import growth

    destination, records, cluster = opened(target, set_target, experiment)
    submission = records.submission()
    plan = records.plan(submission)
    if plan is None:
        raise TicketSmithError(f"{records.experiment}: its plan was changed by somebody meanwhile; submit it again.")
    grow = growth(records.store, records.experiment) if submission.search else None
    executor = KubernetesExecutor(records, cluster, destination, tell, grow=grow)
    proposal = executor.propose(plan)
    print_proposal(proposal, running(cluster, proposal))
    _ask(yes, "resume: there is nobody to ask; give --yes to begin.")
    for outcome in resume_(records, replace(submission, target=destination)):
        click.echo(f"again: {outcome.job}: {outcome.message}")
    return _conduct(executor, wait, detach, target)


def _ask(yes: bool, otherwise: str) -> None:
    """Raises Abort when the user does not want to begin, and TicketSmithError of ``otherwise`` when nobody is there."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise TicketSmithError(otherwise)
    click.confirm("Begin?", abort=True)


@click.command()
@target_options
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


@click.command()
@click.option(
    "--target", type=options.file, metavar="FILE", help="The cluster whose store holds the runs; or --runs-prefix."
)
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
    from ticketsmith.execute.kubernetes.ceiling import total
    from ticketsmith.execute.kubernetes.records import Records
    from ticketsmith.store import open_store

    destination = load_target(target, set_target) if target else None
    store = open_store(destination.store if destination else runs_prefix)
    records = Records(store, name_of(store, experiment))
    pods = records.pods()
    if as_json:
        options.print_json([{**asdict(pod), "money": round(pod.amount.money, 6)} for pod in pods])
        return
    rows = []
    for variant in dict.fromkeys(pod.variant for pod in pods):
        mine = [pod for pod in pods if pod.variant == variant]
        amount = total(mine)
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
    whole = total(pods)
    click.echo(
        f"in all {whole.money:.2f} {pods[0].currency}, {whole.gpu_hours:.2f} GPU hours{submitted_budget(records)}"
    )


def _share(pods: Sequence[Any]) -> str:
    shares = [(pod.gpu_utilisation, pod.seconds) for pod in pods if pod.gpu_utilisation is not None]
    whole = sum(seconds for _, seconds in shares)
    return f"{sum(share * seconds for share, seconds in shares) / whole:.0%}" if whole else ""


def _of_a_pod(command: Callable[..., Any]) -> click.Command:
    """A command that a pod runs: hidden, and told the store, the experiment and the pod's Job."""
    for name in ("--job", "--experiment", "--store"):
        command = click.option(name, required=True)(command)
    return click.command(hidden=True)(command)


@_of_a_pod
@click.option("--sha256", "digest", required=True)
@click.option("--index", type=int, envvar="JOB_COMPLETION_INDEX", required=True)
def work(store: str, experiment: str, job: str, digest: str, index: int) -> int:
    """Make one index's share of a Job."""
    from ticketsmith.cli.progress import Log
    from ticketsmith.execute.kubernetes.pod import work as work_

    return work_(store, experiment, job, digest, index, lambda plan, sealed: Log(plan, sealed).show)


@_of_a_pod
def conduct(store: str, experiment: str, job: str) -> int:
    """Begin Jobs when what they need is sealed, until the report is written."""
    from ticketsmith.errors import ClusterError, StoreError
    from ticketsmith.execute.kubernetes.cluster import connect
    from ticketsmith.execute.kubernetes.conductor import CONDUCTOR, Conductor
    from ticketsmith.pursuit import growth

    attended, target = _attended(store, experiment, job, CONDUCTOR)
    records = attended.records
    with attended:
        try:
            cluster = connect(None, target.namespace)
            cluster.mark_begun(job, attended.record.pod, target.limits.experiment, target.limits.keep)
            status = Conductor(records, cluster, tell, growth(records.store, experiment)).run(target.limits.poll)
        except (ClusterError, StoreError) as error:  # a role that is still spreading, say: Kubernetes tries again
            tell(f"error: {error}")
            status = Exit.INCOMPLETE
        return attended.finish(status)


@_of_a_pod
@click.option("--base", default=".")
@click.option("--benchmark/--no-benchmark", default=True)
def finish(store: str, experiment: str, job: str, base: str, benchmark: bool) -> int:
    """Judge, measure and report what is sealed. A gate that fails is a result: the status is 0."""
    from ticketsmith.api import finish as finish_
    from ticketsmith.api import open_experiment
    from ticketsmith.cli.opened import say_verdict
    from ticketsmith.prices import lookup

    attended, target = _attended(store, experiment, job, "report")
    whole = lookup(target.cpu.machine, target.region, target.cpu.spot)  # the benchmark counts all cores of the machine
    with attended:
        sealed = open_experiment(experiment, store, base)
        page = finish_(sealed, benchmark, tell, machine=whole)
        if page is None:
            raise TicketSmithError(f"{experiment}: no run is sealed, so there is nothing to report.")
        say_verdict(sealed)
        click.echo(f"report: {page}")
        return attended.finish(Exit.OK)


def _attended(store: str, experiment: str, job: str, variant: str) -> tuple[Attended, Target]:
    """What keeps log and record of a pod without a GPU, and the target that its experiment was submitted to."""
    from ticketsmith.execute.kubernetes.ceiling import rates
    from ticketsmith.execute.kubernetes.pod import Attended, pod_name
    from ticketsmith.execute.kubernetes.records import PodRecord, Records
    from ticketsmith.store import open_store

    records = Records(open_store(store), experiment)
    target = records.submission().target
    return Attended(records, PodRecord.of(pod_name(), job, variant, None, rates(target)["cpu"])), target


def _wait_until_begun(executor: KubernetesExecutor, name: str, place: str) -> None:
    from ticketsmith.cli.progress import note
    from ticketsmith.execute.kubernetes.launch import wait_until_begun

    records = executor.records
    try:
        wait_until_begun(records, executor.cluster, name, executor.target, note)
    except KeyboardInterrupt:
        click.echo(
            f"the conductor {name} goes on without this terminal, and begins Jobs when it can. "
            f"{command_line('cancel', place, records)} stops it, {command_line('status', place, records)} shows it.",
            err=True,
        )
        raise


def _conduct(executor: KubernetesExecutor, wait: bool, detach: bool, place: str) -> int:
    """To the end from here with ``wait``, and otherwise by a conductor in the cluster."""
    from ticketsmith.api import open_experiment
    from ticketsmith.cli.opened import say_verdict
    from ticketsmith.execute.kubernetes.conductor import ensure_conductor

    experiment = executor.records.experiment
    if not wait:
        name = ensure_conductor(executor.records, executor.cluster, executor.target)
        if not detach:
            _wait_until_begun(executor, name, place)
        begins = "will begin" if detach else "is at work and begins"
        click.echo(f"submitted: the conductor {name} {begins} the Jobs. You may close this terminal.")
        click.echo(f"  ticketsmith status --target {place} --experiment {experiment}")
        click.echo(f"  ticketsmith logs -f --target {place} --experiment {experiment}")
        return Exit.OK
    try:
        status = executor.wait()
    except KeyboardInterrupt:
        click.echo("Jobs that run go on; nothing new begins until `ticketsmith resume` (or submit again).", err=True)
        raise
    outcome = open_experiment(experiment, executor.target.store)
    if outcome.results:
        say_verdict(outcome)
        click.echo(f"report: {executor.target.store}/{experiment}/report/index.html")
    return int(gravest((status, outcome.exit_status)))


COMMANDS: tuple[click.Command, ...] = (submit, logs, cancel, resume, cost, work, conduct, finish)
