"""The documentation as a site, in a real browser on a phone, opened from files: it fits, answers, and fetches nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.docs.markdown import ROOT

pytest.importorskip("mkdocs")

REPORT = "<!doctype html><title>A report</title><h1>Up to 90 % of the weights can go</h1>"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built strictly: a link or an anchor that leads nowhere, or a page that no menu has, ends the build."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "report.html").write_text(REPORT)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder / "site"],
        cwd=ROOT,
        env=os.environ | {"REPORT": str(folder / "report.html"), "NO_MKDOCS_2_WARNING": "1", "PATH": path},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    return folder / "site"


@pytest.fixture
def phone(browser: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    """A page of a phone's width; at the end it must have complained of nothing, and asked no network."""
    complaints: list[str] = []
    scripts = getattr(request, "param", True)
    page = browser.new_page(viewport={"width": 360, "height": 780}, has_touch=True, java_script_enabled=scripts)
    page.on("console", lambda message: complaints.append(f"{page.url}: {message.type}: {message.text}"))
    page.on("pageerror", lambda error: complaints.append(f"{page.url}: {error}"))
    page.on("request", lambda r: r.url.startswith(("file:", "data:")) or complaints.append(f"fetched {r.url}"))
    yield page
    page.close()
    assert complaints == []


@pytest.mark.parametrize("phone", [False], indirect=True, ids=["without scripts"])  # which take half of the time
def test_every_page_fits_a_phone(site: Path, phone: Any) -> None:
    ours = [page.relative_to(ROOT / "docs").with_suffix(".html") for page in (ROOT / "docs").rglob("*.md")]
    pages = [site / page.with_name(page.name.replace("README", "index")) for page in ours]
    wide = []
    for path in [*pages, site / "source" / "index.html", site / "source" / "CHANGELOG.html"]:
        phone.goto(path.as_uri())
        if phone.evaluate("document.documentElement.scrollWidth") > 360:
            wide.append(path.name)
    assert wide == []


def test_search_answers_without_a_network(site: Path, phone: Any) -> None:
    phone.goto((site / "internals" / "kernels.html").as_uri())
    phone.locator("label[for=__search]:visible").first.click()
    phone.locator("input[name=query]").press_sequentially("rewinding")
    phone.wait_for_selector(".md-search-result__link", timeout=30_000)
    phone.locator('.md-search-result__link[href*="science.html"]').first.click()
    phone.wait_for_url("**/science.html*")
    assert "The science" in phone.locator("article h1").inner_text()


def test_each_path_leads_on(site: Path, phone: Any) -> None:
    """By its first link, on a phone; that all others lead somewhere is what the strict build says."""
    for path, title in enumerate(("Prune, quantise, both or neither?", "The science", "Running on Kubernetes")):
        phone.goto((site / "index.html").as_uri())
        paths = phone.locator("article h2 + ul")
        assert [paths.nth(each).locator("li").count() for each in range(paths.count())] == [3, 3, 3]
        paths.nth(path).locator("a").first.click()
        phone.locator("article h1", has_text=title).wait_for()


def test_pages_show_docstrings_sources_and_the_report(site: Path, phone: Any) -> None:
    phone.goto((site / "api" / "experiments.html").as_uri())
    assert "Trains what is missing of an experiment" in phone.locator("article").inner_text()
    phone.locator("article a", has_text="ticketsmith/api.py").first.click()
    assert "def open_experiment(" in phone.locator("article pre").inner_text()
    phone.goto((site / "report.html").as_uri())
    phone.locator("iframe.report").scroll_into_view_if_needed()
    assert phone.frame_locator("iframe.report").locator("h1").inner_text() == "Up to 90 % of the weights can go"
