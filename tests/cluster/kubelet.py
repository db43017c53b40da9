"""Runs pods as real processes of this machine. Only ``containers[0]`` is run, once: pods of Jobs here never restart.

As in a container, the process is number 1 of its own little world: SIGTERM does nothing until it is listened to, and when
it ends all its children end. A pod that runs a module of ours is forked from a process that has it imported.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests import number_one
from tests.cluster.container import MARK, ConfigError, Container, Image, MountError
from tests.cluster.resources import PODS, Object, at, is_finished, is_leaving

if TYPE_CHECKING:
    from tests.cluster.fake import FakeCluster

__all__ = ["Image", "Kubelet", "PodWorker", "processes_of"]

TICK = 0.03


class Kubelet:
    """All nodes' kubelets: one thread a pod."""

    def __init__(self, cluster: FakeCluster) -> None:
        self.cluster, self.storage = cluster, cluster.storage
        self.workers: dict[str, PodWorker] = {}

    def step(self) -> None:
        for pod in self.storage.view(PODS):
            uid = pod["metadata"]["uid"]
            if at(pod, "spec", "nodeName") and uid not in self.workers and not is_finished(pod):
                self.workers[uid] = PodWorker(self.cluster, pod)
                self.workers[uid].start()

    def worker(self, pod: Object) -> PodWorker:
        """Raises KeyError for a pod that no node has taken."""
        return self.workers[pod["metadata"]["uid"]]

    def stop(self) -> None:
        """Ends every process, and waits for it."""
        for worker in self.workers.values():
            worker.abandon()
        for worker in self.workers.values():
            worker.join(10)


class PodWorker(threading.Thread):
    """One pod on its node, from the pull of its image to its last status."""

    def __init__(self, cluster: FakeCluster, pod: Object) -> None:
        super().__init__(name=f"pod {pod['metadata']['name']}", daemon=True)
        self.cluster, self.storage, self.pod = cluster, cluster.storage, pod
        self.uid, self.container = pod["metadata"]["uid"], pod["spec"]["containers"][0]
        self.folder = cluster.folder / "pods" / self.uid
        self.log = self.folder / "log"
        """What the container printed; not there before it begins."""

        self.process: subprocess.Popen[Any] | None = None
        self._gone = threading.Event()
        self._killed_for: str | None = None
        self._term_at: float | None = None
        self._started_at = ""

    # What tests and faults ask for ------------------------------------------------------------------------------------

    def abandon(self) -> None:
        """The node is gone: processes end at once, and nothing is reported any more."""
        self._gone.set()
        self._kill_all()

    def kill(self, number: int, reason: str | None = None) -> None:
        """Sends a signal to the process itself; SIGKILL is what an out-of-memory killer sends."""
        self._killed_for = reason
        if number == signal.SIGKILL:
            self._kill_all()
        elif self.process is not None:
            os.kill(self.process.pid, number)

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    # The life of a pod ------------------------------------------------------------------------------------------------

    def run(self) -> None:
        self.folder.mkdir(parents=True)
        now = self.storage.clock.stamp()
        self._edit(lambda live: live["status"].update(startTime=now))
        self._wait_state("ContainerCreating", "")
        try:
            if self._pull() and self._start():
                self._watch()
        finally:
            self._kill_all()
        self._finalise()
        shutil.rmtree(self.folder / "volumes", ignore_errors=True)

    def _pull(self) -> bool:
        image, delay = self.container["image"], 0.2
        while image in self.cluster.missing_images:
            why = f'rpc error: code = NotFound desc = failed to pull and unpack image "{image}": {image}: not found'
            self._event("Failed", f'Failed to pull image "{image}": {why}', warning=True)
            self._wait_state("ErrImagePull", why)
            if self._paused(delay):
                return False
            self._event("BackOff", f'Back-off pulling image "{image}"')
            self._wait_state("ImagePullBackOff", f'Back-off pulling image "{image}": ErrImagePull: {why}')
            if self._paused(delay):
                return False
            delay = min(2 * delay, 2.0)
        self._event("Pulled", f'Container image "{image}" already present on machine')
        return not self._paused(0.0)

    def _start(self) -> bool:
        container = Container(self.cluster, self.pod, self.folder)
        while True:
            try:
                argv, environment, folder = container.prepare()
                break
            except MountError as error:
                self._event("FailedMount", f"MountVolume.SetUp failed for volume {error}", warning=True)
            except ConfigError as error:
                self._wait_state("CreateContainerConfigError", str(error))
                self._event("Failed", f"Error: {error}", warning=True)
            if self._paused(0.3):
                return False
        self._started_at = now = self.storage.clock.stamp()
        with self.log.open("wb") as log:
            self.process = number_one.start(argv, environment, folder, log)
        _SESSIONS[self.uid] = self.process.pid

        def running(live: Object) -> None:
            live["status"]["phase"] = "Running"
            self._set_container(live, {"running": {"startedAt": now}})

        self._edit(running)
        self._event("Started", f"Container started: {self.container['name']}")
        return True

    def _watch(self) -> None:
        """Until the process ends, and its end is told."""
        process = self.process
        assert process is not None
        while process.poll() is None:
            if self._gone.is_set():
                return
            self._terminate_when_asked(process)
            time.sleep(TICK)
        if self._gone.is_set():
            return
        self._kill_all()
        code = process.returncode if process.returncode >= 0 else 128 - process.returncode
        now = self.storage.clock.stamp()
        state = {"exitCode": code, "reason": self._killed_for or ("Completed" if code == 0 else "Error")}
        state |= {"startedAt": self._started_at, "finishedAt": now, "message": self._last_words(code)}

        def ended(live: Object) -> None:
            live["status"]["phase"] = "Succeeded" if code == 0 else "Failed"
            self._set_container(live, {"terminated": state})

        self._edit(ended)

    def _terminate_when_asked(self, process: subprocess.Popen[Any]) -> None:
        live = self._live()
        if live is not None and not is_leaving(live):
            return
        grace = float(live["metadata"]["deletionGracePeriodSeconds"]) if live else 0.0
        if self._term_at is None:
            self._term_at = time.monotonic()
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        if time.monotonic() - self._term_at >= grace:
            self._kill_all()

    def _finalise(self) -> None:
        """A pod that was deleted leaves the list when nothing of it runs any more."""
        if (live := self._live()) is not None and not is_finished(live) and is_leaving(live):
            self._edit(lambda live: live["status"].update(phase="Failed"))  # it never began
        while not self._gone.wait(TICK):
            live = self._live()
            if live is None:
                return
            if is_leaving(live):
                self._edit(lambda live: live["metadata"].update(deletionGracePeriodSeconds=0))
                return
            self.storage.wait(self.storage.version, 0.5)

    # Status -----------------------------------------------------------------------------------------------------------

    def _wait_state(self, reason: str, message: str) -> None:
        state = {"waiting": {"reason": reason, "message": message}}
        self._edit(lambda live: self._set_container(live, state))

    def _set_container(self, live: Object, state: Object) -> None:
        live["status"]["containerStatuses"] = [{"name": self.container["name"], "state": state}]

    def _last_words(self, code: int) -> str:
        if code == 0 or self.container.get("terminationMessagePolicy") != "FallbackToLogsOnError":
            return ""
        lines = self.log.read_bytes().splitlines(keepends=True)[-80:]
        return b"".join(lines)[-2048:].decode(errors="replace")

    def _edit(self, change: Callable[[Object], object]) -> None:
        if not self._gone.is_set():
            self.storage.edit(PODS, self.pod, change)

    def _event(self, reason: str, message: str, warning: bool = False) -> None:
        if not self._gone.is_set():
            self.storage.tell(self.pod, reason, message, "kubelet", warning)

    def _live(self) -> Object | None:
        return self.storage.peek(PODS, self.pod)

    def _paused(self, seconds: float) -> bool:
        """Waits; whether the pod is to end instead of going on."""
        until = time.monotonic() + seconds
        while True:
            live = self._live()
            if self._gone.is_set() or live is None or is_leaving(live):
                return True
            if time.monotonic() >= until:
                return False
            time.sleep(min(TICK, max(0.0, until - time.monotonic())))

    def _kill_all(self) -> None:
        for _ in range(20):  # again, for children that were being born meanwhile
            numbers = list(processes_of(self.uid))
            for number in numbers:
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(number, signal.SIGKILL)
            if not numbers:
                break
            time.sleep(0.005)
        if self.process is not None and self.process.returncode is None:
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(5)


_SESSIONS: dict[str, int] = {}
"""The session of each pod's first process."""


def processes_of(uid: str) -> Iterator[int]:
    """Every process of a pod, however it was started.

    What was forked is in the session of the first one; what has begun a session of its own inherits the mark.
    """
    mark, session = f"{MARK}={uid}".encode(), _SESSIONS.get(uid)
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                state, _, _, its_session = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
                marked = mark in (entry / "environ").read_bytes().split(b"\0")
                if state != "Z" and (marked or int(its_session) == session):
                    yield int(entry.name)
