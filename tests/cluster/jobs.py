"""The Job controller and the TTL controller: what makes pods of Jobs, and what Jobs come to.

The order of decisions is the real controller's: a failure policy before back-off limits, these before the deadline, then
the indexes. Pods are counted when their tracking finalizer is taken off, once each.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass, field

from tests.cluster.registry import Registry
from tests.cluster.resources import JOBS, PODS, ApiError, Object, at, condition, is_finished, is_leaving, set_condition
from tests.cluster.storage import Storage, drop_finalizer, owned_by, random_suffix

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
                owner = pod["metadata"]["ownerReferences"][0]["uid"]
                if owner in mine:
                    mine[owner].append(pod)
                else:
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
        if ttl is None or ended is None or is_leaving(job):
            return
        if self.storage.clock.since(ended["lastTransitionTime"]) >= ttl:
            self.storage.delete(JOBS, job, foreground=True)

    def _untrack(self, pod: Object) -> None:
        if TRACKING in pod["metadata"].get("finalizers", []):
            self.storage.edit(PODS, pod, lambda live: drop_finalizer(live, TRACKING))

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
        self.uid, self.spec, self.status = job["metadata"]["uid"], job["spec"], deepcopy(job["status"])
        self.indexed = self.spec["completionMode"] == "Indexed"
        self.per_index = "backoffLimitPerIndex" in self.spec
        self.only_failed = self.spec["podReplacementPolicy"] == "Failed"
        self.pods = sorted(pods, key=lambda pod: (index_of(pod), pod["metadata"]["name"]))
        self.active = [pod for pod in pods if not is_finished(pod) and not is_leaving(pod)]
        self.terminating = sum(not is_finished(pod) and is_leaving(pod) for pod in pods)
        self.completed = parse_indexes(self.status.get("completedIndexes", ""))
        self.failed = parse_indexes(self.status.get("failedIndexes", ""))

    @property
    def tracked(self) -> list[Object]:
        return [pod for pod in self.pods if TRACKING in pod["metadata"].get("finalizers", [])]

    def has_failed(self, pod: Object) -> bool:
        phase = at(pod, "status", "phase")
        return phase == "Failed" or (not self.only_failed and is_leaving(pod) and phase != "Succeeded")

    def run(self) -> None:
        now = self.storage.clock.stamp()
        resuming = at(condition(self.job, "Suspended"), "status") == "True"
        if "startTime" not in self.status and not self.spec["suspend"] and not resuming:
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
                self.storage.delete(PODS, pod)
            self.terminating += active
            active = 0
        elif not is_leaving(self.job):
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
        if self.status.get("failed", 0) + new > self.spec["backoffLimit"]:
            reason = "BackoffLimitExceeded"
        elif deadline is not None and not self.spec["suspend"] and self._running_for() >= deadline + 1:
            reason = "DeadlineExceeded"  # about a second late, as in real clusters
        elif self.per_index and len(self.failed) > self.spec.get("maxFailedIndexes", 10**9):
            reason = "MaxFailedIndexesExceeded"
        elif self.per_index and self.failed and len(self.failed) + len(self.completed) >= self.spec["completions"]:
            reason = "FailedIndexes"
        return ("FailureTarget", reason, MESSAGES[reason]) if reason else None

    def _running_for(self) -> float:
        return self.storage.clock.since(self.status["startTime"]) if "startTime" in self.status else 0.0

    def _fails_index(self, pod: Object) -> bool:
        if not self.has_failed(pod):
            return False
        action = match_policy(self.job, pod)[0]
        again = action == "Ignore" or _count(pod, FAILURES) < self.spec["backoffLimitPerIndex"]
        return action == "FailIndex" or not again

    def _is_complete(self, active: int) -> bool:
        succeeded = len(self.completed) if self.indexed else self.status.get("succeeded", 0)
        return bool(succeeded >= self.spec["completions"] and active == 0)

    # Pods -------------------------------------------------------------------------------------------------------------

    def _manage(self) -> int:
        """Deletes or creates pods; how many are active then."""
        active = len(self.active)
        if self.spec["suspend"]:
            return self._shrink(self.active)
        succeeded = len(self.completed) if self.indexed else self._succeeded()
        wanted = max(0, min(self.spec["parallelism"], self.spec["completions"] - succeeded))
        superfluous = self._superfluous(active - wanted)
        if superfluous:
            return self._shrink(superfluous)
        missing = wanted - active - (self.terminating if self.only_failed else 0)
        record = self.controller._records.get(self.uid, _Record())
        if missing <= 0 or (not self.per_index and self.controller.must_wait(record.failures, record.last)):
            return active
        if self.storage.clock.now().timestamp() < self.controller._refused.get(self.uid, (0.0, 0.0))[0]:
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
            self.storage.delete(PODS, pod)
            self.storage.tell(self.job, "SuccessfulDelete", f"Deleted pod: {pod['metadata']['name']}", SOURCE)
        self.terminating += len(pods)
        return len(self.active) - len(pods)

    def _succeeded(self) -> int:
        new = sum(at(pod, "status", "phase") == "Succeeded" for pod in self.tracked)
        return int(self.status.get("succeeded", 0)) + new

    def _superfluous(self, at_least: int) -> list[Object]:
        """Second pods of an index go first, then those that have got least far."""
        indexes: set[int] = set()
        extra = []
        for pod in sorted(self.active, key=lambda p: p["metadata"]["creationTimestamp"]) if self.indexed else []:
            index = index_of(pod)
            if index in indexes and (self.uid, index) in self.controller.twins:
                at_least -= 1
            elif index in indexes:
                extra.append(pod)
            indexes.add(index)
        rest = [pod for pod in self.active if pod not in extra]
        rest.sort(key=lambda pod: at(pod, "status", "phase") == "Running")
        return extra + rest[: max(0, at_least - len(extra))]

    def _indexes(self, most: int) -> list[int]:
        """The first that have no pod and have not ended, and have waited long enough."""
        busy = {index_of(pod) for pod in self.active} | self.completed | self.failed
        if self.only_failed:
            busy |= {index_of(pod) for pod in self.pods if is_leaving(pod) and not is_finished(pod)}
        pending = [index for index in range(self.spec["completions"]) if index not in busy][:most]
        return [index for index in pending if not self.per_index or self._waited(self._last_failure(index))]

    def _waited(self, last: Object | None) -> bool:
        return last is None or not self.controller.must_wait(_count(last, FAILURES) + _count(last, IGNORED) + 1, last)

    def _last_failure(self, index: int) -> Object | None:
        failed = [pod for pod in self.tracked if index_of(pod) == index and self.has_failed(pod)]
        order = {id(pod): (_count(pod, FAILURES) + _count(pod, IGNORED), finished_at(pod)) for pod in failed}
        return max(failed, key=lambda pod: order[id(pod)], default=None)

    def _create(self, index: int | None) -> bool:
        try:
            pod = self.controller.registry.create(PODS, self.pod(index))
        except ApiError as error:
            _, delay = self.controller._refused.get(self.uid, (0.0, 0.0))
            delay = min(max(2 * delay, self.controller.backoff / 10), self.controller.backoff * 6)
            self.controller._refused[self.uid] = (self.storage.clock.now().timestamp() + delay, delay)
            self.storage.tell(self.job, "FailedCreate", f"Error creating: {error.message}", SOURCE, warning=True)
            return False
        self.controller._refused.pop(self.uid, None)
        self.storage.tell(self.job, "SuccessfulCreate", f"Created pod: {pod['metadata']['name']}", SOURCE)
        return True

    def pod(self, index: int | None) -> Object:
        """The pod of an index, by the template."""
        template, meta = deepcopy(self.spec["template"]), self.job["metadata"]
        tail = "-" if index is None else f"-{index}-"
        prefix = meta["name"][: 58 - len(tail)] + tail
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": meta["name"], "uid": meta["uid"], "controller": True}
        labels, annotations = (dict(template["metadata"].get(key) or {}) for key in ("labels", "annotations"))
        pod = {"metadata": {"name": prefix + random_suffix(), "namespace": meta["namespace"]}, "spec": template["spec"]}
        pod["metadata"] |= {"labels": labels, "annotations": annotations}
        pod["metadata"] |= {"ownerReferences": [owner], "finalizers": [TRACKING]}
        if index is None:
            return pod
        labels[INDEX] = annotations[INDEX] = str(index)
        pod["spec"]["hostname"] = f"{meta['name']}-{index}"
        reference = {"fieldRef": {"fieldPath": f"metadata.labels['{INDEX}']"}}
        for container in pod["spec"]["containers"]:
            container.setdefault("env", []).append({"name": "JOB_COMPLETION_INDEX", "valueFrom": reference})
        if self.per_index:
            last = self._last_failure(index)
            failures, ignored = (_count(last, FAILURES), _count(last, IGNORED)) if last else (0, 0)
            if last is not None:
                free = match_policy(self.job, last)[0] == "Ignore"
                failures, ignored = failures + (not free), ignored + free
            annotations |= {FAILURES: str(failures), IGNORED: str(ignored)}
        return pod

    # Counting ---------------------------------------------------------------------------------------------------------

    def _count_failures_in_a_row(self) -> None:
        record = self.controller._records.setdefault(self.uid, _Record())
        for pod in sorted((p for p in self.tracked if is_finished(p) or self.has_failed(p)), key=finished_at):
            if at(pod, "status", "phase") == "Succeeded":
                record.failures = 0
            elif pod["metadata"]["uid"] not in self.controller._failed_at:
                self.controller._failed_at[pod["metadata"]["uid"]] = time.monotonic()
                record.failures, record.last = record.failures + 1, pod

    def _count_finished(self, ending: Ending | None) -> None:
        """Takes the finalizer off, and counts. The last failure of an index stays until its replacement is there."""
        fresh = [p for p in self.storage.view(PODS, self.job["metadata"]["namespace"]) if owned_by(p, self.job)]
        replaced = {index_of(pod) for pod in fresh if not is_finished(pod) and not is_leaving(pod)}
        replaced |= self.completed | self.failed
        over = ending is not None or is_leaving(self.job)
        held = set()
        if self.per_index and not over:
            waiting = {index_of(pod) for pod in self.tracked} - replaced
            held = {last["metadata"]["uid"] for i in waiting if (last := self._last_failure(i)) is not None}
        for pod in self.tracked:
            succeeded, failed = at(pod, "status", "phase") == "Succeeded", self.has_failed(pod)
            if pod["metadata"]["uid"] in held or not (succeeded or failed or over):
                continue
            self.controller._untrack(pod)
            failing = ending is not None and ending[0] == "FailureTarget"
            if succeeded:
                self.status["succeeded"] = self.status.get("succeeded", 0) + 1
            elif (failed or failing) and match_policy(self.job, pod)[0] != "Ignore":
                self.status["failed"] = self.status.get("failed", 0) + 1

    def _tell_suspension(self, now: str) -> None:
        self.status.setdefault("conditions", [])
        view = {"status": self.status}
        if self.spec["suspend"]:
            if set_condition(view, "Suspended", "True", now, "JobSuspended", "Job suspended"):
                self.status.pop("startTime", None)  # the next start is told a moment after the Job has been resumed
        elif condition(view, "Suspended"):
            set_condition(view, "Suspended", "False", now, "JobResumed", "Job resumed")

    def _set_status(self, ending: Ending | None, active: int, now: str) -> None:
        status = self.status
        status |= {"active": active, "terminating": self.terminating}
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
            self.storage.tell(self.job, "Completed", "Job completed", SOURCE)
        elif ending is not None:
            self.storage.tell(self.job, ending[1], ending[2], SOURCE, warning=True)


def is_over(job: Object) -> bool:
    return any(at(condition(job, name), "status") == "True" for name in ("Complete", "Failed"))


def match_policy(job: Object, pod: Object) -> tuple[str | None, str | None]:
    """The action of the first rule that matches, and for FailJob the message."""
    for number, rule in enumerate((job["spec"].get("podFailurePolicy") or {}).get("rules") or []):
        why = _matches(rule, pod)
        if why:
            words = f"{why} matching {rule['action']} rule at index {number}"
            return rule["action"], words if rule["action"] == "FailJob" else None
    return None, None


def _matches(rule: Object, pod: Object) -> str:
    name, on_exit = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}", rule.get("onExitCodes")
    for status in at(pod, "status", "containerStatuses") or [] if on_exit else []:
        code = at(status, "state", "terminated", "exitCode")
        if code and (code in on_exit["values"]) == (on_exit["operator"] == "In"):
            return f"Container {status['name']} for pod {name} failed with exit code {code}"
    for pattern in rule.get("onPodConditions") or []:
        if at(condition(pod, pattern["type"]), "status") == pattern.get("status", "True"):
            return f"Pod {name} has condition {pattern['type']}"
    return ""


def index_of(pod: Object) -> int:
    return int((pod["metadata"].get("annotations") or {}).get(INDEX, -1))


def finished_at(pod: Object) -> str:
    ends = [at(c, "state", "terminated", "finishedAt") for c in at(pod, "status", "containerStatuses") or []]
    changes = [c["lastTransitionTime"] for c in at(pod, "status", "conditions") or []]
    fallback = pod["metadata"].get("deletionTimestamp") or pod["metadata"]["creationTimestamp"]
    return str(max([end for end in ends if end] or changes or [fallback]))


def parse_indexes(text: str) -> set[int]:
    indexes: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        indexes |= set(range(int(first), int(last or first) + 1))
    return indexes


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
