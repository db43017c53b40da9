"""Fetching published files: mirrors in turn, resumed where they broke off, kept only when their checksum is right."""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ticketsmith.data.places import cache
from ticketsmith.errors import DataError
from ticketsmith.web import AgainError, Patience, RefusedError, faults, patiently

MIRROR_VARIABLE = "TICKETSMITH_MIRROR"
CHUNK = 1 << 18
LOCK_SECONDS = 3600

Progress = Callable[[str, int, int], None]
"""Called with a file's name, the bytes that are here, and the bytes in all."""


@dataclass(frozen=True)
class RemoteFile:
    """A published file: its name below each of the ``mirrors`` (base addresses), its md5 and its size in bytes."""

    name: str
    md5: str
    size: int
    mirrors: tuple[str, ...]


def not_here(name: str, by_hand: str) -> DataError:
    """The error for a data set that is nowhere in the search path; ``by_hand`` says which files go where."""
    return DataError(
        f"the data set {name!r} is not on this machine. Fetch it with `ticketsmith data fetch {name}`; "
        f"without a network, {by_hand.format(cache=cache())}."
    )


def download(
    remote: RemoteFile,
    folder: Path,
    data_set: str,
    progress: Progress | None = None,
    patience: Patience | None = None,
) -> Path:
    """The path of ``remote`` in ``folder``, fetched unless it is there already.

    ``$TICKETSMITH_MIRROR``, a base address, replaces the mirrors: the file is then asked for at
    ``<base>/<data_set>/<file>``. Two processes may ask for the same file: one fetches, the other waits. Raises
    DataError that tells what each mirror answered.
    """
    from filelock import FileLock, Timeout

    target = folder / remote.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock", timeout=LOCK_SECONDS):
            if not (target.is_file() and _md5(target) == remote.md5):
                _from_any_mirror(remote, target, data_set, progress, patience or Patience())
    except Timeout as error:
        raise DataError(f"another process has been fetching {target} for an hour; end that process.") from error
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"cannot write {target}: {reason}. Free space or set XDG_CACHE_HOME.") from error
    return target


def _from_any_mirror(
    remote: RemoteFile, target: Path, data_set: str, progress: Progress | None, patience: Patience
) -> None:
    answers = []
    for address in addresses(remote, data_set):
        try:
            _from_mirror(remote, address, target, progress, patience)
            return
        except (RefusedError, AgainError) as error:
            answers.append(f"  {address}: {error}")
    raise DataError(f"cannot fetch {remote.name}:\n" + "\n".join(answers))


def addresses(remote: RemoteFile, data_set: str) -> list[str]:
    """Where to ask for ``remote``, in order. Raises DataError for an address that is not http or https."""
    own = os.environ.get(MIRROR_VARIABLE)
    bases = [f"{own.rstrip('/')}/{data_set}/"] if own else remote.mirrors
    for base in bases:
        if urllib.parse.urlsplit(base).scheme not in ("http", "https"):
            raise DataError(f"{base}: only http and https addresses can be fetched from; check ${MIRROR_VARIABLE}.")
    return [base + urllib.parse.quote(remote.name) for base in bases]


def _from_mirror(remote: RemoteFile, address: str, target: Path, progress: Progress | None, patience: Patience) -> None:
    """Leaves the checked file at ``target``; goes on, from where it stopped, while the fault may pass."""
    part = target.with_name(f"{target.name}.part")

    def fetch() -> None:
        _transfer(remote, address, part, progress, patience.timeout)
        if _md5(part) != remote.md5:
            part.unlink()  # damaged on the way, or pieced together from different files
            raise AgainError("the content has another md5 than the published file")
        part.replace(target)

    patiently(fetch, patience)


def _transfer(remote: RemoteFile, address: str, part: Path, progress: Progress | None, timeout: float) -> None:
    """Brings ``part`` to the full size, beginning where it stops."""
    have = part.stat().st_size if part.exists() else 0
    if have == remote.size:
        return
    if have > remote.size:
        part.unlink()
        have = 0
    request = urllib.request.Request(address, headers={"User-Agent": "ticketsmith", "Accept-Encoding": "identity"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    with faults("the server"):
        try:
            answer = _web().open(request, timeout=timeout)
        except urllib.error.HTTPError as error:
            if error.code == 416:  # the server's file is shorter than our part
                part.unlink(missing_ok=True)
            raise
        with answer:
            # A server may ignore the range and send the whole (200): then the part is begun anew.
            resumed = answer.status == 206 and _range_start(answer) == have
            if answer.status == 206 and not resumed:
                part.unlink()
                raise AgainError("the server sent another range than was asked for")
            _append(answer, part, remote, have if resumed else 0, progress)


def _append(
    answer: http.client.HTTPResponse, part: Path, remote: RemoteFile, have: int, progress: Progress | None
) -> None:
    with part.open("ab" if have else "wb") as file:
        while chunk := answer.read1(CHUNK):
            have += len(chunk)
            if have > remote.size:
                break
            file.write(chunk)
            if progress:
                progress(remote.name, have, remote.size)
    if have > remote.size:
        part.unlink()
        raise RefusedError(f"the file there is larger than the published {remote.size:,} bytes")
    if have < remote.size:
        raise AgainError(f"it ended after {have:,} of {remote.size:,} bytes")


def _range_start(answer: http.client.HTTPResponse) -> int | None:
    match = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
    return int(match[1]) if match else None


def _web() -> urllib.request.OpenerDirector:
    """An opener for http and https, with proxies, that a redirection cannot lead to files or ftp."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
