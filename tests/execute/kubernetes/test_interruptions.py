"""Experiments on a cluster whose pods are killed, evicted, lost with their node or out of time: the bytes are the same."""

from __future__ import annotations

from tests.cluster.fake import FakeCluster
from tests.cluster.scheduler import Pool
from tests.execute.kubernetes.conftest import SMALL
from tests.execute.kubernetes.test_experiment import Make, local
from ticketsmith.store import open_store

LONG = (*SMALL, ("duration: 120it", "duration: 7000it"), ("evaluate_every: 30it", "evaluate_every: 1750it"))
"""Two runs of some seconds each."""


def test_an_evicted_pod_a_killed_one_and_a_killed_conductor_lose_nothing(azure_lab: Make) -> None:
    lab = azure_lab(*LONG)
    lab.run("submit")
    evicted = lab.pod_at_work("dense")
    conductor = lab.pods("conductor", "Running")[0]["metadata"]["name"]
    lab.cluster.faults.evict(evicted)
    lab.cluster.faults.kill(conductor)
    lab.cluster.wait_for(lambda: any(pod["metadata"]["name"] != evicted for pod in lab.pods("dense")), 60)
    lab.cluster.wait_for(
        lambda: any(pod["metadata"]["name"] != conductor for pod in lab.pods("conductor", "Running")), 60
    )
    killed = lab.pod_at_work("ticket")
    lab.cluster.faults.kill(killed)
    assert lab.wait_until_over() == "Complete"
    records = {record.pod: record for record in lab.records.pods()}
    assert records[evicted].exit == 130  # not 0: a pod that ended well would count as done
    assert (records[killed].ended, records[killed].exit) == (True, 137)
    log = open_store(lab.store).get(lab.records.log_path(records[evicted].job, 0, evicted)) or b""
    assert b"stopped: asked to end" in log
    job = lab.cluster.job(records[evicted].job)
    assert not job["status"].get("failedIndexes")  # an eviction is free
    logs = lab.run("logs", "--experiment", "digits", "--variant", "ticket")
    assert logs.count("3 runs, 2 of them cached") == 2  # the killed pod's, too
    assert lab.sealed() == local(lab)


def test_a_lost_node_and_the_same_index_twice(azure_lab: Make) -> None:
    lab = azure_lab(*LONG)
    if isinstance(lab.cluster, FakeCluster):
        lab.cluster.scheduler.add(Pool("spare"))
    lab.run("submit")
    pod = lab.pod_at_work("dense")
    lab.cluster.faults.lose_node(lab.cluster.faults.node_of(pod))
    lab.pod_at_work("ticket")
    job = lab.pods("ticket")[0]["metadata"]["labels"]["job-name"]
    lab.cluster.faults.run_twice(job, 0)
    assert lab.wait_until_over() == "Complete"
    assert lab.sealed() == local(lab)


def test_a_passed_deadline_is_told_and_resume_goes_on_from_the_checkpoint(azure_lab: Make) -> None:
    lab = azure_lab(
        *SMALL, ("duration: 120it", "duration: 900000it"), ("evaluate_every: 30it", "evaluate_every: 300000it")
    )
    lab.set(("deadline: 10m", "deadline: 12s"))
    lab.run("submit")
    assert lab.wait_until_over() == "Failed"
    status = lab.run("status", "--experiment", "digits")
    assert "its deadline passed" in status
    assert "`ticketsmith resume" in status
    (key,) = (node.key for node in lab.plan.nodes if node.variant == "dense")
    reached = lab.step_of(key)
    assert reached > 0
    again = lab.run("resume", "--experiment", "digits", "--set-target", "limits.deadline=10m")
    assert "again: ts-digits-dense" in again
    lab.cluster.wait_for(lambda: lab.step_of(key) != reached, 120)
    assert lab.step_of(key) > reached  # not from the beginning
    assert "2 Jobs stopped" in lab.run("cancel", "--experiment", "digits")
    lab.cluster.wait_for(lambda: not lab.pods("dense", "Running"))
