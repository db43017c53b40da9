"""What the benchmark asks of the machine: peaks, noise, pinned cores, memory."""

from __future__ import annotations

import os

import pytest
import torch
from torch import nn

from tests.inference.rivals import images, lenet
from ticketsmith.errors import RecipeError
from ticketsmith.evidence.serving import Peaks
from ticketsmith.inference.measuring import memory, peaks
from ticketsmith.inference.measuring.surroundings import State, Surroundings, pinned, signs
from ticketsmith.inference.measuring.weights import work


def test_peaks_are_measured_and_bound_a_call() -> None:
    found = peaks.measure(1)
    assert found.threads == 1
    assert found.flops > 1e9
    assert found.bytes > 1e8
    assert [size for size, _ in found.reads] == sorted(size for size, _ in found.reads)
    assert found.bytes == found.reads[-1][1]


def test_the_bound_is_the_slower_of_arithmetic_and_reading() -> None:
    peak = Peaks(1, 1e11, 1e10, ((1000, 1e11), (1_000_000, 1e10)))
    assert peaks.bound(peak, 1e9, 100) == pytest.approx(1e-2)
    assert peaks.bound(peak, 1.0, 10_000_000) == pytest.approx(1e-3)
    assert peaks.bandwidth(peak.reads, 10) == 1e11
    assert peaks.bandwidth(peak.reads, 1000 * 1000**0.5) == pytest.approx(10**10.5)


def test_work_counts_weights_that_are_not_zero_wherever_they_are_used() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.Flatten(), nn.Linear(4 * 36, 5, bias=False)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0)
        model[0].weight[:2] = 0
    inputs = torch.ones(3, 1, 8, 8)
    found = work(model, model, inputs)
    assert found.flops == 2 * 3 * (18 * 36 + 5 * 144)
    assert found.bytes("float32") == 4 * (18 + 720) + 4 * (3 * 64 + 3 * 5)
    assert found.bytes("int8") == (18 + 720) + 4 * (3 * 64 + 3 * 5)


def test_what_others_take_of_the_machine_is_told() -> None:
    before = State(own=10.0, cores=(100.0, 1.0, 1000.0), megahertz=3000.0)
    quiet = State(own=15.0, cores=(105.2, 1.0, 1010.0), megahertz=3010.0)
    assert signs(before, quiet) == []
    busy = State(own=15.0, cores=(109.0, 1.5, 1010.0), megahertz=2000.0)
    assert signs(before, busy) == [
        "other processes used 40 % of the machine's cores",
        "the host of this virtual machine took 5 % of its cores' time away",
        "the cores' clock rate was 33 % lower at the end",
    ]
    assert signs(State(1.0), State(2.0)) == []
    assert Surroundings().state().own > 0


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system pins no threads")
def test_a_thread_is_pinned_and_let_go() -> None:
    before = os.sched_getaffinity(0)
    with pinned(1) as cores:
        assert len(cores) == 1
        assert os.sched_getaffinity(0) == set(cores)
    assert os.sched_getaffinity(0) == before


def test_a_batch_that_does_not_fit_is_refused_with_one_that_does(monkeypatch: pytest.MonkeyPatch) -> None:
    model = lenet()
    memory.check(model, images, [1, 64], torch.device("cpu"))
    monkeypatch.setattr(memory, "available", lambda: 3_000_000)
    with pytest.raises(RecipeError, match=r"batch size 4096 needs about .* GiB; .* Choose 318 or less"):
        memory.check(model, images, [1, 4096], torch.device("cpu"))
