"""What an address that a user gives means: a store, an experiment in one, or a run."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path

from ticketsmith.errors import RecipeError
from ticketsmith.store import open_store
from ticketsmith.store.address import AZURE, split
from ticketsmith.store.contract import MANIFEST, RunFolder, Store


def experiments_at(address: str, name: str | None = None) -> tuple[str, list[str]]:
    """The store that an address means, and its experiments: all of them, that of a ``name``, or the one that the address is.

    Raises TicketSmithError.
    """
    here = open_store(address)
    if here.exists("plan.json"):
        place, own = split(address, 1)
        return place, [own]
    names = [name] if name else here.experiments()
    if names:
        return address, names
    try:
        place, own = split(address, 1)
    except RecipeError:
        return address, []
    return (place, [own]) if open_store(place).folders(own) else (address, [])  # runs, and no plan yet


def run_at(address: str) -> tuple[str, RunFolder]:
    """The store and the run that an address means: its folder, or a file in it. A ``*`` may stand for the key.

    Raises RecipeError when there is no such folder.
    """
    for parts in (4, 5):
        try:
            place, path = split(address, parts)
        except RecipeError:
            break
        pattern = "/".join(path.split("/")[:4])
        folder = RunFolder.parse(pattern)
        if folder is not None and _is_there(open_store(place), place, folder):
            return place, folder
        if "*" in pattern and address.startswith(AZURE):  # a shell has done this for folders
            runs = [run for run in open_store(place).folders(path.split("/")[0]) if fnmatchcase(str(run), pattern)]
            if len(runs) == 1:
                return place, runs[0]
    raise RecipeError(
        f"{address!r}: not the folder of a run, such as runs/imp_mnist/ticket/seed-0/level-05-0123abcd or "
        f"{AZURE}<container>/runs/imp_mnist/ticket/seed-0/level-05-*."
    )


def _is_there(store: Store, place: str, folder: RunFolder) -> bool:
    if place.startswith(AZURE):
        return store.exists(f"{folder}/{MANIFEST}")
    return (Path(place) / str(folder)).is_dir()
