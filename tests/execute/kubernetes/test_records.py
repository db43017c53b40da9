"""What a conductor asks of the store at every look: as much for a hundred pods as for one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.store.places import Counting
from ticketsmith.execute.kubernetes.records import PodRecord, Records
from ticketsmith.prices import Rate
from ticketsmith.store import open_store


def record(number: int) -> PodRecord:
    return PodRecord.of(f"pod-{number}", "job", "ticket", number, Rate("machine", 1.0, "USD"))


@pytest.mark.parametrize("pods", [1, 10, 100])
def test_records_of_pods_that_live_or_have_ended_are_read_once(tmp_path: Path, pods: int) -> None:
    store = Counting(open_store(tmp_path / "runs"))
    records = Records(store, "exp")
    live = [f"pod-{number}" for number in range(0, pods, 2)]
    for number in range(pods):
        records.keep_pod(replace(record(number).lasting(100.0), ended=number % 2 == 1))
    first = records.pods(live)
    store.asked.clear()
    second = records.pods(live)
    assert [name for name, _ in store.asked] == ["files"]
    assert [one.pod for one in second] == [one.pod for one in first]
    for before, now in zip(first, second, strict=True):
        assert now.seconds == 100.0 if before.ended else 100.0 <= before.seconds <= now.seconds
    records.keep_pod(replace(record(0).lasting(250.0), ended=True, exit=0))
    assert next(one for one in records.pods() if one.pod == "pod-0").seconds == 250.0


def test_a_pod_that_was_taken_for_lost_and_writes_again_is_accounted_for(tmp_path: Path, container: str) -> None:
    """On a node that comes back. A folder tells no versions: there the cluster must have the pod again."""
    for store, live in ((str(tmp_path / "runs"), ["pod-0"]), (f"az://{container}/runs", [])):
        records = Records(open_store(store), "exp")
        records.keep_pod(replace(record(0).lasting(100.0), ended=True))
        assert records.pods()[0].seconds == 100.0
        records.keep_pod(record(0).lasting(3600.0))
        (back,) = records.pods(live)
        assert (back.seconds, back.ended) == (3600.0, False)
