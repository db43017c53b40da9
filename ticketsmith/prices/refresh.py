"""Writes prices that were asked for into the user's price file; what the user wrote there by hand is kept."""

from __future__ import annotations

import datetime
import os
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import yaml

from ticketsmith.errors import RecipeError, disk_error
from ticketsmith.prices.table import Document, Price, PriceList, parse

SOURCE = "Azure Retail Prices API"

_HEADER = """\
# Prices that go before the table that comes with TicketSmith; docs/costs.md tells the format.
# `ticketsmith prices refresh` replaces the lists whose source is "Azure Retail Prices API" and keeps all others;
# comments are lost.
"""


def write(
    place: Path, region: str, prices: Mapping[str, Price], machines: Collection[str], today: datetime.date
) -> None:
    """Puts the prices of ``region`` into the file at ``place``, with date and source; the rest of it stays.

    ``machines``: all that were asked for; the file forgets a fetched price of one that is no longer sold. What
    the user set for a machine by hand stays in force. The file appears whole or not at all. Raises RecipeError when the
    file that is there is no price file, StoreError when it cannot be written.
    """
    document = _read(place)
    fetched = [_without(one, region, machines) for one in document.prices if one.source == SOURCE]
    fresh = PriceList(region=region, dated=today.isoformat(), source=SOURCE, machines=dict(prices))
    by_hand = [one for one in document.prices if one.source != SOURCE]
    lists = [*fetched, fresh, *by_hand]  # the later wins
    plain = document.model_dump(exclude_defaults=True)
    plain["prices"] = [_plain(one) for one in lists if one.machines]
    text = _HEADER + yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=120)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        handle, aside = tempfile.mkstemp(prefix=f".{place.name}.", dir=place.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            os.chmod(aside, 0o644)
            os.replace(aside, place)
        except BaseException:
            Path(aside).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise disk_error(error, place) from error


def _read(place: Path) -> Document:
    try:
        return parse(place.read_text(encoding="utf-8"), str(place))
    except FileNotFoundError:
        return Document()
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{place}: cannot be read, so nothing was written: {error}") from error


def _without(prices: PriceList, region: str, machines: Collection[str]) -> PriceList:
    if prices.region != region:
        return prices
    return prices.model_copy(
        update={"machines": {n: price for n, price in prices.machines.items() if n not in machines}}
    )


def _plain(prices: PriceList) -> dict[str, Any]:
    machines = {
        name: price.on_demand if price.spot is None else price.model_dump() for name, price in prices.machines.items()
    }
    return {**prices.model_dump(exclude_defaults=True, exclude={"machines"}), "machines": machines}
