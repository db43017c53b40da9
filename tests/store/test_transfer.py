"""Moving experiments: between any two kinds of store, whole, verified, and going on after any interruption."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from azure.storage.blob import ContainerClient

from tests.store.places import Place, blob_place, folder_place
from tests.store.proxy import FaultyProxy
from ticketsmith.errors import StoreUnreachableError
from ticketsmith.store.contract import MANIFEST, RunFolder, SealedRun, Store, manifest_of
from ticketsmith.store.transfer import Moved, move, what_to_move

RUNS = [RunFolder("exp", "ticket", seed, 1, f"{seed:08x}") for seed in range(6)]
LOOSE = {"exp/recipe.yaml": b"recipe", "exp/plan.json": b"{}", "exp/ledger/a/cost.json": b"1", "exp/report/r.md": b"r"}

Make = Callable[[str], Place]


@pytest.fixture(params=["folder to blob", "blob to folder", "folder to folder", "blob to blob"])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Place, Place]:
    made = []
    for number, kind in enumerate(request.param.split(" to ")):
        client: ContainerClient | None = request.getfixturevalue("client") if kind == "blob" else None
        made.append(blob_place(client, f"p{number}") if client else folder_place(tmp_path / f"p{number}"))
    return made[0], made[1]


def fill(store: Store) -> None:
    for run in RUNS:
        body = {"model.safetensors": str(run).encode() * 100, "environment.json": b"{}"}
        store.publish(run, {**body, MANIFEST: manifest_of(run.key8 * 8, "trained", body)})
    for path, content in LOOSE.items():
        store.put(path, content)


def transfer(source: Store, target: Store) -> Moved:
    return move(source, target, what_to_move(source, target, "exp"))


def test_everything_arrives_and_nothing_moves_twice(pair: tuple[Place, Place]) -> None:
    source, target = pair
    fill(source.store)
    source.store.put(".work/x.checkpoint", b"scratch stays")
    seen: list[int] = []
    todo = what_to_move(source.store, target.store, "exp")
    moved = move(source.store, target.store, todo, seen.append)
    assert (moved.runs, moved.loose, moved.damaged) == (6, 4, {})
    assert sum(seen) == todo.bytes == sum(map(len, source.everything().values()))
    assert target.everything() == source.everything()
    again = what_to_move(source.store, target.store, "exp")
    assert (again.runs, again.loose, again.there) == ({}, [], 6)


def test_sealed_runs_of_the_target_stay_and_loose_files_become_those_of_the_source(pair: tuple[Place, Place]) -> None:
    source, target = pair
    fill(source.store)
    other = {"model.safetensors": b"made elsewhere", "environment.json": b"{}"}
    target.store.publish(RUNS[0], {**other, MANIFEST: manifest_of(RUNS[0].key8 * 8, "trained", other)})
    target.store.put("exp/recipe.yaml", b"another")
    target.store.put("exp/report/r.md", b"r")
    target.store.put("exp/gates.json", b"only here")
    todo = what_to_move(source.store, target.store, "exp")
    assert todo.replaced == ["exp/recipe.yaml"]
    assert sorted(file.path for file in todo.loose) == sorted(set(LOOSE) - {"exp/report/r.md"})
    assert move(source.store, target.store, todo).runs == 5
    assert SealedRun(target.store, RUNS[0]).read("model.safetensors") == b"made elsewhere"
    assert target.store.get("exp/recipe.yaml") == b"recipe"
    assert target.store.get("exp/gates.json") == b"only here"


@pytest.mark.parametrize("damage", ["flip", "remove", "manifest"])
def test_a_damaged_run_is_named_and_left_and_the_others_arrive(pair: tuple[Place, Place], damage: str) -> None:
    source, target = pair
    fill(source.store)
    bad = f"{RUNS[2]}/model.safetensors"
    if damage == "remove":
        source.remove(bad)
    else:
        source.write(bad if damage == "flip" else f"{RUNS[2]}/{MANIFEST}", b"{}")
    moved = transfer(source.store, target.store)
    assert moved.runs == 5
    assert list(moved.damaged) == [RUNS[2]]
    assert str(RUNS[2]) in moved.damaged[RUNS[2]]
    assert target.store.folders() == [run for run in RUNS if run != RUNS[2]]


def test_what_is_not_sealed_is_not_moved(pair: tuple[Place, Place]) -> None:
    source, target = pair
    source.store.put("exp/plan.json", b"{}")
    source.write(f"{RUNS[0]}/model.safetensors", b"half")
    transfer(source.store, target.store)
    assert target.everything() == {"exp/plan.json": b"{}"}


def test_an_outage_in_the_middle_and_the_same_again(
    proxy: FaultyProxy, client: ContainerClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of it arrives; then nobody answers; then the same call brings the rest, and only that."""
    source = folder_place(tmp_path / "source")
    fill(source.store)
    target = blob_place(client, "p")
    monkeypatch.setattr(target.store._persistence, "patience", 1.0)  # type: ignore[attr-defined]
    todo = what_to_move(source.store, target.store, "exp")
    for run in RUNS[3:]:
        proxy.answer(503, times=10**6, method="PUT", path=str(run))
    with pytest.raises(StoreUnreachableError, match="again"):
        move(source.store, target.store, todo)
    proxy.calm()
    there = {str(run) for run in target.store.folders()}
    assert there == {str(run) for run in RUNS[:3]}
    proxy.forget()
    transfer(source.store, target.store)
    assert target.everything() == source.everything()
    assert not any(proxy.count("PUT", run) for run in there)
