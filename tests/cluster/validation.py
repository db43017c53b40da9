"""What a real API server checks before it takes an object, and the words in which it refuses.

Two steps, as there: decoding by schema (400), then the rules of each kind (422 ``Invalid`` with a cause for every field).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

import jsonschema
import kubernetes_validate.utils as schemas
from referencing import Registry
from referencing import Resource as Document

from tests.cluster.resources import (
    JOBS,
    PODS,
    ApiError,
    Object,
    Resource,
    at,
    bad_request,
    canonical,
    details_of,
    quantity,
)

VERSION = "1.36"
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_NAME_PART = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_ENV = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*|[^=\x00-\x1f\x7f]+")

_LABEL_RULE = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an "
    "alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
_SUBDOMAIN_RULE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end "
    "with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_VALUE_RULE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end "
    "with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
    "'(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)
_NEGATIVE = "must be greater than or equal to 0"

Cause = tuple[str, str, str]
"""Reason, field, message."""
Causes = Iterator[Cause]


def _invalid(field: str, value: Any, why: str) -> Cause:
    shown = f'"{value}"' if isinstance(value, str) else _go(value)
    return "FieldValueInvalid", field, f"Invalid value: {shown}: {why}"


def _go(value: Any) -> str:
    return json.dumps(value, separators=(",", ":")) if isinstance(value, dict | list | bool) else str(value)


def _required(field: str, why: str = "") -> Cause:
    return "FieldValueRequired", field, "Required value" + (f": {why}" if why else "")


def _unsupported(field: str, value: Any, allowed: Iterable[str]) -> Cause:
    names = ", ".join(f'"{one}"' for one in sorted(allowed))
    return "FieldValueNotSupported", field, f'Unsupported value: "{value}": supported values: {names}'


def _quoted(values: Iterable[str]) -> str:
    """As Go prints a list of strings."""
    return f"[{' '.join(json.dumps(value) for value in values)}]"


def _duplicate(field: str, value: Any) -> Cause:
    return "FieldValueDuplicate", field, "Duplicate value: " + (f'"{value}"' if isinstance(value, str) else str(value))


def _too_many(field: str, count: int, most: int) -> Cause:
    return "FieldValueTooMany", field, f"Too many: {count}: must have at most {most} items"


def refuse(resource: Resource, name: str, causes: Iterable[Cause]) -> None:
    """Raises ApiError 422 when there is any cause."""
    found = list(dict.fromkeys(causes))
    if not found:
        return
    lines = [f"{field}: {message}" for _, field, message in found]
    said = lines[0] if len(lines) == 1 else f"[{', '.join(lines)}]"
    details = details_of(resource, name) | {"kind": resource.kind}
    details["causes"] = [{"reason": reason, "message": message, "field": field} for reason, field, message in found]
    raise ApiError(422, "Invalid", f'{resource.qualified_kind} "{name}" is invalid: {said}', details)


# Decoding ------------------------------------------------------------------------------------------------------------


@cache
def _validator(kind: str, api_version: str) -> Any:
    folder = f"kubernetes-json-schema/v{VERSION}.0-local-strict"
    group = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", api_version)
    try:
        schema = schemas.schema_contents(f"{folder}/{kind.lower()}-{group}.json", VERSION)
    except FileNotFoundError:
        return None
    definitions = Document.from_contents(schemas.schema_contents(f"{folder}/_definitions.json", VERSION))
    registry: Any = definitions @ (Document.from_contents(schema) @ Registry())
    return jsonschema.Draft202012Validator(schema, registry=registry)


def decode(resource: Resource, thing: Object, strictness: str) -> list[str]:
    """Drops unknown fields, as a lenient server does, and gives a warning for each; raises ApiError 400 for wrong types.

    ``strictness`` is the request's ``fieldValidation``: with Strict, unknown fields are refused too.
    """
    thing.setdefault("apiVersion", resource.api_version)
    thing.setdefault("kind", resource.kind)
    if (thing["apiVersion"], thing["kind"]) != (resource.api_version, resource.kind):
        raise bad_request(
            f"the API version in the data ({thing['apiVersion']}) or the kind ({thing['kind']}) does not match the "
            f"expected ones ({resource.api_version}, {resource.kind})"
        )
    if not isinstance(thing.get("metadata", {}), dict):
        raise bad_request("metadata is no object")
    validator = _validator(resource.kind, resource.api_version)
    unknown: list[tuple[list[Any], str]] = []
    for error in validator.iter_errors(thing) if validator else ():
        if error.validator == "additionalProperties" and error.schema.get("additionalProperties") is False:
            fields = set(error.instance) - set(error.schema.get("properties", {}))
            unknown += [(list(error.absolute_path), field) for field in fields]
        elif error.validator == "type" and not (error.instance is None and error.absolute_path):
            raise bad_request(
                f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}: json: cannot '
                f"unmarshal {_json_type(error.instance)} into Go struct field "
                f"{resource.kind}.{'.'.join(p for p in error.absolute_path if isinstance(p, str))} of type "
                f"{error.validator_value}"
            )
    warnings = [f'unknown field "{_path([*path, field])}"' for path, field in sorted(unknown, key=str)]
    if unknown and strictness == "Strict":
        raise bad_request(
            f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}: strict decoding '
            f"error: {', '.join(warnings)}"
        )
    for path, field in unknown:
        inner: Any = thing
        for step in path:
            inner = inner[step]
        inner.pop(field, None)
    return warnings


def _json_type(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    return {str: "string", dict: "object", list: "array"}.get(type(value), "number")


def _path(steps: list[Any]) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).lstrip(".")


def normalise(thing: Any, name: str = "") -> Any:
    """Quantities in their canonical form, fields that are null left out: what a round trip through the server does."""
    if isinstance(thing, dict):
        if name in ("requests", "limits", "hard", "capacity", "allocatable", "default", "defaultRequest", "max", "min"):
            return {key: _canonical(value) for key, value in thing.items()}
        return {
            key: _canonical(value) if key == "sizeLimit" else normalise(value, key)
            for key, value in thing.items()
            if value is not None
        }
    if isinstance(thing, list):
        return [normalise(value) for value in thing]
    return thing


def _canonical(value: Any) -> Any:
    try:
        return canonical(value)
    except ValueError as error:
        raise bad_request(f"unable to parse quantity {value!r}: {error}") from error


# Metadata ------------------------------------------------------------------------------------------------------------


def check_metadata(resource: Resource, thing: Object) -> Causes:
    meta = thing["metadata"]
    name = meta.get("name", "")
    if not name:
        yield _required("metadata.name", "name or generateName is required")
    elif resource.group == "rbac.authorization.k8s.io":
        if re.search(r"[/%]", name) or name in (".", ".."):
            yield _invalid("metadata.name", name, "may not contain '/' or '%'")
    elif resource.plural == "namespaces" and (len(name) > 63 or not _LABEL.fullmatch(name)):
        yield _invalid("metadata.name", name, _LABEL_RULE)
    elif not _SUBDOMAIN.fullmatch(name):
        yield _invalid("metadata.name", name, _SUBDOMAIN_RULE)
    elif len(name) > 253:
        yield _invalid("metadata.name", name, "must be no more than 253 characters")
    yield from check_labels(meta.get("labels"), "metadata.labels")
    yield from check_annotations(meta.get("annotations"), "metadata.annotations")


def check_labels(labels: Any, field: str) -> Causes:
    for key, value in (labels or {}).items():
        if why := _qualified(key):
            yield _invalid(field, key, why)
        if len(value) > 63:
            yield _invalid(field, value, "must be no more than 63 characters")
        if value and not _NAME_PART.fullmatch(value):
            yield _invalid(field, value, _VALUE_RULE)


def check_annotations(annotations: Any, field: str) -> Causes:
    size = 0
    for key, value in (annotations or {}).items():
        size += len(key) + len(value)
        if why := _qualified(key.lower()):
            yield _invalid(field, key, why)
    if size > 256 * 1024:
        yield "FieldValueTooLong", field, "Too long: may not be more than 262144 bytes"


def _qualified(key: str) -> str:
    prefix, slash, name = key.rpartition("/")
    if slash and (not _SUBDOMAIN.fullmatch(prefix) or len(prefix) > 253):
        return f"prefix part {_SUBDOMAIN_RULE}"
    if not name:
        return "name part must be non-empty"
    if len(name) > 63:
        return "name part must be no more than 63 characters"
    if not _NAME_PART.fullmatch(name):
        return (
            "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an "
            "alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
            "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
        )
    return ""


# Jobs ----------------------------------------------------------------------------------------------------------------

ACTIONS = ("Count", "FailIndex", "FailJob", "Ignore")


def check_job(job: Object) -> Causes:
    spec, name = job["spec"], job["metadata"].get("name", "")
    for field in (
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ):
        if spec.get(field, 0) < 0:
            yield _invalid(f"spec.{field}", spec[field], _NEGATIVE)
    yield from _check_completions(spec)
    completions = spec.get("completions")
    if spec["completionMode"] == "Indexed" and completions:
        longest = f"{name}-{completions - 1}"
        if len(longest) > 63 or not _LABEL.fullmatch(longest):
            yield _invalid("metadata.name", name, f"will not able to create pod with invalid DNS label: {longest}")
    labels = at(spec, "template", "metadata", "labels") or {}
    selected = at(spec, "selector", "matchLabels") or {}
    if not spec.get("manualSelector") and labels.get("batch.kubernetes.io/controller-uid") != job["metadata"].get(
        "uid"
    ):
        yield _invalid("spec.template.metadata.labels", labels, "must be '" + job["metadata"].get("uid", "") + "'")
    if any(labels.get(key) != value for key, value in selected.items()):
        yield _invalid("spec.template.metadata.labels", labels, "`selector` does not match template `labels`")
    if "podFailurePolicy" in spec:
        yield from _check_failure_policy(spec)
    replacement = spec.get("podReplacementPolicy")
    allowed = ("Failed",) if "podFailurePolicy" in spec else ("Failed", "TerminatingOrFailed")
    if replacement is not None and replacement not in allowed:
        yield _unsupported("spec.podReplacementPolicy", replacement, allowed)
    yield from check_labels(labels, "spec.template.labels")
    yield from check_annotations(at(spec, "template", "metadata", "annotations"), "spec.template.annotations")
    yield from check_pod_spec(spec["template"]["spec"], "spec.template.spec")
    restart, where = spec["template"]["spec"]["restartPolicy"], "spec.template.spec.restartPolicy"
    if restart == "Always":
        yield _required(where, 'valid values: "OnFailure", "Never"')
    elif restart not in ("OnFailure", "Never"):
        yield _unsupported(where, restart, ("OnFailure", "Never"))
    elif "podFailurePolicy" in spec and restart != "Never":
        yield _invalid(where, restart, 'only "Never" is supported when podFailurePolicy is specified')


def _check_completions(spec: Object) -> Causes:
    mode, completions = spec["completionMode"], spec.get("completions")
    if "maxFailedIndexes" in spec and "backoffLimitPerIndex" not in spec:
        yield _required("spec.backoffLimitPerIndex", "when maxFailedIndexes is specified")
    if mode not in ("Indexed", "NonIndexed"):
        yield _unsupported("spec.completionMode", mode, ("NonIndexed", "Indexed"))
    elif mode == "Indexed":
        if completions is None:
            yield _required("spec.completions", "when completion mode is Indexed")
        if spec.get("parallelism", 0) > 100_000:
            why = "must be less than or equal to 100000 when completion mode is Indexed"
            yield _invalid("spec.parallelism", spec["parallelism"], why)
        most = spec.get("maxFailedIndexes")
        if completions is not None and most is not None and most > completions:
            yield _invalid("spec.maxFailedIndexes", most, "must be less than or equal to completions")
        if most is not None and most > 100_000:
            yield _invalid("spec.maxFailedIndexes", most, "must be less than or equal to 100000")
        if completions is not None and completions > 100_000 and "backoffLimitPerIndex" in spec:
            yield from _check_many_indexes(spec)
    else:
        for field in ("backoffLimitPerIndex", "maxFailedIndexes", "successPolicy"):
            if field in spec:
                yield _invalid(f"spec.{field}", spec[field], "requires indexed completion mode")


def _check_many_indexes(spec: Object) -> Causes:
    above = "when completions are above 100000 and used with backoff limit per index"
    if "maxFailedIndexes" not in spec:
        yield _required("spec.maxFailedIndexes", "must be specified when completions is above 100000")
    for field in ("parallelism", "maxFailedIndexes"):
        if spec.get(field, 0) > 10_000:
            yield _invalid(f"spec.{field}", spec[field], f"must be less than or equal to 10000 {above}")


def _check_failure_policy(spec: Object) -> Causes:
    rules = spec["podFailurePolicy"].get("rules") or []
    if len(rules) > 20:
        yield _too_many("spec.podFailurePolicy.rules", len(rules), 20)
    template = spec["template"]["spec"]
    containers = {c.get("name") for key in ("containers", "initContainers") for c in template.get(key) or []}
    for number, rule in enumerate(rules):
        where = f"spec.podFailurePolicy.rules[{number}]"
        action, on_exit, conditions = rule.get("action"), rule.get("onExitCodes"), rule.get("onPodConditions")
        if not action:
            yield _required(f"{where}.action", f"valid values: {_quoted(ACTIONS)}")
        elif action not in ACTIONS:
            yield _unsupported(f"{where}.action", action, ACTIONS)
        elif action == "FailIndex" and "backoffLimitPerIndex" not in spec:
            yield _invalid(f"{where}.action", action, "requires the backoffLimitPerIndex to be set")
        if on_exit is not None:
            yield from _check_exit_codes(on_exit, f"{where}.onExitCodes", containers)
        if len(conditions or []) > 20:
            yield _too_many(f"{where}.onPodConditions", len(conditions), 20)
        for position, pattern in enumerate(conditions or []):
            spot = f"{where}.onPodConditions[{position}]"
            if why := _qualified(pattern.get("type", "")):
                yield _invalid(f"{spot}.type", pattern.get("type", ""), why)
            if pattern.get("status") not in ("True", "False", "Unknown"):
                yield _unsupported(f"{spot}.status", pattern.get("status"), ("False", "True", "Unknown"))
        if on_exit is not None and conditions:
            yield (
                "FieldValueInvalid",
                where,
                "Invalid value: specifying both OnExitCodes and OnPodConditions is not supported",
            )
        if on_exit is None and not conditions:
            yield (
                "FieldValueInvalid",
                where,
                "Invalid value: specifying one of OnExitCodes and OnPodConditions is required",
            )


def _check_exit_codes(on_exit: Object, where: str, containers: set[str]) -> Causes:
    operator, values = on_exit.get("operator"), on_exit.get("values") or []
    if not operator:
        yield _required(f"{where}.operator", f"valid values: {_quoted(('In', 'NotIn'))}")
    elif operator not in ("In", "NotIn"):
        yield _unsupported(f"{where}.operator", operator, ("In", "NotIn"))
    if on_exit.get("containerName") is not None and on_exit["containerName"] not in containers:
        why = "must be one of the container or initContainer names in the pod template"
        yield _invalid(f"{where}.containerName", on_exit["containerName"], why)
    if not values:
        yield _invalid(f"{where}.values", values, "at least one value is required")
    if len(values) > 255:
        yield _too_many(f"{where}.values", len(values), 255)
    for position, value in enumerate(values):
        if operator == "In" and value == 0:
            yield _invalid(f"{where}.values[{position}]", value, "must not be 0 for the In operator")
        if value in values[:position]:
            yield _duplicate(f"{where}.values[{position}]", value)
    if values != sorted(values):
        yield _invalid(f"{where}.values", values, "must be ordered")


def check_job_update(job: Object, old: Object) -> Causes:
    spec, before = job["spec"], old["spec"]
    fields = ["selector", "completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"]
    for field in fields if spec["completionMode"] == "Indexed" else ["completions", *fields]:
        if spec.get(field) != before.get(field):
            yield _invalid(f"spec.{field}", spec.get(field), "field is immutable")
    completions = spec.get("completions")
    if spec["completionMode"] == "Indexed" and completions not in (before.get("completions"), spec["parallelism"]):
        yield _invalid("spec.completions", completions, "can only be modified in tandem with spec.parallelism")
    template, was = spec["template"], before["template"]
    if before.get("suspend") and not at(old, "status", "startTime"):  # scheduling directives: Kueue sets them
        free = ("nodeSelector", "tolerations", "schedulingGates", "affinity")
        was = was | {"metadata": template.get("metadata", {})}
        was["spec"] = {k: v for k, v in was["spec"].items() if k not in free}
        was["spec"] |= {k: v for k, v in template["spec"].items() if k in free}
    if template != was:
        yield _invalid("spec.template", template, "field is immutable")


# Pods ----------------------------------------------------------------------------------------------------------------

_SCALARS = {
    "restartPolicy": ("Always", "OnFailure", "Never"),
    "dnsPolicy": ("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"),
    "preemptionPolicy": ("Never", "PreemptLowerPriority"),
}
_NO_FIELD_OF_THE_ENVIRONMENT = (
    *("metadata.annotations", "metadata.labels", "spec.restartPolicy", "spec.schedulerName", "status.phase"),
)
"""Fields that have a label, which is looked up first, and still cannot be had in a variable."""

_FIELD_PATHS = (
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
)
_STANDARD = {"cpu", "memory", "ephemeral-storage"}


def check_pod_spec(spec: Object, field: str) -> Causes:
    containers = spec.get("containers") or []
    if not containers:
        yield _required(f"{field}.containers")
    for name, allowed in _SCALARS.items():
        if name in spec and spec[name] not in allowed and not (name == "restartPolicy" and field != "spec"):
            yield _unsupported(f"{field}.{name}", spec[name], allowed)
    # A negative grace period is taken, and counts as one second when the pod is deleted.
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None and not 1 <= deadline <= 2**31 - 1:
        yield _invalid(f"{field}.activeDeadlineSeconds", deadline, "must be between 1 and 2147483647, inclusive")
    account = spec.get("serviceAccountName", "")
    if account and not _SUBDOMAIN.fullmatch(account):
        yield _invalid(f"{field}.serviceAccountName", account, _SUBDOMAIN_RULE)
    yield from check_labels(spec.get("nodeSelector"), f"{field}.nodeSelector")
    yield from _check_tolerations(spec.get("tolerations") or [], f"{field}.tolerations")
    volumes: list[str] = []
    for number, volume in enumerate(spec.get("volumes") or []):
        yield from _check_volume(volume, volumes, f"{field}.volumes[{number}]")
    seen: list[str] = []
    for key in ("initContainers", "containers"):
        for number, container in enumerate(spec.get(key) or []):
            yield from _check_container(container, seen, set(volumes), f"{field}.{key}[{number}]")
    security = spec.get("securityContext") or {}
    if security.get("runAsNonRoot") and security.get("runAsUser") == 0:
        pass  # taken by the server, refused by the kubelet
    for name in ("runAsUser", "runAsGroup", "fsGroup"):
        if not 0 <= security.get(name, 0) <= 2**31 - 1:
            yield _invalid(
                f"{field}.securityContext.{name}", security[name], "must be between 0 and 2147483647, inclusive"
            )
    yield from _check_seccomp(security, f"{field}.securityContext")


def _check_seccomp(security: Object, field: str) -> Causes:
    profile = security.get("seccompProfile")
    if profile is not None and profile.get("type") not in ("Localhost", "RuntimeDefault", "Unconfined"):
        yield _unsupported(
            f"{field}.seccompProfile.type", profile.get("type"), ("Localhost", "RuntimeDefault", "Unconfined")
        )


def _check_tolerations(tolerations: list[Object], field: str) -> Causes:
    for number, one in enumerate(tolerations):
        where, operator = f"{field}[{number}]", one.get("operator", "Equal")
        if operator not in ("Equal", "Exists"):
            yield _unsupported(f"{where}.operator", operator, ("Equal", "Exists"))
        if operator == "Exists" and one.get("value"):
            yield _invalid(f"{where}.operator", one, "value must be empty when `operator` is 'Exists'")
        if not one.get("key") and operator != "Exists":
            why = 'operator must be Exists when `key` is empty, which means "match all values and all keys"'
            yield _invalid(f"{where}.operator", operator, why)
        if one.get("key") and (why := _qualified(one["key"])):
            yield _invalid(f"{where}.key", one["key"], why)
        if one.get("effect") not in (None, "", "NoSchedule", "PreferNoSchedule", "NoExecute"):
            yield _unsupported(f"{where}.effect", one["effect"], ("NoSchedule", "PreferNoSchedule", "NoExecute"))
        if "tolerationSeconds" in one and one.get("effect") != "NoExecute":
            yield _invalid(
                f"{where}.effect", one.get("effect", ""), "effect must be 'NoExecute' when `tolerationSeconds` is set"
            )


def _check_volume(volume: Object, seen: list[str], where: str) -> Causes:
    name = volume.get("name", "")
    if not name:
        yield _required(f"{where}.name")
    elif len(name) > 63 or not _LABEL.fullmatch(name):
        yield _invalid(f"{where}.name", name, _LABEL_RULE)
    if name in seen:
        yield _duplicate(f"{where}.name", name)
    seen.append(name)
    sources = set(volume) - {"name"}
    if len(sources) > 1:
        yield (
            "FieldValueForbidden",
            f"{where}.{sorted(sources)[1]}",
            "Forbidden: may not specify more than 1 volume type",
        )
    size = at(volume, "emptyDir", "sizeLimit")  # its medium is the kubelet's business: any is taken here
    if size is not None and quantity(size) < 0:
        spot = f"{where}.emptyDir.sizeLimit"
        yield "FieldValueForbidden", spot, "Forbidden: SizeLimit field must be a valid resource quantity"
    if "secret" in volume and not at(volume, "secret", "secretName"):
        yield _required(f"{where}.secret.secretName")
    for source in ("configMap",):
        if source in volume and not at(volume, source, "name"):
            yield _required(f"{where}.{source}.name")


def _check_container(container: Object, seen: list[str], volumes: set[str], where: str) -> Causes:
    name = container.get("name", "")
    if not name:
        yield _required(f"{where}.name")
    elif len(name) > 63 or not _LABEL.fullmatch(name):
        yield _invalid(f"{where}.name", name, _LABEL_RULE)
    if name in seen:
        yield _duplicate(f"{where}.name", name)
    seen.append(name)
    if not container.get("image"):
        yield _required(f"{where}.image")
    elif container["image"] != container["image"].strip():
        yield _invalid(f"{where}.image", container["image"], "must not have leading or trailing whitespace")
    policies = {"imagePullPolicy": ("Always", "IfNotPresent", "Never")}
    policies["terminationMessagePolicy"] = ("FallbackToLogsOnError", "File")
    for field, allowed in policies.items():
        if container.get(field) not in (None, *allowed):
            yield _unsupported(f"{where}.{field}", container[field], allowed)
    for number, variable in enumerate(container.get("env") or []):
        yield from _check_variable(variable, f"{where}.env[{number}]")
    paths: list[str] = []
    for number, mount in enumerate(container.get("volumeMounts") or []):
        spot = f"{where}.volumeMounts[{number}]"
        if mount.get("name") not in volumes:
            yield "FieldValueNotFound", f"{spot}.name", f'Not found: "{mount.get("name")}"'
        if not mount.get("mountPath"):
            yield _required(f"{spot}.mountPath")
        if mount.get("mountPath") in paths:
            yield _invalid(f"{spot}.mountPath", mount["mountPath"], "must be unique")
        paths.append(mount.get("mountPath", ""))
    yield from _check_resources(container.get("resources") or {}, f"{where}.resources")
    security = container.get("securityContext") or {}
    if security.get("privileged") and security.get("allowPrivilegeEscalation") is False:
        why = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true"
        yield _invalid(f"{where}.securityContext", security, why)
    yield from _check_seccomp(security, f"{where}.securityContext")


def _check_variable(variable: Object, where: str) -> Causes:
    name, source = variable.get("name", ""), variable.get("valueFrom")
    if not name:
        yield _required(f"{where}.name")
    elif not _ENV.fullmatch(name):
        yield _invalid(
            f"{where}.name", name, "a valid environment variable name must consist of printable characters except '='"
        )
    if source is None:
        return
    if variable.get("value"):
        yield _invalid(f"{where}.valueFrom", "", "may not be specified when `value` is not empty")
    if len(source) != 1:
        why = "may not have more than one field specified at a time" if source else "must specify one of: `fieldRef`, "
        yield _invalid(
            f"{where}.valueFrom",
            "",
            why + ("" if source else "`resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`"),
        )
    path = at(source, "fieldRef", "fieldPath")
    if "fieldRef" in source and not (
        path in _FIELD_PATHS or re.fullmatch(r"metadata\.(labels|annotations)\['[^']+'\]", path or "")
    ):
        spot = f"{where}.valueFrom.fieldRef.fieldPath"
        if not path:
            yield _required(spot)
        elif path in _NO_FIELD_OF_THE_ENVIRONMENT:
            yield _unsupported(spot, path, _FIELD_PATHS)
        else:
            yield _invalid(spot, path, f"error converting fieldPath: field label not supported: {path}")
    for kind in ("secretKeyRef", "configMapKeyRef"):
        if kind in source and not source[kind].get("key"):
            yield _required(f"{where}.valueFrom.{kind}.key")


def _check_resources(resources: Object, where: str) -> Causes:
    requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
    for kind, amounts in (("limits", limits), ("requests", requests)):
        for name, text in amounts.items():
            spot = f"{where}.{kind}[{name}]"  # a key of a map, so in brackets
            if why := _qualified(name):
                yield _invalid(spot, name, why)
            elif "/" not in name and name not in _STANDARD and not name.startswith("hugepages-"):
                yield _invalid(spot, name, "must be a standard resource type or fully qualified")
                yield _invalid(spot, name, "must be a standard resource for containers")
            amount = quantity(text)
            if amount < 0:
                yield _invalid(spot, text, _NEGATIVE)
            if _is_extended(name) and amount != amount.to_integral_value():
                yield _invalid(spot, text, "must be an integer")
    for name, text in requests.items():
        limit = limits.get(name)
        whole = _is_extended(name) or name.startswith("hugepages-")  # never overcommitted
        if whole and limit is None:
            yield _required(f"{where}.limits", "Limit must be set for non overcommitable resources")
        elif whole and quantity(text) != quantity(limit):
            yield _invalid(f"{where}.requests", text, f"must be equal to {name} limit of {limit}")
        elif limit is not None and quantity(text) > quantity(limit):
            yield _invalid(f"{where}.requests", text, f"must be less than or equal to {name} limit of {limit}")
    named = {*requests, *limits}
    if any(name.startswith("hugepages-") for name in named) and not named & {"cpu", "memory"}:
        yield "FieldValueForbidden", where, "Forbidden: HugePages require cpu or memory"


def _is_extended(name: str) -> bool:
    """A resource of a device plugin: it has a domain, which is not Kubernetes' own."""
    return "/" in name and "kubernetes.io/" not in name


CHECKS: dict[Resource, Any] = {JOBS: check_job, PODS: lambda pod: check_pod_spec(pod["spec"], "spec")}


def check(resource: Resource, thing: Object) -> Causes:
    yield from check_metadata(resource, thing)
    if resource in CHECKS:
        yield from CHECKS[resource](thing)
