"""What each verb does to objects: the API server without HTTP. Controllers use it too, so that all follow the same rules."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from tests.cluster import rules
from tests.cluster.resources import (
    JOBS,
    PODS,
    SERVICE_ACCOUNTS,
    ApiError,
    Object,
    Resource,
    bad_request,
    conflict,
    forbidden,
)
from tests.cluster.storage import Storage

APPLY, MERGE = "application/apply-patch+yaml", "application/merge-patch+json"
UNLIMITED = 2**31 - 1


@dataclass
class Registry:
    """``webhooks`` see every new object before it is stored, and may change it."""

    storage: Storage
    webhooks: list[Callable[[Resource, Object], None]] = field(default_factory=list)

    def create(self, resource: Resource, thing: Object, dry_run: bool = False) -> Object:
        """Raises ApiError: 400 for the schema, 403 for admission, 409 for the name, 422 for rules."""
        thing = {"apiVersion": resource.api_version, "kind": resource.kind, **deepcopy(thing)}
        meta = thing["metadata"]
        meta["uid"] = str(uuid.uuid4())
        if resource is JOBS:
            rules.check_schema(thing)
            _complete_job(thing)
        elif resource is PODS:
            self._admit(thing)
        for webhook in self.webhooks:
            webhook(resource, thing)
        if resource is JOBS:
            rules.check(thing)
        return thing if dry_run else self.storage.create(resource, thing)

    def patch(
        self, resource: Resource, namespace: str, name: str, patch: Any, kind: str, dry_run: bool = False
    ) -> tuple[Object, bool]:
        """The object, and whether it is a new one; ``kind`` is the patch's content type.

        An apply merges as a merge patch does: field managers matter only to those who apply the same object differently.
        """
        if kind not in (APPLY, MERGE):
            raise ApiError(415, "UnsupportedMediaType", f"the body of the request was in an unknown format - {kind}")
        with self.storage.lock:
            live = self.storage.find(resource, namespace, name)
            if live is None and kind == APPLY:
                patch["metadata"]["namespace"] = namespace
                return self.create(resource, patch, dry_run), True
            if kind == APPLY and resource is JOBS:
                rules.check_schema(patch)
            live = live or self.storage.get(resource, namespace, name)  # raises NotFound
            changed = merge(live, patch)
            if resource is JOBS:
                rules.check(changed, live)
            return (changed if dry_run else self.storage.put(resource, changed)), False

    def delete(self, resource: Resource, namespace: str, name: str, body: Object) -> Object:
        """Raises ApiError 404 without it, 409 when it has another version than the caller expects."""
        with self.storage.lock:
            thing = self.storage.get(resource, namespace, name)
            version = (body.get("preconditions") or {}).get("resourceVersion")
            if version not in (None, thing["metadata"]["resourceVersion"]):
                raise conflict(resource, name, "Precondition failed: the object has been modified")
            if resource is JOBS and body.get("propagationPolicy") not in ("Background", "Foreground"):
                raise bad_request("the fake cluster keeps no pods of Jobs that are gone: say propagationPolicy")
            self.storage.delete(resource, thing, foreground=body.get("propagationPolicy") == "Foreground")
        return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}

    def evict(self, namespace: str, name: str) -> None:
        """As a drain does: a condition that tells why, then a delete that keeps the grace period."""
        pod = self.storage.get(PODS, namespace, name)
        self.storage.disrupt(pod, "EvictionByEvictionAPI", "Eviction API: evicting")
        self.storage.delete(PODS, pod)

    def _admit(self, pod: Object) -> None:
        namespace, spec = pod["metadata"]["namespace"], pod["spec"]
        account = spec.setdefault("serviceAccountName", "default")
        if self.storage.find(SERVICE_ACCOUNTS, namespace, account) is None:
            why = f'error looking up service account {namespace}/{account}: serviceaccount "{account}" not found'
            raise forbidden(PODS, pod["metadata"]["name"], why)
        pod.setdefault("status", {})["phase"] = "Pending"


def merge(target: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return deepcopy(patch)
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge(merged.get(key), value)
    return merged


def _complete_job(job: Object) -> None:
    """Defaults, and the labels that tie pods to this very Job."""
    spec, meta = job["spec"], job["metadata"]
    spec.setdefault("completions", spec.setdefault("parallelism", 1))
    spec.setdefault("backoffLimit", UNLIMITED if "backoffLimitPerIndex" in spec else 6)
    spec.setdefault("completionMode", "NonIndexed")
    spec.setdefault("suspend", False)
    spec.setdefault("podReplacementPolicy", "Failed" if "podFailurePolicy" in spec else "TerminatingOrFailed")
    labels = spec["template"].setdefault("metadata", {}).setdefault("labels", {})
    for prefix in ("", "batch.kubernetes.io/"):
        labels |= {f"{prefix}controller-uid": meta["uid"], f"{prefix}job-name": meta["name"]}
    spec["selector"] = {"matchLabels": {"batch.kubernetes.io/controller-uid": meta["uid"]}}
    meta.setdefault("labels", dict(labels))
    job["status"] = {}
