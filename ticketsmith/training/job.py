"""What an executor hands to a worker. It imports no torch: whoever only hands jobs out needs none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ticketsmith.spec import RunSpec
from ticketsmith.store.contract import RunFolder
from ticketsmith.store.index import Index


@dataclass(frozen=True)
class Job:
    """One run to make. ``task`` and ``base`` say how to build the task here (paths); ``spec.task`` says what it is.

    ``parents`` says by key where the runs that it needs are sealed, ``twins`` where the same run may be sealed under another
    experiment: whoever hands jobs out knows, so that no worker lists the store. None: nobody has looked yet. ``threads``: as many
    as cores have nothing else to do; the bytes do not depend on it.
    """

    spec: RunSpec
    folder: RunFolder
    task: str | Mapping[str, Any]
    base: Path
    recipe_hash: str
    parents: Mapping[str, RunFolder] | None = None
    twins: tuple[RunFolder, ...] | None = None
    threads: int = 1

    def located(self, index: Index) -> Job:
        """The same job with what an index of the store knows. Raises StoreError."""
        experiment = self.folder.experiment
        places = {key: index.place(key, experiment) for key in self.spec.parents}
        parents = {key: place for key, place in places.items() if place is not None}
        return replace(self, parents=parents, twins=index.twins(self.folder, self.spec.key))
