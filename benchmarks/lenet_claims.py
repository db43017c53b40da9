"""LeNet-300-100 against the claims of Frankle & Carbin (ICLR 2019, v5), from a finished experiment.

    ticketsmith prune --config configs/lenet_300_100.yaml
    python benchmarks/lenet_claims.py --runs-prefix runs --experiment lenet_300_100

Reads the store only. Each claim is shown beside what was measured, paired by replicate, with a 95 % confidence interval
over replicates: means of differences in accuracy, and geometric means of ratios of iterations, over the draws of a replicate
first. Where an early stop is the last iteration it is a lower bound, and the row says of how many runs. A level that was not
trained is said to be missing.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from rich.console import Console
from rich.table import Table

import ticketsmith
from ticketsmith.evidence.learning import censored, ratio
from ticketsmith.evidence.results import Result
from ticketsmith.evidence.statistics import Interval, mean, t_interval

FINEST = 0.01
"""Points of accuracy that one of the 10,000 test examples is worth: no spread between seeds is taken to be smaller."""

Runs = dict[tuple[str, int], list[Result]]


def by_level(results: list[Result]) -> Runs:
    found: Runs = {}
    for result in results:
        if not result.diverged:
            found.setdefault((result.variant, result.level), []).append(result)
    return found


def differences(left: list[Result], right: list[Result], measure: Callable[[Result], float]) -> list[float]:
    """One difference of means over draws for each seed that has both."""
    means = [
        {seed: mean([measure(r) for r in runs if r.seed == seed]) for seed in {r.seed for r in runs}}
        for runs in (left, right)
    ]
    return [means[0][seed] - means[1][seed] for seed in sorted(means[0].keys() & means[1].keys())]


def accuracy(result: Result) -> float:
    assert result.early_stop is not None
    return result.early_stop.test["accuracy"]


def final_accuracy(result: Result) -> float:
    assert result.final is not None
    return result.final.test["accuracy"]


def shown(interval: Interval | None, unit: str, note: str = "") -> str:
    if interval is None:
        return "not trained yet"
    seeds = f"{interval.n} seed{'' if interval.n == 1 else 's'}"
    if interval.low is None or interval.high is None:
        return f"{interval.mean:.2f}{unit} ({seeds}{note})"
    return f"{interval.mean:.2f}{unit} ({interval.low:.2f} to {interval.high:.2f}; {seeds}{note})"


def earlier(times: Interval | None) -> Interval | None:
    """From how many times as many iterations to how many per cent fewer; the bounds change places."""
    if times is None:
        return None

    def fewer(ratio: float | None) -> float | None:
        return None if ratio is None else 100 * (1 - 1 / ratio)

    return Interval(100 * (1 - 1 / times.mean), fewer(times.low), fewer(times.high), times.n)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs-prefix", default="runs")
    parser.add_argument("--experiment", default="lenet_300_100")
    options = parser.parse_args()
    experiment = ticketsmith.open_experiment(options.experiment, options.runs_prefix)
    runs = by_level(experiment.results)
    dense = ("dense", 0)

    def times(a: tuple[str, int], b: tuple[str, int], convert: Callable[..., Interval | None] | None = None) -> str:
        """How many times as many iterations ``b`` needs to its early stop as ``a``."""
        sparse, other = runs.get(a, []), runs.get(b, [])
        interval = ratio(other, sparse)
        late = censored(sparse) + censored(other)
        note = f"; {late} of {len(sparse) + len(other)} runs censored" if late else ""
        return shown(convert(interval), " %", note) if convert else shown(interval, "x", note)

    def faster(a: tuple[str, int], b: tuple[str, int]) -> str:
        return times(a, b, earlier)

    def better(a: tuple[str, int], b: tuple[str, int], measure: Callable[[Result], float] = accuracy) -> str:
        values = differences(runs.get(a, []), runs.get(b, []), measure)
        return shown(t_interval(values, 0.95, FINEST) if values else None, " points")

    claims = [
        ("51.3 % left: minimum validation loss earlier than dense", "faster", faster(("ticket", 3), dense)),
        ("21.1 % left: minimum validation loss earlier than dense", "38 %", faster(("ticket", 7), dense)),
        ("51.3 % left: slower than at 21.1 %", "slower", faster(("ticket", 7), ("ticket", 3))),
        ("13.5 % left: accuracy at early stop above dense", "> 0.3 points", better(("ticket", 9), dense)),
        (
            "13.5 % left: accuracy at iteration 50,000 above dense",
            "up to 0.35 points",
            better(("ticket", 9), dense, final_accuracy),
        ),
        ("3.6 % left: accuracy at early stop back to dense", "0 points", better(("ticket", 15), dense)),
        ("21.1 % left: minimum before that of re-initialisations", "2.51x", times(("ticket", 7), ("random_reinit", 7))),
        ("21.1 % left: accuracy above re-initialisations", "0.5 points", better(("ticket", 7), ("random_reinit", 7))),
        ("21.1 % left: re-initialisations below dense", "below", better(("random_reinit", 7), dense)),
    ]
    table = Table(title=f"{experiment.name}: {len(experiment.results)} runs")
    for heading in ("claim", "paper", "measured"):
        table.add_column(heading)
    for row in claims:
        table.add_row(*row)
    console = Console(width=150)
    console.print(table)
    environment = experiment.findings.environment
    console.print(
        ", ".join(f"{field} {environment[field]}" for field in ("cpu", "torch", "ticketsmith") if field in environment)
    )


if __name__ == "__main__":
    main()
