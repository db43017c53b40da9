"""One network by its examples: what the intervals promise, what they rest on, and the file that keeps the outcomes."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from scipy.stats import binom, norm

from ticketsmith.errors import DamagedRunError, TicketSmithError
from ticketsmith.evidence.examples import Difference, difference, mean_bounds, paired_shares
from ticketsmith.evidence.findings import conclude
from ticketsmith.evidence.gates import judge
from ticketsmith.evidence.outcomes import OfStates, Outcomes, SealedOutcomes, from_bytes, to_bytes
from ticketsmith.evidence.results import Result
from ticketsmith.evidence.verdicts import GapCause, Gate, GatePolicy, Status, Verdict
from ticketsmith.report.sentences.controls import special
from ticketsmith.report.sentences.verdicts import reason

from .synthetic import ACCURACY, result

DROP = Gate("accuracy", max_drop=2.0)
ONE = GatePolicy((DROP,), method="examples")


def bits(lost: int, gained: int, count: int = 360) -> tuple[Outcomes, Outcomes]:
    """Of dense and a sparse network: wrong where the other is right, right elsewhere."""
    dense, sparse = np.ones(count, bool), np.ones(count, bool)
    sparse[:lost], dense[lost : lost + gained] = False, False
    return Outcomes(dense, scale=100.0), Outcomes(sparse, scale=100.0)


def accuracies(dense: Outcomes, sparse: Outcomes, confidence: float = 0.95) -> Difference:
    found = difference([dense], [sparse], confidence, higher_is_better=True)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("count", "discordance", "margin"), [(360, 0.015, 0.0025), (200, 0.03, 0.005), (100, 0.03, 0.02)]
)
def test_a_share_at_the_margin_passes_and_fails_no_more_often_than_promised(
    count: int, discordance: float, margin: float
) -> None:
    """Enumerated, where the test without its correction passes up to 6.0 %, and 99 % or more of the answers are alike."""

    @cache
    def bounds(lost: int, gained: int) -> tuple[float, float]:
        return paired_shares(lost, gained, count, 0.95)[1:]

    share, passes, fails = (discordance + margin) / 2 / discordance, 0.0, 0.0
    for m in range(25):
        for lost in range(m + 1):
            chance = binom.pmf(m, count, discordance) * binom.pmf(lost, m, share)
            low, high = bounds(lost, m - lost)
            passes, fails = passes + chance * (high <= margin), fails + chance * (low > margin)
    assert 0.005 < passes <= 0.05
    assert fails <= 0.05


class Kept(SealedOutcomes):
    """Outcomes that lie in memory."""

    def __init__(self, right: np.ndarray) -> None:
        self.right = right

    def of(self, metric: str, split: str, at: str) -> Outcomes | None:
        return Outcomes(self.right, scale=100.0)


def seeds_on(random: np.random.Generator, seeds: int, examples: int, hard: float) -> list[Result]:
    """Each ticket is wrong where dense is not on half of the ``hard`` examples, which are the same for all seeds."""
    difficult, runs = random.random(examples) < hard, []
    for seed in range(seeds):
        for variant, level, lost in (("dense", 0, 0.005), ("ticket", 1, 0.005 + 0.5 * difficult)):
            right = random.random(examples) >= lost
            accuracy = 100 * float(right.mean())
            runs.append(result(variant, level, seed, accuracy, examples={"test": examples}, outcomes=Kept(right)))
    return runs


def test_with_several_seeds_a_gate_holds_the_draw_of_the_examples_too() -> None:
    """A ticket that is worse by the margin on data like these passes no more often than promised, though its seeds agree."""
    random, gate = np.random.default_rng(4), GatePolicy((Gate("accuracy", max_drop=1.0),))
    passes = {True: 0, False: 0}
    for _ in range(250):
        runs = seeds_on(random, 8, 600, 0.0201)
        for kept in passes:
            (verdict,) = judge(runs if kept else [replace(run, outcomes=None) for run in runs], gate, "test")
            passes[kept] += verdict.status is Status.PASS
            assert (verdict.split_error is not None) is kept
    assert passes[True] < 250 * 0.05 + 3 * np.sqrt(250 * 0.05 * 0.95)
    assert passes[False] > 250 * 0.12, "seeds alone cannot know"


def test_with_one_seed_a_control_is_compared_example_by_example() -> None:
    dense, ticket = bits(4, 2)
    _, chance = bits(40, 5)
    networks = {"dense": (0, dense), "ticket": (1, ticket), "random_ticket": (1, chance)}
    runs = [
        result(name, level, 0, one.metric, examples={"test": 360}, outcomes=Kept(one.values))
        for name, (level, one) in networks.items()
    ]
    (comparison,) = conclude("x", runs, replace(ONE, fallback="point")).comparisons
    assert comparison.examples is not None
    assert comparison.significant
    spoken = special(conclude("x", runs, replace(ONE, fallback="point")))
    assert (
        "loses 10.00 points against the ticket (95 % interval over 360 test examples: 7.07 to 13.69 points)" in spoken
    )
    assert spoken.endswith("of these very networks, and not of other seeds.")
    without = [replace(run, outcomes=None) for run in runs]
    assert "by one replicate (no confidence)" in special(conclude("x", without, replace(ONE, fallback="point")))


def test_what_no_number_of_seeds_can_decide_is_said() -> None:
    runs = seeds_on(np.random.default_rng(0), 8, 400, 0.02)
    policy = GatePolicy((Gate("accuracy", max_drop=1.3),))
    (verdict,) = judge(runs, policy, "test")
    assert verdict.status is Status.INCONCLUSIVE
    assert verdict.replicates_needed is None
    assert "no number of replicates would decide it on so few test examples" in reason(verdict, ACCURACY, policy)


def test_many_examples_give_the_interval_of_the_normal_distribution() -> None:
    estimate, low, high = paired_shares(600, 500, 20_000, 0.95)
    reach = norm.ppf(0.95) * np.sqrt((1100 - 100**2 / 20_000) / 20_000**2)
    assert estimate == pytest.approx(0.005)
    assert (low, high) == pytest.approx((0.005 - reach, 0.005 + reach), rel=0.05)


def test_networks_that_agree_on_every_example_are_not_surely_equal() -> None:
    few, many = accuracies(*bits(0, 0, 360)), accuracies(*bits(0, 0, 10_000))
    assert few.estimate == 0.0
    assert 0.8 < few.high < 1.2, "three or four lost examples could have been missed"
    assert 0.02 < many.high < 0.05
    assert few.low < 0


def test_what_is_better_is_the_metrics_to_say() -> None:
    dense, sparse = bits(8, 3)
    wrong = [replace(one, values=~one.values) for one in (dense, sparse)]
    errors = difference([wrong[0]], [wrong[1]], 0.95, higher_is_better=False)
    assert errors == accuracies(dense, sparse)
    assert errors is not None
    assert errors.estimate == pytest.approx(100 * 5 / 360)


def test_a_relative_change_is_of_what_dense_has() -> None:
    dense, sparse = bits(12, 180)
    found = difference([dense], [sparse], 0.95, higher_is_better=True, relative=True)
    assert found is not None
    assert found.estimate == pytest.approx((sparse.metric - dense.metric) / dense.metric * -1)
    assert found.high == pytest.approx(accuracies(dense, sparse).high / dense.metric)


def test_windows_of_one_text_count_in_blocks_and_documents_as_a_whole() -> None:
    """Neighbours that share their luck tell less than as many that do not."""
    random = np.random.default_rng(0)
    dense = random.normal(3.0, 0.5, 1_000)
    worse = dense + 0.02 + np.repeat(random.normal(0.0, 0.1, 50), 20)  # by fifty documents of twenty windows
    lengths = {"examples": None, "documents": np.full(50, 20), "blocks": np.array([1_000])}
    found = {}
    for unit, documents in lengths.items():
        sides = [[Outcomes(values, documents=documents)] for values in (dense, worse)]
        one = difference(*sides, 0.95, higher_is_better=False)
        assert one is not None
        assert one.unit == unit
        assert one.estimate == pytest.approx(float(worse.mean() - dense.mean()))
        found[unit] = one
    assert [found[unit].clusters for unit in lengths] == [1_000, 50, 20]
    width = {unit: one.high - one.low for unit, one in found.items()}
    assert width["documents"] > 3 * width["examples"]
    assert width["blocks"] > 3 * width["examples"]


def test_long_windows_weigh_more_and_perplexity_follows_the_loss() -> None:
    random = np.random.default_rng(1)
    sizes = random.integers(1, 64, 400)
    losses = random.normal(3.0, 0.3, 400), random.normal(3.05, 0.3, 400)
    sides = [[Outcomes(values, sizes)] for values in losses]
    perplexities = [[Outcomes(values, sizes, exponential=True)] for values in losses]
    loss = difference(*sides, 0.95, higher_is_better=False)
    ratio = difference(*perplexities, 0.95, higher_is_better=False, relative=True)
    assert loss is not None
    assert ratio is not None
    assert loss.estimate == pytest.approx(np.average(losses[1] - losses[0], weights=sizes))
    for part in ("estimate", "low", "high"):
        assert getattr(ratio, part) == pytest.approx(np.expm1(getattr(loss, part)), abs=0.003)


def test_skewed_losses_have_a_longer_arm_and_equal_ones_a_resolution() -> None:
    skewed = np.random.default_rng(2).lognormal(0.0, 1.0, 60)
    low, high = mean_bounds(skewed, 0.95)
    assert high - skewed.mean() > 1.3 * (skewed.mean() - low)
    low, high = mean_bounds(np.full(20, 0.25), 0.95, resolution=0.0001)
    assert 0.25 < high < 0.2501
    assert 0.2499 < low < 0.25


def one_run(variant: str, level: int, outcomes: Outcomes, seed: int = 0, draw: int = 0) -> Result:
    content = to_bytes({"final": {split: {"accuracy": outcomes} for split in ("validation", "test")}})
    kept = SealedOutcomes(lambda: content, "outcomes.safetensors")
    return result(variant, level, seed, outcomes.metric, draw=draw, outcomes=kept)


def only(runs: list[Result], policy: GatePolicy) -> Verdict:
    (verdict,) = judge(runs, policy, "test")
    return verdict


def test_a_gate_of_one_network_is_judged_by_its_examples() -> None:
    for lost, status in ((2, Status.PASS), (9, Status.INCONCLUSIVE), (40, Status.FAIL)):
        dense, sparse = bits(lost, 1)
        verdict = only([one_run("dense", 0, dense), one_run("ticket", 1, sparse)], ONE)
        assert verdict.status is status
        assert verdict.bound == pytest.approx(accuracies(dense, sparse).high)
        assert verdict.estimate == pytest.approx(100 * (lost - 1) / 360)


def test_draws_of_a_control_are_averaged_example_by_example() -> None:
    dense, first = bits(6, 2)
    second = replace(first, values=np.roll(first.values, 100))
    runs = [
        one_run("dense", 0, dense),
        *(one_run("random_reinit", 1, one, draw=d) for d, one in enumerate((first, second))),
    ]
    verdict = only(runs, ONE)
    assert verdict.estimate == pytest.approx(100 * 4 / 360)
    assert verdict.examples is not None
    assert verdict.examples.estimate == pytest.approx(verdict.estimate)


def test_without_outcomes_the_means_are_compared_unless_the_recipe_asks_for_more() -> None:
    runs = [one_run("dense", 0, bits(2, 1)[0]), result("ticket", 1, 0, 99.0)]
    assert only(runs, replace(ONE, fallback="point")).status is Status.PASS
    explicit = only(runs, ONE)
    assert explicit.status is Status.INCONCLUSIVE
    assert [gap.cause for gap in explicit.gaps] == [GapCause.NO_OUTCOMES]
    undefined = replace(one_run("ticket", 2, bits(2, 1)[1]), outcomes=SealedOutcomes(lambda: to_bytes({}), "x"))
    undefined = replace(undefined, final=replace(undefined.final, validation={}, test={"accuracy": np.nan}))
    sound = [runs[0], one_run("ticket", 1, bits(2, 1)[1]), undefined]
    judged = judge(sound, replace(ONE, fallback="point"), "test")
    assert [verdict.examples is not None for verdict in judged] == [True, False], "one without a number takes none away"
    several = [one_run("dense", 0, bits(0, 0)[0], seed) for seed in (0, 1)]
    with pytest.raises(TicketSmithError, match="judges one network, and there are 2 seeds"):
        judge(several, ONE, "test")


def kept() -> OfStates:
    losses, sizes = np.linspace(1.0, 2.0, 30, dtype=np.float32), np.full(30, 64)
    language = {
        "loss": Outcomes(losses, sizes, np.array([10, 20])),
        "perplexity": Outcomes(losses, sizes, np.array([10, 20]), exponential=True),
    }
    return {"final": {"test": {**language, "accuracy": bits(3, 2)[1]}}, "early_stop": {"test": language}}


def test_what_is_kept_comes_back_and_equal_arrays_are_kept_once() -> None:
    content = to_bytes(kept())
    assert content == to_bytes(kept())
    assert len(content) < 30 * 4 * 2 + 8 + 45 + 1_500, "losses, sizes, documents and bits once each, and a header"
    back = from_bytes(content, "x")
    for at, splits in kept().items():
        for metric, outcomes in splits["test"].items():
            again = back[at]["test"][metric]
            assert again.metric == outcomes.metric
            for part in ("values", "sizes", "documents"):
                np.testing.assert_array_equal(getattr(again, part), getattr(outcomes, part))


def test_bad_bytes_are_refused_by_name() -> None:
    content = to_bytes(kept())
    lies = [
        content[:-1],
        b"",
        content.replace(b'\\"examples\\":360', b'\\"examples\\":999'),
        content.replace(b'\\"format\\":1', b'\\"format\\":2'),
        content.replace(np.float32(1.0).tobytes(), np.float32(np.nan).tobytes(), 1),
        content.replace(b"final/test/loss/documents", b"final/test/loss/nowhere___"),
    ]
    assert content not in lies
    for bad in lies:
        with pytest.raises(DamagedRunError, match=r"^seed-0/outcomes\.safetensors is not what TicketSmith writes"):
            SealedOutcomes(lambda bad=bad: bad, "seed-0/outcomes.safetensors").of("loss", "test", "final")  # type: ignore[misc]
