"""``kubectl`` finds its way around: what people type works on the fake too."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.cluster.examples import SLEEP, job
from tests.cluster.fixtures import Cluster
from tests.cluster.test_job_controller import end, running, start

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl on this machine")


def kubectl(cluster: Cluster, *arguments: str, status: int = 0) -> str:
    base = ["kubectl", "--kubeconfig", str(cluster.kubeconfig), "--namespace", cluster.namespace]
    # Discovery is cached by address, and a port may have been another cluster's.
    environment = {**os.environ, "KUBECACHEDIR": str(cluster.folder / "kubectl")}
    done = subprocess.run([*base, *arguments], capture_output=True, text=True, env=environment, timeout=60)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_get_describe_logs_delete(cluster: Cluster) -> None:
    start(cluster, job("one"))
    end(cluster, "one")
    assert "one" in kubectl(cluster, "get", "jobs")
    assert json.loads(kubectl(cluster, "get", "job", "one", "-o", "json"))["status"]["succeeded"] == 1
    assert kubectl(cluster, "logs", "job/one").endswith("done\n")
    said = kubectl(cluster, "describe", "job", "one")
    assert "Pods Statuses:" in said
    assert "Created pod: one-" in said
    assert "one-" in kubectl(cluster, "get", "pods", "-l", "job-name=one", "-o", "name")
    kubectl(cluster, "wait", "--for=condition=complete", "job/one", "--timeout=5s")
    assert 'job.batch "one" deleted' in kubectl(cluster, "delete", "job", "one")
    assert "NotFound" in kubectl(cluster, "get", "job", "one", status=1)
    cluster.wait_for(lambda: not cluster.pods())


def test_apply_a_folder_of_manifests(cluster: Cluster, tmp_path: Path) -> None:
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "worker"}}
    (tmp_path / "account.yaml").write_text(yaml.safe_dump(account))
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job("one", suspend=True)))
    listing = {"resources": ["account.yaml", "job.yaml"], "namespace": cluster.namespace}
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(listing))
    said = kubectl(cluster, "apply", "-k", str(tmp_path))
    assert "serviceaccount/worker created" in said
    assert "job.batch/one created" in said
    assert "job.batch/one unchanged" in kubectl(cluster, "apply", "-k", str(tmp_path))
    said = kubectl(cluster, "apply", "--server-side", "--force-conflicts", "-k", str(tmp_path))
    assert "job.batch/one serverside-applied" in said
    wrong = job("two")
    wrong["spec"]["retries"] = 3
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(wrong))
    assert 'unknown field "spec.retries"' in kubectl(cluster, "apply", "-f", str(tmp_path / "job.yaml"), status=1)
    said = kubectl(cluster, "apply", "--dry-run=server", "-f", str(tmp_path / "account.yaml"))
    assert "(server dry run)" in said


def test_cancel_follows_the_pods(cluster: Cluster) -> None:
    start(cluster, job("one", SLEEP, grace=1))
    running(cluster, "one")
    kubectl(cluster, "delete", "job", "one", "--wait")
    cluster.wait_for(lambda: not cluster.pods())


def test_drain_evicts(cluster: Cluster) -> None:
    if not cluster.is_fake:
        pytest.skip("would drain a node that others use")
    start(cluster, job("one", SLEEP, grace=1))
    pod = running(cluster, "one")[0]
    said = kubectl(cluster, "drain", pod["spec"]["nodeName"], "--pod-selector=job-name=one", "--timeout=30s")
    assert "evicted" in said
    assert json.loads(kubectl(cluster, "get", "node", pod["spec"]["nodeName"], "-o", "json"))["spec"]["unschedulable"]
