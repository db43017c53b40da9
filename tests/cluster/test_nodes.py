"""Where pods go, why they wait, and pools that cost nothing while nobody needs them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from kubernetes.client import CoreV1Api, SchedulingV1Api

from tests.cluster.examples import DISRUPTED, SLEEP, STOPS_WITH_130, condition, container_of, job
from tests.cluster.fixtures import Cluster, FakeCluster, client_of
from tests.cluster.scheduler import Pool
from tests.cluster.test_job_controller import end, reasons, running, start

GPU = "nvidia.com/gpu"
TAINTED = Pool("gpu", {"accelerator": "nvidia"}, ("sku=gpu:NoSchedule",), {"cpu": "4", "memory": "28Gi", GPU: "1"})
SYSTEM = Pool("system", allocatable={"cpu": "2", "memory": "8Gi"}, least=2, most=2)


def gpu_job(name: str, script: str = SLEEP, tolerate: bool = True, **spec: Any) -> Any:
    manifest = job(name, script, grace=0, **spec)
    pod = manifest["spec"]["template"]["spec"]
    pod["nodeSelector"] = {"accelerator": "nvidia"}
    if tolerate:
        pod["tolerations"] = [{"key": "sku", "operator": "Equal", "value": "gpu", "effect": "NoSchedule"}]
    container_of(manifest)["resources"] = {"requests": {GPU: "1"}, "limits": {GPU: "1"}}
    return manifest


def why_pending(cluster: Cluster, name: str) -> str:
    def told() -> Any:
        for pod in cluster.pods(name):
            for one in pod["status"].get("conditions") or []:
                if one["type"] == "PodScheduled" and one["status"] == "False":
                    return one
        return None

    one = cluster.wait_for(told)
    assert one["reason"] == "Unschedulable"
    return str(one["message"])


@pytest.fixture
def pools(tmp_path: Path) -> Any:
    with FakeCluster(tmp_path, SYSTEM, TAINTED) as made:
        yield made


def test_more_than_any_node_has(cluster: Cluster) -> None:
    manifest = job("one")
    container_of(manifest)["resources"] = {"requests": {"cpu": "4000"}}
    message = why_pending(cluster, start(cluster, manifest))
    assert "nodes are available: " in message
    assert "Insufficient cpu" in message
    cluster.wait_for(lambda: "FailedScheduling" in reasons(cluster, cluster.pods("one")[0]["metadata"]["name"]))


def test_reasons_of_all_nodes_are_counted(pools: FakeCluster) -> None:
    message = why_pending(pools, start(pools, gpu_job("one", tolerate=False)))
    assert message == (
        "0/3 nodes are available: 1 node(s) had untolerated taint(s), 2 node(s) didn't match Pod's node affinity/selector. "
        "no new claims to deallocate, preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling."
    )


def test_a_gpu_is_taken_until_its_pod_has_ended(pools: FakeCluster) -> None:
    start(pools, gpu_job("one"))
    running(pools, "one")
    message = why_pending(pools, start(pools, gpu_job("two")))
    assert message.startswith(
        "0/3 nodes are available: 1 Insufficient nvidia.com/gpu, 2 node(s) didn't match Pod's node"
    )
    pools.faults.kill(pools.pods("one")[0]["metadata"]["name"])
    running(pools, "two")


def test_a_pod_of_a_higher_priority_makes_room_for_itself(tmp_path: Path) -> None:
    with FakeCluster(tmp_path, Pool("cpu", allocatable={"cpu": "1", "memory": "1Gi"})) as made:
        api = SchedulingV1Api(client_of(made))
        for name, value, policy in (("low", -5, "Never"), ("high", 5, "PreemptLowerPriority")):
            api.create_priority_class({"metadata": {"name": name}, "value": value, "preemptionPolicy": policy})
        for name in ("low", "other", "high"):
            manifest = job(name, STOPS_WITH_130)
            manifest["spec"]["template"]["spec"]["priorityClassName"] = name.replace("other", "low")
            container_of(manifest)["resources"] = {"requests": {"cpu": "1"}}
            start(made, manifest)
            if name == "other":
                why = why_pending(made, name)
                assert why.endswith("preemption: not eligible due to preemptionPolicy=Never.")
            else:
                running(made, name)
        assert all(pod["status"]["phase"] != "Running" for pod in made.pods("low"))
        assert "Preempted" in {event["reason"] for event in made.events()}


def test_missing_claim(cluster: Cluster) -> None:
    manifest = job("one")
    manifest["spec"]["template"]["spec"]["volumes"] = [{"name": "d", "persistentVolumeClaim": {"claimName": "data"}}]
    assert 'persistentvolumeclaim "data" not found' in why_pending(cluster, start(cluster, manifest))


def test_a_pool_grows_from_zero_and_shrinks_to_zero(tmp_path: Path) -> None:
    pool = Pool("gpu", TAINTED.labels, TAINTED.taints, TAINTED.allocatable, least=0, most=1)
    with FakeCluster(tmp_path, SYSTEM, pool) as made:

        def nodes() -> list[str]:
            return [n.metadata.name for n in CoreV1Api(client_of(made)).list_node(label_selector="agentpool=gpu").items]

        assert nodes() == []
        start(made, gpu_job("one", "import time; time.sleep(1)"))
        pod = made.wait_for(lambda: made.pods("one"))[0]["metadata"]["name"]
        made.wait_for(lambda: "TriggeredScaleUp" in reasons(made, pod))
        message = next(e["message"] for e in made.events(pod) if e["reason"] == "TriggeredScaleUp")
        assert message == "pod triggered scale-up: [{aks-gpu-vmss 0->1 (max: 1)}]"
        made.wait_for(nodes)
        start(made, gpu_job("two", tolerate=False))
        blocked = made.wait_for(lambda: made.pods("two"))[0]["metadata"]["name"]
        made.wait_for(lambda: "NotTriggerScaleUp" in reasons(made, blocked))
        message = next(e["message"] for e in made.events(blocked) if e["reason"] == "NotTriggerScaleUp")
        assert message == "pod didn't trigger scale-up: 1 node(s) had untolerated taint(s)"
        end(made, "one")
        made.wait_for(lambda: not nodes())
        assert 1.0 < pool.node_seconds < 10
        time.sleep(0.2)
        assert made.pods("one") == []  # pods leave with their node


def test_a_pool_grows_by_as_many_nodes_as_are_needed(tmp_path: Path) -> None:
    pool = Pool("cpu", allocatable={"cpu": "4", "memory": "8Gi"}, least=0, most=5)
    with FakeCluster(tmp_path, pool) as made:
        manifest = job("one", SLEEP, grace=0, completionMode="Indexed", completions=6, parallelism=6)
        container_of(manifest)["resources"] = {"requests": {"cpu": "2"}}
        running(made, start(made, manifest), 6)
        assert len(CoreV1Api(client_of(made)).list_node().items) == 3


# Disruptions ---------------------------------------------------------------------------------------------------------


def disruption(cluster: FakeCluster, name: str, uid: str) -> str:
    def told() -> str:
        pods = [pod for pod in cluster.pods(name) if pod["metadata"]["uid"] == uid]
        return str(condition(pods[0], "DisruptionTarget").get("reason", "")) if pods else "gone"

    return str(cluster.wait_for(told))


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("preempt", "PreemptionByScheduler"),
        ("shut_down_node", "TerminationByKubelet"),
        ("taint_node", "DeletionByTaintManager"),
    ],
)
def test_disruptions_name_themselves(fake_cluster: FakeCluster, fault: str, reason: str) -> None:
    policy: Any = {"podFailurePolicy": {"rules": [DISRUPTED]}, "backoffLimit": 0}
    script = STOPS_WITH_130.replace("sys.exit", "time.sleep(0.3), sys.exit")
    name = start(fake_cluster, job("one", script, **policy))
    pod = running(fake_cluster, name)[0]["metadata"]
    getattr(fake_cluster.faults, fault)(fake_cluster.faults.node_of(pod["name"]) if "node" in fault else pod["name"])
    assert disruption(fake_cluster, name, pod["uid"]) == reason

    def replaced() -> bool:
        return any(p["metadata"]["uid"] != pod["uid"] for p in fake_cluster.pods(name))

    fake_cluster.wait_for(replaced)
    assert "failed" not in fake_cluster.job(name)["status"]


def test_a_node_that_is_gone_takes_its_pods_and_logs(tmp_path: Path) -> None:
    with FakeCluster(tmp_path, Pool("spot", least=2, most=2)) as made:
        policy: Any = {"podFailurePolicy": {"rules": [DISRUPTED]}, "backoffLimit": 0}
        name = start(made, job("one", STOPS_WITH_130, **policy))
        pod = running(made, name)[0]
        made.faults.lose_node(pod["spec"]["nodeName"])
        ghost = made.pods(name)[0]
        assert (ghost["metadata"]["uid"], ghost["status"]["phase"]) == (pod["metadata"]["uid"], "Running")
        node = CoreV1Api(client_of(made)).read_node(pod["spec"]["nodeName"])
        assert any(one.type == "Ready" and one.status == "Unknown" for one in node.status.conditions)
        assert disruption(made, name, pod["metadata"]["uid"]) in ("DeletionByPodGC", "gone")
        again = running(made, name)[0]
        assert again["spec"]["nodeName"] != pod["spec"]["nodeName"]
        assert "failed" not in made.job(name)["status"]
