"""The files of a report: complete, the same every time, self-contained, safe, and in agreement with each other."""

from __future__ import annotations

import csv
import io
import re
import struct
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser

import pytest
import vl_convert

from ticketsmith.errors import TicketSmithError
from ticketsmith.evidence.findings import Findings, conclude
from ticketsmith.evidence.verdicts import Gate, GatePolicy
from ticketsmith.report.draw import javascript
from ticketsmith.report.render import render, render_comparison
from ticketsmith.report.story import Story
from ticketsmith.report.story import tell as tell_anew

from .conftest import CASES, HOSTILE, PARAMETERS, RECIPE, UNDRAWN

Case = Callable[[str], Findings]
Files = Callable[[str], dict[str, bytes]]


_STORIES: dict[int, tuple[Findings, Story]] = {}


def tell(findings: Findings) -> Story:
    """The story of findings that several tests read, told once."""
    if id(findings) not in _STORIES:
        _STORIES[id(findings)] = findings, tell_anew(findings)
    return _STORIES[id(findings)][1]


class Text(HTMLParser):
    """The visible text of a page, and the scripts that it would run."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.scripts: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inside = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.inside = tag if tag in ("script", "style") else ""

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside == "script":
            self.scripts.append(data)
        elif not self.inside:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())


def page(files: dict[str, bytes]) -> Text:
    return Text(files["index.html"].decode())


def test_every_file_is_there(files: Files) -> None:
    names = set(files("full"))
    figures = {
        "quality", "speed-up", "learning-speed", "loss-validation", "loss-train", "layers", "cost-variants",
        "cost-levels", "cost-payback", "speed-up-settings", "latency", "quality-cost",
    }  # fmt: skip
    assert names == {"index.html", "report.md", "results.csv", "scorecard.csv"} | {
        f"figures/{name}.{kind}" for name in figures for kind in ("png", "svg")
    }
    assert "figures/speed-up.png" not in files("one seed")


@pytest.mark.parametrize("case", [case for case in CASES if case not in UNDRAWN])
def test_images_are_images_large_enough_to_print(files: Files, case: str) -> None:
    for name, content in files(case).items():
        if name.endswith(".png"):
            assert content.startswith(b"\x89PNG")
            width, height = struct.unpack(">II", content[16:24])
            assert width > 1400 and height > 300  # noqa: PT018
        if name.endswith(".svg"):
            assert ElementTree.fromstring(content).tag.endswith("svg")


def test_the_same_findings_give_the_same_bytes(findings: Case, files: Files) -> None:
    assert render(findings("one seed")) == files("one seed")


@pytest.mark.parametrize("case", CASES)
def test_the_page_stays_small(files: Files, case: str) -> None:
    assert len(files(case)["index.html"]) < 3_000_000


@pytest.mark.parametrize("case", CASES)
def test_the_page_opens_with_the_answer_and_holds_the_table(findings: Case, files: Files, case: str) -> None:
    story, text = tell(findings(case)), page(files(case)).text
    assert text.index(story.headline) < 200
    for row in story.rows:
        for cell in (row.sparsity, row.quality, row.status):
            assert cell in text
    for caveat in story.caveats:
        assert caveat in text


@pytest.mark.parametrize("case", [case for case in CASES if case != "hostile"])
def test_the_markdown_twin_holds_the_same_numbers(findings: Case, files: Files, case: str) -> None:
    story, markdown = tell(findings(case)), files(case)["report.md"].decode()
    assert markdown.startswith(f"# {story.headline}\n")
    assert "| Variant | Sparsity | Accuracy | Gate Status | Speedup (BS=1) |" in markdown
    numbers = {value for row in story.shown for value in (row.sparsity, row.quality, row.gate, row.speedup)}
    numbers |= {card.value for card in story.cards}
    assert all(number in markdown for number in numbers)
    linked = set(re.findall(r"\]\((figures/[^)]+)\)", markdown))
    assert linked == {name for name in files(case) if name.endswith(".png")}


def test_speed_is_what_was_measured(findings: Case) -> None:
    rows = {(row.variant, row.level): row for row in tell(findings("full")).rows}
    assert rows["dense", 0].speedup == "1.00\u00d7"
    assert rows["ticket", 12].speedup == "7.02\u00d7"
    assert "csr-cpu" in rows["ticket", 12].speed_note
    assert (rows["random_ticket", 3].speedup, rows["random_ticket", 3].speed_note) == ("\u2014", "not measured")
    assert all(row.speed_note == "not measured" for row in tell(findings("one seed")).rows)


def test_the_rows_that_decide_come_first(findings: Case) -> None:
    story = tell(findings("full"))
    assert [(row.variant, row.level) for row in story.shown] == [
        ("dense", 0),
        ("ticket", 5),
        ("ticket", 12),
        ("random_reinit", 5),
        ("random_ticket", 5),
    ]
    assert story.shown[1].marks == ("sweet spot", "target")
    assert len(story.rows) == 1 + 3 * 12


def test_diverged_runs_are_visible(findings: Case, files: Files) -> None:
    row = next(row for row in tell(findings("diverged")).rows if (row.variant, row.level) == ("ticket", 3))
    assert (row.status, row.seeds) == ("FAIL", "2 seeds, 1 diverged")
    assert "1 run diverged" in page(files("diverged")).text
    table = list(csv.DictReader(io.StringIO(files("diverged")["results.csv"].decode())))
    (broken,) = [line for line in table if line["diverged"] == "true"]
    assert (broken["variant"], broken["level"], broken["seed"]) == ("ticket", "3", "1")
    assert (broken["test_accuracy_final"], broken["diverged_at"]) == ("", "412")


def test_the_csv_holds_every_run_in_full_precision(findings: Case, files: Files) -> None:
    lines = list(csv.DictReader(io.StringIO(files("full")["results.csv"].decode())))
    runs = findings("full").results
    assert len(lines) == len(runs)
    for line, run in zip(lines, runs, strict=True):
        assert run.final is not None
        assert run.early_stop is not None
        assert (line["variant"], int(line["level"]), int(line["seed"])) == (run.variant, run.level, run.seed)
        assert float(line["test_accuracy_final"]) == run.final.test["accuracy"]
        assert float(line["validation_loss_early_stop"]) == run.early_stop.validation["loss"]
        assert float(line["sparsity"]) == run.sparsity
        assert line["key"] == run.key


def test_the_cost_is_told_alike_in_page_markdown_and_table(findings: Case, files: Files) -> None:
    story, text = tell(findings("priced")), page(files("priced")).text.replace("\u00a0", " ")
    markdown = files("priced")["report.md"].decode().replace("\\", "")
    assert story.bottom_line.startswith(
        "Finding the ticket cost $0.19 (dense alone: $0.027). At the measured 114 \u00b5s per image"
    )
    assert "it has paid for itself after 120 million images" in story.bottom_line
    told = [story.bottom_line, story.cluster_line, *story.cost_notes]
    tables = (story.spending, story.serving, story.cluster)
    told += [line for table in tables for row in table.rows for cell in row for line in cell.split("\n")]
    for words in told:
        assert words in text
        assert words in markdown
    lines = list(csv.DictReader(io.StringIO(files("priced")["results.csv"].decode())))
    spent = sum(float(line["price"]) + float(line["idle_price"]) for line in lines)
    assert spent == pytest.approx(findings("priced").cost.total.money)
    assert all(
        float(line["network_sparsity"]) == pytest.approx(float(line["sparsity"]) * 220_704 / PARAMETERS)
        for line in lines
    )
    assert {(line["machine"], line["currency"]) for line in lines} == {("Standard_NC4as_T4_v3", "USD")}


def test_the_scorecard_is_told_alike_in_page_markdown_and_csv(findings: Case, files: Files) -> None:
    story, text = tell(findings("priced")), page(files("priced")).text.replace("\u00a0", " ")
    markdown = files("priced")["report.md"].decode().replace("\\", "")
    assert story.served.startswith(
        "Best choice that passes its gates: the ticket at 83.2 % sparsity on TicketSmith sparse."
    )
    assert text.index(story.served) < text.index(story.special), "the answer on speed stands above the controls"
    tables = (story.scorecard, story.settings, story.layers, story.loads, *(table for _, table in story.cells))
    told = [story.served, *story.served_why, story.scorecard_note]
    told += [line for table in tables for row in table.rows for cell in row for line in cell.split("\n")]
    for words in told:
        assert words in text
        assert words in markdown
    rows = list(csv.DictReader(io.StringIO(files("priced")["scorecard.csv"].decode())))
    benchmark = findings("priced").benchmark
    assert benchmark is not None
    assert len(rows) == len(benchmark.timings)
    chosen = [
        row for row in rows if row["deployable"] == "True" and row["best_runtime"] == "True" and row["level"] == "5"
    ]
    lead = next(row for row in chosen if (row["batch_size"], row["threads"], row["precision"]) == ("1", "1", "float32"))
    assert (lead["runtime"], lead["against"], lead["gate"]) == ("sparse", "onnxruntime", "PASS")
    assert float(lead["per_million"]) == pytest.approx(0.115 / 3600 * 1e6 * 0.2e-3 / float(lead["speedup"]) / 2)
    assert f"{float(lead['speedup']):.2f}\u00d7" in story.served


def test_candidates_are_told_alike_in_page_and_markdown(findings: Case, files: Files) -> None:
    told, text = tell(findings("diverged")), page(files("diverged")).text.replace("\u00a0", " ")
    story, markdown = told.candidates, files("diverged")["report.md"].decode().replace("\\", "")
    assert story is not None
    assert story.verdict.startswith(
        "Quantise; whether to prune is open: dense in int8 (dynamic) on ONNX Runtime takes 101 \u00b5s a call"
    )
    assert story.verdict.endswith("as fast, and its gates are inconclusive (batch size 1, 1 thread).")
    assert "Whether pruning pays for itself is open" in told.bottom_line
    assert text.index(story.verdict) < text.index(told.special), "the verdict stands above the controls"
    assert [title for title, _ in story.tables] == [
        "The candidates that decide",
        "By setting",
        "Prune \u00d7 quantise",
        "What each costs to find, and when it pays",
    ]
    words = [story.verdict, *story.why, *story.together]
    words += [line for _, one in story.tables for row in one.rows for cell in row for line in cell.split("\n")]
    for line in words:
        assert line in text
        assert line in markdown
    assert any("NNCF cannot quantise it" in line for line in story.why)
    assert {figure.name for figure in told.figures} >= {"candidates-latency", "candidates-size"}
    assert tell(findings("full")).candidates is None


def test_nothing_is_invented_for_an_older_benchmark(findings: Case, files: Files) -> None:
    story = tell(findings("full"))
    assert story.scorecard.header == ("Network", "Latency p50", "Speed-up", "Requests/s", "Gates")
    assert (story.layers.rows, story.loads.rows) == ((), ())
    assert not any("p99" in figure.caption for figure in story.figures)
    line = next(csv.DictReader(io.StringIO(files("full")["scorecard.csv"].decode())))
    assert (line["p99_ms"], line["peak_bytes"], line["per_million"]) == ("", "", "")
    assert "scorecard.csv" not in files("one seed"), "speed was not measured"


def test_without_prices_no_money_is_told(files: Files) -> None:
    for case in ("full", "one seed"):
        shown = page(files(case)).text
        assert "$" not in shown[shown.index("What it cost") :]
        assert "The cluster" not in shown
    line = next(csv.DictReader(io.StringIO(files("full")["results.csv"].decode())))
    assert (line["price"], line["machine"], line["seconds"] != "") == ("", "", True)


def test_nothing_that_a_user_wrote_becomes_markup(files: Files) -> None:
    hostile = page(files("hostile"))
    assert HOSTILE in hostile.text
    assert not [tag for tag, attributes in hostile.tags if "onerror" in attributes]
    recipe = page(files("full"))
    assert "alert('recipe')" in recipe.text
    assert not [script for script in recipe.scripts if "alert(" in script and script != javascript()]
    # Four scripts: a class for styles, the library, the data, and the code that draws.
    assert sum(tag == "script" for tag, _ in hostile.tags) == 4
    markdown = files("full")["report.md"].decode()
    assert f"`````yaml\n{RECIPE}`````" in markdown


def test_a_metric_with_an_awkward_name_stays_in_its_folder(findings: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "../top-5.[a]"
    runs = []
    for run in findings("one seed").results:
        assert run.final is not None
        metric = replace(run.metrics["accuracy"], name=name)
        values = {name: run.final.test["accuracy"], "loss": run.final.test["loss"]}
        state = replace(run.final, validation=values, test=values)
        runs.append(replace(run, metrics={"loss": run.metrics["loss"], name: metric}, final=state, early_stop=state))
    gates = (Gate("loss", max_drop=1.0), Gate(name, max_drop=2.0))
    monkeypatch.setattr(vl_convert, "vegalite_to_svg", lambda *_, **__: "<svg/>")
    monkeypatch.setattr(vl_convert, "svg_to_png", lambda *_, **__: b"\x89PNG")
    files = render(conclude("name", runs, GatePolicy(gates)))
    assert "figures/quality-top-5-a.png" in files
    assert all(".." not in name for name in files)


def test_no_results_is_a_clear_error() -> None:
    with pytest.raises(TicketSmithError, match="no experiments to compare"):
        render_comparison([])


def test_a_comparison_has_a_row_and_a_link_for_each(findings: Case) -> None:
    cases = [findings("full"), findings("hostile")]
    files = render_comparison(cases)
    assert set(files) == {
        "index.html", "report.md", "figures/tickets-accuracy.png", "figures/tickets-accuracy.svg",
    }  # fmt: skip
    compared = page(files)
    links = [attributes.get("href") for tag, attributes in compared.tags if tag == "a"]
    assert "../imp_mnist/report/index.html" in links
    assert all(link is None or "<" not in link for link in links)
    for one in cases:
        assert one.name in compared.text
