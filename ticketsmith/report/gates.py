"""``gates.json``: every verdict with its reason, and the answer, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ticketsmith.evidence.findings import Findings
from ticketsmith.evidence.results import Metric
from ticketsmith.evidence.verdicts import GatePolicy, SweetSpot, Verdict
from ticketsmith.report.sentences.headline import headline
from ticketsmith.report.sentences.verdicts import gaps, reason, reservations


def document(findings: Findings) -> dict[str, Any]:
    """The policy, the headline, the sweet spot, the target and the verdicts of both splits, for ``json.dumps``."""
    return {
        "policy": asdict(findings.policy),
        "headline": headline(findings),
        "network": {"parameters": findings.size.parameters, "prunable": findings.size.prunable},
        "sweet_spot": _sweet_spot(findings, findings.sweet_spot) if findings.sweet_spot else None,
        "target": findings.target,
        "validation": [_verdict(verdict, findings.metrics, findings.policy) for verdict in findings.validation],
        "test": [_verdict(verdict, findings.metrics, findings.policy) for verdict in findings.test],
    }


def _sweet_spot(findings: Findings, spot: SweetSpot) -> dict[str, Any]:
    return {
        "variant": spot.variant,
        "level": spot.level,
        "sparsity": spot.sparsity,
        "network_sparsity": spot.network_sparsity,
        "verdicts": [_verdict(verdict, findings.metrics, findings.policy) for verdict in spot.verdicts],
        "end": asdict(spot.end) if spot.end else None,
        "beyond": [asdict(step) for step in spot.beyond],
        "missing": spot.missing,
        "caveat": reservations(findings, spot),
    }


def _verdict(verdict: Verdict, metrics: Mapping[str, Metric], policy: GatePolicy) -> dict[str, Any]:
    return {
        "variant": verdict.variant,
        "level": verdict.level,
        "sparsity": verdict.sparsity,
        "network_sparsity": verdict.network_sparsity,
        "split": verdict.split,
        "gate": asdict(verdict.gate),
        "status": verdict.status,
        "estimate": verdict.estimate,
        "bound": verdict.bound,
        "floored": verdict.floor is not None,
        "replicates": verdict.replicates,
        "seeds": verdict.seeds,
        "worst": verdict.worst,
        "worst_seed": verdict.worst_seed,
        "diverged": verdict.diverged,
        "missing": verdict.missing,
        "undefined": verdict.undefined,
        "gaps": gaps(verdict),
        "reason": reason(verdict, metrics[verdict.gate.metric], policy),
    }
