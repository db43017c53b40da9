"""Money beside seconds and arithmetic, what a cluster billed, and when it pays for itself: the sums by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from ticketsmith.evidence.billing import cluster_bill, pod_from_json
from ticketsmith.evidence.cost import cost, spend
from ticketsmith.evidence.findings import Findings, conclude
from ticketsmith.evidence.payback import Payback, paybacks
from ticketsmith.evidence.results import Result
from ticketsmith.evidence.scorecard import Scorecard, scorecard
from ticketsmith.evidence.serving import Benchmark, Timing
from ticketsmith.evidence.speed import speeds
from ticketsmith.evidence.verdicts import Gate, GatePolicy
from ticketsmith.prices import Rate
from ticketsmith.report.sentences.bottom_line import best_kind, bottom_line, cluster_line, notes

from .synthetic import experiment, pod, priced, result

POLICY = GatePolicy((Gate("accuracy", max_drop=2.0),), method="point")


def runs_of(levels: int = 2, seconds: float = 100.0, **bill: Any) -> list[Result]:
    """Dense and a ticket of some levels, one seed, 100 s each; at 3.6 an hour a run costs 0.1."""
    runs = [result("dense", 0, 0, 99.0, seconds=seconds)]
    runs += [result("ticket", level, 0, 99.0, seconds=seconds) for level in range(1, levels + 1)]
    return priced(runs, **bill)


def timing(variant: str, level: int, speedup: float, spread: float = 0.0, **changes: Any) -> Timing:
    values: dict[str, Any] = {
        "variant": variant, "level": level, "seed": 0, "key": f"{variant}{level}", "sparsity": 0.5, "runtime": "torch",
        "batch_size": 1, "threads": 1, "rounds": 30, "median_ms": 1.0 / speedup, "p10_ms": 1.0, "p90_ms": 1.0,
        "speedup": speedup, "speedup_low": speedup - spread, "speedup_high": speedup + spread,
        "max_error": 0.0,
    }  # fmt: skip
    values |= changes
    return Timing(throughput=1000.0 * values["batch_size"] / values["median_ms"], **values)


def measured(*timings: Timing, rate: Rate | None = None, device: str = "cpu", **machine: str) -> Benchmark:
    """Dense takes 1 ms a call at batch size 1."""
    return Benchmark(machine, "torch", device, 0.95, (timing("dense", 0, 1.0), *timings), machine_rate=rate)


def card_of(benchmark: Benchmark, *levels: int) -> Scorecard:
    return scorecard(benchmark, speeds(benchmark), "ticket", passing={"ticket": frozenset(levels)})


def one(runs: list[Result], benchmark: Benchmark, level: int = 2) -> Payback:
    (payback,) = paybacks(cost(runs, level), card_of(benchmark, level))
    return payback


# --- what was spent -------------------------------------------------------------------------------------------------


def test_money_is_added_and_idle_tails_stand_apart() -> None:
    bill = cost(runs_of(idle_seconds=60.0, idle_price=0.06, gpu_seconds=50.0), last_level=1)
    assert bill.finding.price == pytest.approx(0.2)
    assert bill.finding.idle_price == pytest.approx(0.12)
    assert bill.finding.money == pytest.approx(0.32)
    assert (bill.total.runs, bill.total.unpriced, bill.total.currency) == (3, 0, "USD")
    assert (bill.total.gpu_seconds, bill.total.idle_seconds) == (150.0, 180.0)
    assert bill.dense.money == pytest.approx(0.16)
    assert [machine.per_hour for machine in bill.machines] == [3.6]


def test_runs_side_by_side_take_their_part_of_the_machine() -> None:
    spent = spend(runs_of(side_by_side=2))
    assert (spent.seconds, spent.machine_seconds) == (300.0, 150.0)
    assert spend([replace(run, bill=None) for run in runs_of()]).machine_seconds == 300.0


def test_a_run_that_two_variants_share_is_paid_for_once() -> None:
    runs = runs_of(levels=0)
    assert spend([*runs, *runs]).price == pytest.approx(0.1)


def test_unpriced_runs_are_counted_and_the_rest_is_told_in_time() -> None:
    dense, ticket, other = runs_of()
    bill = cost([dense, ticket, replace(other, bill=None)], None)
    assert bill.total.price == pytest.approx(0.2)
    assert (bill.total.unpriced, bill.total.priced) == (1, False)
    assert best_kind(bill.total) == "time"
    assert best_kind(bill.dense) == "money"
    assert best_kind(spend([replace(ticket, bill=None, seconds=None)])) == "arithmetic"


def test_several_currencies_are_never_added() -> None:
    runs = [*runs_of(levels=0), *priced([result("ticket", 1, 0, 99.0)], currency="EUR")]
    spent = spend(runs)
    assert (spent.price, spent.money, spent.currencies, spent.currency) == (None, None, ("EUR", "USD"), "")
    assert best_kind(spent) == "time"
    findings = conclude("mixed", runs, POLICY)
    assert any("EUR and USD" in note for note in notes(findings))
    assert "$" not in bottom_line(findings)


# --- when it pays ---------------------------------------------------------------------------------------------------


def test_it_pays_after_what_it_cost_beyond_dense_over_what_a_request_saves() -> None:
    """Three runs at 0.1 each; 1 ms a request becomes 0.5 ms; an hour of serving costs 7.2, so a request saves 1e-6."""
    found = one(runs_of(), measured(timing("ticket", 2, 2.0), rate=Rate("server", 7.2)))
    assert (found.outcome, found.currency, found.machine) == ("pays", "USD", "server")
    assert (found.extra, found.finding) == (pytest.approx(0.2), pytest.approx(0.3))
    assert found.requests is not None
    assert found.requests_with_dense is not None
    assert found.requests.middle == pytest.approx(200_000)
    assert found.requests_with_dense.middle == pytest.approx(300_000)


def test_its_interval_is_that_of_the_speedup() -> None:
    found = one(runs_of(), measured(timing("ticket", 2, 2.0, speedup_low=1.25, speedup_high=4.0), rate=Rate("s", 7.2)))
    assert found.requests is not None
    saved = 7.2 / 3600 * 1e-3
    assert found.requests.low == pytest.approx(0.2 / (saved * 0.75))
    assert found.requests.high == pytest.approx(0.2 / (saved * 0.2))


@pytest.mark.parametrize(
    ("speedup", "spread", "outcome"), [(0.8, 0.1, "never"), (1.02, 0.05, "unclear"), (0.99, 0.02, "unclear")]
)
def test_what_is_not_surely_faster_never_pays(speedup: float, spread: float, outcome: str) -> None:
    benchmark = measured(timing("ticket", 2, speedup, spread), rate=Rate("s", 7.2))
    found = one(runs_of(), benchmark)
    assert (found.outcome, found.requests) == (outcome, None)
    text = bottom_line(conclude("n", runs_of(), POLICY, benchmark=benchmark))
    assert ("it never pays for itself: it is slower" in text) == (outcome == "never")
    assert ("it is not shown to pay for itself: " in text) == (outcome == "unclear")


def test_without_prices_the_machines_time_is_reckoned_since_the_price_cancels() -> None:
    plain = [replace(run, bill=None) for run in runs_of()]
    found = one(plain, measured(timing("ticket", 2, 2.0)))
    assert (found.currency, found.extra) == ("", pytest.approx(200.0))
    assert found.requests is not None
    assert found.requests.middle == pytest.approx(200.0 / 0.5e-3)
    same = one(runs_of(), measured(timing("ticket", 2, 2.0), rate=Rate("the same", 3.6)))
    assert same.requests is not None
    assert same.requests.middle == pytest.approx(found.requests.middle), "one price for both cancels"


def test_a_machine_with_several_cores_serves_several_requests_at_once() -> None:
    """Trained two side by side on two cores, served two side by side: as if it were one core for both."""
    two = one(runs_of(side_by_side=2), measured(timing("ticket", 2, 2.0), cores="2"))
    one_core = one(runs_of(), measured(timing("ticket", 2, 2.0), cores="1"))
    assert two.requests == one_core.requests
    assert one(runs_of(), measured(timing("ticket", 2, 2.0), cores="8", device="cuda")).streams == 1
    threads = Benchmark(
        {"cores": "8"}, "torch", "cpu", 0.95, (timing("dense", 0, 1.0, threads=4), timing("ticket", 2, 2.0, threads=4))
    )
    assert one(runs_of(), threads).streams == 2


def test_a_batch_is_so_many_requests() -> None:
    batch = [timing("dense", 0, 1.0, batch_size=10), timing("ticket", 2, 2.0, batch_size=10)]
    card = card_of(measured(timing("ticket", 2, 2.0), *batch), 2)
    first, second = paybacks(cost(runs_of(), 2), card)
    assert (first.batch_size, second.batch_size) == (1, 10)
    assert second.dense_seconds == pytest.approx(1e-4)
    assert first.requests is not None
    assert second.requests is not None
    assert second.requests.middle == pytest.approx(10 * first.requests.middle)


def test_dense_may_use_a_faster_runtime_too() -> None:
    """Comparing the ticket's best runtime with dense's worst would credit pruning with the runtime."""
    faster = timing("dense", 0, 1.6, runtime="csr")
    found = one(runs_of(), measured(timing("ticket", 2, 2.0, runtime="csr"), faster))
    assert found.speedup == pytest.approx(1.25)
    assert found.dense_seconds == pytest.approx(1e-3 / 1.6)
    perhaps = timing("dense", 0, 1.6, 0.7, runtime="csr")
    assert one(runs_of(), measured(timing("ticket", 2, 2.0), perhaps)).speedup == 2.0


def test_what_cannot_be_compared_is_said() -> None:
    ticket = timing("ticket", 2, 2.0)
    gpu = one(runs_of(device="cuda", price=None), measured(ticket))
    assert (gpu.requests, gpu.outcome) == (None, "pays")
    assert gpu.obstacle == "devices"
    euro = one(runs_of(), measured(ticket, rate=Rate("s", 7.2, "EUR")))
    assert euro.obstacle == "currencies"
    untimed = [replace(run, bill=None, seconds=None) for run in runs_of()]
    assert one(untimed, measured(ticket)).obstacle == "times"
    text = bottom_line(conclude("n", runs_of(device="cuda", price=None), POLICY, benchmark=measured(ticket)))
    assert "cannot be said: it was trained on a GPU and measured on a CPU, and what an hour of both costs" in text
    text = bottom_line(conclude("n", runs_of(), POLICY, benchmark=measured(ticket, rate=Rate("s", 7.2, "EUR"))))
    assert "cannot be said: training is priced in USD and serving in EUR, which cannot be compared." in text


def test_the_unit_is_the_tasks_own() -> None:
    found = one(runs_of(), replace(measured(timing("ticket", 2, 2.0)), unit="image"))
    assert found.unit == "images"


def test_no_benchmark_or_no_sweet_spot_is_no_payback() -> None:
    benchmark = measured(timing("ticket", 2, 2.0))
    assert paybacks(cost(runs_of(), 2), None) == []
    assert paybacks(cost(runs_of(), None), card_of(benchmark)) == []
    assert paybacks(cost(runs_of(), 1), card_of(benchmark, 1)) == []


# --- the words ------------------------------------------------------------------------------------------------------


def found_of(runs: list[Result], benchmark: Benchmark | None = None, **how: Any) -> Findings:
    return conclude("name", runs, POLICY, benchmark=benchmark, **how)


def test_the_bottom_line() -> None:
    text = bottom_line(found_of(runs_of(), measured(timing("ticket", 2, 2.0), rate=Rate("server", 7.2))))
    assert text == (
        "Finding the ticket cost $0.30 (dense alone: $0.10). At the measured 500 \u00b5s per request, against 1.0 ms for "
        "dense on PyTorch, it has paid for itself after 200,000 requests served on server at $7.20 an hour (95 % interval "
        "200,000 to 200,000). That earns back what it cost beyond training dense; with dense training too, 300,000."
    )


def test_the_bottom_line_without_prices_or_a_benchmark() -> None:
    plain = [replace(run, bill=None) for run in runs_of()]
    assert bottom_line(found_of(plain)) == (
        "Finding the ticket took 5 min of compute (dense alone: 1 min 40 s). Inference was not measured, so nothing can be "
        "said of when that pays for itself."
    )
    text = bottom_line(found_of(plain, measured(timing("ticket", 2, 2.0))))
    assert "after 400,000 requests, served on the machine that trained it" in text


def test_the_bottom_line_of_a_search_that_found_nothing() -> None:
    runs = priced([result("dense", 0, 0, 99.0), result("ticket", 1, 0, 50.0)])
    assert bottom_line(found_of(runs)).startswith("The search cost $0.0060 (dense alone: $0.0030). No level passed")


def test_a_larger_batch_may_pay_where_one_request_does_not() -> None:
    batch = [timing("dense", 0, 1.0, batch_size=32), timing("ticket", 2, 2.0, batch_size=32, runtime="csr")]
    text = bottom_line(found_of(runs_of(), measured(timing("ticket", 2, 0.5), *batch)))
    assert "never pays for itself: it is slower" in text
    assert "In batches of 32, on csr, it does, after " in text


def test_notes_name_the_prices_and_what_is_lacking() -> None:
    dense, ticket, other = runs_of(copied=True, spot=True)
    told = notes(found_of([dense, ticket, replace(other, bill=None)]))
    assert told[0] == "Standard_NC4as_T4_v3, spot: $3.60 an hour (a price list, dated 2026-08-20)."
    assert any("1 of 3 runs has no price" in note for note in told)
    assert any("2 runs were made for another experiment" in note for note in told)
    assert any("storage, network" in note for note in told)
    assert notes(found_of([replace(run, bill=None) for run in runs_of()])) == []


# --- what a cluster billed ------------------------------------------------------------------------------------------


def test_every_pod_is_billed_with_its_idle_tail() -> None:
    """1,000 s at 3.6 an hour are 1.0, and every ten minutes of idling 0.6."""
    runs = runs_of(levels=2)  # 300 s of work on the same machine
    pods = [
        pod("a", "dense", 400.0, gpu_utilisation=0.25),
        pod("b", "ticket", 200.0, exit=143, reason="Evicted", gpu_utilisation=None),
        pod("c", "ticket", 400.0, gpu_utilisation=0.75),
    ]
    bill = cluster_bill(pods, runs)
    assert bill is not None
    assert bill.price == pytest.approx(1.0 + 3 * 0.6)
    assert (bill.seconds, bill.idle_seconds, bill.idle_price) == (1000.0, 1800.0, pytest.approx(1.8))
    assert (bill.useful_seconds, bill.again, bill.failed.pods) == (300.0, 1, 1)
    assert bill.failed.price == pytest.approx(0.2)
    assert bill.reasons == {"Evicted": 1}
    assert bill.utilisation == pytest.approx(0.5)
    assert (bill.by_variant["ticket"].pods, bill.by_variant["ticket"].seconds) == (2, 600.0)
    text = cluster_line(found_of(runs, pods=pods))
    assert "billed $2.80: 3 pods took 16 min 40 s, of which the runs themselves were 30 %" in text
    assert "1 pod ended without success (1 Evicted), after 3 min 20 s, $0.20." in text


def test_runs_that_were_made_elsewhere_are_no_use_of_the_cluster() -> None:
    bill = cluster_bill([pod("a", "dense", 400.0)], [*runs_of(machine="my-laptop"), *runs_of(copied=True)])
    assert bill is not None
    assert bill.useful_seconds == 0.0


def test_a_pod_without_a_price_makes_the_bill_unknown_and_never_too_small() -> None:
    for other in (pod("b", "ticket", 1.0, price_per_hour=None), pod("b", "ticket", 1.0, currency="EUR")):
        bill = cluster_bill([pod("a", "dense", 400.0), other], [])
        assert bill is not None
        assert (bill.price, bill.failed.price, bill.seconds) == (None, None, 401.0)


def test_a_pod_that_runs_has_no_idle_tail_yet_and_has_not_failed() -> None:
    bill = cluster_bill(
        [pod("a", "dense", 100.0, exit=None, ended=False), pod("b", "dense", 50.0, index=1, exit=None)], []
    )
    assert bill is not None
    assert (bill.running, bill.failed.pods, bill.idle_seconds, bill.again) == (1, 1, 600.0, 0)


def test_no_pods_no_bill() -> None:
    assert cluster_bill([], runs_of()) is None
    assert cluster_line(found_of(runs_of())) == ""
    unread = found_of(runs_of(), unreadable_pods=2)
    assert unread.cluster is not None
    assert any("2 records of pods could not be read" in note for note in notes(unread))


def test_a_record_of_a_pod_is_read_as_the_cluster_writes_it() -> None:
    record = {
        "pod": "ts-ticket-0-abcde", "job": "ts-ticket", "index": 0, "variant": "ticket", "seconds": 12.5,
        "gpu_seconds": 12.5, "gpu_utilisation": None, "machine": "Standard_NC4as_T4_v3", "price_per_hour": 0.526,
        "currency": "USD", "gpus": 1, "spot": True, "idle_tail_seconds": 600.0, "exit": None, "reason": "",
        "ended": False, "of a later version": 1,
    }  # fmt: skip
    read = pod_from_json(record)
    assert (read.pod, read.seconds, read.exit, read.ended, read.spot) == ("ts-ticket-0-abcde", 12.5, None, False, True)
    assert read.price == pytest.approx(12.5 * 0.526 / 3600)


@pytest.mark.parametrize(
    "change",
    [
        {"seconds": "1"},
        {"seconds": -1},
        {"seconds": math.nan},
        {"price_per_hour": math.inf},
        {"variant": 3},
        {"seconds": None},
    ],
)
def test_what_is_no_record_is_refused(change: dict[str, Any]) -> None:
    record = {"pod": "a", "job": "j", "variant": "dense", "seconds": 1.0}
    assert pod_from_json(record).seconds == 1.0
    with pytest.raises((ValueError, TypeError)):
        pod_from_json({**record, **change})


def test_prices_change_no_verdict() -> None:
    runs = experiment(seeds=2, levels=3)
    plain, money = conclude("n", runs, POLICY), conclude("n", priced(runs), POLICY)
    assert (plain.validation, plain.test, plain.sweet_spot) == (money.validation, money.test, money.sweet_spot)
