"""What a real API server fills in, so that what is read back has more fields than what was sent."""

from __future__ import annotations

from typing import Any

from tests.cluster.resources import JOBS, PODS, Object, Resource

UNLIMITED = 2**31 - 1
_NOT_READY = [
    {"key": f"node.kubernetes.io/{what}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
    for what in ("not-ready", "unreachable")
]


def fill_in(resource: Resource, thing: Object) -> None:
    if resource is JOBS:
        _job(thing)
    elif resource is PODS:
        _pod(thing)
    elif resource.plural == "namespaces":
        thing.setdefault("spec", {}).setdefault("finalizers", ["kubernetes"])
        thing.setdefault("status", {})["phase"] = "Active"
        thing["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = thing["metadata"].get("name", "")
    elif resource.plural == "secrets":
        _encode(thing)


def generate_selector(job: Object) -> None:
    """Selector and labels that tie pods to this very Job; needs its uid."""
    spec, meta = job["spec"], job["metadata"]
    if spec.get("manualSelector"):
        return
    labels = spec["template"].setdefault("metadata", {}).setdefault("labels", {})
    for prefix in ("", "batch.kubernetes.io/"):
        labels.setdefault(f"{prefix}controller-uid", meta["uid"])
        labels.setdefault(f"{prefix}job-name", meta["name"])
    match = spec.setdefault("selector", {}).setdefault("matchLabels", {})
    match.setdefault("batch.kubernetes.io/controller-uid", meta["uid"])
    if not meta.get("labels"):
        meta["labels"] = dict(labels)  # a Job without labels of its own takes its template's


def _job(job: Object) -> None:
    spec = job.setdefault("spec", {})
    template = spec.setdefault("template", {})
    if "completions" not in spec and "parallelism" not in spec:  # Indexed ones too
        spec["completions"] = 1
    spec.setdefault("parallelism", 1)
    spec.setdefault("backoffLimit", UNLIMITED if "backoffLimitPerIndex" in spec else 6)
    spec.setdefault("completionMode", "NonIndexed")
    spec.setdefault("suspend", False)
    spec.setdefault("manualSelector", False)
    spec.setdefault("podReplacementPolicy", "Failed" if "podFailurePolicy" in spec else "TerminatingOrFailed")
    for rule in (spec.get("podFailurePolicy") or {}).get("rules") or []:
        for pattern in rule.get("onPodConditions") or []:
            pattern.setdefault("status", "True")
    labels = (template.get("metadata") or {}).get("labels")
    if labels and not job["metadata"].get("labels"):
        job["metadata"]["labels"] = dict(labels)
    template.setdefault("metadata", {})
    _pod_spec(template.setdefault("spec", {}))
    job.setdefault("status", {})


def _pod(pod: Object) -> None:
    spec = pod.setdefault("spec", {})
    _pod_spec(spec)
    spec.setdefault("enableServiceLinks", True)
    spec.setdefault("serviceAccountName", "default")
    spec["serviceAccount"] = spec["serviceAccountName"]
    spec.setdefault("preemptionPolicy", "PreemptLowerPriority")
    spec.setdefault("priority", 0)
    tolerated = {(t.get("key"), t.get("effect")) for t in spec.get("tolerations") or []}
    spec["tolerations"] = [
        *(spec.get("tolerations") or []),
        *(dict(t) for t in _NOT_READY if (t["key"], t["effect"]) not in tolerated),
    ]
    for container in spec.get("containers") or []:
        resources = container["resources"]
        if resources.get("limits"):
            resources["requests"] = {**resources["limits"], **(resources.get("requests") or {})}
    status = pod.setdefault("status", {})
    status.setdefault("phase", "Pending")
    status.setdefault("qosClass", _qos(spec.get("containers") or []))


def _pod_spec(spec: Object) -> None:
    defaults: Object = {
        "restartPolicy": "Always",
        "dnsPolicy": "ClusterFirst",
        "schedulerName": "default-scheduler",
        "terminationGracePeriodSeconds": 30,
        "securityContext": {},
    }
    for name, value in defaults.items():
        spec.setdefault(name, value)
    if "serviceAccountName" in spec:
        spec.setdefault("serviceAccount", spec["serviceAccountName"])
    for volume in spec.get("volumes") or []:
        if set(volume) == {"name"}:
            volume["emptyDir"] = {}
        for source in ("configMap", "secret"):
            if source in volume:
                volume[source].setdefault("defaultMode", 420)
    for container in [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]:
        image = container.get("image", "")
        tag = image.rpartition("/")[2].partition(":")[2]
        latest = "@" not in image and tag in ("", "latest")
        container.setdefault("imagePullPolicy", "Always" if latest else "IfNotPresent")
        container.setdefault("resources", {})
        container.setdefault("terminationMessagePath", "/dev/termination-log")
        container.setdefault("terminationMessagePolicy", "File")
        for variable in container.get("env") or []:
            reference = (variable.get("valueFrom") or {}).get("fieldRef")
            if reference is not None:
                reference.setdefault("apiVersion", "v1")
        for port in container.get("ports") or []:
            port.setdefault("protocol", "TCP")


def _qos(containers: list[Any]) -> str:
    amounts = [(c["resources"].get("requests") or {}, c["resources"].get("limits") or {}) for c in containers]
    if all(not requests and not limits for requests, limits in amounts):
        return "BestEffort"
    both = ("cpu", "memory")
    exact = all(
        limits.get(name) and requests.get(name) == limits[name] for requests, limits in amounts for name in both
    )
    return "Guaranteed" if exact else "Burstable"


def _encode(secret: Object) -> None:
    """``stringData`` is for writing only."""
    import base64

    secret.setdefault("type", "Opaque")
    for key, text in (secret.pop("stringData", None) or {}).items():
        secret.setdefault("data", {})[key] = base64.b64encode(text.encode()).decode()
