"""``gates.json``: every verdict with its reason, and the answer, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from ticketsmith.evidence.findings import Findings
from ticketsmith.evidence.looks import promise
from ticketsmith.evidence.results import Metric
from ticketsmith.evidence.search import Ending, Path, saving
from ticketsmith.evidence.verdicts import GatePolicy, SweetSpot, Verdict
from ticketsmith.report.sentences.headline import headline
from ticketsmith.report.sentences.search import interval, why
from ticketsmith.report.sentences.verdicts import gaps, reason, reservations

_FIELDS = (
    "variant", "level", "sparsity", "network_sparsity", "split", "status", "estimate", "bound", "replicates", "seeds",
    "worst", "worst_seed", "diverged", "missing", "undefined", "look", "looks", "declared", "error", "replicates_needed",
    "beyond", "split_error",
)  # fmt: skip


def document(findings: Findings, path: Path | None = None) -> dict[str, Any]:
    """The policy, the headline, the sweet spot, the target and the verdicts of both splits, for ``json.dumps``.

    ``path``: that of its search, if it is one, with the interval and what was spared.
    """
    return {
        "policy": asdict(findings.policy),
        "headline": headline(findings),
        "confidence": promise(findings.policy.confidence, all(verdict.declared for verdict in findings.test)),
        "network": {"parameters": findings.size.parameters, "prunable": findings.size.prunable},
        "sweet_spot": _sweet_spot(findings, findings.sweet_spot) if findings.sweet_spot else None,
        "target": findings.target,
        **({"search": search_document(findings, path)} if path else {}),
        "validation": [_verdict(verdict, findings.metrics, findings.policy) for verdict in findings.validation],
        "test": [_verdict(verdict, findings.metrics, findings.policy) for verdict in findings.test],
    }


def search_document(findings: Findings, path: Path) -> dict[str, Any]:
    """The interval, the moves in their order, and what was spared, as plain data."""
    return {
        "interval": interval(findings, path),
        "passes": path.passes,
        "frontier": path.frontier,
        "fails": path.fails,
        "ending": path.ending.value if path.ending else None,
        "over": path.over,
        "budget_spent": path.ending is Ending.BUDGET or path.cut,
        "saving": asdict(saving(path, findings.results)),
        "moves": [
            {
                **{name: getattr(move, name) for name in ("variant", "level", "look", "seeds")},
                "reason": move.reason.value,
                "why": why(path, move),
                "status": move.status.value if move.status else None,
                "runs": len(move.places),
            }
            for move in path.moves
        ],
    }


def _sweet_spot(findings: Findings, spot: SweetSpot) -> dict[str, Any]:
    verdicts = [_verdict(verdict, findings.metrics, findings.policy) for verdict in spot.verdicts]
    return {**asdict(replace(spot, verdicts=())), "verdicts": verdicts, "caveat": reservations(findings, spot)}


def _verdict(verdict: Verdict, metrics: Mapping[str, Metric], policy: GatePolicy) -> dict[str, Any]:
    return {
        **{name: getattr(verdict, name) for name in _FIELDS},
        "gate": asdict(verdict.gate),
        "floored": verdict.floor is not None,
        "examples": asdict(verdict.examples) if verdict.examples else None,
        "gaps": gaps(verdict),
        "reason": reason(verdict, metrics[verdict.gate.metric], policy),
    }
