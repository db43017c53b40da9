"""What a user asks of the cluster: submit, cancel, resume, look, read logs. The conductor does the rest."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from ticketsmith.config.target import Target
from ticketsmith.errors import RecipeError
from ticketsmith.execute.kubernetes import ceiling, diagnose, manifests
from ticketsmith.execute.kubernetes.ceiling import Row
from ticketsmith.execute.kubernetes.cluster import Cluster, Object
from ticketsmith.execute.kubernetes.conductor import CONDUCTOR, component_of, is_active, variant_of
from ticketsmith.execute.kubernetes.jobs import Assignment, Group, Known, expected, job_name
from ticketsmith.execute.kubernetes.records import WHOLE, Outcome, Records, Submission, sha256
from ticketsmith.plan import Plan
from ticketsmith.store.index import Index


@dataclass(frozen=True)
class Proposal:
    """What submitting would begin: Jobs in order, what they may cost, and what stands in the way."""

    plan: Plan
    target: Target
    assignments: tuple[Assignment, ...]
    rows: tuple[Row, ...]
    sealed: frozenset[str]
    lost: tuple[Outcome, ...]

    @property
    def runs_missing(self) -> int:
        """Runs that are not sealed."""
        return len(self.plan.by_key) - len(self.sealed)

    def manifests(self) -> list[Object]:
        """All Jobs, the conductor first. Those of later Jobs hold the digest of a ``job.json`` that is not written yet."""
        store, experiment = self.target.store, self.plan.experiment
        jobs = [manifests.conductor_job(job_name(store, experiment, CONDUCTOR, 0), experiment, self.target)]
        for one in self.assignments:
            seeds = [share.seed for share in one.shares]
            jobs.append(
                manifests.training_job(one.name(store), experiment, one.variant, seeds, sha256(b""), self.target)
            )
        jobs.append(manifests.report_job(job_name(store, experiment, "report", []), experiment, self.target))
        return jobs


def propose(plan: Plan, target: Target, records: Records | None, again: bool = False) -> Proposal:
    """Looks at what is there; changes nothing. Without records (a dry run offline) nothing counts as made.

    ``again``: as if what failed or was stopped were set aside. Raises RecipeError when a pod has too few GPUs for a run.
    """
    _check_ranks(plan, target)
    sealed: frozenset[str] = frozenset()
    outcomes: list[Outcome] = []
    if records is not None:
        sealed = frozenset(Index(records.store, plan.experiment).runs(plan.by_key, plan.experiment))
        outcomes = records.outcomes()
        if again:
            outcomes = [
                replace(outcome, set_aside=outcome.set_aside or outcome.status != "complete") for outcome in outcomes
            ]
    standing = [outcome for outcome in outcomes if not outcome.set_aside]
    attempts: dict[Group, int] = {}
    for outcome in outcomes:
        for group in outcome.groups if outcome.set_aside else ():
            attempts[group] = attempts.get(group, 0) + 1
    settled = {group for outcome in standing for group in outcome.groups}
    assignments = tuple(expected(plan, Known(sealed, settled=settled, attempts=attempts)))
    lost = tuple(o for o in standing if o.status != "complete" and o.component != CONDUCTOR)
    return Proposal(plan, target, assignments, tuple(ceiling.table(assignments, sealed, target)), sealed, lost)


def _check_ranks(plan: Plan, target: Target) -> None:
    ranks = max((run.spec.training.ranks for run in plan.by_key.values()), default=1)
    if 0 < target.train.gpus < ranks:
        raise RecipeError(
            f"training.ranks is {ranks}, and train.gpus {target.train.gpus}: each rank has a GPU of the same pod to itself. Set "
            f"train.gpus to {ranks} (--set-target train.gpus={ranks}), or training.ranks to {target.train.gpus}."
        )


def submit(
    records: Records,
    cluster: Cluster,
    proposal: Proposal,
    recipe_text: str,
    task: Any,
    recipe_sha256: str,
    whole: Plan | None = None,
) -> None:
    """Writes the experiment into the store. The cluster is asked first whether it would take the Jobs at all.

    ``whole``: all runs that it may ask for, where it is a search, and the proposal what it has asked for so far.
    Raises ClusterError with the server's own reason when it would not.
    """
    for job in proposal.manifests():
        job["metadata"]["name"] += "-check"  # a name that is free: of a Job that runs nothing may be changed
        if component_of(job) == CONDUCTOR:
            job["spec"]["activeDeadlineSeconds"] = (
                proposal.target.limits.experiment
            )  # what it asks for once it has begun
        cluster.apply(job, dry_run=True)
    experiment, plan = records.experiment, proposal.plan.to_bytes()
    records.store.put(f"{experiment}/recipe.yaml", recipe_text.encode())
    records.store.put(f"{experiment}/plan.json", plan)
    if whole is not None:
        plan = whole.to_bytes()
        records.store.put(f"{experiment}/{WHOLE}", plan)
    records.submit(Submission(proposal.target, task, recipe_sha256, sha256(plan), search=whole is not None))


def cancel(records: Records, cluster: Cluster, note: Callable[[str], None], patience: float = 120.0) -> int:
    """Stops everything of an experiment: pods save their checkpoints and end. How many Jobs were stopped.

    The conductor goes first, so that it begins nothing behind our back.
    """
    submission = records.submission()
    records.submit(replace(submission, cancelled=True))
    selector = manifests.selector_of(records.experiment, submission.target.store)
    conductors = f"{selector},app.kubernetes.io/component={CONDUCTOR}"
    stopped = 0
    for job in cluster.jobs(conductors):
        if is_active(job):
            cluster.delete(job["metadata"]["name"])
            note(f"{CONDUCTOR} ({job['metadata']['name']}): stopped")
            stopped += 1
    deadline = time.monotonic() + patience
    while _lives(cluster, conductors) and time.monotonic() < deadline:
        time.sleep(0.5)
    for job in cluster.jobs(selector):
        if is_active(job) and component_of(job) != CONDUCTOR:
            name = job["metadata"]["name"]
            groups: tuple[Group, ...] = ()
            if component_of(job) == "train":
                groups = tuple(sorted(records.assignment(name)[0].groups))
            records.conclude(Outcome(name, "stopped", "Cancelled", "cancelled by a user", groups))
            cluster.delete(name)
            note(f"{variant_of(job)} ({name}): stopped")
            stopped += 1
    return stopped


def resume(records: Records, submission: Submission) -> list[Outcome]:
    """Sets aside what failed or was stopped, so that it is tried again; gives what that was."""
    again = [outcome for outcome in records.outcomes() if outcome.status != "complete" and not outcome.set_aside]
    for outcome in again:
        records.conclude(replace(outcome, set_aside=True))
    records.submit(replace(submission, cancelled=False))
    return again


@dataclass(frozen=True)
class Line:
    """A Job as ``status`` shows it."""

    job: str
    variant: str
    component: str
    state: str
    why: str
    active: int
    succeeded: int
    failed: int


def running(cluster: Cluster, proposal: Proposal) -> set[str]:
    """Variants of which a Job is at work already; ``report`` and ``conductor`` are two."""
    selector = manifests.selector_of(proposal.plan.experiment, proposal.target.store)
    return {variant_of(job) for job in cluster.jobs(selector) if is_active(job)}


def look(records: Records, cluster: Cluster, target: Target) -> list[Line]:
    """The Jobs of an experiment: those in the cluster, and those that have gone but left a record."""
    selector = manifests.selector_of(records.experiment, target.store)
    jobs, pods, events = cluster.jobs(selector), cluster.pods(selector), cluster.events()
    lines = []
    outcomes = {outcome.job: outcome for outcome in records.outcomes()}
    for job in jobs:
        name, state = job["metadata"]["name"], diagnose.job_state(job, pods, events)
        outcome = outcomes.pop(name, None)
        shown, why = state.state, state.why
        if outcome is not None:
            shown, why = outcome.status, outcome.message  # type: ignore[assignment]
        counts = (state.active, state.succeeded, state.failed)
        lines.append(Line(name, variant_of(job), component_of(job), shown, why, *counts))
    for name, outcome in outcomes.items():
        if not outcome.set_aside:
            variant = outcome.groups[0][0] if outcome.groups else outcome.component
            lines.append(Line(name, variant, outcome.component, outcome.status, outcome.message, 0, 0, 0))
    return lines


def _lives(cluster: Cluster, selector: str) -> bool:
    return any(pod["status"].get("phase") in ("Pending", "Running") for pod in cluster.pods(selector))
