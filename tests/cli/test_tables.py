"""Tables as people and programs get them: narrow terminals, no colours, documents, and a view that goes on."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import subprocess
import tarfile
import termios
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml

from tests import warm
from tests.cli.test_commands import ROOT, call
from tests.terminal import read_all
from ticketsmith.api import open_experiment
from ticketsmith.cli import options

GOLDEN = ROOT / "tests/golden/runs.tar.xz"
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Sealed runs of an earlier version; those of ``one_shot`` and of two tickets lie aside, as if they were to come."""
    with tarfile.open(GOLDEN) as archive:
        own = [one for one in archive.getmembers() if one.name.startswith("patterns/")]
        archive.extractall(tmp_path / "runs", own, filter="data")
    (tmp_path / "later").mkdir()
    shutil.move(tmp_path / "runs/patterns/ticket", tmp_path / "later/ticket")
    return tmp_path


def test_documents_are_the_same_in_json_and_yaml_and_wide_tables_have_all_columns(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prefix = ("--runs-prefix", str(store / "runs"))
    _, old, _ = call("status", *prefix, "--json", capsys=capsys)
    _, new, _ = call("status", *prefix, "-o", "json", capsys=capsys)
    _, text, _ = call("status", *prefix, "-o", "yaml", capsys=capsys)
    assert json.loads(old) == json.loads(new) == yaml.safe_load(text)
    _, wide, _ = call("status", *prefix, "-o", "wide", capsys=capsys)
    assert json.loads(old)[0]["key"] in wide
    assert "draw" in wide
    for command in (("ls", str(store / "runs")), ("data", "list"), ("prices", "list"), ("gate", *prefix)):
        _, out, _ = call(*command, "-o", "yaml", capsys=capsys)
        _, same, _ = call(*command, "--json", capsys=capsys)
        assert yaml.safe_load(out) == json.loads(same), command


def test_every_command_that_prints_a_table_gives_a_document_too() -> None:
    from ticketsmith.cli.main import group

    for name in (
        "status",
        "gate",
        "plan",
        "benchmark",
        "scorecard",
        "ls",
        "cost",
        "validate",
        "report",
        "verify",
        "track",
    ):
        flags = {flag for parameter in group.commands[name].params for flag in parameter.opts}
        assert {"--json", "-o", "--output"} <= flags, name


@pytest.mark.parametrize("width", [30, 45, 60, 80, 100, 132])
def test_a_narrow_terminal_wraps_and_never_cuts_a_number(
    width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from rich.console import Console

    console = Console(width=width, markup=False, emoji=False, highlight=False)
    monkeypatch.setattr(options, "_console", lambda: console)
    rows = [
        {
            "variant": "random_reinitialisation" if level else "dense",
            "level": str(level),
            "test": f"accuracy 98.{level}234, loss 0.{level}5678",
            "sparsity": f"{level}3.16%",
            "seconds": f"{level}2,345.6",
            "price": f"12{level}.45 EUR",
        }
        for level in range(3)
    ]
    options.print_table(rows, "a title that is longer than the narrowest of these terminals")
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= width
    shown = " ".join(lines)
    for row in rows:
        for number in re.findall(r"[\d.,]*\d%?", " ".join(row.values())):
            assert re.search(rf"(?<![\d.,]){re.escape(number)}(?![\d])", shown), (number, lines)


def on_terminal(*arguments: str, cwd: Path, columns: int = 80) -> tuple[subprocess.Popen[str], int]:
    leader, follower = pty.openpty()
    termios.tcsetwinsize(follower, (24, columns))
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", "NO_COLOR": "1"}
    for name in ("COLUMNS", "LINES"):
        variables.pop(name, None)
    process = warm.start(("-m", "ticketsmith", *arguments), cwd=cwd, env=variables, stdout=follower, stderr=follower)
    os.close(follower)
    return process, leader


def test_no_color_is_kept_to_and_a_terminal_is_filled(store: Path) -> None:
    process, leader = on_terminal("status", "--runs-prefix", "runs", cwd=store, columns=60)
    text = read_all(leader)
    assert process.wait(60) == 0
    assert not re.search(r"\x1b\[(?:\d+;)*(?:3[0-8]|4[0-8]|9[0-7]|10[0-7])(?:;\d+)*m", text)
    lines = [ESCAPE.sub("", line).rstrip() for line in text.splitlines()]
    assert max(map(len, lines)) <= 60
    assert any("of" in line and "runs sealed" in line for line in lines)


def test_watch_draws_anew_on_a_terminal_and_ends_when_all_is_sealed(store: Path) -> None:
    process, leader = on_terminal("status", "--runs-prefix", "runs", "--watch", "--interval", "0.1", cwd=store)
    seen, deadline = "", time.monotonic() + 60
    while "missing" not in seen and time.monotonic() < deadline:
        seen += os.read(leader, 65536).decode(errors="replace")
    shutil.move(store / "later/ticket", store / "runs/patterns/ticket")
    seen += read_all(leader)
    assert process.wait(60) == 0
    totals = re.findall(r"patterns: (\d+) of (\d+) runs sealed", ESCAPE.sub("", seen))
    assert totals[0] != totals[-1]
    assert totals[-1][0] == totals[-1][1]
    assert "Ctrl-C ends this view" in seen


def test_watch_tells_a_pipe_what_changed_line_by_line(store: Path) -> None:
    process = warm.start(
        ("-m", "ticketsmith", "status", "--runs-prefix", "runs", "--watch", "--interval", "0.1"),
        cwd=store,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    first = process.stdout.readline()
    assert re.fullmatch(r"\d\d:\d\d:\d\d patterns: dense level 0 seed 0: trained\n", first)
    shutil.move(store / "later/ticket", store / "runs/patterns/ticket")
    rest, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert len(re.findall(r"patterns: ticket level \d seed 0: trained", rest)) == 2
    assert len(rest.splitlines()) == len(set(rest.splitlines()))


def test_watch_is_for_people(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = call("status", "--runs-prefix", str(store / "runs"), "--watch", "--json", capsys=capsys)
    assert status == 2
    assert "--watch is for people" in err


def test_results_are_a_table_for_pandas(store: Path, undrawn: None) -> None:
    from ticketsmith.report.render import render

    experiment = open_experiment("patterns", store / "runs")
    (store / "results.csv").write_bytes(render(experiment.findings, ())["results.csv"])
    frame = pd.read_csv(store / "results.csv")
    assert sorted(frame["key"]) == sorted(result.key for result in experiment.results)
    assert frame["test_accuracy_final"].dtype == float
    assert frame["diverged"].dtype == bool
