"""Begins Jobs when what they need is sealed, writes down what they came to, and keeps the bill below the budget.

Stateless: all that it knows it reads, at every step, from the store and the cluster; all that it does may be done twice.
So it can be killed between any two of its steps and begun again, in a pod or on a laptop, and two of them do no harm.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from ticketsmith.config.target import Target
from ticketsmith.errors import Exit, StoreUnreachableError, TicketSmithError
from ticketsmith.execute.kubernetes import ceiling, diagnose, manifests
from ticketsmith.execute.kubernetes.ceiling import Amount, Ceiling
from ticketsmith.execute.kubernetes.cluster import Cluster, Object, UnreachableError
from ticketsmith.execute.kubernetes.jobs import Assignment, Group, Known, groups, job_name, ready, unsettled
from ticketsmith.execute.kubernetes.records import Outcome, PodRecord, Records, Submission
from ticketsmith.plan import Plan
from ticketsmith.store.index import Index

REPORT = "report"
CONDUCTOR = "conductor"
BUDGET = "Budget"
POLL = 10.0

Note = Callable[[str], None]
Grow = Callable[[Plan, Index], Plan]
"""Gives the part of a search's whole plan that it has asked for by now. A pure function of what is sealed."""


@dataclass(frozen=True)
class View:
    """An experiment at one moment."""

    submission: Submission
    plan: Plan
    sealed: frozenset[str]
    outcomes: tuple[Outcome, ...]
    jobs: tuple[Object, ...]
    pods: tuple[Object, ...]
    records: tuple[PodRecord, ...]

    @property
    def target(self) -> Target:
        return self.submission.target

    @property
    def standing(self) -> tuple[Outcome, ...]:
        """Outcomes that were not set aside."""
        return tuple(outcome for outcome in self.outcomes if not outcome.set_aside)


class Conductor:
    """One experiment's. ``note`` is told what happens. A search needs ``grow``."""

    def __init__(self, records: Records, cluster: Cluster, note: Note, grow: Grow | None = None) -> None:
        self.records, self.cluster, self.note, self.grow = records, cluster, note, grow
        self._growth: tuple[Plan, frozenset[str], Plan] | None = None  # the whole, what was sealed, the part
        self._index = Index(records.store, records.experiment)
        self._seen: object = None  # what the cluster said of the Jobs when the index was made
        self._settled_pods: set[str] = set()  # only saves requests
        self._stuck_since: dict[str, float] = {}
        self._told: dict[str, str] = {}
        self._missed: set[str] = set()  # pods that have a record, and were not to be seen at the last look

    def run(self, poll: float = POLL) -> Exit:
        """Steps until nothing more can come. What passes by itself (a slow API server, a store that is away) is waited for."""
        claim = hashlib.sha256(f"conductor of {self.records.experiment}".encode()).hexdigest()
        while True:
            with self.records.store.claim(claim) as granted:
                if not granted:
                    self._say("conductor", "another conductor is at work; waiting")
                while granted:
                    try:
                        status = self.step()
                    except (UnreachableError, StoreUnreachableError) as error:
                        self._say("trouble", f"waiting: {error}")
                        status = None
                    if status is not None:
                        return status
                    time.sleep(poll)
            time.sleep(poll)

    def step(self) -> Exit | None:
        """Looks, writes down, stops, begins. The exit status when nothing more can come."""
        view = self._look()
        if view is None:
            return None
        self._close_lost(view)
        if view.submission.cancelled:
            self.note("cancelled")
            return Exit.INTERRUPTED
        if self._write_down(view) or self._stop_what_overruns(view) or self._stop_what_is_stuck(view):
            return None  # look again: what was just written down decides what comes next
        known = known_of(view, self.records)
        begin = ready(view.plan, known)
        self._begin(view, begin)
        return None if begin or unsettled(view.plan, known) else self._end(view)

    def _look(self) -> View | None:
        submission = self.records.submission()
        plan = self.records.plan(submission)
        if plan is None:
            return None  # a new submission is half written
        selector = manifests.selector_of(self.records.experiment, submission.target.store)
        jobs = self.cluster.jobs(selector)  # before what is sealed: a Job that has ended has sealed all that it will
        pods = self.cluster.pods(selector)
        self._close_pods(jobs, pods, submission.target)
        live = [pod["metadata"]["name"] for pod in pods if pod["status"].get("phase") in ("Pending", "Running")]
        sealed = self._sealed(plan, jobs)
        return View(
            submission,
            self._part(plan, sealed) if submission.search else plan,
            sealed,
            tuple(self.records.outcomes()),
            tuple(jobs),
            tuple(pods),
            tuple(self.records.pods(live)),
        )

    def _sealed(self, plan: Plan, jobs: list[Object]) -> frozenset[str]:
        """Keys of the plan that are sealed. Listed anew when a Job has changed: what goes on inside of one decides nothing."""
        state = (list(plan.by_key), [(job["metadata"], job.get("status")) for job in jobs])
        if state != self._seen:
            self._index.refresh()
        sealed = frozenset(self._index.runs(plan.by_key, plan.experiment))
        self._seen = state
        return sealed

    def _part(self, whole: Plan, sealed: frozenset[str]) -> Plan:
        """As far as the search has come. What is sealed decides that, so that it is asked when that has changed."""
        if self._growth is None or self._growth[:2] != (whole, sealed):
            if self.grow is None:
                raise TicketSmithError(f"{whole.experiment} is a search, which this conductor cannot follow.")
            part = self.grow(whole, self._index)
            if self._growth is None or part != self._growth[2]:
                self.records.keep_plan(part)
                self._say("search", f"search: {len(part.by_key)} runs asked for so far")
            self._growth = whole, sealed, part
        return self._growth[2]

    def _write_down(self, view: View) -> bool:
        """Records what ended Jobs came to; then, with their logs in the store, they need not stay long."""
        concluded = {outcome.job for outcome in view.outcomes}
        new = False
        for job in view.jobs:
            name, component = job["metadata"]["name"], component_of(job)
            state = diagnose.job_state(job, view.pods)
            if state.state in ("complete", "failed"):
                if name not in concluded and component != CONDUCTOR:
                    new = True
                    status: Literal["complete", "failed"] = "complete" if state.state == "complete" else "failed"
                    self.records.conclude(Outcome(name, status, state.reason, state.why, self._groups(job)))
                    self.note(f"{job_title(job)}: {status}{': ' + state.why if state.why else ''}")
                if (job["spec"].get("ttlSecondsAfterFinished") or 0) > view.target.limits.keep:
                    self.cluster.keep_for(name, view.target.limits.keep)
            elif component != CONDUCTOR:
                self._say(name, f"{job_title(job)}: {state.state}{': ' + state.why if state.why else ''}")
        return new

    def _groups(self, job: Object) -> tuple[Group, ...]:
        if component_of(job) == REPORT:
            return ()
        assignment, _, _ = self.records.assignment(job["metadata"]["name"])
        return tuple(sorted(assignment.groups))

    def _close_pods(self, jobs: list[Object], pods: list[Object], target: Target) -> None:
        """Completes the records and logs of pods that ended without a word: killed, out of memory, their node gone."""
        price = ceiling.rates(target)
        by_uid = {job["metadata"].get("uid"): job for job in jobs}
        for pod in pods:
            name = pod["metadata"]["name"]
            owner = next(
                (by_uid[o["uid"]] for o in pod["metadata"].get("ownerReferences") or [] if o["uid"] in by_uid), None
            )
            if owner is None or name in self._settled_pods or pod["status"].get("phase") not in ("Failed", "Succeeded"):
                continue
            job, component, index = owner["metadata"]["name"], component_of(owner), diagnose.index_of(pod)
            record = self.records.pod(job, name)
            if record is None or record.exit is None:  # nor did one that was taken for lost say how it ended
                rate = price["train" if component == "train" else "cpu"]
                record = record or PodRecord.of(name, job, variant_of(owner), index, rate)
                ended = diagnose.terminated(pod) or {}
                seconds = max(record.seconds, diagnose.seconds_of(pod) or 0.0)
                record = replace(record.lasting(seconds), exit=ended.get("exitCode"), ended=True)
                record = replace(record, reason=diagnose.why_ended(pod) if pod["status"]["phase"] == "Failed" else "")
                self._save_log(job, index, name)
                self.records.keep_pod(record)
            self._settled_pods.add(name)

    def _close_lost(self, view: View) -> None:
        """Ends the records of pods that are gone with their node. Two looks: a pod may be younger than the list of pods."""
        there = {pod["metadata"]["name"] for pod in view.pods}
        lost = {record.pod: record for record in view.records if not record.ended and record.pod not in there}
        for name in self._missed & set(lost):
            reason = "gone without a word: its node was lost, or somebody deleted it"
            self.records.keep_pod(replace(lost[name], reason=reason, ended=True))
        self._missed = set(lost)

    def _save_log(self, job: str, index: int | None, pod: str) -> None:
        path = self.records.log_path(job, index, pod)
        there, log = self.records.store.get(path) or b"", self.cluster.log(pod) or b""
        if len(log) > len(there):
            self.records.store.put(path, log)

    def _stop_what_overruns(self, view: View) -> bool:
        """Stops every Job when the budget is used up."""
        spent = spent_of(view)
        over = ceiling.exceeds(spent, view.target, currency_of(view.target))
        active = [job for job in view.jobs if is_active(job) and component_of(job) == "train"]
        if over is None or not active:
            return False
        for job in active:
            name = job["metadata"]["name"]
            message = (
                f"stopped: {over} is used up. Checkpoints are in the store; raise `budget` and `ticketsmith resume`"
            )
            self.records.conclude(Outcome(name, "stopped", BUDGET, message, self._groups(job)))
            self.cluster.delete(name)
            self.note(f"{job_title(job)}: {message}")
        return True

    def _stop_what_is_stuck(self, view: View) -> bool:
        """Stops Jobs whose pods have a node and cannot start there, for an image that is missing say: the node is paid for."""
        stopped, now = False, time.monotonic()
        for job in view.jobs:
            name = job["metadata"]["name"]
            why = diagnose.cannot_start(job, view.pods) if is_active(job) and component_of(job) != CONDUCTOR else ""
            since = self._stuck_since.setdefault(name, now) if why else self._stuck_since.pop(name, now)
            if why and now - since > view.target.limits.stuck:
                message = f"stopped: {why}. Mend it and `ticketsmith resume`"
                self.records.conclude(Outcome(name, "stopped", "Stuck", message, self._groups(job)))
                self.cluster.delete(name)
                self.note(f"{job_title(job)}: {message}")
                stopped = True
        return stopped

    def _begin(self, view: View, assignments: Sequence[Assignment]) -> None:
        """Creates Jobs, as far as what they may cost at most keeps within the budget."""
        price, currency = ceiling.rates(view.target)["train"], currency_of(view.target)
        reserved = committed(view)
        running = any(is_active(job) and component_of(job) == "train" for job in view.jobs)
        for assignment in assignments:
            name, replicates = assignment.name(view.target.store), len(assignment.shares)
            title = f"{assignment.variant} ({replicates} replicates)"
            most = ceiling.training_ceiling(assignment.variant, replicates, view.target, price).amount
            over = ceiling.exceeds(reserved + most, view.target, currency)
            if over is None:
                self._create(view, assignment, name)
                self.note(f"{title}: begun as {name}")
                reserved, running = reserved + most, True
            elif running:
                self._say(name, f"{title}: waits, since with what runs it might cost {over}")
            else:
                message = (
                    f"not begun: it might cost {over}. Raise `budget`, or lower `limits.deadline` or `parallelism`, and "
                    "`ticketsmith resume`"
                )
                self.records.conclude(Outcome(name, "stopped", BUDGET, message, tuple(sorted(assignment.groups))))
                self.note(f"{title}: {message}")

    def _create(self, view: View, assignment: Assignment, name: str) -> None:
        submission = view.submission
        terms = {
            "task": submission.task,
            "recipe_sha256": submission.recipe_sha256,
            "target": submission.target.to_bytes().decode(),
        }
        digest = self.records.assign(name, assignment.to_bytes(view.plan, terms))
        seeds = [share.seed for share in assignment.shares]
        variant, target = assignment.variant, submission.target
        self.cluster.apply(manifests.training_job(name, assignment.experiment, variant, seeds, digest, target))

    def _end(self, view: View) -> Exit | None:
        """The report, and then the exit status."""
        if view.sealed:
            name = self._report_name(view)
            told = next((outcome for outcome in view.standing if outcome.job == name), None)
            if told is None:
                if not any(job["metadata"]["name"] == name for job in view.jobs):
                    self.cluster.apply(manifests.report_job(name, view.plan.experiment, view.target))
                    self.note(f"report: begun as {name}")
                return None
            if told.status != "complete":
                return Exit.LOST
        ended = [outcome for outcome in self._standing_of_plan(view) if outcome.status != "complete"]
        if not ended:
            return Exit.OK if view.sealed else Exit.LOST
        return Exit.OVER_BUDGET if any(outcome.reason == BUDGET for outcome in ended) else Exit.LOST

    def _standing_of_plan(self, view: View) -> list[Outcome]:
        """Of Jobs that left something of this plan unmade."""
        missing = {group for group, nodes in groups(view.plan).items() if any(n.key not in view.sealed for n in nodes)}
        return [outcome for outcome in view.standing if missing & set(outcome.groups)]

    def _report_name(self, view: View) -> str:
        tries = sum(outcome.set_aside and f"-{REPORT}-" in outcome.job for outcome in view.outcomes)
        lost = sorted(outcome.job for outcome in view.standing if outcome.status != "complete" and outcome.groups)
        content = [sorted(view.sealed), view.submission.recipe_sha256, lost, tries]
        return job_name(view.target.store, view.plan.experiment, REPORT, content)

    def _say(self, what: str, text: str) -> None:
        """Tells what has not been told already."""
        if self._told.get(what) != text:
            self._told[what] = text
            self.note(text)


def known_of(view: View, records: Records) -> Known:
    """What ``jobs.ready`` wants to know."""
    active: set[Group] = set()
    for job in view.jobs:
        if is_active(job) and component_of(job) == "train":
            active |= records.assignment(job["metadata"]["name"])[0].groups
    settled = {group for outcome in view.standing for group in outcome.groups}
    if view.submission.search:
        settled = _settled(view, records)
    attempts = Counter(group for outcome in view.outcomes if outcome.set_aside for group in outcome.groups)
    return Known(view.sealed, active, settled, attempts)


def _settled(view: View, records: Records) -> set[Group]:
    """Groups of a search whose Jobs have ended, and were asked for all that is missing: a level that came later was not."""
    asked: dict[Group, set[str]] = {}
    for outcome in view.standing:
        if not outcome.groups:
            continue
        if outcome.reason == BUDGET and not records.is_assigned(outcome.job):  # it was never begun
            shares = {group: {node.key for node in nodes} for group, nodes in groups(view.plan).items()}
        else:
            assignment, _, _ = records.assignment(outcome.job)
            shares = {(assignment.variant, share.seed): set(share.keys) for share in assignment.shares}
        for group in outcome.groups:
            asked.setdefault(group, set()).update(shares.get(group, ()))
    missing = {group: {node.key for node in nodes} - view.sealed for group, nodes in groups(view.plan).items()}
    return {group for group, keys in asked.items() if missing.get(group, set()) <= keys}


def spent_of(view: View) -> Amount:
    """What all pods cost so far."""
    return sum((record.amount for record in view.records), Amount())


def committed(view: View) -> Amount:
    """What is spent, what Jobs that run may still come to, and the report that is still to be written."""
    active = {job["metadata"]["name"]: job for job in view.jobs if is_active(job)}
    price = ceiling.rates(view.target)
    amount = sum((record.amount for record in view.records if record.job not in active), Amount())
    for job in active.values():
        amount += ceiling_of(job, view.target).amount
    return amount + ceiling.report_ceiling(view.target, price["cpu"]).amount


def ceiling_of(job: Object, target: Target) -> Ceiling:
    """The most that a Job of the cluster may cost, by its own deadline and parallelism."""
    price = ceiling.rates(target)["train" if component_of(job) == "train" else "cpu"]
    spec = job["spec"]
    grace = spec["template"]["spec"].get("terminationGracePeriodSeconds", 30)
    return Ceiling(variant_of(job), int(spec.get("parallelism") or 1), spec["activeDeadlineSeconds"] + grace, price)


def currency_of(target: Target) -> str:
    """Of the prices."""
    return ceiling.rates(target)["train"].currency


def is_active(job: Object) -> bool:
    """It has not ended and is not being deleted."""
    return "deletionTimestamp" not in job["metadata"] and diagnose.job_state(job).state in ("waiting", "running")


def component_of(job: Object) -> str:
    """``train``, ``report`` or ``conductor``."""
    return _label(job, "app.kubernetes.io/component")


def variant_of(job: Object) -> str:
    """The variant that a Job makes."""
    return _label(job, "ticketsmith.io/variant").replace("-", "_")


def job_title(job: Object) -> str:
    """What a user calls it."""
    return f"{variant_of(job)} ({job['metadata']['name']})"


def ensure_conductor(records: Records, cluster: Cluster, target: Target) -> str:
    """Begins a conductor unless there is one; its Job's name. One that was taken back is set aside."""
    experiment = records.experiment
    selector = manifests.selector_of(experiment, target.store) + f",app.kubernetes.io/component={CONDUCTOR}"
    there: dict[str, Any] = {job["metadata"]["name"]: job for job in cluster.jobs(selector)}
    for name, job in there.items():
        if is_active(job):
            return name
    earlier = [outcome for outcome in records.outcomes() if outcome.component == CONDUCTOR]
    number, names = 0, {*there, *(outcome.job for outcome in earlier)}
    while (name := job_name(target.store, experiment, CONDUCTOR, number)) in names:
        number += 1
    for outcome in earlier:
        if not outcome.set_aside:
            records.conclude(replace(outcome, set_aside=True))
    cluster.apply(manifests.conductor_job(name, experiment, target))
    return name


def _label(job: Object, name: str) -> str:
    return str(job["metadata"].get("labels", {}).get(name, ""))
