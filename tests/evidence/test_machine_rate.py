"""The price of a benchmark's machine in its document: added without breaking older ones."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from ticketsmith.errors import TicketSmithError
from ticketsmith.evidence.serving import from_json, to_json
from ticketsmith.prices import Rate

from .synthetic import benchmark, experiment

BENCHMARK = benchmark(experiment(seeds=1, levels=1))
RATE = Rate("server", 0.5, "EUR", gpus=1, source="a list", dated="2026-08-20", on_demand=0.7)


@pytest.mark.parametrize("rate", [None, RATE, replace(RATE, on_demand=None, spot=True)])
def test_what_is_written_is_read(rate: Rate | None) -> None:
    known = replace(BENCHMARK, machine_rate=rate)
    assert from_json(json.loads(json.dumps(to_json(known)))) == known


def test_a_document_without_a_price_is_an_older_one() -> None:
    document = json.loads(json.dumps(to_json(BENCHMARK)))
    assert document.pop("machine_rate") is None
    assert from_json({**document, "format": 1}).machine_rate is None


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"per_hour": "0.5"}, "`machine_rate.per_hour` should be a valid number"),
        ({"per_hour": -1.0}, "`machine_rate.per_hour` should be greater"),
        ({"spot": 1}, "`machine_rate.spot` should be a valid boolean"),
        ({"gpus": True}, "`machine_rate.gpus` should be a valid integer"),
        ({"on_demand": "x"}, "`machine_rate.on_demand`"),
        ({"cheap": 1}, "`machine_rate.cheap` is unknown"),
    ],
)
def test_another_price_is_refused_by_field(change: dict[str, Any], named: str) -> None:
    document = json.loads(json.dumps(to_json(replace(BENCHMARK, machine_rate=RATE))))
    document["machine_rate"].update(change)
    with pytest.raises(TicketSmithError, match=named):
        from_json(document)
