"""The built-in data sets as a user sees them: what there is, where it lies, getting it, and checking it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ticketsmith.data import loading
from ticketsmith.data.cards import CARDS, Card
from ticketsmith.errors import DataError, RecipeError
from ticketsmith.plugins import nearest

if TYPE_CHECKING:
    from ticketsmith.data.download import Progress

NOT_HERE = "not here"
PACKAGED = "packaged"
# Sets that need no file on this machine, and where they come from instead.
_ALWAYS = {"mnist": PACKAGED, "digits": "in scikit-learn", "mnist1d": "generated", "pydocs": "in Python"}


@dataclass(frozen=True)
class Entry:
    """One line of ``ticketsmith data list``: the card of a set, and where it lies: a path or a word from above."""

    card: Card
    where: str

    @property
    def here(self) -> bool:
        """True if the set can be loaded without fetching it."""
        return self.where != NOT_HERE


def catalogue() -> list[Entry]:
    """Every built-in data set, in the order to show; looks for files but does not read them."""
    return [Entry(card, _where(name)) for name, card in CARDS.items()]


def fetch(name: str, progress: Progress | None = None) -> Path:
    """Where the files of a built-in set lie, fetched into the user's cache unless a sound copy is here already.

    Raises DataError that says how to get the files by hand when they cannot be fetched.
    """
    if name in _ALWAYS or name not in CARDS:
        raise _no_files(name)
    module = _module(name)
    holding = module.find()
    if holding is not None:
        try:
            module.load()
            return Path(holding.place)
        except DataError:
            if not holding.place.is_relative_to(_cache()):
                raise  # someone else's file: theirs to delete
    try:
        return Path(module.fetch(progress))
    except DataError as error:
        raise DataError(f"{error}\nWithout a network, {module.BY_HAND.format(cache=_cache())}.") from error


def verify(name: str, options: Mapping[str, Any], base: Path | None = None) -> list[str]:
    """Reads the whole data set and tells, line by line, what was found right. Raises DataError or RecipeError."""
    from ticketsmith.data.dataset import Text

    dataset = loading.read(name, options, base)
    lines = []
    if name in CARDS and name not in _ALWAYS:
        lines.append(f"found in {_module(name).find(options.get('root')).place}; content as published (md5)")
    elif name == "mnist":
        lines.append("packaged; content as published (md5)")
    mark = loading.fingerprint(name, options, base)
    if mark is not None:
        lines.append(f"fingerprint {mark}")
    if isinstance(dataset, Text):
        return [*lines, f"{len(dataset):,} characters, {len(set(dataset.content)):,} different ones"]
    shape = "x".join(str(side) for side in dataset.input_shape)
    inputs = dataset.train.inputs
    lines.append(f"{len(dataset.train):,} + {len(dataset.test):,} inputs of {shape}, {inputs.dtype}")
    lines.append(f"{dataset.classes} classes; labels and inputs in range")
    return lines


def _where(name: str) -> str:
    if name in _ALWAYS:
        return _ALWAYS[name]
    holding = _module(name).find()
    return NOT_HERE if holding is None else str(holding.place)


def _module(name: str) -> Any:
    import importlib

    return importlib.import_module(f"ticketsmith.data.{name}")


def _cache() -> Path:
    from ticketsmith.data.places import cache

    return cache()


def _no_files(name: str) -> DataError | RecipeError:
    if name in _ALWAYS:
        return DataError(f"the data set {name!r} is {_ALWAYS[name]}; there is nothing to fetch.")
    return RecipeError(f"there is no data set {name!r} to fetch.{nearest(name, list(CARDS))}")
