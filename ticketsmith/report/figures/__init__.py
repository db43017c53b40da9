"""The figures of a report. Each module draws one question, which its first line asks."""

from __future__ import annotations

from ticketsmith.evidence.findings import Findings
from ticketsmith.evidence.search import Path
from ticketsmith.report.figures.candidates import candidate_figures
from ticketsmith.report.figures.cost import cost_figures
from ticketsmith.report.figures.latency import latency_figures
from ticketsmith.report.figures.layers import layer_figures
from ticketsmith.report.figures.learning import learning_figures
from ticketsmith.report.figures.load import load_figures
from ticketsmith.report.figures.loss import loss_figures
from ticketsmith.report.figures.parts import Figure
from ticketsmith.report.figures.quality import quality_figures
from ticketsmith.report.figures.search import search_figures
from ticketsmith.report.figures.speed import speed_figures
from ticketsmith.report.figures.trade import trade_figures


def all_figures(findings: Findings, path: Path | None = None) -> list[Figure]:
    """Every figure that the findings, and the ``path`` of a search, can fill, in the order of the page."""
    return [
        *quality_figures(findings),
        *(search_figures(path) if path else []),
        *candidate_figures(findings),
        *speed_figures(findings),
        *latency_figures(findings),
        *trade_figures(findings),
        *load_figures(findings),
        *learning_figures(findings),
        *loss_figures(findings),
        *layer_figures(findings),
        *cost_figures(findings),
    ]
