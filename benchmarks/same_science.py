"""Whether native training comes to the same accuracy as PyTorch's: every run of a recipe by both, paired by seed.

    python benchmarks/same_science.py --config configs/digits.yaml --replicates 5 --store /tmp/same
    python benchmarks/same_science.py --config configs/imp_mnist.yaml --replicates 5 --store /tmp/same --set pruning.levels=5 \
        --set variants.random_reinit=false --set variants.random_ticket=false

For each variant and level: what native training loses in the gate's metric on the test split, as the mean over replicates of
paired differences (mean over draws) with its one-sided 95 % bound. Below, the same of each replicate's mean over all levels,
non-inferior where its bound stays below a tenth of the gate's margin; and of its mean over the places that lose no more than
the margin by PyTorch, which is the answer: beyond, networks fall apart, each seed in its own way. What a store holds is not
trained again.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import time
from collections import defaultdict
from pathlib import Path

from ticketsmith import api
from ticketsmith.config import load_recipe
from ticketsmith.evidence.results import Result
from ticketsmith.evidence.statistics import one_sided_bounds
from ticketsmith.machine import cpu_name


def results(arguments: argparse.Namespace, kernels: str) -> tuple[list[Result], float]:
    """Every run of the recipe by ``kernels``, and the seconds that making them took in all."""
    overrides = [f"training.kernels={kernels}", f"store={arguments.store / kernels}", *arguments.set]
    recipe = load_recipe(arguments.config, [*overrides, f"replicates={arguments.replicates}"])
    experiment = api.train(api.prepare(recipe), workers=arguments.workers, device="cpu")
    if experiment.outcome.failed:
        sys.exit(str(experiment.outcome.failed))
    made = api.open_experiment(recipe.experiment, arguments.store / kernels, arguments.config.parent).results
    return made, sum(result.seconds or 0.0 for result in made)


def _lost(results: list[Result], metric: str) -> dict[tuple[str, int], float]:
    """What each variant and level loses against dense, on average."""
    places: dict[tuple[str, int], list[float]] = defaultdict(list)
    for result in results:
        if result.final:
            sign = 1 if result.metrics[metric].higher_is_better else -1
            places[result.variant, result.level].append(sign * result.final.test[metric])
    dense = statistics.mean(places["dense", 0])
    return {place: dense - statistics.mean(numbers) for place, numbers in places.items()}


def deciding_gate(config: Path, results: list[Result]) -> tuple[str, float]:
    """The first metric that has a gate, and its margin; of a relative one in units of the metric, by the dense runs."""
    name, gate = next(iter(load_recipe(config).gates.metrics.items()))
    dense = [result.final.test[name] for result in results if result.variant == "dense" and result.final]
    return name, gate.max_drop or (gate.max_relative_increase or 0.0) * statistics.mean(dense)


def tell(label: str, losses: list[float], margin: float) -> None:
    bounds, spread = one_sided_bounds(losses), statistics.stdev(losses)
    most = bounds[1] if bounds else float("nan")
    print(
        f"{label:28s} loses {statistics.mean(losses):+.4f} (sd {spread:.4f}, n {len(losses)}), at most {most:+.4f}; "
        f"a tenth of the margin is {margin / 10:.4f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--replicates", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--set", action="append", default=[])
    arguments = parser.parse_args()
    print(f"python {' '.join(sys.argv)}\n{cpu_name()}, Python {platform.python_version()}")
    by = {}
    for kernels in ("native", "torch"):
        began = time.monotonic()
        by[kernels], seconds = results(arguments, kernels)
        print(
            f"{kernels}: {len(by[kernels])} runs, {seconds:.0f} s of work, {time.monotonic() - began:.0f} s here",
            flush=True,
        )
    there = {result.place: result for result in by["torch"]}
    metric, margin = deciding_gate(arguments.config, by["torch"])
    lost = _lost(by["torch"], metric)
    pairs: dict[tuple[str, int], dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for result in by["native"]:
        other = there[result.place]
        if result.final and other.final:
            sign = 1 if result.metrics[metric].higher_is_better else -1
            loss = sign * (other.final.test[metric] - result.final.test[metric])
            pairs[result.variant, result.level][result.seed].append(loss)
    for (variant, level), seeds in sorted(pairs.items()):
        tell(f"{variant} level {level}", [statistics.mean(losses) for losses in seeds.values()], margin)
    deciding = [place for place in pairs if lost[place] <= margin]
    for label, places in ((f"all, {metric}", list(pairs)), (f"{len(deciding)} within the margin", deciding)):
        whole: dict[int, list[float]] = defaultdict(list)
        for place in places:
            for seed, losses in pairs[place].items():
                whole[seed].append(statistics.mean(losses))
        tell(label, [statistics.mean(losses) for losses in whole.values()], margin)


if __name__ == "__main__":
    main()
