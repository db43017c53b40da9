"""Manifests as one who runs clusters would read them, checked against the server's schema and the rules beyond it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from kubernetes_validate import validate

from tests.cluster.registry import Registry
from tests.cluster.resources import JOBS, Clock
from tests.cluster.storage import Storage
from tests.execute.kubernetes.experiments import plan_of, target_of
from ticketsmith.errors import Exit, RecipeError
from ticketsmith.execute.kubernetes import manifests
from ticketsmith.execute.kubernetes.submit import propose

SPOT = (
    "train.spot=true",
    "train.tolerations=[{key: sku, value: gpu}, {key: nvidia.com/gpu, operator: Exists}]",
    "train.node_selector={ticketsmith.io/pool: gpu-spot}",
)


def jobs(*overrides: str) -> dict[str, Any]:
    proposal = propose(plan_of(), target_of(*overrides), None)
    return {job["metadata"]["labels"]["ticketsmith.io/variant"]: job for job in proposal.manifests()}


def pod_of(job: Any) -> Any:
    return job["spec"]["template"]["spec"]


@pytest.mark.parametrize("version", ["1.31", "1.33", "1.36"])
@pytest.mark.parametrize(
    "overrides", [(), SPOT, ("queue=research", "priority_class=low")], ids=["plain", "spot", "kueue"]
)
def test_the_servers_schema_accepts_every_job(version: str, overrides: tuple[str, ...]) -> None:
    by_variant = jobs(*overrides)
    assert set(by_variant) == {"conductor", "dense", "ticket", "random-reinit", "random-ticket", "report"}
    for job in by_variant.values():
        validate(job, version, strict=True)
        Registry(Storage(Clock())).create(JOBS, job, dry_run=True)  # and its rules beyond the schema


def test_every_job_is_bounded_in_time_and_tries() -> None:
    for variant, job in jobs().items():
        spec = job["spec"]
        assert spec["activeDeadlineSeconds"] > 0
        assert spec["ttlSecondsAfterFinished"] > 0
        assert spec.get("backoffLimitPerIndex", spec.get("backoffLimit")) is not None, variant
        assert spec["podReplacementPolicy"] == "Failed"
        assert pod_of(job)["restartPolicy"] == "Never"
    assert jobs()["dense"]["spec"]["activeDeadlineSeconds"] == 3600


def test_replicates_are_indexes_and_as_many_run_at_once_as_the_pool_allows() -> None:
    spec = jobs()["ticket"]["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 3, 2)


def test_a_disruption_is_free_and_bad_input_is_never_tried_again() -> None:
    rules = jobs()["dense"]["spec"]["podFailurePolicy"]["rules"]
    assert rules[0] == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    actions = {value: rule["action"] for rule in rules[1:] for value in rule["onExitCodes"]["values"]}
    assert actions[Exit.BAD_INPUT] == actions[Exit.OUT_OF_MEMORY] == "FailIndex"
    assert actions[Exit.INTERRUPTED] == "Ignore"
    assert actions[Exit.IDLE_GPU] == "FailJob"
    assert Exit.INCOMPLETE not in actions  # the store was away: tried again, within limits
    assert 0 not in actions
    report = jobs()["report"]["spec"]["podFailurePolicy"]["rules"]
    assert {rule["action"] for rule in report} == {"Ignore", "FailJob"}  # FailIndex is for Indexed Jobs only


def test_pods_have_no_more_rights_than_they_need() -> None:
    for variant, job in jobs().items():
        pod, (container,) = pod_of(job), pod_of(job)["containers"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == 10001
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert pod["automountServiceAccountToken"] is (variant == "conductor")
        assert pod["serviceAccountName"] == (
            "ticketsmith-conductor" if variant == "conductor" else "ticketsmith-worker"
        )
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert not any("hostPath" in volume for volume in pod["volumes"])


def test_only_training_pods_ask_for_gpus() -> None:
    by_variant = jobs(*SPOT)
    assert pod_of(by_variant["ticket"])["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert {"key": "sku", "operator": "Equal", "value": "gpu", "effect": "NoSchedule"} in pod_of(by_variant["ticket"])[
        "tolerations"
    ]
    for variant in ("report", "conductor"):
        assert "nvidia.com/gpu" not in pod_of(by_variant[variant])["containers"][0]["resources"]["limits"]
        assert "tolerations" not in pod_of(by_variant[variant])


def test_a_node_is_kept_for_a_run_unless_it_is_evictable_anyway() -> None:
    annotation = "cluster-autoscaler.kubernetes.io/safe-to-evict"
    assert jobs()["dense"]["spec"]["template"]["metadata"]["annotations"][annotation] == "false"
    assert "annotations" not in jobs(*SPOT)["dense"]["spec"]["template"]["metadata"]


def test_secrets_are_referred_to_and_never_written() -> None:
    secret = "AccountKey=c2VjcmV0"
    text = json.dumps(list(jobs().values()))
    assert '"secretKeyRef": {"name": "ticketsmith-store", "key": "connection-string"}' in text
    assert secret not in text
    identity = jobs("connection_secret=null", "account=mystorage")
    assert "secretKeyRef" not in json.dumps(identity)
    for job in identity.values():
        assert job["spec"]["template"]["metadata"]["labels"]["azure.workload.identity/use"] == "true"
        assert {"name": "AZURE_STORAGE_ACCOUNT", "value": "mystorage"} in pod_of(job)["containers"][0]["env"]


def test_kueue_gets_its_label_on_training_jobs_and_keeps_suspend_for_itself() -> None:
    by_variant = jobs("queue=research")
    assert by_variant["ticket"]["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "research"
    assert "kueue.x-k8s.io/queue-name" not in by_variant["report"]["metadata"]["labels"]
    assert all("suspend" not in job["spec"] for job in by_variant.values())
    assert "kueue.x-k8s.io/queue-name" not in jobs()["ticket"]["metadata"]["labels"]


def test_data_volumes_are_mounted_read_only_in_every_pod() -> None:
    for job in jobs("volumes=[{claim: images, path: /data/images}]").values():
        mounts = pod_of(job)["containers"][0]["volumeMounts"]
        assert {"name": "data-0", "mountPath": "/data/images", "readOnly": True} in mounts


def test_labels_and_names_keep_to_the_rules_whatever_the_experiment_is_called() -> None:
    name = "An_Experiment.with-a-long-name-" + "9" * 60
    job = manifests.training_job("ts-x", name, "random_reinit", [0], "0" * 64, target_of())
    for value in job["metadata"]["labels"].values():
        assert len(value) <= 63
        assert value.replace("-", "").replace(".", "").isalnum()
    assert job["metadata"]["annotations"]["ticketsmith.io/experiment"] == name


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("store=runs", "pods need `az://<container>/<prefix>`"),
        ("image=<registry>/x", "put your own value"),
        ("limits.deadline=soon", "expected a time such as `90s`"),
        ("limits.deadline=0s", "greater than 0"),
        ("train.memory=lots", "expected a quantity"),
        ("namespace=My_Space", "expected a Kubernetes name"),
        ("account=other", "one of the two"),
        ("train.gpu=1", "Did you mean 'gpus'?"),
        ("budget.money=-1", "greater than 0"),
    ],
)
def test_a_wrong_target_is_told_with_its_field_and_mend(override: str, message: str) -> None:
    with pytest.raises(RecipeError) as refusal:
        target_of(override)
    assert message in str(refusal.value)
    assert override.partition("=")[0].split(".")[-1] in str(refusal.value)


def test_a_deadline_is_required() -> None:
    with pytest.raises(RecipeError, match=r"limits.deadline: is needed but not given"):
        target_of("limits={}")
