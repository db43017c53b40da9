"""Where pods go, why they wait, pools that cost nothing while nobody needs them, and nodes that go away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kubernetes.client import CoreV1Api

from tests.cluster.examples import DISRUPTED, SLEEP, STOPS_WITH_130, condition, container_of, job
from tests.cluster.fixtures import Cluster, FakeCluster, client_of
from tests.cluster.scheduler import Pool
from tests.cluster.steps import end, reasons, running, start

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
    def look() -> Any:
        conditions = [one for pod in cluster.pods(name) for one in pod["status"].get("conditions") or []]
        return next((one for one in conditions if (one["type"], one["status"]) == ("PodScheduled", "False")), None)

    one = cluster.wait_for(look)
    assert one["reason"] == "Unschedulable"
    return str(one["message"])


def test_more_than_any_node_has(cluster: Cluster) -> None:
    manifest = job("one")
    container_of(manifest)["resources"] = {"requests": {"cpu": "4000"}}
    message = why_pending(cluster, start(cluster, manifest))
    assert "nodes are available: " in message
    assert "Insufficient cpu" in message
    cluster.wait_for(lambda: "FailedScheduling" in reasons(cluster, cluster.pods("one")[0]["metadata"]["name"]))


def test_a_gpu_is_taken_until_its_pod_has_ended_and_reasons_are_counted(tmp_path: Path) -> None:
    with FakeCluster(tmp_path, SYSTEM, TAINTED) as cluster:
        message = why_pending(cluster, start(cluster, gpu_job("other", tolerate=False)))
        assert message == (
            "0/3 nodes are available: 1 node(s) had untolerated taint(s), 2 node(s) didn't match Pod's node affinity/selector. "
            "no new claims to deallocate, preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling."
        )
        start(cluster, gpu_job("one"))
        running(cluster, "one")
        message = why_pending(cluster, start(cluster, gpu_job("two")))
        assert message.startswith("0/3 nodes are available: 1 Insufficient nvidia.com/gpu, 2 node(s) didn't match")
        cluster.faults.kill(cluster.pods("one")[0]["metadata"]["name"])
        running(cluster, "two")


def test_a_pool_grows_from_zero_by_as_many_nodes_as_are_needed_and_shrinks_to_zero(tmp_path: Path) -> None:
    pool = Pool("gpu", TAINTED.labels, TAINTED.taints, {**TAINTED.allocatable, GPU: "2"}, least=0, most=5)
    with FakeCluster(tmp_path, SYSTEM, pool) as cluster:

        def nodes() -> list[str]:
            items = CoreV1Api(client_of(cluster)).list_node(label_selector="agentpool=gpu").items
            return [node.metadata.name for node in items]

        assert nodes() == []
        script = "import time; print('up', flush=True); time.sleep(1)"
        start(cluster, gpu_job("one", script, completionMode="Indexed", completions=3, parallelism=3))
        cluster.wait_for(lambda: len(nodes()) == 2)
        events = [e["message"] for e in cluster.events() if e["reason"] == "TriggeredScaleUp"]
        assert sorted(events) == [f"pod triggered scale-up: [{{aks-gpu-vmss {n}->{n + 1} (max: 5)}}]" for n in (0, 1)]
        start(cluster, gpu_job("two", tolerate=False))
        blocked = cluster.wait_for(lambda: cluster.pods("two"))[0]["metadata"]["name"]
        cluster.wait_for(lambda: "NotTriggerScaleUp" in reasons(cluster, blocked))
        message = next(e["message"] for e in cluster.events(blocked) if e["reason"] == "NotTriggerScaleUp")
        assert message == "pod didn't trigger scale-up: 1 node(s) had untolerated taint(s)"
        end(cluster, "one")
        cluster.wait_for(lambda: not nodes() and not cluster.pods("one"))  # pods leave with their node


# Disruptions ---------------------------------------------------------------------------------------------------------


def test_a_node_that_is_gone_takes_its_pods_and_they_come_again_for_free(tmp_path: Path) -> None:
    with FakeCluster(tmp_path, Pool("spot", least=2, most=2)) as cluster:
        policy: Any = {"podFailurePolicy": {"rules": [DISRUPTED]}, "backoffLimit": 0}
        name = start(cluster, job("one", STOPS_WITH_130, **policy))
        pod = running(cluster, name)[0]
        uid, node = pod["metadata"]["uid"], pod["spec"]["nodeName"]

        def disruption() -> str:
            pods = [pod for pod in cluster.pods(name) if pod["metadata"]["uid"] == uid]
            return str(condition(pods[0], "DisruptionTarget").get("reason", "")) if pods else "gone"

        cluster.faults.lose_node(node)
        status = CoreV1Api(client_of(cluster)).read_node(node).status
        assert any(one.type == "Ready" and one.status == "Unknown" for one in status.conditions)
        assert cluster.wait_for(disruption) in ("DeletionByPodGC", "gone")
        cluster.wait_for(lambda: any(p["metadata"]["uid"] != uid for p in running(cluster, name)))
        assert "failed" not in cluster.job(name)["status"]
