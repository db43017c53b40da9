"""The one door for extensions: what changes a run's key, and what is refused."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from ticketsmith.errors import RecipeError
from ticketsmith.plugins import build, source_fingerprint


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "own_package_for_plugins"
    (folder / "parts").mkdir(parents=True)
    (folder / "__init__.py").write_text("from .net import Net\n")
    (folder / "net.py").write_text("import math\nfrom .parts import layers\n\n\nclass Net:\n    pass\n")
    (folder / "parts/__init__.py").write_text("")
    (folder / "parts/layers.py").write_text("WIDTH = 3\n")
    (folder / "unrelated.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    return folder


@pytest.mark.parametrize(
    ("file", "changes"), [("net.py", True), ("parts/layers.py", True), ("__init__.py", True), ("unrelated.py", False)]
)
def test_editing_what_a_model_is_made_of_changes_its_fingerprint(package: Path, file: str, changes: bool) -> None:
    """Also when the name is only re-exported, and when the edit is in a module that it imports."""
    before = source_fingerprint("own_package_for_plugins:Net")
    (package / file).write_text((package / file).read_text() + "# edited\n")
    importlib.invalidate_caches()
    assert (source_fingerprint("own_package_for_plugins:Net") != before) is changes
    for name in [name for name in sys.modules if name.startswith("own_package_for_plugins")]:
        del sys.modules[name]


def test_built_in_names_have_no_fingerprint() -> None:
    assert source_fingerprint("mnist_cnn") is None


def sized(size: int, rate: float = 0.1) -> tuple[int, float]:
    return size, rate


def test_options_are_checked_by_name_and_type() -> None:
    name = "tests.test_plugins:sized"
    assert build("thing", name, {}, {"size": 3}) == (3, 0.1)
    for options, message in (
        ({"size": "many"}, "option 'size'.*valid integer"),
        ({"sise": 3}, "takes no option 'sise'. Did you mean 'size'"),
        ({}, "needs the option 'size'"),
    ):
        with pytest.raises(RecipeError, match=message):
            build("thing", name, {}, options)
