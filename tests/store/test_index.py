"""What is sealed: one listing, every manifest read once, and what others do meanwhile does no harm."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.store.places import Counting, Place, folder_place
from tests.store.proxy import FaultyProxy
from ticketsmith.errors import DamagedRunError
from ticketsmith.store import open_store
from ticketsmith.store.contract import MANIFEST, RunFolder, Store, manifest_of
from ticketsmith.store.index import Index


def key_of(number: int) -> str:
    return f"{number:08x}" * 8


def seal(store: Store, number: int, experiment: str = "exp", variant: str = "dense", key: str = "") -> RunFolder:
    folder = RunFolder(experiment, variant, number, 0, f"{number:08x}")
    body = {"model.safetensors": b"weights"}
    assert store.publish(folder, {**body, MANIFEST: manifest_of(key or key_of(number), "trained", body)})
    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKETSMITH_CACHE", str(tmp_path / "cache"))


def test_a_run_is_found_by_its_whole_key_in_its_experiment(place: Place) -> None:
    store = place.store
    first, second = seal(store, 1), seal(store, 2)
    seal(store, 3, key=f"{3:08x}" + "f" * 56)
    other = seal(store, 4, "other")
    keys = [key_of(number) for number in (4, 3, 2, 1, 0)]
    index = Index(store)
    assert {key: run.folder for key, run in index.runs(keys, "exp").items()} == {keys[2]: second, keys[3]: first}
    assert index.statuses(keys, "other") == {keys[0]: "trained"}
    assert index.place(keys[0], "other") == other
    assert index.place(keys[1], "exp") is None
    again = seal(store, 1, variant="ticket")
    assert Index(store, "exp").place(keys[3], "exp") == again


def test_what_others_seal_is_seen_after_a_refresh_and_what_is_told_at_once(place: Place) -> None:
    seal(place.store, 1)
    index = Index(place.store)
    assert list(index.runs([key_of(1), key_of(2)], "exp")) == [key_of(1)]
    folder = seal(place.store, 2)
    assert index.place(key_of(2), "exp") is None
    index.add(key_of(2), folder)
    assert index.place(key_of(2), "exp") == folder
    index.refresh()
    assert list(index.runs([key_of(1), key_of(2)], "exp")) == [key_of(1), key_of(2)]


def test_twins_are_the_listed_ones_and_of_what_others_make_those_of_its_name_in_every_experiment(place: Place) -> None:
    listed = seal(place.store, 1, "a", "one_shot")
    seal(place.store, 2, "b")
    index, mine = Index(place.store), RunFolder("exp", "ticket", 1, 0, f"{1:08x}")
    assert index.twins(mine, key_of(1)) == (listed,)
    assert index.twins(mine, key_of(3)) == (), "a request for each experiment, for nothing"
    index.expect_elsewhere(key_of(1))
    assert index.twins(mine, key_of(1)) == (
        listed,
        RunFolder("a", "ticket", 1, 0, f"{1:08x}"),
        RunFolder("b", "ticket", 1, 0, f"{1:08x}"),
    )
    place.store.put("new/plan.json", b"{}")
    index.expect_elsewhere(key_of(1))
    assert index.twins(mine, key_of(1))[-1].experiment == "new"


def test_a_damaged_manifest_is_an_error_only_for_who_asks_for_it(place: Place) -> None:
    seal(place.store, 1)
    place.write(f"{seal(place.store, 2)}/{MANIFEST}", b"{}")
    assert list(Index(place.store).runs([key_of(1)], "exp")) == [key_of(1)]
    with pytest.raises(DamagedRunError, match=r"00000002/manifest\.json"):
        Index(place.store).runs([key_of(1), key_of(2)], "exp")


@pytest.mark.parametrize("runs", [1, 10, 100])
def test_a_folder_is_listed_once_and_each_manifest_read_once(tmp_path: Path, runs: int) -> None:
    store = Counting(folder_place(tmp_path / "runs").store)
    for number in range(runs):
        seal(store, number)
    store.asked.clear()
    index, keys = Index(store), [key_of(number) for number in range(runs)]
    for _ in range(3):
        assert len(index.statuses(keys, "exp")) == runs
        assert index.place(keys[0], "exp") is not None
        assert index.twins(RunFolder("new", "dense", 0, 0, "0" * 8), keys[0])
    assert (store.count("folders"), store.count("get", MANIFEST), len(store.asked)) == (1, runs, 1 + runs)


@pytest.mark.parametrize("runs", [1, 20])
def test_on_azure_a_known_store_costs_one_listing(proxy: FaultyProxy, container: str, runs: int) -> None:
    store = open_store(f"az://{container}/p")
    for number in range(runs):
        seal(store, number)

    def requests() -> tuple[int, int]:
        proxy.forget()
        assert len(Index(open_store(f"az://{container}/p")).statuses(map(key_of, range(runs)), "exp")) == runs
        return proxy.count("GET", "comp=list"), proxy.count() - proxy.count("GET", "comp=list")

    assert requests() == (1, runs)
    assert requests() == (1, 0)
