"""``Store`` on Azure Blob. Names of blobs are the paths of files, so a download of the container is a local store."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

from azure.core.exceptions import AzureError, ResourceExistsError, ResourceNotFoundError
from azure.storage.blob import BlobClient, BlobPrefix, BlobProperties, BlobServiceClient, ContainerClient

from ticketsmith.errors import StoreError
from ticketsmith.store.address import BlobAddress
from ticketsmith.store.blob import claims
from ticketsmith.store.blob import content as contents
from ticketsmith.store.blob.persistence import BRIEF, PATIENT, Persistence
from ticketsmith.store.blob.publish import Publication
from ticketsmith.store.blob.told import code_of, explained, status_of
from ticketsmith.store.contract import MANIFEST, SCRATCH, RunFolder, StoredFile, check_path
from ticketsmith.store.parallel import each

T = TypeVar("T")


class BlobStore:
    """Safe to use by threads. ``scratch``: another container for ``.work/``, where the store's own keeps every version.

    ``patience`` (seconds) bounds how long anything is tried, ``claim_seconds`` how long the claim of a killed process lasts.
    """

    def __init__(
        self,
        address: BlobAddress,
        service: BlobServiceClient,
        scratch: str | None = None,
        *,
        patience: float = PATIENT,
        claim_seconds: int = claims.SECONDS,
    ) -> None:
        self.url = str(address)
        self._prefix = f"{address.prefix}/" if address.prefix else ""
        self._endpoint = f"{service.scheme}://{service.primary_hostname}"
        self._container = service.get_container_client(address.container)
        self._scratch = service.get_container_client(scratch or address.container)
        self._persistence = Persistence(self.url, self._endpoint, self._prefix, patience)
        self._claim_seconds = claim_seconds

    def __repr__(self) -> str:
        return f"BlobStore({self.url!r})"

    def get(self, path: str) -> bytes | None:
        with self._told(f"reading {path}"):
            answer = contents.read(self._blob(path), self._persistence, PATIENT)
        return None if answer is None else answer.content

    def exists(self, path: str) -> bool:
        with self._told(f"looking at {path}"):
            return self._persistence.send(f"looking at {path}", self._blob(path).exists, patience=PATIENT)

    def put(self, path: str, content: bytes) -> None:
        patience = BRIEF if _is_scratch(path) else PATIENT
        blob = self._blob(path)
        with self._told(f"writing {path}"):
            self._writing(
                blob.container_name,
                lambda: contents.write(blob, content, self._persistence, patience, only_if_absent=False),
            )

    def delete(self, path: str) -> None:
        patience = BRIEF if _is_scratch(path) else PATIENT
        with self._told(f"deleting {path}"):
            try:
                self._persistence.send(f"deleting {path}", self._blob(path).delete_blob, patience=patience)
            except ResourceNotFoundError:
                return

    def experiments(self) -> list[str]:
        with self._told("listing"):
            names = [name for name in self._top() if not name.startswith(".")]
            real = each(lambda name: self.exists(f"{name}/plan.json") or bool(self.folders(name)), names)
            return sorted(name for name, is_one in zip(names, real, strict=True) if is_one)

    def folders(self, experiment: str | None = None) -> list[RunFolder]:
        with self._told("listing"):
            names = [experiment] if experiment is not None else self._top()
            paths = [path for several in each(self._paths, names) for path in several]
        ends = f"/{MANIFEST}"
        several = (RunFolder.parse(path.removesuffix(ends)) for path in paths if path.endswith(ends))
        return sorted((folder for folder in several if folder is not None), key=str)

    def files(self, prefix: str = "") -> list[StoredFile]:
        with self._told("listing"):
            listing = [
                StoredFile(path, blob.size, f"{self._endpoint} {blob.etag}", (blob.metadata or {}).get(contents.SHA256))
                for path, blob in self._listed(f"{check_path(prefix)}/" if prefix else "")
                if _is_scratch(prefix) or not _is_scratch(path)
            ]
        return sorted(listing, key=lambda file: file.path)

    def publish(self, folder: RunFolder, files: Mapping[str, bytes]) -> bool:
        body = {check_path(name): content for name, content in files.items() if name != MANIFEST}
        inside = f"{folder}/"
        publication = Publication(
            lambda name: self._blob(f"{inside}{name}"),
            lambda: ((path.removeprefix(inside), blob) for path, blob in self._listed(inside)),
            MANIFEST,
            self._persistence,
        )
        with self._told(f"publishing {folder}"):
            return self._writing(self._container.container_name, lambda: publication.run(body, files[MANIFEST]))

    @contextmanager
    def claim(self, key: str) -> Iterator[bool]:
        blob = self._blob(f"{SCRATCH}/claims/{key}")
        with self._told(f"claiming {key[:8]}"):
            lease = self._writing(
                blob.container_name, lambda: claims.take(blob, self._persistence, self._claim_seconds)
            )
        if lease is None:
            yield False
            return
        with claims.kept(lease, blob, self._persistence, self._claim_seconds):
            yield True

    def _blob(self, path: str) -> BlobClient:
        return self._in(path).get_blob_client(self._prefix + check_path(path))

    def _in(self, path: str) -> ContainerClient:
        return self._scratch if _is_scratch(path) else self._container

    def _paths(self, experiment: str) -> list[str]:
        return [path for path, _ in self._listed(f"{check_path(experiment)}/")]

    def _top(self) -> list[str]:
        """Names of the folders at the top."""
        begin = self._prefix
        walk = self._pages(partial(self._container.walk_blobs, name_starts_with=begin, delimiter="/"))
        return [blob.name.removeprefix(begin).rstrip("/") for blob in walk if isinstance(blob, BlobPrefix)]

    def _listed(self, inside: str) -> Iterator[tuple[str, BlobProperties]]:
        """Path and properties of every blob whose path begins with ``inside``."""
        container, begin = self._in(inside), self._prefix + inside
        for blob in self._pages(partial(container.list_blobs, name_starts_with=begin, include=["metadata"])):
            if (blob.metadata or {}).get("hdi_isfolder") != "true":  # accounts with real folders list them too
                yield blob.name.removeprefix(self._prefix), blob

    def _pages(self, listing: Callable[..., Any]) -> Iterator[Any]:
        """Everything that is listed, page by page; a page that fails is asked for again."""
        token: str | None = None
        while True:
            try:
                page, token = self._persistence.send("listing", _page, listing, token, patience=PATIENT)
            except ResourceNotFoundError:
                return  # no container: nothing is there yet
            yield from page
            if not token:
                return

    def _writing(self, container: str, action: Callable[[], T]) -> T:
        """Does ``action``; when there is no such container, makes it first."""
        try:
            return action()
        except ResourceNotFoundError as error:
            if code_of(error) != "ContainerNotFound":
                raise
        client = self._scratch if container == self._scratch.container_name else self._container
        try:
            self._persistence.send(f"making the container {container}", client.create_container, patience=PATIENT)
        except ResourceExistsError:
            pass
        except AzureError as error:
            if status_of(error) != 403:
                raise
            raise StoreError(
                f"{self.url}: the container {container!r} is not there, and this sign-in may not make it. Make it: "
                f"az storage container create --name {container} --account-name <account> --auth-mode login"
            ) from None
        return action()

    @contextmanager
    def _told(self, doing: str) -> Iterator[None]:
        try:
            yield
        except AzureError as error:
            raise explained(error, self.url, self._endpoint, doing) from None  # the SDK's text may hold a signature


def _is_scratch(path: str) -> bool:
    return path == SCRATCH or path.startswith(f"{SCRATCH}/")


def _page(listing: Callable[..., Any], token: str | None, **timeouts: float) -> tuple[list[Any], str | None]:
    pages = listing(**timeouts).by_page(token)
    return list(next(pages, ())), pages.continuation_token
