"""Objects with versions, garbage collection and events: what etcd is to a real API server."""

from __future__ import annotations

import random
import threading
import uuid
from collections.abc import Callable
from copy import deepcopy

from tests.cluster.resources import (
    EVENTS,
    PODS,
    ApiError,
    Clock,
    Object,
    Resource,
    at,
    conflict,
    is_finished,
    is_leaving,
    not_found,
    set_condition,
)

ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
"""Of generated suffixes: no vowels, nothing that looks alike."""

Key = tuple[str, str]


def random_suffix(length: int = 5) -> str:
    return "".join(random.choices(ALPHABET, k=length))


class Storage:
    """All objects. What goes in and comes out is copied; every write raises the one global version."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.lock = threading.RLock()
        self.version = 100
        self.born: dict[str, int] = {}
        """The version that brought an object, by uid."""

        self._changed = threading.Condition(self.lock)
        self._objects: dict[Resource, dict[Key, Object]] = {}

    # Reading ----------------------------------------------------------------------------------------------------------

    def find(self, resource: Resource, namespace: str, name: str) -> Object | None:
        with self.lock:
            return deepcopy(self._objects.get(resource, {}).get((namespace, name)))

    def get(self, resource: Resource, namespace: str, name: str) -> Object:
        """Raises ApiError 404."""
        thing = self.find(resource, namespace, name)
        if thing is None:
            raise not_found(resource, name)
        return thing

    def list(self, resource: Resource, namespace: str = "") -> list[Object]:
        """By namespace and name; of all namespaces when none is given."""
        return [deepcopy(thing) for thing in self.view(resource, namespace)]

    def view(self, resource: Resource, namespace: str = "") -> list[Object]:
        """The same without copies, for controllers that look often: nobody may change these."""
        with self.lock:
            items = self._objects.get(resource, {})
            return [items[key] for key in sorted(items) if not namespace or key[0] == namespace]

    def peek(self, resource: Resource, thing: Object) -> Object | None:
        """The present state of that very object, not copied; None when it has gone."""
        meta = thing["metadata"]
        with self.lock:
            live = self._objects.get(resource, {}).get((meta.get("namespace", ""), meta["name"]))
        return live if live is not None and live["metadata"]["uid"] == meta["uid"] else None

    def wait(self, version: int, timeout: float) -> int:
        """Returns at the first change after a version, or after the time; gives the version."""
        with self._changed:
            if self.version == version:
                self._changed.wait(timeout)
            return self.version

    def wake(self) -> None:
        """For those who wait, to look at something that is no object."""
        with self._changed:
            self._changed.notify_all()

    # Writing ----------------------------------------------------------------------------------------------------------

    def create(self, resource: Resource, thing: Object) -> Object:
        """Raises ApiError 409 when there is one of that name."""
        thing = deepcopy(thing)
        meta = thing["metadata"]
        key = (meta.get("namespace", ""), meta["name"])
        with self.lock:
            if key in self._objects.setdefault(resource, {}):
                raise ApiError(409, "AlreadyExists", f'{resource.qualified} "{meta["name"]}" already exists')
            meta.setdefault("uid", str(uuid.uuid4()))
            meta["creationTimestamp"] = self.clock.stamp()
            self.born[meta["uid"]] = self.version + 1
            return self._write(resource, key, thing)

    def put(self, resource: Resource, thing: Object) -> Object:
        """Raises ApiError 404 when it has gone, 409 when it carries another version than the stored one."""
        thing = deepcopy(thing)
        meta = thing["metadata"]
        key = (meta.get("namespace", ""), meta["name"])
        with self.lock:
            before = self._objects.get(resource, {}).get(key)
            if before is None:
                raise not_found(resource, meta["name"])
            version = before["metadata"]["resourceVersion"]
            if meta.setdefault("resourceVersion", version) != version:
                raise conflict(resource, meta["name"], "the object has been modified")
            if thing == before:
                return deepcopy(before)  # a write that changes nothing raises no version
            if is_leaving(thing) and not meta.get("finalizers") and not meta.get("deletionGracePeriodSeconds"):
                del self._objects[resource][key]
                self.version += 1
                self._changed.notify_all()
                return deepcopy(thing)
            return self._write(resource, key, thing)

    def edit(self, resource: Resource, thing: Object, change: Callable[[Object], object]) -> Object | None:
        """A controller's read, change and write in one; None when that very object has gone."""
        with self.lock:
            live = deepcopy(self.peek(resource, thing))
            if live is None:
                return None
            change(live)
            return self.put(resource, live)

    def delete(
        self, resource: Resource, thing: Object, grace: int | None = None, foreground: bool = False
    ) -> Object | None:
        """Deletes that very object, or marks it while a finalizer or a grace period holds it. None when it has gone."""

        def mark(live: Object) -> None:
            meta = live["metadata"]
            if foreground and "foregroundDeletion" not in meta.get("finalizers", []):
                meta["finalizers"] = [*meta.get("finalizers", []), "foregroundDeletion"]
            seconds = _grace(live, grace) if resource is PODS else 0
            if "deletionTimestamp" not in meta:
                meta["deletionTimestamp"] = self.clock.stamp(seconds)
                meta["deletionGracePeriodSeconds"] = seconds
            meta["deletionGracePeriodSeconds"] = min(seconds, meta["deletionGracePeriodSeconds"])

        return self.edit(resource, thing, mark)

    def _write(self, resource: Resource, key: Key, thing: Object) -> Object:
        self.version += 1
        thing["metadata"]["resourceVersion"] = str(self.version)
        self._objects[resource][key] = thing
        self._changed.notify_all()
        return deepcopy(thing)

    # What controllers share -------------------------------------------------------------------------------------------

    def collect_garbage(self) -> None:
        """Deletes what has lost its owners, and lets go of owners that wait for their dependents."""
        with self.lock:
            everything = [(r, thing) for r in [*self._objects] if r is not EVENTS for thing in self.view(r)]
            alive = {thing["metadata"]["uid"] for _, thing in everything}
            for resource, thing in everything:
                meta = thing["metadata"]
                owners = {owner["uid"] for owner in meta.get("ownerReferences", [])}
                if owners and not alive & owners and not is_leaving(thing):
                    self.delete(resource, thing)
                if not is_leaving(thing) or "foregroundDeletion" not in meta.get("finalizers", []):
                    continue
                mine = [(r, other) for r, other in everything if owned_by(other, thing)]
                for r, other in mine:
                    if not is_leaving(other):
                        self.delete(r, other)
                if not mine:
                    self.edit(resource, thing, lambda live: drop_finalizer(live, "foregroundDeletion"))

    def disrupt(self, pod: Object, reason: str, message: str) -> None:
        """Marks a pod as the target of a disruption."""
        now = self.clock.stamp()
        self.edit(PODS, pod, lambda live: set_condition(live, "DisruptionTarget", "True", now, reason, message))

    def tell(self, about: Object, reason: str, message: str, source: str, warning: bool = False) -> None:
        """An event; the same one again only raises its count."""
        meta, now = about["metadata"], self.clock.stamp()
        with self.lock:
            for event in self.view(EVENTS, meta["namespace"]):
                same = event["involvedObject"]["uid"] == meta["uid"] and event["reason"] == reason
                if same and event["message"] == message:
                    self.edit(EVENTS, event, lambda live: live.update(count=live["count"] + 1, lastTimestamp=now))
                    return
            event = {"apiVersion": "v1", "kind": "Event", "reason": reason, "message": message, "count": 1}
            event["metadata"] = {"name": f"{meta['name']}.{uuid.uuid4().hex[:16]}", "namespace": meta["namespace"]}
            event["involvedObject"] = {"kind": about["kind"], "name": meta["name"], "uid": meta["uid"]}
            event |= {"type": "Warning" if warning else "Normal", "firstTimestamp": now, "lastTimestamp": now}
            self.create(EVENTS, event | {"eventTime": None, "source": {"component": source}})


def owned_by(thing: Object, owner: Object) -> bool:
    return any(o["uid"] == owner["metadata"]["uid"] for o in thing["metadata"].get("ownerReferences", []))


def drop_finalizer(thing: Object, name: str) -> None:
    left = [one for one in thing["metadata"].pop("finalizers", []) if one != name]
    if left:
        thing["metadata"]["finalizers"] = left


def _grace(pod: Object, seconds: int | None) -> int:
    if not at(pod, "spec", "nodeName") or is_finished(pod):
        return 0
    return seconds if seconds is not None else int(pod["spec"].get("terminationGracePeriodSeconds", 30))
