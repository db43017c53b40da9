"""What a real API server refuses of a Job: what its published schema forbids, and the rules beyond that a target can break.

Recorded from a server of version 1.36: the status, the field and the words are its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import kubernetes_validate

from tests.cluster.resources import JOBS, Object, at, bad_request, invalid, quantity

VERSION = "1.36"
_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")


def check_schema(job: Object) -> None:
    """Raises ApiError 400 for unknown fields and wrong types."""
    try:
        kubernetes_validate.validate(job, VERSION, strict=True)
    except kubernetes_validate.ValidationError as error:
        raise bad_request(f'Job in version "v1" cannot be handled as a Job: {error.message}') from error


def check(job: Object, old: Object | None = None) -> None:
    """Raises ApiError 422 with every broken rule; ``old`` is the Job that is changed."""
    broken = [f"{field}: {why}" for field, why in (*_job(job), *_failure_policy(job["spec"]), *_pod(job["spec"]))]
    if old is not None:
        fields = ("completions", "completionMode", "podFailurePolicy", "backoffLimitPerIndex", "template", "selector")
        broken += [f"spec.{one}: field is immutable" for one in fields if job["spec"].get(one) != old["spec"].get(one)]
    if broken:
        raise invalid(JOBS, job["metadata"]["name"], ", ".join(broken))


def _job(job: Object) -> Iterator[tuple[str, str]]:
    spec, name = job["spec"], job["metadata"]["name"]
    indexed = spec["completionMode"] == "Indexed"
    longest = f"{name}-{(spec.get('completions') or 1) - 1}" if indexed else name
    if not _DNS_LABEL.fullmatch(longest):
        yield "metadata.name", f"will not able to create pod with invalid DNS label: {longest}"
    yield from _labels(job["metadata"].get("labels"), "metadata.labels")
    yield from _labels(at(spec, "template", "metadata", "labels"), "spec.template.labels")
    for field in ("parallelism", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished"):
        if spec.get(field, 0) < 0:
            yield f"spec.{field}", f"Invalid value: {spec[field]}: must be greater than or equal to 0"
    if indexed and spec.get("maxFailedIndexes", 0) > spec["completions"]:
        yield "spec.maxFailedIndexes", "must be less than or equal to completions"
    if not indexed and "backoffLimitPerIndex" in spec:
        yield "spec.backoffLimitPerIndex", "requires indexed completion mode"


def _labels(labels: Object | None, field: str) -> Iterator[tuple[str, str]]:
    for value in (labels or {}).values():
        if not _LABEL_VALUE.fullmatch(value):
            yield field, f"Invalid value: {value!r}: a valid label must be an empty string or consist of alphanumeric"


def _failure_policy(spec: Object) -> Iterator[tuple[str, str]]:
    if "podFailurePolicy" not in spec:
        return
    names = {container["name"] for container in spec["template"]["spec"]["containers"]}
    if spec["template"]["spec"].get("restartPolicy") != "Never":
        yield "spec.template.spec.restartPolicy", 'only "Never" is supported when podFailurePolicy is specified'
    if spec["podReplacementPolicy"] != "Failed":
        yield "spec.podReplacementPolicy", 'Unsupported value: supported values: "Failed"'
    for number, rule in enumerate(spec["podFailurePolicy"]["rules"]):
        where, on_exit = f"spec.podFailurePolicy.rules[{number}]", rule.get("onExitCodes")
        if rule["action"] == "FailIndex" and "backoffLimitPerIndex" not in spec:
            yield f"{where}.action", "requires the backoffLimitPerIndex to be set"
        if on_exit is None:
            continue
        values = on_exit["values"]
        if values != sorted(set(values)) or not 0 < len(values) <= 255:
            yield f"{where}.onExitCodes.values", "must be ordered, without duplicates, and 1 to 255 of them"
        if on_exit["operator"] == "In" and 0 in values:
            yield f"{where}.onExitCodes.values", "must not be 0 for the In operator"
        if on_exit.get("containerName") not in (None, *names):
            yield f"{where}.onExitCodes.containerName", "must be one of the container or initContainer names"


def _pod(spec: Object) -> Iterator[tuple[str, str]]:
    pod = spec["template"]["spec"]
    yield from _labels(pod.get("nodeSelector"), "spec.template.spec.nodeSelector")
    volumes = [volume["name"] for volume in pod.get("volumes") or []]
    for number, container in enumerate(pod["containers"]):
        where = f"spec.template.spec.containers[{number}]"
        paths = [mount["mountPath"] for mount in container.get("volumeMounts") or []]
        if len(paths) != len(set(paths)):
            yield f"{where}.volumeMounts", "must be unique"
        for mount in container.get("volumeMounts") or []:
            if mount["name"] not in volumes:
                yield f"{where}.volumeMounts.name", f'Not found: "{mount["name"]}"'
        yield from _resources(container.get("resources") or {}, f"{where}.resources")


def _resources(resources: Object, where: str) -> Iterator[tuple[str, str]]:
    requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
    for name, text in (*requests.items(), *limits.items()):
        try:
            amount = quantity(text)
        except ValueError as error:
            raise bad_request(f"unable to parse quantity {text!r}: {error}") from error
        if amount < 0:
            yield f"{where}[{name}]", "must be greater than or equal to 0"
        if "/" in name and amount != amount.to_integral_value():
            yield f"{where}[{name}]", f"Invalid value: {text!r}: must be an integer"
        if "/" not in name and name not in ("cpu", "memory", "ephemeral-storage"):
            yield f"{where}[{name}]", "must be a standard resource for containers"
    for name, text in requests.items():
        if "/" in name and name not in limits:
            yield f"{where}.limits", "Limit must be set for non overcommitable resources"
        elif "/" in name and quantity(text) != quantity(limits[name]):
            yield f"{where}.requests", f"must be equal to {name} limit of {limits[name]}"
        elif name in limits and quantity(text) > quantity(limits[name]):
            yield f"{where}.requests", f"must be less than or equal to {name} limit of {limits[name]}"
