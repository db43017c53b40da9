"""The benchmark of an experiment: its sealed runs against its dense one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from ticketsmith.evidence.results import Result
from ticketsmith.evidence.serving import Benchmark
from ticketsmith.inference import runtimes
from ticketsmith.inference.measure import Candidate, measure

SECONDS = 30.0
"""What a benchmark at the end of an experiment may take, as long as its models are small enough for that."""


def time_runs(
    dense: Result,
    runs: Sequence[Result],
    model_of: Callable[[Result], nn.Module],
    inputs_of: Callable[[int], Tensor],
    batch_sizes: Sequence[int],
    rounds: int,
    progress: Callable[[int, int], None] | None = None,
) -> Benchmark:
    """Times ``runs`` against ``dense`` on every built-in runtime, one thread on the CPU; errors as in ``measure``.

    All models are held at once: rivals that are to be compared must race side by side.
    """

    def candidate(run: Result) -> Candidate:
        return Candidate(run.variant, run.level, run.seed, run.key, run.sparsity, model_of(run))

    return measure(
        candidate(dense),
        [candidate(run) for run in runs if run.key != dense.key],
        inputs_of,
        runtimes=[runtimes.create(name) for name in runtimes.BUILTINS],
        batch_sizes=batch_sizes,
        rounds=rounds,
        seconds=SECONDS,
        progress=progress,
    )
