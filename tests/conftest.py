"""What tests share: small real recipes that train in seconds."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.store.azurite import azurite, container, proxy  # noqa: F401  fixtures for all

pytest_plugins = ["tests.workers"]

os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parent.parent

DIGITS = """
experiment: digits
task:
  data: digits
  model: {name: mlp, widths: [32, 16]}
  validation: 200
training:
  optimizer: adam
  lr: 0.003
  batch_size: 50
  duration: 120it
  evaluate_every: 30it
pruning:
  levels: 2
  fraction: 0.5
  rates: {output: 0.25}
replicates: 2
gates:
  metrics:
    accuracy: {max_drop: 5.0}
  target_sparsity: 0.4
"""


SLOW = (
    "image/test_image.py",
    "release/test_wheels.py",
    "docs/test_commands.py",
    "cli/test_commands.py",
    "execute/kubernetes/test_experiment.py",
    "execute/kubernetes/test_interruptions.py",
    "execute/test_local_executor.py",
    "execute/test_search.py",
    "execute/kubernetes/test_conductor.py",
    "store/test_experiment_on_blob.py",
    "store/test_blob_faults.py",
    "runtime/test_operations.py",
    "runtime/test_models.py",
    "report/test_render.py",
    "report/test_browser.py",
    "docs/test_site.py",
    "tasks/test_huggingface.py",
    "tasks/test_minilm.py",
    "pipelines/test_examples.py",
    "cli/test_stores.py",
    "inference/test_phases.py",
    "inference/test_measure.py",
    "execute/test_processes.py",
    "training/test_training.py",
    "runtime/test_networks.py",
    "runtime/test_sessions.py",
    "test_api.py",
    "execute/kubernetes/test_launch.py",
    "store/test_contract.py",
    "docs/test_pages.py",
)
"""Files that take minutes begin first, so that no worker is left with one of them when the others have ended."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {Path(__file__).parent / name: index for index, name in enumerate(SLOW)}
    items.sort(key=lambda item: order.get(item.path, len(SLOW)))


@pytest.fixture(autouse=True)
def denormals() -> None:
    """A test that trained in this process may have switched them off, which hypothesis does not like."""
    if torch := sys.modules.get("torch"):
        torch.set_flush_denormal(False)


@pytest.fixture(scope="module")
def undrawn() -> Iterator[None]:
    """Reports that a module makes in this process hold empty pictures: to draw them takes longer than what is tested."""
    import altair.utils.schemapi
    import vl_convert

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(altair.utils.schemapi, "DEBUG_MODE", False)  # nor is every figure's own schema checked
        patch.setattr(vl_convert, "vegalite_to_svg", lambda *_, **__: "<svg/>")
        patch.setattr(vl_convert, "svg_to_png", lambda *_, **__: b"\x89PNG")
        yield


@pytest.fixture
def recipe_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes the small recipe on real digits, with replacements ``old=new``, and gives its path."""

    def write(*replacements: tuple[str, str], name: str = "recipe.yaml") -> Path:
        text = DIGITS
        for old, new in replacements:
            assert old in text, f"{old!r} is not in the recipe"
            text = text.replace(old, new)
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


@pytest.fixture(scope="session")
def chromium() -> str:
    """A real browser; the test is skipped where there is none."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no Chromium on this machine")
    return path


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Any]:
    """One for all pages of a module; each has a profile of its own."""
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as player:
        browser = player.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()
