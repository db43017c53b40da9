"""Number 1 of a container: it leads a session of its own, and hears no SIGTERM until it listens to it.

``python -m tests.number_one <module> ...`` is how a module becomes one when it is forked instead of begun afresh.
"""

from __future__ import annotations

import io
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from tests import warm

_one_at_a_time = threading.Lock()


def start(argv: Sequence[str], env: Mapping[str, str], folder: Path, log: IO[bytes]) -> subprocess.Popen[Any]:
    """``python -m`` is forked from a process that has what is long to import; all else is begun afresh."""
    streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log, "start_new_session": True}
    if list(argv[:2]) == [sys.executable, "-m"]:
        with _one_at_a_time:  # pods begin in threads
            return warm.start(["-m", __name__, *argv[2:]], env=env, cwd=folder, **streams)
    shielded = ["/bin/sh", "-c", 'trap "" TERM; exec "$@"', "sh", *argv]
    return subprocess.Popen(shielded, env=env, cwd=folder, **streams)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for stream in (sys.stdout, sys.stderr):
        assert isinstance(stream, io.TextIOWrapper)
        stream.reconfigure(line_buffering=True)  # what was printed is there when the process is killed
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
