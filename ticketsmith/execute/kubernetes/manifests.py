"""What Jobs look like: ``batch/v1`` manifests as plain data. Pure.

Documented fields only, all of them stable by Kubernetes 1.34: per-index back-off (1.33), pod failure policies (1.31), pod
replacement policy (1.34, beta and on by default since 1.29).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ticketsmith.config.target import Pool, Target
from ticketsmith.errors import Exit
from ticketsmith.execute.kubernetes.jobs import experiment_id, slug

CONTAINER = "ticketsmith"
MANAGER = "ticketsmith"
"""Field manager of server-side apply."""

CONDUCTOR_GRACE = 30
"""Seconds; the conductor has nothing to save."""

BEGUN = "ticketsmith.io/begun"
"""Annotation of a conductor's Job: the pod that has read the store and reached the API server; empty before."""

_NODE_AND_IMAGE = 600  # seconds that a node may take to start and to pull the image

_USER = 10001  # the image's, which is not root
_SIGTERM = 143  # a pod that was asked to end before Python could listen
_SAFETY_NET = 7 * 86400  # seconds; the conductor lowers it as soon as the logs are in the store
_LAST_WORDS = 60  # seconds; so that whoever waits for a conductor can read why it did not begin


def training_job(name: str, experiment: str, variant: str, seeds: Sequence[int], digest: str, target: Target) -> Any:
    """One variant: an index a replicate. ``digest`` is the SHA-256 of its ``job.json``, which pods check."""
    pool, limits = target.train, target.limits
    arguments = ["work", "--store", target.store, "--experiment", experiment, "--job", name, "--sha256", digest]
    pod = _pod(target, pool, target.worker_account, arguments, limits.grace)
    if target.priority_class is not None:
        pod["spec"]["priorityClassName"] = target.priority_class
    if not pool.spot:  # a node is not emptied for tidiness while a run is under way
        pod["metadata"]["annotations"] = {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false"}
    job = _job(name, experiment, "train", variant, target, pod, limits.deadline)
    job["spec"] |= {
        "completionMode": "Indexed",
        "completions": len(seeds),
        "parallelism": min(len(seeds), pool.parallelism),
        "backoffLimitPerIndex": limits.retries,
        "maxFailedIndexes": len(seeds),  # a replicate that fails leaves the others alone
        "podFailurePolicy": {
            "rules": [
                _disrupted(),
                # Asked to end from outside, and its checkpoint saved: no fault of the run.
                _on_exit("Ignore", Exit.INTERRUPTED, _SIGTERM),
                _on_exit("FailJob", Exit.IDLE_GPU),
                # Trying again would end in the same way.
                _on_exit("FailIndex", Exit.BAD_INPUT, Exit.OUT_OF_MEMORY),
            ]
        },
    }
    job["metadata"]["annotations"]["ticketsmith.io/seeds"] = ",".join(map(str, seeds))
    _queue(job, target)
    return job


def report_job(name: str, experiment: str, target: Target) -> Any:
    """Gates, benchmark and report, without a GPU."""
    arguments = ["finish", "--store", target.store, "--experiment", experiment, "--job", name, "--base", target.base]
    if not target.benchmark:
        arguments.append("--no-benchmark")
    pod = _pod(target, target.cpu, target.worker_account, arguments, target.limits.grace)
    job = _job(name, experiment, "report", "report", target, pod, target.limits.report_deadline)
    job["spec"] |= {
        "backoffLimit": target.limits.retries,
        "podFailurePolicy": {"rules": [_disrupted(), _on_exit("FailJob", Exit.BAD_INPUT, Exit.OUT_OF_MEMORY)]},
    }
    return job


def conductor_job(name: str, experiment: str, target: Target) -> Any:
    """What begins all other Jobs. It keeps nothing in memory: killed, it is begun again and goes on.

    Its deadline is short until it has begun, and raised by itself then (``Cluster.mark_begun``). It keeps its log by itself,
    and nobody would lower how long it stays should it never begin.
    """
    arguments = ["conduct", "--store", target.store, "--experiment", experiment, "--job", name]
    pod = _pod(target, target.cpu, target.conductor_account, arguments, CONDUCTOR_GRACE)
    pod["spec"]["automountServiceAccountToken"] = True  # the only pod that talks to the API server
    if target.conductor_priority_class is not None:
        pod["spec"]["priorityClassName"] = target.conductor_priority_class
    job = _job(name, experiment, "conductor", "conductor", target, pod, first_deadline(target))
    job["metadata"]["annotations"][BEGUN] = ""
    job["spec"]["ttlSecondsAfterFinished"] = max(target.limits.keep, _LAST_WORDS)
    ends = (Exit.BAD_INPUT, Exit.OVER_BUDGET, Exit.LOST)
    job["spec"] |= {
        "backoffLimit": 10,
        "podFailurePolicy": {
            "rules": [_disrupted(), _on_exit("Ignore", Exit.INTERRUPTED, _SIGTERM), _on_exit("FailJob", *ends)]
        },
    }
    return job


def first_deadline(target: Target) -> int:
    """Seconds that a conductor's Job may take before it has begun; then it is given ``limits.experiment``."""
    return min(target.limits.experiment, target.limits.stuck + _NODE_AND_IMAGE)


def has_begun(job: Any) -> bool:
    """Whether a conductor has said on its Job that it is at work."""
    return (job["metadata"].get("annotations") or {}).get(BEGUN) != ""  # earlier versions did not say


def labels_of(experiment: str, store: str) -> dict[str, str]:
    """Labels that select an experiment's Jobs and pods."""
    return {
        "app.kubernetes.io/name": "ticketsmith",
        "ticketsmith.io/experiment-id": experiment_id(store, experiment),
    }


def selector_of(experiment: str | None = None, store: str = "") -> str:
    """The same as a label selector; without an experiment: all of TicketSmith's."""
    labels = labels_of(experiment, store) if experiment is not None else {"app.kubernetes.io/name": "ticketsmith"}
    return ",".join(f"{name}={value}" for name, value in labels.items())


def _job(name: str, experiment: str, component: str, variant: str, target: Target, pod: Any, deadline: int) -> Any:
    labels = {
        **labels_of(experiment, target.store),
        "app.kubernetes.io/component": component,
        "app.kubernetes.io/managed-by": MANAGER,
        "ticketsmith.io/experiment": slug(experiment)[:63].strip("-"),
        "ticketsmith.io/variant": slug(variant),
    }
    pod["metadata"]["labels"] |= labels
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "namespace": target.namespace,
            "labels": labels,
            "annotations": {"ticketsmith.io/experiment": experiment, "ticketsmith.io/store": target.store},
        },
        "spec": {
            "activeDeadlineSeconds": deadline,
            "ttlSecondsAfterFinished": max(_SAFETY_NET, target.limits.keep),
            "podReplacementPolicy": "Failed",  # never two pods on one replicate
            "template": pod,
        },
    }


def _pod(target: Target, pool: Pool, account: str, arguments: list[str], grace: int) -> Any:
    resources: dict[str, str] = {"cpu": pool.cpu, "memory": pool.memory}
    if pool.gpus:
        resources["nvidia.com/gpu"] = str(pool.gpus)
    volumes: list[Any] = [
        {"name": "work", "emptyDir": {"sizeLimit": pool.disk}},
        {"name": "tmp", "emptyDir": {"sizeLimit": pool.disk}},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": pool.shared_memory}},
    ]
    mounts: list[Any] = [
        {"name": "work", "mountPath": "/work"},
        {"name": "tmp", "mountPath": "/tmp"},
        {"name": "shm", "mountPath": "/dev/shm"},
    ]
    for number, volume in enumerate(target.volumes):
        claim = {"claimName": volume.claim, "readOnly": True}
        volumes.append({"name": f"data-{number}", "persistentVolumeClaim": claim})
        mounts.append({"name": f"data-{number}", "mountPath": volume.path, "readOnly": True})
    container = {
        "name": CONTAINER,
        "image": target.image,
        "imagePullPolicy": target.pull,
        "args": arguments,
        "env": _environment(target),
        "resources": {"requests": dict(resources), "limits": dict(resources)},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": mounts,
        "terminationMessagePolicy": "FallbackToLogsOnError",  # the last lines stay with the pod's status
    }
    spec: dict[str, Any] = {
        "restartPolicy": "Never",  # as a pod failure policy asks for
        "serviceAccountName": account,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        # Not process number 1: that one ignores SIGTERM until Python listens, and would be killed after its grace period.
        "shareProcessNamespace": True,
        "terminationGracePeriodSeconds": grace,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "fsGroup": _USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": volumes,
    }
    if pool.node_selector:
        spec["nodeSelector"] = dict(pool.node_selector)
    if pool.tolerations:
        spec["tolerations"] = [toleration.model_dump(exclude_none=True) for toleration in pool.tolerations]
    if target.pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in target.pull_secrets]
    labels = {"azure.workload.identity/use": "true"} if target.account is not None else {}
    return {"metadata": {"labels": labels}, "spec": spec}


def _environment(target: Target) -> list[Any]:
    """Where the pod is, and how it signs in to the store: a reference to a Secret, never a value."""
    variables: list[Any] = [
        {"name": "TICKETSMITH_POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "TICKETSMITH_NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        {"name": "TICKETSMITH_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
    ]
    if target.account is not None:
        variables.append({"name": "AZURE_STORAGE_ACCOUNT", "value": target.account})
    if target.connection_secret is not None:
        reference = {"name": target.connection_secret.name, "key": target.connection_secret.key}
        variables.append({"name": "AZURE_STORAGE_CONNECTION_STRING", "valueFrom": {"secretKeyRef": reference}})
    return variables


def _queue(job: Any, target: Target) -> None:
    if target.queue is None:
        return
    # `suspend` is left to Kueue: it suspends at admission and begins the Job when there is quota.
    job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] = target.queue
    job["metadata"]["labels"]["kueue.x-k8s.io/max-exec-time-seconds"] = str(target.limits.deadline)


def _disrupted() -> Any:
    """Evictions, drains, preemptions: free, and first, since the process ends with a status too."""
    return {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}


def _on_exit(action: str, *statuses: int) -> Any:
    values = sorted(int(status) for status in statuses)
    return {"action": action, "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": values}}
