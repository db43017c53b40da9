"""What a pod's process sees, how it ends, and what is told of it."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

import pytest
from kubernetes.client import ApiException, BatchV1Api, CoreV1Api

from tests.cluster.examples import INDEXED, SLEEP, STOPS_WITH_130, condition, container_of, failed, job
from tests.cluster.fixtures import Cluster, FakeCluster, client_of
from tests.cluster.kubelet import Image, processes_of
from tests.cluster.test_job_controller import end, reasons, running, start


def terminated(pod: Any) -> Any:
    return pod["status"]["containerStatuses"][0]["state"]["terminated"]


def waiting(cluster: Cluster, name: str, reason: str) -> str:
    """The message of a container that waits for a reason."""

    def found() -> Any:
        for pod in cluster.pods(name):
            for status in pod["status"].get("containerStatuses") or []:
                told = status["state"].get("waiting") or {}
                if told.get("reason") == reason:
                    return told
        return None

    return str(cluster.wait_for(found, what=reason).get("message", ""))


def test_environment(cluster: Cluster) -> None:
    cluster.add_secret("store", key="s3cret")
    CoreV1Api(client_of(cluster)).create_namespaced_config_map(
        cluster.namespace, {"metadata": {"name": "settings"}, "data": {"COLOUR": "red"}}
    )
    manifest = job(
        "one", "import os, sys; print([os.environ.get(n) for n in 'ABCDEFG'], os.environ['COLOUR'], sys.argv[1:])"
    )
    manifest["spec"]["template"]["metadata"] = {"labels": {"team": "a"}}
    container = container_of(manifest)
    container["env"] = [
        {"name": "A", "value": "1"},
        {"name": "B", "value": "$(A)2 $(NOBODY) $$(A)"},
        {"name": "C", "valueFrom": {"secretKeyRef": {"name": "store", "key": "key"}}},
        {"name": "D", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "E", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['team']"}}},
        {"name": "F", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
        {"name": "G", "valueFrom": {"secretKeyRef": {"name": "nobody", "key": "key", "optional": True}}},
    ]
    container["envFrom"] = [{"configMapRef": {"name": "settings"}}]
    container["resources"] = {"limits": {"memory": "64Mi"}}
    container["args"] = ["--a=$(A)"]
    end(cluster, start(cluster, manifest))
    pod = cluster.pods("one")[0]["metadata"]["name"]
    assert cluster.log(pod).strip() == f"['1', '12 $(NOBODY) $(A)', 's3cret', '{pod}', 'a', '64', None] red ['--a=1']"


def test_nothing_of_the_tests_own_environment_leaks_into_pods(
    fake_cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", "secret")
    end(fake_cluster, start(fake_cluster, job("one", "import os; print(sorted(os.environ))")))
    assert "AZURE" not in fake_cluster.log(fake_cluster.pods("one")[0]["metadata"]["name"])


def test_missing_secret_then_there(cluster: Cluster) -> None:
    manifest = job("one")
    reference = {"secretKeyRef": {"name": "store", "key": "key"}}
    container_of(manifest)["env"] = [{"name": "A", "valueFrom": reference}]
    start(cluster, manifest)
    assert 'secret "store" not found' in waiting(cluster, "one", "CreateContainerConfigError")
    assert cluster.pods("one")[0]["status"]["phase"] == "Pending"
    cluster.add_secret("store", key="s3cret")
    assert end(cluster, "one")["succeeded"] == 1


def test_volume_of_a_missing_secret(cluster: Cluster) -> None:
    manifest = job("one")
    manifest["spec"]["template"]["spec"]["volumes"] = [{"name": "key", "secret": {"secretName": "store"}}]
    container_of(manifest)["volumeMounts"] = [{"name": "key", "mountPath": "/etc/store"}]
    start(cluster, manifest)
    pod = cluster.wait_for(lambda: cluster.pods("one"))[0]["metadata"]["name"]
    cluster.wait_for(lambda: "FailedMount" in reasons(cluster, pod))
    message = next(e["message"] for e in cluster.events(pod) if e["reason"] == "FailedMount")
    assert message == 'MountVolume.SetUp failed for volume "key" : secret "store" not found'
    waiting(cluster, "one", "ContainerCreating")
    cluster.add_secret("store", key="s3cret")
    assert end(cluster, "one", 200)["succeeded"] == 1


def test_volumes_are_folders_of_the_pod(fake_cluster: FakeCluster) -> None:
    """Mount paths in arguments and variables stand for the real folders."""
    fake_cluster.add_secret("store", key="s3cret")
    script = """
import os, pathlib, sys, tempfile
pathlib.Path(sys.argv[1]).write_text('x')
print(sorted(p.name for p in pathlib.Path(os.environ['WORK']).iterdir()), pathlib.Path(sys.argv[2], 'key').read_text())
print(tempfile.gettempdir() == os.environ['TMPDIR'], os.getcwd() == os.environ['WORK'])
"""
    manifest = job("one", script)
    pod, container = manifest["spec"]["template"]["spec"], container_of(manifest)
    pod["volumes"] = [
        {"name": "work", "emptyDir": {"sizeLimit": "1Gi"}},
        {"name": "tmp", "emptyDir": {}},
        {"name": "secret", "secret": {"secretName": "store"}},
    ]
    container["volumeMounts"] = [
        {"name": name, "mountPath": path}
        for name, path in (("work", "/work"), ("tmp", "/tmp"), ("secret", "/etc/store"))
    ]
    container["args"], container["env"] = ["/work/result", "/etc/store"], [{"name": "WORK", "value": "/work"}]
    end(fake_cluster, start(fake_cluster, manifest))
    log = fake_cluster.log(fake_cluster.pods("one")[0]["metadata"]["name"])
    assert log == "['result'] s3cret\nTrue True\n"


def test_an_image_brings_entry_point_and_folders(fake_cluster: FakeCluster, tmp_path: Any) -> None:
    fake_cluster.images["own:1"] = Image(("python3", "-c", "import sys; print(sys.argv[1:])"), paths={"/app": tmp_path})
    manifest = job("one")
    container = container_of(manifest)
    del container["command"]
    container |= {"image": "own:1", "args": ["--base", "/app/recipe", "--store=az://c/app/x"]}
    end(fake_cluster, start(fake_cluster, manifest))
    log = fake_cluster.log(fake_cluster.pods("one")[0]["metadata"]["name"])
    assert log.strip() == str(["--base", f"{tmp_path}/recipe", "--store=az://c/app/x"])


def test_the_default_image_is_ticketsmith(fake_cluster: FakeCluster) -> None:
    manifest = job("one")
    container = container_of(manifest)
    del container["command"]
    container["args"] = ["--version"]
    end(fake_cluster, start(fake_cluster, manifest))
    assert "ticketsmith" in fake_cluster.log(fake_cluster.pods("one")[0]["metadata"]["name"]).lower()


# The end -------------------------------------------------------------------------------------------------------------


def test_exit_codes_and_last_words(cluster: Cluster) -> None:
    manifest = job("one", "print('no such thing'); raise SystemExit(3)", backoffLimit=0)
    container_of(manifest)["terminationMessagePolicy"] = "FallbackToLogsOnError"
    end(cluster, start(cluster, manifest))
    pod = cluster.pods("one")[0]
    assert pod["status"]["phase"] == "Failed"
    ended = terminated(pod)
    assert (ended["exitCode"], ended["reason"], ended["message"]) == (3, "Error", "no such thing\n")
    assert ended["finishedAt"] >= ended["startedAt"]


def test_out_of_memory(fake_cluster: FakeCluster) -> None:
    name = start(fake_cluster, job("one", STOPS_WITH_130, backoffLimit=0))
    pod = running(fake_cluster, name)[0]["metadata"]["name"]
    fake_cluster.faults.out_of_memory(pod)
    end(fake_cluster, name)
    ended = terminated(fake_cluster.pods(name)[0])
    assert (ended["exitCode"], ended["reason"]) == (137, "OOMKilled")


def test_a_memory_limit_is_kept(fake_cluster: FakeCluster) -> None:
    fake_cluster.enforce_memory = True
    manifest = job("one", "import time; b = bytearray(120_000_000); print('up'); time.sleep(60)", backoffLimit=0)
    container_of(manifest)["resources"] = {"limits": {"memory": "64Mi"}}
    end(fake_cluster, start(fake_cluster, manifest))
    assert terminated(fake_cluster.pods("one")[0])["reason"] == "OOMKilled"


def test_number_1_of_a_container_does_not_hear_sigterm_unless_it_listens(fake_cluster: FakeCluster) -> None:
    name = start(fake_cluster, job("one", SLEEP, grace=1, backoffLimit=0))
    pod = running(fake_cluster, name)[0]["metadata"]
    fake_cluster.faults.evict(pod["name"])
    fake_cluster.wait_for(lambda: condition(fake_cluster.pods(name)[0], "DisruptionTarget"))
    reason = condition(fake_cluster.pods(name)[0], "DisruptionTarget")["reason"]
    assert reason == "EvictionByEvictionAPI"
    began = time.monotonic()
    end(fake_cluster, name)
    assert time.monotonic() - began > 0.7  # its grace period, and then SIGKILL


def test_children_end_with_their_pod(fake_cluster: FakeCluster) -> None:
    script = "import subprocess; subprocess.Popen(['sleep', '600'], start_new_session=True); print('up')"
    name = start(fake_cluster, job("one", script))
    end(fake_cluster, name)
    uid = fake_cluster.pods(name)[0]["metadata"]["uid"]
    fake_cluster.wait_for(lambda: not list(processes_of(uid)))


def test_no_process_and_no_thread_outlives_the_cluster(tmp_path: Any) -> None:
    before = set(threading.enumerate())
    with FakeCluster(tmp_path) as made:
        name = start(made, job("one", SLEEP, **INDEXED))
        uids = [pod["metadata"]["uid"] for pod in running(made, name, 2)]
        assert all(len(list(processes_of(uid))) == 1 for uid in uids)
    assert not any(list(processes_of(uid)) for uid in uids)
    assert set(threading.enumerate()) <= before


def test_on_failure_restarts_in_place(cluster: Cluster) -> None:
    """The Job takes its pod along as soon as that was restarted too often: what stays are events."""
    manifest = job("one", "print('try'); raise SystemExit(1)", backoffLimit=2)
    manifest["spec"]["template"]["spec"]["restartPolicy"] = "OnFailure"
    start(cluster, manifest)
    end(cluster, "one")
    assert failed(cluster.job("one")) == "BackoffLimitExceeded"
    cluster.wait_for(lambda: not cluster.pods("one"))
    (created,) = (e for e in cluster.events("one") if e["reason"] == "SuccessfulCreate")
    pod = created["message"].removeprefix("Created pod: ")

    def starts() -> int:
        return sum(e.get("count") or 1 for e in cluster.events(pod) if e["reason"] == "Started")

    cluster.wait_for(lambda: starts() >= 2)


def test_a_negative_grace_period_is_a_second(cluster: Cluster) -> None:
    start(cluster, job("one", SLEEP, grace=-1))
    running(cluster, "one")
    BatchV1Api(client_of(cluster)).delete_namespaced_job("one", cluster.namespace, propagation_policy="Background")
    cluster.wait_for(lambda: not cluster.pods("one"), 10)


def test_a_volume_of_an_unknown_medium_keeps_its_pod_waiting(cluster: Cluster) -> None:
    manifest = job("one", grace=1)
    manifest["spec"]["template"]["spec"]["volumes"] = [{"name": "a", "emptyDir": {"medium": "Disk"}}]
    container_of(manifest)["volumeMounts"] = [{"name": "a", "mountPath": "/a"}]
    start(cluster, manifest)
    pod = cluster.wait_for(lambda: cluster.pods("one"))[0]["metadata"]["name"]
    cluster.wait_for(lambda: "FailedMount" in reasons(cluster, pod))
    assert any('unknown storage medium "Disk"' in e["message"] for e in cluster.events(pod))


# Images and logs -----------------------------------------------------------------------------------------------------


def test_missing_image(cluster: Cluster) -> None:
    manifest = job("one", grace=1)
    container_of(manifest)["image"] = "registry.invalid/nobody:1"
    if cluster.is_fake:
        cluster.faults.missing_image("registry.invalid/nobody:1")
    name = start(cluster, manifest)
    assert "registry.invalid/nobody:1" in waiting(cluster, name, "ImagePullBackOff")
    pod = cluster.pods(name)[0]
    assert pod["status"]["phase"] == "Pending"
    assert {"Failed", "BackOff"} <= reasons(cluster, pod["metadata"]["name"])
    with pytest.raises(ApiException) as error:
        CoreV1Api(client_of(cluster)).read_namespaced_pod_log(pod["metadata"]["name"], cluster.namespace)
    assert error.value.status == 400
    assert "is waiting to start" in error.value.body
    BatchV1Api(client_of(cluster)).delete_namespaced_job(name, cluster.namespace, propagation_policy="Background")
    cluster.wait_for(lambda: not cluster.pods(name))


def test_logs(cluster: Cluster) -> None:
    core = CoreV1Api(client_of(cluster))
    script = "import time\nfor n in range(5): print(n, flush=True); time.sleep(0.1)"
    start(cluster, job("one", script))
    pod = cluster.wait_for(lambda: [p for p in cluster.pods("one") if p["status"]["phase"] != "Pending"])[0]
    name = pod["metadata"]["name"]
    followed = core.read_namespaced_pod_log(name, cluster.namespace, follow=True, _preload_content=False)
    assert b"".join(followed.stream()) == b"0\n1\n2\n3\n4\n"
    assert core.read_namespaced_pod_log(name, cluster.namespace, tail_lines=2) == "3\n4\n"
    with pytest.raises(ApiException) as error:
        core.read_namespaced_pod_log(name, cluster.namespace, container="other")
    assert error.value.status == 400


def test_kill_by_hand_counts_as_a_failure(fake_cluster: FakeCluster) -> None:
    name = start(fake_cluster, job("one", SLEEP, backoffLimit=0))
    uid = running(fake_cluster, name)[0]["metadata"]["uid"]
    os.kill(next(processes_of(uid)), signal.SIGKILL)
    end(fake_cluster, name)
    ended = terminated(fake_cluster.pods(name)[0])
    assert (ended["exitCode"], ended["reason"]) == (137, "Error")
