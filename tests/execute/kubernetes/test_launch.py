"""The conductor's own start: waited for, explained, and taken back when nothing comes of it."""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.fake import FakeCluster
from tests.cluster.kubelet import Image
from tests.cluster.scheduler import Pool
from tests.execute.kubernetes.conftest import Lab, make_lab
from tests.execute.kubernetes.test_conductor import begin, proposal_of
from ticketsmith.config.target import load_target
from ticketsmith.errors import Exit
from ticketsmith.execute.kubernetes.conductor import ensure_conductor
from ticketsmith.execute.kubernetes.launch import NotBegunError, wait_until_begun
from ticketsmith.execute.kubernetes.manifests import has_begun

Make = Callable[..., Lab]
ONE = ("replicates: 2", "replicates: 1")
SOON = ("stuck: 3s", "stuck: 1s")


def launch(lab: Lab) -> tuple[str, list[str]]:
    """Submits, begins a conductor and waits for it, as ``submit`` does; its Job and what was told."""
    conductor, told = begin(lab), list[str]()
    name = ensure_conductor(lab.records, conductor.cluster, lab.submitted)
    wait_until_begun(lab.records, conductor.cluster, name, lab.submitted, told.append, look=0.1)
    return name, told


def refusal(lab: Lab) -> str:
    """Why the conductor did not begin. It is taken back, and said so in the store."""
    with pytest.raises(NotBegunError) as error:
        launch(lab)
    assert error.value.exit_status == Exit.LOST
    (outcome,) = lab.records.outcomes()
    assert (outcome.status, outcome.reason, outcome.component) == ("stopped", "Stuck", "conductor")
    lab.cluster.wait_for(lambda: not lab.cluster.pods())
    return str(error.value)


def never(lab: Lab, *arguments: str) -> None:
    """From now on the image is one whose process does something else."""
    lab.cluster.images[lab.cluster.image] = Image((sys.executable, *arguments))  # type: ignore[union-attr]


def test_submit_tells_of_a_wrong_image_and_submits_again_under_another_name(light_lab: Make) -> None:
    lab = light_lab(ONE)
    lab.set(SOON)
    lab.cluster.faults.missing_image(lab.cluster.image)
    code, text = lab.ends("submit")
    assert code == Exit.LOST, text
    said = " ".join(text.split())
    assert "the image cannot be pulled" in said
    assert "for 1 s (`limits.stuck`)" in said
    assert "It was taken back, and nothing new begins" in said
    lab.cluster.wait_for(lambda: not lab.cluster.pods())
    assert re.search(r"conductor\s+│ ts-digits-conductor-\S+\s+│ stopped", lab.run("status"))
    lab.cluster.missing_images.clear()  # type: ignore[union-attr]
    assert not proposal_of(lab).lost  # a conductor makes no runs
    name, _ = launch(lab)
    assert name not in text
    assert all(outcome.set_aside for outcome in lab.records.outcomes() if outcome.component == "conductor")


def test_once_it_is_at_work_it_has_the_time_of_an_experiment_and_stays_no_longer_than_others(light_lab: Make) -> None:
    lab = light_lab(ONE)
    lab.set(("experiment: 20m", "experiment: 20m, keep: 1s"))
    conductor = begin(lab)
    name = ensure_conductor(lab.records, conductor.cluster, lab.submitted)
    spec = lab.cluster.job(name)["spec"]
    assert (spec["activeDeadlineSeconds"], spec["ttlSecondsAfterFinished"]) == (603, 60)
    wait_until_begun(lab.records, conductor.cluster, name, lab.submitted, lab.notes.append, look=0.1)
    spec = lab.cluster.job(name)["spec"]
    assert (spec["activeDeadlineSeconds"], spec["ttlSecondsAfterFinished"]) == (1200, 1)
    assert ensure_conductor(lab.records, conductor.cluster, lab.submitted) == name  # no second one


def test_a_missing_secret(light_lab: Make) -> None:
    lab = light_lab(ONE)
    lab.set(SOON, ("budget:", "connection_secret: {name: nobody}\nbudget:"))
    assert 'secret "nobody" not found' in refusal(lab)


def test_a_pod_that_no_node_takes_and_none_is_started_for(light_lab: Make) -> None:
    lab = light_lab(ONE)
    lab.set(SOON, ("cpu: {machine: my-node=0.1,", "cpu: {machine: my-node=0.1, node_selector: {pool: none},"))
    assert "no node has room" in refusal(lab)


def test_a_service_account_that_is_not_there(light_lab: Make) -> None:
    lab = light_lab(ONE)
    lab.set(SOON, ("budget:", "conductor_account: nobody\nbudget:"))
    assert 'serviceaccount "nobody" not found' in refusal(lab)


def test_a_conductor_that_ends_again_and_again_is_told_with_its_last_words(light_lab: Make) -> None:
    lab = light_lab(ONE)
    lab.set(SOON)
    never(lab, "-c", "print('error: no way to the store'); raise SystemExit(5)")
    said = refusal(lab)
    assert "exit status 5" in said
    assert "error: no way to the store" in said


def test_bad_input_is_not_waited_for(light_lab: Make) -> None:
    lab = light_lab(ONE)
    never(lab, "-c", "print('error: no such command'); raise SystemExit(2)")
    said = refusal(lab)
    assert "bad input" in said
    assert "limits.stuck" not in said
    log = lab.records.store.get(next(f.path for f in lab.records.store.files(f"{lab.experiment}/logs")))
    assert b"error: no such command" in (log or b"")  # kept, though the pod is gone


def test_a_node_that_is_being_started_is_no_reason(tmp_path: Path) -> None:
    grows = Pool("cpu", {"pool": "cpu"}, least=0, most=1, delay=2.5)
    with FakeCluster(tmp_path, Pool("other"), grows) as cluster:
        lab = make_lab(tmp_path, cluster, str(tmp_path / "runs"), None, ONE)
        lab.set(SOON, ("cpu: {machine: my-node=0.1,", "cpu: {machine: my-node=0.1, node_selector: {pool: cpu},"))
        name, told = launch(lab)
        assert has_begun(cluster.job(name))
        assert any("waits for a node that is being started" in line for line in told)


def test_what_begins_at_the_last_moment_is_not_taken_back(light_lab: Make) -> None:
    lab = light_lab(ONE)
    never(lab, "-c", "import time; time.sleep(600)")
    cluster, target = begin(lab).cluster, lab.submitted
    name = ensure_conductor(lab.records, cluster, target)
    seen = lab.cluster.wait_for(lambda: lab.pods("conductor", "Running") and lab.cluster.job(name))
    cluster.mark_begun(name, "pod", 1200, 60)
    assert not cluster.delete(name, unless_changed_from=seen["metadata"]["resourceVersion"])
    assert "deletionTimestamp" not in lab.cluster.job(name)["metadata"]
    wait_until_begun(lab.records, cluster, name, target, lab.notes.append)  # returns


def test_one_that_an_earlier_version_began_counts_as_at_work(light_lab: Make) -> None:
    lab = light_lab(ONE)
    cluster, target = begin(lab).cluster, load_target(lab.target)
    name = ensure_conductor(lab.records, cluster, target)
    live: Any = lab.cluster.job(name)
    assert not has_begun(live)
    del live["metadata"]["annotations"]["ticketsmith.io/begun"]
    assert has_begun(live)


def test_a_conductor_that_nobody_waits_for_is_ended_by_its_first_deadline(light_lab: Make) -> None:
    lab = light_lab(ONE)
    lab.cluster.faults.missing_image(lab.cluster.image)
    cluster = begin(lab).cluster
    name = ensure_conductor(lab.records, cluster, lab.submitted)
    lab.cluster.wait_for(lambda: lab.pods("conductor"))
    lab.cluster.faults.shift_clock(605)  # time passes
    lab.cluster.wait_for(lambda: not lab.pods("conductor"))
    assert lab.cluster.job(name)["status"]["conditions"][-1]["reason"] == "DeadlineExceeded"
    lab.cluster.faults.shift_clock(3605)  # `limits.keep` later
    lab.cluster.wait_for(lambda: cluster.job(name) is None)


def test_interrupted_it_says_what_goes_on_and_how_to_stop_it(light_lab: Make) -> None:
    lab = light_lab(ONE)
    lab.set(("stuck: 3s", "stuck: 60s"))  # nothing is taken back while it is interrupted
    lab.cluster.faults.missing_image(lab.cluster.image)

    submit = lab.start("submit")
    assert submit.stdout is not None
    said = ""
    while "the image cannot be pulled" not in said:
        said += submit.stdout.readline() or pytest.fail(said)
    submit.send_signal(signal.SIGINT)
    said = " ".join(submit.communicate(timeout=60)[0].split())
    assert submit.returncode == Exit.INTERRUPTED
    assert "goes on without this terminal" in said
    assert f"`ticketsmith cancel --target {lab.target} --experiment digits` stops it" in said
    assert lab.pods("conductor")
    assert "1 Jobs stopped" in lab.run("cancel")
    lab.cluster.wait_for(lambda: not lab.cluster.pods())
