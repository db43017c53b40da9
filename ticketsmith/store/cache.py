"""Files of remote stores, kept on this machine: by content, bounded in size, checked whenever one is used.

One SQLite file, so that many processes may use it at once. A fault of the cache is never one of the user's work: what cannot be
read there is read from the store.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

VARIABLE = "TICKETSMITH_CACHE"
LIMIT = 2 * 2**30
"""Bytes of content. A run's results take some ten thousand; its weights count too when they were read."""

_FORMAT = 1
_KEPT = 0.8  # of the limit, when it was passed
_REFRESH = 86400.0  # seconds after which use is noted again
_TABLES = """
CREATE TABLE IF NOT EXISTS content (sha256 TEXT PRIMARY KEY, bytes BLOB NOT NULL, size INTEGER NOT NULL, used REAL NOT NULL);
CREATE TABLE IF NOT EXISTS version (name TEXT PRIMARY KEY, sha256 TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS by_use ON content (used);
"""


def cache_folder() -> Path | None:
    """``$TICKETSMITH_CACHE``, else ``$XDG_CACHE_HOME/ticketsmith/store`` or below ``~/.cache``; None when it is ``off``."""
    named = os.environ.get(VARIABLE)
    if named:
        return None if named == "off" else Path(named).expanduser()
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    with suppress(RuntimeError):  # a user without a home
        return (base if base.is_absolute() else Path.home() / ".cache") / "ticketsmith" / "store"
    return None


class Cache:
    """Content by the name of a version: whoever asks names file, store and ETag, so an answer is never out of date.

    A folder of None, and one that cannot be written, keeps nothing. Safe to use by threads and processes.
    """

    def __init__(self, folder: Path | None, limit: int = LIMIT) -> None:
        self.limit = limit
        self._lock = threading.Lock()
        self._added = limit  # so that the first addition looks at the size
        self._place = None if folder is None else folder / f"files-{_FORMAT}.sqlite"
        self._database = self._opened()

    def get(self, name: str) -> bytes | None:
        """The content kept under ``name``; None when there is none, or when it is not what was kept."""
        answer = self._ask(
            "SELECT content.sha256, bytes, used FROM version JOIN content USING (sha256) WHERE name = ?", name
        )
        if answer is None:
            return None
        digest, content, used = answer
        if hashlib.sha256(content).hexdigest() != digest:
            self._ask("DELETE FROM content WHERE sha256 = ?", digest)
            return None
        if time.time() - used > _REFRESH:
            self._ask("UPDATE content SET used = ? WHERE sha256 = ?", time.time(), digest)
        return bytes(content)

    def put(self, name: str, content: bytes) -> None:
        """Keeps content under ``name``, unless it alone would take much of the room."""
        if len(content) > self.limit // 8:
            return
        digest = hashlib.sha256(content).hexdigest()
        self._ask("INSERT OR IGNORE INTO content VALUES (?, ?, ?, ?)", digest, content, len(content), time.time())
        self._ask("INSERT OR REPLACE INTO version VALUES (?, ?)", name, digest)
        self._added += len(content)
        if self._added > self.limit // 16:
            self._added = 0
            self._make_room()

    def close(self) -> None:
        """Gives the file back."""
        with self._lock:
            if self._database is not None:
                self._database.close()
            self._database = None

    def _make_room(self) -> None:
        size = (self._ask("SELECT SUM(size) FROM content") or (0,))[0] or 0
        if size <= self.limit:
            return
        self._ask(  # the longest unused go
            "DELETE FROM content WHERE sha256 IN (SELECT sha256 FROM (SELECT sha256, SUM(size) OVER "
            "(ORDER BY used DESC, sha256) AS until_here FROM content) WHERE until_here > ?)",
            int(self.limit * _KEPT),
        )
        self._ask("DELETE FROM version WHERE sha256 NOT IN (SELECT sha256 FROM content)")

    def _opened(self) -> sqlite3.Connection | None:
        if self._place is None:
            return None
        try:
            self._place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            return self._connect(self._place)
        except sqlite3.OperationalError:
            return None
        except sqlite3.DatabaseError:  # it is damaged: begin anew
            self._remove()
            with suppress(sqlite3.Error):
                return self._connect(self._place)
            return None
        except OSError:
            return None

    def _connect(self, place: Path) -> sqlite3.Connection:
        database = sqlite3.connect(place, timeout=10, isolation_level=None, check_same_thread=False)
        try:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
            database.executescript(_TABLES)
        except sqlite3.Error:
            database.close()
            raise
        return database

    def _ask(self, statement: str, *values: object) -> tuple[Any, ...] | None:
        with self._lock:
            if self._database is None:
                return None
            try:
                return self._database.execute(statement, values).fetchone()  # type: ignore[no-any-return]
            except sqlite3.OperationalError:
                return None  # locked for long, or the disk is full
            except sqlite3.DatabaseError:
                self._database.close()
                self._database = None
                self._remove()
                return None

    def _remove(self) -> None:
        if self._place is not None:
            for place in self._place.parent.glob(f"{self._place.name}*"):
                with suppress(OSError):
                    place.unlink()
