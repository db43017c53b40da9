"""Asking Azure for prices: what is taken of an answer, and that nothing is lost when there is none."""

from __future__ import annotations

import datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from click.testing import CliRunner

from ticketsmith.cli.main import group
from ticketsmith.errors import RecipeError, TicketSmithError
from ticketsmith.prices import lookup, table
from ticketsmith.prices.refresh import SOURCE, write
from ticketsmith.prices.retail import Patience, PriceError, ask
from ticketsmith.prices.table import Price

from .conftest import Azure, item, page, send

T4, A100 = "Standard_NC4as_T4_v3", "Standard_NC24ads_A100_v4"
QUICK = Patience(timeout=5.0, tries=3, pause=0.0, longest=0.0)
TODAY = datetime.date(2026, 11, 23)


def test_linux_on_demand_and_spot_are_taken_and_nothing_else(azure: Azure) -> None:
    azure.sold = [
        item(T4, 0.55),
        item(T4, 0.11, skuName="NC4as T4 v3 Spot", meterName="NC4as T4 v3 Spot"),
        item(T4, 0.10, skuName="NC4as T4 v3 Low Priority", meterName="NC4as T4 v3 Low Priority"),
        item(T4, 0.79, productName="Virtual Machines NCasT4 v3 Series Windows"),
        item(T4, 0.79, productName="Virtual Machines NCasT4 Srs Win"),
        item(T4, 0.99, productName="Dasv5 Series Cloud Services"),
        item(T4, 0.99, productName="Easv5 Series CloudServices"),
        item(T4, 9.99, productName="Dasv5 Series Dedicated Host"),
        item(T4, 900.0, type="Reservation", reservationTerm="1 Year", unitOfMeasure="1 Hour"),
        item(T4, 0.33, type="DevTestConsumption"),
        item(T4, 5.5, unitOfMeasure="10 Hours"),
        item(T4, 0.60, effectiveStartDate="2027-01-01T00:00:00Z"),
        item(T4, 0.70, effectiveEndDate="2024-01-01T00:00:00Z"),
        item(T4, 0.44, currencyCode="EUR"),
        item(T4, 0.0),
        item(T4, float("1e9"), armRegionName="westeurope"),
        item("Standard_NC4as_T4_v3_promo", 0.01),
    ]
    assert ask([T4], "eastus", azure.url, QUICK, today=TODAY) == {T4: Price(on_demand=0.55, spot=0.11)}


def test_the_question_is_the_documented_one(azure: Azure) -> None:
    ask([T4], "east'us", azure.url, QUICK)
    assert azure.asked == [
        "serviceName eq 'Virtual Machines' and armRegionName eq 'east''us' and "
        f"armSkuName eq '{T4}' and priceType eq 'Consumption'"
    ]


def test_meters_that_cannot_be_told_apart_count_as_the_dearest(azure: Azure) -> None:
    azure.sold = [item(T4, 0.5), item(T4, 0.6, isPrimaryMeterRegion=False)]
    assert ask([T4], "eastus", azure.url, QUICK)[T4].on_demand == 0.6


def test_all_pages_are_read(azure: Azure) -> None:
    link = f"{azure.url}?$filter=armSkuName eq '{T4}'&$skip=1"  # with spaces, as Azure writes it

    azure.answers = [
        lambda request, wanted: send(request, page([item(T4, 0.5, skuName="x Spot")], link)),
        lambda request, wanted: send(request, page([item(T4, 0.9)])),
    ]
    assert ask([T4], "eastus", azure.url, QUICK) == {T4: Price(on_demand=0.9, spot=0.5)}
    assert azure.asked[1] == f"armSkuName eq '{T4}'"


def test_pages_in_a_circle_or_elsewhere_are_refused(azure: Azure) -> None:
    def circle(request: BaseHTTPRequestHandler, wanted: str) -> None:
        send(request, page([], f"{azure.url}?$filter=again"))

    azure.answers = [circle] * 5
    with pytest.raises(PriceError, match="in a circle"):
        ask([T4], "eastus", azure.url, QUICK)
    azure.answers = [lambda request, wanted: send(request, page([], "http://169.254.169.254/latest"))]
    with pytest.raises(PriceError, match="another host"):
        ask([T4], "eastus", azure.url, QUICK)


def test_busy_and_broken_answers_are_asked_for_again(azure: Azure) -> None:
    azure.sold = [item(T4, 0.5)]
    azure.answers = [
        lambda request, wanted: send(request, b"slow down", 429, Retry_After="7"),
        lambda request, wanted: send(request, page([item(T4, 0.4)])[:100], length=5000),
    ]
    assert ask([T4], "eastus", azure.url, QUICK)[T4].on_demand == 0.5
    assert len(azure.asked) == 3


def test_it_waits_as_long_as_the_server_asks(azure: Azure, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr("ticketsmith.web.time.sleep", waits.append)
    azure.answers = [
        lambda request, wanted: send(request, b"", 429, Retry_After="7"),
        lambda request, wanted: send(request, b"", 503, Retry_After="Mon, 23 Nov 2026 10:00:00 GMT"),
        lambda request, wanted: send(request, b"", 500, Retry_After="9999"),
    ]
    ask([T4], "eastus", azure.url, Patience(tries=4))
    assert waits == [7.0, 2.0, 60.0]


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        (b"<html>proxy login</html>", 200, "no JSON"),
        (b"[]", 200, "no list `Items`"),
        (b'{"Items": {}}', 200, "no list `Items`"),
        (b'{"Items": ["cheap"]}', 200, "no item"),
        (b"", 200, "no JSON"),
        (b"busy", 503, r"answered 503 .*\(3 tries\)"),
        (b"bad filter", 400, "answered 400"),
        (b"\xff" * 10, 200, "no JSON"),
    ],
)
def test_nonsense_is_told_and_the_table_stays(
    azure: Azure, price_file: Path, body: bytes, status: int, told: str
) -> None:
    azure.answers = [lambda request, wanted: send(request, body, status)] * 3
    with pytest.raises(PriceError, match=rf"{told}.*No price was changed"):
        ask([T4], "eastus", azure.url, QUICK)
    assert not price_file.exists()
    assert lookup(T4).per_hour == 0.526


@pytest.mark.parametrize("price", ["NaN", "true", '"0.5"', "-1", "null"])
def test_a_price_that_is_no_price_is_not_taken(azure: Azure, price: str) -> None:
    body = page([item(T4, 0.125)]).replace(b'"retailPrice": 0.125', f'"retailPrice": {price}'.encode())
    azure.answers = [lambda request, wanted: send(request, body)]
    assert ask([T4], "eastus", azure.url, QUICK) == {}


def test_without_a_network_it_says_so() -> None:
    with pytest.raises(PriceError, match=r"no connection.*No price was changed.*--url"):
        ask([T4], "eastus", "http://127.0.0.1:9/api", QUICK)
    with pytest.raises(PriceError, match="only http and https"):
        ask([T4], "eastus", "file:///etc/passwd", QUICK)


def test_the_file_keeps_what_was_written_by_hand(price_file: Path) -> None:
    price_file.parent.mkdir(parents=True)
    price_file.write_text(f"prices:\n  - {{source: contract, region: eastus, machines: {{{T4}: 0.3, mine: 1}}}}\n")
    write(price_file, "eastus", {T4: Price(on_demand=0.5), A100: Price(on_demand=3.0, spot=1.0)}, [T4, A100], TODAY)
    write(price_file, "westeurope", {T4: Price(on_demand=0.7)}, [T4], TODAY)
    assert lookup(T4, "eastus").per_hour == 0.3, "by hand wins"
    assert lookup("mine", "eastus").per_hour == 1.0
    fetched = lookup(A100, "eastus", spot=True)
    assert (fetched.per_hour, fetched.ceiling_per_hour, fetched.dated) == (1.0, 3.0, "2026-11-23")
    assert fetched.source.startswith(SOURCE)
    write(price_file, "eastus", {T4: Price(on_demand=0.6)}, [T4], TODAY)
    assert lookup(A100, "eastus").per_hour == 3.0, "it was not asked for again"
    write(price_file, "eastus", {}, [A100], TODAY)
    assert lookup(A100, "eastus").per_hour == 3.673, "no longer sold: the shipped table is left"
    assert lookup(T4, "westeurope").per_hour == 0.7
    assert oct(price_file.stat().st_mode & 0o777) == "0o644"


def test_a_damaged_file_is_not_overwritten(price_file: Path) -> None:
    price_file.parent.mkdir(parents=True)
    price_file.write_text("prices: [mine: 1")
    with pytest.raises(RecipeError, match="is no YAML"):
        write(price_file, "eastus", {T4: Price(on_demand=0.5)}, [T4], TODAY)
    assert price_file.read_text() == "prices: [mine: 1"


def test_the_command_asks_writes_and_lists(azure: Azure, price_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKETSMITH_PRICES", str(price_file))  # named, and not there yet: refresh makes it
    azure.sold = [item(T4, 0.61), item(T4, 0.71, armRegionName="westeurope")]
    command = ["prices", "refresh", "--url", azure.url, "--machine", T4, "--machine", A100]
    done = CliRunner().invoke(group, [*command, "--region", "eastus", "--region", "westeurope"], catch_exceptions=False)
    assert (done.exit_code, len(azure.asked)) == (0, 4)
    assert f"not sold there: {A100}" in done.stderr
    assert (lookup(T4).per_hour, lookup(T4, "westeurope").per_hour) == (0.61, 0.71)
    listed = CliRunner().invoke(group, ["prices", "list", "--machine", "t4_v3", "--region", "westeurope"])
    assert "0.71 USD" in listed.stdout
    assert f"{T4} (own)" in listed.stdout
    assert SOURCE in listed.stdout


def test_a_region_that_azure_does_not_know(azure: Azure, price_file: Path) -> None:
    command = ["prices", "refresh", "--url", azure.url, "--machine", T4, "--region", "estus"]
    with pytest.raises(TicketSmithError, match="estus: none of these machines is sold there"):
        CliRunner().invoke(group, command, catch_exceptions=False)
    assert not price_file.exists()


def test_the_list_is_the_table(price_file: Path) -> None:
    import json

    done = CliRunner().invoke(group, ["prices", "list", "--json"], catch_exceptions=False)
    document = json.loads(done.stdout)
    assert len(document["machines"]) == len(table.entries())
    assert document["file"] == str(price_file)
    assert {"machine", "region", "on_demand", "spot", "dated", "source", "own"} <= document["machines"][0].keys()
    assert any("AKS control plane" in service["name"] for service in document["services"])
