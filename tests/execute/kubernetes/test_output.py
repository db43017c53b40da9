"""A copy of what a pod and its children print."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT

CHILD_LIVES_ON = """
import subprocess, sys, threading
from ticketsmith.execute.kubernetes.output import Output

with Output() as output:
    command = [sys.executable, "-c", "import time; print('child', flush=True); time.sleep(600)"]
    child = subprocess.Popen(command)
    while b"child" not in output.text():
        output.flush()
    print("ours")
assert threading.active_count() == 1, "the copy goes on, or was waited for in vain"
assert child.poll() is None  # it holds the pipe open, as the resource tracker of multiprocessing does
child.kill()
assert output.text() == b"child\\nours\\n"
"""
LONG = """
from ticketsmith.execute.kubernetes.output import Output

with Output() as output:
    print("first")
    for _ in range(5 * 1024):
        print("x" * 1023)
    print("last")
text = output.text()
assert text.startswith(b"first\\n") and text.endswith(b"last\\n") and b"\\n[...]\\n" in text
assert len(text) < 5 << 20
"""
SLOW_COPY = """
import threading, time
from ticketsmith.errors import Exit
from ticketsmith.execute.kubernetes.pod import Attended
from ticketsmith.execute.kubernetes.records import PodRecord, Records
from ticketsmith.prices import Rate
from ticketsmith.store import open_store

store, under_way = open_store({folder!r}), threading.Event()
put = store.put

def slow(path, content):
    if threading.current_thread() is not threading.main_thread():
        under_way.set()
        time.sleep(0.5)
    put(path, content)

store.put = slow
records = Records(store, "exp")
with Attended(records, PodRecord.of("pod", "job", "ticket", 0, Rate("machine", 1.0, "USD")), beat=0.01) as attended:
    under_way.wait()
    print("the last word")
    attended.finish(Exit.OK)
for thread in set(threading.enumerate()) - {{threading.main_thread()}}:
    thread.join()
assert b"the last word" in store.get(records.log_path("job", 0, "pod"))
(record,) = records.pods()
assert (record.ended, record.exit) == (True, 0)
"""


def printed(script: str) -> str:
    """What a process prints whose output passes through; it may not leave anything out."""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_a_child_that_lives_on_is_not_waited_for() -> None:
    assert printed(CHILD_LIVES_ON) == "child\nours\n"


def test_of_a_long_log_beginning_and_end_are_kept() -> None:
    assert len(printed(LONG)) == 5 * 2**20 + len("first\nlast\n")


def test_the_last_copy_is_the_one_that_stays(tmp_path: Path) -> None:
    printed(SLOW_COPY.format(folder=str(tmp_path / "runs")))
