"""What is published, built here and installed where there is no compiler: what an index, a server and a user make of it."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from email.parser import Parser
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.conftest import DIGITS, ROOT
from ticketsmith.version import __version__

sys.path.insert(0, str(ROOT / "scripts"))
import wheels

SITE = Path(np.__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden" / "files"
MACHINE = platform.machine()
pytestmark = pytest.mark.skipif(
    MACHINE not in wheels.PROCESSORS or not (ROOT / ".git").exists(), reason="wheels are built on Linux, from a clone"
)


@dataclass(frozen=True)
class Built:
    files: list[Path]

    def wheel(self, name: str, tag: str) -> Path:
        (file,) = (file for file in self.files if file.name == f"{name}-{__version__}-py3-none-{tag}.whl")
        return file


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """As `make wheels` builds them, but for the time that optimisation takes."""
    return Built(wheels.build(tmp_path_factory.mktemp("dist"), [MACHINE, "any"], "-O0"))


@pytest.fixture
def native_wheel(built: Built) -> Path:
    return built.wheel("ticketsmith_runtime", f"{wheels.MANYLINUX}_{MACHINE}")


@dataclass(frozen=True)
class Environment:
    """An environment of wheels, without pip, and without a compiler or anything else in its PATH."""

    folder: Path

    @property
    def site(self) -> Path:
        return next(self.folder.glob("lib/python3*/site-packages"))

    def install(self, *files: Path) -> None:
        pip = (sys.executable, "-m", "pip", "--python", self.folder / "bin" / "python", "install", "--quiet")
        subprocess.run([*pip, "--no-deps", "--no-index", "--force-reinstall", "--no-compile", *files], check=True)

    def run(self, *command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "TICKETSMITH", "COV"))
        }
        path = str(self.folder / "bin")
        command = (f"{path}/{command[0]}", *command[1:])
        return subprocess.run(command, cwd=cwd, env=kept | {"PATH": path}, capture_output=True, text=True, timeout=300)

    def python(self, program: str, cwd: Path) -> str:
        done = self.run("python", "-c", program, cwd=cwd)
        assert done.returncode == 0, done.stderr
        return done.stdout


def environment(folder: Path) -> Environment:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    return Environment(folder)


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """NumPy, and nothing else."""
    made = environment(tmp_path_factory.mktemp("serving"))
    for part in ("numpy", "numpy.libs"):
        if (SITE / part).exists():
            (made.site / part).symlink_to(SITE / part)
    return made


def requirements(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = Parser().parsestr(archive.read(name).decode())
    return [one for one in metadata.get_all("Requires-Dist", []) if "extra ==" not in one]


def test_an_index_and_the_systems_that_they_are_for_take_them(built: Built) -> None:
    wheels.check(built.files)


def test_no_file_is_in_both_distributions_and_none_is_missing(built: Built, native_wheel: Path) -> None:
    def contents(wheel: Path) -> set[str]:
        with zipfile.ZipFile(wheel) as archive:
            return {name for name in archive.namelist() if ".dist-info/" not in name}

    lab, serving = contents(built.wheel("ticketsmith", "any")), contents(native_wheel)
    assert not lab & serving
    modules = {str(file.relative_to(ROOT)) for file in (ROOT / "ticketsmith").rglob("*.py")}
    assert modules <= lab | serving
    assert any(re.search("mnist", name) for name in lab), "data comes along"
    assert not [name for name in lab | serving if name.endswith((".cpp", ".inl", ".h"))]
    assert serving - contents(built.wheel("ticketsmith_runtime", "any")) == {"ticketsmith/native/_library.abi3.so"}


def test_what_each_asks_for(built: Built, native_wheel: Path) -> None:
    assert [re.split("[<>=]", one)[0] for one in requirements(native_wheel)] == ["numpy"]
    assert requirements(built.wheel("ticketsmith", "any"))[0] == f"ticketsmith-runtime=={__version__}"


def test_serving_needs_numpy_alone(serving: Environment, native_wheel: Path, tmp_path: Path) -> None:
    answers = load_file(GOLDEN / "answers.safetensors")
    np.save(tmp_path / "inputs.npy", answers["conv.inputs"])
    serving.install(native_wheel)
    program = (
        "import time; began = time.process_time()\n"
        "from ticketsmith import runtime\n"
        "took = time.process_time() - began\n"
        "import json, numpy\n"
        f"outputs = runtime.load({str(GOLDEN / 'conv.tsk')!r})(numpy.load('inputs.npy'))\n"
        "print(json.dumps([took, outputs.tolist()]))"
    )
    said = [json.loads(serving.python(program, tmp_path)) for _ in range(4)]  # the first one compiles bytecode
    np.testing.assert_allclose(said[0][1], answers["conv.outputs"], rtol=1e-4, atol=1e-5)
    assert min(took for took, _ in said) < 0.2, "seconds of a processor to import it, NumPy included"


def test_no_module_that_serves_needs_the_rest(serving: Environment, native_wheel: Path, tmp_path: Path) -> None:
    """Readers of PyTorch's and ONNX's models ask for these libraries, and for nothing of ours."""
    serving.install(native_wheel)
    program = (
        "import importlib, pkgutil, ticketsmith\n"
        "for module in pkgutil.walk_packages(ticketsmith.__path__, 'ticketsmith.', onerror=lambda name: None):\n"
        "    if module.name.startswith('ticketsmith.native._'): continue\n"
        "    try: importlib.import_module(module.name)\n"
        "    except ModuleNotFoundError as error: assert error.name in ('torch', 'onnx', 'onnxruntime'), error\n"
        "try: ticketsmith.load\n"
        "except ImportError as error: print(error)\n"
    )
    assert "pip install ticketsmith" in serving.python(program, tmp_path)


def test_without_kernels_it_says_so(serving: Environment, built: Built, tmp_path: Path) -> None:
    serving.install(built.wheel("ticketsmith_runtime", "any"))
    program = (
        "from ticketsmith import runtime\n"
        "from ticketsmith.errors import TicketSmithError\n"
        f"try: runtime.load({str(GOLDEN / 'conv.tsk')!r})\n"
        "except TicketSmithError as error: print(error)\n"
    )
    said = serving.python(program, tmp_path)
    assert "has no kernels" in said
    assert "--no-binary ticketsmith-runtime" in said


def test_an_experiment_from_wheels_without_a_compiler(built: Built, native_wheel: Path, tmp_path: Path) -> None:
    """The dependencies are those of this environment; nothing else of it can be seen."""
    user = environment(tmp_path / "user")
    (user.site / "dependencies.pth").write_text(f"{SITE}\n")
    user.install(native_wheel, built.wheel("ticketsmith", "any"))
    (tmp_path / "recipe.yaml").write_text(DIGITS.replace("replicates: 2", "replicates: 1"))
    said = user.run("ticketsmith", "--version", cwd=tmp_path)
    assert said.stdout == f"ticketsmith, version {__version__}\n", said.stderr
    program = (
        "import ticketsmith, numpy, pathlib\n"
        "from ticketsmith import runtime\n"
        "from ticketsmith.inference.settings import BenchmarkSettings\n"
        f"assert pathlib.Path(ticketsmith.__file__).is_relative_to({str(tmp_path)!r})\n"
        "if __name__ == '__main__':\n"
        "    experiment = ticketsmith.run('recipe.yaml', benchmark=False)\n"
        "    races = BenchmarkSettings(runtimes=('torch', 'sparse'), batch_sizes=(1,), rounds=10, memory=False)\n"
        "    raced = experiment.time_inference(races)\n"
        "    assert {timing.runtime for timing in raced.timings} == {'torch', 'sparse'}, raced.refusals\n"
        "    files = experiment.export('out', ['tsk'], sparsity=0.5, tuned=False)\n"
        "    print(runtime.load(next(pathlib.Path('out').rglob('*.tsk')))(numpy.zeros((1, 1, 8, 8), 'f')).shape)\n"
    )
    (tmp_path / "program.py").write_text(program)
    done = user.run("python", "program.py", cwd=tmp_path)
    assert done.stdout.strip() == "(1, 10)", done.stderr
    assert (tmp_path / "runs" / "digits" / "report" / "index.html").exists()
