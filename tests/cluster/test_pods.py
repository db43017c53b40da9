"""What a pod's process sees, how it ends, and what is told of it."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from kubernetes.client import ApiException, BatchV1Api, CoreV1Api

from tests.cluster.examples import INDEXED, SLEEP, STOPS_WITH_130, condition, container_of, job
from tests.cluster.fixtures import Cluster, FakeCluster, client_of
from tests.cluster.kubelet import Image, processes_of
from tests.cluster.steps import end, reasons, running, start


def terminated(pod: Any) -> Any:
    return pod["status"]["containerStatuses"][0]["state"]["terminated"]


def waiting(cluster: Cluster, name: str, reason: str) -> str:
    """The message of a container that waits for a reason."""

    def look() -> Any:
        states = [s["state"] for pod in cluster.pods(name) for s in pod["status"].get("containerStatuses") or []]
        return next((s["waiting"] for s in states if (s.get("waiting") or {}).get("reason") == reason), None)

    return str(cluster.wait_for(look, what=reason).get("message", ""))


def test_environment(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", "secret")  # nothing of the tests' own leaks into pods
    cluster.add_secret("store", key="s3cret")
    script = "import os; print([os.environ.get(n) for n in 'ABCD'], [n for n in os.environ if 'AZURE' in n])"
    manifest = job("one", script)
    manifest["spec"]["template"]["metadata"] = {"labels": {"team": "a"}}
    container_of(manifest)["env"] = [
        {"name": "A", "value": "1"},
        {"name": "B", "valueFrom": {"secretKeyRef": {"name": "store", "key": "key"}}},
        {"name": "C", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "D", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['team']"}}},
    ]
    end(cluster, start(cluster, manifest))
    pod = cluster.pods("one")[0]["metadata"]["name"]
    assert cluster.log(pod).strip() == f"['1', 's3cret', '{pod}', 'a'] []"


def test_missing_secret_then_there(cluster: Cluster) -> None:
    variable, volume = job("variable"), job("volume")
    reference = {"secretKeyRef": {"name": "store", "key": "key"}}
    container_of(variable)["env"] = [{"name": "A", "valueFrom": reference}]
    volume["spec"]["template"]["spec"]["volumes"] = [{"name": "key", "secret": {"secretName": "store"}}]
    container_of(volume)["volumeMounts"] = [{"name": "key", "mountPath": "/etc/store"}]
    start(cluster, variable)
    start(cluster, volume)
    assert 'secret "store" not found' in waiting(cluster, "variable", "CreateContainerConfigError")
    assert cluster.pods("variable")[0]["status"]["phase"] == "Pending"
    pod = cluster.wait_for(lambda: cluster.pods("volume"))[0]["metadata"]["name"]
    cluster.wait_for(lambda: "FailedMount" in reasons(cluster, pod))
    message = next(e["message"] for e in cluster.events(pod) if e["reason"] == "FailedMount")
    assert message == 'MountVolume.SetUp failed for volume "key" : secret "store" not found'
    cluster.add_secret("store", key="s3cret")
    assert end(cluster, "variable")["succeeded"] == 1
    assert end(cluster, "volume", 200)["succeeded"] == 1


def test_volumes_are_folders_of_the_pod_and_an_image_brings_its_entry_point(fake_cluster: FakeCluster) -> None:
    """Mount paths in arguments and variables stand for the real folders."""
    script = """
import os, pathlib, sys, tempfile
pathlib.Path(sys.argv[1]).write_text('x')
print(sorted(p.name for p in pathlib.Path(os.environ['WORK']).iterdir()))
print(tempfile.gettempdir() == os.environ['TMPDIR'], os.getcwd() == os.environ['WORK'])
"""
    fake_cluster.images["own:1"] = Image(("python3", "-c", script))
    manifest = job("one")
    pod, container = manifest["spec"]["template"]["spec"], container_of(manifest)
    del container["command"]
    pod["volumes"] = [{"name": "work", "emptyDir": {"sizeLimit": "1Gi"}}, {"name": "tmp", "emptyDir": {}}]
    container["volumeMounts"] = [{"name": name, "mountPath": f"/{name}"} for name in ("work", "tmp")]
    container |= {"image": "own:1", "args": ["/work/result"], "env": [{"name": "WORK", "value": "/work"}]}
    end(fake_cluster, start(fake_cluster, manifest))
    assert fake_cluster.log(fake_cluster.pods("one")[0]["metadata"]["name"]) == "['result']\nTrue True\n"


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


@pytest.mark.parametrize(("fault", "reason"), [("out_of_memory", "OOMKilled"), ("kill", "Error")])
def test_killed(fake_cluster: FakeCluster, fault: str, reason: str) -> None:
    name = start(fake_cluster, job("one", STOPS_WITH_130, backoffLimit=0))
    getattr(fake_cluster.faults, fault)(running(fake_cluster, name)[0]["metadata"]["name"])
    end(fake_cluster, name)
    ended = terminated(fake_cluster.pods(name)[0])
    assert (ended["exitCode"], ended["reason"]) == (137, reason)


def test_number_1_of_a_container_does_not_hear_sigterm_unless_it_listens(fake_cluster: FakeCluster) -> None:
    name = start(fake_cluster, job("one", SLEEP, grace=1, backoffLimit=0))
    fake_cluster.faults.evict(running(fake_cluster, name)[0]["metadata"]["name"])
    began = time.monotonic()
    assert condition(fake_cluster.pods(name)[0], "DisruptionTarget")["reason"] == "EvictionByEvictionAPI"
    end(fake_cluster, name)
    assert time.monotonic() - began > 0.7  # its grace period, and then SIGKILL


def test_no_process_and_no_thread_outlives_its_pod_or_the_cluster(tmp_path: Any) -> None:
    before = set(threading.enumerate())
    child = "import subprocess; subprocess.Popen(['sleep', '600'], start_new_session=True)"
    with FakeCluster(tmp_path) as cluster:
        end(cluster, start(cluster, job("short", child)))
        short = cluster.pods("short")[0]["metadata"]["uid"]
        cluster.wait_for(lambda: not list(processes_of(short)))
        name = start(cluster, job("long", SLEEP, **INDEXED))
        uids = [pod["metadata"]["uid"] for pod in running(cluster, name, 2)]
        assert all(len(list(processes_of(uid))) == 1 for uid in uids)
    assert not any(list(processes_of(uid)) for uid in uids)
    assert set(threading.enumerate()) <= before


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
    assert "is waiting to start" in str(error.value.body)
    BatchV1Api(client_of(cluster)).delete_namespaced_job(name, cluster.namespace, propagation_policy="Background")
    cluster.wait_for(lambda: not cluster.pods(name))


def test_logs_are_followed_to_the_end(cluster: Cluster) -> None:
    start(cluster, job("one", "import time\nfor n in range(5): print(n, flush=True); time.sleep(0.1)"))
    pod = cluster.wait_for(lambda: [p for p in cluster.pods("one") if p["status"]["phase"] != "Pending"])[0]
    log = CoreV1Api(client_of(cluster)).read_namespaced_pod_log(
        pod["metadata"]["name"], cluster.namespace, follow=True, _preload_content=False
    )
    assert b"".join(log.stream()) == b"0\n1\n2\n3\n4\n"
