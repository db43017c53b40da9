"""What interleaved rounds say: latencies, ratios with bootstrap intervals, and whether the machine was quiet."""

from __future__ import annotations

import numpy as np

from ticketsmith.evidence.rounds import Bootstrap as Bootstrap
from ticketsmith.evidence.rounds import Ratio as Ratio
from ticketsmith.evidence.rounds import Rounds
from ticketsmith.evidence.rounds import resolution as resolution
from ticketsmith.units import percent

_SPREAD = 1.5
_DRIFT = 1.1
_FEWEST_FOR_DRIFT = 9


def noise(reference: Rounds) -> list[str]:
    """Signs in the reference's rounds, in their order of time, that the machine had other things to do; in words."""
    p10, p90 = np.quantile(reference, (0.1, 0.9))
    signs = []
    if p90 > _SPREAD * p10:
        signs.append(f"the slow rounds of the reference (p90) take {p90 / p10:.1f} times its fast ones (p10)")
    third = len(reference) // 3
    if len(reference) >= _FEWEST_FOR_DRIFT:
        drift = float(np.median(reference[-third:]) / np.median(reference[:third]))
        if not 1 / _DRIFT <= drift <= _DRIFT:
            change = f"{percent(round(abs(drift - 1), 2))} {'slower' if drift > 1 else 'faster'}"
            signs.append(f"the reference got {change} from the first third of the rounds to the last")
    return signs
