"""The vocabulary of the API: kinds, errors, label selectors, quantities, timestamps."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

Object = dict[str, Any]


@dataclass(frozen=True)
class Resource:
    """A kind of object as its URL names it."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    short: tuple[str, ...] = ()
    subresources: tuple[str, ...] = ()

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def qualified(self) -> str:
        """As error messages say it: ``jobs.batch``."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def qualified_kind(self) -> str:
        return f"{self.kind}.{self.group}" if self.group else self.kind


NAMESPACES = Resource("", "v1", "namespaces", "Namespace", False, ("ns",), ("status",))
NODES = Resource("", "v1", "nodes", "Node", False, ("no",), ("status",))
PODS = Resource("", "v1", "pods", "Pod", True, ("po",), ("status", "log", "eviction"))
EVENTS = Resource("", "v1", "events", "Event", True, ("ev",))
SECRETS = Resource("", "v1", "secrets", "Secret")
CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap", True, ("cm",))
SERVICE_ACCOUNTS = Resource("", "v1", "serviceaccounts", "ServiceAccount", True, ("sa",), ("token",))
QUOTAS = Resource("", "v1", "resourcequotas", "ResourceQuota", True, ("quota",), ("status",))
LIMIT_RANGES = Resource("", "v1", "limitranges", "LimitRange", True, ("limits",))
CLAIMS = Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", True, ("pvc",), ("status",))
JOBS = Resource("batch", "v1", "jobs", "Job", True, (), ("status",))
PRIORITY_CLASSES = Resource("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass", False, ("pc",))
ROLES = Resource("rbac.authorization.k8s.io", "v1", "roles", "Role")
ROLE_BINDINGS = Resource("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding")
CLUSTER_ROLES = Resource("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", False)
CLUSTER_ROLE_BINDINGS = Resource("rbac.authorization.k8s.io", "v1", "clusterrolebindings", "ClusterRoleBinding", False)

_ADMISSION = ("admissionregistration.k8s.io", "v1")

BUILT_IN = (
    NAMESPACES,
    NODES,
    PODS,
    EVENTS,
    SECRETS,
    CONFIG_MAPS,
    SERVICE_ACCOUNTS,
    QUOTAS,
    LIMIT_RANGES,
    CLAIMS,
    JOBS,
    PRIORITY_CLASSES,
    ROLES,
    ROLE_BINDINGS,
    CLUSTER_ROLES,
    CLUSTER_ROLE_BINDINGS,
    Resource("coordination.k8s.io", "v1", "leases", "Lease"),
    Resource("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy", True, ("netpol",)),
    Resource("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", True, ("pdb",), ("status",)),
    # From here on only kept, as no controller of the fake looks at them.
    Resource("", "v1", "services", "Service", True, ("svc",), ("status",)),
    Resource("apps", "v1", "daemonsets", "DaemonSet", True, ("ds",), ("status",)),
    Resource("apps", "v1", "deployments", "Deployment", True, ("deploy",), ("status",)),
    Resource(*_ADMISSION, "validatingadmissionpolicies", "ValidatingAdmissionPolicy", False, (), ("status",)),
    Resource(*_ADMISSION, "validatingadmissionpolicybindings", "ValidatingAdmissionPolicyBinding", False),
    Resource("authorization.k8s.io", "v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview", False),
)


class ApiError(Exception):
    """A refusal, as the ``Status`` object that clients get."""

    def __init__(self, code: int, reason: str, message: str, details: Object | None = None, retry_after: int = 0):
        super().__init__(message)
        self.code, self.reason, self.message, self.details, self.retry_after = (
            code,
            reason,
            message,
            details,
            retry_after,
        )

    @property
    def status(self) -> Object:
        status: Object = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
        status |= {"message": self.message, "code": self.code, **({"reason": self.reason} if self.reason else {})}
        details = dict(self.details or {})
        if self.retry_after:
            details["retryAfterSeconds"] = self.retry_after
        return status | ({"details": details} if details else {})


def details_of(resource: Resource, name: str, **more: Any) -> Object:
    group = {"group": resource.group} if resource.group else {}
    return {"name": name, **group, "kind": resource.plural, **more}


def not_found(resource: Resource, name: str) -> ApiError:
    return ApiError(404, "NotFound", f'{resource.qualified} "{name}" not found', details_of(resource, name))


def already_exists(resource: Resource, name: str) -> ApiError:
    message = f'{resource.qualified} "{name}" already exists'
    return ApiError(409, "AlreadyExists", message, details_of(resource, name))


def conflict(resource: Resource, name: str, why: str = "") -> ApiError:
    why = why or "the object has been modified; please apply your changes to the latest version and try again"
    message = f'Operation cannot be fulfilled on {resource.qualified} "{name}": {why}'
    return ApiError(409, "Conflict", message, details_of(resource, name))


def forbidden(resource: Resource, name: str, why: str) -> ApiError:
    message = f'{resource.qualified} "{name}" is forbidden: {why}'
    return ApiError(403, "Forbidden", message, details_of(resource, name))


def bad_request(message: str) -> ApiError:
    return ApiError(400, "BadRequest", message)


class Clock:
    """The cluster's own time, which tests may shift."""

    def __init__(self) -> None:
        self.offset = timedelta(0)

    def now(self) -> datetime:
        return datetime.now(UTC) + self.offset

    def stamp(self, later: float = 0.0) -> str:
        return (self.now() + timedelta(seconds=later)).strftime("%Y-%m-%dT%H:%M:%SZ")

    def since(self, stamp: str) -> float:
        """Seconds; a stamp is exact to the second."""
        return (self.now() - datetime.fromisoformat(stamp)).total_seconds()


class Loop(threading.Thread):
    """A controller: its step is taken again and again until the cluster stops."""

    def __init__(self, name: str, step: Any, stopping: threading.Event, changed: Any, pause: float = 0.1) -> None:
        super().__init__(name=name, daemon=True)
        self.step, self.stopping, self.changed, self.pause = step, stopping, changed, pause
        self.failures: list[BaseException] = []

    def run(self) -> None:
        seen = 0
        while not self.stopping.is_set():
            seen = self.changed(seen, self.pause)
            try:
                self.step()
            except Exception as error:  # told when the cluster stops: a test must not pass on a broken fake
                self.failures.append(error)
                self.stopping.wait(0.2)


# Label and field selectors -------------------------------------------------------------------------------------------

_SET_BASED = re.compile(r"^\s*(\S+)\s+(in|notin)\s+\(([^)]*)\)\s*$")
_EQUALITY = re.compile(r"^\s*([^\s!=]+)\s*(==|=|!=)\s*([^\s]*)\s*$")


def label_selector(text: str) -> Any:
    """A predicate on labels: ``a=b,c!=d,e in (f,g),h notin (i),j,!k``. Raises ApiError 400."""
    tests: list[Any] = []
    for part in (part for part in re.split(r",(?![^(]*\))", text) if part.strip()):
        if match := _SET_BASED.match(part):
            key, wanted, inside = match[1], {v.strip() for v in match[3].split(",")}, match[2] == "in"
            tests.append(
                lambda labels, k=key, w=wanted, i=inside: (labels.get(k) in w) if i else labels.get(k) not in w
            )
        elif match := _EQUALITY.match(part):
            key, value, equal = match[1], match[3], match[2] != "!="
            tests.append(lambda labels, k=key, v=value, e=equal: (labels.get(k) == v) == e)
        elif re.fullmatch(r"\s*!\s*[\w./-]+\s*", part):
            key = part.strip(" !")
            tests.append(lambda labels, k=key: k not in labels)
        elif re.fullmatch(r"\s*[\w./-]+\s*", part):
            key = part.strip()
            tests.append(lambda labels, k=key: k in labels)
        else:
            raise bad_request(f"unable to parse requirement: {part!r}")
    return lambda labels: all(test(labels) for test in tests)


FIELDS = {
    "metadata.name",
    "metadata.namespace",
    "status.phase",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.serviceAccountName",
    "status.successful",
    "reason",
    "type",
    "source",
    "reportingComponent",
    *(
        f"involvedObject.{k}"
        for k in ("kind", "name", "namespace", "uid", "apiVersion", "resourceVersion", "fieldPath")
    ),
}


def field_selector(text: str) -> Any:
    """A predicate on objects; only fields that the real server supports. Raises ApiError 400."""
    tests = []
    for part in filter(None, text.split(",")):
        match = _EQUALITY.match(part)
        if not match or match[1] not in FIELDS:
            raise bad_request(f'Unable to find "{part}" that match label selector "", field selector "{text}"')
        key, value, equal = match[1], match[3], match[2] != "!="
        tests.append(lambda thing, k=key, v=value, e=equal: (str(at(thing, *k.split(".")) or "") == v) == e)
    return lambda thing: all(test(thing) for test in tests)


def at(thing: Any, *path: str) -> Any:
    """A nested value, None where the path ends early."""
    for step in path:
        thing = (thing or {}).get(step)
    return thing


# Quantities ----------------------------------------------------------------------------------------------------------

_QUANTITY = re.compile(r"^([+-]?(?:\d+\.?\d*|\.\d+))(m|u|n|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|[eE][+-]?\d+)?$")
_BINARY = {name: Decimal(1024) ** power for power, name in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), 1)}
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}


def quantity(text: Any) -> Decimal:
    """``500m``, ``4Gi``, ``2``. Raises ValueError."""
    match = _QUANTITY.match(str(text)) if isinstance(text, str | int | float) and not isinstance(text, bool) else None
    if match is None:
        raise ValueError("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")
    number, suffix = Decimal(match[1]), match[2] or ""
    if suffix in _BINARY:
        return number * _BINARY[suffix]
    if suffix[:1] in ("e", "E") and len(suffix) > 1:
        return number * Decimal(10) ** int(suffix[1:])
    return number * Decimal(10) ** _DECIMAL[suffix]


def canonical(text: Any) -> str:
    """The form in which the server gives a quantity back: ``1000m`` is ``1``, ``1024Mi`` is ``1Gi``, ``0.5`` is ``500m``."""
    value, binary = quantity(text), str(text).endswith("i")
    if value == 0:
        return "0"
    if binary and value == value.to_integral_value() and abs(value) >= 1024:
        for name, factor in reversed(_BINARY.items()):
            if value % factor == 0:
                return f"{int(value / factor)}{name}"
    for name, power in reversed(_DECIMAL.items()):
        scaled = value / Decimal(10) ** power
        if scaled == scaled.to_integral_value():
            return f"{int(scaled)}{name}"
    return str(text)
