"""What the documents say is current: links, the recipe reference, tables of commands and statuses."""

from __future__ import annotations

import json
import re
import runpy
import tomllib
from pathlib import Path

import pytest

from tests.docs.markdown import PAGES, ROOT, anchors, blocks, links
from ticketsmith.candidates.forms import FORMS
from ticketsmith.cli.main import group
from ticketsmith.config import json_schema, load_recipe
from ticketsmith.config.load import parse_recipe
from ticketsmith.errors import Exit
from ticketsmith.inference.settings import RUNTIMES
from ticketsmith.report.story import SECTIONS
from ticketsmith.runtime import formats

NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path.replace("\\", "")).resolve() if path else page
        assert target.exists(), f"{page.name}: {link}"
        if anchor:
            assert anchor in anchors(target), f"{page.name}: {link}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_lines_are_no_longer_than_120(page: Path) -> None:
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        assert len(line) <= 120 or line.startswith("|"), f"{page.name}:{number}"


@pytest.mark.parametrize("of", ["recipe", "target"])
def test_references_are_current(of: str) -> None:
    current = runpy.run_path(str(ROOT / "scripts" / "make_docs.py"))[f"{of}_page"]()
    assert (ROOT / "docs" / f"{of}.md").read_text(encoding="utf-8") == current, "run `make docs`"
    schema = getattr(json_schema, f"{of}_schema")()
    assert json.loads((ROOT / "configs" / f"{of}.schema.json").read_text(encoding="utf-8")) == schema, "run `make docs`"


def test_the_page_on_operators_is_current() -> None:
    page = runpy.run_path(str(ROOT / "scripts" / "make_docs.py"))["operators_page"]()
    assert (ROOT / "docs" / "internals" / "operators.md").read_text(encoding="utf-8") == page, "run `make docs`"


def test_readme_lists_every_command() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name, command in group.commands.items():
        assert command.hidden or f"| `ticketsmith {name}` |" in readme, name


def test_readme_lists_every_exit_status() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    table = readme.partition("## Exit status")[2].partition("\n## ")[0]
    assert {int(row.split("|")[1]) for row in table.splitlines() if row[2:3].isdigit()} == {int(code) for code in Exit}


def test_rooms_are_those_of_the_import_contract() -> None:
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    picture = page.partition("## Who may import whom")[2].split("```")[1].removeprefix("text\n")
    rooms = [re.split(r" {3,}", line)[0].split() for line in picture.splitlines()]
    assert rooms == [
        layer.replace("ticketsmith.", "").split(" | ") for layer in tools["importlinter"]["contracts"][0]["layers"]
    ]


def test_tables_name_every_runtime_and_format() -> None:
    benchmark, runtime, glossary = (
        (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8") for name in ("benchmark", "runtime", "glossary")
    )
    assert [name for name in RUNTIMES if f"\n| `{name}` |" not in benchmark] == []
    table = runtime.partition("## How it is fast")[2].partition("\n## ")[0]
    for name in {name for mode in ("vector", "planes", "lanes") for name in formats.candidates(mode)}:
        assert f"`{name}`" in table, name
        assert f"`{name}`" in glossary, name


def test_the_page_on_candidates_names_every_form() -> None:
    page = (ROOT / "docs" / "candidates.md").read_text(encoding="utf-8")
    table = page.partition("## What is tried")[2].partition("\n## ")[0]
    for form in FORMS.values():
        calibration = f"-{form.name.rpartition('-')[2]}"
        assert f"`{form.name}`" in table or ("static" in form.name and f"`{calibration}`" in table), form.name


def test_report_sections_are_those_of_the_report() -> None:
    text = (ROOT / "docs" / "report.md").read_text(encoding="utf-8")
    for question in SECTIONS.values():
        assert f"- **{question}**" in text


def test_recipes_in_the_documents_are_valid() -> None:
    for page in PAGES:
        for block in blocks(page):
            if (block.file or "").endswith(".yaml"):
                parse_recipe(block.text, block.place, page.parent)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_kept_without_outputs(notebook: Path) -> None:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    for cell in cells:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None


@pytest.mark.parametrize(
    ("name", "said"),
    [("mnist_tickets", "of the weights are zero"), ("own_model", "of the test set are right")],
    ids=["mnist_tickets", "own_model"],
)
def test_notebook_runs(name: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    kernels = pytest.importorskip("jupyter_client.kernelspec")
    if "python3" not in kernels.KernelSpecManager().find_kernel_specs():
        pytest.skip("no Jupyter kernel here")
    load_recipe(ROOT / "configs" / "digits.yaml")  # a clear failure when the recipe is what is wrong
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(ROOT / f"examples/{name}.ipynb", as_version=4)
    settings = {"metadata": {"path": str(ROOT / "examples")}}
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources=settings).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert name != "mnist_tickets" or any("image/png" in output.get("data", {}) for output in outputs)
    assert any(said in output.get("text", "") for output in outputs)
