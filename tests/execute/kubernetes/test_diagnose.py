"""Causes in a user's words, from what API servers say."""

from __future__ import annotations

from typing import Any

import pytest

from ticketsmith.execute.kubernetes.diagnose import (
    Start,
    failed_indexes,
    job_state,
    seconds_of,
    start,
    why_ended,
    why_waiting,
)


def pod(phase: str = "Failed", **status: Any) -> Any:
    owner = [{"uid": "u1"}]
    note = {"batch.kubernetes.io/job-completion-index": "1"}
    meta = {"name": "p", "annotations": note, "ownerReferences": owner}
    return {"metadata": meta, "status": {"phase": phase, **status}}


def ended(code: int, **more: Any) -> Any:
    return pod(containerStatuses=[{"name": "ticketsmith", "state": {"terminated": {"exitCode": code, **more}}}])


def waiting(reason: str, message: str) -> Any:
    return pod(
        "Pending", containerStatuses=[{"name": "x", "state": {"waiting": {"reason": reason, "message": message}}}]
    )


@pytest.mark.parametrize(
    ("ended_pod", "words"),
    [
        (ended(137, reason="OOMKilled"), "out of memory: give the pods more (`memory` of the pool in the target)"),
        (ended(137, reason="Error"), "exit status 137: killed (SIGKILL)"),
        (ended(2), "bad input: its log says what, and it is not tried again"),
        (ended(130), "asked to end; its checkpoint is saved"),
        (ended(128, reason="StartError", message="no such file"), "the container cannot be started: no such file"),
        (pod(reason="NodeLost", message="Node which was running pod is unresponsive"), "unresponsive"),
        (
            pod(conditions=[{"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}]),
            "evicted (EvictionByEvictionAPI): tried again for free",
        ),
    ],
)
def test_why_a_pod_ended(ended_pod: Any, words: str) -> None:
    assert words in why_ended(ended_pod)


def test_why_a_pod_waits() -> None:
    message = (
        "0/3 nodes are available: 1 Insufficient nvidia.com/gpu, 2 node(s) had untolerated taint(s). no new claims to "
        "deallocate, preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling."
    )
    unscheduled = pod("Pending", conditions=[{"type": "PodScheduled", "status": "False", "message": message}])
    assert why_waiting(unscheduled) == (
        "no node has room: 0/3 nodes are available: 1 Insufficient nvidia.com/gpu, 2 node(s) had untolerated taint(s)"
    )
    about = {"involvedObject": {"name": "p"}, "metadata": {}}
    growing = {**about, "reason": "TriggeredScaleUp", "message": "pod triggered scale-up: [{gpu 0->1 (max: 4)}]"}
    assert "waits for a node that is being started (pod triggered scale-up: [{gpu 0->1" in why_waiting(
        unscheduled, [growing]
    )
    stuck = {**about, "reason": "NotTriggerScaleUp", "message": "1 max node group size reached"}
    assert why_waiting(unscheduled, [stuck]).endswith("no node is started: 1 max node group size reached")
    image = waiting("ImagePullBackOff", 'Back-off pulling image "x"')
    assert why_waiting(image) == 'the image cannot be pulled (Back-off pulling image "x")'
    secret = waiting("CreateContainerConfigError", 'secret "ticketsmith-store" not found')
    assert 'secret "ticketsmith-store" not found' in why_waiting(secret)
    assert why_waiting(waiting("ContainerCreating", "")) == ""


def job(*conditions: tuple[str, str], **status: Any) -> Any:
    listed = [{"type": kind, "status": "True", "reason": reason} for kind, reason in conditions]
    meta = {"name": "j", "uid": "u1", "annotations": {"ticketsmith.io/seeds": "0,3"}}
    return {"metadata": meta, "spec": {}, "status": {"conditions": listed, **status}}


def test_a_failed_job_names_cause_and_seed() -> None:
    failed = job(("Failed", "FailedIndexes"), failed=1, failedIndexes="1")
    state = job_state(failed, [ended(2)])
    assert (state.state, state.reason) == ("failed", "FailedIndexes")
    assert state.why == (
        "at least one replicate failed: seed 3: exit status 2: bad input: its log says what, and it is not tried again"
    )
    late = job_state(job(("FailureTarget", "DeadlineExceeded"), ("Failed", "DeadlineExceeded")))
    assert "its deadline passed" in late.why


def test_a_job_whose_pods_are_refused_says_why() -> None:
    refused = {
        "involvedObject": {"name": "j"},
        "metadata": {},
        "reason": "FailedCreate",
        "message": 'pods "j-0-x" is forbidden: exceeded quota: ticketsmith, requested: requests.nvidia.com/gpu=1',
    }
    state = job_state(job(), events=[refused])
    assert state.state == "waiting"
    assert "its pods are refused" in state.why
    assert "exceeded quota" in state.why
    before = event("FailedCreate", "exceeded quota", "10", "j")
    after = event("SuccessfulCreate", "Created pod: j-0-x", "20", "j")
    assert job_state(job(failed=1), [ended(5)], [before, after]).why.startswith("a try ended: exit status 5")


def test_indexes_and_times_are_read_as_the_server_writes_them() -> None:
    assert failed_indexes(job(failedIndexes="0,3-5")) == {0, 3, 4, 5}
    assert failed_indexes(job()) == set()
    assert seconds_of(ended(0, startedAt="2026-11-23T04:00:00Z", finishedAt="2026-11-23T04:01:30Z")) == 90.0
    assert seconds_of(ended(0)) is None


def event(reason: str, message: str, at: str, about: str = "p") -> Any:
    return {
        "involvedObject": {"name": about},
        "metadata": {},
        "reason": reason,
        "message": message,
        "lastTimestamp": f"2026-11-23T04:00:{at}Z",
    }


def test_how_far_a_job_is_before_it_works() -> None:
    lone = pod(
        "Pending", conditions=[{"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available"}]
    )
    grown = event("TriggeredScaleUp", "gpu 0->1", "10")
    assert start(job(), [lone], [grown]) == Start("waits for a node that is being started (gpu 0->1)", passes=True)
    given_up = event("FailedScaleUp", "quota of cores exceeded", "20")  # the autoscaler's last word
    assert start(job(), [lone], [grown, given_up]) == Start(
        "no node has room: 0/3 nodes are available; no node is started: quota of cores exceeded"
    )
    assert start(job(), [lone], [given_up, event("TriggeredScaleUp", "gpu 0->1", "30")]).passes  # tried again
    pulled = pod("Pending", containerStatuses=[{"name": "x", "state": {"waiting": {"reason": "ContainerCreating"}}}])
    pulled["spec"] = {"nodeName": "n"}
    assert start(job(), [pulled], []) == Start("its image is pulled and its container made", passes=True)
    unmounted = event("FailedMount", 'MountVolume.SetUp failed for volume "d" : configmap "c" not found', "40")
    assert 'configmap "c" not found' in start(job(), [pulled], [unmounted]).text
    assert not start(job(), [pulled], [unmounted]).passes
    for passed in ("SuccessfulAttachVolume", "Pulling"):
        assert (
            start(job(), [pulled], [unmounted, event(passed, "", "40")]).text
            == "its image is pulled and its container made"
        )
    again = {**unmounted, "lastTimestamp": "2026-11-23T04:00:50Z"}
    assert not start(job(), [pulled], [again, event("SuccessfulAttachVolume", "", "40")]).passes
    assert start(job(), [waiting("InvalidImageName", "couldn't parse image name")], []).text.startswith(
        "the image's name"
    )
    crash = ended(5, message="12:00:00 begun\nerror: no way to the store\n")
    assert start(job(), [crash, pod("Running")], []).text.endswith(": error: no way to the store")
    memory = start(job(), [ended(137, reason="OOMKilled")], [])
    assert ("out of memory" in memory.text, memory.passes, memory.over) == (True, False, False)
    over = start(job(("Failed", "PodFailurePolicy"), failed=1), [ended(2, message="error: no such recipe")], [])
    assert over.over
    assert over.text.endswith(": error: no such recipe")
    assert start(job(("Failed", "DeadlineExceeded")), [], []).over
