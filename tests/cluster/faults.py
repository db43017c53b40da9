"""What goes wrong in real clusters, on request.

Faults of requests are armed beforehand and used up by the requests that match; faults of pods and nodes happen at once.
"""

from __future__ import annotations

import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from tests.cluster.api import Dropped, Request
from tests.cluster.registry import Options, disrupt
from tests.cluster.resources import JOBS, PODS, ApiError, Object, at
from tests.cluster.storage import is_finished

if TYPE_CHECKING:
    from tests.cluster.fake import FakeCluster
    from tests.cluster.kubelet import PodWorker

REASONS = {
    409: (
        "Conflict",
        "Operation cannot be fulfilled: the object has been modified; please apply your changes to the latest version",
    ),
    410: ("Expired", "The resourceVersion for the provided list is too old."),
    429: ("TooManyRequests", "The server has received too many requests and has asked us to try again later"),
    500: ("InternalError", "Internal error occurred: etcdserver: request timed out"),
    503: ("ServiceUnavailable", "The server is currently unable to handle the request"),
    504: (
        "Timeout",
        "The server was unable to return a response in the time allotted, but may still be processing the request",
    ),
}


@dataclass
class _Rule:
    method: str
    path: str
    left: float
    status: int = 0
    retry_after: int = 0
    delay: float = 0.0
    cut: str = ""  # before or after the request was carried out

    def takes(self, request: Request) -> bool:
        whole = request.path + ("?watch" if request.is_watch else "")
        return self.left > 0 and bool(re.fullmatch(self.method, request.method)) and bool(re.search(self.path, whole))


@dataclass
class Faults:
    """``method`` and ``path`` are regular expressions; ``count`` is how many requests are hit, all by default."""

    cluster: FakeCluster
    _rules: list[_Rule] = field(default_factory=list)
    _stale_for: float = 0.0
    _versions: list[tuple[float, int]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    # Requests ---------------------------------------------------------------------------------------------------------

    def delay(self, seconds: float, method: str = ".*", path: str = "", count: float = float("inf")) -> None:
        """Answers come late."""
        self._rules.append(_Rule(method, path, count, delay=seconds))

    def fail(
        self, status: int, method: str = ".*", path: str = "", count: float = float("inf"), retry_after: int = 0
    ) -> None:
        """Requests are refused, and nothing is carried out: 409, 429, 500, 503, 504, ..."""
        self._rules.append(_Rule(method, path, count, status=status, retry_after=retry_after))

    def cut_before(self, method: str = ".*", path: str = "", count: float = 1) -> None:
        """The connection is cut, and nothing is carried out."""
        self._rules.append(_Rule(method, path, count, cut="before"))

    def lose_answer(self, method: str = "POST|PUT|PATCH|DELETE", path: str = "", count: float = 1) -> None:
        """The request is carried out; then the connection is cut."""
        self._rules.append(_Rule(method, path, count, cut="after"))

    def clear(self) -> None:
        """No faults of requests any more."""
        self._rules.clear()
        self._stale_for = 0.0

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

    def cut_watches(self) -> int:
        """Every open watch breaks off; how many did."""
        return self._end_watches("cut")

    def expire_watches(self) -> int:
        """Every open watch ends with an ERROR event, 410 Gone."""
        return self._end_watches("expired")

    def compact(self) -> None:
        """All versions up to now are forgotten: watches from one of them get 410, continued lists too."""
        self.cluster.storage.compacted = self.cluster.storage.version

    def stale_lists(self, seconds: float) -> None:
        """Lists that allow it (``resourceVersion=0``) answer what was true some seconds ago."""
        self._stale_for = seconds

    def _end_watches(self, how: str) -> int:
        watches = list(self.cluster.api.watches)
        for watch in watches:
            watch.ending = how
        self.cluster.storage.wake()
        return len(watches)

    def before(self, request: Request) -> None:
        """Called with every request. Raises ApiError or Dropped."""
        for rule in self._taken(request, after=False):
            if rule.delay:
                self.cluster.stopping.wait(rule.delay)
            elif rule.cut:
                self.cluster.api.audit.append(request)
                raise Dropped
            else:
                self.cluster.api.audit.append(request)
                reason, message = REASONS.get(rule.status, ("InternalError", "an error was asked for"))
                raise ApiError(rule.status, reason, message, retry_after=rule.retry_after)

    def after(self, request: Request) -> None:
        """Called when a request was carried out. Raises Dropped."""
        for _ in self._taken(request, after=True):
            raise Dropped

    def _taken(self, request: Request, after: bool) -> list[_Rule]:
        with self._lock:
            taken = [rule for rule in self._rules if (rule.cut == "after") == after and rule.takes(request)]
            for rule in taken:
                rule.left -= 1
        return taken

    def note_version(self) -> None:
        """Called now and then: which version there was, and when."""
        self._versions.append((time.monotonic(), self.cluster.storage.version))

    def stale_version(self, request: Request) -> int:
        """0 when the list must be fresh."""
        if not self._stale_for or request.query.get("resourceVersion") != "0":
            return 0
        then = time.monotonic() - self._stale_for
        return max((version for when, version in self._versions if when <= then), default=1)

    # Time -------------------------------------------------------------------------------------------------------------

    def shift_clock(self, seconds: float) -> None:
        """The cluster's clock is off. Shift it before anything is made; later, it also lets deadlines pass."""
        self.cluster.clock.offset += timedelta(seconds=seconds)
        self.cluster.storage.wake()

    # Pods -------------------------------------------------------------------------------------------------------------

    def evict(self, pod: str) -> None:
        """By the eviction API, as a drain does: DisruptionTarget, SIGTERM, grace."""
        self.cluster.registry.evict(self.cluster.namespace, pod, {}, Options())

    def preempt(self, pod: str) -> None:
        """Something of a higher priority takes the place."""
        self.cluster.scheduler.preempt(self._pod(pod), "Preempted by a pod of a higher priority")

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
            made = self.cluster.registry.create(PODS, self.cluster.jobs.pod_of(live, index))
        return str(made["metadata"]["name"])

    # Nodes ------------------------------------------------------------------------------------------------------------

    def node_of(self, pod: str) -> str:
        return str(at(self._pod(pod), "spec", "nodeName"))

    def lose_node(self, node: str) -> None:
        """Gone from one moment to the next, as spot machines go: no SIGTERM, no last status, logs out of reach.

        Its pods stay as they were, and are collected some time later (``DeletionByPodGC``).
        """
        self.cluster.scheduler.lose(node)
        for worker in self._workers(node):
            worker.abandon()

    def shut_down_node(self, node: str, grace: float = 30.0) -> None:
        """In good order: the kubelet ends its pods first, and tells why (``TerminationByKubelet``)."""
        message = "Pod was terminated in response to imminent node shutdown."
        for worker in self._workers(node):
            worker.shut_down("Terminated", message, grace)

    def taint_node(self, node: str) -> None:
        """``NoExecute``: pods that do not tolerate it are deleted (``DeletionByTaintManager``)."""
        for pod in self.cluster.storage.list(PODS):
            if at(pod, "spec", "nodeName") == node and not is_finished(pod):
                message = "Taint manager: deleting due to NoExecute taint"
                disrupt(self.cluster.storage, pod, "DeletionByTaintManager", message)
                self.cluster.storage.discard(PODS, pod)

    def _workers(self, node: str) -> list[PodWorker]:
        return [
            worker for worker in self.cluster.kubelet.workers.values() if at(worker.pod, "spec", "nodeName") == node
        ]

    def _pod(self, name: str) -> Object:
        return self.cluster.storage.get(PODS, self.cluster.namespace, name)
