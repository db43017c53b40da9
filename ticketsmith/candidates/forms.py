"""The forms in which a network may be served: how its file is written, and with what that is run."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ticketsmith import native, units
from ticketsmith.engines import Arrays, CannotRunError, engine, onnx_runtime
from ticketsmith.errors import RecipeError, in_a_line
from ticketsmith.evidence.choice import FLOAT32
from ticketsmith.inference import loaders
from ticketsmith.inference.onnx_file import write_to_serve
from ticketsmith.machine import cpu_name, low_instructions
from ticketsmith.plugins import nearest
from ticketsmith.runtime import artifact
from ticketsmith.runtime.from_torch import UnsupportedError, from_torch
from ticketsmith.runtime.graph import Graph, GraphError
from ticketsmith.version import __version__

CALIBRATION = 512
"""Training examples from which static quantisation takes the range of activations."""

CALIBRATION_BATCH = 32


@dataclass(frozen=True, eq=False)
class Network:
    """What is written: a module in evaluation mode on the CPU, or None where a subclass has another source; one input
    ``[1, ...]``; and what quantisers calibrate with.

    ``calibration()`` gives batches of training inputs. ``folder`` is scratch, where forms share what they make on their way.
    """

    model: nn.Module | None
    example: Tensor
    calibration: Callable[[], Sequence[NDArray[Any]]]
    folder: Path

    @cached_property
    def onnx(self) -> Path:
        """The network as ONNX: the bytes of ``ticketsmith export``. Raises CannotRunError."""
        path = self.folder / "model.onnx"
        assert self.model is not None
        if write_to_serve(self.model, self.example, path) is None:
            raise CannotRunError("the model computes with the size of a batch as with a constant: no file takes any.")
        return path

    @cached_property
    def graph(self) -> Graph:
        """The network as our runtime reads it. Raises CannotRunError."""
        assert self.model is not None
        try:
            native.library()
            return from_torch(self.model, self.example)
        except (native.NotBuiltError, UnsupportedError, GraphError) as error:
            raise CannotRunError(str(error)) from error


@dataclass(frozen=True)
class Form:
    """One way to serve. ``write(network, folder)`` writes ``files``, the first of which is what ``load(path, threads, batch)``
    opens; ``batch`` is the size of every call, None where sizes differ.

    ``packages`` are needed, the last of them being the runtime's. ``dense``: zeros are multiplied like any other number.
    ``by_call``: what an example gets may depend on the others in its call, so that it is judged in calls of the size that is
    timed.
    """

    name: str
    runtime: str
    precision: str
    packages: tuple[str, ...]
    files: tuple[str, ...]
    write: Callable[[Network, Path], None]
    load: Callable[[Path, int, int | None], Arrays]
    dense: bool = True
    by_call: bool = False

    @property
    def installed(self) -> bool:
        """Whether it can be tried here."""
        return all(map(_installed, self.packages))

    @property
    def place(self) -> str:
        """Runtime and machine, by all that may change what a file gives."""
        versions = [f"{name} {_version(name)}" for name in self.packages]
        return ", ".join([*versions, cpu_name(), *low_instructions(), *_own_instructions(self.runtime)])


def _write_onnx(network: Network, folder: Path) -> None:
    (folder / "model.onnx").write_bytes(network.onnx.read_bytes())


def _write_dynamic(network: Network, folder: Path) -> None:
    onnx_runtime.convert(network.onnx, "int8", network.folder).rename(folder / "model.onnx")


def _write_static(calibration: str, network: Network, folder: Path) -> None:
    target = network.folder / f"{calibration}.onnx"
    onnx_runtime.quantise_static(network.onnx, target, network.calibration(), calibration)
    target.rename(folder / "model.onnx")


def _write_nncf(network: Network, folder: Path) -> None:
    engine("openvino").quantise(network.onnx, folder / "model.xml", network.calibration())


def _write_tsk(precision: str, network: Network, folder: Path) -> None:
    from ticketsmith.export.tsk_file import tuned_choices

    choices = tuned_choices(network.graph, precision)
    artifact.save(folder / "model.tsk", network.graph, {artifact.machine_key(): choices}, precision)


def _write_torch(network: Network, folder: Path) -> None:
    """The program of ``torch.export``, for batches of any size."""
    import copy

    if network.model is None:
        raise CannotRunError("PyTorch runs modules of its own alone.")
    low = copy.deepcopy(network.model).to(torch.bfloat16)
    example = torch.cat([network.example] * 2)
    inputs = example.bfloat16() if example.is_floating_point() else example
    try:
        with torch.no_grad():
            program = torch.export.export(low, (inputs,), dynamic_shapes=({0: torch.export.Dim("batch")},))
            torch.export.save(program, str(folder / "model.pt2"))
    except Exception as error:  # torch.export may fail in any way
        raise CannotRunError(f"torch.export cannot write this model ({in_a_line(error)}).") from error


def _load_engine(name: str, precision: str, path: Path, threads: int, batch: int | None) -> Arrays:
    opened = engine(name)
    opened.check(precision)
    arrays: Arrays = opened.load(path, threads, precision, batch)
    return arrays


def _load_tsk(path: Path, threads: int, batch: int | None) -> Arrays:
    from ticketsmith.runtime import load

    return load(path, threads=threads)


def _load_torch(path: Path, threads: int, batch: int | None) -> Arrays:
    return loaders.torch_program(path, threads, precision="bfloat16")


def _ort(method: str, write: Callable[[Network, Path], None], by_call: bool = False) -> Form:
    name, precision = ("onnxruntime", FLOAT32) if not method else (f"onnxruntime-int8-{method}", "int8")
    packages = ("onnx", "onnxruntime")
    return Form(name, "onnxruntime", precision, packages, ("model.onnx",), write,
                partial(_load_engine, "onnxruntime", FLOAT32), by_call=by_call)  # fmt: skip


def _sparse(precision: str) -> Form:
    name = "sparse" if precision == FLOAT32 else f"sparse-{precision}"
    return Form(name, "sparse", precision, (native.__name__,), ("model.tsk",), partial(_write_tsk, precision), _load_tsk,
                dense=False, by_call=precision != FLOAT32)  # fmt: skip


def _openvino(name: str, precision: str, asked: str, packages: tuple[str, ...], files: tuple[str, ...],
              write: Callable[[Network, Path], None]) -> Form:  # fmt: skip
    return Form(name, "openvino", precision, packages, files, write, partial(_load_engine, "openvino", asked))


_FORMS = (
    _ort("", _write_onnx),
    _ort("dynamic", _write_dynamic, by_call=True),
    *(_ort(f"static-{name}", partial(_write_static, name)) for name in onnx_runtime.CALIBRATIONS),
    _openvino("openvino", FLOAT32, FLOAT32, ("onnx", "openvino"), ("model.onnx",), _write_onnx),
    _openvino("openvino-bfloat16", "bfloat16", "bfloat16", ("onnx", "openvino"), ("model.onnx",), _write_onnx),
    _openvino(
        "openvino-int8-nncf", "int8", FLOAT32, ("onnx", "nncf", "openvino"), ("model.xml", "model.bin"), _write_nncf
    ),
    Form("torch-bfloat16", "torch", "bfloat16", ("torch",), ("model.pt2",), _write_torch, _load_torch),
    _sparse(FLOAT32),
    _sparse("bfloat16"),
    _sparse("int8"),
)
FORMS = {form.name: form for form in _FORMS}
"""By name, in the order in which they are told."""


def forms(runtimes: Sequence[str] = (), precisions: Sequence[str] = ()) -> list[Form]:
    """The forms that can be tried here, of some runtimes (or forms, by name) and precisions; of all by default.

    Raises RecipeError for a name that is not known, CannotRunError when one is asked for that is not installed.
    """
    names = list(dict.fromkeys([*(form.runtime for form in FORMS.values()), *FORMS]))
    for name in runtimes:
        if name not in names:
            raise RecipeError(f"--runtime {name!r}: no candidate is of this runtime.{nearest(name, names)}")
    asked = [
        form
        for form in FORMS.values()
        if (not runtimes or {form.name, form.runtime} & set(runtimes))
        and (not precisions or form.precision in precisions)
    ]
    for form in asked:
        if form.name in runtimes and not form.installed:
            raise CannotRunError(f'{form.name} needs {units.listed(form.packages)}: pip install "ticketsmith[rivals]".')
    available = [form for form in asked if form.installed]
    if not available:
        raise RecipeError("no form of a candidate is left: ask for another --runtime or --dtype.")
    return available


def _installed(package: str) -> bool:
    return native.available() if package == native.__name__ else importlib.util.find_spec(package) is not None


@cache
def _version(package: str) -> str:
    if package == native.__name__:
        return __version__
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _own_instructions(runtime: str) -> tuple[str, ...]:
    """Those that our kernels use here, which an environment variable may limit; and which build of the kernels it is."""
    if runtime != "sparse" or not native.available():
        return ()
    return native.best_isa().name, f"kernels {_kernels()}"


@cache
def _kernels() -> str:
    return hashlib.sha256(Path(native.library()._name).read_bytes()).hexdigest()[:12]
