"""The objects in deploy/kubernetes: valid, narrow, and at one with the Jobs that TicketSmith submits into them."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from tests.deploy.policies import egress, egress_to_pod, ingress
from tests.deploy.rendered import KUBERNETES, OVERLAYS, ROOT, of_kind, overlay
from ticketsmith.config.target import Target, load_target
from ticketsmith.execute.kubernetes.manifests import conductor_job, report_job, training_job

VERSIONS = ("1.33", "1.36")
TARGETS = sorted(path.name for path in (ROOT / "configs" / "targets").glob("*.yaml"))
NAMESPACE = {"kubernetes.io/metadata.name": "ticketsmith"}
WORKER = {"app.kubernetes.io/name": "ticketsmith", "app.kubernetes.io/component": "train"}
CONDUCTOR = {"app.kubernetes.io/name": "ticketsmith", "app.kubernetes.io/component": "conductor"}


def target(name: str) -> Target:
    """A shipped target file with its blanks filled in."""
    path = ROOT / "configs" / "targets" / name
    blanks = ["image=registry.azurecr.io/ticketsmith:1"]
    if "account" in yaml.safe_load(path.read_text()):
        blanks.append("account=ticketsmith1a2b3c")
    return load_target(path, blanks)


def jobs(name: str) -> list[Any]:
    """One Job of each kind, as `submit` makes them for a target."""
    where = target(name)
    return [
        training_job("ts-e-dense-1", "e", "dense", [0, 1, 2], "0" * 64, where),
        report_job("ts-e-report-1", "e", where),
        conductor_job("ts-e-conductor-1", "e", where),
    ]


def pod(job: Any) -> Any:
    return job["spec"]["template"]


# --- every overlay ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OVERLAYS)
@pytest.mark.parametrize("version", VERSIONS)
def test_overlays_are_valid(name: str, version: str) -> None:
    validator = pytest.importorskip("kubernetes_validate")
    for one in overlay(name):
        if not one["apiVersion"].startswith("kueue."):  # tests/deploy/test_kueue.py
            validator.validate(one, version, strict=True)


@pytest.mark.parametrize("name", OVERLAYS)
def test_no_secret_is_shipped(name: str) -> None:
    assert not of_kind(overlay(name), "Secret")
    assert not re.search(r"AccountKey=|SharedAccessSignature", "".join(map(str, overlay(name))))


@pytest.mark.parametrize("name", OVERLAYS)
def test_names_are_those_that_targets_expect(name: str) -> None:
    objects = overlay(name)
    assert {"ticketsmith-worker", "ticketsmith-conductor"} <= set(of_kind(objects, "ServiceAccount"))
    assert {"ticketsmith-experiment", "ticketsmith-conductor"} <= set(of_kind(objects, "PriorityClass"))
    assert "ticketsmith" in of_kind(objects, "Namespace")
    namespaced = {"Role", "RoleBinding", "ServiceAccount", "ResourceQuota", "LimitRange", "LocalQueue"}
    assert {one["metadata"]["namespace"] for one in objects if one["kind"] in namespaced} == {"ticketsmith"}


@pytest.mark.parametrize("name", OVERLAYS)
def test_jobs_namespace_enforces_the_restricted_standard(name: str) -> None:
    labels = of_kind(overlay(name), "Namespace")["ticketsmith"]["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_every_folder_is_part_of_an_overlay_that_is_tested() -> None:
    used = {KUBERNETES / "open-https.yaml"}  # applied by hand; a test below has it
    for path in KUBERNETES.rglob("kustomization.yaml"):
        content = yaml.safe_load(path.read_text())
        for link in (*content.get("resources", []), *content.get("components", [])):
            used.add((path.parent / link).resolve())
    for path in KUBERNETES.rglob("*.yaml"):
        place = path.parent if path.name == "kustomization.yaml" else path
        assert place.resolve() in used or place.parent.name == "overlays", f"{path} is not used"


# --- who may do what --------------------------------------------------------------------------------------------------

MAY = {
    ("batch", "jobs"): {"get", "list", "watch", "create", "patch", "delete"},
    ("", "pods"): {"get", "list", "watch"},
    ("", "pods/log"): {"get"},
    ("", "events"): {"get", "list", "watch"},
}


@pytest.mark.parametrize("role", ["ticketsmith-conductor", "ticketsmith-submitter"])
def test_roles_cover_jobs_pods_logs_and_events_and_nothing_else(role: str) -> None:
    may = {
        (group, resource): set(rule["verbs"])
        for rule in of_kind(overlay("aks"), "Role")[role]["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
    assert may == MAY


@pytest.mark.parametrize("name", OVERLAYS)
def test_only_the_conductor_is_bound_to_a_role(name: str) -> None:
    bindings = of_kind(overlay(name), "RoleBinding").values()
    assert [subject["name"] for one in bindings for subject in one["subjects"]] == ["ticketsmith-conductor"]
    assert [one["roleRef"]["name"] for one in bindings] == ["ticketsmith-conductor"]
    assert not of_kind(overlay(name), "ClusterRoleBinding")


@pytest.mark.parametrize("name", OVERLAYS)
def test_accounts_hand_out_no_tokens(name: str) -> None:
    for account in of_kind(overlay(name), "ServiceAccount").values():
        assert account["automountServiceAccountToken"] is False


def test_accounts_have_an_identity_on_aks_only() -> None:
    annotation = "azure.workload.identity/client-id"
    for name, account in of_kind(overlay("aks"), "ServiceAccount").items():
        assert annotation in account["metadata"]["annotations"], name
    for account in of_kind(overlay("local"), "ServiceAccount").values():
        assert annotation not in account["metadata"].get("annotations", {})


# --- where traffic may go ---------------------------------------------------------------------------------------------


def policies(name: str, namespace: str = "ticketsmith") -> list[Any]:
    found = [one for one in overlay(name) if one["kind"] == "NetworkPolicy"]
    return [one for one in found if one["metadata"]["namespace"] == namespace]


@pytest.mark.parametrize("name", OVERLAYS)
@pytest.mark.parametrize("who", [WORKER, CONDUCTOR], ids=["worker", "conductor"])
def test_pods_reach_the_store_and_names(name: str, who: dict[str, str]) -> None:
    assert egress(policies(name), who, "10.224.16.4", 443)  # a private endpoint
    dns = {"kubernetes.io/metadata.name": "kube-system"}, {"k8s-app": "kube-dns"}
    assert egress_to_pod(policies(name), who, *dns, 53, "UDP")
    assert egress_to_pod(policies(name), who, *dns, 53)


@pytest.mark.parametrize("name", OVERLAYS)
@pytest.mark.parametrize("who", [WORKER, CONDUCTOR, {}], ids=["worker", "conductor", "other"])
@pytest.mark.parametrize("port", [80, 443, 32526])
def test_nobody_reaches_the_machines_metadata(name: str, who: dict[str, str], port: int) -> None:
    assert not egress(policies(name), who, "169.254.169.254", port)
    assert not egress(policies(name), who, "168.63.129.16", port)


@pytest.mark.parametrize("name", OVERLAYS)
def test_little_else_is_reached(name: str) -> None:
    assert not egress(policies(name), WORKER, "20.60.1.2", 443)  # any public address
    assert not egress(policies(name), WORKER, "20.60.1.2", 80)
    assert not egress(policies(name), WORKER, "20.60.1.2", 22)
    assert not egress(policies(name), {"app": "stranger"}, "20.60.1.2", 443)
    assert not egress_to_pod(policies(name), WORKER, NAMESPACE, CONDUCTOR, 8080)
    assert not egress_to_pod(policies(name), WORKER, {"kubernetes.io/metadata.name": "kube-system"}, {}, 443)
    for who in (WORKER, CONDUCTOR):
        assert not ingress(policies(name), who, NAMESPACE, WORKER, 8080)


@pytest.mark.parametrize("name", OVERLAYS)
def test_public_addresses_are_those_of_the_sign_in_until_https_is_opened(name: str) -> None:
    on_azure = name.startswith("aks")
    for address in ("20.190.151.7", "40.126.32.5"):  # login.microsoftonline.com
        assert egress(policies(name), WORKER, address, 443) == on_azure
    [opened] = yaml.safe_load_all((KUBERNETES / "open-https.yaml").read_text())
    assert opened["metadata"]["namespace"] == "ticketsmith"
    both = [*policies(name), opened]
    assert egress(both, WORKER, "20.60.1.2", 443)
    assert not egress(both, WORKER, "20.60.1.2", 80)
    assert not egress(both, WORKER, "169.254.169.254", 443)
    assert not egress(both, {"app": "stranger"}, "20.60.1.2", 443)


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_api_server_on_its_own_port_is_for_the_conductor(name: str) -> None:
    assert egress(policies(name), CONDUCTOR, "172.18.0.2", 6443)
    assert not egress(policies(name), WORKER, "172.18.0.2", 6443)


def test_an_emulator_is_reached_where_there_may_be_one() -> None:
    azurite = {"app.kubernetes.io/name": "azurite"}
    assert egress_to_pod(policies("azurite"), WORKER, NAMESPACE, azurite, 10000)
    assert ingress(policies("azurite"), azurite, NAMESPACE, WORKER, 10000)
    assert not ingress(policies("azurite"), azurite, NAMESPACE, {"app": "stranger"}, 10000)
    assert egress(policies("local"), WORKER, "192.168.1.20", 10000)
    assert not egress(policies("aks"), WORKER, "192.168.1.20", 10000)


# --- the Jobs that go in ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TARGETS)
def test_jobs_find_what_they_name(name: str) -> None:
    objects = overlay("aks" if target(name).account else "local")
    for job in jobs(name):
        spec = pod(job)["spec"]
        assert job["metadata"]["namespace"] in of_kind(objects, "Namespace")
        assert spec["serviceAccountName"] in of_kind(objects, "ServiceAccount")
        assert spec.get("priorityClassName", "ticketsmith-experiment") in of_kind(objects, "PriorityClass")


@pytest.mark.parametrize("name", TARGETS)
def test_jobs_are_within_network_policies(name: str) -> None:
    train, report, conductor = (pod(job)["metadata"]["labels"] for job in jobs(name))
    for labels in (train, report, conductor):
        assert egress(policies("local"), labels, "192.168.1.20", 10000)
        assert egress(policies("aks"), labels, "10.224.16.4", 443)
    assert egress(policies("local"), conductor, "172.18.0.2", 6443)
    assert not egress(policies("local"), train, "172.18.0.2", 6443)


@pytest.mark.parametrize("name", TARGETS)
def test_jobs_meet_the_restricted_standard(name: str) -> None:
    for job in jobs(name):
        spec = pod(job)["spec"]
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        assert all(set(volume) - {"name"} <= {"emptyDir", "persistentVolumeClaim"} for volume in spec["volumes"])
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
        for container in spec["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"]["drop"] == ["ALL"]
            assert not any("hostPort" in port for port in container.get("ports", []))


@pytest.mark.parametrize("name", TARGETS)
def test_jobs_pass_the_admission_policy(name: str) -> None:
    """What its two expressions ask for, here in Python: they have to be read side by side."""
    policy = of_kind(overlay("aks"), "ValidatingAdmissionPolicy")["ticketsmith-jobs-end"]
    asked = [one["expression"] for one in policy["spec"]["validations"]]
    assert asked == [
        "has(object.spec.activeDeadlineSeconds) && object.spec.activeDeadlineSeconds <= 1209600",
        "has(object.spec.ttlSecondsAfterFinished)",
    ]
    for job in jobs(name):
        assert job["spec"]["activeDeadlineSeconds"] <= 1209600
        assert "ttlSecondsAfterFinished" in job["spec"]


def test_the_admission_policy_is_in_force_in_one_namespace() -> None:
    binding = of_kind(overlay("aks"), "ValidatingAdmissionPolicyBinding")["ticketsmith-jobs-end"]["spec"]
    assert binding["policyName"] == "ticketsmith-jobs-end"
    assert binding["validationActions"] == ["Deny"]
    assert binding["matchResources"]["namespaceSelector"] == {"matchLabels": NAMESPACE}


@pytest.mark.parametrize("name", TARGETS)
def test_one_experiment_at_least_fits_the_quota(name: str) -> None:
    hard = of_kind(overlay("aks"), "ResourceQuota")["ticketsmith"]["spec"]["hard"]
    train, report, conductor = jobs(name)
    at_once = [(pod(train), train["spec"]["parallelism"]), (pod(report), 1), (pod(conductor), 1)]
    for resource, most in (
        ("cpu", "requests.cpu"),
        ("memory", "requests.memory"),
        ("nvidia.com/gpu", "requests.nvidia.com/gpu"),
    ):
        asked = sum(
            quantity(container["resources"]["requests"].get(resource, "0")) * pods
            for template, pods in at_once
            for container in template["spec"]["containers"]
        )
        assert asked <= quantity(hard[most]), resource


def quantity(text: str) -> float:
    match = re.fullmatch(r"([\d.]+)(m|[KMGT]i)?", text)
    assert match is not None, text
    return float(match[1]) * {None: 1, "m": 1e-3, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}[match[2]]


def test_quota_forbids_what_costs_money_or_opens_a_way_in() -> None:
    hard = of_kind(overlay("aks"), "ResourceQuota")["ticketsmith"]["spec"]["hard"]
    assert hard["services.loadbalancers"] == hard["services.nodeports"] == "0"


def test_pods_that_say_nothing_get_limits_since_a_quota_would_refuse_them() -> None:
    (limits,) = of_kind(overlay("aks"), "LimitRange")["ticketsmith"]["spec"]["limits"]
    assert set(limits["default"]) == set(limits["defaultRequest"]) == {"cpu", "memory"}


def test_a_conductor_comes_before_workers_and_both_are_polite() -> None:
    priorities = of_kind(overlay("aks"), "PriorityClass")
    conductor, experiment = (priorities[f"ticketsmith-{who}"] for who in ("conductor", "experiment"))
    assert experiment["value"] < conductor["value"] <= 0, "others' pods have 0 unless they say otherwise"
    assert experiment["value"] > -10, "the cluster autoscaler starts no node for less"
    assert experiment["preemptionPolicy"] == "Never"
    assert not any(one.get("globalDefault") for one in priorities.values())


# --- GPUs -------------------------------------------------------------------------------------------------------------


def test_the_device_plugin_is_on_every_node_that_has_gpus() -> None:
    objects = overlay("aks")
    plugin = of_kind(objects, "DaemonSet")["nvidia-device-plugin"]["spec"]["template"]["spec"]
    term = plugin["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    ((expression,),) = [one["matchExpressions"] for one in term]
    for name in TARGETS:
        train = target(name).train
        if train.gpus:
            assert train.node_selector[expression["key"]] in expression["values"]
            for toleration in train.tolerations:
                assert toleration.model_dump(exclude_none=True) in [
                    {name: value for name, value in one.items() if (name, value) != ("operator", "Equal")}
                    | ({"operator": "Equal"} if one["operator"] == "Equal" else {})
                    for one in plugin["tolerations"]
                ]


def test_the_device_plugin_is_pinned_and_kept_apart() -> None:
    plugin = of_kind(overlay("aks"), "DaemonSet")["nvidia-device-plugin"]
    (container,) = plugin["spec"]["template"]["spec"]["containers"]
    assert re.search(r":v\d+\.\d+\.\d+$|@sha256:", container["image"])
    assert plugin["metadata"]["namespace"] == "gpu-resources"
    assert not container["securityContext"].get("privileged")
    assert not egress(policies("aks", "gpu-resources"), {}, "20.60.1.2", 443)


def test_clusters_without_gpus_get_no_device_plugin() -> None:
    assert not of_kind(overlay("local"), "DaemonSet")
