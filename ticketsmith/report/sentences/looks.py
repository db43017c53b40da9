"""At which look a verdict was reached, what confidence holds over all of them, and what a look costs that nobody declared."""

from __future__ import annotations

from collections.abc import Sequence

from ticketsmith import units
from ticketsmith.evidence.findings import Findings
from ticketsmith.evidence.looks import promise
from ticketsmith.evidence.statistics import as_strict
from ticketsmith.evidence.verdicts import GatePolicy, Verdict


def confidence(findings: Findings, verdicts: Sequence[Verdict]) -> str:
    """``95 % confidence``; ``95 % confidence, look 2 of 3``; ``94 % confidence over all looks``, of a claim by ``verdicts``."""
    declared = all(verdict.declared for verdict in findings.test)
    level = units.percent(promise(findings.policy.confidence, declared))
    latest = max((verdict for verdict in verdicts if verdict.look is not None), key=lambda v: v.look or 0, default=None)
    if not declared:
        return f"{level} confidence over all looks"
    if latest is None or len(findings.policy.looks) < 2:
        return f"{level} confidence"
    return f"{level} confidence, look {_place(latest, findings.policy)}"


def basis(verdict: Verdict, policy: GatePolicy) -> str:
    """What a reader should know of the look that a verdict rests on; empty where it is the only one."""
    if verdict.look is None or (verdict.declared and len(policy.looks) < 2):
        return ""
    if verdict.declared:
        return f"look {_place(verdict, policy)}, {units.replicates(verdict.seeds, verdict.replicates)}"
    least = as_strict(verdict.replicates, verdict.error, 1 - policy.confidence) if verdict.replicates > 1 else None
    cost = f": {verdict.replicates} seeds decide what {least} would had it been declared" if least else ""
    return (
        f"a look that was not declared before the first, tested at {units.percent(1 - verdict.error)} confidence{cost}"
    )


def _place(verdict: Verdict, policy: GatePolicy) -> str:
    assert verdict.look is not None
    return f"{verdict.look + 1} of {len(policy.looks)}"
