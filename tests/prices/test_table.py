"""The price of a machine: from the table, from the user's own file, given by hand; what is unknown is told."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from ticketsmith.errors import RecipeError
from ticketsmith.prices import lookup, table
from ticketsmith.prices.rate import Rate

T4 = "Standard_NC4as_T4_v3"


def test_every_price_names_its_source_and_its_date() -> None:
    entries = table.entries()
    assert {entry.machine for entry in entries} == set(table.shipped().machines)
    assert all(entry.source and entry.dated for entry in [*entries, *table.services()])
    for entry in entries:
        remembered = "as remembered" in entry.source
        assert remembered == (entry.dated == "unknown"), entry
        if entry.dated[:4].isdigit():
            assert datetime.date.fromisoformat(entry.dated) < datetime.datetime.now(datetime.UTC).date()


def test_a_machine_has_one_price_a_region_and_spot_is_never_dearer() -> None:
    entries = table.entries()
    assert len({(entry.machine, entry.region) for entry in entries}) == len(entries)
    assert all(entry.price.spot is None or entry.price.spot <= entry.price.on_demand for entry in entries)


def test_more_gpus_cost_more() -> None:
    """Two and four of one kind cost two and four times as much in every region: a mistyped row would show."""
    for one, more, times in (
        ("Standard_NC24ads_A100_v4", "Standard_NC96ads_A100_v4", 4),
        ("Standard_NC40ads_H100_v5", "Standard_NC80adis_H100_v5", 2),
    ):
        prices = {e.region: e.price.on_demand for e in table.entries() if e.machine == one}
        for entry in (e for e in table.entries() if e.machine == more):
            assert entry.price.on_demand == pytest.approx(times * prices[entry.region], rel=2e-3), entry.region


def test_a_size_without_a_region_is_that_of_eastus() -> None:
    rate = lookup(T4)
    assert (rate.machine, rate.per_hour, rate.currency, rate.gpus, rate.spot) == (T4, 0.526, "USD", 1, False)
    assert "eastus" in rate.source
    assert rate.dated


@pytest.mark.parametrize("text", [f"{T4}@westeurope", "standard_nc4as_t4_v3@westeurope"])
def test_a_region_may_be_part_of_the_name(text: str) -> None:
    assert lookup(text) == lookup(T4, "westeurope")
    assert lookup(text).per_hour == 0.658


def test_spot_is_the_dated_price_and_its_ceiling_the_one_on_demand() -> None:
    rate = lookup(T4, "westeurope", spot=True)
    assert (rate.per_hour, rate.ceiling_per_hour, rate.spot) == (0.457113, 0.658, True)
    unknown = lookup(T4, "eastus", spot=True)
    assert (unknown.per_hour, unknown.ceiling_per_hour) == (0.526, 0.526)
    assert "no spot price is known" in unknown.source


def test_a_rate_by_itself_is_its_own_ceiling() -> None:
    rate = Rate("mine", 2.0)
    assert (rate.ceiling_per_hour, rate.price(1800.0)) == (2.0, 1.0)


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("my-laptop=0.10", ("my-laptop", 0.10, "USD", 0)),
        ("0.526", ("this machine", 0.526, "USD", 0)),
        ("my server = 1.2 EUR", ("my server", 1.2, "EUR", 0)),
        (f"{T4}=0.40", (T4, 0.40, "USD", 1)),
        ("free=0", ("free", 0.0, "USD", 0)),
    ],
)
def test_a_price_by_hand(text: str, rate: tuple[str, float, str, int]) -> None:
    found = lookup(text)
    assert (found.machine, found.per_hour, found.currency, found.gpus) == rate
    assert found.source == "given by hand"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("Standard_NC4as_T4", f"Did you mean '{T4}'"),
        ("warp-drive", r"prices list.*warp-drive=0.53"),
        ("mine=cheap", "after `=` comes the price of an hour"),
        ("mine=-1", "after `=` comes the price of an hour"),
        ("mine=1e999", "is a number"),
        ("mine=1.2.3", "is a number"),
        (f"{T4}@mars", "in the region 'mars'; there are some of .*eastus.* --region mars"),
        ("", "no price is known of the machine ''"),
    ],
)
def test_what_is_no_price_is_told(text: str, told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        lookup(text)


def test_the_users_own_prices_win(price_file: Path) -> None:
    price_file.parent.mkdir(parents=True)
    price_file.write_text(
        "machines:\n  my-server: {gpus: 2, gpu: L40}\n"
        "prices:\n"
        "  - machines: {my-server: 1.5}\n"
        "    currency: EUR\n    dated: 2026-11-01\n    source: our contract\n"
        f"  - region: westeurope\n    machines: {{{T4}: {{on_demand: 0.5, spot: 0.2}}}}\n"
    )
    mine = lookup("my-server", "anywhere-at-all")
    assert (mine.per_hour, mine.currency, mine.gpus, mine.dated) == (1.5, "EUR", 2, "2026-11-01")
    assert lookup(T4, "westeurope", spot=True).per_hour == 0.2
    assert lookup(T4, "eastus").per_hour == 0.526
    assert lookup(T4).per_hour == 0.5, "without a region, an own price goes first"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("prices: [", "is no YAML"),
        ("prices: 3", "prices: "),
        ("prices: [{machines: {a: -1}}]", r"prices\.0\.machines\.a"),
        ("prices: [{machines: {a: .nan}}]", r"prices\.0\.machines\.a"),
        ("prices: [{machines: {a: 1}, curency: EUR}]", r"prices\.0\.curency"),
        ("prices: [{machines: {a: 1}, currency: euro}]", r"prices\.0\.currency"),
    ],
)
def test_a_wrong_price_file_is_told_by_field(price_file: Path, text: str, told: str) -> None:
    price_file.parent.mkdir(parents=True)
    price_file.write_text(text)
    with pytest.raises(RecipeError, match=rf"prices\.yaml: .*{told}"):
        lookup(T4)


def test_a_file_that_was_named_must_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKETSMITH_PRICES", str(tmp_path / "absent.yaml"))
    with pytest.raises(RecipeError, match=r"absent\.yaml: no such file"):
        lookup(T4)
    assert lookup("0.3").per_hour == 0.3, "what was given by hand needs no file"
