"""The cache of remote files: right or empty, bounded, shared by processes, and never a reason to fail."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
from pathlib import Path

import pytest

from ticketsmith.store.cache import Cache, cache_folder


def test_content_is_found_by_the_name_of_its_version_only(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.put("store exp/a 1", b"one")
    cache.put("store exp/b 1", b"one")
    cache.put("store exp/a 2", b"two")
    assert [cache.get(f"store exp/{name}") for name in ("a 1", "b 1", "a 2", "a 3")] == [b"one", b"one", b"two", None]
    cache.close()
    again = Cache(tmp_path)
    assert again.get("store exp/a 2") == b"two"
    again.close()


def test_damaged_content_is_never_given(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.put("name", b"right")
    cache.close()
    with sqlite3.connect(next(tmp_path.glob("*.sqlite"))) as database:
        database.execute("UPDATE content SET bytes = ?", (b"wrong",))
    database.close()
    cache = Cache(tmp_path)
    assert cache.get("name") is None
    cache.put("name", b"right")
    assert cache.get("name") == b"right"
    cache.close()


@pytest.mark.parametrize("damage", [b"", b"no database at all" * 1000])
def test_a_damaged_file_is_begun_anew(tmp_path: Path, damage: bytes) -> None:
    cache = Cache(tmp_path)
    cache.put("name", b"x" * 100_000)
    cache.close()
    place = next(tmp_path.glob("*.sqlite"))
    content = place.read_bytes()
    place.write_bytes(damage or content[:100] + os.urandom(len(content) - 100))
    cache = Cache(tmp_path)
    assert cache.get("name") in (None, b"x" * 100_000)
    cache.close()
    cache = Cache(tmp_path)
    cache.put("name", b"again")
    assert cache.get("name") == b"again"
    cache.close()


def test_the_longest_unused_go_when_it_is_full(tmp_path: Path) -> None:
    cache = Cache(tmp_path, limit=100_000)
    for number in range(100):
        cache.put(f"name {number}", bytes([number]) * 5000)
    kept = [number for number in range(100) if cache.get(f"name {number}") is not None]
    assert 10 <= len(kept) <= 25
    assert kept == list(range(100 - len(kept), 100))
    cache.close()
    assert sum(place.stat().st_size for place in tmp_path.iterdir()) < 400_000


def test_what_would_take_much_of_the_room_is_not_kept(tmp_path: Path) -> None:
    cache = Cache(tmp_path, limit=100_000)
    cache.put("name", bytes(50_000))
    assert cache.get("name") is None
    cache.close()


def _fill(folder: str, number: int) -> None:
    cache = Cache(Path(folder), limit=2_000_000)
    for item in range(200):
        content = f"{number} {item}".encode() * 1000
        cache.put(f"{number} {item}", content)
        assert cache.get(f"{number} {item}") in (None, content)
        cache.get(f"{1 - number} {item}")
    cache.close()


def test_processes_share_it(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    both = [context.Process(target=_fill, args=(str(tmp_path), number)) for number in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]


def test_a_place_that_cannot_be_written_keeps_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file")
    for cache in (Cache(tmp_path / "file" / "folder"), Cache(None)):
        cache.put("name", b"content")
        assert cache.get("name") is None
        cache.close()


def test_its_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TICKETSMITH_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "ticketsmith" / "store"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder() == Path.home() / ".cache" / "ticketsmith" / "store"
    monkeypatch.setenv("TICKETSMITH_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
    monkeypatch.setenv("TICKETSMITH_CACHE", "off")
    assert cache_folder() is None
