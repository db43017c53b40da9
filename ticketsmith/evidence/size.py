"""How large a network is, of which part can be pruned, and what of both is gone: every share says of what it is one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ticketsmith.evidence.results import Result
from ticketsmith.evidence.statistics import mean

WHOLE = 0.99
"""From this prunable part of all parameters on, both are called the network where a sentence has room for one alone."""


@dataclass(frozen=True)
class Size:
    """``prunable`` weights, of which ``kept`` stay (a mean over seeds), of ``parameters`` in all, None where not counted."""

    prunable: int
    kept: float
    parameters: int | None

    @property
    def sparsity(self) -> float:
        """Removed prunable weights over all prunable weights, 0..1; 0 where none is prunable."""
        return 1.0 - self.kept / self.prunable if self.prunable else 0.0

    @property
    def network_sparsity(self) -> float | None:
        """Removed weights over all parameters of the network, 0..1."""
        return None if self.parameters is None else (self.prunable - self.kept) / self.parameters

    @property
    def network_compression(self) -> float | None:
        """Parameters before over parameters after; infinite where none stays."""
        if self.parameters is None:
            return None
        left = self.parameters - self.prunable + self.kept
        return self.parameters / left if left else float("inf")

    @property
    def compression(self) -> float:
        """The same of the prunable weights alone; 1 where none is prunable."""
        if not self.prunable:
            return 1.0
        return self.prunable / self.kept if self.kept else float("inf")

    @property
    def partial(self) -> bool:
        """Whether a share of the prunable weights would mislead about the network: they are less than 99 % of it."""
        return self.parameters is not None and self.prunable < WHOLE * self.parameters


def size_of(runs: Sequence[Result]) -> Size:
    """The size of the networks of one level: they differ between seeds in what they keep alone."""
    prunable, parameters = runs[0].total, runs[0].parameters
    return Size(
        prunable, mean([float(run.kept) for run in runs]), parameters if (parameters or 0) >= prunable else None
    )
