"""A store in a folder: what a file system adds to the contract (tests/store/test_contract.py)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.store.places import FOLDER, KEY, files
from ticketsmith.errors import RecipeError, StoreError
from ticketsmith.store import open_store
from ticketsmith.store.directory import DirectoryStore


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "runs")


def test_an_unknown_kind_of_store_is_refused() -> None:
    with pytest.raises(RecipeError, match="unknown kind of store"):
        open_store("ftp://host/x")


@pytest.mark.skipif(os.geteuid() != 0 and not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_store_that_is_a_file_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("I am a file")
    with pytest.raises(StoreError, match=r"cannot write.*sealed runs are safe"):
        DirectoryStore(tmp_path / "runs").put("exp/recipe.yaml", b"x")


def test_what_a_killed_process_left_is_cleared(store: DirectoryStore) -> None:
    leftover = store.root / ".work" / f"{KEY[:8]}-abc"
    leftover.mkdir(parents=True)
    (leftover / "model.safetensors").write_bytes(b"half")
    checkpoint = store.root / ".work" / f"{KEY}.checkpoint-xyz"
    checkpoint.write_bytes(b"half")
    with store.claim(KEY):
        assert not leftover.exists()
        assert not checkpoint.exists()


def test_writing_never_touches_the_umask_and_keeps_to_it(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It can only be read by setting it, for all threads: a file that another one makes just then is open to everybody."""

    def refused(mask: int) -> int:
        raise AssertionError("the umask was changed")

    umask = os.umask(0o077)
    os.umask(umask)
    monkeypatch.setattr(os, "umask", refused)
    store.put("exp/recipe.yaml", b"x")
    assert store.publish(FOLDER, files())
    assert (store.root / "exp" / "recipe.yaml").stat().st_mode & 0o777 == 0o666 & ~umask
    assert (store.root / str(FOLDER)).stat().st_mode & 0o777 == 0o777 & ~umask


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
