"""What every store promises, whatever it lies on: sealed runs are whole, immutable and exactly once visible."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.store.places import FOLDER, KEY, Place, files
from ticketsmith.errors import DamagedRunError, RecipeError
from ticketsmith.store import open_store
from ticketsmith.store.blob.store import BlobStore
from ticketsmith.store.contract import MANIFEST, RunFolder, SealedRun, check_name, manifest_of

LARGE = os.urandom(20 * 2**20)
"""Several blocks of a blob, and not a whole number of them."""


def test_a_run_is_published_whole_and_once(place: Place) -> None:
    store = place.store
    assert store.folders() == []
    assert store.publish(FOLDER, files())
    assert not store.publish(FOLDER, files(other=b"different"))
    assert store.folders("exp") == store.folders() == [FOLDER]
    run = SealedRun(store, FOLDER)
    run.verify()
    assert run.read("model.safetensors") == b"weights"
    assert place.everything() == {f"{FOLDER}/{name}": content for name, content in files().items()}


def test_a_large_run_is_published_whole(place: Place) -> None:
    assert place.store.publish(FOLDER, files(large=LARGE, empty=b""))
    run = SealedRun(open_store(place.address), FOLDER)
    assert run.read("large") == LARGE
    assert run.read("empty") == b""


def test_of_many_writers_at_once_one_wins_and_the_run_is_whole(place: Place) -> None:
    """Each has other bytes in its files, as two kinds of machine would."""
    start = threading.Barrier(6)
    won: list[int] = []

    def write(number: int) -> None:
        store = open_store(place.address)
        start.wait()
        if store.publish(FOLDER, files(environment=f"machine {number}".encode() * 50, extra=b"the same")):
            won.append(number)

    writers = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(won) == 1
    run = SealedRun(place.store, FOLDER)
    run.verify()
    assert run.read("environment") == f"machine {won[0]}".encode() * 50


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "manifest", "foreign"])
def test_changed_bytes_are_found_and_the_message_names_file_and_mend(place: Place, damage: str) -> None:
    place.store.publish(FOLDER, files())
    model = f"{FOLDER}/model.safetensors"
    if damage == "flip":
        place.write(model, b"weighty")
    elif damage == "cut":
        place.write(model, b"weigh")
    elif damage == "remove":
        place.remove(model)
    elif damage == "manifest":
        place.write(f"{FOLDER}/{MANIFEST}", b"{}")
    else:
        place.write(f"{FOLDER}/{MANIFEST}", manifest_of("ff" * 32, "trained", {}))
    with pytest.raises(DamagedRunError, match=r"level-07-0123abcd.*run the same command again"):
        SealedRun(place.store, FOLDER).verify()


def test_only_sealed_folders_are_runs(place: Place) -> None:
    place.write(f"{FOLDER}/model.safetensors", b"half")
    assert place.store.folders() == []
    with pytest.raises(DamagedRunError, match="not sealed"):
        SealedRun(place.store, FOLDER)


def test_what_is_left_of_a_folder_does_not_stand_in_the_way_of_its_run(place: Place) -> None:
    place.write(f"{FOLDER}/model.safetensors", b"half of a deleted folder")
    place.write(f"{FOLDER}/large", b"and more")
    assert place.store.publish(FOLDER, files(large=LARGE))
    SealedRun(place.store, FOLDER).verify()


def test_loose_files_are_replaced_whole(place: Place) -> None:
    store = place.store
    assert store.get("exp/recipe.yaml") is None
    for content in (b"one", b"two", b"", LARGE, b"three"):
        store.put("exp/recipe.yaml", content)
        assert store.get("exp/recipe.yaml") == content
    store.delete("exp/recipe.yaml")
    store.delete("exp/recipe.yaml")
    assert store.get("exp/recipe.yaml") is None


def test_a_reader_beside_a_writer_sees_one_version_or_the_other(place: Place) -> None:
    """Large enough to be read in several pieces."""
    versions = [bytes([number]) * (9 * 2**20) for number in range(4)]
    place.store.put("exp/plan.json", versions[0])
    done = threading.Event()

    def write() -> None:
        store = open_store(place.address)
        for content in versions[1:]:
            store.put("exp/plan.json", content)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = 0
    while not done.is_set() or not seen:
        found = place.store.get("exp/plan.json")
        assert found is not None
        assert found in versions
        seen += 1
    writer.join()


def test_files_lists_all_of_a_folder_but_scratch(place: Place) -> None:
    store = place.store
    assert store.files() == []
    store.publish(FOLDER, files())
    for path in ("exp/recipe.yaml", "exp/jobs/a/pods/b.json", "exp2/plan.json", ".work/x.checkpoint", "exp-3/b"):
        store.put(path, path.encode())
    assert {file.path: file.bytes for file in store.files("exp")} == {
        "exp/recipe.yaml": 15,
        "exp/jobs/a/pods/b.json": 22,
        f"{FOLDER}/{MANIFEST}": len(files()[MANIFEST]),
        f"{FOLDER}/model.safetensors": 7,
    }
    everything = [file.path for file in store.files()]
    assert everything == sorted(everything)
    assert set(everything) == {file.path for file in store.files("exp")} | {"exp2/plan.json", "exp-3/b"}
    assert [file.path for file in store.files("exp/jobs/a")] == ["exp/jobs/a/pods/b.json"]
    assert [file.path for file in store.files(".work")] == [".work/x.checkpoint"]
    assert store.files("nothing") == []


def test_a_file_exists_or_not_and_nothing_of_it_is_read(place: Place) -> None:
    assert not place.store.exists("exp/plan.json")
    place.store.put("exp/plan.json", b"")
    assert place.store.exists("exp/plan.json")
    assert not place.store.exists("exp")
    assert not place.store.exists("exp/plan.json/x")
    with pytest.raises(RecipeError):
        place.store.exists("exp/../../outside")


def test_experiments_are_those_with_a_plan_or_a_run(place: Place) -> None:
    store = place.store
    assert store.experiments() == []
    store.put("planned/plan.json", b"{}")
    store.put("report/index.html", b"a comparison is no experiment")
    store.put(".work/locks/x", b"")
    store.publish(FOLDER, files())
    assert store.experiments() == ["exp", "planned"]


@pytest.mark.parametrize("path", ["../outside", "/etc/passwd", "a//b", "a/./b", "a/../../b", "", "a\\b", "a\0b"])
def test_no_path_leaves_the_store(place: Place, path: str) -> None:
    for attempt in (lambda: place.store.put(path, b"x"), lambda: place.store.get(path)):
        with pytest.raises(RecipeError):
            attempt()
    if path:
        with pytest.raises(RecipeError):
            place.store.files(path)


@pytest.mark.parametrize("name", ["", "..", "a/b", ".hidden", "a b", "x" * 101, "naïve", "a\nb"])
def test_names_that_surprise_are_refused(name: str) -> None:
    with pytest.raises(RecipeError, match="use letters, digits"):
        check_name(name, "experiment")


def test_every_run_is_found_sorted_whatever_the_experiment(place: Place) -> None:
    runs = [RunFolder(experiment, "dense", 0, 0, f"{number:08x}") for number, experiment in enumerate(["b", "a", "a"])]
    for run in runs:
        body = {"x": b"x"}
        place.store.publish(run, {**body, MANIFEST: manifest_of(run.key8 * 8, "trained", body)})
    assert place.store.folders() == sorted(runs, key=str)
    assert place.store.folders("a") == sorted(runs[1:], key=str)
    assert place.store.folders("c") == []


def _hold(address: str, ready: str) -> None:
    store = open_store(address)
    if isinstance(store, BlobStore):
        store._claim_seconds = 15  # the shortest that Azure knows
    with store.claim(KEY) as granted:
        assert granted
        Path(ready).touch()
        time.sleep(120)


@pytest.mark.parametrize("place", ["folder", "blob"], indirect=True)
def test_a_claim_is_exclusive_and_ends_with_its_process(place: Place, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    holder = multiprocessing.get_context("spawn").Process(target=_hold, args=(place.address, str(ready)))
    holder.start()
    while not ready.exists():
        time.sleep(0.02)
    with place.store.claim(KEY) as granted:
        assert not granted
    with place.store.claim("ff" * 32) as granted:
        assert granted
    os.kill(holder.pid or 0, signal.SIGKILL)
    holder.join()
    deadline, granted = time.monotonic() + 60, False
    while not granted and time.monotonic() < deadline:
        with place.store.claim(KEY) as granted:
            pass
        time.sleep(0.0 if granted else 0.5)
    assert granted


def test_a_claim_that_is_given_back_is_free_at_once(place: Place) -> None:
    for _ in range(3):
        with place.store.claim(KEY) as granted:
            assert granted
            with open_store(place.address).claim(KEY) as another:
                assert not another
