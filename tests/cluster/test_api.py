"""The manners of the API that the product depends on, by the official client; and faults that do what they say."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import urllib3
from kubernetes.client import ApiException, BatchV1Api, CoreV1Api, RbacAuthorizationV1Api

from tests.cluster.examples import DISRUPTED, INDEXED, SLEEP, condition, container_of, job, rule
from tests.cluster.fixtures import Cluster, FakeCluster, RealCluster, client_of, is_offered
from tests.cluster.steps import end, running, start

APPLY, MERGE = "application/apply-patch+yaml", "application/merge-patch+json"
GPU = "nvidia.com/gpu"
LOST = (urllib3.exceptions.HTTPError, ConnectionError)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One for all: most tests here make no pods."""
    folder = tmp_path_factory.mktemp("cluster")
    with RealCluster(folder) if is_offered() else FakeCluster(folder) as one:
        yield one


@pytest.fixture
def batch(cluster: Cluster) -> BatchV1Api:
    return BatchV1Api(client_of(cluster))


def apply(batch: BatchV1Api, namespace: str, manifest: Any, **more: Any) -> Any:
    more |= {"field_manager": "tests", "force": True, "field_validation": "Strict"}
    name, content = manifest["metadata"]["name"], {"_content_type": APPLY, "_preload_content": False}
    return json.loads(batch.patch_namespaced_job(name, namespace, manifest, **content, **more).data)


# Objects -------------------------------------------------------------------------------------------------------------


def test_apply_creates_and_repeats_without_a_change(cluster: Cluster, batch: BatchV1Api) -> None:
    manifest = job("applied", suspend=True)
    apply(batch, cluster.namespace, manifest)
    live = cluster.wait_for(lambda: condition(cluster.job("applied"), "Suspended") and cluster.job("applied"))
    assert live["spec"]["podReplacementPolicy"] == "TerminatingOrFailed"
    assert live["spec"]["selector"]["matchLabels"].items() <= live["spec"]["template"]["metadata"]["labels"].items()
    again = apply(batch, cluster.namespace, manifest)
    assert again["metadata"]["resourceVersion"] == live["metadata"]["resourceVersion"]


def test_a_merge_changes_times_and_never_the_template(cluster: Cluster, batch: BatchV1Api) -> None:
    batch.create_namespaced_job(cluster.namespace, job("merged", suspend=True))
    change: Any = {"metadata": {"annotations": {"a": "b"}}, "spec": {"activeDeadlineSeconds": 99}}
    changed = batch.patch_namespaced_job("merged", cluster.namespace, change, _content_type=MERGE)
    assert (changed.spec.active_deadline_seconds, changed.metadata.annotations["a"]) == (99, "b")
    image = {"template": {"spec": {"containers": [{"name": "main", "image": "other:1"}]}}}
    for spec, field in ((image, "spec.template"), ({"completions": 2}, "spec.completions")):
        with pytest.raises(ApiException, match="field is immutable") as error:
            batch.patch_namespaced_job("merged", cluster.namespace, {"spec": spec}, _content_type=MERGE)
        assert error.value.status == 422
        assert field in error.value.body


def test_a_dry_run_checks_everything_and_keeps_nothing(cluster: Cluster, batch: BatchV1Api) -> None:
    assert apply(batch, cluster.namespace, job("dry"), dry_run="All")["metadata"]["uid"]
    with pytest.raises(ApiException):
        batch.read_namespaced_job("dry", cluster.namespace)


Change = Callable[[Any], object]


def spec(**fields: Any) -> Change:
    return lambda j: j["spec"].update(fields)


def policy(*rules: Any, **more: Any) -> Change:
    return spec(podFailurePolicy={"rules": list(rules)}, **more)


def resources(requests: Any, limits: Any) -> Change:
    return lambda j: container_of(j).update(resources={"requests": requests, "limits": limits})


REFUSED: dict[str, tuple[Change, int, str]] = {
    # the change, the status, a part of the message
    "no room for the index in a pod's name": (
        lambda j: (j["metadata"].update(name="a" * 62), j["spec"].update(INDEXED)),
        422,
        "will not able to create pod with invalid DNS label: " + "a" * 62 + "-1",
    ),
    "label too long": (lambda j: j["metadata"].update(labels={"a": "x" * 64}), 422, "metadata.labels"),
    "selector of nodes is no label": (
        lambda j: j["spec"]["template"]["spec"].update(nodeSelector={"sku": "-gpu-"}),
        422,
        "a valid label must be",
    ),
    "exit codes out of order": (policy(rule("FailJob", 5, 2)), 422, "must be ordered"),
    "exit code 0": (policy(rule("FailJob", 0, 2)), 422, "must not be 0 for the In operator"),
    "FailIndex without a limit per index": (policy(rule("FailIndex", 2), **INDEXED), 422, "requires the backoffLimit"),
    "limit per index without indexes": (spec(backoffLimitPerIndex=1), 422, "requires indexed completion mode"),
    "negative deadline": (spec(activeDeadlineSeconds=-1), 422, "must be greater than or equal to 0"),
    "half a GPU": (resources({GPU: "0.5"}, {GPU: "0.5"}), 422, "must be an integer"),
    "GPU request unlike its limit": (resources({GPU: "1"}, {GPU: "2"}), 422, f"must be equal to {GPU} limit of 2"),
    "request above the limit": (resources({"cpu": "2"}, {"cpu": "1"}), 422, "must be less than or equal to cpu limit"),
    "quantity with an unknown unit": (resources({"memory": "4GB"}, {}), 400, "quantities must match"),
    "mount without a volume": (
        lambda j: container_of(j).update(volumeMounts=[{"name": "a", "mountPath": "/a"}]),
        422,
        'Not found: "a"',
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused(cluster: Cluster, what: str) -> None:
    change, status, words = REFUSED[what]
    manifest = job("trial")
    change(manifest)
    with pytest.raises(ApiException) as refused:
        BatchV1Api(client_of(cluster)).create_namespaced_job(
            cluster.namespace, manifest, dry_run="All", field_validation="Strict"
        )
    answer = json.loads(refused.value.body)
    assert (refused.value.status, answer["kind"], answer["code"]) == (status, "Status", status)
    assert words in answer["message"]


def test_taken(cluster: Cluster, batch: BatchV1Api) -> None:
    """What the refused ones are variations of is fine, with all that the product's Jobs use."""
    manifest = job("trial", **INDEXED, backoffLimitPerIndex=2, maxFailedIndexes=2, podReplacementPolicy="Failed")
    policy(DISRUPTED, rule("FailIndex", 2, 7), rule("FailJob", 8))(manifest)
    resources({GPU: "1", "cpu": "500m"}, {GPU: "1", "cpu": "1"})(manifest)
    apply(batch, cluster.namespace, manifest, dry_run="All")


def test_lists_by_labels_in_pages(cluster: Cluster, batch: BatchV1Api) -> None:
    for number in range(5):
        manifest = job(f"listed-{number}", suspend=True)
        manifest["metadata"]["labels"] = {"mine": str(number % 2), "all": "1"}
        batch.create_namespaced_job(cluster.namespace, manifest)
    names, more = list[str](), None
    while True:
        page = batch.list_namespaced_job(cluster.namespace, label_selector="mine=0,all=1", limit=2, _continue=more)
        names += [item.metadata.name for item in page.items]
        if not (more := page.metadata._continue):
            break
    assert names == ["listed-0", "listed-2", "listed-4"]


def test_a_delete_takes_the_pods_along_and_may_name_a_version(cluster: Cluster, batch: BatchV1Api) -> None:
    start(cluster, job("deleted", SLEEP, grace=1))
    running(cluster, "deleted")
    body: Any = {"preconditions": {"resourceVersion": "1"}}
    with pytest.raises(ApiException) as error:
        batch.delete_namespaced_job("deleted", cluster.namespace, propagation_policy="Background", body=body)
    assert error.value.status == 409
    batch.delete_namespaced_job("deleted", cluster.namespace, propagation_policy="Background")
    cluster.wait_for(lambda: not cluster.pods("deleted"))
    with pytest.raises(ApiException) as error:
        batch.read_namespaced_job("deleted", cluster.namespace)
    assert (error.value.status, json.loads(error.value.body)["reason"]) == (404, "NotFound")


def test_roles_say_who_may_do_what(cluster: Cluster) -> None:
    cluster.add_account("worker")
    api = RbacAuthorizationV1Api(client_of(cluster))
    rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]
    api.create_namespaced_role(cluster.namespace, {"metadata": {"name": "looker"}, "rules": rules})
    subject = {"kind": "ServiceAccount", "name": "worker", "namespace": cluster.namespace}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "looker"}
    binding: Any = {"metadata": {"name": "looker"}, "subjects": [subject], "roleRef": reference}
    api.create_namespaced_role_binding(cluster.namespace, binding)
    account = client_of(cluster, "worker")
    CoreV1Api(account).list_namespaced_pod(cluster.namespace)
    for call in (
        lambda: CoreV1Api(account).list_namespaced_secret(cluster.namespace),
        lambda: apply(BatchV1Api(account), cluster.namespace, job("one")),
    ):
        with pytest.raises(ApiException, match=f"system:serviceaccount:{cluster.namespace}:worker") as error:
            call()
        assert error.value.status == 403


# Faults --------------------------------------------------------------------------------------------------------------


def names(batch: BatchV1Api, cluster: FakeCluster) -> list[str]:
    return [item.metadata.name for item in batch.list_namespaced_job(cluster.namespace).items]


def test_requests_are_refused_late_and_lost(fake_cluster: FakeCluster) -> None:
    batch, faults, manifest = BatchV1Api(client_of(fake_cluster)), fake_cluster.faults, job("a", suspend=True)
    for status in (429, 500, 503, 504):
        faults.fail(status, "POST", "/jobs", count=1, retry_after=1 if status == 429 else 0)
        with pytest.raises(ApiException) as error:
            batch.create_namespaced_job(fake_cluster.namespace, manifest)
        assert error.value.status == json.loads(error.value.body)["code"] == status
        assert (error.value.headers.get("Retry-After") == "1") == (status == 429)
    faults.delay(0.5, "GET", count=1)
    began = time.monotonic()
    assert names(batch, fake_cluster) == []
    assert time.monotonic() - began >= 0.5
    faults.lose_answer("POST")
    with pytest.raises(LOST):
        batch.create_namespaced_job(fake_cluster.namespace, manifest)
    assert names(batch, fake_cluster) == ["a"]
    verbs = [(request.user, request.verb, request.status) for request in fake_cluster.audit]
    assert ("kubernetes-admin", "list", 200) in verbs
    assert any(b'"name": "a"' in request.body for request in fake_cluster.audit)


def test_connections_are_refused_while_the_server_is_away(fake_cluster: FakeCluster) -> None:
    """What runs goes on meanwhile; afterwards everything is at its old place."""
    batch = BatchV1Api(client_of(fake_cluster))
    start(fake_cluster, job("one", "import time; time.sleep(0.3)"))
    with fake_cluster.faults.refused(), pytest.raises(LOST):
        names(batch, fake_cluster)
    assert end(fake_cluster, "one")["succeeded"] == 1
    assert names(batch, fake_cluster) == ["one"]


def test_the_clock_is_off(fake_cluster: FakeCluster) -> None:
    fake_cluster.faults.shift_clock(-3600)
    stamp = BatchV1Api(client_of(fake_cluster)).create_namespaced_job(
        fake_cluster.namespace, job("one", SLEEP, grace=0, activeDeadlineSeconds=600)
    )
    assert 3500 < (datetime.now(UTC) - stamp.metadata.creation_timestamp).total_seconds() < 3700
    running(fake_cluster, "one")
    fake_cluster.faults.shift_clock(601)  # time passes
    end(fake_cluster, "one")
    assert fake_cluster.job("one")["status"]["conditions"][-1]["reason"] == "DeadlineExceeded"


def test_one_index_runs_twice(fake_cluster: FakeCluster) -> None:
    name = start(fake_cluster, job("one", SLEEP, grace=0, backoffLimitPerIndex=1, **INDEXED))
    running(fake_cluster, name, 2)
    twin = fake_cluster.faults.run_twice(name, 0)
    same = [p["metadata"]["name"] for p in running(fake_cluster, name, 3) if p["spec"]["hostname"] == "one-0"]
    assert len(same) == 2
    assert twin in same


def test_it_stays_small() -> None:
    """The docstring of the package promises it."""
    assert sum(len(path.read_text().splitlines()) for path in Path(__file__).parent.glob("*.py")) < 3500
