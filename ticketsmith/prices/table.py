"""The price table: what comes with TicketSmith, and over it the user's own file.

Both are one YAML format: ``machines`` (what a size is), ``prices`` (lists, each with region, currency, date and source),
``services``. A later list wins over an earlier one, the user's file over the shipped table.
"""

from __future__ import annotations

import difflib
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from ticketsmith.errors import RecipeError
from ticketsmith.prices.rate import Rate

VARIABLE = "TICKETSMITH_PRICES"
DEFAULT_REGION = "eastus"
ANYWHERE = "any"

_INLINE = re.compile(r"(?:(?P<name>[^=]*)=)?\s*(?P<price>[0-9.]+(?:[eE][-+]?\d+)?)\s*(?P<currency>[A-Z]{3})?")
_CURRENCY = r"^[A-Z]{3}$"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Size(_Strict):
    """What a machine is: GPUs that a pod sees, what they are, vCPUs, memory in GiB."""

    gpus: int = Field(0, ge=0)
    gpu: str = ""
    vcpu: int | None = Field(None, gt=0)
    memory_gib: float | None = Field(None, gt=0)


class Price(_Strict):
    """An hour on demand, and as spot where that is known."""

    on_demand: float = Field(ge=0, allow_inf_nan=False)
    spot: float | None = Field(None, ge=0, allow_inf_nan=False)


def _plain(value: object) -> object:
    return {"on_demand": value} if isinstance(value, int | float) and not isinstance(value, bool) else value


class PriceList(_Strict):
    """Prices of one region that have one source. ``region: any`` holds everywhere."""

    region: str = ANYWHERE
    currency: str = Field("USD", pattern=_CURRENCY)
    dated: Annotated[str, BeforeValidator(str)] = ""
    source: str = ""
    machines: dict[str, Annotated[Price, BeforeValidator(_plain)]]


class Service(_Strict):
    """What else a cluster costs, a unit of it."""

    name: str
    unit: str
    price: float = Field(ge=0, allow_inf_nan=False)
    currency: str = Field("USD", pattern=_CURRENCY)
    region: str = ANYWHERE
    dated: Annotated[str, BeforeValidator(str)] = ""
    source: str = ""


class Document(_Strict):
    """A price file."""

    machines: dict[str, Size] = Field(default_factory=dict)
    prices: tuple[PriceList, ...] = ()
    services: tuple[Service, ...] = ()


@dataclass(frozen=True)
class Entry:
    """A price of the table, with everything that it needs to be believed. ``own``: from the user's file."""

    machine: str
    size: Size
    region: str
    price: Price
    currency: str
    dated: str
    source: str
    own: bool


def user_file() -> Path:
    """Where the user's own prices lie: ``$TICKETSMITH_PRICES``, else ``~/.config/ticketsmith/prices.yaml``."""
    if place := os.environ.get(VARIABLE):
        return Path(place).expanduser()
    home = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(home).expanduser() / "ticketsmith" / "prices.yaml"


@lru_cache(maxsize=1)
def shipped() -> Document:
    """The table that comes with TicketSmith."""
    return parse(files("ticketsmith.prices").joinpath("azure.yaml").read_text(encoding="utf-8"), "azure.yaml")


def own() -> Document:
    """The user's own prices; empty when there is no file. Raises RecipeError when it cannot be read.

    A file that ``$TICKETSMITH_PRICES`` names must be there: a price that was meant and is not used would go unnoticed.
    """
    place = user_file()
    try:
        text = place.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        if os.environ.get(VARIABLE):
            raise RecipeError(f"{place}: no such file, named by ${VARIABLE}; `prices refresh` makes it.") from error
        return Document()
    except (OSError, UnicodeDecodeError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or "it is no text"
        raise RecipeError(f"{place}: cannot be read: {reason}. It is named by ${VARIABLE}.") from error
    return parse(text, str(place))


def parse(text: str, place: str) -> Document:
    """A price file's content. Raises RecipeError that names the field."""
    try:
        return Document.model_validate(yaml.safe_load(text) or {})
    except yaml.YAMLError as error:
        raise RecipeError(f"{place}: is no YAML: {str(error).splitlines()[0]}") from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise RecipeError(f"{place}: {field}: {first['msg']}. See docs/costs.md for the format.") from error


def entries() -> list[Entry]:
    """Every price, the ones that win first: the user's own, then the shipped."""
    mine, theirs = own(), shipped()
    sizes = {**theirs.machines, **mine.machines}
    lists = ((one, document is mine) for document in (mine, theirs) for one in reversed(document.prices))
    return [
        Entry(name, sizes.get(name, Size()), one.region, price, one.currency, one.dated, one.source, is_own)
        for one, is_own in lists
        for name, price in one.machines.items()
    ]


def services() -> list[Service]:
    """What else a cluster costs; the user's own first."""
    return [*own().services, *shipped().services]


def find(text: str, region: str | None = None, spot: bool = False) -> Rate:
    """See :func:`ticketsmith.prices.lookup`."""
    inline = _INLINE.fullmatch(text.strip())
    if inline is not None:
        return _by_hand(text, inline, spot)
    if "=" in text:
        raise RecipeError(f"{text!r}: after `=` comes the price of an hour, a number, such as `my-laptop=0.10`.")
    name, _, place = text.strip().partition("@")
    region = place or region
    here = [entry for entry in entries() if entry.machine.lower() == name.lower()]
    if not here:
        raise RecipeError(_unknown(name))
    if region is None:
        order = (ANYWHERE, DEFAULT_REGION)
        entry = min(here, key=lambda e: (not e.own, order.index(e.region) if e.region in order else len(order)))
    else:
        there = [entry for entry in here if entry.region.lower() in (region.lower(), ANYWHERE)]
        if not there:
            raise RecipeError(_elsewhere(here, region))
        entry = there[0]
    return _rate(entry, spot)


def _rate(entry: Entry, spot: bool) -> Rate:
    price = entry.price
    place = "" if entry.region == ANYWHERE else entry.region
    per_hour, source = price.on_demand, ", ".join(part for part in (entry.source, place) if part)
    if spot and price.spot is not None:
        per_hour = price.spot
    elif spot:
        source = f"{source} (on demand: no spot price is known)"
    return Rate(
        machine=entry.machine,
        per_hour=per_hour,
        currency=entry.currency,
        gpus=entry.size.gpus,
        spot=spot,
        source=source,
        dated=entry.dated,
        on_demand=price.on_demand,
    )


def _by_hand(text: str, match: re.Match[str], spot: bool) -> Rate:
    name = (match["name"] or "").strip() or "this machine"
    try:
        per_hour = float(match["price"])
    except ValueError:
        per_hour = math.nan
    if not math.isfinite(per_hour):
        raise RecipeError(f"{text!r}: the price of an hour is a number, such as `my-laptop=0.10`.")
    size = shipped().machines.get(name, Size())
    currency = match["currency"] or "USD"
    return Rate(name, per_hour, currency, size.gpus, spot, source="given by hand", on_demand=per_hour)


def _unknown(name: str) -> str:
    names = {entry.machine.lower(): entry.machine for entry in entries()}
    close = difflib.get_close_matches(name.lower(), list(names), n=1, cutoff=0.5)
    guess = f" Did you mean {names[close[0]]!r}?" if close else ""
    return (
        f"no price is known of the machine {name!r}.{guess} `ticketsmith prices list` shows all; "
        f"give your own as `{name or 'my-laptop'}=0.53` (an hour) or in {user_file()}."
    )


def _elsewhere(here: Sequence[Entry], region: str) -> str:
    regions = list(dict.fromkeys(entry.region for entry in here))
    return (
        f"no price is known of {here[0].machine} in the region {region!r}; there are some of {', '.join(regions)}. "
        f"`ticketsmith prices refresh --region {region}` asks Azure; `{here[0].machine}=0.53` is a price of your own."
    )
