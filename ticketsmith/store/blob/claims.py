"""Claims by blob leases: one holder at a time, renewed while it lives, ended by Azure within half a minute of its death.

A claim saves work and protects nothing: a holder that lost its claim may publish all the same, since publishing is safe by
itself.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from azure.core.exceptions import AzureError, HttpResponseError, ResourceNotFoundError
from azure.storage.blob import BlobClient, BlobLeaseClient

from ticketsmith.errors import StoreUnreachableError
from ticketsmith.store.blob.persistence import BRIEF, PATIENT, Persistence
from ticketsmith.store.blob.told import code_of, is_there, may_pass, status_of

SECONDS = 30
"""A lease's length. A killed holder's run waits so long; a shorter lease would be lost to shorter hiccups of the network."""

_RENEWALS = 3  # within a lease's length
_log = logging.getLogger("ticketsmith.store")


def take(blob: BlobClient, persistence: Persistence, seconds: int) -> BlobLeaseClient | None:
    """A lease on ``blob``, which is made when it is not there; None when another holds one. Raises AzureError."""
    lease = BlobLeaseClient(blob, str(uuid.uuid4()))  # our own id: asked for twice, it is granted once
    doing = f"claiming {persistence.path(blob)}"
    while True:
        try:
            persistence.send(doing, lease.acquire, seconds, patience=PATIENT)
            return lease
        except ResourceNotFoundError:
            _make(blob, persistence, doing)
        except HttpResponseError as error:
            if status_of(error) not in (409, 412):
                raise
            return None


def _make(blob: BlobClient, persistence: Persistence, doing: str) -> None:
    try:
        persistence.send(doing, blob.upload_blob, b"", overwrite=False, patience=PATIENT)
    except HttpResponseError as error:
        if not is_there(error) and not code_of(error).startswith("Lease"):
            raise  # else another asks for it too


@contextmanager
def kept(lease: BlobLeaseClient, blob: BlobClient, persistence: Persistence, seconds: int) -> Iterator[None]:
    """Renews a lease while inside, then gives it back. A lease that is lost meanwhile is told, and no error."""
    ended = threading.Event()
    threading.Thread(target=_renew, args=(lease, seconds, ended), name="claim", daemon=True).start()
    try:
        yield
    finally:
        ended.set()
        _give_back(lease, blob, persistence)


def _renew(lease: BlobLeaseClient, seconds: int, ended: threading.Event) -> None:
    """Outages are waited out: an expired lease that nobody took meanwhile can be renewed."""
    interval = seconds / _RENEWALS
    pause = interval
    while not ended.wait(pause):
        began = time.monotonic()
        try:
            try:
                lease.renew(connection_timeout=interval, read_timeout=interval)
            except HttpResponseError as error:
                if may_pass(error):
                    raise
                lease.acquire(seconds, connection_timeout=interval, read_timeout=interval)
        except AzureError as error:
            if not may_pass(error) and not ended.is_set():
                _log.warning("a claim went to another process; this one goes on, and the first to publish wins")
                return
        pause = max(interval - (time.monotonic() - began), 1.0)


def _give_back(lease: BlobLeaseClient, blob: BlobClient, persistence: Persistence) -> None:
    """Where that fails, the lease ends by itself."""
    doing = f"giving back {persistence.path(blob)}"
    try:
        persistence.send(doing, blob.delete_blob, lease=lease, patience=BRIEF)
    except StoreUnreachableError:
        pass
    except AzureError:  # it is not ours any more, or blobs may not be deleted here
        with suppress(AzureError, StoreUnreachableError):
            persistence.send(doing, lease.release, patience=BRIEF)
