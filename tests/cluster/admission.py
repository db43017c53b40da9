"""What the admission plugins of a default API server do: accounts, priorities, limits, quotas, Pod Security Standards."""

from __future__ import annotations

from decimal import Decimal

from tests.cluster.resources import (
    JOBS,
    LIMIT_RANGES,
    NAMESPACES,
    PODS,
    PRIORITY_CLASSES,
    QUOTAS,
    SERVICE_ACCOUNTS,
    Object,
    Resource,
    at,
    canonical,
    forbidden,
    not_found,
    quantity,
)
from tests.cluster.storage import Storage, is_finished

_VOLUMES = {
    "name",
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
_SYSTEM = {"system-cluster-critical": 2_000_000_000, "system-node-critical": 2_000_001_000}


def admit(storage: Storage, resource: Resource, thing: Object) -> None:
    """Changes what is created where a plugin would. Raises ApiError 403, or 404 without the namespace."""
    meta = thing["metadata"]
    namespace = meta.get("namespace", "")
    if resource.namespaced:
        home = storage.find(NAMESPACES, "", namespace)
        if home is None:
            raise not_found(NAMESPACES, namespace)
        if "deletionTimestamp" in home["metadata"]:
            why = f"unable to create new content in namespace {namespace} because it is being terminated"
            raise forbidden(resource, meta["name"], why)
    if resource is PODS:
        _account(storage, thing)
        _priority(storage, thing)
        _limit_ranges(storage, thing)
        _security(storage, thing)
    if resource in (PODS, JOBS):
        _quotas(storage, resource, thing)


def _account(storage: Storage, pod: Object) -> None:
    namespace, account = pod["metadata"]["namespace"], pod["spec"]["serviceAccountName"]
    found = storage.find(SERVICE_ACCOUNTS, namespace, account)
    if found is None:
        why = f'error looking up service account {namespace}/{account}: serviceaccount "{account}" not found'
        raise forbidden(PODS, pod["metadata"]["name"], why)
    if not pod["spec"].get("imagePullSecrets") and found.get("imagePullSecrets"):
        pod["spec"]["imagePullSecrets"] = found["imagePullSecrets"]


def mounts_token(storage: Storage, pod: Object) -> bool:
    """Whether the pod gets a token: its own word first, else its account's, else yes."""
    own = pod["spec"].get("automountServiceAccountToken")
    account = storage.find(SERVICE_ACCOUNTS, pod["metadata"]["namespace"], pod["spec"]["serviceAccountName"]) or {}
    return bool(own if own is not None else account.get("automountServiceAccountToken", True))


def _priority(storage: Storage, pod: Object) -> None:
    name = pod["spec"].get("priorityClassName")
    if name in _SYSTEM:
        pod["spec"]["priority"] = _SYSTEM[name]
        return
    classes = storage.list(PRIORITY_CLASSES)
    chosen = next((c for c in classes if (c["metadata"]["name"] == name if name else c.get("globalDefault"))), None)
    if name and chosen is None:
        raise forbidden(PODS, pod["metadata"]["name"], f"no PriorityClass with name {name} was found")
    if chosen is not None:
        pod["spec"]["priorityClassName"] = chosen["metadata"]["name"]
        pod["spec"]["priority"] = chosen["value"]
        pod["spec"]["preemptionPolicy"] = chosen.get("preemptionPolicy", "PreemptLowerPriority")


def _limit_ranges(storage: Storage, pod: Object) -> None:
    problems = []
    for limit_range in storage.list(LIMIT_RANGES, pod["metadata"]["namespace"]):
        for item in at(limit_range, "spec", "limits") or []:
            if item.get("type") != "Container":
                continue
            for container in pod["spec"]["containers"]:
                limits = container["resources"].setdefault("limits", {})
                requests = container["resources"].setdefault("requests", {})
                for name, amount in (item.get("default") or {}).items():
                    limits.setdefault(name, amount)
                for name, amount in {**(item.get("default") or {}), **(item.get("defaultRequest") or {})}.items():
                    requests.setdefault(name, amount)
                for name, most in (item.get("max") or {}).items():
                    if name not in limits:
                        problems.append(f"maximum {name} usage per Container is {most}.  No limit is specified")
                    elif quantity(limits[name]) > quantity(most):
                        problems.append(f"maximum {name} usage per Container is {most}, but limit is {limits[name]}")
                for name, least in (item.get("min") or {}).items():
                    if name not in requests:
                        problems.append(f"minimum {name} usage per Container is {least}.  No request is specified")
                    elif quantity(requests[name]) < quantity(least):
                        problems.append(
                            f"minimum {name} usage per Container is {least}, but request is {requests[name]}"
                        )
    if problems:
        said = problems[0] if len(problems) == 1 else f"[{', '.join(problems)}]"
        raise forbidden(PODS, pod["metadata"]["name"], said)


# Quotas --------------------------------------------------------------------------------------------------------------


def demand(resource: Resource, thing: Object) -> dict[str, Decimal]:
    """What an object uses of quotas."""
    used = {f"count/{resource.qualified}": Decimal(1)}
    if resource is not PODS:
        return used
    if is_finished(thing):
        return used
    used["pods"] = Decimal(1)
    for container in thing["spec"]["containers"]:
        for kind in ("requests", "limits"):
            for name, amount in (container["resources"].get(kind) or {}).items():
                for alias in (f"{kind}.{name}", *([name] if kind == "requests" and name in ("cpu", "memory") else ())):
                    used[alias] = used.get(alias, Decimal(0)) + quantity(amount)
    return used


def usage(storage: Storage, namespace: str) -> dict[str, Decimal]:
    total: dict[str, Decimal] = {}
    for resource in (PODS, JOBS):
        for thing in storage.view(resource, namespace):
            for name, amount in demand(resource, thing).items():
                total[name] = total.get(name, Decimal(0)) + amount
    return total


def _quotas(storage: Storage, resource: Resource, thing: Object) -> None:
    meta = thing["metadata"]
    wanted, used = demand(resource, thing), None
    for quota in storage.list(QUOTAS, meta["namespace"]):
        if not _in_scope(quota, resource, thing):
            continue
        hard = at(quota, "spec", "hard") or {}
        name = quota["metadata"]["name"]
        needed = {"requests.cpu", "requests.memory", "limits.cpu", "limits.memory", "cpu", "memory"} & set(hard)
        absent = sorted(one for one in needed - set(wanted)) if resource is PODS else []
        if absent:
            container = thing["spec"]["containers"][0]["name"]
            said = "; ".join(f"{one} for: {container}" for one in absent)
            raise forbidden(resource, meta["name"], f"failed quota: {name}: must specify {said}")
        used = used if used is not None else usage(storage, meta["namespace"])
        over = sorted(k for k in set(hard) & set(wanted) if used.get(k, 0) + wanted[k] > quantity(hard[k]))
        if over:
            parts = [
                ",".join(f"{k}={canonical(str(amounts.get(k, 0)))}" for k in over) for amounts in (wanted, used, hard)
            ]
            why = f"exceeded quota: {name}, requested: {parts[0]}, used: {parts[1]}, limited: {parts[2]}"
            raise forbidden(resource, meta["name"], why)


def _in_scope(quota: Object, resource: Resource, thing: Object) -> bool:
    for expression in at(quota, "spec", "scopeSelector", "matchExpressions") or []:
        if expression["scopeName"] == "PriorityClass":
            if resource is not PODS:
                return False
            mine = thing["spec"].get("priorityClassName")
            known = {"In": mine in expression.get("values", []), "Exists": mine is not None}
            if not known.get(expression["operator"], mine not in expression.get("values", [])):
                return False
    return True


def count_quotas(storage: Storage) -> None:
    """Keeps ``status.used`` of every quota."""
    for quota in storage.view(QUOTAS):
        used, hard = usage(storage, quota["metadata"]["namespace"]), at(quota, "spec", "hard") or {}
        status = {"hard": hard, "used": {name: canonical(str(used.get(name, 0))) for name in hard}}
        if quota.get("status") != status:
            storage.edit(QUOTAS, quota, lambda live, s=status: live.update(status=s))


# Pod Security Standards ----------------------------------------------------------------------------------------------


def violations(pod: Object, level: str) -> list[str]:
    """Of ``baseline`` or ``restricted``, in the order and the words of the server."""
    spec = pod["spec"]
    containers = [*(spec.get("initContainers") or []), *spec["containers"]]
    own = spec.get("securityContext") or {}
    found = []

    def offenders(test: object) -> list[str]:
        return [c["name"] for c in containers if test(c.get("securityContext") or {})]  # type: ignore[operator]

    def each(names: list[str]) -> str:
        return ("container " if len(names) == 1 else "containers ") + ", ".join(f'"{name}"' for name in names)

    host = [name for name in ("hostNetwork", "hostPID", "hostIPC") if spec.get(name)]
    if host:
        found.append(f"host namespaces ({', '.join(f'{name}=true' for name in host)})")
    if names := [v["name"] for v in spec.get("volumes") or [] if "hostPath" in v]:
        found.append(f'hostPath volumes (volume "{names[0]}")')
    if names := offenders(lambda s: s.get("privileged")):
        found.append(f"privileged ({each(names)} must not set securityContext.privileged=true)")
    if level != "restricted":
        return found
    if names := offenders(lambda s: s.get("allowPrivilegeEscalation") is not False):
        found.append(
            f"allowPrivilegeEscalation != false ({each(names)} must set securityContext.allowPrivilegeEscalation=false)"
        )
    if names := offenders(lambda s: "ALL" not in ((s.get("capabilities") or {}).get("drop") or [])):
        found.append(f'unrestricted capabilities ({each(names)} must set securityContext.capabilities.drop=["ALL"])')
    wrong = [v["name"] for v in spec.get("volumes") or [] if set(v) - _VOLUMES]
    if wrong:
        kind = next(iter(set(next(v for v in spec["volumes"] if v["name"] == wrong[0])) - _VOLUMES))
        found.append(f'restricted volume types (volume "{wrong[0]}" uses restricted volume type "{kind}")')
    if names := offenders(lambda s: not s.get("runAsNonRoot", own.get("runAsNonRoot"))):
        found.append(f"runAsNonRoot != true (pod or {each(names)} must set securityContext.runAsNonRoot=true)")
    if own.get("runAsUser") == 0:
        found.append("runAsUser=0 (pod must not set runAsUser=0)")
    if names := offenders(lambda s: s.get("runAsUser") == 0):
        found.append(f"runAsUser=0 ({each(names)} must not set runAsUser=0)")
    allowed = ("RuntimeDefault", "Localhost")
    if names := offenders(lambda s: at(s if "seccompProfile" in s else own, "seccompProfile", "type") not in allowed):
        found.append(
            f"seccompProfile (pod or {each(names)} must set securityContext.seccompProfile.type to "
            '"RuntimeDefault" or "Localhost")'
        )
    return found


def _security(storage: Storage, pod: Object) -> None:
    home = storage.get(NAMESPACES, "", pod["metadata"]["namespace"])
    level = (home["metadata"].get("labels") or {}).get("pod-security.kubernetes.io/enforce", "privileged")
    if level != "privileged" and (found := violations(pod, level)):
        raise forbidden(PODS, pod["metadata"]["name"], f'violates PodSecurity "{level}:latest": {", ".join(found)}')


def security_warnings(storage: Storage, resource: Resource, thing: Object) -> list[str]:
    """What a namespace that warns says of a Job's template."""
    home = storage.find(NAMESPACES, "", thing["metadata"].get("namespace", "")) or {}
    level = (at(home, "metadata", "labels") or {}).get("pod-security.kubernetes.io/warn", "privileged")
    pod = thing["spec"]["template"] if resource is JOBS else thing
    if level == "privileged" or resource not in (JOBS, PODS):
        return []
    found = violations(pod, level)
    return [f'would violate PodSecurity "{level}:latest": {", ".join(found)}'] if found else []
