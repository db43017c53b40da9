"""The sentences of a report: the answer, the controls, the caveats, the reasons of gates."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ticketsmith.evidence.findings import Findings, conclude
from ticketsmith.evidence.results import Result
from ticketsmith.evidence.verdicts import Gate, GatePolicy, Status
from ticketsmith.report.sentences import measures
from ticketsmith.report.sentences.caveats import against, caveats
from ticketsmith.report.sentences.controls import special
from ticketsmith.report.sentences.headline import headline
from ticketsmith.report.sentences.verdicts import reason

from ..evidence.synthetic import ACCURACY, LOSS, experiment, result

POLICY = GatePolicy((Gate("accuracy", max_drop=2.0),), target_sparsity=0.5)
POINT = GatePolicy(POLICY.gates, method="point")


def ladder(scores: list[float], seeds: int = 5, test: list[float] | None = None) -> list[Result]:
    """A ticket with these accuracies at levels 1, 2, ..., and a dense network of 99 %; the seeds scatter a little."""
    noise = [0.1 * (seed % 3 - 1) for seed in range(seeds)]
    runs = [result("dense", 0, seed, 99.0) for seed in range(seeds)]
    for level, score in enumerate(scores, start=1):
        shown = score if test is None else test[level - 1]
        runs += [result("ticket", level, seed, score + noise[seed], test=shown + noise[seed]) for seed in range(seeds)]
    return runs


def found(runs: list[Result], policy: GatePolicy = POLICY) -> Findings:
    return conclude("name", runs, policy)


def reason_of(findings: Findings) -> str:
    """Of the first gate on test."""
    verdict = findings.test[0]
    return reason(verdict, findings.metrics[verdict.gate.metric], findings.policy)


def test_up_to() -> None:
    sentence = headline(found(ladder([99, 98.5, 90])))
    assert sentence == (
        "Up to 36.0 % of the 220,704 prunable weights can go before test accuracy drops by more than 2 points "
        "(95 % confidence, mean of 5 seeds, the worst 0.60 points worse)."
    )


def test_the_mean_of_a_level_that_was_chosen_is_said_to_be_a_little_too_good() -> None:
    assert any("a little too good" in note for note in caveats(found(ladder([99, 98.5, 90]))))
    assert not any("too good" in note for note in caveats(found(ladder([99, 98.5])))), (
        "no level was chosen before another"
    )


def test_at_least() -> None:
    sentence = headline(found(ladder([99, 98.5])))
    assert sentence.startswith("At least 36.0 % of the 220,704 prunable weights can go without test accuracy dropping")
    assert sentence.endswith(
        "(95 % confidence, mean of 5 seeds, the worst 0.60 points worse); the sparsest level that was trained still passes."
    )


def test_nothing_passes() -> None:
    sentence = headline(found(ladder([90, 80])))
    assert sentence == (
        "No tested sparsity is safe: already at the mildest level, 20.0 % of the 220,704 prunable weights, test accuracy "
        "drops by more than 2 points (95 % confidence, mean of 5 seeds)."
    )


def test_only_a_control_passes() -> None:
    runs = ladder([95, 90])
    runs += [result("random_reinit", level, seed, 98.9 + 0.05 * (seed % 3)) for level in (1, 2) for seed in range(5)]
    assert headline(found(runs)) == (
        "No tested sparsity of the ticket is safe: already at the mildest level, 20.0 % of the 220,704 prunable weights, "
        "test accuracy drops by more than 2 points (95 % confidence, mean of 5 seeds); but random re-initialisation passes up to "
        "36.0 % of the prunable weights."
    )


def test_nothing_passes_because_training_diverged() -> None:
    runs = [result("dense", 0, 0, 99.0), result("dense", 0, 1, 99.0)]
    runs += [result("ticket", 1, 0, None), result("ticket", 1, 1, 99.0)]
    sentence = headline(found(runs))
    assert sentence == (
        "No tested sparsity passes its gate: at the mildest level, 20.0 % of the 220,704 prunable weights, diverged: seed 0 "
        "at iteration 412."
    )
    assert any("1 run diverged" in note for note in caveats(found(runs)))


def test_inconclusive() -> None:
    sentence = headline(found(ladder([99, 90], seeds=1)))
    assert sentence == (
        "Inconclusive: 1 seed is too few to show at which sparsity test accuracy drops by more than 2 points; "
        "by the point estimate 20.0 % of the 220,704 prunable weights can go (no confidence)."
    )


def test_a_look_says_which_it_is() -> None:
    declared = replace(POLICY, looks=(3, 5, 8))
    sentence = headline(found(ladder([99, 98.5, 90]), declared))
    assert sentence.endswith("(95 % confidence, look 1 of 3, mean of 3 seeds, the worst 0.60 points worse).")
    late = ladder([99, 98.5, 90])
    late = [
        replace(run, final=result("ticket", 2, 1, 97.4).final) if (run.level, run.seed) == (2, 1) else run
        for run in late
    ]
    findings = found(late, declared)
    assert headline(findings).endswith("(95 % confidence, look 2 of 3, mean of 5 seeds, the worst 1.60 points worse).")
    assert reason(findings.verdicts("ticket", 2)[0], ACCURACY, declared).endswith("; look 2 of 3, 5 seeds")
    torn = [result("dense", 0, seed, 99.0) for seed in range(3)]
    torn += [result("ticket", 1, seed, score) for seed, score in enumerate((98.9, 97.2, 98.4))]
    undecided = found(torn, declared)
    assert headline(undecided).startswith("Inconclusive: at look 1 of 3, 3 seeds are too few to show at which sparsity")
    assert "the look at 5 replicates would decide it" in reason_of(undecided)


def test_the_worst_of_all_seeds_is_part_of_an_answer_that_an_early_look_gave() -> None:
    declared = replace(POLICY, looks=(3, 5, 8))
    runs = [run for run in ladder([99, 98.9, 90]) if (run.level, run.seed) != (2, 4)]
    findings = found([*runs, result("ticket", 2, 4, 93.0)], declared)
    assert "(95 % confidence, look 1 of 3, mean of 3 seeds, the worst 6.00 points worse)" in headline(findings)
    spoken = " ".join(caveats(findings))
    assert "By itself 1 of 5 is beyond the margin at the sweet spot, which allows for up to 75 % of all seeds" in spoken
    assert "By itself none of 5 is beyond" in " ".join(caveats(found(ladder([99, 98.9, 90]), declared)))


def test_a_look_that_nobody_declared_says_what_it_costs() -> None:
    findings = found(ladder([99, 98.5, 90]), replace(POLICY, looks=(3,), shown=(3,)))
    assert headline(findings).endswith("(95 % confidence, mean of 3 seeds, the worst 0.60 points worse)."), (
        "what the first look decided stands"
    )
    torn = [result("dense", 0, seed, 99.0) for seed in range(5)]
    torn += [result("ticket", 1, seed, score) for seed, score in enumerate((98.9, 96.2, 98.9, 98.9, 98.9))]
    late = found(torn, replace(POLICY, looks=(3,), shown=(3,)))
    assert (
        "a look that was not declared before the first, tested at 99.5 % confidence: 5 seeds decide what 3 would"
        in (reason_of(late))
    )
    passing = found(
        torn
        + [result("ticket", 1, s, 98.9) for s in range(5, 20)]
        + [result("dense", 0, s, 99.0) for s in range(5, 20)],
        replace(POLICY, looks=(3,), shown=(3,)),
    )
    assert "(94 % confidence over all looks, mean of 20 seeds, the worst 2.80 points worse)" in headline(passing)


def test_a_point_estimate_ends_at_the_first_level_that_fails_too() -> None:
    sentence = headline(found(ladder([99, 90, 98.5], seeds=1)))
    assert "by the point estimate 20.0 % of" in sentence
    alone = headline(found(ladder([99, 90, 98.5], seeds=1), POINT))
    assert alone.startswith("Up to 20.0 % of the 220,704 prunable weights can go before test accuracy drops")


def test_a_share_says_of_what_it_is_one() -> None:
    small = [replace(run, parameters=22_070_400) for run in ladder([99, 98.5, 90])]
    findings = found(small)
    assert headline(findings).startswith(
        "Up to 0.36 % of the network's 22,070,400 parameters (36.0 % of the 220,704 prunable ones) can go before"
    )
    assert findings.size.network_compression == pytest.approx(22_070_400 / (22_070_400 - 0.36 * 220_704), rel=1e-6)
    assert "Only 220,704 of the network's 22,070,400 parameters are prunable" in " ".join(caveats(findings))
    whole = found([replace(run, parameters=220_704) for run in ladder([99, 98.5, 90])])
    assert headline(whole).startswith("Up to 36.0 % of the network's 220,704 parameters can go before")
    control = [result("random_reinit", 2, seed, 98.0 + 0.1 * seed, parameters=22_070_400) for seed in range(5)]
    assert special(found(small + control)).startswith(
        "At 36.0 % sparsity of the prunable weights (0.36 % of the network), random re-initialisation"
    )


def test_three_seeds_of_which_one_dies_never_make_a_claim_of_two() -> None:
    runs = ladder([99, 98.9, 98.8, 98.7, 98.6], seeds=3)
    runs = [run for run in runs if run.variant == "dense" or run.seed != 2 or run.level < 4]
    runs.append(result("ticket", 4, 2, None))
    sentence = headline(found(runs))
    assert sentence == (
        "Up to 48.8 % of the 220,704 prunable weights can go without test accuracy dropping by more than 2 points (95 % "
        "confidence, mean of 3 seeds, the worst 0.30 points worse); at the next level, 59.0 % of the prunable weights, "
        "training diverged (seed 2)."
    )
    missing = headline(found(runs[:-1]))
    assert missing.endswith("at the next level, 59.0 % of the prunable weights, planned runs are missing (seed 2).")
    assert "2 seeds" not in sentence + missing


def test_levels_that_nobody_can_tell_are_not_called_a_drop() -> None:
    torn = [result("ticket", 3, seed, 97.0 + 1.5 * (seed % 3 - 1)) for seed in range(5)]
    sentence = headline(found(ladder([99, 98.5]) + torn))
    assert sentence.startswith("Up to 36.0 % of the 220,704 prunable weights can go without test accuracy dropping")
    assert sentence.endswith("at the next level, 48.8 % of the prunable weights, the seeds cannot tell.")


NAN = float("nan")


def test_tickets_without_a_finite_value_are_no_missing_baseline() -> None:
    runs = [result("dense", 0, seed, 99.0) for seed in range(2)] + [result("ticket", 1, seed, NAN) for seed in range(2)]
    assert headline(found(runs)) == (
        "No tested sparsity passes its gate: at the mildest level, 20.0 % of the 220,704 prunable weights, accuracy is not a "
        "finite number for seeds 0 and 1."
    )


def test_a_dense_value_that_is_not_finite_is_no_missing_run() -> None:
    for dense, seeds in (([99.0, NAN, 99.0], "seed 1"), ([NAN, NAN, 99.0], "seeds 0 and 1")):
        runs = [result("dense", 0, seed, value) for seed, value in enumerate(dense)]
        findings = found(runs + [result("ticket", 1, seed, 98.9) for seed in range(3)])
        assert headline(findings) == (
            f"Inconclusive: dense accuracy is not a finite number for {seeds}, so that nothing is decided."
        )
        assert (findings.test[0].status, findings.test[0].missing) == (Status.INCONCLUSIVE, ())
        assert f"dense accuracy is not a finite number for {seeds}" in reason_of(findings)


@pytest.mark.parametrize("policy", [POLICY, POINT])
def test_what_a_diverged_dense_run_blocks_is_not_missing(policy: GatePolicy) -> None:
    runs = [result("dense", 0, 0, 99.0), result("dense", 0, 1, None), result("dense", 0, 2, 99.1)]
    places = [run.place for run in runs] + [("ticket", 1, seed, 0) for seed in range(3)]
    runs += [result("ticket", 1, seed, 98.9 + 0.1 * seed) for seed in (0, 2)]
    findings = conclude("name", runs, policy, places=places)
    assert headline(findings) == "Inconclusive: the dense run of seed 1 diverged, so that nothing is decided."
    assert reason_of(findings).endswith("; the dense run of seed 1 diverged")
    assert (findings.test[0].status, findings.test[0].missing) == (Status.INCONCLUSIVE, ())
    told = " ".join(caveats(findings))
    assert "missing" not in told
    assert "1 of 6 planned runs cannot be made, since one that it needs diverged" in told
    lacking = conclude("name", runs[:-1], policy, places=places)  # the ticket of seed 2, which could be made
    assert headline(lacking) == (
        "Inconclusive: planned runs are missing at the mildest level (seed 2) and the dense run of seed 1 diverged, so that "
        "nothing is decided."
    )


def test_a_control_whose_ticket_diverged_is_not_missing() -> None:
    runs = [result("dense", 0, seed, 99.0) for seed in range(3)]
    runs += [result("ticket", 1, seed, None if seed == 1 else 98.9) for seed in range(3)]
    places = [run.place for run in runs] + [("random_reinit", 1, seed, 0) for seed in range(3)]
    runs += [result("random_reinit", 1, seed, 90.0 + 0.1 * seed) for seed in (0, 2)]
    findings = conclude("name", runs, POLICY, places=places)
    (control,) = findings.verdicts("random_reinit", 1)
    assert (control.status, control.missing) == (Status.INCONCLUSIVE, ())
    assert reason(control, ACCURACY, POLICY).endswith("; the ticket of seed 1, which it needs, diverged")


@pytest.mark.parametrize(
    ("lost", "why"), [(None, "training diverged (seed 2)"), (NAN, "accuracy is not a finite number")]
)
def test_a_level_that_lost_a_seed_is_no_proven_drop(lost: float | None, why: str) -> None:
    """The other seeds are far beyond the margin, and still nothing was tested."""
    runs = [run for run in ladder([99, 90], seeds=3) if (run.level, run.seed) != (2, 2)]
    sentence = headline(found([*runs, result("ticket", 2, 2, lost)]))
    assert sentence.startswith("Up to 20.0 % of the 220,704 prunable weights can go without test accuracy dropping")
    assert f"at the next level, 36.0 % of the prunable weights, {why}" in sentence
    mildest = [run for run in ladder([90], seeds=3) if (run.level, run.seed) != (1, 2)]
    assert headline(found([*mildest, result("ticket", 1, 2, lost)])).startswith("No tested sparsity passes its gate")


def test_one_replicate_is_not_called_one_seed() -> None:
    runs = [result("dense", 0, seed, 99.0, weights="dense") for seed in range(3)]
    runs += [result("post_training", 1, seed, 98.5, weights="pruned") for seed in range(3)]
    runs += [result("post_random", 1, seed, 80.0, weights="chance") for seed in range(3)]
    assert "removing weights at random is 18.50 points worse by one replicate (no confidence)" in special(found(runs))


def test_equal_networks_give_no_confidence() -> None:
    runs = [result("dense", 0, seed, 99.0, weights="dense") for seed in range(3)]
    runs += [result("post_training", 1, seed, 98.5, weights="pruned") for seed in range(3)]
    assert headline(found(runs)) == (
        "Inconclusive: the networks of 3 seeds are bit for bit equal, one replicate, which is too few to show at which "
        "sparsity test accuracy drops by more than 2 points; by the point estimate 20.0 % of the 220,704 prunable weights "
        "can go (no confidence)."
    )
    assert "(3 seeds, all equal: a point estimate, no confidence)" in headline(found(runs, POINT))
    assert any("bit for bit equal" in note for note in caveats(found(runs)))


def test_a_replicate_beyond_the_margin_is_told_to_whoever_takes_it() -> None:
    runs = ladder([99, 98.5, 90], seeds=3)
    runs = [result("ticket", 2, 1, 96.5) if (run.level, run.seed) == (2, 1) else run for run in runs]
    findings = found(runs, POINT)
    assert findings.sweet_spot is not None
    assert findings.sweet_spot.level == 2
    assert any("seed 1 alone is 2.50 points worse in accuracy" in note for note in caveats(findings))
    one, other = (next(r for r in runs if (r.variant, r.level, r.seed) == ("ticket", 2, seed)) for seed in (1, 0))
    assert "2.50 points worse than dense in test accuracy, beyond the margin of 2 points" in against(findings, one)[0]
    assert against(findings, other) == []


def test_a_level_beyond_a_gap_is_exported_with_a_warning() -> None:
    runs = ladder([99, 90, 98.5])
    beyond = next(run for run in runs if run.level == 3)
    assert "the sweet spot is level 1" in against(found(runs), beyond)[0]


def test_a_point_estimate_claims_no_confidence() -> None:
    assert "(1 seed: a point estimate, no confidence)" in headline(found(ladder([99, 90], seeds=1), POINT))
    assert "(5 seeds: a point estimate, no confidence)" in headline(found(ladder([99, 90]), POINT))


def test_the_answer_is_where_the_tests_on_test_end() -> None:
    findings = found(ladder([99, 98.5, 90], test=[99, 90, 90]))
    assert headline(findings) == (
        "Up to 20.0 % of the 220,704 prunable weights can go before test accuracy drops by more than 2 points (95 % "
        "confidence, mean of 5 seeds, the worst 0.10 points worse)."
    )
    assert headline(found(ladder([99, 90], test=[90, 90]))).startswith("No tested sparsity is safe")


def test_nothing_is_claimed_beyond_a_gap() -> None:
    findings = found(ladder([99, 90, 98.5, 90]))
    assert headline(findings).startswith("Up to 20.0 % of the 220,704 prunable weights can go before")
    assert "48.8 % passes again" in caveats(findings)[0]
    assert found(ladder([99, 90, 98.5])).sweet_spot.level == 1


def test_a_relative_gate_and_two_gates() -> None:
    gates = (Gate("accuracy", max_drop=1.0), Gate("loss", max_relative_increase=0.05))
    sentence = headline(found(ladder([99, 90]), GatePolicy(gates)))
    assert "before test accuracy drops by more than 1 point or test loss rises by more than 5 % (" in sentence


def test_no_gate_and_no_ticket() -> None:
    assert headline(found(ladder([99]), GatePolicy(()))).startswith("No quality gate was set")
    assert headline(found([result("dense", 0, 0, 99.0)])).startswith("Only the dense baseline")


def test_controls_in_words() -> None:
    assert "says nothing" in special(found(ladder([99, 90])))
    text = special(found(experiment()))
    assert "random re-initialisation loses" in text
    assert "so that the initial weights matter" in text
    same = ladder([99, 98.5, 90])
    same += [result("random_reinit", 2, seed, 98.5 + 0.1 * (seed % 2)) for seed in range(5)]
    text = special(found(same))
    assert text.startswith("At 36.0 % sparsity, random re-initialisation cannot be told apart from the ticket")
    assert "nothing here shows that the initial weights matter" in text


def test_a_better_control_is_admitted() -> None:
    runs = ladder([99, 98.5, 90]) + [result("random_ticket", 2, seed, 99.5) for seed in range(5)]
    assert "wins 1.0" in special(found(runs))
    assert "not special" in special(found(runs))


def test_missing_runs_are_a_caveat() -> None:
    findings = conclude("name", ladder([99, 90]), POLICY, planned=20)
    assert any("5 of 20 planned runs are missing" in note for note in caveats(findings))


def test_values_and_differences_of_a_metric() -> None:
    assert measures.value(ACCURACY, 98.938) == "98.94 %"
    assert measures.difference(ACCURACY, -0.001) == "0.00 points"
    assert measures.difference(LOSS, -0.0312) == "\u22120.0312"
    assert measures.span(ACCURACY, 0.1, 0.25) == "0.10 to 0.25 points"


# --- pruning after training -------------------------------------------------------------------------------------------


def untrained(*rivals: str) -> Findings:
    """Dense networks of 99 %, pruned to half by a criterion that keeps 98.5 %, and by chance, which leaves 80 %."""
    accuracies = {"post_training": 98.5, "post_magnitude": 98.4, "post_random": 80.0}
    runs = [result("dense", 0, seed, 99.0 + 0.05 * seed) for seed in range(4)]
    for variant in ("post_training", *rivals):
        pruned = [result(variant, 1, seed, accuracies[variant] + 0.1 * (seed % 2), early=0) for seed in range(4)]
        runs += [replace(run, steps=0) for run in pruned]
    return found(runs)


def test_what_was_pruned_without_training_is_held_against_other_criteria() -> None:
    findings = untrained("post_magnitude", "post_random")
    assert special(findings) == (
        "At 20.0 % sparsity, removing weights by magnitude loses 0.10 points against the recipe's criterion (95 % interval "
        "0.08 to 0.12 points, the spread taken as the last printed decimal (0.01 points)). Removing weights at random loses "
        "18.50 points against the recipe's criterion (95 % interval 18.48 to 18.52 points, the spread taken as the last "
        "printed decimal (0.01 points)), so that it matters which weights are removed, not only how many."
    )
    told = " ".join(caveats(findings))
    assert "control" not in told
    assert findings.cost.controls.runs == 4, "chance is the control"


def test_without_another_criterion_nothing_is_said_of_this_one() -> None:
    findings = untrained()
    assert special(findings).startswith("No other criterion was tried")
    assert any("`variants.post_training.rivals`" in line for line in caveats(findings))
