"""The benchmark: only right answers are timed, equal models are not told apart, different ones are."""

from __future__ import annotations

import gc
import random

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.inference.rivals import (
    Broken,
    Clock,
    Clocked,
    Fussy,
    Lying,
    Slow,
    Still,
    Zeros,
    candidate,
    images,
    lenet,
    raced,
)
from ticketsmith.errors import RecipeError, TaskError
from ticketsmith.evidence.serving import Timing
from ticketsmith.inference.runtimes import Call, CannotRunError, Runtime
from ticketsmith.inference.runtimes.csr import Csr
from ticketsmith.inference.runtimes.eager import Eager
from ticketsmith.race import FEWEST_ROUNDS


def test_a_runtime_that_lies_is_refused_before_anything_is_timed() -> None:
    clock = Clock()
    honest = Clocked("honest", clock, lambda: 1e-3)
    benchmark = raced(
        candidate(), [candidate(1)], images, runtimes=[honest, Lying()], batch_sizes=[1], rounds=10, clock=clock
    )
    assert {timing.runtime for timing in benchmark.timings} == {"honest"}
    assert [refusal.runtime for refusal in benchmark.refusals] == ["lying", "lying"]
    told = "'lying' on dense level 0 seed 0 gives other outputs than eager PyTorch: they differ by up to"
    assert told in benchmark.refusals[0].reason
    assert "not timed" in benchmark.refusals[0].reason
    with pytest.raises(CannotRunError, match="nothing could be run: lying"):
        raced(candidate(), [], images, runtimes=[Lying()], batch_sizes=[1], rounds=10, clock=clock)


def test_a_slow_runtime_measures_slow() -> None:
    benchmark = raced(candidate(), [candidate(1, 0.9)], images, runtimes=[Eager(), Slow()], batch_sizes=[4], rounds=30)
    slow = [timing for timing in benchmark.timings if timing.runtime == "slow"]
    assert len(slow) == 2
    for timing in slow:
        assert timing.claimed
        assert timing.speedup_high < 1.0
        assert 0.1 < timing.speedup < 0.6


def test_ratios_latencies_and_throughput_are_those_of_the_clock() -> None:
    clock = Clock()
    benchmark = raced(
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
    strongest = by_place["dense", "quick", 8]
    assert (quick.median_ms, quick.p10_ms, quick.p90_ms) == pytest.approx((1.0, 1.0, 1.0))
    assert quick.throughput == pytest.approx(8000)
    assert (strongest.speedup, strongest.against, strongest.claimed) == (1.0, "quick", False)
    assert (quick.speedup, quick.speedup_low, quick.speedup_high) == pytest.approx((1.0, 1.0, 1.0))
    assert not quick.claimed
    assert (quick.rounds, quick.threads) == (12, 1)
    assert (plain.speedup, plain.against) == (pytest.approx(1 / 3), "quick")
    assert plain.claimed
    assert (benchmark.reference, benchmark.reference_key) == ("plain", "key0")
    assert "noise" not in benchmark.machine
    assert "up to 0 % at batch size 1, 0 % at batch size 8." in benchmark.machine["resolution"]


def test_equal_models_on_a_noisy_clock_are_not_told_apart() -> None:
    chance, clock = random.Random(0), Clock()
    noisy = Clocked("noisy", clock, lambda: 1e-3 * chance.lognormvariate(0, 0.2))
    tickets = [candidate(level) for level in range(1, 11)]
    benchmark = raced(candidate(), tickets, images, runtimes=[noisy], batch_sizes=[1], rounds=60, clock=clock)
    assert not any(timing.claimed for timing in benchmark.timings)
    assert all(timing.speedup_low < timing.speedup < timing.speedup_high for timing in benchmark.timings[1:])


def test_a_small_but_steady_gain_is_found_in_the_noise() -> None:
    chance, clock = random.Random(0), Clock()

    def runtime(name: str, seconds: float) -> Clocked:
        return Clocked(name, clock, lambda: seconds * chance.lognormvariate(0, 0.1))

    rivals = [runtime("slower", 1.25e-3), runtime("quick", 1e-3)]
    benchmark = raced(candidate(), [], images, runtimes=rivals, batch_sizes=[1], rounds=100, clock=clock)
    slower = benchmark.timings[0]
    assert slower.claimed
    assert slower.speedup_low < 0.8 < slower.speedup_high


def test_a_machine_that_slows_down_is_told_and_the_ratios_stand() -> None:
    clock = Clock()
    plain = Clocked("plain", clock, lambda: 1e-3 * (1 + 20 * clock.now))
    quick = Clocked("quick", clock, lambda: 0.5e-3 * (1 + 20 * clock.now))
    benchmark = raced(candidate(), [], images, runtimes=[plain, quick], batch_sizes=[1], rounds=30, clock=clock)
    assert "slower from the first third" in benchmark.machine["noise"]
    assert "batch size 1" in benchmark.machine["noise"]
    assert benchmark.timings[0].speedup == pytest.approx(0.5, rel=0.2)


def test_calls_shorter_than_a_sample_are_timed_in_numbers() -> None:
    clock, calls = Clock(), [0]

    def tiny() -> float:
        calls[0] += 1
        return 1e-6

    benchmark = raced(
        candidate(), [], images, runtimes=[Clocked("tiny", clock, tiny)], batch_sizes=[1], rounds=10, clock=clock
    )
    assert benchmark.timings[0].median_ms == pytest.approx(1e-3)
    assert calls[0] > 10 * 5 * 200  # rounds x copies x calls that fill a sample of 0.2 ms


def test_a_budget_leaves_out_rounds_and_says_so() -> None:
    def told_rounds(seconds: float | None) -> Timing:
        clock = Clock()
        runtime = Clocked("plain", clock, lambda: 1e-2)
        told: list[tuple[int, int]] = []
        benchmark = raced(
            candidate(),
            [],
            images,
            runtimes=[runtime],
            batch_sizes=[1],
            rounds=100,
            budget=seconds,
            progress=lambda what, done, total: told.append((done, total)) if what.startswith("racing") else None,
            clock=clock,
        )
        assert told == [(done, 100) for done in range(1, benchmark.timings[0].rounds + 1)]
        return benchmark.timings[0]

    assert told_rounds(None).rounds == 100
    assert FEWEST_ROUNDS < told_rounds(10.0).rounds < 100
    assert told_rounds(1e-9).rounds == FEWEST_ROUNDS


def test_what_cannot_run_is_listed_with_its_reason() -> None:
    clock = Clock()
    runtimes: list[Runtime] = [Clocked("plain", clock, lambda: 1e-3), Fussy(), Broken(), Csr()]
    benchmark = raced(candidate(), [], images, runtimes=runtimes, batch_sizes=[2], rounds=10, clock=clock)
    assert [timing.runtime for timing in benchmark.timings] == ["plain"]
    reasons = {refusal.runtime: refusal.reason for refusal in benchmark.refusals}
    assert reasons["fussy"] == "this machine lacks the instructions."
    assert reasons["broken"].endswith("fails: ValueError: no kernel")
    assert "no linear layer has 70 % zeros" in reasons["torch_csr"]
    with pytest.raises(CannotRunError, match="nothing could be run: fussy: this machine lacks the instructions"):
        raced(candidate(), [], images, runtimes=[Fussy()], batch_sizes=[1], rounds=10)


def test_a_model_without_finite_outputs_is_refused() -> None:
    model = lenet()
    with torch.no_grad():
        next(model.parameters()).fill_(torch.nan)
    clock = Clock()
    benchmark = raced(
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
        raced(candidate(model=Two()), [], images, runtimes=[Eager()], batch_sizes=[1], rounds=10)


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
        raced(candidate(), [], images, runtimes=runtimes, batch_sizes=[1], rounds=10, threads=[1], clock=clock)
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
        {"threads": [0]},
        {"threads": []},
        {"confidence": 1.0},
    ],
)
def test_senseless_settings_are_refused(wrong: dict[str, object]) -> None:
    settings: dict[str, object] = {"runtimes": [Eager()], "batch_sizes": [1], "rounds": 10, **wrong}
    with pytest.raises(RecipeError):
        raced(candidate(), [], images, **settings)  # type: ignore[arg-type]


def test_inputs_of_another_batch_size_are_refused() -> None:
    with pytest.raises(TaskError, match="3 inputs where 4"):
        raced(candidate(), [], lambda size: images(size - 1), runtimes=[Eager()], batch_sizes=[4], rounds=10)


def test_speed_ups_are_against_the_strongest_dense_runtime_of_the_same_precision() -> None:
    clock = Clock()
    weak, strong = Clocked("weak", clock, lambda: 4e-3), Clocked("strong", clock, lambda: 2e-3)
    low = Clocked("low", clock, lambda: 1e-3)
    low.precision = "bfloat16"  # type: ignore[attr-defined]
    runtimes = [weak, strong, low, Zeros(clock, 1.5e-3), Zeros(clock, 0.8e-3, "half", "bfloat16")]
    benchmark = raced(
        candidate(), [candidate(1, 0.9)], images, runtimes=runtimes, batch_sizes=[2], rounds=10, clock=clock
    )
    by_place = {(timing.variant, timing.runtime): timing for timing in benchmark.timings}
    sparse, half = by_place["ticket", "zeros"], by_place["ticket", "half"]
    assert (sparse.against, half.against, by_place["dense", "weak"].against) == ("strong", "low", "strong")
    assert sparse.speedup == pytest.approx(2e-3 / (1.5e-3 * 0.1), rel=0.05)
    assert half.speedup == pytest.approx(1e-3 / (0.8e-3 * 0.1), rel=0.05)
    assert not sparse.dense
    assert half.agreement == 1.0
    assert "same class for at least 100 %" in benchmark.machine["outputs"]
    assert (half.roofline, sparse.tolerance, half.tolerance) == (None, 1e-4, 0.05)


def test_without_a_dense_runtime_of_its_precision_nothing_is_claimed() -> None:
    clock = Clock()
    runtimes: list[Runtime] = [Clocked("plain", clock, lambda: 1e-3), Zeros(clock, 1e-3, precision="int8")]
    benchmark = raced(
        candidate(), [candidate(1, 0.9)], images, runtimes=runtimes, batch_sizes=[1], rounds=10, clock=clock
    )
    alone = [timing for timing in benchmark.timings if timing.precision == "int8"]
    assert len(alone) == 2
    assert not any(timing.claimed or timing.against for timing in alone)
    assert "No dense runtime ran in int8" in benchmark.machine["not compared"]


def test_low_precision_that_changes_classes_is_refused() -> None:
    class Coarse:
        name, precision, dense = "coarse", "int8", False

        def prepare(self, model: nn.Module, example: Tensor) -> Call:
            """The two largest outputs changed places, by less than the tolerance."""

            def call(inputs: Tensor) -> Tensor:
                outputs = model(inputs).detach().clone()
                best = outputs.topk(2, dim=1).indices
                return outputs.scatter(1, best, outputs.gather(1, best.flip(1)))

            return call

    model = lenet()
    with torch.no_grad():
        model.get_parameter("output.weight").mul_(1e-3)
        model.get_parameter("output.bias").copy_(torch.linspace(1.0, 1.01, 10))
    benchmark = raced(candidate(model=model), [], images, runtimes=[Eager(), Coarse()], batch_sizes=[4], rounds=10)
    assert [refusal.runtime for refusal in benchmark.refusals] == ["coarse (int8)"]
    assert "the same class as float32 for only 0 % of the inputs" in benchmark.refusals[0].reason


def test_the_roofline_is_what_cannot_be_avoided() -> None:
    clock = Clock()
    runtimes: list[Runtime] = [Clocked("plain", clock, lambda: 1e-3), Zeros(clock, 1e-3)]
    benchmark = raced(
        candidate(), [candidate(1, 0.9)], images, runtimes=runtimes, batch_sizes=[8], rounds=10, clock=clock
    )
    dense, ticket = benchmark.timings[0], benchmark.timings[3]
    assert dense.flops == 2 * 8 * 266_200
    assert dense.bytes == 4 * (266_200 + 8 * (784 + 10))
    assert ticket.flops == pytest.approx(0.1 * dense.flops, rel=0.03)
    reading = 1e10 * (1e7 / dense.bytes) ** (np.log(4) / np.log(1e4))  # between the sizes that Still measured
    assert dense.roofline == pytest.approx(max(dense.flops / 1e11, dense.bytes / reading) / 1e-3, rel=1e-3)
    assert benchmark.peaks == (Still().peaks(1),)


def test_several_batch_sizes_and_threads_are_cells_of_their_own() -> None:
    clock, seen = Clock(), set()

    def seconds() -> float:
        seen.add(torch.get_num_threads())
        return 1e-3

    benchmark = raced(
        candidate(),
        [],
        images,
        runtimes=[Clocked("plain", clock, seconds)],
        batch_sizes=[1, 4],
        threads=[1, 2],
        rounds=10,
        clock=clock,
    )
    assert seen == {1, 2}
    assert [(timing.threads, timing.batch_size) for timing in benchmark.timings] == [(1, 1), (1, 4), (2, 1), (2, 4)]
    assert benchmark.timings[-1].throughput == pytest.approx(4000)


def test_dense_runtimes_need_not_run_every_model() -> None:
    clock = Clock()
    runtimes: list[Runtime] = [Clocked(name, clock, lambda: 1e-3) for name in ("first", "second")]
    runtimes.append(Zeros(clock, 1e-3))
    how = {"runtimes": runtimes, "batch_sizes": [1], "rounds": 10, "clock": clock}
    benchmark = raced(candidate(), [candidate(1, 0.5)], images, everywhere=False, **how)
    pairs = [(timing.variant, timing.runtime) for timing in benchmark.timings]
    assert pairs == [(variant, runtime) for variant, runtimes in (
        ("dense", ("first", "second", "zeros")), ("ticket", ("first", "zeros"))
    ) for runtime in runtimes]  # fmt: skip


def test_a_race_lasts_as_long_as_asked() -> None:
    clock = Clock()
    plain = Clocked("plain", clock, lambda: 1e-2)
    benchmark = raced(candidate(), [], images, runtimes=[plain], batch_sizes=[1], rounds=10, seconds=5.0, clock=clock)
    assert benchmark.timings[0].rounds in (50, 51)  # five copies, two calls each: 0.1 s a round
    assert benchmark.timings[0].p99_ms == pytest.approx(10.0)


def test_models_that_a_budget_has_no_time_for_are_named() -> None:
    clock = Clock()

    class Slowly(Clocked):
        def prepare(self, model: nn.Module, example: Tensor) -> Call:
            clock.now += 1.0
            return super().prepare(model, example)

    runtimes = [Slowly("plain", clock, lambda: 1e-3)]
    tickets = [candidate(level) for level in range(1, 9)]
    benchmark = raced(
        candidate(), tickets, images, runtimes=runtimes, batch_sizes=[1], rounds=20, budget=6.0, clock=clock
    )
    assert [timing.level for timing in benchmark.timings] == [0, 1, 2, 3]
    assert [refusal.level for refusal in benchmark.refusals] == [4, 5, 6, 7, 8]
    assert "the time for this benchmark was over" in benchmark.refusals[0].reason
