"""What somebody meets in the first minute: no arguments, the demo, the Tab key."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import warm
from tests.cli.test_commands import ROOT, call
from tests.terminal import read_all
from ticketsmith.config import load_recipe

SMALL = (
    "task={data: digits, model: {name: mlp, widths: [16]}, validation: 200}",
    "training={optimizer: adam, lr: 0.01, batch_size: 50, duration: 40it, evaluate_every: 10it}",
    "pruning.levels=1",
    "replicates=1",
    "gates.target_sparsity=0.3",
)


def test_without_arguments_it_says_where_to_begin(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(capsys=capsys)
    assert (code, err) == (0, "")
    assert "ticketsmith demo" in out
    assert max(map(len, out.splitlines())) <= 80


def test_the_demo_is_one_line_that_ends_with_the_answer_and_the_report(tmp_path: Path) -> None:
    leader, follower = pty.openpty()
    overrides = [word for override in SMALL for word in ("--set", override)]
    process = warm.start(
        ("-m", "tests.plain", "demo", "--no-benchmark", *overrides),
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", "COLUMNS": "120"},
        stdout=subprocess.PIPE,
        stderr=follower,
    )
    os.close(follower)
    shown = read_all(leader, 90)
    process.wait(timeout=60)
    out = process.stdout.read() if process.stdout else ""
    out = out if isinstance(out, str) else out.decode()
    assert process.returncode in (0, 3, 6), shown
    counts = {int(count) for count in re.findall(r"demo: (\d+) of 4 networks trained", shown)}
    assert counts, shown
    assert "writing the report" in shown
    assert shown.count("\n") == 1, "one line, written over itself"
    assert shown.endswith("\x1b[1A\x1b[2K"), "and gone in the end"
    assert out.startswith("demo: ")
    assert out.splitlines()[-2:] == ["report: runs/demo/report/index.html", "recipe: runs/demo/recipe.yaml"]
    assert load_recipe(tmp_path / "runs/demo/recipe.yaml").experiment == "demo"


SHELLS = {
    "bash": (("--norc", "--noprofile", "-i"), 'eval "$(ticketsmith completion bash)"'),
    "zsh": (("-f", "-i"), 'eval "$(ticketsmith completion zsh)"'),
    "fish": (("--no-config", "-i"), "ticketsmith completion fish | source"),
}
_DRAWING = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\(B|[\x00\x08]")


@pytest.mark.parametrize("shell", SHELLS)
def test_the_tab_key(shell: str, tmp_path: Path) -> None:
    """A command, an option and a file, each completed from its beginning, in a real shell on a terminal of its own."""
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} on this machine")
    options, setting_up = SHELLS[shell]
    (tmp_path / "my_recipe.yaml").touch()
    leader, follower = pty.openpty()
    environment = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "TERM": "dumb" if shell == "bash" else "xterm",
        "PS1": "ready> ",
        "HOME": str(tmp_path),
    }
    process = subprocess.Popen(
        ["setsid", "--ctty", shell, *options],
        cwd=tmp_path, env=environment, stdin=follower, stdout=follower, stderr=follower,
    )  # fmt: skip
    os.close(follower)

    def wait_for(text: str) -> None:
        seen, deadline = "", time.monotonic() + 60
        while text not in _DRAWING.sub("", seen) and time.monotonic() < deadline:
            if select.select([leader], [], [], 1)[0]:
                seen += os.read(leader, 4096).decode(errors="replace")
        assert text in _DRAWING.sub("", seen), seen

    try:
        os.write(leader, f'{setting_up}; echo "do""ne"\r'.encode())
        wait_for("done\r\n")
        for typed, completed in (
            ("ticketsmith validat", "validate "),
            ("--conf", "--config "),
            ("my_", "my_recipe.yaml"),
        ):
            os.write(leader, f"{typed}\t".encode())
            wait_for(completed)
    finally:
        process.kill()
        process.wait()
        os.close(leader)
