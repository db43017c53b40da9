"""A store in a local folder. A run is written aside and renamed into place, so it is visible whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from ticketsmith.errors import StoreError, disk_error
from ticketsmith.store.contract import MANIFEST, SCRATCH, RunFolder, StoredFile, check_path


class DirectoryStore:
    """``Store`` on a file system. One file system holds all of it, since publishing is a rename."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.url = str(root)

    def get(self, path: str) -> bytes | None:
        place = self.root / check_path(path)
        try:
            return place.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise StoreError(f"{place}: cannot be read: {error.strerror or error}.") from error

    def put(self, path: str, content: bytes) -> None:
        place = self.root / check_path(path)
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            scratch = self._scratch()
            handle, aside = tempfile.mkstemp(prefix=f"{place.name}-", dir=scratch)
            try:
                with os.fdopen(handle, "wb") as file:
                    _write(file.fileno(), content)
                os.chmod(aside, 0o666 & ~_umask())
                os.replace(aside, place)
            except BaseException:
                Path(aside).unlink(missing_ok=True)
                raise
        except OSError as error:
            raise disk_error(error, place) from error

    def delete(self, path: str) -> None:
        (self.root / check_path(path)).unlink(missing_ok=True)

    def experiments(self) -> list[str]:
        names = {folder.experiment for folder in self.folders()}
        names |= {place.parent.name for place in self.root.glob("*/plan.json")}
        return sorted(name for name in names if not name.startswith("."))

    def folders(self, experiment: str | None = None) -> list[RunFolder]:
        pattern = f"{experiment or '*'}/*/seed-*/level-*/{MANIFEST}"
        paths = (place.parent.relative_to(self.root).as_posix() for place in self.root.glob(pattern))
        return sorted((folder for folder in map(RunFolder.parse, paths) if folder is not None), key=str)

    def files(self, prefix: str = "") -> list[StoredFile]:
        found = []
        hidden = self.root / SCRATCH
        for folder, inner, names in os.walk(self.root / check_path(prefix) if prefix else self.root):
            inner[:] = [name for name in inner if Path(folder, name) != hidden]
            for name in names:
                place = Path(folder, name)
                with suppress(FileNotFoundError):  # removed meanwhile
                    found.append(StoredFile(place.relative_to(self.root).as_posix(), place.stat().st_size))
        return sorted(found, key=lambda file: file.path)

    def publish(self, folder: RunFolder, files: Mapping[str, bytes]) -> bool:
        place = self.root / str(folder)
        try:
            aside = Path(tempfile.mkdtemp(prefix=f"{folder.key8}-", dir=self._scratch()))
            try:
                os.chmod(aside, 0o777 & ~_umask())
                for name, content in files.items():
                    with open(aside / check_path(name), "wb") as file:
                        _write(file.fileno(), content)
                _sync(aside)
                place.parent.mkdir(parents=True, exist_ok=True)
                return _rename_if_absent(aside, place)
            finally:
                shutil.rmtree(aside, ignore_errors=True)
        except OSError as error:
            raise disk_error(error, place) from error

    @contextmanager
    def claim(self, key: str) -> Iterator[bool]:
        locks = self.root / SCRATCH / "locks"
        try:
            self._scratch()
            locks.mkdir(parents=True, exist_ok=True)
            lock = FileLock(locks / f"{key[:16]}.lock")
            lock.acquire(blocking=False)
        except Timeout:
            yield False
            return
        except OSError as error:
            raise disk_error(error, locks) from error
        try:
            for leftover in (*self._scratch().glob(f"{key[:8]}-*"), *self._scratch().glob(f"{key}.*-*")):
                _remove(leftover)  # a holder that was killed left it half written
            yield True
        finally:
            lock.release()

    def _scratch(self) -> Path:
        scratch = self.root / SCRATCH
        scratch.mkdir(parents=True, exist_ok=True)
        return scratch


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


def _write(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]
    os.fsync(descriptor)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    value = os.umask(0)
    os.umask(value)
    return value
