"""What one run took and cost, checked by hand."""

from __future__ import annotations

import json

import pytest

from ticketsmith.prices.ledger import cost_path, cost_paths, parse_cost, run_cost
from ticketsmith.prices.rate import Rate

T4 = Rate("T4", 3.6, gpus=1, idle_tail=600.0, source="a list", dated="2026-08-20")
RUN = "exp/ticket/seed-0/level-01-0123abcd"


def test_a_run_on_a_gpu() -> None:
    cost = run_cost("key", RUN, 100.0, "cuda", T4)
    assert (cost["seconds"], cost["gpu_seconds"], cost["price"]) == (100.0, 100.0, pytest.approx(0.1))
    assert (cost["idle_tail_seconds"], cost["idle_tail_price"]) == (600.0, pytest.approx(0.6))
    assert (cost["machine"], cost["price_per_hour"], cost["currency"], cost["spot"]) == ("T4", 3.6, "USD", False)
    assert (cost["source"], cost["dated"]) == ("a list", "2026-08-20")


def test_runs_side_by_side_share_the_machine() -> None:
    four = Rate("NC64as", 36.0, gpus=4)
    costs = [run_cost("key", RUN, 100.0, "cuda", four, side_by_side=2) for _ in range(2)]
    assert sum(cost["price"] for cost in costs) == pytest.approx(four.price(100.0))
    assert sum(cost["gpu_seconds"] for cost in costs) == 400.0
    assert all(cost["seconds"] == 100.0 for cost in costs)


def test_without_a_rate_money_is_null_and_time_is_not() -> None:
    cost = run_cost("key", RUN, 12.3456, "cpu")
    assert (cost["seconds"], cost["gpu_seconds"]) == (12.346, 0.0)
    unknown = {"machine", "price_per_hour", "currency", "spot", "price", "idle_tail_seconds", "idle_tail_price"}
    assert {name for name, value in cost.items() if value is None} == unknown | {"source", "dated"}
    assert run_cost("key", RUN, 1.0, "cuda")["gpu_seconds"] == 1.0, "a CUDA run uses one GPU at least"


def test_a_cpu_run_on_a_machine_with_gpus_has_no_gpu_seconds() -> None:
    assert run_cost("key", RUN, 10.0, "cpu", T4)["gpu_seconds"] == 0.0


def test_the_document_is_read_from_its_new_and_its_old_place() -> None:
    assert cost_path(RUN) == "exp/ledger/ticket/seed-0/level-01-0123abcd/cost.json"
    assert cost_paths(RUN, "key") == (cost_path(RUN), "exp/ledger/key.json")
    new, old = run_cost("key", RUN, 2.0, "cpu"), {"key": "key", "seconds": 1.0}
    for document in (new, old):
        assert parse_cost(json.dumps(document).encode(), "key") == document


@pytest.mark.parametrize("content", [None, b"", b"[1]", b"{}", b'{"key": "another"}', b"\xff\xfe"])
def test_what_cannot_be_read_is_none(content: bytes | None) -> None:
    assert parse_cost(content, "key") is None
