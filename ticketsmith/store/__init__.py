"""Where runs live: sealed, immutable folders, exactly once visible. ``store.contract`` says what every store keeps to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ticketsmith.errors import RecipeError
from ticketsmith.plugins import build
from ticketsmith.store.address import AZURE, check_scheme
from ticketsmith.store.contract import Store

_METHODS = ("get", "exists", "put", "delete", "experiments", "folders", "files", "publish", "claim")


def open_store(place: str | Path | Mapping[str, Any]) -> Store:
    """The store at ``place``: a folder's path, ``az://<container>/<prefix>``, or one of the user's own by name and options,
    ``{name: "package.module:Class", ...}``.

    Raises RecipeError for a scheme that no store serves, for a name that cannot be imported, and when the environment
    does not say how to sign in.
    """
    if isinstance(place, Mapping):
        options = {key: value for key, value in place.items() if key != "name"}
        store: Store = build("store", str(place["name"]), {}, options)
        if missing := [name for name in _METHODS if not callable(getattr(store, name, None))]:
            raise RecipeError(
                f"store {place['name']!r}: it has no {' and no '.join(f'`{name}`' for name in missing)}; docs/extending.md "
                "shows a whole store."
            )
        return store
    text = str(place)
    check_scheme(text)
    if text.startswith(AZURE):
        from ticketsmith.store.blob import open_blob_store

        return open_blob_store(text)
    from ticketsmith.store.directory import DirectoryStore

    return DirectoryStore(Path(text).expanduser())
