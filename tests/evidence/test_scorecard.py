"""The serving scorecard: what is compared with what, what may be deployed, and what is said of it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from ticketsmith.evidence.findings import Findings, conclude
from ticketsmith.evidence.results import Result
from ticketsmith.evidence.scorecard import Group
from ticketsmith.evidence.serving import Benchmark, Refusal, Timing
from ticketsmith.evidence.speed import best, lead, rival, speeds
from ticketsmith.evidence.verdicts import Gate, GatePolicy
from ticketsmith.prices import Rate
from ticketsmith.report.scorecard import document, note, table
from ticketsmith.report.sentences.deployment import answer, break_even, reasons

from .synthetic import experiment, result, served

POLICY = GatePolicy((Gate("accuracy", max_drop=2.0),), method="point")
RATE = Rate("server", 7.2)


def runs(*accuracies: float, test: float | None = None) -> list[Result]:
    """Dense at 99 % and one level of the ticket for each accuracy, each half as dense as the one before."""
    levels = enumerate(accuracies, 1)
    tickets = [result("ticket", level, 0, value, density=0.5**level, test=test) for level, value in levels]
    return [result("dense", 0, 0, 99.0), *tickets]


def timing(level: int, speedup: float, runtime: str = "sparse", spread: float = 1.04, **changes: Any) -> Timing:
    """Dense takes 1 ms a call on the best dense runtime, ``onnxruntime``."""
    median = changes.get("median_ms", 1.0 / speedup)
    values: dict[str, Any] = {
        "variant": "ticket" if level else "dense", "level": level, "seed": 0, "key": f"key-{level}",
        "sparsity": 1 - 0.5**level, "runtime": runtime, "batch_size": 1, "threads": 1, "rounds": 30, "median_ms": median,
        "p10_ms": median, "p90_ms": median, "throughput": 1000 / (median or 1.0), "speedup": speedup,
        "speedup_low": speedup / spread, "speedup_high": speedup * spread, "max_error": 0.0, "against": "onnxruntime",
        "dense": runtime != "sparse",
    }  # fmt: skip
    return Timing(**{**values, **changes})


DENSE = timing(0, 1.0, "onnxruntime", 1.0)


def measured(*timings: Timing, **changes: Any) -> Benchmark:
    return replace(Benchmark({"cores": "2"}, "onnxruntime", "cpu", 0.95, (DENSE, *timings)), **changes)


def found(accuracies: list[Result], benchmark: Benchmark) -> Findings:
    return conclude("name", accuracies, POLICY, benchmark=benchmark)


def first(findings: Findings) -> Group:
    assert findings.scorecard is not None
    assert findings.scorecard.lead is not None
    return findings.scorecard.lead


# --- what is compared with what --------------------------------------------------------------------------------------


def test_every_cell_has_its_own_dense_rival_and_decoding_in_float32_leads() -> None:
    points = speeds(served(experiment(seeds=1, levels=3), phases=("prefill", "decode", "")))
    assert lead(points) == ("decode", "float32", 1, 1)
    for point in points:
        own = rival(points, point.cell)
        assert own is not None
        assert (own.runtime, own.variant, own.speedup) == ("onnxruntime", "dense", 1.0)
        assert point.median_ms == pytest.approx(own.median_ms / point.speedup)
    fastest = best(points, "ticket", 3)
    assert fastest is not None
    assert (fastest.cell, fastest.against) == (lead(points), "onnxruntime")


def test_an_older_document_is_against_its_best_dense_runtime_and_never_one_that_skips_zeros() -> None:
    old = {"against": "", "dense": True}
    dense = [timing(0, 1.0, "torch", 1.0, **old), timing(0, 3.0, "sparse", **old), timing(0, 2.0, "compiled", **old)]
    points = speeds(Benchmark({}, "torch", "cpu", 0.95, (*dense, timing(1, 6.0, "sparse", **old))))
    assert {point.against for point in points} == {"compiled"}
    ticket = best(points, "ticket", 1)
    assert ticket is not None
    assert ticket.speedup == pytest.approx(3.0)
    assert (ticket.low, ticket.high) == (pytest.approx(3.0 / 1.04**2), pytest.approx(3.0 * 1.04**2))
    assert {point.runtime for point in points if not point.dense} == {"sparse"}


def test_where_no_dense_runtime_ran_nothing_is_said_of_speed() -> None:
    """As `--runtime sparse` alone leaves it: every speed-up is 1, and means nothing."""
    alone: dict[str, Any] = {"against": "", "tolerance": 1e-4, "spread": 1.0}
    timings = (timing(0, 1.0, **alone), timing(1, 1.0, median_ms=0.2, **alone))
    findings = found(runs(99.0), Benchmark({}, "sparse", "cpu", 0.95, timings, reference_key="key-0"))
    assert answer(findings).startswith("Inference was measured without a dense runtime")
    assert (findings.paybacks, reasons(findings)) == ((), [])
    assert document(findings)["pays"] is None
    rounded = [replace(one, precision="int8") for one in timings]
    beside = found(runs(99.0), measured(timing(1, 2.0), *rounded))
    assert beside.scorecard is not None
    assert [group.cell.precision for group in beside.scorecard.groups] == ["float32"]


def test_a_timing_of_nothing_is_no_measurement() -> None:
    points = speeds(measured(timing(1, 2.0, median_ms=0.0), timing(2, 2.0, speedup_low=0.0)))
    assert [point.variant for point in points] == ["dense"]


# --- what may be deployed --------------------------------------------------------------------------------------------


def test_the_choice_is_the_fastest_that_passes_not_the_fastest() -> None:
    findings = found(runs(99.0, 98.5, 90.0), measured(*(timing(level, 2.0**level) for level in (1, 2, 3))))
    card = findings.scorecard
    assert card is not None
    assert card.choice is not None
    assert (card.choice.level, card.deployable) == (2, {1, 2})
    assert answer(findings) == (
        "Best choice that passes its gates: the ticket at 75.0 % sparsity on TicketSmith sparse. It takes 250 \u00b5s a "
        "request, 4.00\u00d7 (3.85\u00d7 to 4.16\u00d7) as fast as dense on ONNX Runtime, the best dense runtime measured "
        "(batch size 1, 1 thread)."
    )


def test_what_is_surely_faster_goes_before_what_only_looks_faster() -> None:
    unsure = timing(1, 1.5, "compact", spread=2.0, dense=False)
    findings = found(runs(99.0), measured(timing(1, 1.4), unsure))
    assert findings.scorecard is not None
    choice = findings.scorecard.choice
    assert choice is not None
    assert (choice.runtime, choice.speedup) == ("sparse", 1.4)
    assert best(speeds(measured(timing(1, 1.4), unsure)), "ticket", 1) == choice


def test_rounded_weights_are_not_deployable_on_the_word_of_gates_that_judged_others() -> None:
    low: dict[str, Any] = {"precision": "int8"}
    rounded = [timing(0, 1.0, "onnxruntime", 1.0, **low), timing(1, 3.0, **low)]
    rows = document(found(runs(99.0), measured(timing(1, 2.0), *rounded)))["groups"]
    told = {(row["precision"], row["variant"]): row["deployable"] for group in rows for row in group["rows"]}
    assert told["float32", "ticket"]
    assert not told["int8", "ticket"]
    alone = found(runs(99.0), Benchmark({}, "onnxruntime", "cpu", 0.95, tuple(rounded)))
    assert alone.scorecard is not None
    assert (alone.scorecard.choice, alone.scorecard.pays, alone.paybacks) == (None, None, ())
    assert answer(alone).startswith("With int8 weights, whose quality the gates did not judge: the ticket at 50.0 %")


def test_it_pays_it_does_not_or_nobody_measured_it() -> None:
    def pays(accuracies: list[Result], *timings: Timing) -> bool | None:
        told = document(found(accuracies, measured(*timings)))["pays"]
        assert told is None or isinstance(told, bool)
        return told

    assert pays(runs(99.0), timing(1, 2.0)) is True
    assert pays(runs(99.0), timing(1, 0.5)) is False
    assert pays(runs(99.0, 80.0), timing(2, 4.0)) is None, "what passes was not measured"
    assert pays(runs(80.0), timing(1, 4.0)) is None, "nothing passes"


def test_what_the_test_split_does_not_confirm_is_not_deployed() -> None:
    findings = found(runs(99.0, test=80.0), measured(timing(1, 4.0)))
    assert findings.scorecard is not None
    assert findings.scorecard.deployable == frozenset()
    assert answer(findings).startswith("No sparsity is shown to pass its gates")
    assert "dense on ONNX Runtime takes 1.0 ms a request" in answer(findings)


def test_money_is_the_machines_hour_over_what_it_serves() -> None:
    """1 ms on each of two cores at 7.2 an hour: a million cost 1.0, and at twice the speed half of it."""
    findings = found(runs(99.0), measured(timing(1, 2.0, spread=1.25), machine_rate=RATE))
    card = findings.scorecard
    assert card is not None
    group = first(findings)
    assert group.dense is not None
    assert card.per_million(group.dense) == pytest.approx(1.0)
    assert card.price(group, group.rows[0]) == pytest.approx(0.5)
    assert reasons(findings)[0] == (
        "A million requests cost $0.50 instead of $1.00 on server at $7.20 an hour: a million a day save $15.00 a month "
        "($11.25 to $18.00), as far as the machine is kept busy."
    )
    eight = found(runs(99.0), measured(timing(1, 2.0), machine={"cores": "8"}, machine_rate=RATE)).scorecard
    assert eight is not None
    assert eight.lead is not None
    assert eight.lead.dense is not None
    assert eight.per_million(eight.lead.dense) == pytest.approx(0.25)


def test_what_the_runtime_alone_gives_is_not_credited_to_sparsity() -> None:
    findings = found(runs(99.0), measured(timing(0, 2.0), timing(1, 5.0)))
    assert any("is 2.00\u00d7 (1.92\u00d7 to 2.08\u00d7) as fast already" in line for line in reasons(findings))
    assert any("the other 2.50\u00d7" in line for line in reasons(findings))
    assert findings.paybacks[0].speedup == pytest.approx(2.5)
    assert findings.paybacks[0].dense_runtime == "sparse"


def test_another_method_that_goes_further_is_named() -> None:
    other = [replace(run, variant="lr_rewind", key="x") for run in runs(99.0, 99.0) if run.level == 2]
    below = [replace(run, variant="lr_rewind", key="y") for run in runs(99.0) if run.level == 1]
    rivals = [timing(1, 2.0, variant="lr_rewind"), timing(2, 4.0, variant="lr_rewind")]
    findings = found([*runs(99.0), *below, *other], measured(timing(1, 2.0), *rivals))
    assert any(
        line.startswith("Learning-rate rewinding at 75.0 % sparsity passes its gates too") for line in reasons(findings)
    )


# --- where it does not pay -------------------------------------------------------------------------------------------


def test_it_does_not_pay_where_break_even_lies_beyond_what_passes() -> None:
    levels = [timing(level, 0.25 * 2**level) for level in (1, 2, 3)]
    findings = found(runs(99.0, 80.0, 80.0), measured(*levels, timing(1, 1.0, "onnxruntime")))
    assert answer(findings).startswith(
        "Unstructured sparsity does not pay here: no sparsity that passes its gates is surely faster than dense on ONNX "
        "Runtime, the best dense runtime measured"
    )
    told = " ".join(reasons(findings))
    assert "the nearest is the ticket at 50.0 % sparsity on TicketSmith sparse: 0.50\u00d7" in told
    assert (
        "Break-even on TicketSmith sparse: between 50 % and 88 % sparsity; what passes its gates ends at 50.0 %" in told
    )
    assert first(findings).choice is None


def test_it_does_not_pay_where_only_dense_runtimes_ran_it() -> None:
    refusals = (Refusal("ticket", 1, 0, "sparse", 1, "the operator aten.weird is not known."),)
    findings = found(runs(99.0), measured(timing(1, 1.01, "onnxruntime"), refusals=refusals))
    assert answer(findings).startswith("Unstructured sparsity does not pay here")
    told = " ".join(reasons(findings))
    assert "Only dense runtimes ran what passes its gates" in told
    assert "TicketSmith sparse refused: the operator aten.weird is not known" in told
    untried = found(runs(99.0), measured(timing(1, 1.01, "onnxruntime")))
    assert "no runtime that skips zeros was tried" in " ".join(reasons(untried))


def test_a_difference_that_is_not_clear_is_no_speed_up() -> None:
    findings = found(runs(99.0), measured(timing(1, 1.03, spread=1.05)))
    assert answer(findings).startswith("Unstructured sparsity does not pay here")
    assert findings.paybacks[0].outcome == "unclear"


def test_other_settings_are_told() -> None:
    batch = [timing(0, 1.0, "onnxruntime", batch_size=8), timing(1, 1.5, batch_size=8)]
    findings = found(runs(99.0), measured(timing(1, 0.5), *batch))
    assert "Elsewhere it does pay (batches of 8: 1.50\u00d7)." in reasons(findings)


def test_without_a_benchmark_nothing_is_said_of_speed() -> None:
    findings = conclude("name", runs(99.0), POLICY)
    assert answer(findings) == "Inference was not measured, so that nothing can be said of speed."
    assert (findings.scorecard, reasons(findings)) == (None, [])


# --- precisions, layers, load ----------------------------------------------------------------------------------------


def test_rounded_weights_are_compared_with_rounded_dense_ones_and_shown_beside_float32() -> None:
    low: dict[str, Any] = {"precision": "bfloat16", "median_ms": 0.25}
    rounded = [timing(0, 1.0, "onnxruntime", 1.0, precision="bfloat16", median_ms=0.5), timing(1, 2.0, **low)]
    findings = found(runs(99.0), measured(timing(1, 3.0), *rounded))
    card = findings.scorecard
    assert card is not None
    assert card.choice is not None
    assert card.choice.precision == "float32", "the gates judged float32"
    group = card.groups[1]
    assert group.plain is not None
    assert (group.cell.precision, group.plain.median_ms) == ("bfloat16", 1.0)
    told = " ".join(reasons(findings))
    assert (
        "takes 250 \u00b5s a request, 2.00\u00d7 (1.92\u00d7 to 2.08\u00d7) as fast as dense with bfloat16 weights"
        in told
    )
    assert "dense with float32 takes 1.0 ms a request" in told
    assert "The gates judged float32" in told


def test_how_far_outputs_differ_is_shown() -> None:
    near: dict[str, Any] = {"max_error": 2e-6, "tolerance": 1e-4}
    low: dict[str, Any] = {"precision": "int8", "max_error": 0.031, "tolerance": 0.1, "agreement": 0.984}
    exact = replace(DENSE, **near)
    rounded = [replace(DENSE, precision="int8", tolerance=0.1), timing(1, 2.0, **low)]
    timings = (exact, timing(1, 2.0, **near), *rounded)
    card = found(runs(99.0), replace(measured(), timings=timings)).scorecard
    assert card is not None
    lead, other = (
        dict(zip(shown.header, shown.rows[-1], strict=True)) for shown in map(partial(table, card), card.groups)
    )
    assert lead["Outputs differ by"] == "2e-06"
    assert other["Outputs differ by"] == "0.03\n98.4 % same class"
    assert (
        "allowed was a difference of 0.0001 (relative to the largest output, where that is above 1) and 10 % of the largest "
        "output with int8 weights. At low precision at least 98.4 % of the inputs got the same class."
    ) in note(card)


def test_rounding_that_gives_nothing_is_told() -> None:
    low: dict[str, Any] = {"precision": "int8", "median_ms": 0.5}
    rounded = [timing(0, 1.0, "onnxruntime", 1.0, precision="int8", median_ms=4.0), timing(1, 8.0, **low)]
    told = reasons(found(runs(99.0), measured(timing(1, 4.0), *rounded)))
    assert any(line.startswith("Rounding to int8 gives nothing here: the ticket at 50.0 % sparsity") for line in told)
    assert not any("8.00" in line for line in told)


def test_layers_and_load() -> None:
    made = experiment(cliff=0.083)
    findings = conclude("name", made, replace(POLICY, method="non-inferiority"), benchmark=served(made))
    card = findings.scorecard
    assert card is not None
    assert [(layer.kind, break_even(layer.break_even)) for layer in card.layers] == [
        ("linear", "below 50 %"),
        ("convolution", "62 % (60 % to 64 %)"),
        ("depthwise convolution", "none up to 95 %"),
    ]
    assert (
        "With 99 % of requests answered within 10 ms, arriving at random: the ticket on TicketSmith sparse serves 8,000 "
        "requests a second (and misses it at 16,000) and dense on ONNX Runtime serves 4,000 requests a second (and misses it "
        "at 8,000)."
    ) in reasons(findings)


@pytest.mark.parametrize(
    ("unit", "per_input", "batch_size", "told"),
    [
        ("image", 1.0, 1, "takes 500 \u00b5s an image,"),
        ("image", 1 / 16, 1, "takes 8.0 ms an image,"),
        ("image", 1 / 16, 8, "takes 8.0 ms a batch of 8,"),
        ("token", 64.0, 2, "takes 500 \u00b5s for 128 tokens,"),
    ],
)
def test_what_an_image_or_a_window_takes_is_not_what_a_call_takes(
    unit: str, per_input: float, batch_size: int, told: str
) -> None:
    def cell(level: int, speedup: float, runtime: str) -> Timing:
        rate = per_input * batch_size * 1000 * speedup
        return timing(level, speedup, runtime, 1.0, batch_size=batch_size, throughput=rate)

    timings = (cell(0, 1.0, "onnxruntime"), cell(1, 2.0, "sparse"))
    findings = found(runs(99.0), Benchmark({}, "onnxruntime", "cpu", 0.95, timings, unit=unit))
    assert f"It {told} 2.00\u00d7" in answer(findings)


def test_a_model_that_generates_is_told_by_the_token() -> None:
    findings = conclude(
        "name", experiment(), POLICY, benchmark=served(experiment(), unit="token", phases=("decode", "prefill", ""))
    )
    assert "whole calls: 1.75\u00d7" in " ".join(reasons(findings))
    assert "\u00b5s an output token" in answer(findings)
    assert "(decode, batch size 1, 1 thread)" in answer(findings)
    assert [payback.unit for payback in findings.paybacks] == ["tokens"] * 3
