"""Nodes, where pods go, why they wait; pools that grow from zero and shrink again; what is left of nodes that are gone."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal

from tests.cluster.registry import disrupt, set_condition, tell
from tests.cluster.resources import CLAIMS, NODES, PODS, Object, at, quantity
from tests.cluster.storage import Storage, is_finished, random_suffix

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
    node_seconds: float = 0.0
    """What its nodes have lasted in all: what the bill counts."""

    def node(self) -> Object:
        name = f"aks-{self.name}-{random_suffix(8)}-vmss000000"
        labels = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "agentpool": self.name, **self.labels}
        capacity = {"pods": "110", "ephemeral-storage": "100Gi", **self.allocatable}
        ready = {
            "type": "Ready",
            "status": "True",
            "reason": "KubeletReady",
            "message": "kubelet is posting ready status",
        }
        status = {"capacity": capacity, "allocatable": capacity, "conditions": [ready]}
        status["addresses"] = [{"type": "InternalIP", "address": "127.0.0.1"}]
        meta = {"name": name, "labels": labels}
        spec = {"taints": [_taint(text) for text in self.taints]} if self.taints else {}
        return {"apiVersion": "v1", "kind": "Node", "metadata": meta, "spec": spec, "status": status}


@dataclass
class Scheduler:
    """Gives every pod a node or a reason. Pools are asked for more where that would help."""

    storage: Storage
    pools: list[Pool] = field(default_factory=list)
    lost_after: float = 0.5
    """Seconds until a node that is gone is taken off the list, and its pods with it."""

    _coming: dict[str, list[float]] = field(default_factory=dict)
    _planned: dict[str, list[dict[str, Decimal]]] = field(default_factory=dict)
    """What pending pods will use of the nodes that are on their way, by pool."""

    _idle_since: dict[str, float] = field(default_factory=dict)
    _counted: float = field(default_factory=time.monotonic)
    lost: dict[str, float] = field(default_factory=dict)

    def add(self, pool: Pool) -> None:
        self.pools.append(pool)
        for _ in range(pool.least):
            self.storage.create(NODES, pool.node())

    def step(self) -> None:
        with self.storage.lock:
            self._collect()
            self._arrive()
            self._planned = {pool.name: [{} for _ in self._coming.get(pool.name, [])] for pool in self.pools}
            pods = self.storage.view(PODS)
            nodes = self.storage.view(NODES)
            usage = {node["metadata"]["name"]: _used(pods, node["metadata"]["name"]) for node in nodes}
            for pod in sorted(pods, key=lambda p: -p["spec"].get("priority", 0)):
                if (
                    not at(pod, "spec", "nodeName")
                    and not is_finished(pod)
                    and "deletionTimestamp" not in pod["metadata"]
                ):
                    self._place(pod, nodes, usage, pods)
            self._shrink(usage)

    # Scheduling -------------------------------------------------------------------------------------------------------

    def _place(
        self, pod: Object, nodes: list[Object], usage: dict[str, dict[str, Decimal]], pods: list[Object]
    ) -> None:
        now = self.storage.clock.stamp()
        if missing := self._missing_claim(pod):
            why = f'persistentvolumeclaim "{missing}" not found'
            self._pend(pod, _no_node(pod, [(node, [why]) for node in nodes], whole=why), now)
            return
        reasons = [(node, obstacles(pod, node, usage[node["metadata"]["name"]])) for node in nodes]
        free = [node for node, why in reasons if not why]
        if free:
            name = free[0]["metadata"]["name"]

            def bind(live: Object) -> None:
                live["spec"]["nodeName"] = name
                set_condition(live, "PodScheduled", "True", now)

            self.storage.edit(PODS, pod, bind)
            _add(usage[name], pod)
            meta = pod["metadata"]
            message = f"Successfully assigned {meta['namespace']}/{meta['name']} to {name}"
            tell(self.storage, pod, "Scheduled", message, SCHEDULER)
            return
        self._pend(pod, _no_node(pod, reasons), now)
        if not self._preempt(pod, nodes, pods):
            self._grow(pod)

    def _pend(self, pod: Object, message: str, now: str) -> None:
        changed = False

        def mark(live: Object) -> None:
            nonlocal changed
            changed = set_condition(live, "PodScheduled", "False", now, "Unschedulable", message)

        self.storage.edit(PODS, pod, mark)
        if changed:
            tell(self.storage, pod, "FailedScheduling", message, SCHEDULER, warning=True)

    def _preempt(self, pod: Object, nodes: list[Object], pods: list[Object]) -> bool:
        """Makes room by ending pods of a lower priority; whether there is, or will be, room."""
        if pod["spec"].get("preemptionPolicy") == "Never":
            return False
        for node in nodes:
            name = node["metadata"]["name"]
            there = [p for p in pods if at(p, "spec", "nodeName") == name and not is_finished(p)]
            leaving = [p for p in there if "deletionTimestamp" in p["metadata"]]
            staying = [p for p in there if p not in leaving]
            weaker = [p for p in staying if p["spec"].get("priority", 0) < pod["spec"].get("priority", 0)]
            weaker.sort(key=lambda p: p["spec"].get("priority", 0))
            for count in range(len(weaker) + 1):
                if obstacles(pod, node, _used([p for p in staying if p not in weaker[:count]], name)):
                    continue
                for victim in weaker[:count]:
                    self.preempt(victim, f"Preempted by pod {pod['metadata']['uid']} on node {name}")
                self.storage.edit(PODS, pod, lambda live, n=name: live["status"].update(nominatedNodeName=n))
                return True
        return False

    def preempt(self, victim: Object, message: str) -> None:
        """Ends a pod, with its grace period, for one that matters more."""
        why = f"{SCHEDULER}: preempting to accommodate a higher priority pod"
        disrupt(self.storage, victim, "PreemptionByScheduler", why)
        tell(self.storage, victim, "Preempted", message, SCHEDULER)
        self.storage.discard(PODS, victim)

    def _missing_claim(self, pod: Object) -> str:
        for volume in pod["spec"].get("volumes") or []:
            name = at(volume, "persistentVolumeClaim", "claimName")
            if name and not self.storage.find(CLAIMS, pod["metadata"]["namespace"], name):
                return str(name)
        return ""

    # Pools ------------------------------------------------------------------------------------------------------------

    def _nodes(self, pool: Pool) -> list[Object]:
        return [node for node in self.storage.view(NODES) if node["metadata"]["labels"].get("agentpool") == pool.name]

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
                tell(self.storage, pod, "TriggeredScaleUp", message, AUTOSCALER)
            _add(room, pod)
            return
        if elastic:
            said = ", ".join(f"{count} {why}" for why, count in sorted(refusals.items()))
            tell(self.storage, pod, "NotTriggerScaleUp", f"pod didn't trigger scale-up: {said}", AUTOSCALER)

    def _arrive(self) -> None:
        now = time.monotonic()
        for pool in self.pools:
            pool.node_seconds += len(self._nodes(pool)) * (now - self._counted)
            due = [when for when in self._coming.get(pool.name, []) if when <= now]
            for when in due:
                self._coming[pool.name].remove(when)
                self.storage.create(NODES, pool.node())
        self._counted = now

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
                    self.storage.delete(NODES, "", name)
                    spare -= 1

    # What is gone -----------------------------------------------------------------------------------------------------

    def lose(self, node: str) -> None:
        """The kubelet has stopped talking: the node is marked, and later taken off with its pods."""
        now = self.storage.clock.stamp()

        def unreachable(live: Object) -> None:
            set_condition(live, "Ready", "Unknown", now, "NodeStatusUnknown", "Kubelet stopped posting node status.")
            taints = live["spec"].setdefault("taints", [])
            taints += [
                {"key": "node.kubernetes.io/unreachable", "effect": effect} for effect in ("NoSchedule", "NoExecute")
            ]

        self.storage.edit(NODES, self.storage.get(NODES, "", node), unreachable)
        self.lost[node] = time.monotonic() + self.lost_after

    def _collect(self) -> None:
        """Pods of nodes that do not exist any more, and pods that were deleted before they had one."""
        for name in [name for name, when in self.lost.items() if when <= time.monotonic()]:
            del self.lost[name]
            if gone := self.storage.find(NODES, "", name):
                self.storage.discard(NODES, gone)
        nodes = {node["metadata"]["name"] for node in self.storage.view(NODES)}
        for pod in self.storage.view(PODS):
            meta, node = pod["metadata"], at(pod, "spec", "nodeName")
            orphaned = node and node not in nodes
            never_placed = not node and "deletionTimestamp" in meta
            if not is_finished(pod) and (orphaned or never_placed):
                if orphaned:
                    disrupt(self.storage, pod, "DeletionByPodGC", "PodGC: node no longer exists")
                self.storage.edit(PODS, pod, lambda live: live["status"].update(phase="Failed"))
            if orphaned:
                self.storage.discard(PODS, pod, grace=0)


def obstacles(pod: Object, node: Object, used: dict[str, Decimal]) -> list[str]:
    """Why a pod cannot go to a node, in the scheduler's words; empty when it can."""
    spec, taints = pod["spec"], node["spec"].get("taints") or []
    if node["spec"].get("unschedulable"):
        return ["node(s) were unschedulable"]
    if any(not _tolerated(taint, spec.get("tolerations") or []) for taint in taints):
        return ["node(s) had untolerated taint(s)"]
    labels = node["metadata"].get("labels") or {}
    if any(labels.get(key) != value for key, value in (spec.get("nodeSelector") or {}).items()):
        return ["node(s) didn't match Pod's node affinity/selector"]
    room = node["status"]["allocatable"]
    return [
        "Too many pods" if name == "pods" else f"Insufficient {name}"
        for name, amount in _requests(pod).items()
        if amount and used.get(name, Decimal(0)) + amount > quantity(room.get(name, "0"))
    ]


def _no_node(pod: Object, reasons: list[tuple[Object, list[str]]], whole: str = "") -> str:
    if not reasons:
        return "no nodes available to schedule pods"
    total = len(reasons)
    counts = Counter(why for _, whys in reasons for why in whys)
    said = whole or ", ".join(sorted(f"{count} {why}" for why, count in counts.items()))
    short = sum(any(why.startswith(("Insufficient", "Too many")) for why in whys) for _, whys in reasons)
    parts = [
        (short, "No preemption victims found for incoming pod"),
        (total - short, "Preemption is not helpful for scheduling"),
    ]
    helped = ", ".join(sorted(f"{count} {why}" for count, why in parts if count))
    head = f"0/{total} nodes are available: "
    never = pod["spec"].get("preemptionPolicy") == "Never"
    tail = "not eligible due to preemptionPolicy=Never." if never else f"{head}{helped}."
    return f"{head}{said}. no new claims to deallocate, preemption: {tail}"


def _requests(pod: Object) -> dict[str, Decimal]:
    total = {"pods": Decimal(1)}
    for container in pod["spec"]["containers"]:
        resources = container.get("resources") or {}
        for name, amount in {**(resources.get("limits") or {}), **(resources.get("requests") or {})}.items():
            total[name] = total.get(name, Decimal(0)) + quantity(amount)
    return total


def _add(used: dict[str, Decimal], pod: Object) -> None:
    for name, amount in _requests(pod).items():
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
    return {"key": key, **({"value": value} if value else {}), "effect": effect}


def _tolerated(taint: Object, tolerations: list[Object]) -> bool:
    if taint["effect"] == "PreferNoSchedule":
        return True
    for one in tolerations:
        if one.get("effect") not in (None, "", taint["effect"]):
            continue
        if one.get("operator", "Equal") == "Exists":
            if one.get("key") in (None, "", taint["key"]):
                return True
        elif one.get("key") == taint["key"] and one.get("value", "") == taint.get("value", ""):
            return True
    return False
