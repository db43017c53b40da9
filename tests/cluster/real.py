"""A real, disposable cluster behind the same handle as the fake, so that the same tests run on both."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client, config

from tests.cluster.resources import Object

SWITCH = "TICKETSMITH_TEST_CLUSTER"
IMAGE = "TICKETSMITH_TEST_IMAGE"
SLOWER = 10
"""Real clusters pull images and back off in tens of seconds."""


def is_offered() -> bool:
    """Only when it was said in so many words: tests create, kill and delete."""
    return os.environ.get(SWITCH) == "1" and "KUBECONFIG" in os.environ


class RealCluster:
    """A namespace of its own, which is deleted at the end. Faults that need the fake skip the test."""

    is_fake = False

    def __init__(self, folder: Path) -> None:
        self.folder, self.kubeconfig = folder, Path(os.environ["KUBECONFIG"])
        self.image = os.environ.get(IMAGE, "python:3.12-slim")
        self.namespace = f"ticketsmith-test-{uuid.uuid4().hex[:8]}"
        settings = client.Configuration()
        config.load_kube_config(str(self.kubeconfig), client_configuration=settings)
        self._client = client.ApiClient(settings)
        self._core, self._batch = client.CoreV1Api(self._client), client.BatchV1Api(self._client)
        self.faults = RealFaults(self)

    def __enter__(self) -> RealCluster:
        self._core.create_namespace({"metadata": {"name": self.namespace}})
        self.wait_for(lambda: self._has_account("default"))
        return self

    def __exit__(self, *_: object) -> None:
        self._core.delete_namespace(self.namespace, propagation_policy="Background")

    def _has_account(self, name: str) -> bool:
        return any(a.metadata.name == name for a in self._core.list_namespaced_service_account(self.namespace).items)

    def _plain(self, answer: Any) -> Any:
        return json.loads(answer.data)

    def job(self, name: str) -> Object:
        return dict(self._plain(self._batch.read_namespaced_job(name, self.namespace, _preload_content=False)))

    def pods(self, job: str = "") -> list[Object]:
        selector = f"job-name={job}" if job else ""
        answer = self._core.list_namespaced_pod(self.namespace, label_selector=selector, _preload_content=False)
        return sorted(self._plain(answer)["items"], key=lambda pod: pod["metadata"]["creationTimestamp"])

    def events(self, about: str = "") -> list[Object]:
        selector = f"involvedObject.name={about}" if about else ""
        answer = self._core.list_namespaced_event(self.namespace, field_selector=selector, _preload_content=False)
        return list(self._plain(answer)["items"])

    def log(self, pod: str) -> str:
        answer = self._core.read_namespaced_pod_log(pod, self.namespace, _preload_content=False)
        return str(answer.data.decode())

    def add_secret(self, name: str, **values: str) -> None:
        self._core.create_namespaced_secret(self.namespace, {"metadata": {"name": name}, "stringData": values})

    def add_account(self, name: str) -> None:
        self._core.create_namespaced_service_account(self.namespace, {"metadata": {"name": name}})

    def kubeconfig_of(self, account: str) -> Path:
        request = {"spec": {"expirationSeconds": 3600, "audiences": []}}
        answer = self._core.create_namespaced_service_account_token(
            account, self.namespace, request, _preload_content=False
        )
        settings, path = self._client.configuration, self.folder / f"kubeconfig-{account}"
        cluster = {"server": settings.host, "certificate-authority": settings.ssl_ca_cert}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "real",
            "clusters": [{"name": "real", "cluster": cluster}],
            "contexts": [{"name": "real", "context": {"cluster": "real", "user": "me", "namespace": self.namespace}}],
            "users": [{"name": "me", "user": {"token": self._plain(answer)["status"]["token"]}}],
        }
        path.write_text(json.dumps(document))
        path.chmod(0o600)
        return path

    def wait_for(self, predicate: Callable[[], Any], timeout: float = 30.0, what: str = "") -> Any:
        until = time.monotonic() + timeout * SLOWER
        while True:
            if value := predicate():
                return value
            if time.monotonic() > until:
                raise TimeoutError(f"waited {timeout * SLOWER:g} s for {what or 'something'}\n{self.describe()}")
            time.sleep(0.5)

    def describe(self) -> str:
        lines = [f"pod {pod['metadata']['name']}: {json.dumps(pod['status'])}" for pod in self.pods()]
        return "\n".join(lines + [f"event {e['reason']}: {e['message']}" for e in self.events()])


class RealFaults:
    """What can be provoked through the API; a test that asks for more is skipped."""

    def __init__(self, cluster: RealCluster) -> None:
        self._cluster = cluster

    def evict(self, pod: str) -> None:
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod}}
        self._cluster._core.create_namespaced_pod_eviction(pod, self._cluster.namespace, body)

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_, **__: pytest.skip(f"the fault {name!r} can only be provoked on the fake cluster")
