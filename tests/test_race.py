"""The loop in which all rivals are timed: in turn, and without those that have no hope."""

from __future__ import annotations

import numpy as np

from tests.inference.rivals import Clock
from ticketsmith.race import Runner, Stopwatch, race


def test_rivals_take_turns_and_those_without_hope_leave_after_two_rounds() -> None:
    clock, turns = Clock(), []

    def rival(name: str, seconds: float) -> Runner:
        def run(inputs: None) -> None:
            clock.now += seconds
            turns.append(name)

        return Runner(run, None)

    runners = [rival("first", 3.0), rival("fast", 1.0), rival("slow", 1.6), rival("near", 1.4)]
    latencies = race(runners, [1, 2, 1, 1], Stopwatch(clock, first=0), rounds=6, hopeless=1.5)
    np.testing.assert_allclose(latencies[:2], [[3.0, 1.0, 1.6, 1.4]] * 2)
    np.testing.assert_allclose(latencies[2:], [[3.0, 1.0, np.nan, 1.4]] * 4)
    rounds = [set(turns[begin : begin + 5]) for begin in (0, 5)]
    assert rounds == [{"first", "fast", "slow", "near"}] * 2


def test_what_comes_before_a_sample_is_not_timed() -> None:
    clock = Clock()

    def rest() -> None:
        clock.now += 100.0

    def run(inputs: None) -> None:
        clock.now += 2.0

    assert Stopwatch(clock, prepare=rest, first=3).sample(Runner(run, None), calls=4) == 2.0
