"""The kernel library: served without torch, missed with a clear word, the same on both sides of its border."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.runtime.networks import ISAS, sparse
from ticketsmith import native, runtime
from ticketsmith.native import abi
from ticketsmith.runtime import graph as graphs
from ticketsmith.runtime.from_torch import from_torch

ROOT = Path(__file__).parents[2]
needs_kernels = pytest.mark.skipif(not ISAS, reason="the kernels are not built")


@pytest.mark.skipif("CI" not in os.environ, reason="a machine without a compiler has none")
def test_ci_has_built_them() -> None:
    assert ISAS


def test_a_swap_of_two_fields_is_another_interface() -> None:
    """Of the same size and type, which no sum of sizes would show."""
    prints = {abi.FINGERPRINT}
    operations = [one for one in abi.OPERATIONS if "_fields_" in vars(one)]  # others have those of another one
    for operation in operations:
        fields = list(vars(operation)["_fields_"])
        for index in range(len(fields) - 1):
            other = [*fields[:index], fields[index + 1], fields[index], *fields[index + 2 :]]
            swapped = type(operation.__name__, operation.__bases__, {"_fields_": other})
            table = tuple(swapped if one is operation else one for one in abi.OPERATIONS)
            prints.add(abi.fingerprint(table))
    assert len(prints) == 1 + sum(len(vars(operation)["_fields_"]) - 1 for operation in operations)


@needs_kernels
def test_a_library_of_another_table_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "FINGERPRINT", abi.fingerprint(abi.OPERATIONS[::-1]))
    native.library.cache_clear()
    with pytest.raises(native.NotBuiltError, match="built for another version"):
        native.library()
    monkeypatch.undo()
    native.library.cache_clear()


@pytest.mark.skipif(shutil.which("c++") is None, reason="there is no compiler")
def test_the_compiler_refuses_structures_that_lie_otherwise() -> None:
    header = abi.header()
    swapped = header.replace(
        "const int64_t* first;\n  const uint16_t* slots;", "const uint16_t* slots;\n  const int64_t* first;"
    )
    assert swapped != header
    for text, fits in ((header, True), (swapped, False)):
        command = ["c++", "-std=c++17", "-fsyntax-only", "-x", "c++", "-"]
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
        assert (done.returncode == 0) == fits, done.stderr


def test_the_runtime_numbers_functions_as_the_kernels_do() -> None:
    for names, enum in ((graphs.ACTIVATIONS, abi.Activation), (graphs.BINARY, abi.BinaryFunction)):
        assert list(names) == [member.name.lower() for member in enum]


@needs_kernels
def test_the_best_instructions_are_there_and_the_portable_ones_always() -> None:
    assert native.has_isa(native.best_isa())
    assert native.has_isa(native.Isa.PORTABLE)


@needs_kernels
def test_serving_needs_neither_torch_nor_anything_else_of_size(tmp_path: Path) -> None:
    layer = sparse(torch.nn.Linear(8, 4), 0.5)
    runtime.save(tmp_path / "x.tsk", from_torch(layer, torch.zeros(1, 8)))
    expected = layer(torch.ones(1, 8)).tolist()
    program = (
        "import sys, json, numpy\n"
        "from ticketsmith import runtime\n"
        f"print(json.dumps(runtime.load({str(tmp_path / 'x.tsk')!r})(numpy.ones((1, 8), 'f')).tolist()))\n"
        "heavy = {'torch', 'scipy', 'pandas', 'pydantic', 'yaml'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert eval(done.stdout) == [pytest.approx(row, abs=1e-6) for row in expected]


@needs_kernels
def test_without_the_fast_door_ctypes_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = sparse(torch.nn.Linear(8, 4), 0.5)
    graph, inputs = from_torch(layer, torch.zeros(1, 8)), torch.randn(1, 8)
    fast = runtime.Model(graph)
    monkeypatch.setattr(native, "fast_run", lambda: None)
    slow = runtime.Model(graph)
    for _ in range(2):
        assert (fast(inputs) == slow(inputs)).all()


def test_without_a_compiler_the_package_says_what_is_missing(tmp_path: Path) -> None:
    """A copy of the package without its library, as an installation without a compiler leaves it."""
    for file in (ROOT / "ticketsmith").rglob("*.py"):
        target = tmp_path / file.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
    program = (
        "from ticketsmith import native, runtime\n"
        "from ticketsmith.runtime import Graph, Model\n"
        "assert not native.available()\n"
        "try:\n"
        "    Model(Graph('x', (1,), 'float32', (), 'x', {}))\n"
        "except native.NotBuiltError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "With a C++17 compiler" in done.stdout
