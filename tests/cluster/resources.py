"""The vocabulary of the API: kinds, errors, selectors, quantities, the clock."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

Object = dict[str, Any]


@dataclass(frozen=True)
class Resource:
    """A kind of object as its URL names it."""

    group: str
    plural: str
    kind: str

    @property
    def api_version(self) -> str:
        return f"{self.group}/v1" if self.group else "v1"

    @property
    def qualified(self) -> str:
        """As error messages say it: ``jobs.batch``."""
        return f"{self.plural}.{self.group}" if self.group else self.plural


NODES = Resource("", "nodes", "Node")
PODS = Resource("", "pods", "Pod")
EVENTS = Resource("", "events", "Event")
SECRETS = Resource("", "secrets", "Secret")
SERVICE_ACCOUNTS = Resource("", "serviceaccounts", "ServiceAccount")
JOBS = Resource("batch", "jobs", "Job")
ROLES = Resource("rbac.authorization.k8s.io", "roles", "Role")
ROLE_BINDINGS = Resource("rbac.authorization.k8s.io", "rolebindings", "RoleBinding")
KINDS = (NODES, PODS, EVENTS, SECRETS, SERVICE_ACCOUNTS, JOBS, ROLES, ROLE_BINDINGS)


class ApiError(Exception):
    """A refusal, as the ``Status`` object that clients get."""

    def __init__(self, code: int, reason: str, message: str, retry_after: int = 0):
        super().__init__(message)
        self.code, self.reason, self.message, self.retry_after = code, reason, message, retry_after

    @property
    def status(self) -> Object:
        status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": self.code}
        return status | {"reason": self.reason, "message": self.message}


def not_found(resource: Resource, name: str) -> ApiError:
    return ApiError(404, "NotFound", f'{resource.qualified} "{name}" not found')


def conflict(resource: Resource, name: str, why: str) -> ApiError:
    return ApiError(409, "Conflict", f'Operation cannot be fulfilled on {resource.qualified} "{name}": {why}')


def forbidden(resource: Resource, name: str, why: str) -> ApiError:
    return ApiError(403, "Forbidden", f'{resource.qualified} "{name}" is forbidden: {why}')


def invalid(resource: Resource, name: str, why: str) -> ApiError:
    return ApiError(422, "Invalid", f'{resource.kind}.{resource.group} "{name}" is invalid: {why}')


def bad_request(message: str) -> ApiError:
    return ApiError(400, "BadRequest", message)


def at(thing: Any, *path: str) -> Any:
    """A nested value, None where the path ends early."""
    for step in path:
        thing = (thing or {}).get(step)
    return thing


def condition(thing: Object, type_: str) -> Object | None:
    return next((c for c in at(thing, "status", "conditions") or [] if c["type"] == type_), None)


def set_condition(thing: Object, type_: str, status: str, now: str, reason: str = "", message: str = "") -> bool:
    """Appends or changes a condition; whether anything changed."""
    wanted = {"type": type_, "status": status}
    wanted |= {key: value for key, value in (("reason", reason), ("message", message)) if value}
    old = condition(thing, type_)
    if old is not None and {key: old.get(key) for key in wanted} == wanted:
        return False
    same_status = old is not None and old["status"] == status
    fresh = {**wanted, "lastTransitionTime": old["lastTransitionTime"] if old and same_status else now}
    conditions = thing.setdefault("status", {}).setdefault("conditions", [])
    if old is None:
        conditions.append(fresh)
    else:
        conditions[conditions.index(old)] = fresh
    return True


def is_finished(pod: Object) -> bool:
    return at(pod, "status", "phase") in ("Succeeded", "Failed")


def is_leaving(thing: Object) -> bool:
    """Whether it was deleted, and something still holds it."""
    return "deletionTimestamp" in thing["metadata"]


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

    def __init__(self, name: str, step: Callable[[], None], stopping: threading.Event, changed: Any) -> None:
        super().__init__(name=name, daemon=True)
        self.step, self.stopping, self.changed = step, stopping, changed
        self.failures: list[BaseException] = []

    def run(self) -> None:
        version = 0
        while not self.stopping.is_set():
            version = self.changed(version, 0.05)
            try:
                self.step()
            except Exception as error:  # raised when the cluster stops: a test must not pass on a broken fake
                self.failures.append(error)
                self.stopping.wait(0.2)


_REQUIREMENT = re.compile(r"^\s*([^\s!=]+)\s*(==|=|!=)\s*([^\s]*)\s*$")


def selector(text: str, value: Callable[[Object, str], Any]) -> Callable[[Object], bool]:
    """A predicate on objects: ``a=b,c!=d``, where ``value`` reads what a key names. Raises ApiError 400."""
    tests = []
    for part in filter(None, text.split(",")):
        match = _REQUIREMENT.match(part)
        if match is None:
            raise bad_request(f"unable to parse requirement: {part!r}")
        tests.append((match[1], match[3], match[2] != "!="))
    return lambda thing: all((str(value(thing, key) or "") == wanted) == equal for key, wanted, equal in tests)


def label(thing: Object, key: str) -> Any:
    return (thing["metadata"].get("labels") or {}).get(key)


def nested(thing: Object, key: str) -> Any:
    return at(thing, *key.split("."))


_QUANTITY = re.compile(r"^([+-]?(?:\d+\.?\d*|\.\d+))(m|k|M|G|T|Ki|Mi|Gi|Ti|)$")
_UNITS = {"m": Decimal("0.001"), "": Decimal(1), "k": Decimal(10**3), "M": Decimal(10**6), "G": Decimal(10**9)}
_UNITS |= {"T": Decimal(10**12)} | {f"{name}i": Decimal(1024) ** n for n, name in enumerate("KMGT", 1)}


def quantity(text: Any) -> Decimal:
    """``500m``, ``4Gi``, ``2``. Raises ValueError."""
    match = _QUANTITY.match(str(text))
    if match is None:
        raise ValueError("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")
    return Decimal(match[1]) * _UNITS[match[2]]


def requests_of(spec: Object) -> dict[str, Decimal]:
    """What the containers of a pod ask for in all."""
    total: dict[str, Decimal] = {}
    for container in spec["containers"]:
        resources = container.get("resources") or {}
        for name, amount in {**(resources.get("limits") or {}), **(resources.get("requests") or {})}.items():
            total[name] = total.get(name, Decimal(0)) + quantity(amount)
    return total
