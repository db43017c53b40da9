"""Runs the commands that the documents show, in this process: a fresh one would import torch for each of them."""

from __future__ import annotations

import glob
import os
import runpy
import shlex
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from tests.docs.markdown import ROOT
from ticketsmith.cli.main import main

NOT_RUN = {
    "pip install": "changes the environment; `make test` itself installs by these files",
    "apt-get install": "needs a Debian system, its rights and a network",
    ". .venv/bin/activate": "is for the user's own shell",
    "ticketsmith data fetch": "needs a network; tests/data/test_download.py fetches from a local server",
    "ticketsmith prices refresh": "needs a network; tests/prices/test_refresh.py asks a local server",
    "docker ": "needs docker; tests/image builds and runs the image, by what this machine has",
    "az acr ": "needs an Azure subscription",
}
"""Beginnings of commands that are not run, and why. `make` targets are expanded but not executed."""

GATE = (0, 3, 6)  # a stand-in is too small to pass its gate for certain


def run(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs one command in the current directory; AssertionError when it ends with another status than it should."""
    if any(command.startswith(start) for start in NOT_RUN):
        return
    words = shlex.split(command)
    with monkeypatch.context() as patch:
        while "=" in words[0]:
            patch.setenv(*words.pop(0).split("=", 1))
        words = [path for word in words for path in (sorted(glob.glob(word)) or [word])]  # noqa: PTH207
        if words[0] == "make":
            expanded = subprocess.run(["make", "--dry-run", *words[1:]], cwd=ROOT, capture_output=True, text=True)
            assert expanded.returncode == 0, f"{command}: {expanded.stderr}"
            return
        status = _status(words, patch)
    may_fail = "prune" in command or "gate" in command
    assert status in (GATE if may_fail else (0,)), f"{command}: exit status {status}"


def _status(words: list[str], patch: pytest.MonkeyPatch) -> int:
    arguments = words[1:]
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="runpy")  # a module that is imported already
            match words:
                case ["ticketsmith", *_]:
                    patch.setattr(sys, "argv", words)
                    main()
                case ["python", "-m", module, *rest]:
                    patch.setattr(sys, "argv", [module, *rest])
                    runpy.run_module(module, run_name="__main__")
                case ["python", script, *_]:
                    patch.setattr(sys, "argv", arguments)
                    runpy.run_path(script, run_name="__main__")
                case _:
                    pytest.fail(f"do not know how to run {shlex.join(words)!r}: teach {Path(__file__).name}")
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def forget(folder: Path) -> None:
    """Unloads the modules that came from ``folder`` and takes it from the places to import from."""
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(f"{folder}{os.sep}"):
            del sys.modules[name]
    sys.path[:] = [place for place in sys.path if place != str(folder)]
