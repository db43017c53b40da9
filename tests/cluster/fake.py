"""The cluster as tests see it.

    with FakeCluster(tmp_path) as cluster:
        cluster.kubeconfig               # for the official client; plain HTTP on this machine
        cluster.namespace                # the current one of the kubeconfig
        cluster.wait_for(lambda: ...)    # until something is true
        cluster.faults.evict(pod)        # see faults.py
        cluster.audit                    # every request: user, verb, path, body, status

Pods run ``python -m ticketsmith`` with their ``args`` unless they have a ``command``; ``images`` maps an image to something
else. Pools, images and the speed of back-off are plain attributes. Back-off delays are scaled down by
``backoff``; deadlines and grace periods are not, since they are seconds in manifests.
"""

from __future__ import annotations

import base64
import json
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.cluster.api import Api, Request, Server
from tests.cluster.faults import Faults
from tests.cluster.jobs import JobController
from tests.cluster.kubelet import Image, Kubelet
from tests.cluster.kueue import Kueue
from tests.cluster.rbac import Authority
from tests.cluster.registry import Registry
from tests.cluster.resources import EVENTS, JOBS, PODS, SECRETS, SERVICE_ACCOUNTS, Clock, Loop, Object
from tests.cluster.scheduler import Pool, Scheduler
from tests.cluster.storage import Storage

Predicate = Callable[[], Any]


class FakeCluster:
    """Starts with one node pool, ``default``, unless ``pools`` says otherwise.

    ``backoff``: seconds before the first retry of a pod (10 in real clusters); it doubles from there.
    """

    is_fake = True

    def __init__(
        self,
        folder: Path,
        *pools: Pool,
        namespace: str = "ticketsmith",
        backoff: float = 0.1,
    ) -> None:
        self.folder, self.namespace = folder / "cluster", namespace
        self.clock = Clock()
        self.stopping = threading.Event()
        self.storage = Storage(self.clock)
        self.registry = Registry(self.storage)
        self.authority = Authority(self.storage)
        self.images: dict[str, Image] = {}
        self.image = "registry.example/ticketsmith:test"
        self.missing_images: set[str] = set()
        self.jobs = JobController(self.storage, self.registry, backoff)
        self.scheduler = Scheduler(self.storage)
        self.kubelet = Kubelet(self)
        self.kueue: Kueue | None = None
        self.faults = Faults(self)
        self.api = Api(self)
        self.server = Server(self.api)
        self.kubeconfig = self.folder / "kubeconfig"
        self._pools = pools or (Pool("default"),)
        self._timers: list[threading.Timer] = []
        self._loops: list[Loop] = []
        self._tidied = 0

    # Life -------------------------------------------------------------------------------------------------------------

    def __enter__(self) -> FakeCluster:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.add_account("default")
        for pool in self._pools:
            self.scheduler.add(pool)
        self.server.start()
        self.write_kubeconfig(self.kubeconfig, None)
        for name, step in (
            ("controllers", self._control),
            ("scheduler", self.scheduler.step),
            ("kubelet", self.kubelet.step),
        ):
            loop = Loop(name, step, self.stopping, self.storage.wait)
            loop.start()
            self._loops.append(loop)

    def stop(self) -> None:
        """Ends every process and every thread. Raises what a controller stumbled over."""
        self.stopping.set()
        for timer in self._timers:
            timer.cancel()
            timer.join()
        self.storage.wake()
        for loop in self._loops:
            loop.join()
        self.kubelet.stop()
        self.server.stop()
        shutil.rmtree(self.folder / "pods", ignore_errors=True)
        for failure in [*self.api.failures, *(failure for loop in self._loops for failure in loop.failures)]:
            raise AssertionError("the fake cluster itself has a fault") from failure

    def _control(self) -> None:
        if self.kueue is not None:
            self.kueue.step()
        self.jobs.step()
        if self._tidied != self.storage.version:
            self._tidied = self.storage.version
            self.storage.collect_garbage()

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        """Does something after a time, unless the cluster was stopped before."""
        timer = threading.Timer(seconds, action)
        self._timers.append(timer)
        timer.start()

    # What tests set up ------------------------------------------------------------------------------------------------

    def install_kueue(self, holding: bool = False) -> Kueue:
        self.kueue = Kueue(self.storage, holding)
        self.registry.webhooks.append(self.kueue.webhook)
        return self.kueue

    def add_secret(self, name: str, **values: str) -> None:
        data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
        self.registry.create(SECRETS, {"metadata": {"name": name, "namespace": self.namespace}, "data": data})

    def add_account(self, name: str) -> None:
        self.registry.create(SERVICE_ACCOUNTS, {"metadata": {"name": name, "namespace": self.namespace}})

    def kubeconfig_of(self, account: str) -> Path:
        """A kubeconfig that acts as a service account: what it may do is up to roles."""
        path = self.folder / f"kubeconfig-{account}"
        self.write_kubeconfig(path, self.authority.token(self.namespace, account))
        return path

    def write_kubeconfig(self, path: Path, token: str | None) -> None:
        user = {"token": token} if token else {}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "fake",
            "clusters": [{"name": "fake", "cluster": {"server": f"http://127.0.0.1:{self.port}"}}],
            "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "user", "namespace": self.namespace}}],
            "users": [{"name": "user", "user": user}],
        }
        path.write_text(json.dumps(config))
        path.chmod(0o600)

    # What tests look at -----------------------------------------------------------------------------------------------

    @property
    def port(self) -> int:
        return self.server.port

    @property
    def audit(self) -> list[Request]:
        """Every request so far, oldest first."""
        return list(self.api.audit)

    def job(self, name: str) -> Object:
        """Raises ApiError 404."""
        return self.storage.get(JOBS, self.namespace, name)

    def pods(self, job: str = "") -> list[Object]:
        """Of a Job, or all of the namespace; oldest first."""
        pods = self.storage.list(PODS, self.namespace)
        mine = [pod for pod in pods if not job or pod["metadata"].get("labels", {}).get("job-name") == job]
        return sorted(mine, key=lambda pod: self.storage.born[pod["metadata"]["uid"]])

    def events(self, about: str = "") -> list[Object]:
        events = self.storage.list(EVENTS, self.namespace)
        return [event for event in events if not about or event["involvedObject"]["name"] == about]

    def log(self, pod: str) -> str:
        """What a pod has printed."""
        path = self.kubelet.worker(self.storage.get(PODS, self.namespace, pod)).log
        return path.read_text() if path.exists() else ""

    def wait_for(self, predicate: Predicate, timeout: float = 30.0, what: str = "") -> Any:
        """The first true value of a predicate. Raises TimeoutError, with the state of all Jobs and pods."""
        until = time.monotonic() + timeout
        while True:
            if value := predicate():
                return value
            if time.monotonic() > until:
                raise TimeoutError(f"waited {timeout:g} s for {what or 'something'}\n{self.describe()}")
            self.storage.wait(self.storage.version, 0.1)

    def describe(self) -> str:
        """All Jobs, pods and events in a few words each, for messages of tests that fail."""
        lines = [f"job {job['metadata']['name']}: {_words(job)}" for job in self.storage.list(JOBS, self.namespace)]
        for pod in self.pods():
            states = [status["state"] for status in pod["status"].get("containerStatuses") or []]
            lines.append(
                f"pod {pod['metadata']['name']}: {pod['status']['phase']}, {_words(pod)}, {json.dumps(states)}"
            )
        lines += [f"event of {e['involvedObject']['name']}: {e['reason']}: {e['message']}" for e in self.events()]
        return "\n".join(lines)


def _words(thing: Object) -> str:
    status = thing.get("status") or {}
    numbers = {key: value for key, value in status.items() if isinstance(value, int | str)}
    true = [
        f"{c['type']} {c.get('reason', '')}".strip() for c in status.get("conditions") or [] if c["status"] == "True"
    ]
    return f"{json.dumps(numbers)} {', '.join(true)}"
