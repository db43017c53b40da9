"""What each verb does to objects: the API server without HTTP. Controllers use it too, so that all see the same rules."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from tests.cluster import admission, defaults, patches, validation
from tests.cluster.resources import (
    EVENTS,
    JOBS,
    NAMESPACES,
    PODS,
    SERVICE_ACCOUNTS,
    ApiError,
    Object,
    Resource,
    at,
    bad_request,
    conflict,
    details_of,
)
from tests.cluster.storage import Storage, random_suffix

Mutate = Callable[[Resource, Object, "Object | None"], None]

ORPHANS = (
    "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set "
    "propagationPolicy=Orphan to suppress this warning"
)


@dataclass
class Options:
    """Of one request."""

    manager: str = "unknown"
    dry_run: bool = False
    force: bool = False
    strictness: str = "Warn"
    warnings: list[str] = field(default_factory=list)


@dataclass
class Registry:
    """All verbs. ``webhooks`` are mutating admission webhooks, such as Kueue's; they see the new and the old object."""

    storage: Storage
    webhooks: list[Mutate] = field(default_factory=list)

    def create(self, resource: Resource, thing: Object, options: Options | None = None) -> Object:
        """Raises ApiError: 400 for the schema, 403 for admission, 409 for the name, 422 for rules."""
        return self._create(resource, deepcopy(thing), options or Options(strictness="Ignore"))

    def _create(self, resource: Resource, thing: Object, options: Options, applied: bool = False) -> Object:
        self._decode(resource, thing, options)
        meta = thing["metadata"]
        if "resourceVersion" in meta:
            raise bad_request("resourceVersion should not be set on objects to be created")
        if not meta.get("name") and meta.get("generateName"):
            meta["name"] = meta["generateName"][:58] + random_suffix()
        for name in (
            "uid",
            "creationTimestamp",
            "deletionTimestamp",
            "generation",
            *(() if applied else ["managedFields"]),
        ):
            meta.pop(name, None)
        thing.pop("status", None)
        meta["uid"] = str(uuid.uuid4())
        if not applied:
            patches.record_update(thing, None, options.manager, self.storage.clock)
        with self.storage.lock:
            thing = self._complete(resource, thing, None, options)
            admission.admit(self.storage, resource, thing)
            if options.dry_run:
                if self.storage.find(resource, meta.get("namespace", ""), thing["metadata"]["name"]):
                    return self.storage.create(resource, thing)  # raises AlreadyExists
                thing["metadata"] |= {"creationTimestamp": self.storage.clock.stamp()}
                return thing
            made = self.storage.create(resource, thing)
        if resource is NAMESPACES:
            account = {"metadata": {"name": "default", "namespace": made["metadata"]["name"]}}
            self.create(SERVICE_ACCOUNTS, account)
        return made

    def update(self, resource: Resource, thing: Object, options: Options, sub: str = "") -> Object:
        """Replaces an object, or with ``sub="status"`` its status alone."""
        thing = deepcopy(thing)
        self._decode(resource, thing, options)
        meta = thing["metadata"]
        with self.storage.lock:
            live = self.storage.get(resource, meta.get("namespace", ""), meta["name"])
            if "resourceVersion" in meta and meta["resourceVersion"] != live["metadata"]["resourceVersion"]:
                raise conflict(resource, meta["name"])
            if meta.get("uid") not in (None, live["metadata"]["uid"]):
                why = f"Precondition failed: UID in precondition: {meta['uid']}, UID in object meta: {live['metadata']['uid']}"
                raise conflict(resource, meta["name"], why)
            return self._replace(resource, live, thing, options, sub)

    def patch(
        self, resource: Resource, namespace: str, name: str, patch: Any, kind: str, options: Options, sub: str = ""
    ) -> tuple[Object, bool]:
        """The object, and whether it was made; ``kind`` is the patch's content type."""
        with self.storage.lock:
            live = self.storage.find(resource, namespace, name)
            if kind == "application/apply-patch+yaml":
                return self._apply(resource, namespace, name, live, patch, options, sub)
            if live is None:
                live = self.storage.get(resource, namespace, name)  # raises NotFound
            if kind == "application/json-patch+json":
                changed = patches.json_patch(live, patch)
            elif kind == "application/strategic-merge-patch+json":
                changed = patches.strategic_patch(live, patch)
            elif kind == "application/merge-patch+json":
                changed = patches.merge_patch(live, patch)
            else:
                raise ApiError(
                    415, "UnsupportedMediaType", f"the body of the request was in an unknown format - {kind}"
                )
            self._decode(resource, changed, options)
            version = changed["metadata"].get("resourceVersion")
            if version != live["metadata"]["resourceVersion"]:
                raise conflict(resource, name)
            return self._replace(resource, live, changed, options, sub), False

    def _apply(
        self, resource: Resource, namespace: str, name: str, live: Object | None, patch: Any, options: Options, sub: str
    ) -> tuple[Object, bool]:
        if not options.manager or options.manager == "unknown":
            message = (
                'PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch'
            )
            raise ApiError(422, "Invalid", message)
        if not isinstance(patch, dict) or not patch.get("apiVersion") or not patch.get("kind"):
            raise bad_request("apply: apiVersion and kind are required in the body")
        if at(patch, "metadata", "managedFields"):
            raise bad_request("metadata.managedFields must be nil")
        self._decode_typed(resource, namespace, name, patch)
        meta = patch["metadata"]
        if meta.get("name", name) != name:
            raise bad_request(f"the name of the object ({meta['name']}) does not match the name on the URL ({name})")
        meta["name"] = name
        if resource.namespaced:
            meta["namespace"] = namespace
        if live is not None and meta.get("resourceVersion") not in (None, live["metadata"]["resourceVersion"]):
            raise conflict(resource, name)
        merged = patches.apply(live, patch, options.manager, options.force, resource, self.storage.clock)
        if live is None:
            return self._create(resource, merged, options, applied=True), True
        return self._replace(resource, live, merged, options, sub, applied=True), False

    def _decode_typed(self, resource: Resource, namespace: str, name: str, patch: Object) -> None:
        """An apply needs to know every field: what it does not know is an error of its own, and no 400."""
        try:
            unknown = self._decode(resource, patch, Options(strictness="Ignore"))
        except ApiError as error:
            unknown = [error.message]
        if unknown:
            what = "; ".join(
                f".{w[15:-1]}: field not declared in schema" if w[:13] == "unknown field" else w for w in unknown
            )
            where = f"({namespace}/{name}; {resource.api_version}, Kind={resource.kind})"
            raise ApiError(500, "", f"failed to create typed patch object {where}: {what}")

    def _decode(self, resource: Resource, thing: Any, options: Options) -> list[str]:
        if not isinstance(thing, dict):
            raise bad_request("the object provided is unrecognized (must be of type object)")
        unknown = validation.decode(resource, thing, options.strictness)
        if options.strictness == "Warn":
            options.warnings += unknown
        thing.setdefault("metadata", {})
        tidy = validation.normalise(thing)
        thing.clear()
        thing.update(tidy)
        return unknown

    def _complete(self, resource: Resource, thing: Object, live: Object | None, options: Options) -> Object:
        """Defaults, webhooks, and the checks of all that a client may have got wrong."""
        defaults.fill_in(resource, thing)
        if resource is JOBS and live is None:
            defaults.generate_selector(thing)
        for webhook in self.webhooks:
            webhook(resource, thing, live)
        causes = list(validation.check(resource, thing))
        if live is not None and resource is JOBS:
            causes += validation.check_job_update(thing, live)
        if live is not None and resource is PODS and thing["spec"] != live["spec"]:
            why = "Forbidden: pod updates may not change fields other than `spec.containers[*].image`, ..."
            causes.append(("FieldValueForbidden", "spec", why))
        validation.refuse(resource, thing["metadata"].get("name", ""), causes)
        options.warnings += admission.security_warnings(self.storage, resource, thing)
        return thing

    def _replace(
        self, resource: Resource, live: Object, thing: Object, options: Options, sub: str, applied: bool = False
    ) -> Object:
        if sub == "status":
            thing = {**live, "status": thing.get("status", {})}
        else:
            kept = (
                "uid",
                "creationTimestamp",
                "generation",
                "deletionTimestamp",
                "deletionGracePeriodSeconds",
                "namespace",
            )
            meta = {key: value for key, value in thing["metadata"].items() if key not in kept}
            meta |= {key: live["metadata"][key] for key in kept if key in live["metadata"]}
            meta["resourceVersion"] = live["metadata"]["resourceVersion"]
            if not applied:
                meta["managedFields"] = live["metadata"].get("managedFields", [])
            thing = {**thing, "metadata": meta}
            if "status" in live and resource not in (EVENTS,):
                thing["status"] = live["status"]
            if not applied:
                patches.record_update(thing, live, options.manager, self.storage.clock)
            thing = self._complete(resource, thing, live, options)
        return thing if options.dry_run else self.storage.put(resource, thing)

    def delete(self, resource: Resource, namespace: str, name: str, body: Object, options: Options) -> Object:
        """Gives the object while something holds it, else a Status."""
        propagation = body.get("propagationPolicy")
        if propagation is None:
            if resource is JOBS:
                options.warnings.append(ORPHANS)
            propagation = "Orphan" if resource is JOBS else "Background"  # batch/v1 keeps its old default
        if propagation not in ("Orphan", "Background", "Foreground"):
            allowed = 'must be one of "Background", "Foreground", "Orphan"'
            raise ApiError(422, "Invalid", f'DeleteOptions "" is invalid: propagationPolicy: Invalid value: {allowed}')
        before = self.storage.get(resource, namespace, name)
        if not options.dry_run:
            conditions = body.get("preconditions") or {}
            before = self.storage.delete(
                resource,
                namespace,
                name,
                grace=body.get("gracePeriodSeconds"),
                propagation=propagation,
                uid=conditions.get("uid"),
                version=conditions.get("resourceVersion"),
            )
        if resource is NAMESPACES:
            self._empty(name)
        if resource is PODS or self.storage.find(resource, namespace, name):
            return before
        details = details_of(resource, name, uid=before["metadata"]["uid"])
        return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}

    def _empty(self, namespace: str) -> None:
        with self.storage.lock:
            for resource in self.storage.kinds():
                for thing in self.storage.view(resource, namespace) if resource.namespaced else []:
                    self.storage.discard(resource, thing)

    def evict(self, namespace: str, name: str, body: Object, options: Options) -> Object:
        """The eviction API: a condition that tells why, then a delete that keeps the grace period."""
        pod = self.storage.get(PODS, namespace, name)
        if not options.dry_run:
            disrupt(self.storage, pod, "EvictionByEvictionAPI", "Eviction API: evicting")
            grace = (body.get("deleteOptions") or {}).get("gracePeriodSeconds")
            self.storage.delete(PODS, namespace, name, grace=grace)
        return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}


def condition(thing: Object, type_: str) -> Object | None:
    return next((c for c in at(thing, "status", "conditions") or [] if c["type"] == type_), None)


def set_condition(thing: Object, type_: str, status: str, now: str, reason: str = "", message: str = "") -> bool:
    """Appends or changes a condition; whether anything changed."""
    wanted = {"type": type_, "status": status}
    wanted |= {key: value for key, value in (("reason", reason), ("message", message)) if value}
    old = condition(thing, type_)
    if old is not None and {key: old.get(key) for key in wanted} == wanted:
        return False
    fresh = {**wanted, "lastProbeTime": now, "lastTransitionTime": now}
    if thing.get("kind") == "Pod":
        fresh["lastProbeTime"] = None
    if old is not None and old["status"] == status:
        fresh["lastTransitionTime"] = old["lastTransitionTime"]
    conditions = thing.setdefault("status", {}).setdefault("conditions", [])
    if old is None:
        conditions.append(fresh)
    else:
        conditions[conditions.index(old)] = fresh
    return True


def disrupt(storage: Storage, pod: Object, reason: str, message: str) -> None:
    """Marks a pod as the target of a disruption."""
    now = storage.clock.stamp()
    storage.edit(PODS, pod, lambda live: set_condition(live, "DisruptionTarget", "True", now, reason, message))


def tell(storage: Storage, about: Object, reason: str, message: str, source: str, warning: bool = False) -> None:
    """An event; the same one again only raises its count."""
    meta, now = about["metadata"], storage.clock.stamp()
    namespace = meta.get("namespace", "default")
    with storage.lock:
        for event in storage.view(EVENTS, namespace):
            same = event["involvedObject"].get("uid") == meta["uid"] and event["reason"] == reason
            if same and event["message"] == message:
                storage.edit(EVENTS, event, lambda live: live.update(count=live["count"] + 1, lastTimestamp=now))
                return
        involved = {"kind": about["kind"], "apiVersion": about["apiVersion"], "name": meta["name"], "uid": meta["uid"]}
        involved |= {"namespace": namespace, "resourceVersion": meta["resourceVersion"]}
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{meta['name']}.{uuid.uuid4().hex[:16]}", "namespace": namespace},
            "involvedObject": involved,
            "reason": reason,
            "message": message,
            "type": "Warning" if warning else "Normal",
            "count": 1,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "eventTime": None,
            "source": {"component": source},
            "reportingComponent": source,
            "reportingInstance": "",
        }
        storage.create(EVENTS, event)
