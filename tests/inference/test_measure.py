"""The benchmark: only right answers are timed, equal models are not told apart, different ones are."""

from __future__ import annotations

import gc
import random

import pytest
import torch
from torch import Tensor, nn

from tests.inference.rivals import Broken, Clock, Clocked, Fussy, Lying, Slow, candidate, images, lenet
from ticketsmith.errors import RecipeError, TaskError
from ticketsmith.evidence.serving import Timing
from ticketsmith.inference.agreement import WrongOutputError
from ticketsmith.inference.csr import Csr
from ticketsmith.inference.eager import Eager
from ticketsmith.inference.measure import FEWEST_ROUNDS, measure
from ticketsmith.inference.runtimes import CannotRunError, Runtime


def test_a_runtime_that_lies_is_refused_before_anything_is_timed() -> None:
    clock = Clock()
    with pytest.raises(WrongOutputError, match=r"'lying' on dense level 0 seed 0 gives other outputs .* not timed"):
        measure(
            candidate(),
            [candidate(1)],
            images,
            runtimes=[Clocked("honest", clock, lambda: 1e-3), Lying()],
            batch_sizes=[1],
            rounds=10,
            clock=clock,
        )
    assert clock.now < 0.0055  # the five copies of the reference were checked by a call each, and none was timed


def test_a_slow_runtime_measures_slow() -> None:
    benchmark = measure(
        candidate(), [candidate(1, 0.9)], images, runtimes=[Eager(), Slow()], batch_sizes=[4], rounds=30
    )
    slow = [timing for timing in benchmark.timings if timing.runtime == "slow"]
    assert len(slow) == 2
    for timing in slow:
        assert timing.claimed
        assert timing.speedup_high < 1.0
        assert 0.1 < timing.speedup < 0.6


def test_ratios_latencies_and_throughput_are_those_of_the_clock() -> None:
    clock = Clock()
    benchmark = measure(
        candidate(),
        [candidate(1)],
        images,
        runtimes=[Clocked("plain", clock, lambda: 3e-3), Clocked("quick", clock, lambda: 1e-3)],
        batch_sizes=[1, 8],
        rounds=12,
        clock=clock,
    )
    assert [(t.variant, t.runtime, t.batch_size) for t in benchmark.timings] == [
        (variant, runtime, size) for size in (1, 8) for variant in ("dense", "ticket") for runtime in ("plain", "quick")
    ]
    by_place = {(t.variant, t.runtime, t.batch_size): t for t in benchmark.timings}
    quick, plain = by_place["ticket", "quick", 8], by_place["ticket", "plain", 8]
    assert (quick.median_ms, quick.p10_ms, quick.p90_ms) == pytest.approx((1.0, 1.0, 1.0))
    assert quick.throughput == pytest.approx(8000)
    assert (quick.speedup, quick.speedup_low, quick.speedup_high) == pytest.approx((3.0, 3.0, 3.0))
    assert quick.claimed
    assert (quick.rounds, quick.threads) == (12, 1)
    assert plain.speedup == pytest.approx(1.0)
    assert not plain.claimed
    assert (benchmark.reference, benchmark.reference_key) == ("plain", "key0")
    assert "noise" not in benchmark.machine
    assert "up to 0 % at batch size 1, 0 % at batch size 8." in benchmark.machine["resolution"]


def test_equal_models_on_a_noisy_clock_are_not_told_apart() -> None:
    chance, clock = random.Random(0), Clock()
    noisy = Clocked("noisy", clock, lambda: 1e-3 * chance.lognormvariate(0, 0.2))
    tickets = [candidate(level) for level in range(1, 11)]
    benchmark = measure(candidate(), tickets, images, runtimes=[noisy], batch_sizes=[1], rounds=60, clock=clock)
    assert not any(timing.claimed for timing in benchmark.timings)
    assert all(timing.speedup_low < timing.speedup < timing.speedup_high for timing in benchmark.timings[1:])


def test_a_small_but_steady_gain_is_found_in_the_noise() -> None:
    chance, clock = random.Random(0), Clock()

    def runtime(name: str, seconds: float) -> Clocked:
        return Clocked(name, clock, lambda: seconds * chance.lognormvariate(0, 0.1))

    rivals = [runtime("plain", 1e-3), runtime("quick", 0.8e-3)]
    benchmark = measure(candidate(), [], images, runtimes=rivals, batch_sizes=[1], rounds=100, clock=clock)
    quick = benchmark.timings[1]
    assert quick.claimed
    assert quick.speedup_low < 1.25 < quick.speedup_high


def test_a_machine_that_slows_down_is_told_and_the_ratios_stand() -> None:
    clock = Clock()
    plain = Clocked("plain", clock, lambda: 1e-3 * (1 + 20 * clock.now))
    quick = Clocked("quick", clock, lambda: 0.5e-3 * (1 + 20 * clock.now))
    benchmark = measure(candidate(), [], images, runtimes=[plain, quick], batch_sizes=[1], rounds=30, clock=clock)
    assert "slower from the first third" in benchmark.machine["noise"]
    assert "batch size 1" in benchmark.machine["noise"]
    assert benchmark.timings[1].speedup == pytest.approx(2.0, rel=0.2)


def test_calls_shorter_than_a_sample_are_timed_in_numbers() -> None:
    clock, calls = Clock(), [0]

    def tiny() -> float:
        calls[0] += 1
        return 1e-6

    benchmark = measure(
        candidate(), [], images, runtimes=[Clocked("tiny", clock, tiny)], batch_sizes=[1], rounds=10, clock=clock
    )
    assert benchmark.timings[0].median_ms == pytest.approx(1e-3)
    assert calls[0] > 10 * 5 * 200  # rounds x copies x calls that fill a sample of 0.2 ms


def test_a_budget_leaves_out_rounds_and_says_so() -> None:
    def raced(seconds: float | None) -> Timing:
        clock = Clock()
        runtime = Clocked("plain", clock, lambda: 1e-2)
        told: list[tuple[int, int]] = []
        benchmark = measure(
            candidate(),
            [],
            images,
            runtimes=[runtime],
            batch_sizes=[1],
            rounds=100,
            seconds=seconds,
            progress=lambda done, total: told.append((done, total)),
            clock=clock,
        )
        assert told == [(done, 100) for done in range(1, benchmark.timings[0].rounds + 1)]
        return benchmark.timings[0]

    assert raced(None).rounds == 100
    assert FEWEST_ROUNDS < raced(5.0).rounds < 100
    assert raced(0.0).rounds == FEWEST_ROUNDS


def test_what_cannot_run_is_listed_with_its_reason() -> None:
    clock = Clock()
    runtimes: list[Runtime] = [Clocked("plain", clock, lambda: 1e-3), Fussy(), Broken(), Csr()]
    benchmark = measure(candidate(), [], images, runtimes=runtimes, batch_sizes=[2], rounds=10, clock=clock)
    assert [timing.runtime for timing in benchmark.timings] == ["plain"]
    reasons = {refusal.runtime: refusal.reason for refusal in benchmark.refusals}
    assert reasons["fussy"] == "this machine lacks the instructions."
    assert reasons["broken"].endswith("fails: ValueError: no kernel")
    assert "no linear layer has 70 % zeros" in reasons["torch_csr"]
    with pytest.raises(CannotRunError, match="instructions"):
        measure(candidate(), [], images, runtimes=[Fussy(), Eager()], batch_sizes=[1], rounds=10)


def test_a_model_without_finite_outputs_is_refused() -> None:
    model = lenet()
    with torch.no_grad():
        next(model.parameters()).fill_(torch.nan)
    clock = Clock()
    benchmark = measure(
        candidate(),
        [candidate(1, model=model)],
        images,
        runtimes=[Clocked("plain", clock, lambda: 1e-3)],
        batch_sizes=[1],
        rounds=10,
        clock=clock,
    )
    assert [refusal.level for refusal in benchmark.refusals] == [1]
    assert "not finite" in benchmark.refusals[0].reason


def test_a_model_of_several_outputs_is_refused() -> None:
    class Two(nn.Module):
        def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
            return inputs, inputs

    with pytest.raises(CannotRunError, match="tuple"):
        measure(candidate(model=Two()), [], images, runtimes=[Eager()], batch_sizes=[1], rounds=10)


def test_the_process_is_left_as_it_was() -> None:
    seen: list[tuple[int, bool, bool]] = []
    clock = Clock()

    def seconds() -> float:
        seen.append((torch.get_num_threads(), gc.isenabled(), torch.are_deterministic_algorithms_enabled()))
        return 1e-3

    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(2)
    torch.use_deterministic_algorithms(True)
    try:
        runtimes = [Clocked("plain", clock, seconds)]
        measure(candidate(), [], images, runtimes=runtimes, batch_sizes=[1], rounds=10, threads=1, clock=clock)
        assert set(seen) == {(1, False, False)}
        assert torch.get_num_threads() == 2
        assert torch.are_deterministic_algorithms_enabled()
        assert gc.isenabled()
    finally:
        torch.use_deterministic_algorithms(strict)
        torch.set_num_threads(threads)


@pytest.mark.parametrize(
    "wrong",
    [
        {"runtimes": []},
        {"runtimes": [Eager(), Eager()]},
        {"batch_sizes": []},
        {"batch_sizes": [0]},
        {"rounds": 0},
        {"threads": 0},
        {"confidence": 1.0},
    ],
)
def test_senseless_settings_are_refused(wrong: dict[str, object]) -> None:
    settings: dict[str, object] = {"runtimes": [Eager()], "batch_sizes": [1], "rounds": 10, **wrong}
    with pytest.raises(RecipeError):
        measure(candidate(), [], images, **settings)  # type: ignore[arg-type]


def test_inputs_of_another_batch_size_are_refused() -> None:
    with pytest.raises(TaskError, match="3 inputs where 4"):
        measure(candidate(), [], lambda size: images(size - 1), runtimes=[Eager()], batch_sizes=[4], rounds=10)
