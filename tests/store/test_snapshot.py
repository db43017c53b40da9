"""A snapshot: one listing, then only what this machine does not know yet."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.store.places import FOLDER, Place, files
from tests.store.proxy import FaultyProxy
from ticketsmith.errors import DamagedRunError
from ticketsmith.store import open_store
from ticketsmith.store.contract import MANIFEST, RunFolder, SealedRun, manifest_of
from ticketsmith.store.snapshot import Snapshot


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKETSMITH_CACHE", str(tmp_path / "cache"))


def test_it_reads_what_the_store_holds(place: Place) -> None:
    place.store.publish(FOLDER, files())
    place.store.put("exp/plan.json", b"{}")
    place.store.put("other/plan.json", b"[]")
    view = Snapshot(place.store, "exp").read_ahead(re.compile(MANIFEST))
    assert view.folders() == view.folders("exp") == [FOLDER]
    assert [file.path for file in view.files("exp")] == [file.path for file in place.store.files("exp")]
    assert view.files("exp/jobs") == []
    SealedRun(view, FOLDER).verify()
    assert view.get("exp/plan.json") == b"{}"
    assert view.get("exp/gates.json") is None
    assert view.get("other/plan.json") == b"[]"


@pytest.mark.parametrize("damage", ["flip", "remove", "manifest"])
def test_damage_in_the_store_is_found_with_a_warm_cache(place: Place, damage: str) -> None:
    place.store.publish(FOLDER, files())
    SealedRun(Snapshot(place.store, "exp"), FOLDER).verify()
    if damage == "flip":
        place.write(f"{FOLDER}/model.safetensors", b"weighty")
    elif damage == "remove":
        place.remove(f"{FOLDER}/model.safetensors")
    else:
        place.write(f"{FOLDER}/{MANIFEST}", manifest_of("ff" * 32, "trained", {}))
    with pytest.raises(DamagedRunError):
        SealedRun(Snapshot(place.store, "exp"), FOLDER).verify()


def test_what_was_read_before_costs_only_the_listing(proxy: FaultyProxy, container: str) -> None:
    store = open_store(f"az://{container}/p")
    runs = [RunFolder("exp", "dense", seed, 0, f"{seed:08x}") for seed in range(10)]
    for run in runs:
        body = {"metrics.json": str(run).encode(), "model.safetensors": b"x" * 1000}
        store.publish(run, {**body, MANIFEST: manifest_of(run.key8 * 8, "trained", body)})
    store.put("exp/plan.json", b"{}")

    def read() -> tuple[int, int]:
        proxy.forget()
        view = Snapshot(open_store(f"az://{container}/p"), "exp")
        view.read_ahead(re.compile(f"{MANIFEST}|metrics.json"))
        assert [SealedRun(view, run).read("metrics.json") for run in view.folders()] == [
            str(run).encode() for run in runs
        ]
        assert view.get("exp/plan.json") == b"{}"
        assert view.get("exp/gates.json") is None
        return proxy.count("GET", "comp=list"), proxy.count() - proxy.count("GET", "comp=list")

    assert read() == (1, 21)
    assert read() == (1, 0)
    store.put("exp/plan.json", b"{}")
    assert read() == (1, 1)
