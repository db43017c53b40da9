"""Every command and every example that the documents show does what they say, in a workspace of small stand-ins."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.docs.markdown import PAGES, ROOT, Block, blocks
from tests.docs.shell import NOT_RUN, forget, run
from ticketsmith.candidates.forms import FORMS
from ticketsmith.execute.local import DebugExecutor

pytestmark = pytest.mark.usefixtures("undrawn")

SMALL: dict[str, Any] = {
    "task": {"data": "digits", "model": {"name": "mlp", "widths": [16]}, "validation": 200},
    "replicates": 1,
    "benchmark": {"batch_sizes": [1], "rounds": 10},
}
SMALL_TEXT = {
    "name": "language",
    "data": "pydocs",
    "model": {"name": "gpt", "width": 16, "depth": 1, "heads": 2},
    "context": 16,
    "validation": 0.01,
    "test": 0.01,
}
SMALL_IMAGES = {
    "name": "denoising",
    "data": "digits",
    "model": {"name": "unet", "width": 8},
    "validation": 200,
    "steps": 2,
    "measured": 50,
}
# Recipes that take minutes: how many levels do instead, and what differs from the small recipe.
STAND_INS: dict[str, tuple[int, dict[str, Any]]] = {
    "imp_mnist.yaml": (5, {}),
    "lenet_300_100.yaml": (2, {}),
    "imp_flow_mnist.yaml": (1, {"task": SMALL_IMAGES, "rewind": "5it"}),
    "imp_gpt_pydocs.yaml": (1, {"task": SMALL_TEXT, "rewind": "5it"}),
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a user has it after the first command: recipes, and the runs of ``imp_mnist``."""
    folder = tmp_path_factory.mktemp("prepared")
    for part in ("configs", "benchmarks"):
        shutil.copytree(ROOT / part, folder / part)
    for name, (levels, other) in STAND_INS.items():
        recipe = yaml.safe_load((ROOT / "configs" / name).read_text())
        recipe |= SMALL | other
        recipe["training"] |= {"duration": "20it", "evaluate_every": "20it", "batch_size": 50}
        recipe["pruning"]["levels"] = levels
        recipe["gates"].pop("target_sparsity", None)  # which so few levels may not reach
        (folder / "configs" / name).write_text(yaml.safe_dump(recipe, sort_keys=False))
    before = Path.cwd()
    os.chdir(folder)
    try:
        with pytest.MonkeyPatch.context() as monkeypatch:
            _in_a_hurry(monkeypatch)
            run("ticketsmith prune --config configs/imp_mnist.yaml", monkeypatch)
    finally:
        os.chdir(before)
        forget(folder)
    return folder


@pytest.fixture
def workspace(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the prepared folder for one page, as the current directory."""
    folder = tmp_path / "workspace"
    shutil.copytree(prepared, folder)
    monkeypatch.chdir(folder)
    _in_a_hurry(monkeypatch)
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    yield folder
    forget(folder)


def _in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """For so little work, a second process, timing for long and every runtime take longer than the work itself."""
    monkeypatch.setattr("ticketsmith.api.BENCHMARK_SECONDS", 1.0)
    monkeypatch.setattr("ticketsmith.api.LocalExecutor", lambda *arguments: DebugExecutor(*arguments[:5]))
    monkeypatch.setattr("ticketsmith.inference.settings.BATCH_SIZES", (1,))
    monkeypatch.setattr("ticketsmith.inference.settings.ROUNDS", 10)
    monkeypatch.setattr("ticketsmith.inference.suite.defaults", lambda *_, **__: ("torch", "onnxruntime", "sparse"))
    monkeypatch.setattr("ticketsmith.inference.suite.footprint", lambda *given: None)
    few = {name: FORMS[name] for name in ("onnxruntime", "onnxruntime-int8-dynamic", "sparse")}
    monkeypatch.setattr("ticketsmith.candidates.forms.FORMS", few)
    monkeypatch.setattr("ticketsmith.inference.tables.layers.SPARSITIES", (0.0, 0.9))
    monkeypatch.setattr("ticketsmith.inference.tables.load.FEWEST_REQUESTS", 20)
    monkeypatch.setattr("ticketsmith.inference.tables.load.STEP_SECONDS", 0.02)


def _runs_something(block: Block) -> bool:
    return block.language in ("bash", "console", "python")


@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(map(_runs_something, blocks(page)))], ids=lambda p: p.name
)
def test_the_page_does_what_it_shows(page: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for block in blocks(page):
        if block.file is not None:
            (workspace / block.file).write_text(block.text)
        elif block.language == "python":
            exec(compile(block.text, block.place, "exec"), {"__name__": "__main__"})
        elif block.language in ("bash", "console"):
            for command in block.commands():
                run(command, monkeypatch)


def test_every_block_says_what_it_is() -> None:
    languages = {"bash", "console", "python", "yaml", "text"}
    strange = [block.place for page in PAGES for block in blocks(page) if block.language not in languages]
    assert not strange, "a block of another language would not be tested"


def test_what_is_not_run_is_shown_somewhere() -> None:
    shown = [command for page in PAGES for block in blocks(page) for command in block.commands()]
    for start in NOT_RUN:
        assert any(command.startswith(start) for command in shown), f"{start!r} is not shown any more"


def test_examples_of_extensions_are_small() -> None:
    examples = [block for block in blocks(ROOT / "docs" / "extending.md") if (block.file or "").endswith(".py")]
    assert len(examples) == 7
    for block in examples:
        longest = 60 if block.file == "pitch.py" else 65
        assert block.text.count("\n") < longest, f"{block.place} is too long for a first example"
