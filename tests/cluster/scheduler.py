"""Nodes, where pods go, why they wait; pools that grow from zero and shrink again; what is left of nodes that are gone."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal

from tests.cluster.resources import (
    NODES,
    PODS,
    Object,
    at,
    is_finished,
    is_leaving,
    quantity,
    requests_of,
    set_condition,
)
from tests.cluster.storage import Storage, random_suffix

AUTOSCALER = "cluster-autoscaler"
SCHEDULER = "default-scheduler"


@dataclass
class Pool:
    """Nodes of one kind. With ``most`` above ``least`` it grows and shrinks by itself.

    ``delay``: seconds that a node takes to come. ``idle``: seconds that an empty one is kept.
    """

    name: str
    labels: dict[str, str] = field(default_factory=dict)
    taints: tuple[str, ...] = ()
    """As ``kubectl taint`` writes them: ``sku=gpu:NoSchedule``."""

    allocatable: dict[str, str] = field(default_factory=lambda: {"cpu": "8", "memory": "32Gi"})
    least: int = 1
    most: int = 1
    delay: float = 0.3
    idle: float = 0.5

    def node(self) -> Object:
        name = f"aks-{self.name}-{random_suffix(8)}-vmss000000"
        meta = {"name": name, "labels": {"agentpool": self.name, **self.labels}}
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastTransitionTime": None}
        status = {"allocatable": {"pods": "110", **self.allocatable}, "conditions": [ready]}
        taints = [_taint(text) for text in self.taints]
        return {"apiVersion": "v1", "kind": "Node", "metadata": meta, "spec": {"taints": taints}, "status": status}


@dataclass
class Scheduler:
    """Gives every pod a node or a reason. Pools are asked for more where that would help."""

    storage: Storage
    pools: list[Pool] = field(default_factory=list)
    lost_after: float = 0.5
    """Seconds until a node that is gone is taken off the list, and its pods with it."""

    lost: dict[str, float] = field(default_factory=dict)
    _coming: dict[str, list[float]] = field(default_factory=dict)
    _planned: dict[str, list[dict[str, Decimal]]] = field(default_factory=dict)
    """What pending pods will use of the nodes that are on their way, by pool."""

    _idle_since: dict[str, float] = field(default_factory=dict)

    def add(self, pool: Pool) -> None:
        self.pools.append(pool)
        for _ in range(pool.least):
            self.storage.create(NODES, pool.node())

    def step(self) -> None:
        with self.storage.lock:
            self._collect()
            self._arrive()
            self._planned = {pool.name: [{} for _ in self._coming.get(pool.name, [])] for pool in self.pools}
            pods, nodes = self.storage.view(PODS), self.storage.view(NODES)
            usage = {node["metadata"]["name"]: _used(pods, node["metadata"]["name"]) for node in nodes}
            for pod in pods:
                if not at(pod, "spec", "nodeName") and not is_finished(pod) and not is_leaving(pod):
                    self._place(pod, nodes, usage)
            self._shrink(usage)

    # Scheduling -------------------------------------------------------------------------------------------------------

    def _place(self, pod: Object, nodes: list[Object], usage: dict[str, dict[str, Decimal]]) -> None:
        now, meta = self.storage.clock.stamp(), pod["metadata"]
        reasons = [(node["metadata"]["name"], obstacles(pod, node, usage[node["metadata"]["name"]])) for node in nodes]
        name = next((name for name, why in reasons if not why), None)
        if name is not None:

            def bind(live: Object) -> None:
                live["spec"]["nodeName"] = name
                set_condition(live, "PodScheduled", "True", now)

            self.storage.edit(PODS, pod, bind)
            _add(usage[name], pod)
            message = f"Successfully assigned {meta['namespace']}/{meta['name']} to {name}"
            self.storage.tell(pod, "Scheduled", message, SCHEDULER)
            return
        counts = Counter(why for _, whys in reasons for why in whys)
        words = ", ".join(sorted(f"{count} {why}" for why, count in counts.items()))
        head = f"0/{len(nodes)} nodes are available: "
        tail = f"preemption: {head}{len(nodes)} Preemption is not helpful for scheduling."
        message = (
            f"{head}{words}. no new claims to deallocate, {tail}" if nodes else "no nodes available to schedule pods"
        )

        def pend(live: Object) -> None:
            if set_condition(live, "PodScheduled", "False", now, "Unschedulable", message):
                self.storage.tell(pod, "FailedScheduling", message, SCHEDULER, warning=True)

        self.storage.edit(PODS, pod, pend)
        self._grow(pod)

    # Pools ------------------------------------------------------------------------------------------------------------

    def _nodes(self, pool: Pool) -> list[Object]:
        return [node for node in self.storage.view(NODES) if node["metadata"]["labels"]["agentpool"] == pool.name]

    def _grow(self, pod: Object) -> None:
        elastic = [pool for pool in self.pools if pool.most > pool.least]
        refusals: Counter[str] = Counter()
        for pool in elastic:
            coming, planned, blank = self._coming.setdefault(pool.name, []), self._planned[pool.name], pool.node()
            there = len(self._nodes(pool)) + len(coming)
            if why := obstacles(pod, blank, {}):
                refusals[why[0]] += 1
                continue
            room = next((used for used in planned if not obstacles(pod, blank, used)), None)
            if room is None and there >= pool.most:
                refusals["max node group size reached"] += 1
                continue
            if room is None:
                planned.append(room := {})
                coming.append(time.monotonic() + pool.delay)
                message = f"pod triggered scale-up: [{{aks-{pool.name}-vmss {there}->{there + 1} (max: {pool.most})}}]"
                self.storage.tell(pod, "TriggeredScaleUp", message, AUTOSCALER)
            _add(room, pod)
            return
        if elastic:
            words = ", ".join(f"{count} {why}" for why, count in sorted(refusals.items()))
            self.storage.tell(pod, "NotTriggerScaleUp", f"pod didn't trigger scale-up: {words}", AUTOSCALER)

    def _arrive(self) -> None:
        for pool in self.pools:
            for when in [when for when in self._coming.get(pool.name, []) if when <= time.monotonic()]:
                self._coming[pool.name].remove(when)
                self.storage.create(NODES, pool.node())

    def _shrink(self, usage: dict[str, dict[str, Decimal]]) -> None:
        now = time.monotonic()
        for pool in self.pools:
            nodes = self._nodes(pool)
            spare = len(nodes) - pool.least if pool.most > pool.least else 0
            for node in nodes:
                name = node["metadata"]["name"]
                if usage.get(name, {}).get("pods"):
                    self._idle_since.pop(name, None)
                elif spare > 0 and now - self._idle_since.setdefault(name, now) > pool.idle:
                    self.storage.delete(NODES, node)
                    spare -= 1

    # What is gone -----------------------------------------------------------------------------------------------------

    def lose(self, name: str) -> None:
        """The kubelet has stopped talking: the node is marked, and later taken off with its pods."""
        now, node = self.storage.clock.stamp(), self.storage.get(NODES, "", name)

        def unreachable(live: Object) -> None:
            set_condition(live, "Ready", "Unknown", now, "NodeStatusUnknown", "Kubelet stopped posting node status.")
            live["spec"]["taints"].append({"key": "node.kubernetes.io/unreachable", "effect": "NoSchedule"})

        self.storage.edit(NODES, node, unreachable)
        self.lost[name] = time.monotonic() + self.lost_after

    def _collect(self) -> None:
        """Pods of nodes that do not exist any more, and pods that were deleted before they had one."""
        for name in [name for name, when in self.lost.items() if when <= time.monotonic()]:
            del self.lost[name]
            if node := self.storage.find(NODES, "", name):
                self.storage.delete(NODES, node)
        nodes = {node["metadata"]["name"] for node in self.storage.view(NODES)}
        for pod in self.storage.view(PODS):
            node_name = at(pod, "spec", "nodeName")
            orphan = bool(node_name) and node_name not in nodes
            if not is_finished(pod) and (orphan or (not node_name and is_leaving(pod))):
                if orphan:
                    self.storage.disrupt(pod, "DeletionByPodGC", "PodGC: node no longer exists")
                self.storage.edit(PODS, pod, lambda live: live["status"].update(phase="Failed"))
            if orphan:
                self.storage.delete(PODS, pod, grace=0)


def obstacles(pod: Object, node: Object, used: dict[str, Decimal]) -> list[str]:
    """Why a pod cannot go to a node, in the scheduler's words; empty when it can."""
    spec, room = pod["spec"], node["status"]["allocatable"]
    if any(not _tolerated(taint, spec.get("tolerations") or []) for taint in node["spec"]["taints"]):
        return ["node(s) had untolerated taint(s)"]
    labels = node["metadata"]["labels"]
    if any(labels.get(key) != value for key, value in (spec.get("nodeSelector") or {}).items()):
        return ["node(s) didn't match Pod's node affinity/selector"]
    return [
        f"Insufficient {name}"
        for name, amount in requests_of(spec).items()
        if amount and used.get(name, Decimal(0)) + amount > quantity(room.get(name, "0"))
    ]


def _add(used: dict[str, Decimal], pod: Object) -> None:
    for name, amount in {"pods": Decimal(1), **requests_of(pod["spec"])}.items():
        used[name] = used.get(name, Decimal(0)) + amount


def _used(pods: list[Object], node: str) -> dict[str, Decimal]:
    total: dict[str, Decimal] = {}
    for pod in pods:
        if at(pod, "spec", "nodeName") == node and not is_finished(pod):
            _add(total, pod)
    return total


def _taint(text: str) -> Object:
    pair, _, effect = text.rpartition(":")
    key, _, value = pair.partition("=")
    return {"key": key, "value": value, "effect": effect}


def _tolerated(taint: Object, tolerations: list[Object]) -> bool:
    for one in tolerations:
        exists = one.get("operator") == "Exists" and one.get("key") in (None, "", taint["key"])
        equal = one.get("key") == taint["key"] and one.get("value", "") == taint.get("value", "")
        if one.get("effect") in (None, "", taint["effect"]) and (exists or equal):
            return True
    return False
