"""The page in a real browser, on a phone and on a desk: it draws, answers, fits, prints, and fetches nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ticketsmith.report.render import render_comparison

from .conftest import CASES, findings_of

PHONE, DESK = (360, 780), (1280, 900)


@pytest.fixture
def open_page(browser: Any, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Opens a page from a file and waits until its charts are drawn; at the end it must have complained of nothing."""
    complaints: list[str] = []
    pages: list[Any] = []

    def opened(html: bytes, size: tuple[int, int]) -> Any:
        path = tmp_path / "index.html"
        path.write_bytes(html)
        page = browser.new_page(viewport={"width": size[0], "height": size[1]}, has_touch=size == PHONE)
        pages.append(page)
        page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
        page.on("request", lambda request: _forbid(request.url, complaints))
        page.goto(path.as_uri())
        page.wait_for_selector("html[data-ready=true]", timeout=120_000)
        return page

    yield opened
    for page in pages:
        page.close()
    assert complaints == []


def _forbid(url: str, complaints: list[str]) -> None:
    if not url.startswith(("file:", "data:")):
        complaints.append(f"fetched {url}")


@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
@pytest.mark.parametrize("case", CASES)
def test_the_page_draws_and_fits(
    open_page: Callable[..., Any], files: Callable[[str], dict[str, bytes]], case: str, size: tuple[int, int]
) -> None:
    page = open_page(files(case)["index.html"], size)
    _every_chart_is_drawn(page)
    page.evaluate("document.querySelectorAll('details').forEach(details => { details.open = true; })")
    _nothing_is_clipped(page, size[0])


@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
def test_the_comparison_draws_and_fits(open_page: Callable[..., Any], size: tuple[int, int]) -> None:
    files = render_comparison([findings_of("full"), findings_of("diverged"), findings_of("hostile")])
    page = open_page(files["index.html"], size)
    _every_chart_is_drawn(page)
    _nothing_is_clipped(page, size[0])


@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
def test_a_point_tells_its_numbers(
    open_page: Callable[..., Any], files: Callable[[str], dict[str, bytes]], size: tuple[int, int]
) -> None:
    page = open_page(files("full")["index.html"], size)
    chart = page.locator('[data-chart="quality"]')
    chart.scroll_into_view_if_needed()
    point = chart.locator(".hover_marks path").nth(3).bounding_box()
    page.mouse.move(point["x"] + point["width"] / 2, point["y"] + point["height"] / 2)
    tooltip = page.locator("#vg-tooltip-element.visible")
    tooltip.wait_for(timeout=30_000)
    told = tooltip.inner_text()
    assert "Winning ticket (IMP)" in told
    summary = findings_of("full").summary("ticket", 3)
    assert summary is not None
    assert f"{summary.mean:.2f} %" in told
    box = tooltip.bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= size[0] + 1


def test_the_legend_highlights(open_page: Callable[..., Any], files: Callable[[str], dict[str, bytes]]) -> None:
    page = open_page(files("full")["index.html"], DESK)
    paths = "[...document.querySelectorAll('[data-chart=quality] .mark-line path')]"
    lines = f"{paths}.map(line => getComputedStyle(line).opacity)"
    assert set(page.evaluate(lines)) == {"1"}
    button = page.locator('#quality ~ .legend [data-series="ticket"]')
    button.click()
    page.wait_for_function(f"new Set({lines}).size === 2")
    assert button.get_attribute("aria-pressed") == "true"
    assert sorted(page.evaluate(lines)) == ["0.12", "0.12", "1"]
    button.click()
    page.wait_for_function(f"new Set({lines}).size === 1")


def test_a_legend_of_one_figure_leaves_the_others_alone(
    open_page: Callable[..., Any], files: Callable[[str], dict[str, bytes]]
) -> None:
    page = open_page(files("priced")["index.html"], DESK)
    lines = "[...document.querySelectorAll('[data-chart={}] .mark-line path')].map(l => getComputedStyle(l).opacity)"
    page.locator("#figure-speed-up-settings .legend button").first.click()
    page.wait_for_function(f"new Set({lines.format('speed-up-settings')}).size === 2")
    assert "0.12" not in page.evaluate(lines.format("speed-up"))


def test_a_wheel_scrolls_past_a_chart(open_page: Callable[..., Any], files: Callable[[str], dict[str, bytes]]) -> None:
    page = open_page(files("full")["index.html"], DESK)
    page.locator('[data-chart="quality"]').scroll_into_view_if_needed()
    box = page.locator('[data-chart="quality"] svg').bounding_box()
    page.mouse.move(box["x"] + 200, box["y"] + 200)
    before = page.evaluate("scrollY")
    page.mouse.wheel(0, 300)
    page.wait_for_function(f"scrollY > {before} + 100")


def test_a_finger_scrolls_past_a_chart(open_page: Callable[..., Any], files: Callable[[str], dict[str, bytes]]) -> None:
    page = open_page(files("full")["index.html"], PHONE)
    page.locator('[data-chart="quality"]').scroll_into_view_if_needed()
    box = page.locator('[data-chart="quality"] svg').bounding_box()
    before, start = page.evaluate("scrollY"), min(box["y"] + 100, 500)
    finger = page.context.new_cdp_session(page)

    def touch(kind: str, *tops: float) -> None:
        points = [{"x": 180, "y": top} for top in tops]
        finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", start)
    for step in range(1, 11):
        touch("touchMove", start + 15 * step)
        page.wait_for_timeout(16)
    touch("touchEnd")
    page.wait_for_function(f"scrollY < {before} - 80")


def test_paper_gets_the_pictures(open_page: Callable[..., Any], files: Callable[[str], dict[str, bytes]]) -> None:
    page = open_page(files("full")["index.html"], DESK)
    page.emulate_media(media="print")
    stills = page.evaluate(
        "[...document.querySelectorAll('.still')].map(image => image.naturalWidth > 0 && image.offsetWidth > 0)"
    )
    assert stills == [True] * 12
    assert page.locator(".chart:visible").count() == 0
    assert page.pdf()[:5] == b"%PDF-"


def test_without_scripts_the_pictures_stay(
    browser: Any, files: Callable[[str], dict[str, bytes]], tmp_path: Path
) -> None:
    (tmp_path / "index.html").write_bytes(files("full")["index.html"])
    page = browser.new_page(java_script_enabled=False)
    page.goto((tmp_path / "index.html").as_uri())
    assert page.locator(".still:visible").count() == 12
    page.close()


def _every_chart_is_drawn(page: Any) -> None:
    charts = page.evaluate(
        """[...document.querySelectorAll('.chart')].map(chart => {
            const svg = chart.querySelector('svg'), box = svg && svg.getBoundingClientRect();
            const marks = '.mark-symbol path, .mark-line path, .mark-rect path';
            return { name: chart.dataset.chart, marks: svg ? svg.querySelectorAll(marks).length : 0,
                     wide: svg ? box.width <= chart.clientWidth + 1 && box.width > 250 : false };
        })"""
    )
    assert charts
    for chart in charts:
        assert chart["marks"] > 0, chart
        assert chart["wide"], chart


def _nothing_is_clipped(page: Any, width: int) -> None:
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    tables = page.evaluate(
        """[...document.querySelectorAll('main table')].map(table => {
            const box = table.parentElement;
            box.scrollLeft = box.scrollWidth;
            const cells = table.querySelectorAll('thead th'), last = cells[cells.length - 1].getBoundingClientRect();
            return { held: box.classList.contains('scroll'), page: box.getBoundingClientRect().right <= innerWidth,
                     reached: last.right <= box.getBoundingClientRect().right + 1 };
        })"""
    )
    assert tables
    for table in tables:
        assert table == {"held": True, "page": True, "reached": True}
