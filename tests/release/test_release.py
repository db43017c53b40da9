"""`make release` refuses what is not ready, and says what to do."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT

CHANGELOG = """# Changelog

## [Unreleased]

## [1.2.0] - 2026-01-02

### Added

- This.

## [1.1.0] - 2026-01-01

- That.
"""


@pytest.fixture
def refusal(tmp_path: Path) -> Callable[..., str]:
    """What the command says of a clone with this changelog, this ``tag`` and this stray file; nothing where all is well."""

    def release(changelog: str, tag: str = "", change: str = "") -> str:
        (tmp_path / "ticketsmith").mkdir()
        (tmp_path / "ticketsmith" / "version.py").write_text('__version__ = "1.2.0"\n')
        (tmp_path / "scripts").mkdir()
        for name in ("release.py", "wheels.py"):
            (tmp_path / "scripts" / name).write_text((ROOT / "scripts" / name).read_text())
        (tmp_path / ".gitignore").write_text("__pycache__\n")
        (tmp_path / "CHANGELOG.md").write_text(changelog)
        who = ("-c", "user.name=x", "-c", "user.email=x@x")
        git(tmp_path, "init", "--quiet")
        git(tmp_path, "add", ".")
        git(tmp_path, *who, "commit", "--quiet", "-m", "x")
        if tag:
            git(tmp_path, "tag", tag)
        if change:
            (tmp_path / change).write_text("")
        command = [sys.executable, "scripts/release.py", "--check"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == (1 if done.stderr else 0)
        assert "Traceback" not in done.stderr
        return done.stderr

    return release


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True)


def test_a_clone_with_changes(refusal: Callable[..., str]) -> None:
    assert "stray.py" in refusal(CHANGELOG, change="stray.py")


def test_a_version_that_is_out(refusal: Callable[..., str]) -> None:
    assert "v1.2.0 was released already" in refusal(CHANGELOG, tag="v1.2.0")


@pytest.mark.parametrize(
    ("old", "new"),
    [("## [1.2.0] - 2026-01-02", "## [1.2.1] - 2026-01-02"), (" - 2026-01-02", ""), ("- This.\n", "")],
    ids=["no section", "no date", "nothing in it"],
)
def test_a_changelog_without_this_version(old: str, new: str, refusal: Callable[..., str]) -> None:
    assert "no section `## [1.2.0] - <date>`" in refusal(CHANGELOG.replace(old, new))


def test_changes_that_were_left_behind(refusal: Callable[..., str]) -> None:
    assert "under [Unreleased]" in refusal(CHANGELOG.replace("## [Unreleased]\n", "## [Unreleased]\n\n- More.\n"))


def test_a_changelog_that_fits(refusal: Callable[..., str]) -> None:
    assert not refusal(CHANGELOG)
