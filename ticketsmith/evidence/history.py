"""What a store has shown before, as part of a policy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from ticketsmith.evidence.looks import Record, history
from ticketsmith.evidence.results import Result
from ticketsmith.evidence.variants import DENSE
from ticketsmith.evidence.verdicts import GatePolicy


def with_history(policy: GatePolicy, records: Iterable[Record], results: Sequence[Result]) -> GatePolicy:
    """The policy with the looks that were declared before the first verdict on these networks, and those that were taken."""
    declared, shown = history(records, [run.key for run in results if run.variant == DENSE])
    return replace(policy, looks=declared or policy.looks, shown=shown)
