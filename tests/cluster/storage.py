"""Objects with versions and a history: what etcd and the watch cache are to a real API server."""

from __future__ import annotations

import random
import threading
import uuid
from bisect import bisect_right
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass

from tests.cluster.resources import (
    PODS,
    Clock,
    Object,
    Resource,
    already_exists,
    at,
    conflict,
    not_found,
)

ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
"""Of generated suffixes: no vowels, nothing that looks alike."""

Key = tuple[str, str]


def random_suffix(length: int = 5) -> str:
    return "".join(random.choices(ALPHABET, k=length))


@dataclass(frozen=True)
class Change:
    """A line of the history. ``before`` is None for what was created."""

    version: int
    resource: Resource
    type: str  # ADDED, MODIFIED or DELETED
    object: Object
    before: Object | None


class Storage:
    """All objects. What goes in and comes out is copied; every write raises the one global version."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.lock = threading.RLock()
        self.history: list[Change] = []
        self.compacted = 0
        """Versions up to this one are too old to watch or to list from."""
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
        found = self.find(resource, namespace, name)
        if found is None:
            raise not_found(resource, name)
        return found

    def list(self, resource: Resource, namespace: str = "") -> list[Object]:
        """By namespace and name; of all namespaces when none is given."""
        return [deepcopy(thing) for thing in self.view(resource, namespace)]

    def view(self, resource: Resource, namespace: str = "") -> list[Object]:
        """The same without copies, for controllers that look often: nobody may change these."""
        with self.lock:
            items = self._objects.get(resource, {})
            keys = sorted(key for key in items if not namespace or key[0] == namespace)
            return [items[key] for key in keys]

    def peek(self, thing: Object) -> Object | None:
        """The present state of that very object, not copied; None when it has gone."""
        meta = thing["metadata"]
        with self.lock:
            items = next((found for kind, found in self._objects.items() if kind.kind == thing["kind"]), {})
            live = items.get((meta.get("namespace", ""), meta["name"]))
        return live if live is not None and live["metadata"]["uid"] == meta["uid"] else None

    def kinds(self) -> list[Resource]:
        """Of which there ever was an object."""
        with self.lock:
            return [*self._objects]

    def since(self, version: int) -> list[Change]:
        """The changes after a version, oldest first."""
        with self.lock:
            return self.history[bisect_right(self.history, version, key=lambda change: change.version) :]

    def list_as_of(self, resource: Resource, namespace: str, version: int) -> list[Object]:
        """What a lagging cache would still answer."""
        state: dict[Key, Object] = {}
        with self.lock:
            for change in self.history:
                if change.resource is resource and change.version <= version:
                    meta = change.object["metadata"]
                    key = (meta.get("namespace", ""), meta["name"])
                    if change.type == "DELETED":
                        state.pop(key, None)
                    else:
                        state[key] = change.object
        return [deepcopy(thing) for (where, _), thing in sorted(state.items()) if not namespace or where == namespace]

    def wait(self, seen: int, timeout: float) -> int:
        """Returns at the first change after a version, or after the time; gives the version."""
        with self._changed:
            if self.version == seen:
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
                raise already_exists(resource, meta["name"])
            meta.setdefault("uid", str(uuid.uuid4()))
            meta["creationTimestamp"] = self.clock.stamp()
            if "spec" in thing:
                meta.setdefault("generation", 1)
            self.born[meta["uid"]] = self.version + 1
            return self._write(resource, key, "ADDED", thing, None)

    def put(self, resource: Resource, thing: Object) -> Object:
        """Raises ApiError 404 when it has gone, 409 when it carries another version than the stored one."""
        thing = deepcopy(thing)
        meta = thing["metadata"]
        key = (meta.get("namespace", ""), meta["name"])
        with self.lock:
            before = self._objects.get(resource, {}).get(key)
            if before is None:
                raise not_found(resource, meta["name"])
            if (
                meta.get("resourceVersion", before["metadata"]["resourceVersion"])
                != before["metadata"]["resourceVersion"]
            ):
                raise conflict(resource, meta["name"])
            meta["resourceVersion"] = before["metadata"]["resourceVersion"]
            if thing == before:
                return deepcopy(before)  # a write that changes nothing raises no version
            if "spec" in thing and thing["spec"] != before.get("spec"):
                meta["generation"] = before["metadata"].get("generation", 1) + 1
            if meta.get("deletionTimestamp") and not meta.get("finalizers") and not _grace_left(meta):
                return self._remove(resource, key, thing)
            return self._write(resource, key, "MODIFIED", thing, before)

    def edit(self, resource: Resource, thing: Object, change: Callable[[Object], object]) -> Object | None:
        """A controller's read, change and write in one; None when that very object has gone."""
        meta = thing["metadata"]
        with self.lock:
            live = self.find(resource, meta.get("namespace", ""), meta["name"])
            if live is None or live["metadata"]["uid"] != meta["uid"]:
                return None
            change(live)
            return self.put(resource, live)

    def delete(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        *,
        grace: int | None = None,
        propagation: str = "Background",
        uid: str | None = None,
        version: str | None = None,
    ) -> Object:
        """Marks or removes. Pods that run keep their grace period; finalizers hold an object until they are gone."""
        with self.lock:
            thing = self.get(resource, namespace, name)
            meta = thing["metadata"]
            if uid is not None and uid != meta["uid"]:
                raise conflict(
                    resource,
                    name,
                    f"Precondition failed: UID in precondition: {uid}, UID in object meta: {meta['uid']}",
                )
            if version is not None and version != meta["resourceVersion"]:
                raise conflict(
                    resource,
                    name,
                    f"Precondition failed: ResourceVersion in precondition: {version}, ResourceVersion in object meta: "
                    f"{meta['resourceVersion']}",
                )
            holder = {"Orphan": "orphan", "Foreground": "foregroundDeletion"}.get(propagation)
            if holder and resource is not PODS and holder not in meta.get("finalizers", []):
                meta["finalizers"] = [*meta.get("finalizers", []), holder]
            seconds = _pod_grace(thing, grace) if resource is PODS else 0
            if "deletionTimestamp" not in meta:
                meta["deletionTimestamp"] = self.clock.stamp(seconds)
                meta["deletionGracePeriodSeconds"] = seconds
                meta["generation"] = meta.get("generation", 1) + 1
            elif seconds < meta["deletionGracePeriodSeconds"]:
                meta["deletionGracePeriodSeconds"] = seconds
            return self.put(resource, thing)

    def discard(
        self, resource: Resource, thing: Object, grace: int | None = None, propagation: str = "Background"
    ) -> None:
        """A controller's delete: of that very object, and nothing when it has gone already."""
        with self.lock:
            if self.peek(thing) is not None:
                meta = thing["metadata"]
                self.delete(resource, meta.get("namespace", ""), meta["name"], grace=grace, propagation=propagation)

    def _write(self, resource: Resource, key: Key, type_: str, thing: Object, before: Object | None) -> Object:
        self.version += 1
        thing["metadata"]["resourceVersion"] = str(self.version)
        self._objects[resource][key] = thing
        self.history.append(Change(self.version, resource, type_, deepcopy(thing), before))
        self._changed.notify_all()
        return deepcopy(thing)

    def _remove(self, resource: Resource, key: Key, thing: Object) -> Object:
        before = self._objects[resource].pop(key)
        self.version += 1
        thing["metadata"]["resourceVersion"] = str(self.version)
        self.history.append(Change(self.version, resource, "DELETED", thing, before))
        self._changed.notify_all()
        return deepcopy(thing)


def controlled_by(owner: Object) -> Callable[[Object], bool]:
    uid = owner["metadata"]["uid"]
    return lambda thing: any(o["uid"] == uid for o in thing["metadata"].get("ownerReferences", []))


def collect_garbage(storage: Storage) -> None:
    """Deletes what has lost its owners, and lets go of owners that wait for their dependents."""
    with storage.lock:
        everything = [(r, thing) for r in storage.kinds() for thing in storage.view(r)]
        alive = {thing["metadata"]["uid"] for _, thing in everything}
        for resource, thing in everything:
            meta = thing["metadata"]
            owners = [owner["uid"] for owner in meta.get("ownerReferences", [])]
            if owners and not alive & set(owners) and "deletionTimestamp" not in meta:
                storage.discard(resource, thing)
            held = {"orphan", "foregroundDeletion"} & set(meta.get("finalizers", []))
            if "deletionTimestamp" not in meta or not held:
                continue
            mine = [(r, other) for r, other in everything if controlled_by(thing)(other)]
            if "orphan" in held:
                for r, other in mine:
                    storage.edit(r, other, lambda o, uid=meta["uid"]: _disown(o, uid))
            elif mine:
                for r, other in mine:
                    if "deletionTimestamp" not in other["metadata"]:
                        storage.discard(r, other)
                continue
            storage.edit(resource, thing, lambda o, h=held: drop_finalizers(o, h))


def drop_finalizers(thing: Object, names: set[str]) -> None:
    left = [name for name in thing["metadata"].get("finalizers", []) if name not in names]
    thing["metadata"].pop("finalizers", None)
    if left:
        thing["metadata"]["finalizers"] = left


def is_finished(pod: Object) -> bool:
    return at(pod, "status", "phase") in ("Succeeded", "Failed")


def _disown(thing: Object, uid: str) -> None:
    meta = thing["metadata"]
    meta["ownerReferences"] = [owner for owner in meta.get("ownerReferences", []) if owner["uid"] != uid]
    drop_finalizers(thing, {"batch.kubernetes.io/job-tracking"})  # as the Job controller does with orphans


def _grace_left(meta: Object) -> bool:
    return bool(meta.get("deletionGracePeriodSeconds"))


def _pod_grace(pod: Object, asked: int | None) -> int:
    if not at(pod, "spec", "nodeName") or is_finished(pod):
        return 0
    seconds = asked if asked is not None else int(pod["spec"].get("terminationGracePeriodSeconds", 30))
    return 1 if seconds < 0 else seconds
