"""A private place for the user's price file, and a small server that answers as Azure's price interface does."""

from __future__ import annotations

import json
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

Answer = Callable[[BaseHTTPRequestHandler, str], None]


@pytest.fixture(autouse=True)
def price_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this test's own prices lie; there is no file yet."""
    monkeypatch.delenv("TICKETSMITH_PRICES", raising=False)
    monkeypatch.delenv("TICKETSMITH_PRICES_URL", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config/ticketsmith/prices.yaml"


def item(sku: str, price: float, **changes: Any) -> dict[str, Any]:
    """One entry of an answer, with all fields that the documentation shows."""
    return {
        "currencyCode": "USD",
        "tierMinimumUnits": 0.0,
        "retailPrice": price,
        "unitPrice": price,
        "armRegionName": "eastus",
        "location": "US East",
        "effectiveStartDate": "2023-08-01T00:00:00Z",
        "meterId": "000a794b-bdb0-58be-a0cd-0c3a0f222923",
        "meterName": sku.removeprefix("Standard_").replace("_", " "),
        "productId": "DZH318Z0BQ4L",
        "skuId": "DZH318Z0BQ4L/00TG",
        "productName": "Virtual Machines Some Series",
        "skuName": sku.removeprefix("Standard_").replace("_", " "),
        "serviceName": "Virtual Machines",
        "serviceId": "DZH313Z7MMC8",
        "serviceFamily": "Compute",
        "unitOfMeasure": "1 Hour",
        "type": "Consumption",
        "isPrimaryMeterRegion": True,
        "armSkuName": sku,
        **changes,
    }


def page(items: list[dict[str, Any]], following: str | None = None) -> bytes:
    """A page as the interface sends it."""
    document = {
        "BillingCurrency": "USD",
        "CustomerEntityId": "Default",
        "CustomerEntityType": "Retail",
        "Items": items,
        "NextPageLink": following,
        "Count": len(items),
    }
    return json.dumps(document).encode()


class Azure:
    """The server. ``answers`` are used up one a request, then ``usual`` answers; ``asked`` are the filters that came."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.sold: list[dict[str, Any]] = []
        self.asked: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
                wanted = query["$filter"][0]
                outer.asked.append(wanted)
                answer = outer.answers.pop(0) if outer.answers else outer.usual
                answer(self, wanted)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/api/retail/prices"

    def usual(self, request: BaseHTTPRequestHandler, wanted: str) -> None:
        """What is sold under the names of the filter: region and size only, as loose as the interface is."""
        terms = dict(term.split(" eq ") for term in wanted.split(" and "))
        found = [
            entry
            for entry in self.sold
            if (f"'{entry['armSkuName']}'", f"'{entry['armRegionName']}'")
            == (terms["armSkuName"], terms["armRegionName"])
        ]
        send(request, page(found))


def send(
    request: BaseHTTPRequestHandler, body: bytes, status: int = 200, length: int | None = None, **headers: str
) -> None:
    """An answer; ``length`` larger than the body is a connection that breaks off."""
    request.send_response(status)
    for name, value in headers.items():
        request.send_header(name.replace("_", "-"), value)
    request.send_header("Content-Length", str(len(body) if length is None else length))
    request.end_headers()
    request.wfile.write(body)
    request.close_connection = True


@pytest.fixture
def azure() -> Iterator[Azure]:
    fake = Azure()
    thread = threading.Thread(target=fake.server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield fake
    fake.server.shutdown()
    thread.join()
    fake.server.server_close()
