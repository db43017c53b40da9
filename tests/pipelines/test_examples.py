"""The examples for pipelines run as they stand: a pull request's job, Optuna that is killed, a model behind HTTP."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from ticketsmith import runtime
from ticketsmith.runtime.from_torch import from_torch

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
Write = Callable[..., Path]


def needs(*libraries: str) -> None:
    """Skips where a library is missing, but on CI, where none may be."""
    missing = [name for name in libraries if importlib.util.find_spec(name) is None]
    if missing:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"not installed here: {', '.join(missing)}")


SMALL = (
    ("levels: 2", "levels: 1"),
    ("duration: 120it", "duration: 40it"),
    ("evaluate_every: 30it", "evaluate_every: 20it"),
)


UNDRAWN = """
import runpy, sys
from tests.plain import PlainReport
sys.modules["ticketsmith.report.render"] = PlainReport("ticketsmith.report.render")
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Runs a program with a page of one line in the place of reports, which take longer than all that is trained here."""


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **more}


@pytest.mark.parametrize("passes", [True, False], ids=["green", "red"])
def test_a_pull_request_is_red_as_the_gate_says_and_has_the_report(
    passes: bool, recipe_file: Write, tmp_path: Path
) -> None:
    """Every ``run`` of the job, by bash as on a runner; ``ticketsmith``, ``pip`` and ``gh`` are what the path has."""
    job = yaml.safe_load((EXAMPLES / "github_actions/ticketsmith.yml").read_text())["jobs"]["gate"]
    margin, fraction = ("100.0", "0.5") if passes else ("0.0001", "0.95")
    gates = (("max_drop: 5.0", f"max_drop: {margin}"), ("sparsity: 0.4", "sparsity: 0.4\n  method: point"))
    recipe_file(*gates, ("fraction: 0.5", f"fraction: {fraction}"), ("replicates: 2", "replicates: 1"), *SMALL)
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, body in {
        "ticketsmith": f'module=ticketsmith more=\n[ "$1" != prune ] || {{ module=tests.plain; more=--no-benchmark; }}\n'
        f'exec {sys.executable} -m $module "$@" $more',
        "pip": "exit 0",
        "python": f'exec {sys.executable} "$@"',
        "gh": f'echo "$@" > {tmp_path}/gh; cat comment.md > {tmp_path}/posted',
    }.items():
        (programs / name).write_text(f"#!/bin/bash\n{body}\n")
        (programs / name).chmod(0o755)
    outputs: dict[str, str] = {}
    statuses = {}
    for step in job["steps"]:
        if "run" not in step:
            continue
        (tmp_path / "output").write_text("")
        given = {**job["env"], **step.get("env", {}), "CONFIG": "recipe.yaml"}
        variables = {name: _expanded(value, outputs) for name, value in given.items()}
        done = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", step["run"]],
            cwd=tmp_path,
            env=environment(
                PATH=f"{programs}:{os.environ['PATH']}",
                GITHUB_OUTPUT=str(tmp_path / "output"),
                GITHUB_STEP_SUMMARY=str(tmp_path / "summary"),
                **variables,
            ),
            capture_output=True,
            text=True,
            timeout=300,
        )
        statuses[step["name"]] = done.returncode
        assert done.returncode == 0 or step["name"] == "Fail as the gate does", done.stdout + done.stderr
        outputs |= dict(line.split("=", 1) for line in (tmp_path / "output").read_text().splitlines())
    assert statuses["Fail as the gate does"] == (0 if passes else 3)
    assert (tmp_path / "posted").read_text() == (tmp_path / outputs["report"] / "report.md").read_text()
    assert (tmp_path / "summary").read_text() == (tmp_path / "posted").read_text()
    assert (tmp_path / "gh").read_text().startswith("pr comment 17 --body-file comment.md")


def _expanded(value: str, outputs: dict[str, str]) -> str:
    """What GitHub puts in the place of its expressions."""
    known = {"github.token": "t", "github.event.pull_request.number": "17"}
    known |= {f"steps.prune.outputs.{name}": text for name, text in outputs.items()}
    return re.sub(r"\$\{\{ (.*?) \}\}", lambda match: known[match[1]], value)


def test_a_study_that_is_killed_goes_on_with_what_is_sealed(recipe_file: Write, tmp_path: Path) -> None:
    needs("optuna")
    recipe = recipe_file(*SMALL)
    command = [sys.executable, "-c", UNDRAWN, str(EXAMPLES / "optuna_search.py")]
    command += ["--config", str(recipe), "--trials", "2"]
    options: dict[str, Any] = {"cwd": tmp_path, "env": environment(), "text": True}

    def sealed() -> int:
        return len(list(tmp_path.glob("runs/trial_*/*/seed-*/level-*/manifest.json")))

    first = subprocess.Popen(
        command, **options, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while sealed() < 2 and time.monotonic() < deadline and first.poll() is None:
        time.sleep(0.01)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    before = sealed()
    assert before >= 2
    done = subprocess.run(command, **options, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr
    [again, other] = re.findall(r"trial \d+: .*? \((\d+) trained, (\d+) cached\)", done.stdout)
    assert int(again[1]) >= 2, done.stdout
    assert int(again[0]) + int(again[1]) == int(other[0]) + int(other[1])
    assert len(list(tmp_path.glob("runs/trial_*"))) == 2, "the trial that was cut off is asked again, as it was"
    assert "best: " in done.stdout
    third = subprocess.run(command, **options, capture_output=True, timeout=300)
    assert "trained" not in third.stdout, "a study that is finished asks nothing"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, nn.Module]]:
    """The address of the example, and the model behind it."""
    needs("fastapi", "uvicorn")
    model = nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    with torch.no_grad():
        model[0].weight *= torch.rand(8, 12) < 0.3
    runtime.save(tmp_path / "model.tsk", from_torch(model, torch.zeros(1, 12)), {})
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "--app-dir", str(EXAMPLES), "serve_fastapi:app", "--port", str(port)]
    with subprocess.Popen(
        [*command, "--log-level", "warning"], env=environment(MODEL=str(tmp_path / "model.tsk"), MODEL_BATCH="4")
    ) as server:
        address = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and server.poll() is None:
            try:
                urllib.request.urlopen(f"{address}/health", timeout=5).close()
                break
            except OSError:
                time.sleep(0.05)
        yield address, model
        server.terminate()


def test_a_network_behind_http_answers_as_it_does_here_and_counts_latencies(served: tuple[str, nn.Module]) -> None:
    address, model = served

    def ask(inputs: Any) -> Any:
        body = json.dumps({"inputs": inputs}).encode()
        request = urllib.request.Request(f"{address}/predict", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)["outputs"]

    def batch(seed: int) -> torch.Tensor:
        return torch.randn(2, 12, generator=torch.Generator().manual_seed(seed))

    def check(seed: int) -> None:
        with torch.no_grad():
            expected = model(batch(seed))
        np.testing.assert_allclose(ask(batch(seed).tolist()), expected, atol=1e-5)

    threads = [threading.Thread(target=check, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for wrong in ([[1.0]], [[1.0] * 12] * 5, [["x"] * 12], []):
        with pytest.raises(urllib.error.HTTPError) as refused:
            ask(wrong)
        assert refused.value.code == 422
        refused.value.close()
    with urllib.request.urlopen(f"{address}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    counts = [int(count) for count in re.findall(r"_bucket\{le=\".*?\"\} (\d+)", text)]
    assert counts == sorted(counts)
    assert counts[-1] == int(re.search(r"_count (\d+)", text)[1]) == 8  # type: ignore[index]
    assert 0 < float(re.search(r"_sum (\S+)", text)[1]) < 10  # type: ignore[index]
