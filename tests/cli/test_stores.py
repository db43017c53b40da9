"""The commands on stores of either kind: pull, push, ls, and everything that reads one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from azure.storage.blob import ContainerClient

from tests import warm
from tests.cli.test_commands import ROOT, call, run
from tests.conftest import DIGITS
from tests.docs.markdown import blocks
from tests.store.azurite import CONNECTION_STRING, KEY
from tests.store.proxy import FaultyProxy

pytestmark = pytest.mark.usefixtures("undrawn")

SMALL = (("levels: 2", "levels: 1"), ("duration: 120it", "duration: 40it"), ("every: 30it", "every: 20it"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``recipe.yaml`` and the runs of its experiment, made by the command itself."""
    folder = tmp_path_factory.mktemp("stores")
    text = DIGITS
    for old, new in SMALL:
        text = text.replace(old, new)
    (folder / "recipe.yaml").write_text(text + "benchmark: {batch_sizes: [1], rounds: 10}\n")
    done = run("-m", "tests.undrawn", "prune", "--config", "recipe.yaml", "--workers", "1", cwd=folder)
    assert done.returncode in (0, 3, 6), done.stdout + done.stderr
    return folder


@pytest.fixture
def here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """In the folder of the experiment; the cache is the test's own."""
    monkeypatch.chdir(made)
    monkeypatch.setenv("TICKETSMITH_CACHE", str(tmp_path / "cache"))
    return made


def everything(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_pushed_listed_and_pulled_it_is_the_same(
    here: Path, container: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = f"az://{container}/team/runs"
    status, out, err = call("push", "runs/digits", store, capsys=capsys)
    assert status == 0, err
    assert f"{store}/digits: 10 runs moved, 0 were there" in out
    status, out, _ = call("ls", store, capsys=capsys)
    assert "digits" in out
    assert out.splitlines()[-1].startswith("total: 10 sealed runs, ")
    status, out, err = call("pull", f"{store}/digits", str(tmp_path / "runs"), capsys=capsys)
    assert status == 0, err
    pulled = everything(tmp_path / "runs" / "digits")
    assert pulled == everything(here / "runs" / "digits")
    assert set(everything(tmp_path / "runs")) == {f"digits/{path}" for path in pulled}
    status, out, _ = call("pull", store, str(tmp_path / "runs"), capsys=capsys)
    assert "0 runs moved, 10 were there; 0 loose files moved (0 B)" in out


def test_watch_follows_a_store_far_away(
    here: Path, container: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree("runs", tmp_path / "part", ignore=shutil.ignore_patterns("ticket"))
    call("push", str(tmp_path / "part/digits"), f"az://{container}", capsys=capsys)
    process = warm.start(
        ("-m", "ticketsmith", "status", "--runs-prefix", f"az://{container}", "--watch", "--interval", "0.5"),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert "digits: dense level 0 seed 0: trained" in process.stdout.readline()
    call("push", "runs/digits", f"az://{container}", capsys=capsys)
    rest, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert rest.count("digits: ticket level 1 seed 0: trained") == 1


def test_ls_tells_sizes_of_experiments_and_of_runs(
    here: Path, container: str, capsys: pytest.CaptureFixture[str]
) -> None:
    call("push", "runs/digits", f"az://{container}", capsys=capsys)
    answers = []
    for place in ("runs", f"az://{container}"):
        status, out, _ = call("ls", place, "--json", capsys=capsys)
        assert status == 0
        answers.append(json.loads(out))
    assert answers[0]["experiments"] == answers[1]["experiments"]
    files = everything(here / "runs" / "digits")
    assert answers[1]["total"] == {"sealed_runs": 10, "files": len(files), "bytes": sum(map(len, files.values()))}
    status, out, _ = call("ls", f"az://{container}/digits", "--json", capsys=capsys)
    runs = json.loads(out)["runs"]
    assert len(runs) == 11
    assert runs[-1]["name"] == "(loose files)"
    assert json.loads(out)["total"] == answers[1]["total"]
    status, out, _ = call("ls", f"az://{container}/nothing/here", capsys=capsys)
    assert status == 0
    assert "no experiments" in out


def test_every_reader_takes_either_kind(here: Path, container: str, capsys: pytest.CaptureFixture[str]) -> None:
    store = f"az://{container}/p"
    call("push", "runs/digits", store, capsys=capsys)
    for words in (["status"], ["gate"], ["verify"]):
        local = call(*words, "--runs-prefix", "runs", "--json", capsys=capsys)
        remote = call(*words, "--runs-prefix", store, "--json", capsys=capsys)
        one = call(*words, "--runs-prefix", f"{store}/digits", "--json", capsys=capsys)
        assert local[:2] == remote[:2] == one[:2], words
    status, out, err = call("report", "--runs-prefix", f"{store}/digits", capsys=capsys)
    assert status == 0, err
    assert f"report: {store}/digits/report/index.html" in out
    assert KEY not in out + err


def test_a_report_is_the_same_from_either_kind(
    here: Path, container: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call("push", "runs/digits", f"az://{container}", capsys=capsys)
    call("report", "--runs-prefix", f"az://{container}", capsys=capsys)
    call("report", "--runs-prefix", "runs", capsys=capsys)
    call("pull", f"az://{container}/digits", str(tmp_path), capsys=capsys)
    for name in ("report.md", "results.csv"):
        assert (tmp_path / "digits/report" / name).read_text() == (here / "runs/digits/report" / name).read_text()


def test_reading_again_costs_no_reading_of_runs(
    here: Path, proxy: FaultyProxy, container: str, capsys: pytest.CaptureFixture[str]
) -> None:
    store = f"az://{container}/p"
    call("push", "runs/digits", store, capsys=capsys)
    reads = []
    for _ in range(2):
        proxy.forget()
        status, _, err = call("gate", "--runs-prefix", f"{store}/digits", capsys=capsys)
        assert status in (0, 3, 6), err
        reads.append(proxy.count("GET", "seed-"))
    assert reads[0] >= 4 * 8
    assert reads[1] == 0


def test_a_run_is_benchmarked_where_it_lies(here: Path, container: str, capsys: pytest.CaptureFixture[str]) -> None:
    store = f"az://{container}/p"
    call("push", "runs/digits", store, capsys=capsys)
    more = ("--batch-size", "1", "--rounds", "10", "--runtime", "torch", "--runtime", "torch_csr", "--no-memory")
    for address in (f"{store}/digits/ticket/seed-0/level-01-*", f"{store}/digits/ticket/seed-0/level-01-*/spec.json"):
        status, out, err = call("benchmark", "--checkpoint", address, *more, capsys=capsys)
        assert status == 0, err
        assert "ticket" in out
    status, _, err = call("benchmark", "--checkpoint", f"{store}/digits/ticket/seed-7/level-01-*", capsys=capsys)
    assert status == 2
    assert "not the folder of a run" in err
    assert call("benchmark", "--runs-prefix", store, *more, capsys=capsys)[0] == 0


def test_a_damaged_run_is_named_and_the_others_arrive(
    here: Path, container: str, client_of: ContainerClient, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call("push", "runs/digits", f"az://{container}", capsys=capsys)
    bad = next(name for name in client_of.list_blob_names() if "ticket" in name and name.endswith("curve.csv"))
    client_of.upload_blob(bad, b"changed", overwrite=True)
    status, out, err = call("pull", f"az://{container}/digits", str(tmp_path), capsys=capsys)
    assert status == 5
    assert "9 runs moved" in out
    assert bad.removesuffix("/curve.csv") in err
    status, _, err = call("verify", "--runs-prefix", f"az://{container}", capsys=capsys)
    assert status == 5
    assert bad in err


@pytest.fixture
def client_of(container: str) -> ContainerClient:
    return ContainerClient.from_connection_string(os.environ[CONNECTION_STRING], container)


def test_what_is_replaced_is_told(
    here: Path, container: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = f"az://{container}"
    call("push", "runs/digits", store, capsys=capsys)
    (tmp_path / "runs/digits").mkdir(parents=True)
    (tmp_path / "runs/digits/recipe.yaml").write_text("mine")
    (tmp_path / "runs/digits/notes.txt").write_text("mine alone")
    status, out, _ = call("pull", f"{store}/digits", str(tmp_path / "runs"), capsys=capsys)
    assert status == 0
    assert f"replaced by those of {store}: recipe.yaml\n" in out
    assert (tmp_path / "runs/digits/notes.txt").read_text() == "mine alone"


def test_a_place_without_experiments_is_told(
    container: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (["pull", f"az://{container}/nothing"], ["push", str(tmp_path), f"az://{container}"]):
        status, _, err = call(*words, capsys=capsys)
        assert status == 2
        assert "no experiment is here" in err


def test_interrupted_anywhere_the_same_command_goes_on(
    here: Path, proxy: FaultyProxy, container: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Killed when some runs have arrived, there and back."""
    store = f"az://{container}"
    for words, method, arrived in (
        (["push", "runs/digits", store], "PUT", "manifest.json"),
        (["pull", f"{store}/digits", str(tmp_path)], "GET", "curve.csv"),
    ):
        proxy.forget()
        proxy.delay = 0.02
        process = warm.start(
            ("-m", "ticketsmith", *words),
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 60
        while proxy.count(method, arrived) < 4 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        proxy.delay = 0.0
        status, _, err = call(*words, capsys=capsys)
        assert status == 0, err
    assert everything(tmp_path / "digits") == everything(here / "runs/digits")


def test_lines_tell_the_progress_where_there_is_no_terminal(
    here: Path, container: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ticketsmith.cli.progress._TELL_EVERY", 0.0)
    status, _, err = call("push", "runs/digits", f"az://{container}", capsys=capsys)
    assert status == 0
    assert any(line.startswith("digits: ") and " of " in line for line in err.splitlines())


def test_the_page_on_storage_does_what_it_shows(
    made: Path,
    container: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made / "runs/digits", "runs/imp_mnist")
    Path("configs").mkdir()
    recipe = (made / "recipe.yaml").read_text().replace("experiment: digits", "experiment: imp_mnist")
    Path("configs/imp_mnist.yaml").write_text(recipe)
    page = ROOT / "docs" / "storage.md"
    commands = [line for block in blocks(page) if block.language == "text" for line in block.commands()]
    commands = [line.replace("az://experiments", f"az://{container}") for line in commands if "ticketsmith " in line]
    assert len(commands) >= 7
    for line in commands:
        status, out, err = call(*line.split()[1:], capsys=capsys)
        assert status in ((0, 3, 6) if " prune " in line else (0,)), f"{line}: {out}{err}"
    assert len(everything(tmp_path / "mirror")) > 50
