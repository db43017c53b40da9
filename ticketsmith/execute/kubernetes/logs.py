"""What pods print: from the cluster while a pod is there, from the store when it has gone; and what pods wait for."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from ticketsmith.config.target import Target
from ticketsmith.errors import ClusterError
from ticketsmith.execute.kubernetes import diagnose, manifests
from ticketsmith.execute.kubernetes.cluster import Cluster, Object, UnreachableError
from ticketsmith.execute.kubernetes.conductor import CONDUCTOR, component_of, is_active, variant_of
from ticketsmith.execute.kubernetes.jobs import job_part
from ticketsmith.execute.kubernetes.records import Records

LOOK = 2.0
"""Seconds between two looks at which pods there are."""


@dataclass(frozen=True)
class Choice:
    """Which pods: of one variant, of one replicate; None is all."""

    variant: str | None = None
    replicate: int | None = None

    def takes(self, variant: str, index: int | None) -> bool:
        """Whether it takes a pod."""
        return self.variant in (None, variant) and self.replicate in (None, index)

    def expects(self, job: Object) -> bool:
        """Whether pods that it takes may still come of a Job."""
        if self.variant not in (None, variant_of(job)) or not is_active(job):
            return False
        return self.replicate is None or self.replicate not in diagnose.ended_indexes(job)


@dataclass(frozen=True)
class Line:
    """One line of a pod; or of us, ``printed`` false, about what it waits for."""

    title: str
    text: str
    printed: bool = True


def logs(records: Records, cluster: Cluster, target: Target, choice: Choice) -> Iterator[Line]:
    """All that was printed up to now, pod by pod."""
    pods = cluster.pods(manifests.selector_of(records.experiment, target.store))
    for pod in _chosen(pods, choice):
        waits = _waits(cluster, pod)
        yield from [Line(_title(pod), waits, printed=False)] if waits else _whole(records, cluster, pod)
    yield from _stored(records, choice, {_name(pod) for pod in pods})


def follow(records: Records, cluster: Cluster, target: Target, choice: Choice, look: float = LOOK) -> Iterator[Line]:
    """The same, and what is printed from then on, until nothing more can come. No log is read twice."""
    selector = manifests.selector_of(records.experiment, target.store)
    lines: queue.SimpleQueue[Line] = queue.SimpleQueue()
    streams: list[threading.Thread] = []
    printed: set[str] = set()
    waiting: dict[str, str] = {}
    before = [_name(pod) for pod in cluster.pods(selector)]
    yield from _stored(records, choice, before, printed)
    while True:
        jobs, pods = cluster.jobs(selector), cluster.pods(selector)
        mine = [pod for pod in _chosen(pods, choice) if _name(pod) not in printed]
        waits = {_name(pod): (_title(pod), _waits(cluster, pod)) for pod in mine}
        for pod in mine:
            if waits[_name(pod)][1]:
                continue
            printed.add(_name(pod))
            if diagnose.phase(pod) in ("Succeeded", "Failed"):
                yield from _whole(records, cluster, pod)
            else:
                streams.append(threading.Thread(target=_stream, args=(cluster, pod, lines), daemon=True))
                streams[-1].start()
        waits |= _waiting_jobs(cluster, jobs, pods, choice, bool(printed))
        for what, (title, text) in waits.items():
            if text and waiting.get(what) != text:
                waiting[what] = text
                yield Line(title, text, printed=False)
        yield from _until(lines, time.monotonic() + look)
        more = any(text for _, text in waits.values()) or any(choice.expects(job) for job in jobs)
        if not more and not any(stream.is_alive() for stream in streams) and lines.empty():
            break
    yield from _stored(records, choice, printed)  # of pods that came and went between two looks


def _chosen(pods: Sequence[Object], choice: Choice) -> list[Object]:
    return [pod for pod in pods if choice.takes(variant_of(pod), diagnose.index_of(pod))]


def _waits(cluster: Cluster, pod: Object) -> str:
    """What a pod that has not begun waits for; empty when it has."""
    if diagnose.phase(pod) != "Pending":
        return ""
    why = diagnose.why_waiting(pod, cluster.events(_name(pod)))
    on_node = "its image is pulled and its container made"
    return why or (on_node if (pod.get("spec") or {}).get("nodeName") else "waits for a node")


def _waiting_jobs(
    cluster: Cluster, jobs: Sequence[Object], pods: Sequence[Object], choice: Choice, begun: bool
) -> dict[str, tuple[str, str]]:
    """Title and reason by name: of Jobs that have no pod, and of a variant that has no Job yet."""
    reasons = {}
    for job in jobs:
        if choice.expects(job) and not diagnose.pods_of(job, pods):
            why = diagnose.job_state(job, (), cluster.events(_name(job))).why
            reasons[_name(job)] = (variant_of(job), why or "waits for its pods")
    at_work = any(component_of(job) == CONDUCTOR and is_active(job) for job in jobs)
    if choice.variant and at_work and not begun and not any(variant_of(job) == choice.variant for job in jobs):
        reasons[""] = (choice.variant, "has not begun: the conductor begins it when what it needs is sealed")
    return reasons


def _whole(records: Records, cluster: Cluster, pod: Object) -> Iterator[Line]:
    content = cluster.log(_name(pod))
    if content is None:
        job = pod["metadata"]["labels"].get("batch.kubernetes.io/job-name", "")
        content = records.store.get(records.log_path(job, diagnose.index_of(pod), _name(pod))) or b""
    for line in content.decode(errors="replace").splitlines():
        yield Line(_title(pod), line)


def _stored(records: Records, choice: Choice, but: Collection[str], printed: set[str] | None = None) -> Iterator[Line]:
    """Logs of pods that have gone; adds their names to ``printed``."""
    variants = {record.pod: record.variant for record in records.pods()}
    for file in records.store.files(f"{records.experiment}/logs"):
        folder, _, file_name = file.path.rpartition("/")
        number, _, name = file_name.removesuffix(".log").partition("-")
        part = job_part(folder.rpartition("/")[2])  # for a pod that ended before it could write its record
        variant, index = variants.get(name, part), int(number) if number.isdigit() else None
        if name in but or not choice.takes(variant, index):
            continue
        if printed is not None:
            printed.add(name)
        for line in (records.store.get(file.path) or b"").decode(errors="replace").splitlines():
            yield Line(_titled(variant, index), line)


def _stream(cluster: Cluster, pod: Object, lines: queue.SimpleQueue[Line]) -> None:
    """Puts what a pod prints into ``lines``, until it ends. A connection that is cut is made anew."""
    name, title, length, rest = _name(pod), _title(pod), 0, b""
    while True:
        skip = length  # a log always begins at its beginning
        try:
            for chunk in cluster.follow(name):
                fresh = chunk[skip:]
                skip, length = max(0, skip - len(chunk)), length + len(fresh)
                *whole, rest = (rest + fresh).split(b"\n")
                for line in whole:
                    lines.put(Line(title, line.decode(errors="replace")))
            break
        except UnreachableError:
            time.sleep(1.0)
        except ClusterError as error:
            lines.put(Line(title, str(error), printed=False))
            break
    if rest:
        lines.put(Line(title, rest.decode(errors="replace")))


def _until(lines: queue.SimpleQueue[Line], deadline: float) -> Iterator[Line]:
    while (left := deadline - time.monotonic()) > 0:
        try:
            yield lines.get(timeout=left)
        except queue.Empty:
            return


def _title(pod: Object) -> str:
    return _titled(variant_of(pod), diagnose.index_of(pod))


def _titled(variant: str, index: int | None) -> str:
    return variant if index is None or variant in ("report", CONDUCTOR) else f"{variant} {index}"


def _name(thing: Object) -> str:
    return str(thing["metadata"]["name"])
