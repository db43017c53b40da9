"""A file's bytes to a blob and back: in parallel pieces, resumed where they broke off, checked from end to end.

Every request carries an MD5 that the server checks as it receives. The SHA-256 of the whole is the blob's metadata, written
with the content in one step, and checked when it is read.
"""

from __future__ import annotations

import hashlib
import mimetypes
from dataclasses import dataclass
from io import BytesIO
from typing import Any, cast

from azure.core import MatchConditions
from azure.core.exceptions import HttpResponseError, ResourceModifiedError, ResourceNotFoundError
from azure.storage.blob import BlobBlock, BlobClient, ContentSettings

from ticketsmith.errors import DamagedRunError, StoreError
from ticketsmith.store.blob.persistence import Persistence
from ticketsmith.store.blob.told import code_of
from ticketsmith.store.parallel import each

RANGE = 8 * 2**20
"""Bytes of a block, and of a range that is read. Above 4 MiB, since Azure serves blocks faster from there on; and so small
that one which breaks off is soon sent again, even by a slow line. 50,000 blocks make 390 GiB."""

SINGLE = 2**20
"""Up to here a file is one request. Its body goes to the socket in one piece that must pass within the time-out, so that a
slow line could not carry a larger one."""

SIDE_BY_SIDE = 8
"""Pieces of one file at once. Azure gives one connection some 60 MiB/s; beyond eight the network or the hash is the limit."""

SHA256 = "sha256"
_TRIES = 5  # of what another writer disturbed


@dataclass(frozen=True)
class Found:
    """A blob as it was read."""

    content: bytes
    etag: str


def read(blob: BlobClient, persistence: Persistence, patience: float) -> Found | None:
    """A blob's content, None when there is none. Raises AzureError, StoreUnreachableError.

    DamagedRunError: the content is not that of the hash beside it.
    """
    doing = f"reading {persistence.path(blob)}"
    wrong = ""
    for _ in range(_TRIES):
        try:
            first: Any = persistence.send(doing, blob.download_blob, patience=patience)
        except ResourceNotFoundError:
            return None
        size, etag = first.size, str(first.properties.etag)
        begin: bytes = first.read(RANGE) if size else b""

        def piece(offset: int, size: int = size, etag: str = etag) -> bytes:
            length = min(RANGE, size - offset)
            condition = {"etag": etag, "match_condition": MatchConditions.IfNotModified}
            download = persistence.send(doing, blob.download_blob, offset, length, patience=patience, **condition)
            return cast(bytes, download.readall())

        try:
            content = b"".join([begin, *each(piece, range(len(begin), size, RANGE), SIDE_BY_SIDE)])
        except (ResourceModifiedError, ResourceNotFoundError):
            continue  # it was replaced between two pieces: read the new one
        digest = (first.properties.metadata or {}).get(SHA256)
        if digest is None or hashlib.sha256(content).hexdigest() == digest:
            return Found(content, etag)
        if wrong == etag:
            break  # twice the same: it is not the line
        wrong = etag
    raise DamagedRunError(
        f"{persistence.url}: {persistence.path(blob)} does not hold the bytes that were written (SHA-256 differs). Restore "
        "it from a copy or an earlier version, or delete it (of a sealed run: its whole folder) and run the same command again."
    )


def write(blob: BlobClient, content: bytes, persistence: Persistence, patience: float, *, only_if_absent: bool) -> str:
    """Writes a blob, whole or not at all; its ETag. Raises ResourceExistsError when it is there and must not be."""
    if len(content) > SINGLE:
        condition = {"match_condition": MatchConditions.IfMissing} if only_if_absent else {}
        return write_in_blocks(blob, content, persistence, patience, **condition)
    answer = persistence.send(
        f"writing {persistence.path(blob)}",
        blob.upload_blob,
        content,
        length=len(content),
        overwrite=not only_if_absent,
        validate_content=True,
        metadata={SHA256: hashlib.sha256(content).hexdigest()},
        content_settings=settings(blob),
        patience=patience,
    )
    return str(answer["etag"])


def write_in_blocks(
    blob: BlobClient, content: bytes, persistence: Persistence, patience: float, **condition: object
) -> str:
    """Writes a blob in parallel blocks; its ETag. Blocks that an earlier try has sent are not sent again."""
    for _ in range(_TRIES):
        try:
            return commit(
                blob, content, stage(blob, content, persistence, patience), persistence, patience, **condition
            )
        except HttpResponseError as error:
            if code_of(error) not in ("InvalidBlockList", "InvalidBlobOrBlock"):
                raise  # these two: another writer of the same blob has discarded our blocks
    raise StoreError(
        f"{persistence.url}: {persistence.path(blob)} is written by several processes at once; give up all but one."
    )


def stage(blob: BlobClient, content: bytes, persistence: Persistence, patience: float) -> list[str]:
    """Sends what the server has not got yet of a file's blocks; the ids of all. Nothing is visible before ``commit``.

    A block's id is its place and its hash, so a block that is there under an id holds these bytes.
    """
    view = memoryview(content)
    pieces = {}
    for number, offset in enumerate(range(0, len(content), RANGE)):
        piece = view[offset : offset + RANGE]
        pieces[f"{number:05d}-{hashlib.sha256(piece).hexdigest()[:40]}"] = piece
    doing = f"writing {persistence.path(blob)}"
    try:
        _, waiting = persistence.send(doing, blob.get_block_list, "uncommitted", patience=patience)
    except ResourceNotFoundError:
        waiting = []
    sent = {block.id: block.size for block in waiting}

    def send(name: str) -> None:
        piece = bytes(pieces[name])
        # As a stream it goes out in small pieces, each with a time-out of its own: a slow line may take its time.
        persistence.send(doing, _stage, blob, name, piece, patience=patience, length=len(piece), validate_content=True)

    missing = [name for name, piece in pieces.items() if sent.get(name) != len(piece)]
    for _ in each(send, missing, SIDE_BY_SIDE):
        pass
    return list(pieces)


def commit(
    blob: BlobClient, content: bytes, blocks: list[str], persistence: Persistence, patience: float, **condition: object
) -> str:
    """Makes staged blocks the blob's content; its ETag."""
    answer = persistence.send(
        f"writing {persistence.path(blob)}",
        blob.commit_block_list,
        [BlobBlock(block) for block in blocks],
        content_settings=settings(blob),
        metadata={SHA256: hashlib.sha256(content).hexdigest()},
        validate_content=True,
        patience=patience,
        **condition,
    )
    return str(answer["etag"])


def _stage(blob: BlobClient, name: str, piece: bytes, **options: object) -> None:
    blob.stage_block(name, BytesIO(piece), **options)  # type: ignore[arg-type]  # a new stream for each try


def settings(blob: BlobClient) -> ContentSettings:
    """So that a browser shows a report, rather than offering it to be saved."""
    kind, _ = mimetypes.guess_type(blob.blob_name)
    return ContentSettings(content_type=kind or "application/octet-stream")
