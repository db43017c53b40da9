"""Experiments from one store to another: only what is missing moves, and every byte is checked against its seal.

A run moves whole or not at all, and a sealed run of the target is never touched. A loose file (recipe, plan, gates, ledger,
report, logs) of the source replaces one of the same name; what only the target has stays. An interrupted transfer is begun
again with the same call and goes on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from ticketsmith.errors import DamagedRunError
from ticketsmith.store.contract import MANIFEST, RunFolder, SealedRun, Store, StoredFile
from ticketsmith.store.parallel import each

_IN_MEMORY = 256 * 2**20  # bytes of runs that are under way at once
_RUNS_AT_ONCE = 8


@dataclass(frozen=True)
class Todo:
    """What of an experiment is to be moved. ``runs``: bytes by folder. ``replaced``: loose files that differ in the target."""

    experiment: str
    runs: dict[RunFolder, int]
    there: int
    loose: list[StoredFile]
    replaced: list[str]

    @property
    def bytes(self) -> int:
        return sum(self.runs.values()) + sum(file.bytes for file in self.loose)


@dataclass
class Moved:
    """What came of it. ``damaged``: message by run, of those that the source holds in a state other than sealed."""

    runs: int = 0
    loose: int = 0
    damaged: dict[RunFolder, str] = field(default_factory=dict)


def what_to_move(source: Store, target: Store, experiment: str) -> Todo:
    """Compares the two by listings; loose files also by hash. Raises StoreError."""
    here, there = source.files(experiment), {file.path: file for file in target.files(experiment)}
    sealed = {folder for folder in map(_run_of, _manifests(here)) if folder is not None}
    sealed_there = {folder for folder in map(_run_of, _manifests(there.values())) if folder is not None}
    runs = dict.fromkeys(sorted(sealed - sealed_there, key=str), 0)
    loose = []
    for file in here:
        folder = _run_of(file.path)
        if folder is None:
            loose.append(file)
        elif folder in runs:
            runs[folder] += file.bytes
    same = each(lambda file: file.path in there and _same(source, file, target, there[file.path]), loose)
    differing = [file for file, is_same in zip(loose, same, strict=True) if not is_same]
    replaced = [file.path for file in differing if file.path in there]
    return Todo(experiment, runs, len(sealed & sealed_there), differing, replaced)


def move(source: Store, target: Store, todo: Todo, on_bytes: Callable[[int], None] = lambda count: None) -> Moved:
    """Moves it; ``on_bytes`` is called with what was done, by several threads. Raises StoreError.

    A damaged run of the source is left out and told; the others go on.
    """
    moved = Moved()
    largest = max(todo.runs.values(), default=0)

    def move_run(folder: RunFolder) -> None:
        try:
            run = SealedRun(source, folder)
            files = {name: run.read(name) for name in run.files}
        except DamagedRunError as error:
            moved.damaged[folder] = str(error)
        else:
            target.publish(folder, {**files, MANIFEST: run.manifest})
            moved.runs += 1
        on_bytes(todo.runs[folder])

    def move_loose(file: StoredFile) -> None:
        content = source.get(file.path)
        if content is not None:  # else it was removed meanwhile
            target.put(file.path, content)
            moved.loose += 1
        on_bytes(file.bytes)

    at_once = max(1, min(_RUNS_AT_ONCE, _IN_MEMORY // max(largest, 1)))
    for _ in each(move_run, todo.runs, at_once):
        pass
    for _ in each(move_loose, todo.loose):  # last, so that no report speaks of runs that are not there
        pass
    return moved


def _manifests(files: Iterable[StoredFile]) -> list[str]:
    return [file.path for file in files if file.path.endswith(f"/{MANIFEST}")]


def _run_of(path: str) -> RunFolder | None:
    """The run whose folder a file lies in, sealed or not; None for a loose file."""
    return RunFolder.parse("/".join(path.split("/")[:4]))


def _same(source: Store, file: StoredFile, target: Store, other: StoredFile) -> bool:
    return file.bytes == other.bytes and _digest(source, file) == _digest(target, other)


def _digest(store: Store, file: StoredFile) -> str:
    return file.sha256 or hashlib.sha256(store.get(file.path) or b"").hexdigest()
