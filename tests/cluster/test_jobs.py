"""What Jobs come to, and why: indexes, back-off, failure policies, deadlines, suspension, time to live."""

from __future__ import annotations

import time
from typing import Any

import pytest
from kubernetes.client import ApiException, BatchV1Api, CoreV1Api

from tests.cluster.examples import DISRUPTED, INDEXED, SLEEP, STOPS_WITH_130, condition, failed, job, rule
from tests.cluster.fixtures import Cluster, FakeCluster, client_of
from tests.cluster.steps import end, reasons, running, start

INDEX = "batch.kubernetes.io/job-completion-index"


def test_complete(cluster: Cluster) -> None:
    status = end(cluster, start(cluster, job("one")))
    assert status["succeeded"] == 1
    assert status["completionTime"] >= status["startTime"]
    assert [c["type"] for c in status["conditions"]] == ["SuccessCriteriaMet", "Complete"]
    pod = cluster.pods("one")[0]
    ended = pod["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (pod["status"]["phase"], ended["exitCode"], ended["reason"]) == ("Succeeded", 0, "Completed")
    assert cluster.log(pod["metadata"]["name"]) == "done\n"
    cluster.wait_for(lambda: {"SuccessfulCreate", "Completed"} <= reasons(cluster, "one"))
    assert {"Scheduled", "Pulled", "Started"} <= reasons(cluster, pod["metadata"]["name"])


def test_every_index_has_a_pod_that_knows_it(cluster: Cluster) -> None:
    script = "import os; print(os.environ['JOB_COMPLETION_INDEX'], os.environ['HOSTNAME'])"
    status = end(cluster, start(cluster, job("one", script, completionMode="Indexed", completions=4, parallelism=2)))
    assert (status["succeeded"], status["completedIndexes"]) == (4, "0-3")
    for pod in cluster.pods("one"):
        meta = pod["metadata"]
        index = meta["annotations"][INDEX]
        assert meta["labels"][INDEX] == index
        assert len(meta["name"].removeprefix(f"one-{index}-")) == 5
        assert cluster.log(meta["name"]).split() == [index, f"one-{index}"]
        assert meta["ownerReferences"][0]["name"] == "one"


def test_no_more_pods_at_once_than_the_parallelism(fake_cluster: FakeCluster) -> None:
    name = start(fake_cluster, job("one", SLEEP, grace=0, completionMode="Indexed", completions=4, parallelism=2))
    running(fake_cluster, name, 2)
    time.sleep(0.3)
    assert len(fake_cluster.pods(name)) == fake_cluster.job(name)["status"]["active"] == 2


# Failure -------------------------------------------------------------------------------------------------------------


def test_back_off_limit_with_tries_at_growing_distances(fake_cluster: FakeCluster) -> None:
    fake_cluster.jobs.backoff = 0.4
    name = start(fake_cluster, job("one", "raise SystemExit(1)", backoffLimit=2))
    began, times = time.monotonic(), list[float]()
    while len(times) < 3:
        if len(fake_cluster.pods(name)) > len(times):
            times.append(time.monotonic() - began)
        time.sleep(0.02)
    assert times[1] - times[0] >= 0.4
    assert times[2] - times[1] >= 0.8
    status = end(fake_cluster, name)
    assert [c["type"] for c in status["conditions"]] == ["FailureTarget", "Failed"]
    assert (status["failed"], failed(fake_cluster.job(name))) == (3, "BackoffLimitExceeded")


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


def test_the_first_rule_that_matches_decides(cluster: Cluster) -> None:
    policy: Any = {"podFailurePolicy": {"rules": [rule("Ignore", 3), rule("FailJob", 3, 4), rule("FailIndex", 4, 5)]}}
    policy["backoffLimitPerIndex"] = 3
    script = "import os; raise SystemExit(5 if os.environ['JOB_COMPLETION_INDEX'] == '0' else 0)"
    one = start(cluster, job("one", script, **policy, **INDEXED))
    two = start(cluster, job("two", "raise SystemExit(4)", **policy, **INDEXED))
    three = start(cluster, job("three", "raise SystemExit(3)", **policy, **INDEXED))
    status = end(cluster, one)
    assert (status["failedIndexes"], status["failed"], failed(cluster.job(one))) == ("0", 1, "FailedIndexes")
    end(cluster, two)
    assert failed(cluster.job(two)) == "PodFailurePolicy"
    assert (
        "failed with exit code 4 matching FailJob rule at index 1" in condition(cluster.job(two), "Failed")["message"]
    )
    cluster.wait_for(lambda: len(cluster.pods(three)) >= 4)  # what is ignored is tried again for free
    assert not failed(cluster.job(three))
    assert "failed" not in cluster.job(three)["status"]


# Stopping ------------------------------------------------------------------------------------------------------------


def test_deadline(cluster: Cluster) -> None:
    """SIGTERM and a grace period; the Job has failed when its pods have ended, and their logs are gone."""
    name = start(cluster, job("one", SLEEP, grace=1, activeDeadlineSeconds=1 if cluster.is_fake else 30))
    cluster.wait_for(lambda: condition(cluster.job(name), "FailureTarget"), 60)
    assert not failed(cluster.job(name))
    status = end(cluster, name, 40)
    assert (failed(cluster.job(name)), status["failed"], status["terminating"]) == ("DeadlineExceeded", 1, 0)
    assert condition(cluster.job(name), "Failed")["message"] == "Job was active longer than specified deadline"
    cluster.wait_for(lambda: not cluster.pods(name) and "DeadlineExceeded" in reasons(cluster, name))


def test_an_evicted_pod_that_ends_with_0_is_done(cluster: Cluster) -> None:
    """The trap: a handler that saves and exits 0 makes its index count as finished."""
    script = STOPS_WITH_130.replace("sys.exit(130)", "sys.exit(0)")
    policy: Any = {"podFailurePolicy": {"rules": [DISRUPTED]}, "backoffLimitPerIndex": 1}
    name = start(cluster, job("one", script, **policy, **INDEXED))
    pod = running(cluster, name, 2)[0]
    cluster.faults.evict(pod["metadata"]["name"])
    cluster.wait_for(lambda: cluster.job(name)["status"].get("succeeded") == 1)
    assert cluster.job(name)["status"]["completedIndexes"] == pod["metadata"]["annotations"][INDEX]


def test_an_evicted_pod_that_ends_otherwise_is_tried_again_for_free(cluster: Cluster) -> None:
    rules = {"rules": [DISRUPTED, rule("FailIndex", 130)]}
    name = start(cluster, job("one", STOPS_WITH_130, podFailurePolicy=rules, backoffLimitPerIndex=0, **INDEXED))
    first = running(cluster, name, 2)[0]["metadata"]
    cluster.faults.evict(first["name"])
    cluster.wait_for(lambda: first["name"] not in {p["metadata"]["name"] for p in running(cluster, name, 2)})
    status = cluster.job(name)["status"]
    assert (status.get("failed", 0), status.get("failedIndexes")) == (0, "")


def test_no_replacement_before_the_first_has_ended(fake_cluster: FakeCluster) -> None:
    name = start(fake_cluster, job("one", SLEEP, grace=2, podReplacementPolicy="Failed", backoffLimit=3))
    first = running(fake_cluster, name)[0]["metadata"]["name"]
    fake_cluster.faults.evict(first)
    fake_cluster.wait_for(lambda: fake_cluster.job(name)["status"].get("terminating") == 1)
    assert len(fake_cluster.pods(name)) == 1
    fake_cluster.wait_for(lambda: [p["metadata"]["name"] for p in fake_cluster.pods(name)] not in ([first], []))


def test_suspended_by_a_queue_until_there_is_quota(fake_cluster: FakeCluster) -> None:
    kueue = fake_cluster.install_kueue(holding=True)
    manifest = job("one", SLEEP, grace=0, activeDeadlineSeconds=1)
    manifest["metadata"]["labels"] = {"kueue.x-k8s.io/queue-name": "gpu"}
    start(fake_cluster, manifest)
    fake_cluster.wait_for(lambda: condition(fake_cluster.job("one"), "Suspended"))
    time.sleep(2.2)  # its deadline does not begin
    assert fake_cluster.pods("one") == []
    assert "startTime" not in fake_cluster.job("one")["status"]
    kueue.holding = False
    assert end(fake_cluster, "one")["startTime"]
    assert failed(fake_cluster.job("one")) == "DeadlineExceeded"


def test_time_to_live_takes_job_pods_and_logs(cluster: Cluster) -> None:
    name = start(cluster, job("one", ttlSecondsAfterFinished=1 if cluster.is_fake else 5))
    end(cluster, name)
    pod = cluster.pods(name)[0]["metadata"]["name"]
    cluster.wait_for(lambda: not cluster.pods(name))
    with pytest.raises(ApiException) as error:
        CoreV1Api(client_of(cluster)).read_namespaced_pod_log(pod, cluster.namespace)
    assert error.value.status == 404
    cluster.wait_for(lambda: not BatchV1Api(client_of(cluster)).list_namespaced_job(cluster.namespace).items)


def test_pods_that_are_refused_are_told_of(cluster: Cluster) -> None:
    manifest = job("one")
    manifest["spec"]["template"]["spec"]["serviceAccountName"] = "nobody"
    start(cluster, manifest)
    cluster.wait_for(lambda: "FailedCreate" in reasons(cluster, "one"))
    message = next(e["message"] for e in cluster.events("one") if e["reason"] == "FailedCreate")
    assert 'serviceaccount "nobody" not found' in message
    cluster.add_account("nobody")
    assert end(cluster, "one")["succeeded"] == 1
