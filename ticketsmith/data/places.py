"""Where data files may lie, and reading them only if they are what was published."""

from __future__ import annotations

import hashlib
import os
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ticketsmith.data.sizes import check_member, gunzip
from ticketsmith.errors import DataError
from ticketsmith.memory import read_file

PATHS_VARIABLE = "TICKETSMITH_DATA"
SYSTEM = Path("/usr/share/datasets")


def cache() -> Path:
    """The user's own folder for fetched data: ``$XDG_CACHE_HOME/ticketsmith/data`` or below ``~/.cache``."""
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".cache") / "ticketsmith" / "data"


def search_path(root: str | None) -> list[Path]:
    """The folders to look in, in order: ``root``, ``$TICKETSMITH_DATA``, the cache, torchvision's, the system's."""
    named = [Path(part).expanduser() for part in os.environ.get(PATHS_VARIABLE, "").split(os.pathsep) if part]
    roots = [Path(root).expanduser()] if root else []
    return [*roots, *named, cache(), Path("data"), Path.home() / ".cache" / "torch", SYSTEM]


@dataclass(frozen=True)
class Holding:
    """A folder or tar archive that holds every file of a set; ``paths`` are the files by name, none in an archive."""

    place: Path
    names: tuple[str, ...]
    paths: Mapping[str, Path]


def find_folder(root: str | None, folders: Iterable[str], names: tuple[str, ...]) -> Holding | None:
    """The first ``folder`` below the search path that holds all of ``names``, plain or ``.gz``."""
    for place in _candidates(root, folders):
        paths = {name: path for name in names if (path := _plain_or_gz(place / name))}
        if len(paths) == len(names):
            return Holding(place, names, paths)
    return None


def find_archive(root: str | None, file: str, names: tuple[str, ...]) -> Holding | None:
    """The first tar archive called ``file`` in the search path, taken to hold ``names``."""
    for place in _candidates(root, (".",)):
        if (place / file).is_file():
            return Holding(place / file, names, {})
    return None


def _candidates(root: str | None, folders: Iterable[str]) -> Iterator[Path]:
    for number, place in enumerate(search_path(root)):
        yield from (place / folder for folder in folders)
        if root and number == 0:  # a root may be the folder itself; elsewhere the same file name may be another set's
            yield place


def _plain_or_gz(path: Path) -> Path | None:
    return next((candidate for candidate in (path, path.with_name(path.name + ".gz")) if candidate.is_file()), None)


def read_verified(holding: Holding, md5: Mapping[str, str]) -> dict[str, bytes]:
    """The files' content (uncompressed) by name; DataError naming the file if its ``md5`` is not the published one."""
    contents = (
        {name: read_maybe_gz(path) for name, path in holding.paths.items()}
        if holding.paths
        else read_members(holding.place, holding.names)
    )
    for name, content in contents.items():
        if hashlib.md5(content, usedforsecurity=False).hexdigest() != md5[name]:
            place = holding.paths.get(name, holding.place / name)
            raise DataError(f"{place} is not the published file (md5 differs); delete it, and fetch the set again.")
    return contents


def read_maybe_gz(path: Path) -> bytes:
    """The content of a file, uncompressed when it ends in ``.gz``; DataError if it cannot be read."""
    try:
        content = read_file(path)
        return gunzip(content, str(path)) if path.suffix == ".gz" else content
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}; delete it, and fetch the set again.") from error


def read_members(archive: Path, names: tuple[str, ...]) -> dict[str, bytes]:
    """The regular files of a tar whose last path part is one of ``names``, read into memory: nothing is unpacked."""
    contents: dict[str, bytes] = {}
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                name = member.name.rpartition("/")[2]
                if name in names:
                    check_member(member.size, f"{archive}: {name}")
                if member.isreg() and name in names and (file := tar.extractfile(member)):
                    contents[name] = file.read()
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise DataError(f"{archive} cannot be read: {error}; delete it, and fetch the set again.") from error
    missing = [name for name in names if name not in contents]
    if missing:
        raise DataError(f"{archive} lacks {', '.join(missing)}; delete it, and fetch the set again.")
    return contents
