"""The gates: pairing, direction, the margin itself, what is missing, and the error rate that they promise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from ticketsmith.errors import TicketSmithError
from ticketsmith.evidence.gates import judge
from ticketsmith.evidence.resolution import Resolution
from ticketsmith.evidence.results import Metric, Result
from ticketsmith.evidence.statistics import one_sided_bounds
from ticketsmith.evidence.verdicts import Divergence, Gap, GapCause, Gate, GatePolicy, Status, Verdict, level_status

from .synthetic import ACCURACY, result

DROP = Gate("accuracy", max_drop=2.0)
STRICT = GatePolicy((DROP,))
POINT = GatePolicy((DROP,), method="point")


def pairs(dense: list[float], ticket: list[float | None]) -> list[Result]:
    runs = [result("dense", 0, seed, value) for seed, value in enumerate(dense)]
    return runs + [result("ticket", 1, seed, value) for seed, value in enumerate(ticket)]


def only(results: list[Result], policy: GatePolicy = STRICT) -> Verdict:
    (verdict,) = judge(results, policy, "test")
    return verdict


def test_dense_is_not_judged() -> None:
    assert judge([result("dense", 0, 0, 99.0)], STRICT, "test") == []


def test_pass_and_fail_and_inconclusive() -> None:
    dense = [99.0, 98.8, 99.2]
    assert only(pairs(dense, [98.9, 98.7, 99.0])).status is Status.PASS
    assert only(pairs(dense, [90.0, 91.0, 90.5])).status is Status.FAIL
    torn = only(pairs(dense, [98.3, 96.8, 98.2]))
    assert torn.status is Status.INCONCLUSIVE
    assert torn.replicates_needed is not None
    assert torn.replicates_needed > 3


@given(st.lists(st.tuples(st.floats(50, 99), st.floats(40, 99)), min_size=2, max_size=8))
def test_estimate_and_bound_are_those_of_a_paired_t_test(scores: list[tuple[float, float]]) -> None:
    drops = np.array([dense - ticket for dense, ticket in scores])
    assume(drops.std(ddof=1) >= 0.01)  # less than accuracy has decimals: see below
    verdict = only(pairs([dense for dense, _ in scores], [ticket for _, ticket in scores]))
    error = drops.std(ddof=1) / np.sqrt(len(drops))
    assert verdict.estimate == pytest.approx(drops.mean(), abs=1e-9)
    assert verdict.bound == pytest.approx(drops.mean() + stats.t.ppf(0.95, len(drops) - 1) * error, abs=1e-6)


@given(
    st.lists(st.floats(-3, 3), min_size=5, max_size=5),
    st.lists(st.integers(-20, 20), min_size=5, max_size=5),
    st.permutations(range(5)),
)
def test_only_the_differences_within_a_seed_matter(drops: list[float], shifts: list[int], order: list[int]) -> None:
    plain = only(pairs([64.0] * 5, [64.0 - drop for drop in drops]))
    dense = [64.0 + shifts[seed] for seed in order]
    shifted = only(pairs(dense, [dense[place] - drops[seed] for place, seed in enumerate(order)]))
    assert shifted.estimate == pytest.approx(plain.estimate, abs=1e-9)
    assert shifted.bound == pytest.approx(plain.bound, abs=1e-6)


def test_a_drop_of_exactly_the_margin_passes() -> None:
    assert only(pairs([98.9, 98.9], [96.9, 96.9]), POINT).status is Status.PASS
    assert only(pairs([98.9, 98.9], [96.8999, 96.8999]), POINT).status is Status.FAIL


@pytest.mark.parametrize(
    ("examples", "finest"),
    [({}, 0.01), ({"test": 400}, 0.25)],
)
def test_no_pass_rests_on_a_spread_of_zero(examples: dict[str, int], finest: float) -> None:
    """Two seeds with equal differences: their spread is what the metric can tell apart, however closely they agree."""

    def judged(drop: float) -> Verdict:
        return only([replace(run, examples=examples) for run in pairs([98.0, 97.0], [98.0 - drop, 97.0 - drop])])

    drop = finest
    spread = np.sqrt(2) * finest if examples else finest  # they differ by one example, and one more may be luck
    assert judged(drop).status is Status.PASS
    assert judged(drop).bound == pytest.approx(drop + 6.3138 * spread / np.sqrt(2), abs=1e-4)
    assert judged(drop).floor == Resolution(ACCURACY, pytest.approx(spread), "test", counts_examples=bool(examples))
    assert judged(2.0).status is Status.INCONCLUSIVE
    assert judged(2.0 - finest).status is Status.INCONCLUSIVE
    assert judged(2.0 + 80 * finest).status is Status.FAIL


def test_a_relative_gate_has_the_resolution_of_its_metric() -> None:
    runs = [result("dense", 0, seed, 99.0, loss=0.10) for seed in range(2)]
    runs += [result("ticket", 1, seed, 99.0, loss=0.10) for seed in range(2)]
    verdict = only(runs, GatePolicy((Gate("loss", max_relative_increase=0.05),)))
    assert verdict.bound == pytest.approx(6.3138 * 1e-4 / 0.103 / np.sqrt(2), rel=1e-3)


FRACTION = Metric("accuracy", higher_is_better=True)  # 0..1, printed with two decimals


def fractions(drops: list[float], examples: int = 0, base: float = 0.97) -> list[Result]:
    runs = pairs([base] * len(drops), [base - drop for drop in drops])
    return [replace(run, metrics={"accuracy": FRACTION}, examples={"test": examples}) for run in runs]


def test_seeds_that_differ_by_less_than_is_printed_keep_their_own_spread() -> None:
    policy = GatePolicy((Gate("accuracy", max_drop=0.008),))
    drops = [0.001, 0.004, 0.007, 0.002, 0.0055]
    verdict = only(fractions(drops), policy)
    assert (verdict.status, verdict.floor) == (Status.PASS, None)
    assert verdict.bound == pytest.approx(np.mean(drops) + 2.1318 * np.std(drops, ddof=1) / np.sqrt(5), abs=1e-6)
    equal = only(fractions([0.004, 0.004 + 3e-8]), policy)  # as equal as float32 can say
    assert (equal.status, equal.floor) == (Status.INCONCLUSIVE, Resolution(FRACTION, 0.01, "test", False))


def test_a_fraction_of_examples_counts_them_as_a_percentage_does() -> None:
    verdict = only(fractions([0.005, 0.005], examples=400, base=0.975), GatePolicy((Gate("accuracy", max_drop=0.05),)))
    spread = np.sqrt(3) / 400  # two examples on balance
    assert verdict.bound == pytest.approx(0.005 + 6.3138 * spread / np.sqrt(2), abs=1e-6)
    assert verdict.floor == Resolution(FRACTION, pytest.approx(spread), "test", counts_examples=True)


@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
@pytest.mark.parametrize(("examples", "drop"), [(360, 1), (360, 4), (1000, 5)])
def test_near_all_examples_right_a_gate_errs_no_more_than_it_says(seeds: int, examples: int, drop: int) -> None:
    """Counts of errors, of a network at the margin: equal by chance every now and then."""
    random = np.random.default_rng(seeds * examples + drop)
    finest = Resolution(ACCURACY, 100 / examples, "test", counts_examples=True)
    wrong = (
        random.binomial(examples, 0.001, (3000, seeds)),
        random.binomial(examples, 0.001 + drop / examples, (3000, seeds)),
    )
    passes = 0
    for worse in ((wrong[1] - wrong[0]) * finest.amount).tolist():
        bounds = one_sided_bounds(worse, 0.95, finest.paired_floor(worse, 100.0))
        passes += bounds is not None and bounds[1] <= drop * finest.amount
    assert passes / 3000 < 0.05 + 0.012  # three standard errors of the simulation


def test_a_percentage_that_counts_no_examples_keeps_its_decimals() -> None:
    runs = [replace(run, examples={"test": 300}) for run in pairs([98.0, 97.0], [97.5, 96.5])]  # no thirds of a percent
    assert only(runs).floor == Resolution(ACCURACY, 0.01, "test", counts_examples=False)


def test_equal_networks_of_several_seeds_are_one_replicate() -> None:
    runs = [result("dense", 0, seed, 99.0, weights="dense") for seed in range(3)]
    runs += [result("post_training", 1, seed, 98.5, weights="pruned") for seed in range(3)]
    verdict = only(runs)
    assert (verdict.status, verdict.replicates, verdict.seeds, verdict.bound) == (Status.INCONCLUSIVE, 1, 3, None)
    assert verdict.compared == (0, 1, 2)
    mixed = [replace(run, weights="other") if run.seed == 2 else run for run in runs]
    assert only(mixed).replicates == 2
    varied = [replace(run, weights=f"draw {run.seed}") if run.level else run for run in runs]
    assert only(varied).replicates == 3


def test_the_worst_seed_stands_beside_the_mean() -> None:
    verdict = only(pairs([99.0, 99.0, 99.0], [98.9, 96.5, 98.8]), POINT)
    assert (verdict.status, verdict.worst_seed) == (Status.PASS, 1)
    assert verdict.worst == pytest.approx(2.5)


def test_a_metric_where_lower_is_better_worsens_by_rising() -> None:
    runs = [result("dense", 0, seed, 99.0, loss=0.10) for seed in range(3)]
    runs += [result("ticket", 1, seed, 99.0, loss=0.12) for seed in range(3)]
    relative = only(runs, GatePolicy((Gate("loss", max_relative_increase=0.05),)))
    assert relative.status is Status.FAIL
    assert relative.estimate == pytest.approx(0.2)
    absolute = only(runs, GatePolicy((Gate("loss", max_drop=0.05),)))
    assert absolute.status is Status.PASS
    assert absolute.estimate == pytest.approx(0.02 * 1.03)


def test_a_relative_drop_is_of_the_dense_value_of_its_own_seed() -> None:
    runs = [result("dense", 0, 0, 50.0), result("dense", 0, 1, 100.0)]
    runs += [result("ticket", 1, 0, 45.0), result("ticket", 1, 1, 80.0)]
    verdict = only(runs, GatePolicy((Gate("accuracy", max_relative_increase=0.2),), method="point"))
    assert verdict.estimate == pytest.approx((0.1 + 0.2) / 2)


def test_a_relative_gate_on_a_dense_value_of_zero_is_told() -> None:
    runs = [result("dense", 0, 0, 99.0, loss=0.0), result("ticket", 1, 0, 99.0, loss=0.1)]
    verdict = only(runs, GatePolicy((Gate("loss", max_relative_increase=0.2),)))
    assert (verdict.status, verdict.gaps) == (Status.INCONCLUSIVE, (Gap(GapCause.DENSE_ZERO, (0,)),))


def test_one_replicate() -> None:
    assert only(pairs([99.0], [98.9])).status is Status.INCONCLUSIVE
    point = only(pairs([99.0], [98.9]), POINT)
    assert (point.status, point.bound) == (Status.PASS, None)


def test_a_diverged_replicate_fails_its_level_and_is_named() -> None:
    verdict = only(pairs([99.0, 99.0, 99.0], [99.0, None, 99.0]))
    assert verdict.status is Status.FAIL
    assert verdict.divergences == (Divergence(1, 0, 1, 412),)
    assert verdict.replicates == 2


def test_a_value_that_is_not_finite_fails_its_own_level_alone() -> None:
    runs = pairs([99.0, 98.0], [99.0, float("nan")])
    verdict = only(runs)
    assert (verdict.status, verdict.diverged) == (Status.FAIL, ())
    assert verdict.undefined == (1,)
    deeper = [result("ticket", 2, seed, 98.9 - seed - 0.1 * seed) for seed in range(2)]
    assert [verdict.status for verdict in judge(runs + deeper, STRICT, "test")] == [Status.FAIL, Status.PASS]


@pytest.mark.parametrize("policy", [STRICT, POINT])
@pytest.mark.parametrize("drop", [0.1, 9.0])
def test_a_missing_replicate_leaves_a_level_undecided(policy: GatePolicy, drop: float) -> None:
    runs = pairs([99.0, 99.1, 98.9], [99.0 - drop, 99.2 - drop, 98.8 - drop])
    assert only(runs, policy).status is not Status.INCONCLUSIVE
    short = only([run for run in runs if (run.variant, run.seed) != ("ticket", 1)], policy)
    assert (short.replicates, short.status, short.missing) == (2, Status.INCONCLUSIVE, (1,))
    assert (short.absent, short.alone) == ((1,), ())
    orphan = only([run for run in runs if (run.variant, run.seed) != ("dense", 2)], policy)
    assert (orphan.replicates, orphan.status, orphan.missing) == (2, Status.INCONCLUSIVE, (2,))
    assert (orphan.absent, orphan.alone) == ((), (2,))
    alone = only([run for run in runs if run.variant != "dense"], policy)
    assert (alone.status, alone.estimate, alone.alone) == (Status.INCONCLUSIVE, None, (0, 1, 2))


def test_the_plan_says_which_replicates_there_should_be() -> None:
    runs = pairs([99.0, 99.1], [98.9, 99.0])
    planned = [run.place for run in runs]
    assert judge(runs, STRICT, "test", planned)[0].status is Status.PASS
    (short,) = judge(runs, STRICT, "test", [*planned, ("dense", 0, 2, 0), ("ticket", 1, 2, 0)])
    assert (short.status, short.missing) == (Status.INCONCLUSIVE, (2,))


def test_a_replicate_that_diverged_fails_every_deeper_level_for_good() -> None:
    runs = [result("dense", 0, seed, 99.0) for seed in range(3)]
    for level in range(1, 4):  # seed 1 dies at level 2, and what would have come from it was never made
        runs += [result("ticket", level, seed, 98.9 - 0.1 * seed) for seed in range(3) if seed != 1 or level == 1]
    runs.append(result("ticket", 2, 1, None))
    verdicts = judge(runs, STRICT, "test")
    assert [verdict.status for verdict in verdicts] == [Status.PASS, Status.FAIL, Status.FAIL]
    assert [verdict.diverged for verdict in verdicts] == [(), (1,), (1,)]
    assert [verdict.missing for verdict in verdicts] == [(), (), ()]
    assert verdicts[2].divergences == (Divergence(1, 0, 2, 412),)
    assert verdicts[2].bound is None


def test_draws_of_one_seed_are_one_replicate() -> None:
    runs = [result("dense", 0, seed, 99.0 + seed) for seed in range(2)]
    runs += [
        result("random_reinit", 1, seed, 97.0 + seed + draw, draw=draw, test=97.0 + seed + draw)
        for seed in range(2)
        for draw in range(3)
    ]
    verdict = only(runs)
    assert verdict.replicates == 2
    assert verdict.estimate == pytest.approx(1.0)


def test_several_gates_are_a_conjunction() -> None:
    runs = pairs([99.0, 99.0], [99.0, 99.0])
    verdicts = judge(runs, GatePolicy((DROP, Gate("loss", max_drop=0.1))), "test")
    assert [verdict.gate.metric for verdict in verdicts] == ["accuracy", "loss"]
    assert level_status(verdicts) is Status.PASS
    failed, torn = replace(verdicts[0], status=Status.FAIL), replace(verdicts[0], status=Status.INCONCLUSIVE)
    assert level_status([verdicts[0], torn]) is Status.INCONCLUSIVE
    assert level_status([verdicts[0], torn, failed]) is Status.FAIL
    assert level_status([]) is Status.INCONCLUSIVE


def test_an_unknown_metric_is_refused_with_the_known_ones() -> None:
    with pytest.raises(TicketSmithError, match="'f1' cannot be judged: the runs measure accuracy and loss"):
        judge(pairs([99.0], [99.0]), GatePolicy((Gate("f1", max_drop=1.0),)), "test")


def test_false_passes_at_the_margin_are_as_rare_as_promised() -> None:
    """A ticket that is truly worse by the margin passes in 5 % of experiments, whatever the spread between seeds."""
    random = np.random.default_rng(20240501)
    trials, passes, fails = 3000, 0, 0
    for _ in range(trials):
        level = random.normal(98.0, 1.0, 5)
        drops = random.normal(2.0, 0.4, 5)
        status = only(pairs(list(level), list(level - drops))).status
        passes += status is Status.PASS
        fails += status is Status.FAIL
    error = 3 * np.sqrt(0.05 * 0.95 / trials)
    assert abs(passes / trials - 0.05) < error
    assert abs(fails / trials - 0.05) < error
