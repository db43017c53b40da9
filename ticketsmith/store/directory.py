"""A store in a local folder. A run is written aside and renamed into place, so it is visible whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from ticketsmith.errors import StoreError, disk_error
from ticketsmith.store.contract import MANIFEST, SCRATCH, RunFolder, StoredFile, check_path


class DirectoryStore:
    """``Store`` on a file system. One file system holds all of it, since publishing is a rename."""

    versioned = False

    def __init__(self, root: Path) -> None:
        self.root = root
        self.url = str(root)

    def get(self, path: str) -> bytes | None:
        place = f"{self.root}/{check_path(path)}"
        try:
            return _content(place)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise StoreError(f"{place}: cannot be read: {error.strerror or error}.") from error

    def exists(self, path: str) -> bool:
        return Path(self.root, check_path(path)).is_file()

    def put(self, path: str, content: bytes) -> None:
        place = self.root / check_path(path)
        try:
            _make_folder(place.parent)
            scratch = self._scratch()
            handle, aside = tempfile.mkstemp(prefix=f"{place.name}-", dir=scratch)
            try:
                with os.fdopen(handle, "wb") as file:
                    _write(file.fileno(), content)
                    os.fsync(file.fileno())
                os.chmod(aside, 0o666 & ~_UMASK)
                os.replace(aside, place)
            except BaseException:
                Path(aside).unlink(missing_ok=True)
                raise
        except OSError as error:
            raise disk_error(error, place) from error

    def delete(self, path: str) -> None:
        (self.root / check_path(path)).unlink(missing_ok=True)

    def experiments(self) -> list[str]:
        names = [name for name in _names(str(self.root)) if not name.startswith(".")]
        return sorted(name for name in names if self.exists(f"{name}/plan.json") or any(self._sealed(name)))

    def folders(self, experiment: str | None = None) -> list[RunFolder]:
        names = _names(str(self.root)) if experiment is None else [check_path(experiment)]
        return sorted((folder for name in names for folder in self._sealed(name)), key=str)

    def files(self, prefix: str = "") -> list[StoredFile]:
        start = f"{prefix}/" if prefix and check_path(prefix) else ""
        listing, todo = [], [start]
        while todo:
            inside = todo.pop()
            for entry in _entries(f"{self.root}/{inside}"):
                path = f"{inside}{entry.name}"
                if not entry.is_dir():
                    with suppress(FileNotFoundError):  # removed meanwhile
                        listing.append(StoredFile(path, entry.stat().st_size))
                elif path != SCRATCH and not entry.is_symlink():
                    todo.append(f"{path}/")
        return sorted(listing, key=lambda file: file.path)

    def publish(self, folder: RunFolder, files: Mapping[str, bytes]) -> bool:
        place = self.root / str(folder)
        try:
            aside = Path(tempfile.mkdtemp(prefix=f"{folder.key8}-", dir=self._scratch()))
            try:
                os.chmod(aside, 0o777 & ~_UMASK)
                with ExitStack() as opened:
                    written = [opened.enter_context(open(aside / check_path(name), "wb", 0)) for name in files]
                    for file, content in zip(written, files.values(), strict=True):
                        _write(file.fileno(), content)
                    for file in written:  # all at once: the first then waits for most of what the others need
                        os.fsync(file.fileno())
                _sync(aside)
                _make_folder(place.parent)
                return _rename_if_absent(aside, place)
            finally:
                shutil.rmtree(aside, ignore_errors=True)
        except OSError as error:
            raise disk_error(error, place) from error

    @contextmanager
    def claim(self, key: str) -> Iterator[bool]:
        locks = self.root / SCRATCH / "locks"
        try:
            _make_folder(locks)
            lock = FileLock(locks / f"{key[:16]}.lock")
            lock.acquire(blocking=False)
        except Timeout:
            yield False
            return
        except OSError as error:
            raise disk_error(error, locks) from error
        try:
            for name in _names(str(locks.parent)):
                if name.startswith(f"{key[:8]}-") or (name.startswith(f"{key}.") and "-" in name):
                    _remove(locks.parent / name)  # a holder that was killed left it half written
            yield True
        finally:
            lock.release()

    def _sealed(self, experiment: str) -> Iterator[RunFolder]:
        """The sealed runs of an experiment, as they come."""
        for variant in _names(f"{self.root}/{experiment}"):
            for seed in _names(f"{self.root}/{experiment}/{variant}", "seed-"):
                for level in _names(f"{self.root}/{experiment}/{variant}/{seed}", "level-"):
                    folder = RunFolder.parse(f"{experiment}/{variant}/{seed}/{level}")
                    if folder is not None and os.access(f"{self.root}/{folder}/{MANIFEST}", os.F_OK):
                        yield folder

    def _scratch(self) -> Path:
        scratch = self.root / SCRATCH
        _make_folder(scratch)
        return scratch


def _make_folder(place: Path) -> None:
    if not place.is_dir():  # most often it is there: asking takes a tenth of what trying to make it does
        place.mkdir(parents=True, exist_ok=True)


def _rename_if_absent(aside: Path, place: Path) -> bool:
    try:
        os.rename(aside, place)
    except OSError:
        if (place / MANIFEST).exists():
            return False  # another process published the same run first
        if not place.is_dir():
            raise
        os.rename(
            place, aside.with_name(f"{aside.name}-unsealed")
        )  # what is not sealed is no run and must not be in the way
        os.rename(aside, place)
    _sync(place.parent)
    return True


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _content(place: str) -> bytes:
    """What ``open(...).read()`` gives, in half of the time: reports read tens of thousands of small files."""
    descriptor = os.open(place, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    try:
        pieces = [os.read(descriptor, os.fstat(descriptor).st_size + 1)]
        while pieces[-1]:
            pieces.append(os.read(descriptor, 2**24))
        return b"".join(pieces)
    finally:
        os.close(descriptor)


def _write(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _entries(folder: str) -> list[os.DirEntry[str]]:
    """What lies in a folder; nothing where there is none, or one that is not ours (``lost+found`` of a disk)."""
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return []
    except OSError as error:
        raise StoreError(f"{folder}: cannot be listed: {error.strerror or error}.") from error


def _names(folder: str, begin: str = "") -> list[str]:
    return [entry.name for entry in _entries(folder) if entry.name.startswith(begin)]


def _current_umask() -> int:
    """It can only be read by setting it, and for that moment it holds for all threads."""
    value = os.umask(0o077)
    os.umask(value)
    return value


_UMASK = _current_umask()  # once, while this module is imported: threads that write come later
