"""Azure's public retail prices: asks for the machines of one region, reads the answer, and trusts none of it.

The interface is documented at learn.microsoft.com/rest/api/cost-management/retail-prices/azure-retail-prices. It needs
no account. One question a machine size: ``armSkuName`` is the only name of a size that is written the same everywhere.
"""

from __future__ import annotations

import datetime
import json
import math
import os
import re
import urllib.parse
import urllib.request
from collections.abc import Iterable, Mapping
from typing import Any

from ticketsmith.errors import Exit, TicketSmithError
from ticketsmith.prices.table import Price
from ticketsmith.web import AgainError, Patience, RefusedError, faults, patiently

VARIABLE = "TICKETSMITH_PRICES_URL"
ADDRESS = "https://prices.azure.com/api/retail/prices"

_LARGEST_ANSWER = 16 << 20  # bytes; a page of a thousand items has less than one MiB
_MOST_PAGES = 100
# Sold under the same size, and no Linux machine of one's own ("... Series Windows", "... Srs Win", "... CloudServices").
_OTHER_PRODUCT = re.compile(r"windows|\bwin$|cloud ?services|dedicated ?host", re.IGNORECASE)


class PriceError(TicketSmithError):
    """Azure's prices could not be had; what was there before stays."""

    exit_status = Exit.INCOMPLETE


def ask(
    machines: Iterable[str],
    region: str,
    address: str | None = None,
    patience: Patience | None = None,
    today: datetime.date | None = None,
) -> dict[str, Price]:
    """The prices of those machines that are sold in ``region``.

    ``address``: the interface, by default ``$TICKETSMITH_PRICES_URL``, else Azure's. Raises PriceError when it cannot be
    reached, breaks off, or answers with something that is no price list.
    """
    base = address or os.environ.get(VARIABLE) or ADDRESS
    if urllib.parse.urlsplit(base).scheme not in ("http", "https"):
        raise PriceError(f"{base}: only http and https addresses can be asked for prices; check ${VARIABLE}.")
    prices = {}
    for machine in machines:
        items = _items(base, _filter(machine, region), patience or Patience())
        price = choose(items, machine, region, today or datetime.datetime.now(datetime.UTC).date())
        if price is not None:
            prices[machine] = price
    return prices


def choose(items: Iterable[Mapping[str, Any]], machine: str, region: str, today: datetime.date) -> Price | None:
    """The price of ``machine`` among the ``items`` of an answer; None when it is not sold there.

    Where several meters are left that cannot be told apart, the dearest is taken: a ceiling must not be too low.
    """
    on_demand: list[float] = []
    spot: list[float] = []
    for item in items:
        amount = _amount(item, machine, region, today)
        if amount is not None:
            (spot if _says(item, "spot", "skuName", "meterName") else on_demand).append(amount)
    if not on_demand:
        return None
    return Price(on_demand=max(on_demand), spot=max(spot) if spot else None)


def _amount(item: Mapping[str, Any], machine: str, region: str, today: datetime.date) -> float | None:
    """The item's price of an hour, in US dollars; None when it is about something else."""
    if (str(item.get("armSkuName")).lower(), item.get("armRegionName")) != (machine.lower(), region):
        return None
    if item.get("type", item.get("priceType")) != "Consumption" or item.get("unitOfMeasure") != "1 Hour":
        return None
    if item.get("currencyCode", "USD") != "USD" or item.get("tierMinimumUnits", 0) not in (0, 0.0):
        return None
    if _OTHER_PRODUCT.search(str(item.get("productName"))) or _says(item, "low priority", "skuName", "meterName"):
        return None
    if not _in_force(item, today):
        return None
    amount = item.get("retailPrice")
    if not isinstance(amount, int | float) or isinstance(amount, bool) or not math.isfinite(amount) or amount <= 0:
        return None
    return float(amount)


def _says(item: Mapping[str, Any], word: str, *fields: str) -> bool:
    return any(word in str(item.get(field, "")).lower() for field in fields)


def _in_force(item: Mapping[str, Any], today: datetime.date) -> bool:
    """Whether the item's dates hold today; announced prices stand beside those that they will replace."""
    begin, end = (_date(item.get(field)) for field in ("effectiveStartDate", "effectiveEndDate"))
    return (begin is None or begin <= today) and (end is None or today <= end)


def _date(value: object) -> datetime.date | None:
    try:
        return datetime.date.fromisoformat(str(value)[:10])
    except ValueError:
        return None


def _filter(machine: str, region: str) -> str:
    terms = {
        "serviceName": "Virtual Machines",
        "armRegionName": region,
        "armSkuName": machine,
        "priceType": "Consumption",
    }
    return " and ".join(f"{field} eq '{value.replace(chr(39), chr(39) * 2)}'" for field, value in terms.items())


def _items(base: str, query: str, patience: Patience) -> list[Mapping[str, Any]]:
    """All items, page after page."""
    address = f"{base}?{urllib.parse.urlencode({'$filter': query}, quote_via=urllib.parse.quote, safe='$')}"
    items: list[Mapping[str, Any]] = []
    addresses: set[str] = set()
    while address:
        if address in addresses or len(addresses) >= _MOST_PAGES:
            raise PriceError(f"{base}: its pages lead in a circle. No price was changed.")
        addresses.add(address)
        page = _page(address, base, patience)
        items += page["Items"]
        address = _next(page.get("NextPageLink"), base)
    return items


def _next(link: object, base: str) -> str:
    """The next page's address, empty when there is none. It must lie where the first one did."""
    if not link:
        return ""
    text = urllib.parse.quote(str(link), safe="%/:?=&$'(),@!*;+~#[]")
    if urllib.parse.urlsplit(text).hostname != urllib.parse.urlsplit(base).hostname:
        raise PriceError(f"{base}: the next page lies at another host ({link!r:.80}). No price was changed.")
    return text


def _page(address: str, base: str, patience: Patience) -> Mapping[str, Any]:
    try:
        content = patiently(lambda: _get(address, patience.timeout), patience)
    except AgainError as error:
        raise PriceError(
            f"{base}: {error}. No price was changed: the table that is there goes on to hold. `--url` names another address."
        ) from error
    except RefusedError as error:
        raise PriceError(f"{address}: {error}. No price was changed.") from error
    try:
        page = json.loads(content)
    except ValueError as error:
        raise PriceError(f"{base}: the answer is no JSON (a proxy's page?). No price was changed.") from error
    if not isinstance(page, dict) or not isinstance(page.get("Items"), list):
        raise PriceError(f"{base}: the answer has no list `Items`: it is no price list. No price was changed.")
    if not all(isinstance(item, dict) for item in page["Items"]):
        raise PriceError(f"{base}: `Items` holds something that is no item. No price was changed.")
    return page


def _get(address: str, timeout: float) -> bytes:
    request = urllib.request.Request(address, headers={"User-Agent": "ticketsmith", "Accept": "application/json"})
    with faults("it"), urllib.request.urlopen(request, timeout=timeout) as answer:
        content: bytes = answer.read(_LARGEST_ANSWER + 1)
        expected = answer.headers.get("Content-Length")
    if len(content) > _LARGEST_ANSWER:
        raise PriceError(f"{address}: the answer is larger than any price list. No price was changed.")
    if expected is not None and expected.isdigit() and len(content) < int(expected):
        raise AgainError("the connection broke off within the answer")
    return content
