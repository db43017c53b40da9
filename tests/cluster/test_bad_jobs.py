"""Jobs that a real API server refuses, and in which words. Needs no pods: every one is a dry run."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes.client import ApiException, CustomObjectsApi

from tests.cluster.examples import DISRUPTED, INDEXED, job, rule
from tests.cluster.fixtures import Cluster, FakeCluster, RealCluster, client_of, is_offered

Change = Callable[[Any], object]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder: Path = tmp_path_factory.mktemp("cluster")
    with RealCluster(folder) if is_offered() else FakeCluster(folder) as made:
        yield made


def ask(cluster: Cluster, manifest: Any, **options: Any) -> Any:
    """A dry run, past the client's own checks of types."""
    api = CustomObjectsApi(client_of(cluster))
    return api.create_namespaced_custom_object(
        "batch", "v1", cluster.namespace, "jobs", manifest, dry_run="All", _preload_content=False, **options
    )


def spec(**fields: Any) -> Change:
    return lambda j: j["spec"].update(fields)


def pod(**fields: Any) -> Change:
    return lambda j: j["spec"]["template"]["spec"].update(fields)


def container(**fields: Any) -> Change:
    return lambda j: j["spec"]["template"]["spec"]["containers"][0].update(fields)


def policy(*rules: Any, **more: Any) -> Change:
    return lambda j: j["spec"].update(podFailurePolicy={"rules": list(rules)}, **more)


def resources(requests: Any = None, limits: Any = None) -> Change:
    return container(resources={"requests": requests or {}, "limits": limits or {}})


def named(name: str, **fields: Any) -> Change:
    return lambda j: (j["metadata"].update(name=name), j["spec"].update(fields))


GPU = "nvidia.com/gpu"

REFUSED: dict[str, tuple[Change, int, str]] = {
    # the change, the status, a part of the message
    "capital letters in the name": (named("Train"), 422, "a lowercase RFC 1123 subdomain must consist of"),
    "index does not fit into the pod's name": (
        named("a" * 62, **INDEXED),
        422,
        "will not able to create pod with invalid DNS label: " + "a" * 62 + "-1",
    ),
    "dotted name of an Indexed Job": (
        named("a.b", **INDEXED),
        422,
        "will not able to create pod with invalid DNS label",
    ),
    "label too long": (lambda j: j["metadata"].update(labels={"a": "x" * 64}), 422, "must be no more than 63"),
    "label with a slash": (lambda j: j["metadata"].update(labels={"a": "x/y"}), 422, "a valid label must be"),
    "label's name": (lambda j: j["metadata"].update(labels={"a b": "x"}), 422, "name part must consist of"),
    "selector of nodes is no label": (pod(nodeSelector={"sku": "-gpu-"}), 422, "a valid label must be"),
    "restart policy missing": (lambda j: j["spec"]["template"]["spec"].pop("restartPolicy"), 422, "Required value"),
    "restart policy unknown": (pod(restartPolicy="Sometimes"), 422, 'Unsupported value: "Sometimes"'),
    "OnFailure with a failure policy": (
        lambda j: (policy(rule("FailJob", 2))(j), pod(restartPolicy="OnFailure")(j)),
        422,
        'only "Never" is supported when podFailurePolicy is specified',
    ),
    "exit code 0": (policy(rule("FailJob", 0, 2)), 422, "must not be 0 for the In operator"),
    "exit codes out of order": (policy(rule("FailJob", 5, 2)), 422, "must be ordered"),
    "exit code twice": (policy(rule("FailJob", 2, 2)), 422, "Duplicate value: 2"),
    "no exit code": (policy(rule("FailJob")), 422, "at least one value is required"),
    "too many exit codes": (policy(rule("FailJob", *range(1, 257))), 422, "must have at most 255 items"),
    "too many rules": (policy(*[rule("Count", n) for n in range(1, 22)]), 422, "must have at most 20 items"),
    "unknown action": (policy(rule("Retry", 2)), 422, 'Unsupported value: "Retry"'),
    "unknown operator": (
        policy({"action": "FailJob", "onExitCodes": {"operator": "Equals", "values": [2]}}),
        422,
        'Unsupported value: "Equals"',
    ),
    "both kinds of requirement": (policy({**rule("Ignore", 2), **DISRUPTED}), 422, "specifying both"),
    "neither kind of requirement": (policy({"action": "Ignore"}), 422, "specifying one of"),
    "container of another name": (
        policy({"action": "FailJob", "onExitCodes": {"containerName": "x", "operator": "In", "values": [2]}}),
        422,
        "must be one of the container or initContainer names",
    ),
    "FailIndex without a limit per index": (
        policy(rule("FailIndex", 2), **INDEXED),
        422,
        "requires the backoffLimitPerIndex to be set",
    ),
    "replacement of terminating pods with a failure policy": (
        policy(DISRUPTED, podReplacementPolicy="TerminatingOrFailed"),
        422,
        'Unsupported value: "TerminatingOrFailed": supported values: "Failed"',
    ),
    "limit per index without indexes": (spec(backoffLimitPerIndex=1), 422, "requires indexed completion mode"),
    "failed indexes without a limit per index": (spec(maxFailedIndexes=1, **INDEXED), 422, "when maxFailedIndexes"),
    "more failed indexes than indexes": (
        spec(maxFailedIndexes=3, backoffLimitPerIndex=1, **INDEXED),
        422,
        "must be less than or equal to completions",
    ),
    "Indexed without completions": (
        spec(completionMode="Indexed", parallelism=2),
        422,
        "spec.completions: Required value: when completion mode is Indexed",
    ),
    "completion mode unknown": (spec(completionMode="Sharded"), 422, 'Unsupported value: "Sharded"'),
    "negative deadline": (spec(activeDeadlineSeconds=-1), 422, "must be greater than or equal to 0"),
    "negative time to live": (spec(ttlSecondsAfterFinished=-1), 422, "must be greater than or equal to 0"),
    "half a GPU": (
        resources({GPU: "0.5"}, {GPU: "0.5"}),
        422,
        f'resources.limits[{GPU}]: Invalid value: "500m": must be an integer',
    ),
    "GPU requested and not limited": (
        resources({GPU: "1"}),
        422,
        "resources.limits: Required value: Limit must be set for non overcommitable resources",
    ),
    "GPU request unlike its limit": (
        resources({GPU: "1"}, {GPU: "2"}),
        422,
        f'resources.requests: Invalid value: "1": must be equal to {GPU} limit of 2',
    ),
    "huge pages alone": (
        resources({"hugepages-2Mi": "4Mi"}, {"hugepages-2Mi": "4Mi"}),
        422,
        "HugePages require cpu or memory",
    ),
    "negative memory": (resources({}, {"memory": "-1Gi"}), 422, "resources.limits[memory]: Invalid value"),
    "request above the limit": (resources({"cpu": "2"}, {"cpu": "1"}), 422, "must be less than or equal to cpu limit"),
    "unknown resource": (resources({"gpu": "1"}, {"gpu": "1"}), 422, "must be a standard resource for containers"),
    "quantity with an unknown unit": (resources({"memory": "4GB"}), 400, "quantities must match"),
    "mount without a volume": (container(volumeMounts=[{"name": "a", "mountPath": "/a"}]), 422, 'Not found: "a"'),
    "two volumes of one name": (pod(volumes=[{"name": "a"}, {"name": "a"}]), 422, 'Duplicate value: "a"'),
    "volume of a negative size": (
        pod(volumes=[{"name": "a", "emptyDir": {"sizeLimit": "-1Gi"}}]),
        422,
        "emptyDir.sizeLimit: Forbidden: SizeLimit field must be a valid resource quantity",
    ),
    "two containers of one name": (
        lambda j: j["spec"]["template"]["spec"]["containers"].append(
            copy.deepcopy(j["spec"]["template"]["spec"]["containers"][0])
        ),
        422,
        'Duplicate value: "main"',
    ),
    "container without a name": (container(name=""), 422, "containers[0].name: Required value"),
    "no container": (pod(containers=[]), 422, "containers: Required value"),
    "pull policy": (container(imagePullPolicy="Sometimes"), 422, 'Unsupported value: "Sometimes"'),
    "value and reference": (
        container(env=[{"name": "A", "value": "b", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]),
        422,
        "may not be specified when `value` is not empty",
    ),
    "reference to an unknown field": (
        container(env=[{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.colour"}}}]),
        422,
        "error converting fieldPath: field label not supported: metadata.colour",
    ),
    "reference to a field that variables cannot have": (
        container(env=[{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "status.phase"}}}]),
        422,
        'Unsupported value: "status.phase"',
    ),
    "rule without an action": (
        policy({"onExitCodes": {"operator": "In", "values": [2]}}),
        422,
        'valid values: ["Count" "FailIndex" "FailJob" "Ignore"]',
    ),
    "more indexes than may back off each": (
        spec(completionMode="Indexed", completions=100_001, parallelism=2, backoffLimitPerIndex=1),
        422,
        "spec.maxFailedIndexes: Required value: must be specified when completions is above 100000",
    ),
    "toleration that exists with a value": (
        pod(tolerations=[{"key": "sku", "operator": "Exists", "value": "gpu"}]),
        422,
        "value must be empty when `operator` is 'Exists'",
    ),
    "text where a number is due": (spec(parallelism="2"), 400, "cannot unmarshal string"),
    "number where text is due": (container(env=[{"name": "A", "value": 1}]), 400, "cannot unmarshal number"),
    "unknown field": (spec(retries=3), 400, 'unknown field "spec.retries"'),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused(shared: Cluster, what: str) -> None:
    change, status, words = REFUSED[what]
    manifest = job("trial")
    change(manifest)
    with pytest.raises(ApiException) as refused:
        ask(shared, manifest, field_validation="Strict")
    answer = json.loads(refused.value.body)
    assert (refused.value.status, answer["kind"], answer["code"]) == (status, "Status", status)
    assert words in answer["message"]
    if status == 422:
        assert answer["reason"] == "Invalid"
        assert all({"reason", "message", "field"} <= set(cause) for cause in answer["details"]["causes"])


@pytest.mark.parametrize(
    "change",
    [
        spec(completionMode="Indexed"),  # neither completions nor parallelism: one of each
        pod(terminationGracePeriodSeconds=-1),  # counts as one second
        pod(volumes=[{"name": "a", "emptyDir": {"medium": "Disk"}}]),  # the kubelet refuses it
        container(securityContext={"runAsUser": 0, "runAsNonRoot": True}),  # the kubelet refuses it
    ],
    ids=["Indexed alone", "negative grace", "unknown medium", "root that is not root"],
)
def test_what_looks_wrong_and_is_taken(shared: Cluster, change: Change) -> None:
    manifest = job("trial")
    change(manifest)
    spec = json.loads(ask(shared, manifest, field_validation="Strict").data)["spec"]
    assert (spec["completions"], spec["parallelism"]) == (1, 1)


def test_taken(shared: Cluster) -> None:
    """What the refused ones are variations of is fine, with all that TicketSmith's Jobs use."""
    manifest = job("trial", **INDEXED, backoffLimitPerIndex=2, maxFailedIndexes=2, podReplacementPolicy="Failed")
    policy(DISRUPTED, rule("FailIndex", 2, 7), rule("FailJob", 8))(manifest)
    resources({GPU: "1", "cpu": "500m"}, {GPU: "1", "cpu": "1"})(manifest)
    ask(shared, manifest, field_validation="Strict")


def test_unknown_fields_are_dropped_with_a_warning_by_default(shared: Cluster) -> None:
    manifest = job("trial")
    manifest["spec"]["retries"] = 3
    answer = ask(shared, manifest)
    assert "retries" not in json.loads(answer.data)["spec"]
    assert 'unknown field \\"spec.retries\\"' in answer.headers["Warning"]
