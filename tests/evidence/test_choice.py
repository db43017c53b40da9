"""Prune, quantise, both or neither: by gates of what is served, and against the fastest dense of any precision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from tests.evidence.synthetic import SPEED, candidates, experiment, priced
from ticketsmith.evidence.candidates import Judgement, Race, from_json, to_json
from ticketsmith.evidence.findings import Findings, conclude
from ticketsmith.evidence.outcomes import Outcomes, SealedOutcomes, to_bytes
from ticketsmith.evidence.results import Result
from ticketsmith.evidence.serving import DocumentError
from ticketsmith.evidence.verdicts import Gate, GatePolicy, Status
from ticketsmith.prices import Rate
from ticketsmith.report.candidates import document, table
from ticketsmith.report.sentences.choice import interaction, verdict

POLICY = GatePolicy((Gate("accuracy", max_drop=2.0),))
RUNS = experiment(seeds=3, levels=4, variants=("dense", "ticket"), points=3)
FLOAT = {"onnxruntime": 1.0, "sparse": 0.5}
INT8 = "onnxruntime-int8-dynamic"


def findings_of(
    speed: Mapping[str, float] = SPEED, losses: Mapping[tuple[str, str], float] | None = None, runs: list[Result] = RUNS
) -> Findings:
    return conclude("imp_mnist", runs, POLICY, served=candidates(runs, speed, losses))


@pytest.mark.parametrize(
    ("speed", "losses", "kind", "rival"),
    [
        # the sparsest level that passes is 2.8 times as fast as dense on the same runtime, more or less
        ({"onnxruntime": 1.0, "sparse": 0.1}, {}, "neither", "onnxruntime"),
        ({**FLOAT, INT8: 9.0}, {}, "quantise", INT8),
        ({**FLOAT, INT8: 1.2}, {}, "prune", INT8),
        ({**FLOAT, INT8: 1.2, "sparse-int8": 1.0}, {}, "both", INT8),
        # what loses its gate is no rival, however fast it is, and is not deployed
        ({**FLOAT, INT8: 9.0}, {("dense", INT8): 5.0, ("ticket", INT8): 5.0}, "prune", "onnxruntime"),
        ({**FLOAT, "sparse-int8": 9.0}, {("dense", "sparse-int8"): 5.0, ("ticket", "sparse-int8"): 5.0}, "prune", "onnxruntime"),
        # no faster than noise: the simpler one
        ({"onnxruntime": 1.0, INT8: 1.005, "sparse": 0.1}, {}, "neither", INT8),
    ],
)  # fmt: skip
def test_the_verdict_is_the_simplest_kind_that_nothing_is_surely_faster_than(
    speed: Mapping[str, float], losses: Mapping[tuple[str, str], float], kind: str, rival: str
) -> None:
    choice = findings_of(speed, losses).choice
    assert choice is not None
    assert choice.verdict == kind
    assert choice.lead.rival is not None
    assert choice.lead.rival.candidate.form == rival


def test_the_sentence_says_quantise_with_what_it_beats_and_what_pruning_would_give() -> None:
    findings = findings_of({**FLOAT, INT8: 9.0})
    assert findings.choice is not None
    text = verdict(findings, findings.choice)
    assert text.startswith("Quantise, do not prune: dense in int8 (dynamic) on ONNX Runtime takes 22 µs a call, 9.0")
    assert "as fast as dense in float32 on ONNX Runtime" in text
    assert "the fastest sparse candidate that passes, the ticket at" in text


def test_a_faster_ticket_that_was_judged_on_too_few_seeds_leaves_the_verdict_open() -> None:
    served = candidates(RUNS, {**FLOAT, INT8: 1.2})
    short = [one for one in served.judgements if one.variant == "dense" or one.seed == 0]
    findings = conclude("x", RUNS, POLICY, served=replace(served, judgements=tuple(short)))
    assert findings.choice is not None
    assert findings.choice.verdict == "quantise"
    text = verdict(findings, findings.choice)
    assert text.startswith("Quantise; whether to prune is open: dense in int8 (dynamic) on ONNX Runtime takes ")
    assert "its gates are inconclusive, judged on 1 of 3 replicates" in text


def test_speed_ups_are_against_any_precision_and_within_one_in_a_column_beside() -> None:
    choice = findings_of().choice
    assert choice is not None
    lead = choice.lead
    mine = next(time for time in lead.times if time.candidate.form == "sparse" and time.candidate.level == 4)
    within, rival = lead.within(mine), lead.rival
    assert within is not None
    assert rival is not None
    assert (within.candidate.form, rival.candidate.form) == ("onnxruntime", INT8)
    assert lead.ratio(within, mine).median == pytest.approx(2 * lead.ratio(rival, mine).median, rel=0.02)
    header = table(choice, lead).header
    assert {"Against int8 (dynamic) on ONNX Runtime", "Within its precision"} <= set(header)
    other = findings_of({**FLOAT, INT8: 1.2}).choice
    assert other is not None
    even = other.lead.break_even["sparse"]  # density ** -0.8 * 0.5 = 1.2
    assert even.sparsity == pytest.approx(1 - 2.4**-1.25, abs=0.02)


def test_a_candidate_that_lacks_a_replicate_passes_nothing() -> None:
    served = candidates(RUNS)
    short = replace(served, judgements=tuple(one for one in served.judgements if (one.form, one.seed) != ("sparse", 2)))
    choice = conclude("x", RUNS, POLICY, served=short).choice
    assert choice is not None
    sparse = [one for one in choice.candidates if one.form == "sparse"]
    assert {one.status for one in sparse} == {Status.INCONCLUSIVE}
    assert not any(one.passes for one in sparse)


def test_a_level_passes_only_if_the_milder_ones_of_its_form_do() -> None:
    served = candidates(RUNS)
    broken = [
        replace(one, test={**one.test, "accuracy": 10.0}) if (one.form, one.level) == ("sparse", 2) else one
        for one in served.judgements
    ]
    choice = conclude("x", RUNS, POLICY, served=replace(served, judgements=tuple(broken))).choice
    assert choice is not None
    levels = {one.level: one.passes for one in choice.candidates if one.form == "sparse" and one.variant == "ticket"}
    assert levels[1] is True
    assert levels[2] is False
    assert levels[3] is False


def test_a_search_that_ends_in_float32_is_no_rounded_corner() -> None:
    served = candidates(RUNS, {**SPEED, "sparse-mixed": 2.0})
    plain = [
        replace(one, precision="float32") if (one.variant, one.form) == ("ticket", "sparse-mixed") else one
        for one in served.judgements
    ]
    findings = conclude("x", RUNS, POLICY, served=replace(served, judgements=tuple(plain)))
    assert findings.choice is not None
    kinds = {one.variant: one.kind for one in findings.choice.candidates if one.form == "sparse-mixed"}
    assert kinds == {"dense": "quantise", "ticket": "prune"}
    assert findings.squares
    for square in findings.squares:
        assert {square.corners[kind].form for kind in ("quantise", "both")} != {"sparse-mixed"}
        assert square.corners["prune"].form != "sparse-mixed"


def test_losses_that_add_and_losses_that_do_not_are_told_apart() -> None:
    low = "sparse-int8"
    pairs = {("dense", low): 0.5, ("ticket", low): 0.5}
    add = next(one for one in findings_of(losses=pairs).squares if one.corners["both"].form == low)
    assert add.losses["quantise"].mean == pytest.approx(0.5)
    assert add.excess.mean == pytest.approx(0.0, abs=1e-9)
    assert add.adds
    pairs["ticket", low] = 1.4
    findings = findings_of(losses=pairs)
    more = next(one for one in findings.squares if one.corners["both"].form == low)
    assert more.excess.mean == pytest.approx(0.9)
    assert more.adds is False
    assert more.speed is not None
    assert more.speed.median == pytest.approx(1.0, abs=0.02)  # 0.6 / 0.5 for dense and for the ticket
    assert findings.choice is not None
    text = interaction(findings.choice, more)
    assert "0.90 points more than the sum of the two losses" in text
    assert "do not simply add" in text


def test_one_replicate_is_judged_by_its_examples() -> None:
    runs = [run for run in RUNS if run.seed == 0]
    correct = np.arange(2000) >= 40  # 98 %

    def sealed(values: np.ndarray) -> SealedOutcomes:
        of = {split: {"accuracy": Outcomes(values, scale=100.0)} for split in ("validation", "test")}
        content = to_bytes({"final": of})  # type: ignore[dict-item]
        return SealedOutcomes(lambda: content, "here")

    scores = {"accuracy": 98.0, "loss": 0.1}
    runs = [
        replace(run, outcomes=sealed(correct), final=replace(run.final, validation=scores, test=scores))
        for run in runs
        if run.final is not None
    ]
    served = candidates(runs, {"onnxruntime": 1.0, INT8: 2.0})
    served = replace(
        served,
        judgements=tuple(
            replace(one, outcomes="lost" if one.form == INT8 else "same", test={"accuracy": 93.0 if one.form == INT8 else 98.0})
            for one in served.judgements
        ),
        outcomes={"same": sealed(correct), "lost": sealed(np.arange(2000) >= 140)},
    )  # fmt: skip
    policy = GatePolicy((Gate("accuracy", max_drop=2.0),), method="examples", fallback="non-inferiority")
    choice = conclude("x", runs, policy, served=served).choice
    assert choice is not None
    status = {(one.variant, one.form): one.status for one in choice.candidates}
    assert status["dense", "onnxruntime"] is Status.PASS
    assert status["dense", INT8] is Status.FAIL
    assert choice.verdict == "neither"


def test_what_each_choice_costs_is_earned_back_at_the_measured_difference() -> None:
    runs = priced(RUNS)
    served = candidates(runs, {**FLOAT, INT8: 2.0})
    rate = Rate("here", 3.6)
    findings = conclude("x", runs, POLICY, served=replace(served, race=replace(served.race, machine_rate=rate)))
    assert findings.choice is not None
    quantise, prune = findings.payoffs  # a ticket as int8 on a dense runtime is as fast as dense: nobody deploys it
    assert (quantise.kind, prune.kind) == ("quantise", "prune")
    # dense as int8, three replicates of two seconds each, at 3.6 an hour; a call of 0.2 ms on one of two cores is halved
    assert quantise.trying_seconds == pytest.approx(6.0)
    assert quantise.cost == pytest.approx(0.006)
    assert quantise.units is not None
    assert quantise.units.middle == pytest.approx(0.006 / (0.0002 / 2 / 2 * 0.001), rel=0.05)
    assert quantise.units.low < quantise.units.middle < quantise.units.high
    assert prune.cost is not None
    assert quantise.cost is not None
    assert prune.cost > quantise.cost


def test_without_gates_nobody_can_say() -> None:
    findings = conclude("x", RUNS, GatePolicy(()), served=candidates(RUNS))
    assert findings.choice is not None
    assert findings.choice.verdict is None
    assert "No quality gate was set" in verdict(findings, findings.choice)
    plain = document(findings)
    assert plain is not None
    assert plain["settings"][0]["choice"] is None


def test_documents_come_back_and_strangers_are_refused() -> None:
    import json

    served = candidates(RUNS)
    for one in (served.race, served.judgements[0]):
        kind = type(one)
        assert from_json(kind, json.dumps(to_json(one)).encode()) == one
    with pytest.raises(DocumentError, match="`format` is 2"):
        from_json(Race, json.dumps({**to_json(served.race), "format": 2}).encode())
    with pytest.raises(DocumentError, match="the field `extra` is unknown"):
        from_json(Judgement, json.dumps({**to_json(served.judgements[0]), "extra": 1}).encode())
