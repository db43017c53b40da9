"""What Jobs come to, and why: indexes, back-off, failure policies, deadlines, suspension, time to live, quotas."""

from __future__ import annotations

import time
from typing import Any

import pytest
from kubernetes.client import ApiException, BatchV1Api, CoreV1Api

from tests.cluster.examples import DISRUPTED, INDEXED, SLEEP, STOPS_WITH_130, condition, failed, job, rule
from tests.cluster.fixtures import Cluster, FakeCluster, client_of

INDEX = "batch.kubernetes.io/job-completion-index"
MERGE = "application/merge-patch+json"


@pytest.fixture
def batch(cluster: Cluster) -> BatchV1Api:
    return BatchV1Api(client_of(cluster))


def start(cluster: Cluster, manifest: Any) -> str:
    BatchV1Api(client_of(cluster)).create_namespaced_job(cluster.namespace, manifest)
    return str(manifest["metadata"]["name"])


def end(cluster: Cluster, name: str, timeout: float = 20.0) -> Any:
    """The status of a Job that is over."""

    def over() -> Any:
        live = cluster.job(name)
        return live["status"] if condition(live, "Complete") or condition(live, "Failed") else None

    return cluster.wait_for(over, timeout, f"the end of {name}")


def running(cluster: Cluster, name: str, count: int = 1) -> list[Any]:
    def up() -> list[Any]:
        pods = [p for p in cluster.pods(name) if p["status"].get("phase") == "Running"]
        ready = [p for p in pods if "up" in cluster.log(p["metadata"]["name"])]
        return ready if len(ready) == count else []

    return list(cluster.wait_for(up, 20, f"{count} running pods of {name}"))


def reasons(cluster: Cluster, about: str) -> set[str]:
    return {event["reason"] for event in cluster.events(about)}


# Success -------------------------------------------------------------------------------------------------------------


def test_complete(cluster: Cluster) -> None:
    status = end(cluster, start(cluster, job("one")))
    assert status["succeeded"] == 1
    assert status["completionTime"] >= status["startTime"]
    assert [c["type"] for c in status["conditions"]] == ["SuccessCriteriaMet", "Complete"]
    assert {c["reason"] for c in status["conditions"]} == {"CompletionsReached"}
    pod = cluster.pods("one")[0]
    ended = pod["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (pod["status"]["phase"], ended["exitCode"], ended["reason"]) == ("Succeeded", 0, "Completed")
    assert cluster.log(pod["metadata"]["name"]) == "done\n"
    cluster.wait_for(lambda: {"SuccessfulCreate", "Completed"} <= reasons(cluster, "one"))
    assert {"Scheduled", "Pulled", "Created", "Started"} <= reasons(cluster, pod["metadata"]["name"])


def test_every_index_has_a_pod_that_knows_it(cluster: Cluster) -> None:
    script = "import os; print(os.environ['JOB_COMPLETION_INDEX'], os.environ['HOSTNAME'])"
    status = end(cluster, start(cluster, job("one", script, completionMode="Indexed", completions=4, parallelism=2)))
    assert (status["succeeded"], status["completedIndexes"]) == (4, "0-3")
    for pod in cluster.pods("one"):
        meta = pod["metadata"]
        index = meta["annotations"][INDEX]
        assert meta["labels"][INDEX] == index
        assert meta["name"].startswith(f"one-{index}-")
        assert len(meta["name"]) == len(f"one-{index}-") + 5
        assert pod["spec"]["hostname"] == f"one-{index}"
        assert cluster.log(meta["name"]).split() == [index, f"one-{index}"]
        assert meta["ownerReferences"][0]["name"] == "one"


def test_no_more_pods_at_once_than_the_parallelism(fake_cluster: FakeCluster) -> None:
    name = start(fake_cluster, job("one", SLEEP, grace=0, completionMode="Indexed", completions=4, parallelism=2))
    running(fake_cluster, name, 2)
    time.sleep(0.3)
    assert len(fake_cluster.pods(name)) == 2
    status = fake_cluster.job(name)["status"]
    assert (status["active"], status["ready"]) == (2, 2)


# Failure -------------------------------------------------------------------------------------------------------------


def test_back_off_limit(cluster: Cluster) -> None:
    name = start(cluster, job("one", "raise SystemExit(1)", backoffLimit=1))
    status = end(cluster, name)
    assert [(c["type"], c["reason"]) for c in status["conditions"]] == [
        ("FailureTarget", "BackoffLimitExceeded"),
        ("Failed", "BackoffLimitExceeded"),
    ]
    assert status["failed"] == 2
    cluster.wait_for(lambda: "BackoffLimitExceeded" in reasons(cluster, name))


def test_tries_come_at_growing_distances(fake_cluster: FakeCluster) -> None:
    fake_cluster.jobs.backoff = 0.4
    name = start(fake_cluster, job("one", "raise SystemExit(1)", backoffLimit=2))
    began, seen = time.monotonic(), []
    while len(seen) < 3:
        if len(fake_cluster.pods(name)) > len(seen):
            seen.append(time.monotonic() - began)
        time.sleep(0.02)
    assert seen[1] - seen[0] >= 0.4
    assert seen[2] - seen[1] >= 0.8


def test_limits_per_index(cluster: Cluster) -> None:
    """One index that fails for good leaves the others alone, and tells so in the end."""
    script = "import os; raise SystemExit(5 if os.environ['JOB_COMPLETION_INDEX'] == '1' else 0)"
    name = start(
        cluster, job("one", script, completionMode="Indexed", completions=3, parallelism=3, backoffLimitPerIndex=1)
    )
    status = end(cluster, name)
    assert failed(cluster.job(name)) == "FailedIndexes"
    assert (status["completedIndexes"], status["failedIndexes"], status["failed"]) == ("0,2", "1", 2)
    tries = [p for p in cluster.pods(name) if p["metadata"]["annotations"][INDEX] == "1"]
    counts = [p["metadata"]["annotations"]["batch.kubernetes.io/job-index-failure-count"] for p in tries]
    assert sorted(counts) == ["0", "1"]


def test_too_many_failed_indexes_end_the_job_at_once(cluster: Cluster) -> None:
    script = "import os, time; raise SystemExit(5 if os.environ['JOB_COMPLETION_INDEX'] == '0' else time.sleep(600))"
    name = start(cluster, job("one", script, grace=1, backoffLimitPerIndex=0, maxFailedIndexes=0, **INDEXED))
    end(cluster, name)
    assert failed(cluster.job(name)) == "MaxFailedIndexesExceeded"


def test_the_first_rule_that_matches_decides(cluster: Cluster) -> None:
    rules = [rule("Ignore", 3), rule("FailJob", 3, 4), rule("FailIndex", 4, 5)]
    script = "import os; raise SystemExit(5 if os.environ['JOB_COMPLETION_INDEX'] == '0' else 0)"
    policy: Any = {"podFailurePolicy": {"rules": rules}, "backoffLimitPerIndex": 3}
    name = start(cluster, job("one", script, **policy, **INDEXED))
    status = end(cluster, name)
    assert (status["failedIndexes"], status["failed"], failed(cluster.job(name))) == ("0", 1, "FailedIndexes")
    name = start(cluster, job("two", "raise SystemExit(4)", **policy, **INDEXED))
    end(cluster, name)
    message = condition(cluster.job(name), "Failed")["message"]
    assert failed(cluster.job(name)) == "PodFailurePolicy"
    assert "failed with exit code 4 matching FailJob rule at index 1" in message
    name = start(cluster, job("three", "raise SystemExit(3)", **policy, **INDEXED))
    cluster.wait_for(lambda: len(cluster.pods(name)) >= 4)
    assert not failed(cluster.job(name))


def test_ignored_failures_are_free(cluster: Cluster) -> None:
    name = start(
        cluster,
        job(
            "one",
            "raise SystemExit(9)",
            podFailurePolicy={"rules": [rule("Ignore", 9)]},
            backoffLimitPerIndex=0,
            **INDEXED,
        ),
    )
    cluster.wait_for(lambda: len(cluster.pods(name)) >= 5)
    live = cluster.job(name)
    assert not failed(live)
    assert "failed" not in live["status"]
    ignored = "batch.kubernetes.io/job-index-ignored-failure-count"
    assert any(int(pod["metadata"]["annotations"].get(ignored, 0)) > 0 for pod in cluster.pods(name))


# Stopping ------------------------------------------------------------------------------------------------------------


def test_deadline(cluster: Cluster) -> None:
    """SIGTERM and a grace period; the pods are gone afterwards, and so are their logs."""
    name = start(cluster, job("one", STOPS_WITH_130, activeDeadlineSeconds=1 if cluster.is_fake else 30))
    status = end(cluster, name, 40)
    assert failed(cluster.job(name)) == "DeadlineExceeded"
    assert status["failed"] == 1
    assert [c["type"] for c in status["conditions"]] == ["FailureTarget", "Failed"]
    assert condition(cluster.job(name), "Failed")["message"] == "Job was active longer than specified deadline"
    cluster.wait_for(lambda: not cluster.pods(name))
    cluster.wait_for(lambda: "DeadlineExceeded" in reasons(cluster, name))


def test_a_job_is_failed_only_when_its_pods_have_ended(fake_cluster: FakeCluster) -> None:
    name = start(fake_cluster, job("one", SLEEP, grace=1, activeDeadlineSeconds=0))
    fake_cluster.wait_for(lambda: condition(fake_cluster.job(name), "FailureTarget"))
    live = fake_cluster.job(name)
    assert live["status"]["terminating"] == 1
    assert not failed(live)
    end(fake_cluster, name)
    assert fake_cluster.job(name)["status"]["terminating"] == 0


def test_an_evicted_pod_that_ends_with_0_is_done(cluster: Cluster) -> None:
    """The trap: a handler that saves and exits 0 makes its index count as finished."""
    script = STOPS_WITH_130.replace("sys.exit(130)", "sys.exit(0)")
    name = start(
        cluster, job("one", script, podFailurePolicy={"rules": [DISRUPTED]}, backoffLimitPerIndex=1, **INDEXED)
    )
    pod = running(cluster, name, 2)[0]
    cluster.faults.evict(pod["metadata"]["name"])
    cluster.wait_for(lambda: cluster.job(name)["status"].get("succeeded") == 1)
    assert cluster.job(name)["status"]["completedIndexes"] == pod["metadata"]["annotations"][INDEX]


def test_an_evicted_pod_that_ends_otherwise_is_tried_again_for_free(cluster: Cluster) -> None:
    rules = {"rules": [DISRUPTED, rule("FailIndex", 130)]}
    name = start(cluster, job("one", STOPS_WITH_130, podFailurePolicy=rules, backoffLimitPerIndex=0, **INDEXED))
    first = running(cluster, name, 2)[0]
    cluster.faults.evict(first["metadata"]["name"])

    def replaced() -> bool:
        return {p["metadata"]["uid"] for p in running(cluster, name, 2)} != {first["metadata"]["uid"]}

    cluster.wait_for(
        lambda: first["metadata"]["uid"] not in {p["metadata"]["uid"] for p in cluster.pods(name)} and replaced()
    )
    status = cluster.job(name)["status"]
    assert (status.get("failed", 0), status.get("failedIndexes")) == (0, "")


def test_no_replacement_before_the_first_has_ended(fake_cluster: FakeCluster) -> None:
    name = start(fake_cluster, job("one", SLEEP, grace=2, podReplacementPolicy="Failed", backoffLimit=3))
    first = running(fake_cluster, name)[0]["metadata"]["name"]
    fake_cluster.faults.evict(first)
    fake_cluster.wait_for(lambda: fake_cluster.job(name)["status"].get("terminating") == 1)
    assert len(fake_cluster.pods(name)) == 1
    fake_cluster.wait_for(lambda: [p["metadata"]["name"] for p in fake_cluster.pods(name)] not in ([first], []))
    name = start(fake_cluster, job("two", SLEEP, grace=1, podReplacementPolicy="TerminatingOrFailed", backoffLimit=3))
    first = running(fake_cluster, name)[0]["metadata"]["name"]
    fake_cluster.faults.evict(first)
    fake_cluster.wait_for(lambda: len(fake_cluster.pods(name)) == 2)


def test_suspended_and_resumed(cluster: Cluster, batch: BatchV1Api) -> None:
    name = start(cluster, job("one", STOPS_WITH_130, activeDeadlineSeconds=3600))
    running(cluster, name)
    began = cluster.job(name)["status"]["startTime"]
    batch.patch_namespaced_job(name, cluster.namespace, {"spec": {"suspend": True}}, _content_type=MERGE)
    cluster.wait_for(lambda: condition(cluster.job(name), "Suspended") and not cluster.pods(name))
    assert cluster.job(name)["status"].get("failed", 0) == 0
    time.sleep(1.1)
    batch.patch_namespaced_job(name, cluster.namespace, {"spec": {"suspend": False}}, _content_type=MERGE)
    running(cluster, name)
    live = cluster.wait_for(lambda: "startTime" in cluster.job(name)["status"] and cluster.job(name))  # told last
    assert not condition(live, "Suspended")
    assert live["status"]["startTime"] > began
    assert {"Suspended", "Resumed"} <= reasons(cluster, name)


def test_a_suspended_job_has_no_start_and_no_pods(cluster: Cluster) -> None:
    name = start(cluster, job("one", suspend=True, activeDeadlineSeconds=1))
    cluster.wait_for(lambda: condition(cluster.job(name), "Suspended"))
    time.sleep(2.2)
    live = cluster.job(name)
    assert "startTime" not in live["status"]
    assert not failed(live)
    assert cluster.pods(name) == []


def test_time_to_live_takes_job_pods_and_logs(cluster: Cluster, batch: BatchV1Api) -> None:
    name = start(cluster, job("one", ttlSecondsAfterFinished=1 if cluster.is_fake else 5))
    end(cluster, name)
    pod = cluster.pods(name)[0]["metadata"]["name"]
    cluster.wait_for(lambda: not cluster.pods(name))
    with pytest.raises(ApiException) as error:
        CoreV1Api(client_of(cluster)).read_namespaced_pod_log(pod, cluster.namespace)
    assert error.value.status == 404
    cluster.wait_for(lambda: not batch.list_namespaced_job(cluster.namespace).items)


# Pods that are refused -----------------------------------------------------------------------------------------------


def refused_pods(cluster: Cluster, name: str) -> str:
    """The message of the event that tells."""

    def told() -> str:
        return next((e["message"] for e in cluster.events(name) if e["reason"] == "FailedCreate"), "")

    return str(cluster.wait_for(told))


def test_quota(cluster: Cluster) -> None:
    hard = {"hard": {"requests.nvidia.com/gpu": "1"}}
    CoreV1Api(client_of(cluster)).create_namespaced_resource_quota(
        cluster.namespace, {"metadata": {"name": "gpus"}, "spec": hard}
    )
    manifest = job("one", SLEEP)
    amounts = {"nvidia.com/gpu": "2"}
    manifest["spec"]["template"]["spec"]["containers"][0]["resources"] = {"requests": amounts, "limits": amounts}
    message = refused_pods(cluster, start(cluster, manifest))
    gpu = "requests.nvidia.com/gpu"
    assert f"exceeded quota: gpus, requested: {gpu}=2, used: {gpu}=0, limited: {gpu}=1" in message
    assert cluster.pods("one") == []


def test_a_quota_of_jobs_refuses_them(cluster: Cluster, batch: BatchV1Api) -> None:
    spec = {"hard": {"count/jobs.batch": "0"}}
    CoreV1Api(client_of(cluster)).create_namespaced_resource_quota(
        cluster.namespace, {"metadata": {"name": "none"}, "spec": spec}
    )
    with pytest.raises(ApiException) as error:
        batch.create_namespaced_job(cluster.namespace, job("one"))
    assert error.value.status == 403
    assert 'jobs.batch \\"one\\" is forbidden: exceeded quota: none' in error.value.body


def test_a_quota_that_is_free_again_lets_the_pod_come(fake_cluster: FakeCluster) -> None:
    core = CoreV1Api(client_of(fake_cluster))
    core.create_namespaced_resource_quota(
        fake_cluster.namespace, {"metadata": {"name": "few"}, "spec": {"hard": {"pods": "1"}}}
    )
    start(fake_cluster, job("one", SLEEP, grace=0))
    running(fake_cluster, "one")
    start(fake_cluster, job("two"))
    assert "exceeded quota: few, requested: pods=1, used: pods=1, limited: pods=1" in refused_pods(fake_cluster, "two")
    assert core.read_namespaced_resource_quota("few", fake_cluster.namespace).status.used == {"pods": "1"}
    BatchV1Api(client_of(fake_cluster)).delete_namespaced_job(
        "one", fake_cluster.namespace, propagation_policy="Background"
    )
    assert end(fake_cluster, "two")["succeeded"] == 1


def test_missing_service_account(cluster: Cluster) -> None:
    manifest = job("one")
    manifest["spec"]["template"]["spec"]["serviceAccountName"] = "nobody"
    message = refused_pods(cluster, start(cluster, manifest))
    assert 'serviceaccount "nobody" not found' in message


def test_missing_priority_class(cluster: Cluster) -> None:
    manifest = job("one")
    manifest["spec"]["template"]["spec"]["priorityClassName"] = "urgent"
    assert "no PriorityClass with name urgent was found" in refused_pods(cluster, start(cluster, manifest))


def test_restricted_namespace(cluster: Cluster) -> None:
    core = CoreV1Api(client_of(cluster))
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    core.patch_namespace(cluster.namespace, {"metadata": {"labels": labels}})
    message = refused_pods(cluster, start(cluster, job("one")))
    for part in (
        'violates PodSecurity "restricted:latest"',
        "allowPrivilegeEscalation != false",
        'must set securityContext.capabilities.drop=["ALL"]',
        "runAsNonRoot != true",
        "seccompProfile",
    ):
        assert part in message
    manifest = job("two")
    pod = manifest["spec"]["template"]["spec"]
    pod["securityContext"] = {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}}
    safe = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    pod["containers"][0]["securityContext"] = safe
    assert end(cluster, start(cluster, manifest))["succeeded"] == 1


def test_limit_range(cluster: Cluster) -> None:
    limits = [{"type": "Container", "default": {"memory": "64Mi"}, "max": {"memory": "128Mi"}}]
    CoreV1Api(client_of(cluster)).create_namespaced_limit_range(
        cluster.namespace, {"metadata": {"name": "small"}, "spec": {"limits": limits}}
    )
    end(cluster, start(cluster, job("one")))
    resources = cluster.pods("one")[0]["spec"]["containers"][0]["resources"]
    assert resources["limits"]["memory"] == resources["requests"]["memory"] == "64Mi"
    manifest = job("two")
    manifest["spec"]["template"]["spec"]["containers"][0]["resources"] = {"limits": {"memory": "1Gi"}}
    message = refused_pods(cluster, start(cluster, manifest))
    assert "maximum memory usage per Container is 128Mi, but limit is 1Gi" in message


# Kueue ---------------------------------------------------------------------------------------------------------------


def test_kueue_holds_jobs_until_there_is_quota(fake_cluster: FakeCluster) -> None:
    fake_cluster.install_kueue("gpu", cpu="1")
    for name in ("one", "two"):
        manifest = job(name, SLEEP, grace=0)
        manifest["metadata"]["labels"] = {"kueue.x-k8s.io/queue-name": "gpu"}
        manifest["spec"]["template"]["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "1"}}
        start(fake_cluster, manifest)
    running(fake_cluster, "one")
    fake_cluster.wait_for(lambda: condition(fake_cluster.job("two"), "Suspended"))
    time.sleep(0.2)
    assert fake_cluster.pods("two") == []
    BatchV1Api(client_of(fake_cluster)).delete_namespaced_job(
        "one", fake_cluster.namespace, propagation_policy="Background"
    )
    running(fake_cluster, "two")
