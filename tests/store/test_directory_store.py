"""What every store promises: sealed runs are whole, immutable and exactly once visible."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ticketsmith.errors import DamagedRunError, RecipeError, StoreError
from ticketsmith.store import open_store
from ticketsmith.store.contract import MANIFEST, RunFolder, SealedRun, check_name, manifest_of
from ticketsmith.store.directory import DirectoryStore

KEY = "0123abcd" * 8
FOLDER = RunFolder("exp", "ticket", 3, 7, KEY[:8])


def files(**content: bytes) -> dict[str, bytes]:
    body = {"model.safetensors": b"weights", **content}
    return {**body, MANIFEST: manifest_of(KEY, "trained", body)}


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "runs")


def test_a_run_is_published_whole_and_once(store: DirectoryStore) -> None:
    assert store.folders() == []
    assert store.publish(FOLDER, files())
    assert not store.publish(FOLDER, files(other=b"different"))
    assert store.folders("exp") == [FOLDER]
    run = SealedRun(store, FOLDER)
    run.verify()
    assert run.read("model.safetensors") == b"weights"
    assert (store.root / "exp/ticket/seed-3/level-07-0123abcd/manifest.json").is_file()


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "manifest", "foreign"])
def test_changed_bytes_are_found_and_the_message_names_file_and_mend(store: DirectoryStore, damage: str) -> None:
    store.publish(FOLDER, files())
    place = store.root / str(FOLDER)
    model = place / "model.safetensors"
    if damage == "flip":
        model.write_bytes(b"weighty")
    elif damage == "cut":
        model.write_bytes(b"weigh")
    elif damage == "remove":
        model.unlink()
    elif damage == "manifest":
        (place / MANIFEST).write_text("{}")
    else:
        (place / MANIFEST).write_bytes(manifest_of("ff" * 32, "trained", {}))
    with pytest.raises(DamagedRunError, match=r"level-07-0123abcd.*run the same command again"):
        SealedRun(store, FOLDER).verify()


def test_only_sealed_folders_are_runs(store: DirectoryStore) -> None:
    half = store.root / str(FOLDER)
    half.mkdir(parents=True)
    (half / "model.safetensors").write_bytes(b"half")
    assert store.folders() == []
    with pytest.raises(DamagedRunError, match="not sealed"):
        SealedRun(store, FOLDER)


def test_loose_files_are_replaced_whole(store: DirectoryStore) -> None:
    assert store.get("exp/recipe.yaml") is None
    store.put("exp/recipe.yaml", b"one")
    store.put("exp/recipe.yaml", b"two")
    assert store.get("exp/recipe.yaml") == b"two"
    store.delete("exp/recipe.yaml")
    store.delete("exp/recipe.yaml")
    assert store.get("exp/recipe.yaml") is None


@pytest.mark.parametrize("path", ["../outside", "/etc/passwd", "a//b", "a/./b", "a/../../b", "", "a\\b", "a\0b"])
def test_no_path_leaves_the_store(store: DirectoryStore, path: str) -> None:
    with pytest.raises(RecipeError):
        store.put(path, b"x")
    with pytest.raises(RecipeError):
        store.get(path)


@pytest.mark.parametrize("name", ["", "..", "a/b", ".hidden", "a b", "x" * 101, "naïve", "a\nb"])
def test_names_that_surprise_are_refused(name: str) -> None:
    with pytest.raises(RecipeError, match="use letters, digits"):
        check_name(name, "experiment")


def test_an_unknown_kind_of_store_is_refused() -> None:
    with pytest.raises(RecipeError, match="unknown kind of store"):
        open_store("ftp://host/x")


@pytest.mark.skipif(os.geteuid() != 0 and not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_store_that_is_a_file_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("I am a file")
    with pytest.raises(StoreError, match=r"cannot write.*sealed runs are safe"):
        DirectoryStore(tmp_path / "runs").put("exp/recipe.yaml", b"x")


def _hold(root: str, ready: str) -> None:
    with DirectoryStore(Path(root)).claim(KEY) as granted:
        assert granted
        Path(ready).touch()
        time.sleep(60)


def test_a_claim_is_exclusive_and_ends_with_its_process(store: DirectoryStore, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    holder = multiprocessing.get_context("spawn").Process(target=_hold, args=(str(store.root), str(ready)))
    holder.start()
    while not ready.exists():
        time.sleep(0.02)
    with store.claim(KEY) as granted:
        assert not granted
    with store.claim("ff" * 32) as granted:
        assert granted
    os.kill(holder.pid or 0, signal.SIGKILL)
    holder.join()
    with store.claim(KEY) as granted:
        assert granted


def test_what_a_killed_process_left_is_cleared(store: DirectoryStore) -> None:
    leftover = store.root / ".work" / f"{KEY[:8]}-abc"
    leftover.mkdir(parents=True)
    (leftover / "model.safetensors").write_bytes(b"half")
    checkpoint = store.root / ".work" / f"{KEY}.checkpoint-xyz"
    checkpoint.write_bytes(b"half")
    with store.claim(KEY):
        assert not leftover.exists()
        assert not checkpoint.exists()


def test_what_is_left_of_a_folder_does_not_stand_in_the_way_of_its_run(store: DirectoryStore) -> None:
    half = store.root / str(FOLDER)
    half.mkdir(parents=True)
    (half / "model.safetensors").write_bytes(b"half of a deleted folder")
    assert store.publish(FOLDER, files())
    SealedRun(store, FOLDER).verify()


_FULL_DISK = """
import resource, sys
from pathlib import Path
from ticketsmith.errors import StoreError
from ticketsmith.store.contract import RunFolder
from ticketsmith.store.directory import DirectoryStore
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
try:
    folder = RunFolder("exp", "dense", 0, 0, "0123abcd")
    DirectoryStore(Path(sys.argv[1])).publish(folder, {"a": bytes(20_000), "manifest.json": b"{}"})
except StoreError as error:
    print(error)
"""


def test_a_write_that_the_system_refuses_leaves_nothing_behind(tmp_path: Path) -> None:
    """A file-size limit of the system fails in the middle of a write, as a full disk does."""
    done = subprocess.run(
        [sys.executable, "-c", _FULL_DISK, str(tmp_path / "runs")], capture_output=True, text=True, check=True
    )
    assert "cannot write: File too large" in done.stdout
    assert "Free space, or choose another place" in done.stdout
    assert [path for path in (tmp_path / "runs").rglob("*") if path.is_file()] == []
