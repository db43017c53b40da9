"""Addresses of stores: a folder, or ``az://<container>/<prefix>``; and what lies in them by address.

An address never holds a secret. The account and how to sign in come from the environment.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ticketsmith.errors import RecipeError

AZURE = "az://"

_CONTAINER = re.compile(r"(?!.*--)[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class BlobAddress:
    """A place in a storage account: a container, and a prefix without slashes at its ends, perhaps empty."""

    container: str
    prefix: str

    def __str__(self) -> str:
        return f"{AZURE}{self.container}" + (f"/{self.prefix}" if self.prefix else "")

    @classmethod
    def parse(cls, text: str) -> BlobAddress:
        """Reads ``az://container/prefix``. Raises RecipeError, which never repeats what may be a secret."""
        place = text.removeprefix(AZURE)
        if "?" in place or "@" in place or "sig=" in place.lower():
            raise RecipeError(
                f"store: an address {AZURE}... holds no account, key or signature: write az://<container>/<prefix>, and "
                "say who you are by AZURE_STORAGE_CONNECTION_STRING or AZURE_STORAGE_ACCOUNT. If a key or a signature "
                "was written there, renew it: others may have seen it."
            )
        container, _, prefix = place.partition("/")
        check_container(container)
        parts = [part for part in prefix.rstrip("/").split("/") if prefix.rstrip("/")]
        for part in parts:
            if not _PART.fullmatch(part):
                raise RecipeError(
                    f"store: {text!r}: {part!r} is no part of a prefix: use letters, digits, '.', '_' and '-', beginning "
                    "with a letter or digit."
                )
        return cls(container, "/".join(parts))


def check_container(name: str) -> str:
    """Refuses what Azure refuses as a container's name. Raises RecipeError."""
    if not _CONTAINER.fullmatch(name):
        raise RecipeError(
            f"store: {name!r} is no name of a container: 3 to 63 lower-case letters, digits and single hyphens, beginning "
            "and ending with a letter or digit. An address is az://<container>/<prefix>."
        )
    return name


def check_scheme(text: str) -> None:
    """Refuses what is neither a folder nor an address of Azure. Raises RecipeError."""
    if "\0" in text:
        raise RecipeError("store: the path holds a NUL character")
    if text.startswith(AZURE):
        return
    if re.match(r"az:/", text):
        raise RecipeError(f"store: {text!r} has one slash too few: write {AZURE}{text[4:]}")
    scheme, separator, _ = text.partition("://")
    if separator:  # the rest is not repeated: it may hold a signature
        raise RecipeError(
            f"store: '{scheme}://...': unknown kind of store; give a folder, such as `runs`, or az://<container>/<prefix> "
            "with the account in AZURE_STORAGE_ACCOUNT or AZURE_STORAGE_CONNECTION_STRING."
        )


def split(address: str, parts: int) -> tuple[str, str]:
    """A store's address, and the path of the last ``parts`` parts in it: ``("az://c/p", "exp")``.

    A folder is made absolute first, so that ``.`` has a name. Raises RecipeError when there are fewer parts.
    """
    check_scheme(address)
    if address.startswith(AZURE):
        container, *names = address.removeprefix(AZURE).rstrip("/").split("/")
        if len(names) < parts:
            raise RecipeError(f"{BlobAddress.parse(address)}: too short: it names nothing in the container.")
        place = BlobAddress.parse(AZURE + "/".join([container, *names[:-parts]]))
        return str(place), "/".join(names[-parts:])
    folder = Path(address).expanduser().resolve()
    if len(folder.parts) <= parts:
        raise RecipeError(f"{address}: too short: it does not lie in a store.")
    return str(Path(*folder.parts[:-parts])), "/".join(folder.parts[-parts:])
