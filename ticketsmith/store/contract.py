"""The contract of a store, and what is the same in every one: names, manifests, seals.

A run is a folder ``<experiment>/<variant>/seed-<n>/level-<nn>-<key8>``. It exists when its ``manifest.json`` does: the
manifest lists every file with its SHA-256 and is put last, only if absent. Loose files (recipe, plan, gates, reports,
ledger, checkpoints) may be replaced at any time, each one whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from ticketsmith.errors import DamagedRunError, RecipeError
from ticketsmith.spec import is_key_of

MANIFEST = "manifest.json"
MANIFEST_FORMAT = 1
SCRATCH = ".work"
"""Claims, checkpoints and half-written runs; safe to delete when nothing is running."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_FOLDER = re.compile(
    r"(?P<experiment>[^/]+)/(?P<variant>[a-z0-9_]+)/seed-(?P<seed>\d+)/level-(?P<level>\d+)-(?P<key8>[0-9a-f]{8})"
)


@dataclass(frozen=True)
class RunFolder:
    """A run's place in a store."""

    experiment: str
    variant: str
    seed: int
    level: int
    key8: str

    def __str__(self) -> str:
        return f"{self.experiment}/{self.variant}/seed-{self.seed}/level-{self.level:02d}-{self.key8}"

    @classmethod
    def parse(cls, path: str) -> RunFolder | None:
        """The folder that a path names, or None when it is not a run's."""
        match = _FOLDER.fullmatch(path)
        if match is None:
            return None
        return cls(match["experiment"], match["variant"], int(match["seed"]), int(match["level"]), match["key8"])


@dataclass(frozen=True)
class StoredFile:
    """A file as a listing shows it.

    ``version`` changes whenever the file does (an ETag and its server), None where that is not known. ``sha256`` is the hash
    that was written with it, None where there is none.
    """

    path: str
    bytes: int
    version: str | None = None
    sha256: str | None = None


class Store(Protocol):
    """What executors, evidence and reports need. Paths are relative, ``/``-separated and checked, never trusted."""

    url: str

    def get(self, path: str) -> bytes | None:
        """A file's bytes, or None when there is none. Raises StoreError."""
        ...

    def exists(self, path: str) -> bool:
        """Whether there is such a file; nothing of it is read. Raises StoreError."""
        ...

    def put(self, path: str, content: bytes) -> None:
        """Writes or replaces a loose file, whole or not at all. Raises StoreError."""
        ...

    def delete(self, path: str) -> None:
        """Removes a loose file; not an error when there is none."""
        ...

    def experiments(self) -> list[str]:
        """Names of the experiments here, sorted."""
        ...

    def folders(self, experiment: str | None = None) -> list[RunFolder]:
        """Every sealed run, of one experiment or of all, sorted by path."""
        ...

    def files(self, prefix: str = "") -> list[StoredFile]:
        """Every file below a folder, sorted by path; scratch (``.work``) only when that is the folder asked for."""
        ...

    def publish(self, folder: RunFolder, files: Mapping[str, bytes]) -> bool:
        """Makes a run visible, all files at once; False when it is there already (then nothing changes).

        ``files`` holds the manifest too. Raises StoreError.
        """
        ...

    def claim(self, key: str) -> AbstractContextManager[bool]:
        """Asks to be the only one that makes ``key``: True inside the ``with`` when granted, False when another holds it.

        A claim ends with the process that holds it, however that ends; on a network within a minute. It saves work and
        protects nothing: what a holder that lost it publishes is as safe as any.
        """
        ...


def check_name(name: str, what: str) -> str:
    """Refuses a name that could leave its folder or surprise a file system. Raises RecipeError."""
    if not _NAME.fullmatch(name):
        raise RecipeError(
            f"{what} {name!r}: use letters, digits, '.', '_' and '-', beginning with a letter or digit, at most 100."
        )
    return name


def check_path(path: str) -> str:
    """Refuses a relative path that could leave the store. Raises RecipeError."""
    for part in path.split("/"):
        if part in ("", ".", "..") or "\\" in part or "\0" in part:
            raise RecipeError(f"{path!r} is not a path inside a store")
    return path


def manifest_of(key: str, status: str, files: Mapping[str, bytes]) -> bytes:
    """The seal: key, status, and the SHA-256 and size of every file."""
    listed = {
        name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        for name, content in sorted(files.items())
    }
    return to_json({"format": MANIFEST_FORMAT, "key": key, "status": status, "files": listed})


def checkpoint_path(key: str) -> str:
    """Where the checkpoint of a run that is not finished lies."""
    return f"{SCRATCH}/{key}.checkpoint"


def to_json(value: Any) -> bytes:
    """Canonical, readable JSON: sorted keys, two spaces, a newline at the end. NaN is refused."""
    return (json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()


class Reader(Protocol):
    """What reading a run needs: a store, or a snapshot of one."""

    url: str

    def get(self, path: str) -> bytes | None:
        """A file's bytes, or None when there is none."""
        ...


class SealedRun:
    """Read access to a sealed run; every file is checked against the manifest as it is read."""

    def __init__(self, store: Reader, folder: RunFolder) -> None:
        self.store = store
        self.folder = folder
        self.path = str(folder)
        content = store.get(f"{self.path}/{MANIFEST}")
        if content is None:
            raise DamagedRunError(f"{store.url}/{folder} has no {MANIFEST}: the run is not sealed.")
        self.manifest = content
        try:
            manifest = json.loads(content)
            self.key = str(manifest["key"])
            self.status = str(manifest["status"])
            self.files = {
                str(name): (str(entry["sha256"]), int(entry["bytes"])) for name, entry in manifest["files"].items()
            }
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._damaged(MANIFEST, "cannot be read") from error
        if not self.key.startswith(folder.key8):
            raise self._damaged(MANIFEST, f"belongs to another run ({self.key[:8]})")

    def read(self, name: str) -> bytes:
        """One file's bytes. Raises DamagedRunError when they are not what was sealed."""
        if name not in self.files:
            raise self._damaged(name, "is not listed in its manifest")
        content = self.store.get(f"{self.path}/{check_path(name)}")
        if content is None:
            raise self._damaged(name, "is missing")
        digest, size = self.files[name]
        if len(content) != size or hashlib.sha256(content).hexdigest() != digest:
            raise self._damaged(name, "was changed after it was sealed (SHA-256 differs)")
        return content

    def read_json(self, name: str) -> Any:
        """One JSON file. Raises DamagedRunError."""
        return json.loads(self.read(name))

    def verify(self, present: Iterable[str] = ()) -> None:
        """Re-hashes every file, and asks whether the spec is that of the run's key.

        ``present`` names the files that lie in the folder. Raises DamagedRunError at the first that differs or that nobody
        sealed.
        """
        for name in self.files:
            self.read(name)
        for name in sorted(set(present) - {MANIFEST, *self.files}):
            raise self._damaged(name, "was added after the run was sealed")
        if "spec.json" in self.files and not is_key_of(self.key, self.read_json("spec.json")):
            raise self._damaged("spec.json", f"is not the spec of this run (key {self.key[:8]})")

    def _damaged(self, name: str, what: str) -> DamagedRunError:
        return DamagedRunError(
            f"{self.store.url}/{self.folder}/{name} {what}. Restore the folder from a copy, or delete the folder "
            f"{self.folder} and run the same command again: only what is missing is made."
        )
