"""An experiment that an earlier version sealed, and real trackers on this machine."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import tarfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "runs.tar.xz"


@pytest.fixture(scope="session")
def old_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(GOLDEN) as archive:
        own = [one for one in archive.getmembers() if one.name.startswith("digits/")]
        archive.extractall(folder, own, filter="data")
    for variant in (folder / "digits").iterdir():
        if variant.is_dir() and variant.name not in ("dense", "ticket", "rewind_point"):
            shutil.rmtree(variant)  # not sealed yet, as far as anybody can tell
    with (folder / "digits/recipe.yaml").open("a") as recipe:
        recipe.write("gates: {metrics: {accuracy: {max_drop: 50.0}}, method: point}\n")
    report = folder / "digits/report"
    report.mkdir()
    (report / "index.html").write_text("<html>a report</html>")
    return folder


@pytest.fixture
def runs(old_runs: Path, tmp_path: Path) -> Path:
    """A store with 8 sealed runs of ``digits``, which has more in its plan."""
    shutil.copytree(old_runs, tmp_path / "runs")
    return tmp_path / "runs"


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    """Trackers set variables for their libraries, which other tests have no need of."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def mlflow_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real MLflow server with a database of SQLite. ``make test-trackers`` installs it."""
    program = os.environ.get("TICKETSMITH_MLFLOW") or shutil.which("mlflow")
    if program is None or importlib.util.find_spec("mlflow") is None:
        pytest.skip("no MLflow here: `make test-trackers` installs and tests it")
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [program, "server", "--workers", "1", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", "sqlite:///mlflow.db", "--artifacts-destination", "artifacts"]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(command, cwd=folder, env={**os.environ, **quiet}, stdout=log, stderr=log)
        try:
            address = f"http://127.0.0.1:{port}"
            _wait(address, server, folder / "log")
            yield address
        finally:
            server.terminate()
            server.wait(30)


def _wait(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline and server.poll() is None:
        try:
            urllib.request.urlopen(f"{address}/health", timeout=5).close()
            return
        except OSError:
            time.sleep(0.2)
    pytest.fail(log.read_text())
