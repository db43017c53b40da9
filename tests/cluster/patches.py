"""Ways to change an object: merge patch, strategic merge patch, JSON patch, and server-side apply with its owners."""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

from tests.cluster.resources import ApiError, Clock, Object, Resource, bad_request

MERGE_KEYS = {
    "containers": ("name",),
    "initContainers": ("name",),
    "env": ("name",),
    "volumes": ("name",),
    "volumeMounts": ("mountPath",),
    "ports": ("containerPort", "protocol"),
    "imagePullSecrets": ("name",),
    "secrets": ("name",),
    "conditions": ("type",),
    "ownerReferences": ("uid",),
}
"""Lists whose items are told apart by a key; all other lists are replaced whole."""

ATOMIC = {"nodeSelector", "selector", "managedFields"}

Path = tuple[str, ...]
"""Steps as in ``fieldsV1``: ``f:spec``, ``k:{"name":"main"}``."""


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return deepcopy(patch)
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge_patch(merged.get(key), value)
    return merged


def strategic_patch(target: Any, patch: Any, name: str = "") -> Any:
    """As a merge patch, but lists that have a key are merged by it; with ``$patch``, ``$setElementOrder``, primitive deletion."""
    if isinstance(patch, list) and name in MERGE_KEYS and all(isinstance(item, dict) for item in patch):
        merged = list(deepcopy(target or []))
        for item in patch:
            keys = _keys(name, item)
            same = next((n for n, old in enumerate(merged) if _keys(name, old) == keys), None)
            if item.get("$patch") == "delete":
                merged = [old for old in merged if _keys(name, old) != keys]
            elif same is None:
                merged.append(strategic_patch({}, item))
            else:
                merged[same] = strategic_patch(merged[same], item)
        return merged
    if not isinstance(patch, dict):
        return deepcopy(patch)
    if patch.get("$patch") == "replace":
        return {key: value for key, value in patch.items() if key != "$patch"}
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if key.startswith("$deleteFromPrimitiveList/"):
            field = key.partition("/")[2]
            merged[field] = [item for item in merged.get(field, []) if item not in value]
        elif key.startswith("$"):
            continue
        elif value is None:
            merged.pop(key, None)
        else:
            merged[key] = strategic_patch(merged.get(key), value, key)
    return merged


def json_patch(target: Object, operations: list[Object]) -> Object:
    """RFC 6902. Raises ApiError 422 for a path that is not there or a test that fails."""
    patched: Any = deepcopy(target)
    for operation in operations:
        steps = [s.replace("~1", "/").replace("~0", "~") for s in operation["path"].split("/")[1:]]
        parent = patched
        try:
            for step in steps[:-1]:
                parent = parent[int(step)] if isinstance(parent, list) else parent[step]
            last, op = steps[-1], operation["op"]
            if isinstance(parent, list):
                if op == "add":
                    parent.insert(len(parent) if last == "-" else int(last), operation["value"])
                    continue
                last = int(last)  # type: ignore[assignment]
            if op == "test":
                if parent[last] != operation["value"]:
                    raise KeyError(last)
            elif op == "remove":
                del parent[last]
            elif op == "replace":
                parent[last]
                parent[last] = operation["value"]
            elif op == "add":
                parent[last] = operation["value"]
            else:
                raise bad_request(f"unexpected JSON patch operation {op!r}")
        except (KeyError, IndexError, ValueError, TypeError) as error:
            message = f"the server rejected our request due to an error in our request: {operation}"
            raise ApiError(422, "Invalid", message) from error
    return patched  # type: ignore[no-any-return]


# Server-side apply ---------------------------------------------------------------------------------------------------


def leaves(thing: Any, at: Path = ()) -> Iterator[Path]:
    """The paths of all fields, each owned on its own."""
    name = at[-1][2:] if at and at[-1].startswith("f:") else ""
    if isinstance(thing, dict) and thing and name not in ATOMIC:
        for key, value in thing.items():
            yield from leaves(value, (*at, f"f:{key}"))
    elif isinstance(thing, list) and thing and name in MERGE_KEYS:
        for item in thing:
            here = (*at, "k:" + json.dumps(_keys(name, item), separators=(",", ":"), sort_keys=True))
            yield (*here, ".")
            yield from leaves(item, here)
    else:
        yield at


def owned_fields(thing: Object) -> set[Path]:
    """What an apply claims, or a write sets: all but what names the object."""
    meta = {
        k: v
        for k, v in thing.get("metadata", {}).items()
        if k in ("labels", "annotations", "finalizers", "ownerReferences")
    }
    body = {k: v for k, v in thing.items() if k not in ("apiVersion", "kind", "metadata", "status")}
    return set(leaves({**body, **({"metadata": meta} if meta else {})})) - {()}


def value_at(thing: Any, path: Path) -> Any:
    """The value of a field, None where there is none."""
    for step in path:
        if step == ".":
            return True
        if step.startswith("f:"):
            thing = thing.get(step[2:]) if isinstance(thing, dict) else None
        elif isinstance(thing, list):
            wanted = json.loads(step[2:])
            thing = next((item for item in thing if all(item.get(k) == v for k, v in wanted.items())), None)
        if thing is None:
            return None
    return thing


def apply(live: Object | None, applied: Object, manager: str, force: bool, resource: Resource, clock: Clock) -> Object:
    """The object after a server-side apply. Raises ApiError 409 when others own fields with other values."""
    claimed = owned_fields(applied)
    if live is None:
        made = deepcopy(applied)
        _record(made, manager, "Apply", claimed, clock)
        return made
    owners = _owners(live)
    conflicts: list[tuple[str, str, Path]] = []
    for (other, operation), theirs in owners.items():
        if other == manager and operation == "Apply":
            continue
        disputed = {path for path in claimed & theirs if value_at(live, path) != value_at(applied, path)}
        conflicts += [(other, operation, path) for path in sorted(disputed)]
        if force:
            owners[other, operation] = theirs - disputed
    if conflicts and not force:
        raise _conflict(conflicts, resource)
    merged = strategic_patch(live, {k: v for k, v in applied.items() if k != "metadata"})
    for key in ("labels", "annotations", "finalizers", "ownerReferences"):
        if key in applied.get("metadata", {}):
            value = applied["metadata"][key]
            merged["metadata"][key] = strategic_patch(merged["metadata"].get(key), value, key)
    others = set().union(*(fields for who, fields in owners.items() if who != (manager, "Apply")), set())
    for path in sorted(owners.get((manager, "Apply"), set()) - claimed - others, key=len, reverse=True):
        _remove(merged, path)
    _write_owners(merged, {**owners, (manager, "Apply"): claimed}, clock)
    return merged


def record_update(thing: Object, before: Object | None, manager: str, clock: Clock) -> None:
    """After a plain write: the writer owns what it changed."""
    fields = owned_fields(thing)
    if before is None:
        _record(thing, manager, "Update", fields, clock)
        return
    changed = {path for path in fields if value_at(thing, path) != value_at(before, path)}
    gone = owned_fields(before) - fields
    if not changed and not gone:
        return
    owners = {who: theirs - changed - gone for who, theirs in _owners(before).items()}
    owners[manager, "Update"] = owners.get((manager, "Update"), set()) | changed
    _write_owners(thing, owners, clock)


def _conflict(conflicts: list[tuple[str, str, Path]], resource: Resource) -> ApiError:
    causes = []
    for other, operation, path in conflicts:
        using = f" using {resource.api_version}" if operation == "Update" else ""
        message = f'conflict with "{other}"{using}'
        causes.append({"reason": "FieldManagerConflict", "message": message, "field": _readable(path)})
    plural = "conflict" if len(causes) == 1 else "conflicts"
    said = "; ".join(f"{cause['message']}: {cause['field']}" for cause in causes)
    message = f"Apply failed with {len(causes)} {plural}: {said}"
    return ApiError(409, "Conflict", message, {"causes": causes})


def _readable(path: Path) -> str:
    text = ""
    for step in path:
        if step.startswith("f:"):
            text += f".{step[2:]}"
        elif step.startswith("k:"):
            text += "[" + ",".join(f"{k}={json.dumps(v)}" for k, v in json.loads(step[2:]).items()) + "]"
    return text


def _record(thing: Object, manager: str, operation: str, fields: set[Path], clock: Clock) -> None:
    _write_owners(thing, {(manager, operation): fields}, clock)


def _owners(thing: Object) -> dict[tuple[str, str], set[Path]]:
    return {
        (entry["manager"], entry["operation"]): set(_paths(entry["fieldsV1"]))
        for entry in thing["metadata"].get("managedFields", [])
    }


def _write_owners(thing: Object, owners: dict[tuple[str, str], set[Path]], clock: Clock) -> None:
    old = {(e["manager"], e["operation"]): e for e in thing["metadata"].get("managedFields", [])}
    entries = []
    for (manager, operation), fields in owners.items():
        trie: Object = {}
        for path in sorted(fields):
            inner = trie
            for step in path:
                inner = inner.setdefault(step, {})
        entry = old.get((manager, operation))
        if fields and (entry is None or entry["fieldsV1"] != trie):
            entry = {"manager": manager, "operation": operation, "apiVersion": thing.get("apiVersion", "v1")}
            entry |= {"time": clock.stamp(), "fieldsType": "FieldsV1", "fieldsV1": trie}
        if fields:
            entries.append(entry)
    thing["metadata"]["managedFields"] = entries


def _paths(trie: Object, at: Path = ()) -> Iterator[Path]:
    for step, inner in trie.items():
        if inner:
            yield from _paths(inner, (*at, step))
        else:
            yield (*at, step)


def _remove(thing: Any, path: Path) -> None:
    if path[-1] == ".":
        keys, parent = json.loads(path[-2][2:]), value_at(thing, path[:-2])
        if isinstance(parent, list):
            parent[:] = [item for item in parent if not all(item.get(k) == v for k, v in keys.items())]
        return
    parent = value_at(thing, path[:-1])
    if isinstance(parent, dict):
        parent.pop(path[-1][2:], None)


def _keys(name: str, item: Object) -> Object:
    return {
        key: item.get(key, "TCP" if key == "protocol" else None) for key in MERGE_KEYS[name] if isinstance(item, dict)
    }
