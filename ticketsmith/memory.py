"""What fits into memory, asked before anything is allocated.

A kernel that overcommits (``vm.overcommit_memory=1``, as on Kubernetes nodes) refuses nothing: what is too large fills the
machine until something is killed. So no reader waits for a MemoryError; it adds up what it is about to ask for.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from ticketsmith.errors import RecipeError, TicketSmithError

_ROOT = Path("/")
SMALL = 2**26
"""Bytes that nobody needs to be asked for."""


def available(root: Path = _ROOT) -> int | None:
    """Bytes that this process may still take, or None where the system does not tell.

    The least of what is free on the machine and what each control group above this process leaves (version 1 or 2), where
    a cache of files that can be dropped counts as free. ``root``: another place of ``proc`` and ``sys``.
    """
    limits = [*_of_machine(root), *_of_groups(root)]
    return max(0, min(limits)) if limits else None


def require(size: int, what: str, mend: str, error: type[TicketSmithError] = RecipeError) -> None:
    """Raises ``error`` when ``size`` bytes are more than is free: ``what`` would take them, ``mend`` is a sentence."""
    if size <= SMALL:
        return
    free = available()
    if free is not None and size > free:
        raise error(
            f"{what} would take about {gib(size)} of memory, and {gib(free)} is free on this machine or in its container. {mend}"
        )


def read_file(path: str | os.PathLike[str]) -> bytes:
    """The content of a regular file that fits into memory. Raises OSError, RecipeError when it is too large."""
    with open(path, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(0, "it is no regular file")
        require_file(path, status.st_size)
        return file.read(status.st_size)


def require_file(path: str | os.PathLike[str], size: int | None = None) -> None:
    """Raises RecipeError when the content of a file does not fit into memory; a file that is missing is no fault here."""
    try:
        size = Path(path).stat().st_size if size is None else size
    except OSError:
        return
    require(size, f"{path}: the file", "Is it the right one? Else take a machine with more memory.")


def gib(size: int) -> str:
    """A number of bytes for people."""
    return f"{size / 2**30:,.1f} GiB" if size >= 2**30 else f"{size / 2**20:,.1f} MiB"


def _of_machine(root: Path) -> Iterator[int]:
    for line in _lines(root / "proc/meminfo"):
        if line.startswith("MemAvailable"):
            yield 1024 * int(line.split()[1])
            return
    if root == _ROOT and "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}):  # macOS: what there is at all
        yield os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _of_groups(root: Path) -> Iterator[int]:
    """What each group leaves, from the one of this process up to the first that can be seen from here."""
    mounts = list(_mounts(root))
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, own = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        for version, top, point in mounts:
            if (version == 2) == (controllers == ""):
                yield from _up(point, _below(own, top), version)


def _mounts(root: Path) -> Iterator[tuple[int, str, Path]]:
    """Version, root and place of each mounted hierarchy that may bound memory."""
    for line in _lines(root / "proc/self/mountinfo"):
        fields, _, rest = line.partition(" - ")
        kind, _, options = rest.split(" ", 2)
        top, point = fields.split(" ")[3:5]
        if kind == "cgroup2" or (kind == "cgroup" and "memory" in options.split(",")):
            yield 2 if kind == "cgroup2" else 1, top, root / point.lstrip("/")


def _below(own: str, top: str) -> PurePosixPath:
    """A group's path below what is mounted: inside of a container the mount often begins at the group itself."""
    path = PurePosixPath(own)
    return path.relative_to(top) if path.is_relative_to(top) else PurePosixPath()


def _up(point: Path, group: PurePosixPath, version: int) -> Iterator[int]:
    limit, use, cache = (
        ("memory.max", "memory.current", "inactive_file")
        if version == 2
        else ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    )
    for part in (group, *group.parents):
        folder = point / part.relative_to("/") if part.is_absolute() else point / part
        try:
            most, used = int((folder / limit).read_text()), int((folder / use).read_text())
        except (OSError, ValueError):  # no such group here, or "max"
            continue
        cached = [int(line.split()[1]) for line in _lines(folder / "memory.stat") if line.startswith(f"{cache} ")]
        yield most - used + min(used, sum(cached))


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
