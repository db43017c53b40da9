"""The API's documented manners, by the official client: versions, patches, apply, watches, lists, deletes, roles."""

from __future__ import annotations

import json
from typing import Any

import pytest
from kubernetes import watch
from kubernetes.client import (
    ApiException,
    AuthorizationV1Api,
    BatchV1Api,
    CoreV1Api,
    CustomObjectsApi,
    RbacAuthorizationV1Api,
)

from tests.cluster.examples import SLEEP, condition, job
from tests.cluster.fixtures import Cluster, FakeCluster, client_of

APPLY = "application/apply-patch+yaml"


@pytest.fixture
def batch(cluster: Cluster) -> BatchV1Api:
    return BatchV1Api(client_of(cluster))


@pytest.fixture
def core(cluster: Cluster) -> CoreV1Api:
    return CoreV1Api(client_of(cluster))


def plain(answer: Any) -> Any:
    return json.loads(answer.data)


def refusal(error: pytest.ExceptionInfo[ApiException]) -> Any:
    return json.loads(error.value.body)


def suspended(name: str, **spec: Any) -> Any:
    return job(name, suspend=True, **spec)


def apply(
    batch: BatchV1Api, namespace: str, manifest: Any, manager: str = "tests", force: bool = False, **more: Any
) -> Any:
    name = manifest["metadata"]["name"]
    return plain(
        batch.patch_namespaced_job(
            name,
            namespace,
            manifest,
            field_manager=manager,
            force=force,
            _content_type=APPLY,
            _preload_content=False,
            **more,
        )
    )


# Objects -------------------------------------------------------------------------------------------------------------


def test_a_made_job_has_what_the_server_adds(cluster: Cluster, batch: BatchV1Api) -> None:
    made = plain(batch.create_namespaced_job(cluster.namespace, suspended("one"), _preload_content=False))
    meta, spec = made["metadata"], made["spec"]
    assert meta["uid"]
    assert meta["creationTimestamp"].endswith("Z")
    assert int(meta["resourceVersion"]) > 0
    assert meta["generation"] == 1
    names = ("backoffLimit", "parallelism", "completions", "completionMode", "podReplacementPolicy")
    assert [spec[name] for name in names] == [6, 1, 1, "NonIndexed", "TerminatingOrFailed"]
    assert spec["selector"] == {"matchLabels": {"batch.kubernetes.io/controller-uid": meta["uid"]}}
    labels = spec["template"]["metadata"]["labels"]
    assert labels["batch.kubernetes.io/job-name"] == labels["job-name"] == "one"
    assert spec["template"]["spec"]["containers"][0]["imagePullPolicy"] == "IfNotPresent"
    assert spec["template"]["spec"]["dnsPolicy"] == "ClusterFirst"


def test_defaults_of_a_job_with_a_limit_per_index_and_a_failure_policy(cluster: Cluster, batch: BatchV1Api) -> None:
    rules = {"rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}]}
    manifest = suspended("one", completionMode="Indexed", completions=2, backoffLimitPerIndex=1, podFailurePolicy=rules)
    spec = plain(batch.create_namespaced_job(cluster.namespace, manifest, _preload_content=False))["spec"]
    assert spec["backoffLimit"] == 2147483647
    assert spec["podReplacementPolicy"] == "Failed"
    assert spec["podFailurePolicy"]["rules"][0]["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]


def test_quantities_come_back_in_their_canonical_form(cluster: Cluster, batch: BatchV1Api) -> None:
    manifest = suspended("one")
    amounts = {"cpu": "1000m", "memory": "2048Mi"}
    manifest["spec"]["template"]["spec"]["containers"][0]["resources"] = {"requests": amounts, "limits": {"cpu": "1.5"}}
    made = batch.create_namespaced_job(cluster.namespace, manifest)
    resources = made.spec.template.spec.containers[0].resources
    assert resources.requests == {"cpu": "1", "memory": "2Gi"}
    assert resources.limits == {"cpu": "1500m"}


def test_a_second_job_of_that_name_and_a_missing_one(cluster: Cluster, batch: BatchV1Api) -> None:
    batch.create_namespaced_job(cluster.namespace, suspended("one"))
    with pytest.raises(ApiException) as error:
        batch.create_namespaced_job(cluster.namespace, suspended("one"))
    assert (error.value.status, refusal(error)["reason"]) == (409, "AlreadyExists")
    assert refusal(error)["message"] == 'jobs.batch "one" already exists'
    with pytest.raises(ApiException) as error:
        batch.read_namespaced_job("two", cluster.namespace)
    assert (error.value.status, refusal(error)["reason"]) == (404, "NotFound")
    assert refusal(error)["details"] == {"name": "two", "group": "batch", "kind": "jobs"}


def test_the_template_cannot_be_changed_and_other_fields_can(cluster: Cluster, batch: BatchV1Api) -> None:
    made = batch.create_namespaced_job(cluster.namespace, job("one", SLEEP, grace=1))
    image = {"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "other:1"}]}}}}
    for change, field in (
        (image, "spec.template"),
        ({"spec": {"completions": 2}}, "spec.completions"),
        ({"spec": {"completionMode": "Indexed"}}, "spec.completionMode"),
    ):
        with pytest.raises(ApiException) as error:
            batch.patch_namespaced_job("one", cluster.namespace, change, _content_type="application/merge-patch+json")
        assert error.value.status == 422
        assert any(
            cause["field"] == field and "field is immutable" in cause["message"]
            for cause in refusal(error)["details"]["causes"]
        )
    change = {"spec": {"parallelism": 0, "activeDeadlineSeconds": 99, "ttlSecondsAfterFinished": 9, "backoffLimit": 1}}
    changed = batch.patch_namespaced_job("one", cluster.namespace, change, _content_type="application/merge-patch+json")
    assert changed.spec.parallelism == 0
    assert changed.spec.ttl_seconds_after_finished == 9
    assert changed.metadata.generation == made.metadata.generation + 1


def test_a_dry_run_checks_everything_and_keeps_nothing(cluster: Cluster, batch: BatchV1Api) -> None:
    made = apply(batch, cluster.namespace, suspended("one"), dry_run="All")
    assert made["metadata"]["uid"]
    with pytest.raises(ApiException) as error:
        apply(batch, cluster.namespace, suspended("two", parallelism=-1), dry_run="All")
    assert error.value.status == 422
    assert batch.list_namespaced_job(cluster.namespace).items == []


def test_a_stale_version_is_a_conflict(cluster: Cluster, core: CoreV1Api) -> None:
    core.create_namespaced_config_map(cluster.namespace, {"metadata": {"name": "one"}, "data": {"a": "1"}})
    mine = core.read_namespaced_config_map("one", cluster.namespace)
    core.patch_namespaced_config_map("one", cluster.namespace, {"data": {"b": "2"}})
    mine.data["a"] = "3"
    with pytest.raises(ApiException) as error:
        core.replace_namespaced_config_map("one", cluster.namespace, mine)
    assert (error.value.status, refusal(error)["reason"]) == (409, "Conflict")
    assert "the object has been modified" in refusal(error)["message"]
    assert core.read_namespaced_config_map("one", cluster.namespace).data == {"a": "1", "b": "2"}


def test_a_write_that_changes_nothing_makes_no_version(cluster: Cluster, core: CoreV1Api) -> None:
    made = core.create_namespaced_config_map(cluster.namespace, {"metadata": {"name": "one"}, "data": {"a": "1"}})
    same = core.patch_namespaced_config_map("one", cluster.namespace, {"data": {"a": "1"}})
    assert same.metadata.resource_version == made.metadata.resource_version


# Server-side apply ---------------------------------------------------------------------------------------------------


def test_apply_creates_and_repeats_without_a_change(cluster: Cluster, batch: BatchV1Api) -> None:
    manifest = suspended("one")
    apply(batch, cluster.namespace, manifest)
    made = cluster.wait_for(lambda: condition(cluster.job("one"), "Suspended") and cluster.job("one"))
    again = apply(batch, cluster.namespace, manifest)
    assert again["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
    owner = made["metadata"]["managedFields"][0]
    assert (owner["manager"], owner["operation"]) == ("tests", "Apply")


def test_apply_needs_a_manager(cluster: Cluster) -> None:
    api = CustomObjectsApi(client_of(cluster))
    with pytest.raises(ApiException) as error:
        api.patch_namespaced_custom_object(
            "batch", "v1", cluster.namespace, "jobs", "one", suspended("one"), _content_type=APPLY
        )
    assert error.value.status == 422
    assert "fieldManager: Required value" in refusal(error)["message"]


def test_apply_conflicts_with_another_owner_unless_forced(cluster: Cluster, batch: BatchV1Api) -> None:
    apply(batch, cluster.namespace, suspended("one"))
    with pytest.raises(ApiException) as error:
        apply(batch, cluster.namespace, {**suspended("one"), "spec": {"suspend": False}}, manager="another")
    said = refusal(error)
    assert (error.value.status, said["reason"]) == (409, "Conflict")
    assert said["message"] == 'Apply failed with 1 conflict: conflict with "tests": .spec.suspend'
    assert said["details"]["causes"][0]["reason"] == "FieldManagerConflict"
    taken = apply(batch, cluster.namespace, {**suspended("one"), "spec": {"parallelism": 0}}, manager="another")
    assert taken["spec"]["suspend"] is True
    forced = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "one"}, "spec": {"suspend": True}}
    forced["spec"]["parallelism"] = 3
    assert apply(batch, cluster.namespace, forced, manager="third", force=True)["spec"]["parallelism"] == 3


def test_apply_removes_what_its_manager_no_longer_names(cluster: Cluster, core: CoreV1Api) -> None:
    def write(**data: str) -> Any:
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "one"}, "data": data}
        return core.patch_namespaced_config_map(
            "one", cluster.namespace, body, field_manager="tests", _content_type=APPLY
        ).data

    write(a="1", b="2")
    core.patch_namespaced_config_map("one", cluster.namespace, {"data": {"c": "3"}})
    assert write(a="1") == {"a": "1", "c": "3"}


def test_apply_does_not_know_unknown_fields(cluster: Cluster, batch: BatchV1Api) -> None:
    with pytest.raises(ApiException) as error:
        apply(batch, cluster.namespace, suspended("one", retries=3))
    assert "retries" in refusal(error)["message"]
    assert "field not declared in schema" in refusal(error)["message"]


# Lists and watches ---------------------------------------------------------------------------------------------------


def test_lists_by_labels_and_fields(cluster: Cluster, core: CoreV1Api) -> None:
    for name, labels in (("a", {"kind": "x"}), ("b", {"kind": "y", "old": "1"}), ("c", {})):
        core.create_namespaced_config_map(cluster.namespace, {"metadata": {"name": f"m-{name}", "labels": labels}})

    def names(**query: str) -> list[str]:
        found = [item.metadata.name for item in core.list_namespaced_config_map(cluster.namespace, **query).items]
        return [name for name in found if name.startswith("m-")]

    assert names(label_selector="kind=x") == ["m-a"]
    assert names(label_selector="kind in (x,y)") == ["m-a", "m-b"]
    assert names(label_selector="kind notin (x),!old") == ["m-c"]
    assert names(label_selector="kind,old!=1") == ["m-a"]
    assert names(field_selector="metadata.name=m-b") == ["m-b"]
    with pytest.raises(ApiException) as error:
        names(field_selector="data.a=1")
    assert error.value.status == 400


def test_a_list_in_pages_is_of_one_moment(cluster: Cluster, core: CoreV1Api) -> None:
    for number in range(5):
        body = {"metadata": {"name": f"m-{number}", "labels": {"mine": "1"}}}
        core.create_namespaced_config_map(cluster.namespace, body)
    names, more = [], None
    while True:
        page = core.list_namespaced_config_map(cluster.namespace, label_selector="mine", limit=2, _continue=more)
        names += [item.metadata.name for item in page.items]
        if not names[2:]:
            core.delete_namespaced_config_map("m-4", cluster.namespace)
        more = page.metadata._continue
        if not more:
            break
    assert names == [f"m-{number}" for number in range(5)]


def test_a_watch_goes_on_from_a_version(cluster: Cluster, core: CoreV1Api) -> None:
    first = core.create_namespaced_config_map(cluster.namespace, {"metadata": {"name": "a", "labels": {"mine": "1"}}})
    core.patch_namespaced_config_map("a", cluster.namespace, {"data": {"a": "1"}})
    core.patch_namespaced_config_map("a", cluster.namespace, {"metadata": {"labels": {"mine": None}}})
    core.create_namespaced_config_map(cluster.namespace, {"metadata": {"name": "b", "labels": {"mine": "1"}}})
    core.delete_namespaced_config_map("b", cluster.namespace)
    events = watch.Watch().stream(
        core.list_namespaced_config_map,
        cluster.namespace,
        label_selector="mine",
        resource_version=first.metadata.resource_version,
        timeout_seconds=1,
    )
    seen = [(event["type"], event["object"].metadata.name) for event in events]
    assert seen == [("MODIFIED", "a"), ("DELETED", "a"), ("ADDED", "b"), ("DELETED", "b")]


def test_a_watch_without_a_version_begins_with_what_there_is(cluster: Cluster, core: CoreV1Api) -> None:
    core.create_namespaced_config_map(cluster.namespace, {"metadata": {"name": "a", "labels": {"mine": "1"}}})
    events = watch.Watch().stream(
        core.list_namespaced_config_map, cluster.namespace, label_selector="mine", timeout_seconds=1
    )
    assert [(event["type"], event["object"].metadata.name) for event in events] == [("ADDED", "a")]


# Deletes -------------------------------------------------------------------------------------------------------------


def test_a_job_deleted_without_a_policy_leaves_its_pods(cluster: Cluster, batch: BatchV1Api) -> None:
    """The old default of batch/v1; the server warns of it."""
    batch.create_namespaced_job(cluster.namespace, job("one", SLEEP, grace=1))
    cluster.wait_for(lambda: cluster.pods())
    answer = batch.delete_namespaced_job("one", cluster.namespace, _preload_content=False)
    assert "child pods are preserved by default when jobs are deleted" in answer.headers["Warning"]
    cluster.wait_for(lambda: not batch.list_namespaced_job(cluster.namespace).items)
    pod = cluster.wait_for(lambda: [p for p in cluster.pods() if not p["metadata"].get("ownerReferences")])[0]
    assert "deletionTimestamp" not in pod["metadata"]


def test_a_job_deleted_in_the_background_takes_its_pods_along(cluster: Cluster, batch: BatchV1Api) -> None:
    batch.create_namespaced_job(cluster.namespace, job("one", SLEEP, grace=1))
    cluster.wait_for(lambda: cluster.pods())
    batch.delete_namespaced_job("one", cluster.namespace, propagation_policy="Background")
    cluster.wait_for(lambda: not cluster.pods())
    assert batch.list_namespaced_job(cluster.namespace).items == []


def test_a_job_deleted_in_the_foreground_goes_after_its_pods(cluster: Cluster, batch: BatchV1Api) -> None:
    batch.create_namespaced_job(cluster.namespace, job("one", SLEEP, grace=1))
    cluster.wait_for(lambda: [p for p in cluster.pods() if p["status"].get("phase") == "Running"])
    answer = plain(
        batch.delete_namespaced_job("one", cluster.namespace, propagation_policy="Foreground", _preload_content=False)
    )
    assert answer["metadata"]["finalizers"] == ["foregroundDeletion"]
    assert cluster.pods()[0]["metadata"]["name"].startswith("one-")
    cluster.wait_for(lambda: not batch.list_namespaced_job(cluster.namespace).items)
    assert cluster.pods() == []


def test_preconditions_of_a_delete(cluster: Cluster, batch: BatchV1Api) -> None:
    batch.create_namespaced_job(cluster.namespace, suspended("one"))
    body = {"preconditions": {"uid": "00000000-0000-0000-0000-000000000000"}, "propagationPolicy": "Background"}
    with pytest.raises(ApiException) as error:
        batch.delete_namespaced_job("one", cluster.namespace, body=body)
    assert error.value.status == 409
    assert "Precondition failed: UID in precondition" in refusal(error)["message"]


def test_delete_by_labels(cluster: Cluster, batch: BatchV1Api) -> None:
    for name in ("a", "b"):
        manifest = suspended(name)
        manifest["metadata"]["labels"] = {"which": name}
        batch.create_namespaced_job(cluster.namespace, manifest)
    batch.delete_collection_namespaced_job(
        cluster.namespace, label_selector="which=a", propagation_policy="Background", _preload_content=False
    )
    cluster.wait_for(lambda: [j.metadata.name for j in batch.list_namespaced_job(cluster.namespace).items] == ["b"])


# Roles ---------------------------------------------------------------------------------------------------------------


def test_a_service_account_may_do_what_its_role_says_and_no_more(cluster: Cluster) -> None:
    rbac = RbacAuthorizationV1Api(client_of(cluster))
    cluster.add_account("worker")
    rules = [{"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["get", "patch"]}]
    rbac.create_namespaced_role(cluster.namespace, {"metadata": {"name": "r"}, "rules": rules})
    subject = {"kind": "ServiceAccount", "name": "worker", "namespace": cluster.namespace}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"}
    body = {"metadata": {"name": "b"}, "subjects": [subject], "roleRef": reference}
    rbac.create_namespaced_role_binding(cluster.namespace, body)
    mine = client_of(cluster, "worker")
    batch = BatchV1Api(mine)
    BatchV1Api(client_of(cluster)).create_namespaced_job(cluster.namespace, suspended("one"))
    assert batch.read_namespaced_job("one", cluster.namespace).metadata.name == "one"
    for refused, verb, what in (
        (lambda: batch.list_namespaced_job(cluster.namespace), "list", "jobs"),
        (lambda: batch.delete_namespaced_job("one", cluster.namespace), "delete", "jobs"),
        (lambda: CoreV1Api(mine).read_namespaced_secret("s", cluster.namespace), "get", "secrets"),
        (lambda: apply(batch, cluster.namespace, suspended("two")), "create", "jobs"),
    ):
        with pytest.raises(ApiException) as error:
            refused()
        assert error.value.status == 403
        account = f"system:serviceaccount:{cluster.namespace}:worker"
        assert f'User "{account}" cannot {verb} resource "{what}"' in refusal(error)["message"]
    review = AuthorizationV1Api(mine)
    asked = {"verb": "patch", "group": "batch", "resource": "jobs", "namespace": cluster.namespace}
    for verb, allowed in (("patch", True), ("delete", False)):
        body = {"spec": {"resourceAttributes": {**asked, "verb": verb}}}
        assert review.create_self_subject_access_review(body).status.allowed is allowed


def test_pods_act_as_their_account_and_only_if_they_mount_its_token(fake_cluster: FakeCluster) -> None:
    script = "import os; print('KUBECONFIG' in os.environ)"
    batch = BatchV1Api(client_of(fake_cluster))
    for name, mounts in (("with", True), ("without", False)):
        manifest = job(name, script)
        manifest["spec"]["template"]["spec"]["automountServiceAccountToken"] = mounts
        batch.create_namespaced_job(fake_cluster.namespace, manifest)
        fake_cluster.wait_for(lambda n=name: condition(fake_cluster.job(n), "Complete"))
        assert fake_cluster.log(fake_cluster.pods(name)[0]["metadata"]["name"]).strip() == str(mounts)


def test_objects_of_unknown_kinds_are_not_found(cluster: Cluster) -> None:
    with pytest.raises(ApiException) as error:
        CustomObjectsApi(client_of(cluster)).list_namespaced_custom_object(
            "unheard.example", "v1", cluster.namespace, "things"
        )
    assert error.value.status == 404
