"""Commands that pods run: a share of a Job, the conductor, the report. Users have no need of these."""

from __future__ import annotations

import click

from ticketsmith.cli.targets import tell
from ticketsmith.errors import Exit, TicketSmithError


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
            status = Conductor(records, cluster, tell).run(target.limits.poll)
        except (ClusterError, StoreError) as error:  # a role that is still spreading, say: Kubernetes tries again
            tell(f"error: {error}")
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
        opened = open_experiment(experiment, store, base)
        page = finish_(opened, benchmark, tell, machine=whole)
        if page is None:
            raise TicketSmithError(f"{experiment}: no run is sealed, so there is nothing to report.")
        say_verdict(opened)
        click.echo(f"report: {page}")
        return attended.finish(Exit.OK)
