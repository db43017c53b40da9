"""What a store held of one folder at one moment: for readers of many files, such as reports.

One listing says which files there are and in which version, so what is not there costs no request, and what is in the cache
of this machine in that very version costs none either. The rest is read many at a time.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

from ticketsmith.store.cache import Cache, cache_folder
from ticketsmith.store.contract import MANIFEST, RunFolder, Store, StoredFile
from ticketsmith.store.parallel import each


class Snapshot:
    """Reads a folder of a store as it was listed; a store whose files have no versions is read as it is now.

    Bytes are not checked here: ``SealedRun`` does that, wherever they come from.
    """

    def __init__(self, store: Store, folder: str = "") -> None:
        self.url = store.url
        self._store, self._folder = store, folder
        # A store that says that it has no versions is asked for each file: a listing would tell nothing of it beforehand.
        self._listed = getattr(store, "versioned", True)
        self._files = {file.path: file for file in store.files(folder)} if self._listed else {}
        self._held: dict[str, bytes | None] = {}
        self.remote = any(file.version for file in self._files.values())
        """Whether reading a file takes long: then many should be read at a time."""

    def files(self, prefix: str = "") -> list[StoredFile]:
        """The files below a folder, sorted by path."""
        if not self._listed:
            return self._store.files(prefix)
        inside = f"{prefix}/" if prefix else ""
        return [file for path, file in self._files.items() if path.startswith(inside)]

    def folders(self, experiment: str | None = None) -> list[RunFolder]:
        """The sealed runs, sorted by path."""
        if not self._listed:
            runs = self._store.folders(experiment or self._folder.partition("/")[0] or None)
            return [run for run in runs if self._holds(str(run))] if self._folder else runs
        ends = f"/{MANIFEST}"
        parsed = (RunFolder.parse(path.removesuffix(ends)) for path in self._files if path.endswith(ends))
        wanted = (run for run in parsed if run is not None and experiment in (None, run.experiment))
        return sorted(wanted, key=str)

    def get(self, path: str) -> bytes | None:
        """A file's bytes, None when it was not listed. What lies outside of the folder is asked of the store."""
        if path in self._held:
            return self._held[path]
        if path in self._files:
            return self._read(self._files[path])
        return None if self._listed and self._holds(path) else self._store.get(path)

    def _holds(self, path: str) -> bool:
        return not self._folder or path.startswith(f"{self._folder}/")

    def read_ahead(self, paths: re.Pattern[str]) -> Snapshot:
        """Reads the files in whose path the pattern is found, many at a time, where reading one takes long; itself."""
        remote = [file for file in self._files.values() if file.version and paths.search(file.path)]
        self._held |= zip((file.path for file in remote), each(self._read, remote), strict=True)
        return self

    def _read(self, file: StoredFile) -> bytes | None:
        if file.version is None:
            return self._store.get(file.path)
        name = f"{self.url} {file.path} {file.version}"
        cache = _cache(cache_folder())
        content = cache.get(name)
        if content is None:
            content = self._store.get(file.path)
            if content is not None:
                cache.put(name, content)
        return content


@lru_cache(maxsize=4)
def _cache(folder: Path | None) -> Cache:
    return Cache(folder)
