"""Watching what would leave this machine: a library that is preloaded into a process and its children, native code included."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Watch:
    """``environment`` is for the process that is watched."""

    environment: dict[str, str]
    log: Path

    def calls(self) -> list[str]:
        """What was tried since it began, such as ``getaddrinfo example.org``. Nothing of it got out."""
        return self.log.read_text().splitlines() if self.log.exists() else []


def watch(folder: Path) -> Watch:
    """A watch that keeps its notes in ``folder``. Where nothing can be preloaded, the test is skipped, and fails in CI."""
    library = _library()
    log = folder / "sockets.log"
    log.unlink(missing_ok=True)
    return Watch({"LD_PRELOAD": library, "SOCKETS_LOG": str(log)}, log)


@lru_cache(maxsize=1)
def _library() -> str:
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        (pytest.fail if os.environ.get("CI") else pytest.skip)("watching sockets needs Linux and a C compiler, `cc`")
    made = Path(tempfile.mkdtemp(prefix="ticketsmith-sockets-")) / "sockets.so"
    source = Path(__file__).with_suffix(".c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(made), str(source), "-ldl"], check=True)
    return str(made)
