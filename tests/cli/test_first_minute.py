"""What somebody meets in the first minute: no arguments, the demo, the Tab key."""

from __future__ import annotations

import os
import pty
import re
import select
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
    counts = {int(count) for count in re.findall(r"demo: (\d+) of 5 networks trained", shown)}
    assert counts, shown
    assert "writing the report" in shown
    assert shown.count("\n") == 1, "one line, written over itself"
    assert shown.endswith("\x1b[1A\x1b[2K"), "and gone in the end"
    assert out.startswith("demo: ")
    assert out.splitlines()[-2:] == ["report: runs/demo/report/index.html", "recipe: runs/demo/recipe.yaml"]
    assert load_recipe(tmp_path / "runs/demo/recipe.yaml").experiment == "demo"


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_completion_of_other_shells(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call("completion", shell, capsys=capsys)
    assert code == 0
    assert f"_TICKETSMITH_COMPLETE={shell}_complete" in out


def test_the_tab_key_in_bash(tmp_path: Path) -> None:
    """A command, an option and a file, each completed from its beginning, in a real bash on a terminal."""
    (tmp_path / "my_recipe.yaml").touch()
    leader, follower = pty.openpty()
    environment = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "TERM": "dumb",
        "PS1": "ready> ",
        "HOME": str(tmp_path),
    }
    bash = subprocess.Popen(
        ["bash", "--norc", "--noprofile", "-i"],
        cwd=tmp_path, env=environment, stdin=follower, stdout=follower, stderr=follower, start_new_session=True,
    )  # fmt: skip
    os.close(follower)

    def wait_for(text: str) -> str:
        seen, deadline = "", time.monotonic() + 60
        while text not in seen and time.monotonic() < deadline:
            if select.select([leader], [], [], 1)[0]:
                seen += os.read(leader, 4096).decode(errors="replace")
        assert text in seen, seen
        return seen

    try:
        wait_for("ready> ")
        os.write(leader, b'eval "$(ticketsmith completion bash)"; echo "do""ne"\n')
        wait_for("done")
        os.write(leader, b"ticketsmith validat\t")
        wait_for("validate ")
        os.write(leader, b"--conf\t")
        wait_for("--config ")
        os.write(leader, b"my_\t")
        wait_for("my_recipe.yaml")
    finally:
        bash.kill()
        bash.wait()
        os.close(leader)
