"""Where runs live: sealed, immutable folders, exactly once visible. ``store.contract`` says what every store keeps to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ticketsmith.errors import RecipeError
from ticketsmith.plugins import build
from ticketsmith.store.contract import Store


def open_store(place: str | Path | Mapping[str, Any]) -> Store:
    """The store at ``place``: a folder's path, or one of the user's own, ``{name: "package.module:Class", options}``.

    Raises RecipeError for a scheme that no store serves and for a name that cannot be imported.
    """
    if isinstance(place, Mapping):
        options = {key: value for key, value in place.items() if key != "name"}
        return build("store", str(place["name"]), {}, options)  # type: ignore[no-any-return]
    text = str(place)
    if "\0" in text:
        raise RecipeError("store: the path holds a NUL character")
    if "://" in text:
        raise RecipeError(f"store: {text!r}: unknown kind of store; give a folder, such as `runs`")
    from ticketsmith.store.directory import DirectoryStore

    return DirectoryStore(Path(text).expanduser())
