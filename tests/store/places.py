"""A store of either kind, and a way to its files past the store, as a user with a file manager has it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from azure.core.exceptions import ResourceNotFoundError
from azure.storage.blob import ContainerClient

from ticketsmith.store import open_store
from ticketsmith.store.contract import MANIFEST, RunFolder, Store, manifest_of

KEY = "0123abcd" * 8
FOLDER = RunFolder("exp", "ticket", 3, 7, KEY[:8])


def files(**content: bytes) -> dict[str, bytes]:
    """The files of a small run, its manifest among them."""
    body = {"model.safetensors": b"weights", **content}
    return {**body, MANIFEST: manifest_of(KEY, "trained", body)}


@dataclass
class Place:
    """``address`` opens the store, here and in processes that the test starts."""

    address: str
    write: Callable[[str, bytes], None]
    remove: Callable[[str], None]
    everything: Callable[[], dict[str, bytes]]
    store: Store = field(init=False)

    def __post_init__(self) -> None:
        self.store = open_store(self.address)


def folder_place(root: Path) -> Place:
    def write(path: str, content: bytes) -> None:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)

    def everything() -> dict[str, bytes]:
        return {
            path.relative_to(root).as_posix(): path.read_bytes()
            for path in root.rglob("*")
            if path.is_file() and ".work" not in path.parts
        }

    return Place(str(root), write, lambda path: (root / path).unlink(), everything)


def blob_place(client: ContainerClient, prefix: str) -> Place:
    begin = f"{prefix}/" if prefix else ""

    def write(path: str, content: bytes) -> None:
        blob = client.get_blob_client(begin + path)
        try:
            kept = blob.get_blob_properties().metadata
        except ResourceNotFoundError:
            kept = None
        blob.upload_blob(content, overwrite=True, metadata=kept)

    def everything() -> dict[str, bytes]:
        return {
            blob.name.removeprefix(begin): client.download_blob(blob.name).readall()
            for blob in client.list_blobs(name_starts_with=begin)
            if "/.work/" not in f"/{blob.name}"
        }

    address = f"az://{client.container_name}" + (f"/{prefix}" if prefix else "")
    return Place(address, write, lambda path: client.delete_blob(begin + path), everything)


class Counting:
    """A store that tells what it was asked: the names of methods, and the path or folder that each was for."""

    def __init__(self, inner: Store) -> None:
        self.inner = inner
        self.asked: list[tuple[str, str]] = []

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.inner, name)
        if not callable(value):
            return value

        def call(*args: Any, **more: Any) -> Any:
            self.asked.append((name, str(args[0]) if args else ""))
            return value(*args, **more)

        return call

    def count(self, method: str, within: str = "") -> int:
        """How often a method was called for a path that holds ``within``."""
        return sum(name == method and within in path for name, path in self.asked)
