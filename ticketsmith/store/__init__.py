"""Where runs live: sealed, immutable folders, exactly once visible. ``store.contract`` says what every store keeps to."""

from __future__ import annotations

from pathlib import Path

from ticketsmith.errors import RecipeError
from ticketsmith.store.contract import Store


def open_store(place: str | Path) -> Store:
    """The store at ``place``: a folder. Raises RecipeError for a scheme that no store serves."""
    text = str(place)
    if "\0" in text:
        raise RecipeError("store: the path holds a NUL character")
    if "://" in text:
        raise RecipeError(f"store: {text!r}: unknown kind of store; give a folder, such as `runs`")
    from ticketsmith.store.directory import DirectoryStore

    return DirectoryStore(Path(text))
