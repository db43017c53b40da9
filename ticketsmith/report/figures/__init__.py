"""The figures of a report. Each module draws one question: quality, learning, loss, layers, cost, speed, serving."""

from __future__ import annotations

from ticketsmith.evidence.findings import Findings
from ticketsmith.report.figures.base import Figure
from ticketsmith.report.figures.cost import cost_figures
from ticketsmith.report.figures.layers import layer_figures
from ticketsmith.report.figures.learning import learning_figures
from ticketsmith.report.figures.loss import loss_figures
from ticketsmith.report.figures.quality import quality_figures
from ticketsmith.report.figures.serving import serving_figures
from ticketsmith.report.figures.speed import speed_figures


def all_figures(findings: Findings) -> list[Figure]:
    """Every figure that the findings can fill, in the order of the page."""
    return [
        *quality_figures(findings),
        *speed_figures(findings),
        *serving_figures(findings),
        *learning_figures(findings),
        *loss_figures(findings),
        *layer_figures(findings),
        *cost_figures(findings),
    ]
