"""Making a run visible, once and whole, with nothing but conditions that the server itself enforces.

A blob store has no rename of folders. So the files are put first, the manifest last and only if absent (``If-None-Match: *``):
the first manifest is the run's seal, for ever. Two things can be in the way, and both are decided by the server:

- *Files that a killed writer left.* They are kept when they hold our bytes, and replaced otherwise.
- *Another writer of the same run*, whose claim was lost while it stalled. It might replace a file of ours after we have sealed.
  So whoever replaces a file does it under a lease on that file, taken **before** it looks whether the manifest is there; and
  whoever seals looks **afterwards** that every file is the one it put and that nobody holds such a lease, mends what is not,
  and waits for those leases to end. A lease that is taken later finds the seal and lets go.

What remains is a writer that dies between its seal and this look while another is in the middle of a replacement. Then the
run's hashes do not fit: reading finds that, as it finds any damage.
"""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress

from azure.core import MatchConditions
from azure.core.exceptions import (
    AzureError,
    HttpResponseError,
    ResourceNotFoundError,
)
from azure.storage.blob import BlobClient, BlobLeaseClient, BlobProperties

from ticketsmith.errors import StoreError, StoreUnreachableError
from ticketsmith.store.blob import content as contents
from ticketsmith.store.blob.persistence import PATIENT, Persistence
from ticketsmith.store.blob.told import code_of, is_there
from ticketsmith.store.parallel import each

_LEASE = 15  # seconds, the shortest that there is; only one commit must fit into it
_WRITER = "writer"
_DISTURBED = {
    "BlobNotFound",
    "ConditionNotMet",
    "InvalidBlobOrBlock",
    "InvalidBlockList",
    "LeaseAlreadyPresent",
    "LeaseIdMismatchWithBlobOperation",
    "LeaseIdMissing",
    "LeaseLost",
    "LeaseNotPresentWithBlobOperation",
}
_WAIT = 1.0
_WAIT_AT_MOST = 90.0  # seconds for leases of other writers: longer ones are not theirs


class _SealedByAnother(Exception):
    pass


class Publication:
    """One writer's attempt to publish one run. ``blob_of`` gives the client of a file of the run's folder by name."""

    def __init__(
        self,
        blob_of: Callable[[str], BlobClient],
        listed: Callable[[], Iterable[tuple[str, BlobProperties]]],
        manifest: str,
        persistence: Persistence,
    ) -> None:
        self._blob_of, self._listed, self._persistence = blob_of, listed, persistence
        self._manifest = blob_of(manifest)
        self._writer = uuid.uuid4().hex

    def run(self, files: Mapping[str, bytes], manifest: bytes) -> bool:
        """True when the run is sealed by us, False when it was sealed before. Raises AzureError, StoreUnreachableError."""
        if self._properties(self._manifest) is not None:
            return False
        try:
            small = [name for name, content in files.items() if len(content) <= contents.SINGLE]
            placed = dict(zip(small, each(lambda name: self._place(name, files[name]), small), strict=True))
            for name in files.keys() - placed.keys():  # these go in parallel blocks
                placed[name] = self._place(name, files[name])
        except _SealedByAnother:
            return False
        if not self._seal(manifest):
            return False
        with suppress(StoreUnreachableError):  # it is sealed; damage, if there should be any, is found when it is read
            self._settle(files, placed)
        return True

    def _place(self, name: str, content: bytes) -> str:
        """Puts a file; the ETag of the blob that holds its bytes now."""
        blob = self._blob_of(name)
        look_first = len(content) > contents.SINGLE  # many blocks are not sent in vain
        deadline = time.monotonic() + self._persistence.patience
        while time.monotonic() < deadline:
            properties = self._properties(blob) if look_first else None
            look_first = True
            if properties is not None and _holds(properties, content):
                return str(
                    properties.etag
                )  # left by one that was killed; or ours, and the answer to our request was lost
            etag = self._create(blob, content) if properties is None else self._replace(blob, properties, content)
            if etag is not None:
                return etag
            if properties is not None:
                time.sleep(_WAIT)  # another is at it
        raise StoreError(f"{self._persistence.url}: {self._persistence.path(blob)} is kept by another process; end it.")

    def _create(self, blob: BlobClient, content: bytes) -> str | None:
        """Puts a new file; its ETag, None when it is there."""
        try:
            return contents.write(blob, content, self._persistence, PATIENT, only_if_absent=True)
        except HttpResponseError as error:
            if not is_there(error) and not _disturbed(error):
                raise
            return None

    def _replace(self, blob: BlobClient, properties: BlobProperties, content: bytes) -> str | None:
        """Replaces an unsealed file; its new ETag, None when it was changed meanwhile or another is at it."""
        try:
            blocks = contents.stage(blob, content, self._persistence, PATIENT)
            with self._lease(blob, str(properties.etag)) as lease:
                if self._properties(self._manifest) is not None:
                    raise _SealedByAnother
                return contents.commit(blob, content, blocks, self._persistence, PATIENT, lease=lease)
        except HttpResponseError as error:
            if not _disturbed(error):
                raise
            return None

    def _seal(self, manifest: bytes) -> bool:
        try:
            self._persistence.send(
                f"sealing {self._persistence.path(self._manifest)}",
                self._manifest.upload_blob,
                manifest,
                length=len(manifest),
                overwrite=False,
                validate_content=True,
                metadata={contents.SHA256: hashlib.sha256(manifest).hexdigest(), _WRITER: self._writer},
                content_settings=contents.settings(self._manifest),
                patience=PATIENT,
            )
        except HttpResponseError as error:
            if not is_there(error):
                raise
            properties = self._properties(self._manifest)
            return (
                properties is not None and (properties.metadata or {}).get(_WRITER) == self._writer
            )  # only the answer was lost
        return True

    def _settle(self, files: Mapping[str, bytes], placed: dict[str, str]) -> None:
        """Looks that each file of the sealed run is ours, and mends what is not."""
        deadline = time.monotonic() + _WAIT_AT_MOST
        while time.monotonic() < deadline:
            there = dict(self._listed())
            busy = [name for name in files if name in there and there[name].lease.status == "locked"]
            wrong = [name for name in files if name not in there or not _same(there[name].etag, placed[name])]
            if not busy and not wrong:
                return
            for name in set(wrong) - set(busy):
                with suppress(HttpResponseError):  # disturbed again: the next round looks again
                    placed[name] = self._mend(self._blob_of(name), files[name])
            time.sleep(_WAIT if busy else _WAIT / 10)

    def _mend(self, blob: BlobClient, content: bytes) -> str:
        properties = self._properties(blob)
        if properties is None:
            return contents.write(blob, content, self._persistence, PATIENT, only_if_absent=True)
        if _holds(properties, content):
            return str(properties.etag)
        blocks = contents.stage(blob, content, self._persistence, PATIENT)
        with self._lease(blob, str(properties.etag)) as lease:
            return contents.commit(blob, content, blocks, self._persistence, PATIENT, lease=lease)

    def _properties(self, blob: BlobClient) -> BlobProperties | None:
        try:
            doing = f"looking at {self._persistence.path(blob)}"
            return self._persistence.send(doing, blob.get_blob_properties, patience=PATIENT)
        except ResourceNotFoundError:
            return None

    @contextmanager
    def _lease(self, blob: BlobClient, etag: str) -> Iterator[BlobLeaseClient]:
        lease = BlobLeaseClient(blob, str(uuid.uuid4()))
        doing = f"writing {self._persistence.path(blob)}"
        condition = {"etag": etag, "match_condition": MatchConditions.IfNotModified}
        self._persistence.send(doing, lease.acquire, _LEASE, patience=PATIENT, **condition)
        try:
            yield lease
        finally:
            with suppress(AzureError, StoreUnreachableError):  # it ends by itself
                self._persistence.send(doing, lease.release, patience=_WAIT_AT_MOST)


def _same(etag: str | None, another: str) -> bool:
    """Listings leave the quotes of ETags out."""
    return str(etag).strip('"') == another.strip('"')


def _holds(properties: BlobProperties, content: bytes) -> bool:
    """True when a blob holds these bytes, by the hash that was written with it."""
    digest = (properties.metadata or {}).get(contents.SHA256)
    return properties.size == len(content) and digest == hashlib.sha256(content).hexdigest()


def _disturbed(error: HttpResponseError) -> bool:
    """True when another writer of the same blob is the cause."""
    return code_of(error) in _DISTURBED
