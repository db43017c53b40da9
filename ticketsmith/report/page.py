"""The HTML of a report: one file that needs nothing else, set from templates with everything escaped."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ticketsmith.report import draw
from ticketsmith.report.figures.parts import Figure
from ticketsmith.report.story import SAMPLES, Story
from ticketsmith.report.theme import config

if TYPE_CHECKING:
    from jinja2 import Environment


@dataclass(frozen=True)
class Item:
    """A figure on the page: ``still`` is its picture (SVG in base64) for paper, and for a reader without scripts."""

    figure: Figure
    still: str
    zoom: bool


def report_page(story: Story, stills: Mapping[str, str]) -> bytes:
    """The page of one experiment; ``stills`` are the figures as SVG without a title, by name."""
    sections = [(key, question, items(figures, stills)) for key, question, figures in story.sections()]
    title = f"{story.name}: lottery tickets"
    return _page("report.html.j2", title, story.figures, {"story": story, "sections": sections, "made": SAMPLES})


def comparison_page(comparison: object, figures: Sequence[Figure], stills: Mapping[str, str]) -> bytes:
    """The page that compares experiments."""
    values = {"comparison": comparison, "items": items(figures, stills)}
    return _page("comparison.html.j2", "Experiments compared: lottery tickets", figures, values)


def items(figures: Sequence[Figure], stills: Mapping[str, str]) -> list[Item]:
    """The figures with their pictures."""
    return [
        Item(
            figure,
            base64.b64encode(stills[figure.name].encode()).decode(),
            '"bind": "scales"' in json.dumps(figure.spec),
        )
        for figure in figures
    ]


def _page(template: str, title: str, figures: Sequence[Figure], values: Mapping[str, Any]) -> bytes:
    from markupsafe import Markup

    environment = _environment()
    charts = {figure.name: figure.spec for figure in figures}
    document = json.dumps({"config": config(), "charts": charts}, separators=(",", ":"), ensure_ascii=False)
    html = environment.get_template(template).render(
        title=title,
        style=Markup(_source(environment, "style.css")),
        script=Markup(_source(environment, "charts.js")),
        vega=Markup(draw.javascript()),
        # Inside a script element only "<" can end it or begin a comment; JSON has a way to write it otherwise.
        charts=Markup(document.replace("<", "\\u003c")),
        **values,
    )
    return html.encode()


@lru_cache(maxsize=1)
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("ticketsmith.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["nb"] = unbroken
    return environment


def unbroken(text: str) -> str:
    """No line break between a number and its unit, or around a plus-minus sign."""
    for plain in (" %", " points", " point", " \u00b1 ", " seeds", " seed", " million", " billion", " \u00b5s", " ms"):
        text = text.replace(plain, plain.replace(" ", "\u00a0"))
    return text


def _source(environment: Environment, name: str) -> str:
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]
