"""Colours, dashes, marks and type: one look for every chart, legible without colour vision and in black and white."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ticketsmith.evidence.variants import TICKET, ordered
from ticketsmith.report.sentences.names import display


@dataclass(frozen=True)
class Style:
    """How one series is drawn; ``ink`` is the colour darkened for text (contrast of at least 4.5 on white)."""

    colour: str
    ink: str
    dash: tuple[int, ...] = ()
    shape: str = "circle"


# The palette of Okabe & Ito (2008), told apart under every common colour-vision deficiency; its yellow is darkened here
# because lines are drawn on white. Dashes and shapes say the same again.
BLUE = Style("#0072B2", "#005F95")
VERMILLION = Style("#D55E00", "#A84A00", (6, 3), "square")
ORANGE = Style("#E69F00", "#8A5F00", (2, 2), "triangle-up")
PURPLE = Style("#CC79A7", "#9C4577", (8, 3, 2, 3), "diamond")
GREEN = Style("#009E73", "#00734F", (10, 3), "cross")
SKY = Style("#56B4E9", "#1F76A8", (4, 2), "triangle-down")
OLIVE = Style("#A89B00", "#6E6600", (1, 2), "diamond")
BROWN = Style("#8C564B", "#71453C", (4, 1, 1, 1), "square")
GREY = Style("#4D4D4D", "#3D3D3D", (), "circle")

_STYLES = {
    "dense": GREY,
    "ticket": BLUE,
    "random_reinit": VERMILLION,
    "random_ticket": ORANGE,
    "random_pruning": PURPLE,
    "one_shot": GREEN,
    "finetune": SKY,
    "lr_rewind": OLIVE,
    "unstructured": BROWN,
}
CYCLE = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, OLIVE)

STATUS_INK = {"PASS": "#00734F", "FAIL": "#A84A00", "INCONCLUSIVE": "#6B5900"}
FONT = "Inter, 'Helvetica Neue', Helvetica, Arial, 'Liberation Sans', sans-serif"
INK, SOFT, FAINT = "#1B2430", "#56606E", "#E6E9EE"


@dataclass(frozen=True)
class Series:
    """One line of a chart: what it is called in the data, for a reader, and how it is drawn."""

    key: str
    label: str
    style: Style


def variant_series(variants: Iterable[str]) -> list[Series]:
    """A series for each variant, the same look in every chart; unknown variants take the colours that are free."""
    present = ordered(variants)
    used = [_STYLES[variant] for variant in present if variant in _STYLES]
    free = [style for style in CYCLE if style not in used] or list(CYCLE)
    series, strangers = [], 0
    for variant in present:
        style = _STYLES.get(variant)
        if style is None:
            style, strangers = free[strangers % len(free)], strangers + 1
        series.append(Series(variant, display(variant), style))
    return series


def dense_and_ticket(variant: str = TICKET) -> list[Series]:
    """The two series of a chart that sets the pruned network against dense, named after its ``variant``."""
    return [Series("dense", "Dense", GREY), Series("ticket", "Ticket" if variant == TICKET else display(variant), BLUE)]


def config() -> dict[str, Any]:
    """The Vega-Lite configuration of every chart."""
    return {
        "font": FONT,
        "background": None,
        "padding": 4,
        "view": {"stroke": None},
        "axis": {
            "labelColor": SOFT,
            "titleColor": SOFT,
            "labelFontSize": 12,
            "titleFontSize": 12,
            "titleFontWeight": "normal",
            "titlePadding": 8,
            "gridColor": FAINT,
            "domainColor": "#AEB6C1",
            "tickColor": "#AEB6C1",
            "labelLimit": 220,
        },
        "axisX": {"grid": False},
        "axisY": {"domain": False, "ticks": False, "labelPadding": 7},
        "title": {"anchor": "start", "color": INK, "fontSize": 16, "subtitleColor": SOFT, "subtitleFontSize": 12},
        "text": {"fontSize": 12, "color": INK},
        # A chart must never hold a finger back that wants to scroll the page.
        "events": {"defaults": {"allow": True}},
    }
