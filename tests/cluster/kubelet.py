"""Runs pods as real processes of this machine, with what a container would see as far as that goes without one.

There is no own root file system: where a volume is mounted, its folder's real path takes the place of the mount path in
arguments and in values of the environment. ``/tmp`` and ``/dev/shm`` are left alone (``TMPDIR`` names the folder of a volume
on ``/tmp``). Only ``containers[0]`` is run; init containers, probes, hooks and limits on CPU are not.

As in a container, the process is number 1 of its own little world: SIGTERM does nothing until it is listened to, and when
it ends all its children end.
"""

from __future__ import annotations

import base64
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tests.cluster import admission
from tests.cluster.registry import set_condition, tell
from tests.cluster.resources import CONFIG_MAPS, PODS, SECRETS, Object, Resource, at, quantity
from tests.cluster.storage import is_finished

if TYPE_CHECKING:
    from tests.cluster.fake import FakeCluster

ROOT = Path(__file__).resolve().parents[2]
TICK = 0.03
_MARK = "FAKE_CLUSTER_POD"


@dataclass(frozen=True)
class Image:
    """What an image would bring: its entry point, its working directory, folders of its own and variables."""

    entrypoint: tuple[str, ...] = (sys.executable, "-m", "ticketsmith")
    workdir: str = "/work"
    paths: Mapping[str, Path] = field(default_factory=dict)
    """Folders in the image, and where they really are: ``{"/app/recipe": tmp_path}``."""

    env: Mapping[str, str] = field(default_factory=dict)


class ConfigError(Exception):
    """Something that the container refers to is not there: CreateContainerConfigError."""


class MountError(ConfigError):
    """Something that a volume is made of is not there: the container waits, and an event tells why."""


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
        self.restarts = 0
        self.process: subprocess.Popen[bytes] | None = None
        self._gone = threading.Event()
        self._killed_for: str | None = None
        self._shutdown: tuple[str, str, float] | None = None
        self._term_at: float | None = None
        self._last_state: Object = {}

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

    def shut_down(self, reason: str, message: str, grace: float) -> None:
        """The kubelet ends the pod by itself: a node that shuts down, or is short of something."""
        self._shutdown = reason, message, grace

    def log(self, previous: bool = False) -> Path | None:
        """The file with what the container printed; None when there is none."""
        path = self.folder / f"{self.restarts - previous}.log"
        return path if path.exists() and self.restarts - previous >= 0 else None

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    # The life of a pod ------------------------------------------------------------------------------------------------

    def run(self) -> None:
        self.folder.mkdir(parents=True)
        now = self.storage.clock.stamp()

        def accept(live: Object) -> None:
            live["status"] |= {"startTime": now, "hostIP": "127.0.0.1", "podIP": "127.0.0.1"}
            for type_ in ("Initialized", "PodReadyToStartContainers"):
                set_condition(live, type_, "True", now)
            unready = f"containers with unready status: [{self.container['name']}]"
            for type_ in ("Ready", "ContainersReady"):
                set_condition(live, type_, "False", now, "ContainersNotReady", unready)

        self._edit(accept)
        self._wait_state("ContainerCreating", "")
        try:
            while self._pull() and self._start() and self._watch():
                self.restarts += 1
        finally:
            self._kill_all()
        self._finalise()
        shutil.rmtree(self.folder / "volumes", ignore_errors=True)

    def _pull(self) -> bool:
        image, delay = self.container["image"], 0.2
        while image in self.cluster.missing_images:
            why = (
                f'failed to pull and unpack image "{image}": failed to resolve reference "{image}": {image}: not found'
            )
            why = f'Failed to pull image "{image}": rpc error: code = NotFound desc = {why}'
            self._event("Failed", why, warning=True)
            self._event("Failed", "Error: ErrImagePull", warning=True)
            self._wait_state("ErrImagePull", why.partition(": ")[2])
            if self._paused(delay):
                return False
            self._event("BackOff", f'Back-off pulling image "{image}"')
            self._wait_state(
                "ImagePullBackOff", f'Back-off pulling image "{image}": ErrImagePull: {why.partition(": ")[2]}'
            )
            if self._paused(delay):
                return False
            delay = min(2 * delay, 2.0)
        self._event("Pulled", f'Container image "{image}" already present on machine')
        return not self._paused(self.cluster.start_delay)

    def _start(self) -> bool:
        name = self.container["name"]
        while True:
            try:
                argv, environment, folder = self._prepare()
                break
            except MountError as error:
                self._event("FailedMount", f"MountVolume.SetUp failed for volume {error}", warning=True)
                if self._paused(0.3):
                    return False
            except ConfigError as error:
                self._wait_state("CreateContainerConfigError", str(error))
                self._event("Failed", f"Error: {error}", warning=True)
                if self._paused(0.3):
                    return False
        self._event("Created", f"Container created: {name}")
        self._started_at = self.storage.clock.stamp()
        with (self.folder / f"{self.restarts}.log").open("wb") as log:
            # As number 1 of its namespace would: no SIGTERM until the process listens to it.
            shielded = ["/bin/sh", "-c", 'trap "" TERM; exec "$@"', "sh", *argv]
            try:
                if shutil.which(argv[0], path=environment["PATH"]) is None:
                    raise FileNotFoundError(argv[0])
                self.process = subprocess.Popen(
                    shielded,
                    stdout=log,
                    stderr=log,
                    stdin=subprocess.DEVNULL,
                    cwd=folder,
                    env=environment,
                    start_new_session=True,
                )
            except OSError as error:
                message = f'exec: "{argv[0]}": executable file not found in $PATH: {error.strerror or "unknown"}'
                self._event("Failed", f"Error: failed to create containerd task: {message}", warning=True)
                self._end(128, "StartError", message)
                return False
        now = self._started_at

        def running(live: Object) -> None:
            live["status"]["phase"] = "Running"
            for type_ in ("Ready", "ContainersReady"):
                set_condition(live, type_, "True", now)
            self._set_container(live, {"running": {"startedAt": now}})

        self._edit(running)
        self._event("Started", f"Container started: {name}")
        return True

    def _watch(self) -> bool:
        """Until the process ends; whether it is to be started again."""
        process = self.process
        assert process is not None
        limit, looked = self._memory_limit(), 0.0
        while process.poll() is None:
            if self._gone.is_set():
                self._kill_all()
                return False
            self._terminate_when_asked(process)
            if limit and time.monotonic() - looked > 0.2:
                looked = time.monotonic()
                if memory_of(self.uid) > limit:
                    self.kill(signal.SIGKILL, "OOMKilled")
            time.sleep(TICK)
        if self._gone.is_set():
            return False
        self._kill_all()
        code = process.returncode if process.returncode >= 0 else 128 - process.returncode
        reason = self._killed_for or ("Completed" if code == 0 else "Error")
        message = self._termination_message(code)
        ending = self._deleted() or self._shutdown is not None
        again = at(self.pod, "spec", "restartPolicy") == "Always" or (
            at(self.pod, "spec", "restartPolicy") == "OnFailure" and code != 0
        )
        if again and not ending:
            return self._back_off(code, reason, message)
        self._end(code, reason, message)
        return False

    def _terminate_when_asked(self, process: subprocess.Popen[bytes]) -> None:
        grace = self._grace()
        if grace is None:
            return
        if self._term_at is None:
            self._event("Killing", f"Stopping container {self.container['name']}")
            self._term_at = time.monotonic()
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        if time.monotonic() - self._term_at >= grace:
            self._kill_all()

    def _grace(self) -> float | None:
        """Seconds from SIGTERM to SIGKILL, None while the pod may live."""
        if self._shutdown is not None:
            return self._shutdown[2]
        live = self._live()
        if live is None:
            return 0.0
        if "deletionTimestamp" in live["metadata"]:
            return float(live["metadata"].get("deletionGracePeriodSeconds", 0))
        return None

    def _back_off(self, code: int, reason: str, message: str) -> bool:
        self._last_state = {"terminated": self._terminated(code, reason, message)}
        self._killed_for = None
        if self.restarts == 0:
            return not self._paused(0.0)  # the first time at once
        delay = self.cluster.jobs.backoff * min(2 ** (self.restarts - 1), 30)
        name = self.container["name"]
        why = f"back-off {delay:g}s restarting failed container={name} pod={self.pod['metadata']['name']}"
        self._event("BackOff", f"Back-off restarting failed container {name}", warning=True)
        self._wait_state("CrashLoopBackOff", why)
        return not self._paused(delay)

    # Status -----------------------------------------------------------------------------------------------------------

    def _end(self, code: int, reason: str, message: str) -> None:
        terminated = self._terminated(code, reason, message)
        now = terminated["finishedAt"]
        shutdown = self._shutdown

        def ended(live: Object) -> None:
            live["status"]["phase"] = "Succeeded" if code == 0 and shutdown is None else "Failed"
            done = "PodCompleted" if code == 0 else "PodFailed"
            for type_ in ("Ready", "ContainersReady"):
                set_condition(live, type_, "False", now, done)
            if shutdown is not None:
                live["status"] |= {"reason": shutdown[0], "message": shutdown[1]}
                set_condition(live, "DisruptionTarget", "True", now, "TerminationByKubelet", shutdown[1])
            self._set_container(live, {"terminated": terminated})

        self._edit(ended)

    def _finalise(self) -> None:
        """A pod that was deleted leaves the list when nothing of it runs any more."""
        if self._gone.is_set():
            return
        live = self._live()
        if live is not None and not is_finished(live) and "deletionTimestamp" in live["metadata"]:
            self._edit(lambda live: live["status"].update(phase="Failed"))  # it never began
        while not self._gone.wait(TICK):
            live = self._live()
            if live is None:
                return
            if "deletionTimestamp" in live["metadata"]:
                self._edit(lambda live: live["metadata"].update(deletionGracePeriodSeconds=0))
                return
            self.storage.wait(self.storage.version, 0.5)

    def _terminated(self, code: int, reason: str, message: str) -> Object:
        state = {
            "exitCode": code,
            "reason": reason,
            "startedAt": self._started_at,
            "finishedAt": self.storage.clock.stamp(),
        }
        return {
            **state,
            "containerID": f"fake://{self.uid}/{self.restarts}",
            **({"message": message} if message else {}),
        }

    def _wait_state(self, reason: str, message: str) -> None:
        state = {"waiting": {"reason": reason, **({"message": message} if message else {})}}
        self._edit(lambda live: self._set_container(live, state))

    def _set_container(self, live: Object, state: Object) -> None:
        running = "running" in state
        status = {"name": self.container["name"], "image": self.container["image"], "imageID": "", "state": state}
        status |= {"lastState": self._last_state, "restartCount": self.restarts}
        live["status"]["containerStatuses"] = [{**status, "ready": running, "started": running}]

    def _termination_message(self, code: int) -> str:
        log = self.folder / f"{self.restarts}.log"
        if code == 0 or self.container.get("terminationMessagePolicy") != "FallbackToLogsOnError":
            return ""
        lines = log.read_bytes().splitlines(keepends=True)[-80:]
        return b"".join(lines)[-2048:].decode(errors="replace")

    def _edit(self, change: Callable[[Object], object]) -> None:
        if not self._gone.is_set():
            self.storage.edit(PODS, self.pod, change)

    def _event(self, reason: str, message: str, warning: bool = False) -> None:
        if not self._gone.is_set():
            tell(self.storage, self.pod, reason, message, "kubelet", warning)

    def _live(self) -> Object | None:
        return self.storage.peek(self.pod)

    def _deleted(self) -> bool:
        live = self._live()
        return live is None or "deletionTimestamp" in live["metadata"]

    def _paused(self, seconds: float) -> bool:
        """Waits; whether the pod is to end instead of going on."""
        until = time.monotonic() + seconds
        while True:
            if self._gone.is_set() or self._deleted() or self._shutdown is not None:
                return True
            if time.monotonic() >= until:
                return False
            time.sleep(min(TICK, max(0.0, until - time.monotonic())))

    def _memory_limit(self) -> int:
        limit = at(self.container, "resources", "limits", "memory")
        return int(quantity(limit)) if limit and self.cluster.enforce_memory else 0

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

    # What the container sees ------------------------------------------------------------------------------------------

    def _prepare(self) -> tuple[list[str], dict[str, str], Path]:
        """Command line, environment, working folder. Raises ConfigError."""
        image = self.cluster.images.get(self.container["image"], self.cluster.default_image)
        places = {path: str(real) for path, real in image.paths.items()} | self._mounts()
        environment = self._base_environment(places) | dict(image.env)
        given: dict[str, str] = {}
        for source in self.container.get("envFrom") or []:
            given |= self._env_from(source)
        for variable in self.container.get("env") or []:
            value = self._value(variable, given)
            if value is not None:
                given[variable["name"]] = value
        environment |= {name: _substitute(value, places) for name, value in given.items()}
        theirs = [*(self.container.get("command") or []), *(self.container.get("args") or [])]
        argv = [_substitute(_expand(part, given), places) for part in theirs]
        if not self.container.get("command"):
            argv = [*image.entrypoint, *argv]  # paths of this machine: nothing is mounted over them
        home = _substitute(self.container.get("workingDir") or image.workdir, places)
        folder = Path(home) if Path(home).is_dir() else self.folder
        return argv, environment, folder

    def _base_environment(self, places: Mapping[str, str]) -> dict[str, str]:
        meta, spec = self.pod["metadata"], self.pod["spec"]
        host, port = "127.0.0.1", str(self.cluster.port)
        environment = {
            "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self.folder),
            "HOSTNAME": spec.get("hostname") or meta["name"],
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "LANG": "C.UTF-8",
            "KUBERNETES_SERVICE_HOST": host,
            "KUBERNETES_SERVICE_PORT": port,
            _MARK: self.uid,
        }
        if "/tmp" in places:
            environment["TMPDIR"] = places["/tmp"]
        if admission.mounts_token(self.storage, self.pod):
            token = self.cluster.authority.token(meta["namespace"], spec["serviceAccountName"])
            kubeconfig = self.folder / "kubeconfig"
            self.cluster.write_kubeconfig(kubeconfig, token, meta["namespace"])
            environment["KUBECONFIG"] = str(kubeconfig)
        return environment

    def _mounts(self) -> dict[str, str]:
        """The real folder of every mount path."""
        volumes = {volume["name"]: volume for volume in self.pod["spec"].get("volumes") or []}
        places = {}
        for mount in self.container.get("volumeMounts") or []:
            volume = volumes[mount["name"]]
            medium = at(volume, "emptyDir", "medium") or ""
            if medium not in ("", "Memory") and not medium.startswith("HugePages"):
                raise MountError(f'"{mount["name"]}" : unknown storage medium "{medium}"')
            claim = at(volume, "persistentVolumeClaim", "claimName")
            folder = self.cluster.folder / "claims" / claim if claim else self.folder / "volumes" / mount["name"]
            folder.mkdir(parents=True, exist_ok=True)
            for kind, resource in (("configMap", CONFIG_MAPS), ("secret", SECRETS)):
                if kind in volume:
                    try:
                        self._fill(folder, resource, volume[kind])
                    except ConfigError as error:
                        raise MountError(f'"{mount["name"]}" : {error}') from error
            places[mount["mountPath"].rstrip("/")] = str(folder / mount.get("subPath", ""))
        return places

    def _fill(self, folder: Path, resource: Resource, source: Object) -> None:
        content = self._content(resource, source.get("name") or source["secretName"], bool(source.get("optional")))
        items = source.get("items") or [{"key": key, "path": key} for key in content]
        for item in items:
            path = folder / item["path"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content[item["key"]])

    def _content(self, resource: Resource, name: str, optional: bool) -> dict[str, bytes]:
        found = self.storage.find(resource, self.pod["metadata"]["namespace"], name)
        if found is None:
            if optional:
                return {}
            raise ConfigError(f'{resource.plural[:-1]} "{name}" not found')
        if resource is SECRETS:
            return {key: base64.b64decode(text) for key, text in (found.get("data") or {}).items()}
        return {key: text.encode() for key, text in (found.get("data") or {}).items()}

    def _env_from(self, source: Object) -> dict[str, str]:
        for kind, resource in (("configMapRef", CONFIG_MAPS), ("secretRef", SECRETS)):
            if kind in source:
                content = self._content(resource, source[kind]["name"], bool(source[kind].get("optional")))
                return {source.get("prefix", "") + key: value.decode() for key, value in content.items()}
        return {}

    def _value(self, variable: Object, given: Mapping[str, str]) -> str | None:
        source = variable.get("valueFrom")
        if source is None:
            return _expand(variable.get("value", ""), given)
        for kind, resource in (("secretKeyRef", SECRETS), ("configMapKeyRef", CONFIG_MAPS)):
            if kind in source:
                reference = source[kind]
                content = self._content(resource, reference["name"], bool(reference.get("optional")))
                if reference["key"] in content:
                    return content[reference["key"]].decode()
                if reference.get("optional"):
                    return None
                where = f"{self.pod['metadata']['namespace']}/{reference['name']}"
                raise ConfigError(f"couldn't find key {reference['key']} in {resource.kind} {where}")
        if "resourceFieldRef" in source:
            kind, _, name = source["resourceFieldRef"]["resource"].partition(".")
            amount = quantity(at(self.container, "resources", kind, name) or "0")
            divisor = quantity(source["resourceFieldRef"].get("divisor") or "1")
            return str(-int(-amount // (divisor or 1)))
        return self._field(source["fieldRef"]["fieldPath"])

    def _field(self, path: str) -> str:
        live = self._live() or self.pod
        if match := re.fullmatch(r"metadata\.(labels|annotations)\['([^']+)'\]", path):
            return str((live["metadata"].get(match[1]) or {}).get(match[2], ""))
        return str(at(live, *path.split(".")) or "")


def _expand(text: str, variables: Mapping[str, str]) -> str:
    """``$(NAME)``; ``$$(NAME)`` stays as ``$(NAME)``, and so does a name that is not known."""

    def value(match: re.Match[str]) -> str:
        return match[0][1:] if match[0].startswith("$$") else variables.get(match[1], match[0])

    return re.sub(r"\$?\$\(([^()]+)\)", value, text)


def _substitute(text: str, places: Mapping[str, str]) -> str:
    for path in sorted(places, key=len, reverse=True):
        if path and path not in ("/tmp", "/dev/shm"):
            text = re.sub(rf"(?<![\w./-]){re.escape(path)}(?=/|$|[:,;\s\"'])", lambda _, p=path: places[p], text)
    return text


def processes_of(uid: str) -> Iterator[int]:
    """Every process of a pod, however it was started: all inherit the mark."""
    mark = f"{_MARK}={uid}".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    yield int(entry.name)


def memory_of(uid: str) -> int:
    """Bytes that a pod's processes hold, shared pages counted once."""
    total = 0
    for number in processes_of(uid):
        with suppress(OSError):
            match = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{number}/smaps_rollup").read_text(), re.MULTILINE)
            total += int(match[1]) * 1024 if match else 0
    return total
