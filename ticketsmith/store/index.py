"""What is sealed in a store: the one place that answers it, for executors, conductors, commands and reports.

An index lives in memory and is never stored. It is built from one listing; manifests are read once, many at a time, and
only those that somebody asks about. Other processes seal runs too, so it may be out of date: what it lacks is at worst
made again, and then ``Store.publish`` decides.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ticketsmith.store.contract import RunFolder, SealedRun, Store
from ticketsmith.store.parallel import each
from ticketsmith.store.snapshot import Snapshot


class Index:
    """The sealed runs of a store, or of one ``experiment``, by key. For one thread.

    Nothing is asked of the store before the first question. A snapshot may stand for the store: then it is not listed again.
    """

    def __init__(self, store: Store | Snapshot, experiment: str = "") -> None:
        self.store = store
        self._experiment = experiment
        self._source: Snapshot | None = None
        self._folders: dict[str, list[RunFolder]] = {}  # by the first eight digits of the key, sorted by path
        self._runs: dict[RunFolder, SealedRun] = {}
        self._own: dict[tuple[str, str], RunFolder] = {}  # by experiment and key: sealed since the listing
        self._experiments: set[str] = set()
        self._elsewhere: set[str] = set()  # keys

    def refresh(self) -> None:
        """Lists anew at the next question. Manifests are not read again: sealed runs do not change."""
        self._source = None

    def add(self, key: str, folder: RunFolder) -> None:
        """Takes in a run that was sealed since the listing."""
        self._own[folder.experiment, key] = folder

    def runs(self, keys: Iterable[str], experiment: str) -> dict[str, SealedRun]:
        """The runs of an experiment that are sealed under these keys, by key, in their order.

        Of one that lies there under several names, the last by path. Raises StoreError, and DamagedRunError when a
        manifest among them cannot be read.
        """
        source = self._listed()
        candidates = {key: self._folders.get(key[:8], []) for key in keys}
        places = {key: [folder for folder in candidates[key] if folder.experiment == experiment] for key in candidates}
        self._read(source, (folder for folders in places.values() for folder in folders))
        runs = {}
        for key, folders in places.items():
            own = [self._runs[folder] for folder in folders if self._runs[folder].key == key]
            if own:
                runs[key] = own[-1]
        return runs

    def statuses(self, keys: Iterable[str], experiment: str) -> dict[str, str]:
        """``trained`` or ``diverged`` by key, of those that are sealed; raises what ``runs`` raises."""
        return {key: run.status for key, run in self.runs(keys, experiment).items()}

    def place(self, key: str, experiment: str) -> RunFolder | None:
        """Where a run of an experiment is sealed; None when it is not. Raises what ``runs`` raises."""
        if (experiment, key) in self._own:
            return self._own[experiment, key]
        run = self.runs([key], experiment).get(key)
        return None if run is None else run.folder

    def twins(self, folder: RunFolder, key: str) -> tuple[RunFolder, ...]:
        """Where a run that is wanted in ``folder`` may lie in other experiments: those listed.

        Of one that is expected elsewhere, then those of its name, of which each costs a request. Asks nothing but the
        first listing.
        """
        self._listed()
        listed = [other for other in self._folders.get(key[:8], ()) if other.experiment != folder.experiment]
        if key not in self._elsewhere:
            return tuple(listed)
        others = (replace(folder, experiment=name) for name in sorted(self._experiments - {folder.experiment}))
        return tuple(dict.fromkeys([*listed, *others]))

    def expect_elsewhere(self, key: str) -> None:
        """Another process makes this run, in any experiment, perhaps one that was begun since the listing.

        Takes in the names of those: a few small requests.
        """
        self._elsewhere.add(key)
        if isinstance(self.store, Snapshot):
            return
        self._listed()
        self._experiments |= set(self.store.experiments())

    def _listed(self) -> Snapshot:
        if self._source is None:
            store = self.store
            self._source = store if isinstance(store, Snapshot) else Snapshot(store, self._experiment)
            self._folders = {}
            for folder in self._source.folders():
                self._folders.setdefault(folder.key8, []).append(folder)
            self._experiments |= {folder.experiment for folders in self._folders.values() for folder in folders}
        return self._source

    def _read(self, source: Snapshot, folders: Iterable[RunFolder]) -> None:
        fresh = [folder for folder in dict.fromkeys(folders) if folder not in self._runs]
        side_by_side = each if source.remote else map  # threads would only slow a local disk down
        self._runs.update((run.folder, run) for run in side_by_side(lambda folder: SealedRun(source, folder), fresh))
