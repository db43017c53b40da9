"""The set-up of `make`: one line, and where to look when something fails."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

PROGRAM = """
import sys
from pathlib import Path
sys.path.insert(0, {scripts!r})
import install
with open("install.log", "w") as log:
    line = install.Line(log)
    install.run(line, "fetching", [sys.executable, "-c", "print('Collecting torch'); print('WARNING: a page of it')"])
    install.run(line, "building", [sys.executable, "-c", {failing!r}])
"""
FAILING = "import sys; print('cc: not found'); sys.exit(3)"


@pytest.mark.parametrize("terminal", [False, True], ids=["in a log", "on a terminal"])
def test_what_pip_says_goes_to_a_log_and_the_end_of_it_is_shown_on_failure(terminal: bool, tmp_path: Path) -> None:
    leader, follower = pty.openpty()
    program = PROGRAM.format(scripts=str(ROOT / "scripts"), failing=FAILING)
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        stderr=follower if terminal else subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    os.close(follower)
    shown = (os.read(leader, 65536) if terminal else done.stderr).decode()
    os.close(leader)
    assert done.returncode == 1
    assert not done.stdout
    assert ("Collecting torch" in shown) == terminal, "as it comes, on the one line"
    assert shown.splitlines()[-1] == "building failed; all of it is in install.log"
    assert "cc: not found" in shown
    last_lines = shown.rpartition("\r\x1b[2K")[2] if terminal else shown
    assert "WARNING" not in last_lines
    assert "WARNING: a page of it" in (tmp_path / "install.log").read_text()
    assert terminal or shown.splitlines()[:2] == ["fetching", "building"]
