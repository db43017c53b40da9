"""What tests do with a Job: begin it, wait for its pods, wait for its end, read its events."""

from __future__ import annotations

from typing import Any

from kubernetes.client import BatchV1Api

from tests.cluster.examples import Manifest, condition
from tests.cluster.fixtures import Cluster, client_of


def start(cluster: Cluster, manifest: Manifest) -> str:
    BatchV1Api(client_of(cluster)).create_namespaced_job(cluster.namespace, manifest)
    return str(manifest["metadata"]["name"])


def end(cluster: Cluster, name: str, timeout: float = 60.0) -> Manifest:
    """The status of a Job that is over."""

    def over() -> Any:
        live = cluster.job(name)
        return live["status"] if condition(live, "Complete") or condition(live, "Failed") else None

    return dict(cluster.wait_for(over, timeout, f"the end of {name}"))


def running(cluster: Cluster, name: str, count: int = 1) -> list[Manifest]:
    """As many pods as ``count``, which have said that they are up."""

    def up() -> list[Manifest]:
        pods = [p for p in cluster.pods(name) if p["status"].get("phase") == "Running"]
        ready = [p for p in pods if "up" in cluster.log(p["metadata"]["name"])]
        return ready if len(ready) == count else []

    return list(cluster.wait_for(up, 60, f"{count} running pods of {name}"))


def reasons(cluster: Cluster, about: str) -> set[str]:
    return {event["reason"] for event in cluster.events(about)}
