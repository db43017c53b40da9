"""Which seeds are replicates: those whose runs are bit for bit equal are one, however many times it was made."""

from __future__ import annotations

from collections.abc import Sequence

from ticketsmith.evidence.results import Result


def distinct(*groups: Sequence[Result]) -> tuple[int, ...]:
    """The seeds that every group has a sound run of; of seeds whose runs are equal in every group, the first alone.

    Fixed weights that are not trained give the same network for every seed: it says nothing of how much seeds differ. Runs
    are equal when their trained weights are. Where those are not known, seeds are taken for equal only when all of them
    measured the same.
    """
    by_seed = [_by_seed(group) for group in groups]
    seeds = sorted(set.intersection(*(set(runs) for runs in by_seed)))
    if all(run.weights for runs in by_seed for seed in seeds for run in runs[seed]):
        first: dict[tuple[tuple[str, ...], ...], int] = {}
        for seed in seeds:
            first.setdefault(tuple(tuple(run.weights for run in runs[seed]) for runs in by_seed), seed)
        return tuple(first.values())
    measured = [
        [[(run.final, run.early_stop, tuple(run.curve)) for run in runs[seed]] for runs in by_seed] for seed in seeds
    ]
    return tuple(seeds[:1] if all(one == measured[0] for one in measured) else seeds)


def _by_seed(group: Sequence[Result]) -> dict[int, list[Result]]:
    seeds: dict[int, list[Result]] = {}
    for run in sorted(group, key=lambda run: run.draw):
        if not run.diverged:
            seeds.setdefault(run.seed, []).append(run)
    return seeds
