"""LeNet-300-100 against the claims of Frankle & Carbin (ICLR 2019, v5), from a finished experiment.

    ticketsmith prune --config configs/lenet_300_100.yaml
    python benchmarks/lenet_claims.py --runs-prefix runs --experiment lenet_300_100

Reads the store only. Each claim is shown beside what was measured: mean over replicates with a 95 % confidence interval,
paired by replicate. A level that was not trained is said to be missing.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from rich.console import Console
from rich.table import Table

import ticketsmith
from ticketsmith.evidence.results import Result
from ticketsmith.evidence.statistics import mean, t_interval

Runs = dict[tuple[str, int, int], list[Result]]


def by_level(results: list[Result]) -> Runs:
    found: Runs = {}
    for result in results:
        if not result.diverged:
            found.setdefault((result.variant, result.level, result.seed), []).append(result)
    return found


def paired(
    runs: Runs, a: tuple[str, int], b: tuple[str, int], measure: Callable[[Result], float]
) -> list[tuple[float, float]]:
    """Pairs of means over draws, one a seed that has both."""
    seeds = sorted({seed for variant, level, seed in runs if (variant, level) in (a, b)})
    pairs = []
    for seed in seeds:
        left, right = runs.get((*a, seed)), runs.get((*b, seed))
        if left and right:
            pairs.append((mean([measure(r) for r in left]), mean([measure(r) for r in right])))
    return pairs


def early_stop(result: Result) -> float:
    assert result.early_stop is not None
    return float(result.early_stop.step)


def accuracy(result: Result) -> float:
    assert result.early_stop is not None
    return result.early_stop.test["accuracy"]


def final_accuracy(result: Result) -> float:
    assert result.final is not None
    return result.final.test["accuracy"]


def shown(values: list[float], unit: str) -> str:
    if not values:
        return "not trained yet"
    if len(values) == 1:
        return f"{values[0]:.2f}{unit} (1 seed)"
    interval = t_interval(values, 0.95)
    return f"{mean(values):.2f}{unit} ({interval.low:.2f} to {interval.high:.2f}; {len(values)} seeds)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs-prefix", default="runs")
    parser.add_argument("--experiment", default="lenet_300_100")
    options = parser.parse_args()
    experiment = ticketsmith.open_experiment(options.experiment, options.runs_prefix)
    runs = by_level(experiment.results)
    dense = ("dense", 0)

    def faster(a: tuple[str, int], b: tuple[str, int]) -> str:
        return shown([100 * (1 - left / right) for left, right in paired(runs, a, b, early_stop)], " %")

    def times(a: tuple[str, int], b: tuple[str, int]) -> str:
        return shown([right / left for left, right in paired(runs, a, b, early_stop)], "x")

    def better(a: tuple[str, int], b: tuple[str, int], measure: Callable[[Result], float] = accuracy) -> str:
        return shown([left - right for left, right in paired(runs, a, b, measure)], " points")

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
