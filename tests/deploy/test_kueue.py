"""Kueue's objects, for which no schema ships with the tools at hand: fields of API v1beta2, checked one by one."""

from __future__ import annotations

import yaml

from tests.deploy.rendered import ROOT, of_kind, overlay
from tests.deploy.test_kubernetes import target
from ticketsmith.execute.kubernetes.manifests import training_job


def test_one_queue_leads_to_both_kinds_of_nodes() -> None:
    objects = overlay("aks-kueue")
    assert {one["apiVersion"] for one in objects if "kueue" in one["apiVersion"]} == {"kueue.x-k8s.io/v1beta2"}
    queue = of_kind(objects, "ClusterQueue")["ticketsmith"]["spec"]
    assert of_kind(objects, "LocalQueue")["ticketsmith"]["spec"] == {"clusterQueue": "ticketsmith"}
    (group,) = queue["resourceGroups"]
    assert [flavor["name"] for flavor in group["flavors"]] == list(of_kind(objects, "ResourceFlavor"))
    for flavor in group["flavors"]:
        assert [one["name"] for one in flavor["resources"]] == group["coveredResources"]
    assert set(queue) <= {"namespaceSelector", "queueingStrategy", "preemption", "resourceGroups"}


def test_the_manager_runs_where_nodes_always_are() -> None:
    """On a pool that goes to zero it would hold a node for ever."""
    values = yaml.safe_load((ROOT / "deploy/kueue-values.yaml").read_text())["controllerManager"]
    assert values["nodeSelector"] == {"kubernetes.azure.com/mode": "system"}
    assert values["tolerations"] == [{"key": "CriticalAddonsOnly", "operator": "Exists"}]
    assert "--values deploy/kueue-values.yaml" in (ROOT / "docs/aks.md").read_text()


def test_a_job_that_asks_for_the_queue_can_be_admitted() -> None:
    """A flavor takes a pod when the pod selects its labels, tolerates its taints and asks for covered resources only."""
    objects = overlay("aks-kueue")
    (group,) = of_kind(objects, "ClusterQueue")["ticketsmith"]["spec"]["resourceGroups"]
    for name, flavor in (("aks.yaml", "ticketsmith-gpu"), ("aks-spot.yaml", "ticketsmith-gpu-spot")):
        where = target(name).model_copy(update={"queue": "ticketsmith"})
        job = training_job("ts-e-dense-1", "e", "dense", [0, 1, 2], "0" * 64, where)
        assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] in of_kind(objects, "LocalQueue")
        spec = job["spec"]["template"]["spec"]
        nodes = of_kind(objects, "ResourceFlavor")[flavor]["spec"]
        assert spec["nodeSelector"] == nodes["nodeLabels"]
        tolerated = {(one["key"], one.get("value")) for one in spec["tolerations"]}
        assert {(taint["key"], taint["value"]) for taint in nodes["nodeTaints"]} <= tolerated
        for container in spec["containers"]:
            assert set(container["resources"]["requests"]) <= set(group["coveredResources"])
