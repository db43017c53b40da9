"""Paths in a user's options: how they are resolved, and what the files behind them hold."""

from __future__ import annotations

import glob
import hashlib
from functools import lru_cache
from pathlib import Path

from ticketsmith.errors import DataError


def settle(value: str, base: Path | None) -> str:
    """``value`` with ``~`` expanded; a relative path or pattern is taken from ``base`` if it leads somewhere there."""
    path = Path(value).expanduser()
    if path.is_absolute() or base is None:
        return str(path)
    there = base / path
    return str(there) if there.exists() or _matches(str(there)) else str(path)


def existing(path: str, what: str, folder: bool = False) -> Path:
    """``path`` if it is a file (or a folder); DataError (beginning with ``what``) otherwise."""
    place = Path(path)
    if place.is_dir() if folder else place.is_file():
        return place
    kind = "folder" if folder else "file"
    raise DataError(
        f"{what}: there is no {kind} {path}. A relative path is looked for beside the recipe, then in the current "
        "directory."
    )


def expand(paths: str | list[str], what: str) -> list[Path]:
    """The files that ``paths`` (a file, a pattern, or a list of these) stand for, patterns in sorted order."""
    files: list[Path] = []
    for path in [paths] if isinstance(paths, str) else paths:
        matches = [Path(path)] if Path(path).is_file() else _matches(path)
        if Path(path).is_dir():
            raise DataError(f"{what}: {path} is a folder. Its files go by a pattern, such as {path}/*.txt")
        if not any(match.is_file() for match in matches):
            existing(path, what)
        files.extend(match for match in matches if match.is_file())
    return files


def _matches(pattern: str) -> list[Path]:
    """What ``pattern`` stands for, sorted; unlike ``Path.glob`` this takes absolute patterns and ones with ``..``."""
    return sorted(Path(match) for match in glob.glob(pattern, recursive=True))  # noqa: PTH207


def digest(files: list[tuple[str, Path]]) -> str:
    """SHA-256 over the roles and contents of ``files``, in this order; where they lie does not matter."""
    total = hashlib.sha256()
    for role, path in files:
        status = path.stat()
        total.update(f"{role}\0{_sha256(path, status.st_size, status.st_mtime_ns)}\n".encode())
    return total.hexdigest()


@lru_cache(maxsize=200_000)
def _sha256(path: Path, size: int, changed: int) -> str:
    """Of the file's content; asked again in this process only when its size or time has changed."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
