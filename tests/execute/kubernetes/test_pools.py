"""Pools that cost money: grown from zero, explained while they are, and not kept for a GPU that idles."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster.fake import FakeCluster
from tests.cluster.kubelet import Image
from tests.cluster.scheduler import Pool
from tests.execute.kubernetes import idle_pod
from tests.execute.kubernetes.conftest import ROOT, SMALL, Lab
from tests.execute.kubernetes.test_conductor import begin
from ticketsmith.errors import Exit
from ticketsmith.execute.kubernetes.submit import look

Make = Callable[..., Lab]
GPU = {
    "train: {machine: my-node=0.1, ": "train: {machine: my-gpu=2.0, gpus: 1, node_selector: {ticketsmith.io/pool: gpu}, "
    "tolerations: [{key: sku, value: gpu}], ",
    "idle_tail: 60s}\ncpu": "idle_tail: 1s}\ncpu",
}


@pytest.fixture
def fake_cluster(tmp_path: Path) -> Iterator[FakeCluster]:
    """With a GPU pool that is empty."""
    gpu = Pool(
        "gpu",
        labels={"ticketsmith.io/pool": "gpu"},
        taints=("sku=gpu:NoSchedule",),
        allocatable={"cpu": "4", "memory": "28Gi", "nvidia.com/gpu": "1"},
        least=0,
        most=2,
        delay=2.0,
    )
    with FakeCluster(tmp_path, Pool("default"), gpu) as cluster:
        yield cluster


def gpu_nodes(lab: Lab) -> int:
    from tests.cluster.resources import NODES

    nodes = lab.cluster.storage.list(NODES)  # type: ignore[union-attr]
    return sum(node["metadata"]["labels"].get("ticketsmith.io/pool") == "gpu" for node in nodes)


def test_nodes_come_when_a_job_needs_them_and_go_when_it_is_over(light_lab: Make) -> None:
    lab = light_lab(LIGHT_SECONDS="0.3")
    lab.set(*GPU.items())
    conductor = begin(lab)
    assert gpu_nodes(lab) == 0
    conductor.step()
    lab.cluster.wait_for(
        lambda: any(
            "node that is being started" in line.why for line in look(lab.records, conductor.cluster, lab.submitted)
        )
    )
    assert conductor.run(poll=0.2) == Exit.OK
    lab.cluster.wait_for(lambda: gpu_nodes(lab) == 0)  # back to no cost
    assert all(pod["spec"]["nodeName"].startswith("aks-gpu") for pod in lab.pods("ticket"))
    assert all(pod["spec"]["nodeName"].startswith("aks-default") for pod in lab.pods("report"))


def test_a_job_whose_gpu_idles_is_stopped_with_its_checkpoint_saved(light_lab: Make) -> None:
    lab = light_lab(
        *SMALL, ("duration: 120it", "duration: 200000it"), ("evaluate_every: 30it", "evaluate_every: 20000it")
    )
    lab.set(("benchmark: false", "benchmark: false\nidle_gpu: {below: 0.1, window: 3s}"))
    lab.cluster.images[lab.cluster.image] = Image(  # type: ignore[union-attr]
        (sys.executable, "-m", idle_pod.__name__), env={"PYTHONPATH": str(ROOT)}
    )
    assert begin(lab).run(poll=0.2) == Exit.LOST
    (outcome,) = lab.records.outcomes()
    assert outcome.status == "failed"
    assert "its GPU was idle" in outcome.message
    (record,) = lab.records.pods()
    assert (record.exit, record.gpu_utilisation) == (Exit.IDLE_GPU, 0.0)
    assert len(lab.pods("dense")) == 1  # not tried again: it would idle again
    log = lab.records.store.get(lab.records.log_path(outcome.job, 0, record.pod)) or b""
    assert b"mean utilisation over 3 s was under 10%" in log
    assert [file for file in lab.records.store.files(".work") if file.path.endswith(".checkpoint")]
