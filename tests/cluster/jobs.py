"""The Job controller, the TTL controller, and Kueue: what makes pods of Jobs, and what Jobs come to.

The order of decisions is the real controller's: a failure policy before back-off limits, these before the deadline, then
the indexes. Pods are counted when their tracking finalizer is taken off, once each.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass, field
from decimal import Decimal

from tests.cluster.registry import Registry, condition, set_condition, tell
from tests.cluster.resources import JOBS, PODS, ApiError, Object, Resource, at, quantity
from tests.cluster.storage import Storage, controlled_by, drop_finalizers, is_finished, random_suffix

TRACKING = "batch.kubernetes.io/job-tracking"
INDEX = "batch.kubernetes.io/job-completion-index"
FAILURES = "batch.kubernetes.io/job-index-failure-count"
IGNORED = "batch.kubernetes.io/job-index-ignored-failure-count"
SOURCE = "job-controller"

Ending = tuple[str, str, str]
"""Interim condition, reason, message."""

MESSAGES = {
    "BackoffLimitExceeded": "Job has reached the specified backoff limit",
    "DeadlineExceeded": "Job was active longer than specified deadline",
    "MaxFailedIndexesExceeded": "Job has exceeded the specified maximal number of failed indexes",
    "FailedIndexes": "Job has failed indexes",
    "CompletionsReached": "Reached expected number of succeeded pods",
}


@dataclass
class _Record:
    """Failures in a row, for Jobs that back off as a whole."""

    failures: int = 0
    last: Object | None = None


@dataclass
class JobController:
    """``backoff`` is the first delay after a failure; a real cluster's is 10 s. It doubles, up to 36 times itself."""

    storage: Storage
    registry: Registry
    backoff: float = 10.0
    twins: set[tuple[str, int]] = field(default_factory=set)
    """Indexes (uid of the Job, index) whose second pod is let be, as it happens now and then in real clusters."""
    _records: dict[str, _Record] = field(default_factory=dict)
    _refused: dict[str, tuple[float, float]] = field(default_factory=dict)
    _failed_at: dict[str, float] = field(default_factory=dict)

    def step(self) -> None:
        with self.storage.lock:
            jobs = {job["metadata"]["uid"]: job for job in self.storage.view(JOBS)}
            mine: dict[str, list[Object]] = {uid: [] for uid in jobs}
            for pod in self.storage.view(PODS):
                owner = next((o["uid"] for o in pod["metadata"].get("ownerReferences", []) if o.get("controller")), "")
                if owner in mine:
                    mine[owner].append(pod)
                elif TRACKING in pod["metadata"].get("finalizers", []):
                    self._untrack(pod)
            for uid, job in jobs.items():
                if is_over(job):
                    self._expire(job)
                else:
                    _Sync(self, job, mine[uid]).run()

    def pod_of(self, job: Object, index: int) -> Object:
        """What would be created for an index."""
        return _Sync(self, job, []).pod(index)

    def _expire(self, job: Object) -> None:
        ttl = job["spec"].get("ttlSecondsAfterFinished")
        ended = condition(job, "Complete") or condition(job, "Failed")
        if ttl is None or ended is None or "deletionTimestamp" in job["metadata"]:
            return
        if self.storage.clock.since(ended["lastTransitionTime"]) >= ttl:
            self.storage.discard(JOBS, job, propagation="Foreground")

    def _untrack(self, pod: Object) -> None:
        self.storage.edit(PODS, pod, lambda live: drop_finalizers(live, {TRACKING}))

    def must_wait(self, failures: int, last: Object | None) -> bool:
        """Whether a replacement is still to come, since the last failed pod."""
        if last is None or not failures:
            return False
        delay = min(self.backoff * 2 ** (failures - 1), self.backoff * 36)
        return time.monotonic() - self._failed_at.get(last["metadata"]["uid"], 0.0) < delay


class _Sync:
    """One look at one Job."""

    def __init__(self, controller: JobController, job: Object, pods: list[Object]) -> None:
        self.controller, self.storage, self.job = controller, controller.storage, job
        self.spec, self.status = job["spec"], deepcopy(job.get("status") or {})
        self.indexed = self.spec["completionMode"] == "Indexed"
        self.per_index = "backoffLimitPerIndex" in self.spec
        self.only_failed = self.spec.get("podReplacementPolicy") == "Failed" or "podFailurePolicy" in self.spec
        self.pods = sorted(pods, key=lambda pod: (index_of(pod), pod["metadata"]["name"]))
        self.active = [pod for pod in pods if not is_finished(pod) and "deletionTimestamp" not in pod["metadata"]]
        self.terminating = sum(not is_finished(pod) and "deletionTimestamp" in pod["metadata"] for pod in pods)
        self.completed = parse_indexes(self.status.get("completedIndexes", ""))
        self.failed = parse_indexes(self.status.get("failedIndexes", ""))

    @property
    def tracked(self) -> list[Object]:
        return [pod for pod in self.pods if TRACKING in pod["metadata"].get("finalizers", [])]

    @property
    def suspended(self) -> bool:
        return bool(self.spec.get("suspend"))

    def has_failed(self, pod: Object) -> bool:
        phase = at(pod, "status", "phase")
        gone = not self.only_failed and "deletionTimestamp" in pod["metadata"] and phase != "Succeeded"
        return phase == "Failed" or gone

    def run(self) -> None:
        now = self.storage.clock.stamp()
        resuming = at(condition(self.job, "Suspended"), "status") == "True"
        if "startTime" not in self.status and not self.suspended and not resuming:
            self.status["startTime"] = now
        self._count_failures_in_a_row()
        if self.indexed:
            self.completed |= {index_of(pod) for pod in self.tracked if at(pod, "status", "phase") == "Succeeded"}
            if self.per_index:
                self.failed |= {index_of(pod) for pod in self.tracked if self._fails_index(pod)}
        ending = self._ending()
        active = len(self.active)
        if ending is not None:
            for pod in self.active:
                self._delete(pod)
            self.terminating += active
            active = 0
        elif "deletionTimestamp" not in self.job["metadata"]:
            active = self._manage()
        self._count_finished(ending)
        if ending is None and self._is_complete(active):
            ending = ("SuccessCriteriaMet", "CompletionsReached", MESSAGES["CompletionsReached"])
        if ending is None:
            self._tell_suspension(now)
        self._set_status(ending, active, now)

    # What it comes to -------------------------------------------------------------------------------------------------

    def _ending(self) -> Ending | None:
        for interim in ("SuccessCriteriaMet", "FailureTarget"):
            if (old := condition(self.job, interim)) is not None:
                return interim, old.get("reason", ""), old.get("message", "")
        for pod in self.pods:
            if self.has_failed(pod) and (message := match_policy(self.job, pod)[1]):
                return "FailureTarget", "PodFailurePolicy", message
        new = sum(match_policy(self.job, pod)[0] != "Ignore" for pod in self.tracked if self.has_failed(pod))
        deadline = self.spec.get("activeDeadlineSeconds")
        reason = ""
        if self.status.get("failed", 0) + new > self.spec["backoffLimit"] or self._restarts_too_often():
            reason = "BackoffLimitExceeded"
        elif deadline is not None and not self.suspended and self._running_for() >= deadline + 1:
            reason = "DeadlineExceeded"  # about a second late, as in real clusters
        elif self.per_index and len(self.failed) > self.spec.get("maxFailedIndexes", 10**9):
            reason = "MaxFailedIndexesExceeded"
        elif self.per_index and self.failed and len(self.failed) + len(self.completed) >= self.spec["completions"]:
            reason = "FailedIndexes"
        return ("FailureTarget", reason, MESSAGES[reason]) if reason else None

    def _running_for(self) -> float:
        return self.storage.clock.since(self.status["startTime"]) if "startTime" in self.status else 0.0

    def _restarts_too_often(self) -> bool:
        if at(self.spec, "template", "spec", "restartPolicy") != "OnFailure":
            return False
        statuses = [c for pod in self.active for c in at(pod, "status", "containerStatuses") or []]
        restarts = sum(c.get("restartCount", 0) for c in statuses)
        return restarts > 0 if self.spec["backoffLimit"] == 0 else restarts >= self.spec["backoffLimit"]

    def _fails_index(self, pod: Object) -> bool:
        if not self.has_failed(pod):
            return False
        action = match_policy(self.job, pod)[0]
        return action == "FailIndex" or (
            action != "Ignore" and _count(pod, FAILURES) >= self.spec["backoffLimitPerIndex"]
        )

    def _is_complete(self, active: int) -> bool:
        succeeded = len(self.completed) if self.indexed else self.status.get("succeeded", 0)
        wanted = self.spec.get("completions")
        return (succeeded > 0 if wanted is None else succeeded >= wanted) and active == 0

    # Pods -------------------------------------------------------------------------------------------------------------

    def _manage(self) -> int:
        """Deletes or creates pods; how many are active then."""
        active = len(self.active)
        if self.suspended:
            return self._shrink(self.active)
        succeeded = len(self.completed) if self.indexed else self._succeeded()
        completions, parallelism = self.spec.get("completions"), self.spec["parallelism"]
        if completions is None:
            wanted = active if succeeded else parallelism
        else:
            wanted = max(0, min(parallelism, completions - succeeded))
        superfluous = self._superfluous(active - wanted)
        if superfluous:
            return self._shrink(superfluous)
        missing = wanted - active - (self.terminating if self.only_failed else 0)
        if missing <= 0:
            return active
        uid = self.job["metadata"]["uid"]
        record = self.controller._records.get(uid, _Record())
        if not self.per_index and self.controller.must_wait(record.failures, record.last):
            return active
        again, _ = self.controller._refused.get(uid, (0.0, 0.0))
        if self.storage.clock.now().timestamp() < again:
            return active
        for index in self._indexes(missing) if self.indexed else [None] * missing:
            if not self._create(index):
                break
            active += 1
        return active

    def _shrink(self, pods: list[Object]) -> int:
        """Deletes pods that are not to count as failures; how many are left."""
        for pod in pods:
            self.controller._untrack(pod)
            self._delete(pod)
            tell(self.storage, self.job, "SuccessfulDelete", f"Deleted pod: {pod['metadata']['name']}", SOURCE)
        self.terminating += len(pods)
        return len(self.active) - len(pods)

    def _succeeded(self) -> int:
        new = sum(at(pod, "status", "phase") == "Succeeded" for pod in self.tracked)
        return int(self.status.get("succeeded", 0)) + new

    def _superfluous(self, at_least: int) -> list[Object]:
        """Second pods of an index go first, then those that have got least far."""
        seen: set[int] = set()
        extra = []
        order = sorted(self.active, key=lambda p: p["metadata"]["creationTimestamp"]) if self.indexed else []
        for pod in order:
            index = index_of(pod)
            if index in seen and (self.job["metadata"]["uid"], index) in self.controller.twins:
                at_least -= 1
            elif index in seen:
                extra.append(pod)
            seen.add(index)
        rest = [pod for pod in self.active if pod not in extra]
        rest.sort(key=lambda pod: at(pod, "status", "phase") == "Running")
        return extra + rest[: max(0, at_least - len(extra))]

    def _indexes(self, most: int) -> list[int]:
        """The first that have no pod and have not ended, and have waited long enough."""
        busy = {index_of(pod) for pod in self.active} | self.completed | self.failed
        if self.only_failed:
            busy |= {
                index_of(pod) for pod in self.pods if "deletionTimestamp" in pod["metadata"] and not is_finished(pod)
            }
        pending = [index for index in range(self.spec["completions"]) if index not in busy][:most]
        if not self.per_index:
            return pending
        return [index for index in pending if self._waited(self._last_failure(index))]

    def _waited(self, last: Object | None) -> bool:
        if last is None:
            return True
        return not self.controller.must_wait(_count(last, FAILURES) + _count(last, IGNORED) + 1, last)

    def _last_failure(self, index: int) -> Object | None:
        failed = [pod for pod in self.tracked if index_of(pod) == index and self.has_failed(pod)]
        return max(
            failed, key=lambda pod: (_count(pod, FAILURES) + _count(pod, IGNORED), finished_at(pod)), default=None
        )

    def _create(self, index: int | None) -> bool:
        try:
            pod = self.controller.registry.create(PODS, self.pod(index))
        except ApiError as error:
            uid = self.job["metadata"]["uid"]
            _, delay = self.controller._refused.get(uid, (0.0, 0.0))
            delay = min(max(2 * delay, self.controller.backoff / 10), self.controller.backoff * 6)
            self.controller._refused[uid] = (self.storage.clock.now().timestamp() + delay, delay)
            tell(self.storage, self.job, "FailedCreate", f"Error creating: {error.message}", SOURCE, warning=True)
            return False
        self.controller._refused.pop(self.job["metadata"]["uid"], None)
        tell(self.storage, self.job, "SuccessfulCreate", f"Created pod: {pod['metadata']['name']}", SOURCE)
        return True

    def pod(self, index: int | None) -> Object:
        """The pod of an index, by the template."""
        template, meta = deepcopy(self.spec["template"]), self.job["metadata"]
        prefix = f"{meta['name']}-" if index is None else f"{meta['name']}-{index}-"
        if len(prefix) > 58:
            tail = "-" if index is None else f"-{index}-"
            prefix = meta["name"][: 58 - len(tail)] + tail
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": meta["name"], "uid": meta["uid"]}
        owner |= {"controller": True, "blockOwnerDeletion": True}
        own = template.get("metadata") or {}
        pod = {"metadata": {"name": prefix + random_suffix(), "generateName": prefix, "namespace": meta["namespace"]}}
        pod["metadata"] |= {"labels": dict(own.get("labels") or {}), "annotations": dict(own.get("annotations") or {})}
        pod["metadata"] |= {"ownerReferences": [owner], "finalizers": [TRACKING]}
        pod["spec"] = template["spec"]
        if index is None:
            return pod
        pod["metadata"]["labels"][INDEX] = pod["metadata"]["annotations"][INDEX] = str(index)
        pod["spec"]["hostname"] = f"{meta['name']}-{index}"
        reference = {"fieldRef": {"fieldPath": f"metadata.labels['{INDEX}']"}}
        for container in [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]:
            env = container.setdefault("env", [])
            if all(variable["name"] != "JOB_COMPLETION_INDEX" for variable in env):
                env.append({"name": "JOB_COMPLETION_INDEX", "valueFrom": reference})
        if self.per_index:
            last = self._last_failure(index)
            failures, ignored = (_count(last, FAILURES), _count(last, IGNORED)) if last else (0, 0)
            if last is not None:
                if match_policy(self.job, last)[0] == "Ignore":
                    ignored += 1
                else:
                    failures += 1
            pod["metadata"]["annotations"][FAILURES] = str(failures)
            if ignored:
                pod["metadata"]["annotations"][IGNORED] = str(ignored)
        return pod

    def _delete(self, pod: Object) -> None:
        self.storage.discard(PODS, pod)

    # Counting ---------------------------------------------------------------------------------------------------------

    def _count_failures_in_a_row(self) -> None:
        record = self.controller._records.setdefault(self.job["metadata"]["uid"], _Record())
        new = [pod for pod in self.tracked if is_finished(pod) or self.has_failed(pod)]
        for pod in sorted(new, key=finished_at):
            if at(pod, "status", "phase") == "Succeeded":
                record.failures = 0
            elif pod["metadata"]["uid"] not in self.controller._failed_at:
                self.controller._failed_at[pod["metadata"]["uid"]] = time.monotonic()
                record.failures, record.last = record.failures + 1, pod

    def _count_finished(self, ending: Ending | None) -> None:
        """Takes the finalizer off, and counts. The last failure of an index stays until its replacement is there."""
        fresh = [p for p in self.storage.view(PODS, self.job["metadata"]["namespace"]) if controlled_by(self.job)(p)]
        replaced = {
            index_of(pod) for pod in fresh if not is_finished(pod) and "deletionTimestamp" not in pod["metadata"]
        }
        replaced |= self.completed | self.failed
        failing = ending is not None and ending[0] == "FailureTarget"
        over = ending is not None or "deletionTimestamp" in self.job["metadata"]
        held = set()
        if self.per_index and not over:
            waiting = {index_of(pod) for pod in self.tracked} - replaced
            held = {last["metadata"]["uid"] for i in waiting if (last := self._last_failure(i)) is not None}
        for pod in self.tracked:
            succeeded, failed = at(pod, "status", "phase") == "Succeeded", self.has_failed(pod)
            if pod["metadata"]["uid"] in held or not (succeeded or failed or over):
                continue
            self.controller._untrack(pod)
            if succeeded:
                self.status["succeeded"] = self.status.get("succeeded", 0) + 1
            elif (failed or failing) and match_policy(self.job, pod)[0] != "Ignore":
                self.status["failed"] = self.status.get("failed", 0) + 1

    def _tell_suspension(self, now: str) -> None:
        self.status.setdefault("conditions", [])
        view = {"status": self.status}
        if self.suspended:
            if set_condition(view, "Suspended", "True", now, "JobSuspended", "Job suspended"):
                self.status.pop("startTime", None)  # the next start is told a moment after the Job has been resumed
                tell(self.storage, self.job, "Suspended", "Job suspended", SOURCE)
        elif condition(view, "Suspended") and set_condition(
            view, "Suspended", "False", now, "JobResumed", "Job resumed"
        ):
            tell(self.storage, self.job, "Resumed", "Job resumed", SOURCE)

    def _set_status(self, ending: Ending | None, active: int, now: str) -> None:
        status = self.status
        status |= {"active": active, "terminating": self.terminating, "uncountedTerminatedPods": {}}
        status["ready"] = sum(at(condition(pod, "Ready"), "status") == "True" for pod in self.active) if active else 0
        if self.indexed:
            status["succeeded"] = len(self.completed)
            status["completedIndexes"] = write_indexes(self.completed)
            if self.per_index:
                status["failedIndexes"] = write_indexes(self.failed)
        finished = False
        if ending is not None:
            interim, reason, message = ending
            view = {"status": status}
            set_condition(view, interim, "True", now, reason, message)
            if self.terminating == 0:
                finished = True
                final = "Complete" if interim == "SuccessCriteriaMet" else "Failed"
                set_condition(view, final, "True", now, reason, message)
                if final == "Complete":
                    status["completionTime"] = now
        for name in ("active", "succeeded", "failed", "completedIndexes", "conditions"):
            if not status.get(name):
                status.pop(name, None)  # as the server leaves out what is zero
        if self.storage.edit(JOBS, self.job, lambda live: live.update(status=status)) is None or not finished:
            return
        if "completionTime" in status:
            tell(self.storage, self.job, "Completed", "Job completed", SOURCE)
        elif ending is not None:
            tell(self.storage, self.job, ending[1], ending[2], SOURCE, warning=True)


def is_over(job: Object) -> bool:
    return any(at(condition(job, name), "status") == "True" for name in ("Complete", "Failed"))


def match_policy(job: Object, pod: Object) -> tuple[str | None, str | None]:
    """The action of the first rule that matches, and for FailJob the message."""
    meta = pod["metadata"]
    for number, rule in enumerate((job["spec"].get("podFailurePolicy") or {}).get("rules") or []):
        action, on_exit = rule["action"], rule.get("onExitCodes")
        if on_exit is not None:
            for status in at(pod, "status", "containerStatuses") or []:
                code = at(status, "state", "terminated", "exitCode")
                named = on_exit.get("containerName") in (None, status["name"])
                if not code or not named or (code in on_exit["values"]) != (on_exit["operator"] == "In"):
                    continue
                message = (
                    f"Container {status['name']} for pod {meta['namespace']}/{meta['name']} failed with exit code "
                )
                message += f"{code} matching {action} rule at index {number}"
                return action, message if action == "FailJob" else None
        for pattern in rule.get("onPodConditions") or []:
            found = condition(pod, pattern["type"])
            if found is not None and found["status"] == pattern.get("status", "True"):
                message = (
                    f"Pod {meta['namespace']}/{meta['name']} has condition {pattern['type']} matching {action} rule at "
                )
                return action, f"{message}index {number}" if action == "FailJob" else None
    return None, None


def index_of(pod: Object) -> int:
    return int((pod["metadata"].get("annotations") or {}).get(INDEX, -1))


def finished_at(pod: Object) -> str:
    ends = [at(c, "state", "terminated", "finishedAt") for c in at(pod, "status", "containerStatuses") or []]
    known = [end for end in ends if end]
    changed = [c["lastTransitionTime"] for c in at(pod, "status", "conditions") or [] if c.get("lastTransitionTime")]
    fallback = pod["metadata"].get("deletionTimestamp") or pod["metadata"]["creationTimestamp"]
    return max(known or changed or [fallback])


def parse_indexes(text: str) -> set[int]:
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return found


def write_indexes(indexes: Iterable[int]) -> str:
    """``0,1,3-5``: three and more in a row are written as a range."""
    runs: list[list[int]] = []
    for index in sorted(indexes):
        if runs and index == runs[-1][-1] + 1:
            runs[-1].append(index)
        else:
            runs.append([index])
    return ",".join(
        str(run[0]) if len(run) == 1 else f"{run[0]}{',' if len(run) == 2 else '-'}{run[-1]}" for run in runs
    )


def _count(pod: Object, annotation: str) -> int:
    return int((pod["metadata"].get("annotations") or {}).get(annotation, 0))


# Kueue ---------------------------------------------------------------------------------------------------------------

QUEUE = "kueue.x-k8s.io/queue-name"
LOCAL_QUEUES = Resource("kueue.x-k8s.io", "v1beta2", "localqueues", "LocalQueue", True, ("lq",), ("status",))
WORKLOADS = Resource("kueue.x-k8s.io", "v1beta2", "workloads", "Workload", True, ("wl",), ("status",))
KUEUE_KINDS = (
    LOCAL_QUEUES,
    WORKLOADS,
    Resource("kueue.x-k8s.io", "v1beta2", "clusterqueues", "ClusterQueue", False, ("cq",), ("status",)),
    Resource("kueue.x-k8s.io", "v1beta2", "resourceflavors", "ResourceFlavor", False, ("rf",)),
)


@dataclass
class Kueue:
    """Suspends Jobs that name a queue as they are admitted, and lets them go in order while there is quota.

    ``quota`` is by resource; a Job holds what its pods ask for at its parallelism, until it is over.
    """

    storage: Storage
    quota: dict[str, str] = field(default_factory=dict)
    holding: bool = False
    """While true, nothing is admitted."""

    def webhook(self, resource: Resource, thing: Object, live: Object | None) -> None:
        if resource is JOBS and live is None and QUEUE in (thing["metadata"].get("labels") or {}):
            thing["spec"]["suspend"] = True

    def step(self) -> None:
        with self.storage.lock:
            queued = [job for job in self.storage.view(JOBS) if QUEUE in (job["metadata"].get("labels") or {})]
            queued = [job for job in queued if not is_over(job) and "deletionTimestamp" not in job["metadata"]]
            queued.sort(key=lambda job: int(job["metadata"]["resourceVersion"]) if job["spec"]["suspend"] else 0)
            used: dict[str, Decimal] = {}
            for job in queued:
                workload = self._workload(job)
                lacking = self._lacking(job, used) if job["spec"]["suspend"] else ""
                if job["spec"]["suspend"] and lacking:
                    self._say(workload, "QuotaReserved", "False", "Pending", lacking)
                    continue
                for name, amount in _asked(job).items():
                    used[name] = used.get(name, Decimal(0)) + amount
                if job["spec"]["suspend"]:
                    self._admit(job, workload)

    def evict(self, job: Object) -> None:
        """Takes the quota back: the Job is suspended, and its pods end."""
        self.holding = True
        self.storage.edit(JOBS, job, lambda live: live["spec"].update(suspend=True))

    def _admit(self, job: Object, workload: Object) -> None:
        queue = job["metadata"]["labels"][QUEUE]
        self._say(workload, "QuotaReserved", "True", "QuotaReserved", "Quota reserved in ClusterQueue default")
        self._say(workload, "Admitted", "True", "Admitted", "The workload is admitted")
        self.storage.edit(JOBS, job, lambda live: live["spec"].update(suspend=False))
        tell(self.storage, job, "Started", "Admitted by clusterQueue default", f"batch/job-kueue-controller-{queue}")

    def _lacking(self, job: Object, used: dict[str, Decimal]) -> str:
        meta = job["metadata"]
        if not self.storage.find(LOCAL_QUEUES, meta["namespace"], meta["labels"][QUEUE]):
            return f"LocalQueue {meta['labels'][QUEUE]} doesn't exist"
        missing = []
        for name, amount in _asked(job).items():
            more = used.get(name, 0) + amount - quantity(self.quota.get(name, "1E"))
            if more > 0:
                missing.append(f"insufficient unused quota for {name} in flavor default-flavor, {more:f} more needed")
        if self.holding and not missing:
            missing.append("insufficient unused quota for cpu in flavor default-flavor, 1 more needed")
        return f"couldn't assign flavors to pod set main: {', '.join(missing)}" if missing else ""

    def _workload(self, job: Object) -> Object:
        meta = job["metadata"]
        name = f"job-{meta['name']}"[:57] + f"-{meta['uid'][:5]}"
        found = self.storage.find(WORKLOADS, meta["namespace"], name)
        if found is not None:
            return found
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": meta["name"], "uid": meta["uid"], "controller": True}
        labels = {"kueue.x-k8s.io/job-uid": meta["uid"]}
        made = {"apiVersion": WORKLOADS.api_version, "kind": "Workload", "spec": {"queueName": meta["labels"][QUEUE]}}
        made["metadata"] = {"name": name, "namespace": meta["namespace"], "labels": labels, "ownerReferences": [owner]}
        tell(
            self.storage,
            job,
            "CreatedWorkload",
            f"Created Workload: {meta['namespace']}/{name}",
            "batch/job-kueue-controller",
        )
        return self.storage.create(WORKLOADS, made)

    def _say(self, workload: Object, type_: str, status: str, reason: str, message: str) -> None:
        now = self.storage.clock.stamp()
        self.storage.edit(WORKLOADS, workload, lambda live: set_condition(live, type_, status, now, reason, message))


def _asked(job: Object) -> dict[str, Decimal]:
    spec = job["spec"]
    pods = min(spec["parallelism"], spec.get("completions") or spec["parallelism"])
    total: dict[str, Decimal] = {}
    for container in spec["template"]["spec"]["containers"]:
        for name, amount in (
            container["resources"].get("requests") or container["resources"].get("limits") or {}
        ).items():
            total[name] = total.get(name, Decimal(0)) + quantity(amount) * pods
    return total
