"""What goes wrong in real clusters, on request.

Faults of requests are armed beforehand and used up by the requests that match; faults of pods and nodes happen at once.
"""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from tests.cluster.api import Dropped, Request
from tests.cluster.resources import JOBS, PODS, ApiError, Object, at

if TYPE_CHECKING:
    from tests.cluster.fake import FakeCluster

REASONS = {409: "Conflict", 429: "TooManyRequests", 500: "InternalError", 503: "ServiceUnavailable", 504: "Timeout"}
FOREVER = float("inf")


@dataclass
class _Rule:
    method: str
    path: str
    left: float
    status: int = 0
    retry_after: int = 0
    delay: float = 0.0
    lost: bool = False

    def takes(self, request: Request) -> bool:
        matches = bool(re.fullmatch(self.method, request.method)) and bool(re.search(self.path, request.path))
        return self.left > 0 and matches


@dataclass
class Faults:
    """``method`` and ``path`` are regular expressions; ``count`` is how many requests are hit, all by default."""

    cluster: FakeCluster
    _rules: list[_Rule] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    # Requests ---------------------------------------------------------------------------------------------------------

    def delay(self, seconds: float, method: str = ".*", path: str = "", count: float = FOREVER) -> None:
        """Answers come late."""
        self._rules.append(_Rule(method, path, count, delay=seconds))

    def fail(
        self, status: int, method: str = ".*", path: str = "", count: float = FOREVER, retry_after: int = 0
    ) -> None:
        """Requests are refused, and nothing is carried out: 409, 429, 500, 503, 504."""
        self._rules.append(_Rule(method, path, count, status=status, retry_after=retry_after))

    def lose_answer(self, method: str = "POST|PATCH|DELETE", path: str = "", count: float = 1) -> None:
        """The request is carried out; then the connection is cut."""
        self._rules.append(_Rule(method, path, count, lost=True))

    @contextmanager
    def refused(self) -> Iterator[None]:
        """Within, the API server is not there: connections are cut and refused."""
        self.cluster.server.stop()
        try:
            yield
        finally:
            self.cluster.server.start()

    def refuse(self, seconds: float) -> None:
        """The same for a time, while the test goes on."""
        self.cluster.server.stop()
        self.cluster.later(seconds, self.cluster.server.start)

    def before(self, request: Request) -> None:
        """Called with every request. Raises ApiError."""
        for rule in self._hits(request, after=False):
            if rule.delay:
                self.cluster.stopping.wait(rule.delay)
                continue
            self.cluster.api.audit.append(request)
            raise ApiError(rule.status, REASONS[rule.status], "a fault that was asked for", rule.retry_after)

    def after(self, request: Request) -> None:
        """Called when a request was carried out. Raises Dropped."""
        for _ in self._hits(request, after=True):
            raise Dropped

    def _hits(self, request: Request, after: bool) -> list[_Rule]:
        with self._lock:
            hits = [rule for rule in self._rules if rule.lost == after and rule.takes(request)]
            for rule in hits:
                rule.left -= 1
        return hits

    # Time -------------------------------------------------------------------------------------------------------------

    def shift_clock(self, seconds: float) -> None:
        """The cluster's clock is off. Shift it before anything is made; later, it also lets deadlines pass."""
        self.cluster.clock.offset += timedelta(seconds=seconds)
        self.cluster.storage.wake()

    # Pods -------------------------------------------------------------------------------------------------------------

    def evict(self, pod: str) -> None:
        """By the eviction API, as a drain does: DisruptionTarget, SIGTERM, grace."""
        self.cluster.registry.evict(self.cluster.namespace, pod)

    def kill(self, pod: str, number: int = signal.SIGKILL) -> None:
        """A signal to the container's process."""
        self.cluster.kubelet.worker(self._pod(pod)).kill(number)

    def out_of_memory(self, pod: str) -> None:
        """As the kernel does: SIGKILL, exit code 137, reason OOMKilled."""
        self.cluster.kubelet.worker(self._pod(pod)).kill(signal.SIGKILL, "OOMKilled")

    def missing_image(self, image: str) -> None:
        """Pulls of an image fail, until it is taken out of ``cluster.missing_images`` again."""
        self.cluster.missing_images.add(image)

    def run_twice(self, job: str, index: int) -> str:
        """A second pod for an index that has one already, as documented to happen now and then; its name."""
        with self.cluster.storage.lock:
            live = self.cluster.storage.get(JOBS, self.cluster.namespace, job)
            self.cluster.jobs.twins.add((live["metadata"]["uid"], index))
            pod = self.cluster.registry.create(PODS, self.cluster.jobs.pod_of(live, index))
        return str(pod["metadata"]["name"])

    # Nodes ------------------------------------------------------------------------------------------------------------

    def node_of(self, pod: str) -> str:
        return str(at(self._pod(pod), "spec", "nodeName"))

    def lose_node(self, node: str) -> None:
        """Gone from one moment to the next, as spot machines go: no SIGTERM, no last status, logs out of reach.

        Its pods stay as they were, and are collected some time later (``DeletionByPodGC``).
        """
        self.cluster.scheduler.lose(node)
        for worker in self.cluster.kubelet.workers.values():
            if at(worker.pod, "spec", "nodeName") == node:
                worker.abandon()

    def _pod(self, name: str) -> Object:
        return self.cluster.storage.get(PODS, self.cluster.namespace, name)
