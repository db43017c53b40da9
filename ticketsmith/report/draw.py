"""From a figure to pixels and vectors, without a network: PNG and SVG by vl-convert, and the script for the page."""

from __future__ import annotations

import copy
import re
import textwrap
from functools import lru_cache
from importlib.metadata import version
from typing import Any

import altair as alt

from ticketsmith.report.figures.parts import Figure
from ticketsmith.report.theme import config
from ticketsmith.store.cache import Cache, cache_folder

VEGA_LITE = alt.SCHEMA_VERSION.removeprefix("v").rpartition(".")[0]  # the version that Altair writes
WIDTH = 720  # pixels of the plotting area of a figure that stands alone
SCALE = 2.0  # image pixels a pixel: sharp on paper and on dense screens

_BACKGROUND = re.compile(
    r'<rect width="[^"]*" height="[^"]*" fill="white"/>'
)  # what Vega writes first for a background


def svg(figure: Figure) -> str:
    """The figure as SVG without its title, for a page that writes the title itself."""
    import vl_convert

    return renumbered(str(vl_convert.vegalite_to_svg(standalone(figure, titled=False), vl_version=VEGA_LITE)))


def renumbered(drawing: str) -> str:
    """The clip paths of an SVG counted from 0: Vega counts on from whatever the process drew before."""
    numbers: dict[str, int] = {}

    def renumber(match: re.Match[str]) -> str:
        return f"{match[1]}{numbers.setdefault(match[2], len(numbers))}"

    return re.sub(r'((?:id="|url\(#)clip)(\d+)', renumber, drawing)


def images(figure: Figure) -> tuple[str, bytes]:
    """The figure with its title, drawn once: as SVG, and as PNG on white at twice its size in pixels."""
    import vl_convert

    spec = standalone(figure, titled=True)
    spec["background"] = "white"
    white = str(vl_convert.vegalite_to_svg(spec, vl_version=VEGA_LITE))
    return renumbered(_BACKGROUND.sub("", white, count=1)), bytes(vl_convert.svg_to_png(white, scale=SCALE))


def standalone(figure: Figure, titled: bool) -> dict[str, Any]:
    """The specification with a fixed width, its theme and its title."""
    spec = copy.deepcopy(dict(figure.spec))
    spec["layer"] = [layer for layer in spec["layer"] if layer.get("name") != "hover"]  # nobody hovers over paper
    spec["width"] = WIDTH
    spec["config"] = config()
    # Whoever draws the SVG may have a wider typeface than the one that measured its labels.
    spec["padding"] = {"left": 12, "top": 12, "bottom": 12, "right": 44}
    if titled:
        lines = textwrap.wrap(figure.title, 96)
        spec["title"] = {"text": lines, "subtitle": textwrap.wrap(figure.caption, 135), "offset": 18}
    return spec


@lru_cache(maxsize=1)
def javascript() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script that fetches nothing; it defines ``vegaEmbed``.

    Putting it together takes two seconds, so this machine's cache keeps it.
    """
    import vl_convert

    start = "window.vegaEmbed = vegaEmbed;"
    cache, name = Cache(cache_folder()), f"vl-convert {version('vl-convert-python')} {VEGA_LITE} {start}"
    try:
        script = cache.get(name)
        if script is None:
            script = str(vl_convert.javascript_bundle(start, vl_version=VEGA_LITE)).encode()
            cache.put(name, script)
    finally:
        cache.close()
    return script.decode()
