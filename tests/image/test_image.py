"""The image as its users meet it: what it runs, what it keeps, what it must not hold. Built and run for real."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import DIGITS
from tests.image.conftest import Image
from tests.image.engine import SECRETS, UID, checked
from ticketsmith.version import __version__

pytestmark = pytest.mark.timeout(1800)  # the first test waits for the build, which takes minutes on a busy machine

GATE = (0, 3, 6)  # a gate may fail on so little data
# Few runs, each long enough to be met in its middle.
RECIPE = DIGITS.replace("120it", "2000it").replace("30it", "500it").replace("levels: 2", "levels: 1")
RECIPE = RECIPE.replace("replicates: 2", "replicates: 1")


@dataclass(frozen=True)
class Local:
    """The same experiment made by this Python, from the same checkout."""

    store: Path
    environment: dict[str, Any]


@pytest.fixture(scope="module")
def local(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Local:
    folder = tmp_path_factory.mktemp("local")
    (folder / "recipe.yaml").write_text(RECIPE)
    command = [
        sys.executable,
        "-m",
        "tests.plain",
        "prune",
        "--config",
        "recipe.yaml",
        "--store",
        "runs",
        "--no-benchmark",
    ]
    environment = {**os.environ, "PYTHONPATH": str(image.context)}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode in GATE, result.stderr
    some = next((folder / "runs").rglob("environment.json"))
    return Local(folder / "runs", json.loads(some.read_text()))


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """What is mounted at /work: writable for the image's user, who is nobody here."""
    folder = tmp_path / "work"
    folder.mkdir()
    folder.chmod(0o777)
    (folder / "recipe.yaml").write_text(RECIPE)
    return folder


def mount(work: Path) -> tuple[str, ...]:
    return ("--volume", f"{work}:/work")


def inspect(image: Image) -> Any:
    return json.loads(checked(*image.engine.control, "image", "inspect", image.name))[0]["Config"]


def test_tells_its_version(image: Image) -> None:
    result = image.engine.run(image.name, "--version")
    assert result.stdout.strip() == f"ticketsmith, version {__version__}", result.stderr


def test_is_labelled(image: Image, local: Local) -> None:
    labels = inspect(image)["Labels"]
    assert labels["org.opencontainers.image.version"] == __version__
    assert labels["org.opencontainers.image.revision"] == (local.environment["git_commit"] or "")
    assert labels["org.opencontainers.image.base.name"] == image.base


def test_a_user_without_rights_runs_it(image: Image) -> None:
    assert inspect(image)["User"] == f"{UID}:{UID}"  # numbers, so that `runAsNonRoot` can be checked
    result = image.engine.shell(image.name, "id -u; id -g; id -un; find / -xdev -type f -perm /6000")
    assert result.stdout.split() == [str(UID), str(UID), "ticketsmith"], "or programs that give other rights"


def test_holds_no_compiler_and_nothing_that_installs(image: Image) -> None:
    tools = "cc gcc g++ c++ clang make cmake ld as nvcc pip pip3 git curl wget"
    tools_there = image.engine.shell(image.name, f"for tool in {tools}; do command -v $tool; done; echo end")
    assert tools_there.stdout.split() == ["end"]
    module = image.engine.run(image.name, "-c", "import pip", options=("--entrypoint", "python"))
    assert "No module named 'pip'" in module.stderr


def test_holds_nothing_needless(image: Image) -> None:
    places = "/root/.cache /work/* /work/.[!.]* /src /layers /opt/tools /app/recipe/* /var/lib/apt/lists/*"
    leftovers = image.engine.shell(
        image.name, f"ls -d {places} 2>/dev/null; find / -xdev -name '*.whl' ! -path '/usr/*'"
    )
    assert leftovers.stdout == ""
    strange = image.engine.shell(
        image.name,
        r"find / -xdev \( -name tests -o -name .git -o -name runs -o -name '.env*' -o -name 'kubeconfig*' \)",
    )
    assert strange.stdout == ""
    print("image, bytes:", image.engine.do("image", "inspect", "--format", "{{.Size}}", image.name).stdout)
    print("largest packages, MB:")
    print(image.engine.shell(image.name, "du -sm /opt/venv/lib/python3*/site-packages/* | sort -rn | head").stdout)


def test_has_its_kernels_and_every_process_starts_from_bytecode(image: Image) -> None:
    """A read-only root file system cannot keep any, and compiling takes seconds."""
    script = "import ticketsmith.api as a, torch as b, scipy as c; print(*(m.__spec__.cached for m in (a, b, c)))"
    script += "\nfrom ticketsmith import native; print(native.available())"
    *paths, kernels = image.engine.run(image.name, "-c", script, options=("--entrypoint", "python")).stdout.split()
    assert (len(paths), kernels) == (3, "True")
    assert image.engine.shell(image.name, f"ls {' '.join(paths)}").returncode == 0


def test_can_speak_to_azure_and_kubernetes(image: Image) -> None:
    script = "import azure.identity, azure.storage.blob, kubernetes.client, pynvml, ssl; "
    script += "print(len(ssl.create_default_context().get_ca_certs()) > 0)"
    result = image.engine.run(image.name, "-c", script, options=("--entrypoint", "python"))
    assert result.stdout.strip() == "True", result.stderr


def test_no_library_can_report_on_its_use(image: Image) -> None:
    script = "import importlib.util as u, os, openvino; openvino.Core(); "
    script += "print(u.find_spec('openvino_telemetry'), os.environ['ORT_DISABLE_TELEMETRY'])"
    result = image.engine.run(image.name, "-c", script, options=("--entrypoint", "python"))
    assert result.stdout.split() == ["None", "1"], result.stderr


def test_only_what_is_named_goes_into_the_build(image: Image, tmp_path: Path) -> None:
    probe = tmp_path / "Dockerfile"
    probe.write_text(f"FROM {image.base}\nCOPY . /context\n")
    name = "localhost/ticketsmith-test:context"
    checked(*image.engine.builder.split(), "--file", probe, "--tag", name, image.context)
    listed = image.engine.shell(name, "cd /context && find . -type f").stdout.split()
    image.engine.do("rmi", name)
    files = {path.removeprefix("./") for path in listed}
    assert "ticketsmith/version.py" in files
    assert not files & set(SECRETS)
    assert {path.partition("/")[0] for path in files} <= {
        *("Dockerfile", "LICENSE", "MANIFEST.in", "README.md", "pyproject.toml", "setup.py", "docker", "ticketsmith"),
        ".dockerignore",  # some builders send it always
    }


def sealed(store: Path) -> dict[str, bytes]:
    """Every file of every sealed run."""
    runs = [path.parent for path in store.rglob("manifest.json")]
    return {path.relative_to(store).as_posix(): path.read_bytes() for run in runs for path in run.iterdir()}


def assert_same_runs(store: Path, local: Local) -> None:
    """Byte for byte. Where the image has another Python, its version may differ, and with it ``environment.json``."""
    actual, expected = sealed(store), sealed(local.store)
    assert actual.keys() == expected.keys()
    some = json.loads(next(content for path, content in actual.items() if path.endswith("environment.json")))
    if any(some[fact] != local.environment[fact] for fact in ("torch", "numpy", "platform", "cpu")):
        pytest.skip(f"what computes here computes other bits than the image: {local.environment} against {some}")
    compared: Callable[[str, bytes], Any] = lambda path, content: content  # noqa: E731
    if some["python"] != local.environment["python"]:
        compared = _without_python
    for path in expected:
        assert compared(path, actual[path]) == compared(path, expected[path]), path


def _without_python(path: str, content: bytes) -> Any:
    match path.rpartition("/")[2]:
        case "environment.json":
            return {key: value for key, value in json.loads(content).items() if key != "python"}
        case "manifest.json":
            manifest = json.loads(content)
            return manifest | {"files": {k: v for k, v in manifest["files"].items() if k != "environment.json"}}
    return content


def test_gives_the_bytes_of_a_local_run(image: Image, work: Path, local: Local) -> None:
    arguments = ("prune", "--config", "recipe.yaml", "--no-benchmark")
    result = image.engine.run(image.name, *arguments, options=mount(work))
    assert result.returncode in GATE, result.stderr
    assert "report: runs/digits/report/index.html" in result.stdout
    assert "<html" in (work / "runs" / "digits" / "report" / "index.html").read_text()[:200]
    assert_same_runs(work / "runs", local)


def test_asked_to_stop_it_saves_and_another_container_goes_on(image: Image, work: Path, local: Local) -> None:
    engine, name = image.engine, f"ticketsmith-test-{os.getpid()}"
    arguments = ("prune", "--config", "recipe.yaml", "--no-benchmark")
    hardened = ("--read-only", "--tmpfs", "/tmp", "--network", "none", "--cap-drop", "ALL")
    started = engine.do(
        "run", "--detach", "--name", name, *engine.limits, *hardened, *mount(work), image.name, *arguments
    )
    assert started.returncode == 0, started.stderr
    try:
        deadline = time.monotonic() + 120
        while not list((work / "runs").rglob("manifest.json")):
            assert time.monotonic() < deadline, engine.do("logs", name).stderr
            time.sleep(0.1)
        engine.do("stop", "-t", "30", name)
        status = json.loads(checked(*engine.control, "inspect", name))[0]["State"]
        said = engine.do("logs", name)
    finally:
        engine.do("rm", "--force", name)
    assert status["ExitCode"] == 130, said.stderr
    assert "nothing is lost" in said.stderr + said.stdout
    # By default a checkpoint is due after 30 seconds: what is there now was saved because of the signal.
    assert list((work / "runs" / ".work").glob("*.checkpoint"))
    assert len(sealed(work / "runs")) < len(sealed(local.store))

    result = engine.run(image.name, *arguments, options=mount(work))
    assert result.returncode in GATE, result.stderr
    assert_same_runs(work / "runs", local)


NET = """
from torch import nn


def build(input_shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(input_shape[-1], classes))
"""


def test_a_recipe_with_modules_and_data_of_its_own(image: Image, tmp_path: Path) -> None:
    """The example of docs/image.md: an image made from this one."""
    recipe = tmp_path / "recipe"
    recipe.mkdir()
    (recipe / "net.py").write_text(NET)
    chance = np.random.default_rng(0)
    np.savez(recipe / "own.npz", x_train=chance.random((500, 20)), y_train=np.arange(500) % 3)
    own = RECIPE.replace("{name: mlp, widths: [32, 16]}", "net:build").replace("rates: {output: 0.25}", "")
    own = own.replace("data: digits", "data: {name: npz, path: own.npz, test_fraction: 0.2}")
    (recipe / "recipe.yaml").write_text(own)
    (tmp_path / "Dockerfile").write_text(f"FROM {image.name}\nCOPY recipe /app/recipe\n")
    name = "localhost/ticketsmith-test:recipe"
    checked(*image.engine.builder.split(), "--tag", name, tmp_path)
    result = image.engine.run(name, "validate", "--config", "/app/recipe/recipe.yaml")
    image.engine.do("rmi", name)
    assert result.returncode == 0, result.stderr
    assert "model of 63 parameters" in result.stdout
