"""How often the tests of one network by examples are wrong where they promise 5 %: enumerated where possible, else drawn.

    python benchmarks/example_tests.py [--experiments 20000]

Bits: a network whose share of right answers falls by exactly the margin passes (or, other tail, fails) more often than
promised? The number of examples on which it differs is binomial, and so are the losses among these, so that the size is a sum
and no simulation; a column has it simulated as well. Losses: normal, skewed and heavy-tailed differences by document, and
windows of one text whose differences are correlated, worse than dense by exactly the margin.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from ticketsmith.evidence.examples import difference, paired_shares
from ticketsmith.evidence.outcomes import Outcomes

MARGINS = (0.005, 0.01, 0.02)
SIZES = (200, 360, 1_000, 10_000)
DISCORDANCES = (0.005, 0.01, 0.02, 0.05, 0.1)
CONFIDENCE = 0.95

Draw = Callable[[np.random.Generator, int], NDArray[np.float64]]


@cache
def decides(lost: int, gained: int, count: int, margin: float) -> tuple[bool, bool]:
    """Whether the test passes, and whether it fails, a network with these losses and gains."""
    _, low, high = paired_shares(lost, gained, count, CONFIDENCE)
    return high <= margin, low > margin


def exact_size(count: int, discordance: float, margin: float) -> tuple[float, float]:
    """The chance of a false PASS and of a false FAIL where the share truly falls by the margin.

    Both are monotone in the losses among the examples that differ, so that one limit is sought for each number of them.
    """
    differing = np.arange(count + 1)
    weight = binom.pmf(differing, count, discordance)
    share, passes, fails = (discordance + margin) / 2.0 / discordance, 0.0, 0.0
    for m in differing[weight > 1e-9]:
        low, high = -1, int(m)  # the most losses that pass
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if decides(middle, int(m) - middle, count, margin)[0] else (low, middle - 1)
        first, last = 0, int(m) + 1  # the fewest that fail
        while first < last:
            middle = (first + last) // 2
            first, last = (first, middle) if decides(middle, int(m) - middle, count, margin)[1] else (middle + 1, last)
        passes += weight[m] * binom.cdf(low, m, share)
        fails += weight[m] * binom.sf(first - 1, m, share)
    return passes, fails


def simulated_size(
    random: np.random.Generator, count: int, discordance: float, margin: float, experiments: int
) -> float:
    """The same by drawing experiments."""
    cells = [(discordance + margin) / 2.0, (discordance - margin) / 2.0, 1.0 - discordance]
    drawn = random.multinomial(count, cells, experiments)
    return float(np.mean([decides(int(lost), int(gained), count, margin)[0] for lost, gained, _ in drawn]))


def bits(experiments: int) -> None:
    random = np.random.default_rng(0)
    print(f"bits: wrong at the margin, in % (promised {100 * (1 - CONFIDENCE):.0f})")
    print("examples  margin  discordance  false PASS  simulated  false FAIL")
    worst = (0.0, 0.0)
    for count in SIZES:
        for margin in MARGINS:
            for discordance in DISCORDANCES:
                if discordance < margin:
                    continue
                passes, fails = exact_size(count, discordance, margin)
                drawn = simulated_size(random, count, discordance, margin, experiments)
                worst = max(worst[0], passes), max(worst[1], fails)
                print(
                    f"{count:8,}  {100 * margin:5.1f}  {100 * discordance:10.1f}  {100 * passes:10.2f}  {100 * drawn:9.2f}  "
                    f"{100 * fails:10.2f}"
                )
            decides.cache_clear()
    print(f"largest: false PASS {100 * worst[0]:.2f}, false FAIL {100 * worst[1]:.2f}\n")


def _centred(draw: Draw, mean: float) -> Draw:
    return lambda random, n: draw(random, n) - mean


DISTRIBUTIONS: dict[str, Draw] = {
    "normal": lambda random, n: random.normal(size=n),
    "t, 3 degrees": lambda random, n: random.standard_t(3, n),
    "lognormal, 0.5": _centred(lambda random, n: random.lognormal(0.0, 0.5, n), float(np.exp(0.125))),
    "lognormal, 1": _centred(lambda random, n: random.lognormal(0.0, 1.0, n), float(np.exp(0.5))),
    "minus lognormal, 1": _centred(lambda random, n: -random.lognormal(0.0, 1.0, n), -float(np.exp(0.5))),
}


def correlated(correlation: float) -> Draw:
    """Neighbours that are correlated, as windows of one text are."""

    def draw(random: np.random.Generator, n: int) -> NDArray[np.float64]:
        from scipy.signal import lfilter

        shocks = random.normal(size=n + 200)
        return np.asarray(lfilter([np.sqrt(1.0 - correlation**2)], [1.0, -correlation], shocks))[200:]

    return draw


def losses_at_the_margin(
    random: np.random.Generator, draw: Draw, n: int, relative: bool, text: bool, experiments: int
) -> tuple[float, float]:
    """How often a network that is worse by exactly the margin passes, and fails. Loss by loss its spread is a tenth."""
    margin, passes, fails = 0.05, 0, 0
    documents = np.array([n]) if text else None
    for _ in range(experiments):
        dense = 3.0 + 0.5 * random.normal(size=n)
        worse = (margin * dense if relative else margin) + 0.1 * draw(random, n)
        sides = [[Outcomes(values, documents=documents)] for values in (dense, dense + worse)]
        found = difference(*sides, CONFIDENCE, higher_is_better=False, relative=relative)
        assert found is not None
        passes, fails = passes + (found.high <= margin), fails + (found.low > margin)
    return passes / experiments, fails / experiments


def losses(experiments: int) -> None:
    random = np.random.default_rng(1)
    print("losses: wrong at the margin, in %")
    print("differences         clusters of              n   gate      false PASS  false FAIL")
    cases = [(name, draw, n, False) for name, draw in DISTRIBUTIONS.items() for n in (20, 60, 200, 1_000)]
    cases += [
        (f"correlation {correlation:g}", correlated(correlation), n, True)
        for correlation in (0.0, 0.3, 0.5, 0.8)
        for n in (200, 1_743)
    ]
    for name, draw, n, text in cases:
        for relative in (False, True):
            passes, fails = losses_at_the_margin(random, draw, n, relative, text, experiments)
            unit = "windows of one text" if text else "documents"
            gate = "relative" if relative else "absolute"
            print(f"{name:18s}  {unit:19s}  {n:6,}   {gate}  {100 * passes:10.2f}  {100 * fails:10.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiments", type=int, default=20_000)
    options = parser.parse_args()
    bits(options.experiments)
    losses(max(1, options.experiments // 4))
