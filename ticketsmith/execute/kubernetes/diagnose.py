"""What a Job is doing, why a pod waits, why one failed: from what the API says, in a user's words. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from ticketsmith.errors import Exit
from ticketsmith.execute.kubernetes.manifests import CONTAINER

Object = dict[str, Any]

_OUT_OF_MEMORY = "out of memory: give the pods more (`memory` of the pool in the target), or use a smaller batch_size"

EXITS = {
    Exit.INTERNAL: "a fault of TicketSmith itself; its log has the traceback",
    Exit.BAD_INPUT: "bad input: its log says what, and it is not tried again",
    Exit.INCOMPLETE: "the store or the cluster failed it, or a process died: its log says which",
    Exit.OUT_OF_MEMORY: _OUT_OF_MEMORY,
    Exit.IDLE_GPU: "its GPU was idle: see `idle_gpu` in the target, or train on a pool without GPUs",
    Exit.OVER_BUDGET: "the budget does not suffice",
    Exit.LOST: "some runs could not be made: see the other Jobs",
    Exit.INTERRUPTED: "asked to end; its checkpoint is saved",
    137: "killed (SIGKILL)",
    143: "asked to end before it had begun",
}

_REASONS = {
    "DeadlineExceeded": "its deadline passed (`limits.deadline` in the target); checkpoints are in the store",
    "BackoffLimitExceeded": "it failed too often (`limits.retries` in the target)",
    "FailedIndexes": "at least one replicate failed",
    "MaxFailedIndexesExceeded": "too many replicates failed",
    "PodFailurePolicy": "it ended in a way that trying again would not mend",
}

_WAITS = {
    "ErrImagePull": "the image cannot be pulled",
    "ImagePullBackOff": "the image cannot be pulled",
    "InvalidImageName": "the image's name is wrong",
    "ErrImageNeverPull": "the image is not on the node, and `pull: Never` forbids to fetch it",
    "CreateContainerConfigError": "the container cannot be set up",
    "CreateContainerError": "the container cannot be made",
    "RunContainerError": "the container cannot be started",
    "ImageInspectError": "the image on the node cannot be read",
    "RegistryUnavailable": "the registry does not answer",
    "SignatureValidationFailed": "the image is not signed as the node asks for",
}


_UNREADY = ("FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox")
"""Events of a pod that has a node, and whose container is not even made."""

_READY = ("SuccessfulAttachVolume", "Pulling", "Pulled", "Created", "Started")
"""Events that say that what was in such a pod's way has passed: volumes and network come before the image."""

State = Literal["waiting", "running", "complete", "failed"]


@dataclass(frozen=True)
class JobState:
    """``waiting`` covers Jobs that are suspended and pods that have no node; ``why`` is empty when all is as it should be."""

    state: State
    why: str = ""
    reason: str = ""
    active: int = 0
    succeeded: int = 0
    failed: int = 0


def job_state(job: Object, pods: Sequence[Object] = (), events: Sequence[Object] = ()) -> JobState:
    """What a Job is doing. ``pods`` and ``events`` may hold others' too."""
    status = job.get("status") or {}
    active, succeeded, failed = (int(status.get(name) or 0) for name in ("active", "succeeded", "failed"))
    mine = pods_of(job, pods)
    ended = {c["type"]: c for c in status.get("conditions") or [] if c.get("status") == "True"}

    def state(name: State, why: str = "", reason: str = "") -> JobState:
        return JobState(name, why, reason, active, succeeded, failed)

    if "Complete" in ended:
        return state("complete")
    if "Failed" in ended:
        reason, message = ended["Failed"].get("reason") or "", ended["Failed"].get("message") or ""
        return state("failed", _why_failed(job, reason, message, mine), reason)
    if (job.get("spec") or {}).get("suspend"):
        queue = job["metadata"].get("labels", {}).get("kueue.x-k8s.io/queue-name")
        return state("waiting", f"waits for quota in queue {queue!r}" if queue else "is suspended", "Suspended")
    waiting = [why for why in (why_waiting(pod, events) for pod in mine if phase(pod) == "Pending") if why]
    if waiting:
        return state("waiting", waiting[0], "Pending")
    refused = _last_event(job["metadata"]["name"], events, ("FailedCreate",), until=("SuccessfulCreate",))
    if refused and not active:
        return state("waiting", f"its pods are refused: {refused}", "FailedCreate")
    troubles = [why_ended(pod) for pod in mine if phase(pod) == "Failed"]
    running = any(phase(pod) == "Running" for pod in mine)
    return state("running" if running else "waiting", f"a try ended: {troubles[-1]}" if troubles else "")


def why_waiting(pod: Object, events: Sequence[Object] = ()) -> str:
    """Why a pod has not begun, empty when nothing is known to be in its way."""
    status, name = pod.get("status") or {}, pod["metadata"]["name"]
    if stuck := _container_waits(pod):
        return stuck
    for condition in status.get("conditions") or []:
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            message = condition.get("message") or condition.get("reason") or ""
            growing = _last_event(name, events, ("TriggeredScaleUp",))
            if growing and _grows(pod, events):
                return f"waits for a node that is being started ({growing})"
            stuck = _last_event(name, events, ("NotTriggerScaleUp", "FailedScaleUp"))
            more = f"; no node is started: {stuck}" if stuck else ""
            return f"no node has room: {_nodes_in_words(message)}{more}"
    unready = _last_event(name, events, _UNREADY, until=_READY)
    return f"the container cannot be set up ({unready})" if unready else ""


@dataclass(frozen=True)
class Start:
    """How far a Job's first pod is. ``passes``: what it waits for comes by itself; ``over``: nothing more will come."""

    text: str
    passes: bool = False
    over: bool = False


def start(job: Object, pods: Sequence[Object], events: Sequence[Object]) -> Start:
    """What a Job that was made a while ago is waiting for before it works."""
    state, mine = job_state(job, pods, events), pods_of(job, pods)
    waiting = [pod for pod in mine if phase(pod) == "Pending"]
    if state.state == "failed":
        late = (
            "its first deadline passed: no node came, or no image of this version"
            if state.reason == "DeadlineExceeded"
            else ""
        )
        return Start(late or _with_last_words(state.why, mine), over=True)
    if any(_grows(pod, events) for pod in waiting) or (job.get("spec") or {}).get("suspend"):
        return Start(state.why, passes=True)
    if state.why:
        return Start(_with_last_words(state.why, mine))
    if any(phase(pod) == "Running" for pod in mine):
        return Start("its pod runs, and has not reached the store and the API server yet", passes=True)  # or it ends
    if any((pod.get("spec") or {}).get("nodeName") for pod in waiting):
        return Start("its image is pulled and its container made", passes=True)
    return Start("waits for a node" if waiting else "waits for its pod")


def _grows(pod: Object, events: Sequence[Object]) -> bool:
    """Whether a node is being started for a pod that has none: the autoscaler's last word."""
    if (pod.get("spec") or {}).get("nodeName"):
        return False
    last = _last_of(pod["metadata"]["name"], events, ("TriggeredScaleUp", "NotTriggerScaleUp", "FailedScaleUp"))
    return last is not None and last["reason"] == "TriggeredScaleUp"


def _with_last_words(why: str, pods: Sequence[Object]) -> str:
    """With the last line that the last failed pod printed."""
    for pod in reversed([pod for pod in pods if phase(pod) == "Failed"]):
        lines = str((terminated(pod) or {}).get("message") or "").strip().splitlines()
        if lines and lines[-1] not in why:
            return f"{why}: {lines[-1].strip()}"
    return why


def cannot_start(job: Object, pods: Sequence[Object]) -> str:
    """Why a Job's pods have a node and do not start there, empty when one of them did."""
    whys = []
    for pod in pods_of(job, pods):
        if phase(pod) in ("Running", "Succeeded"):
            return ""
        whys.append(_container_waits(pod))
    return next((why for why in whys if why), "")


def why_ended(pod: Object) -> str:
    """Why a pod failed: evicted, out of memory, its node gone, or what its exit status means."""
    status = pod.get("status") or {}
    for condition in status.get("conditions") or []:
        if condition.get("type") == "DisruptionTarget" and condition.get("status") == "True":
            return f"evicted ({condition.get('reason') or 'disruption'}): tried again for free"
    ended = terminated(pod)
    if ended is None:
        return str(status.get("message") or status.get("reason") or "ended without a status; its node may have gone")
    if ended.get("reason") == "OOMKilled":
        return _OUT_OF_MEMORY
    if status.get("reason") == "DeadlineExceeded":
        return _REASONS["DeadlineExceeded"]
    code = int(ended.get("exitCode", -1))
    words = EXITS.get(code, "")
    if ended.get("reason") in ("StartError", "ContainerCannotRun"):
        words = f"the container cannot be started: {ended.get('message') or ended['reason']}"
    return f"exit status {code}{': ' + words if words else ''}"


def terminated(pod: Object) -> Object | None:
    """The end of a pod's container: ``exitCode``, ``reason``, ``startedAt``, ``finishedAt``; None while it lives."""
    for container in (pod.get("status") or {}).get("containerStatuses") or []:
        if container.get("name") == CONTAINER:
            return (container.get("state") or {}).get("terminated")
    return None


def seconds_of(pod: Object) -> float | None:
    """How long a pod's container ran, by the cluster's own clock; None while it runs or when it never did."""
    ended = terminated(pod)
    if ended is None or not ended.get("startedAt") or not ended.get("finishedAt"):
        return None
    began, finished = (datetime.fromisoformat(ended[at]) for at in ("startedAt", "finishedAt"))
    return max(0.0, (finished - began).total_seconds())


def pods_of(job: Object, pods: Sequence[Object]) -> list[Object]:
    """The pods of one Job."""
    uid = job["metadata"].get("uid")
    return [pod for pod in pods if any(o.get("uid") == uid for o in pod["metadata"].get("ownerReferences") or [])]


def failed_indexes(job: Object) -> set[int]:
    """Indexes that failed for good: ``0,3-5`` in a Job's status."""
    return _indexes((job.get("status") or {}).get("failedIndexes") or "")


def ended_indexes(job: Object) -> set[int]:
    """Indexes that are done or failed for good."""
    return failed_indexes(job) | _indexes((job.get("status") or {}).get("completedIndexes") or "")


def _indexes(text: str) -> set[int]:
    indexes: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        if first:
            indexes |= set(range(int(first), int(last or first) + 1))
    return indexes


def index_of(pod: Object) -> int | None:
    """Which index of its Job a pod makes."""
    value = (pod["metadata"].get("annotations") or {}).get("batch.kubernetes.io/job-completion-index")
    return int(value) if value is not None else None


def _why_failed(job: Object, reason: str, message: str, pods: Sequence[Object]) -> str:
    if reason == "DeadlineExceeded":
        return _REASONS[reason]
    causes: dict[str, list[int]] = {}
    for pod in pods:
        if phase(pod) == "Failed":
            causes.setdefault(why_ended(pod), []).append(index_of(pod) or 0)
    seeds = job["metadata"].get("annotations", {}).get("ticketsmith.io/seeds", "").split(",")
    lost = failed_indexes(job)
    lines = []
    for cause, indexes in causes.items():
        mine = sorted({seeds[i] if i < len(seeds) and seeds[i] else str(i) for i in indexes if not lost or i in lost})
        if mine:
            lines.append(f"seed {', '.join(mine)}: {cause}" if lost else cause)
    general = _REASONS.get(reason, message or reason)
    return f"{general}: {'; '.join(lines)}" if lines else general


def _container_waits(pod: Object) -> str:
    for container in (pod.get("status") or {}).get("containerStatuses") or []:
        waiting = (container.get("state") or {}).get("waiting") or {}
        reason = waiting.get("reason")
        if reason in _WAITS:
            return f"{_WAITS[reason]} ({waiting.get('message') or reason})"
    return ""


def phase(pod: Object) -> str:
    """Pending, Running, Succeeded or Failed; empty when nobody says."""
    return str((pod.get("status") or {}).get("phase") or "")


def _nodes_in_words(message: str) -> str:
    """The scheduler's message without its second half, which is about preemption."""
    return re.split(r" (?:no new claims to deallocate, )?preemption:", message)[0].rstrip(". ")


def _last_event(name: str, events: Sequence[Object], reasons: tuple[str, ...], until: tuple[str, ...] = ()) -> str:
    """What the last event of these ``reasons`` says; empty, too, when one of ``until`` came after it."""
    last = _last_of(name, events, reasons, until)
    return str(last.get("message") or last["reason"]).strip() if last and last["reason"] in reasons else ""


def _last_of(
    name: str, events: Sequence[Object], reasons: tuple[str, ...], until: tuple[str, ...] = ()
) -> Object | None:
    """The last event of either kind; within the second that times are told in, one of ``until``."""
    either = reasons + until
    mine = [e for e in events if (e.get("involvedObject") or {}).get("name") == name and e.get("reason") in either]
    mine.sort(key=lambda event: (_time_of(event), event["reason"] in until))
    return mine[-1] if mine else None


def _time_of(event: Object) -> str:
    """Its last time, to the second: some events tell fractions, others none, and as text those cannot be compared."""
    time = event.get("lastTimestamp") or event.get("eventTime") or event["metadata"].get("creationTimestamp") or ""
    return str(time)[:19]
