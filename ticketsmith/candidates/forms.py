"""The forms in which a network may be served: how its file is written, and with what that is run."""

from __future__ import annotations

import copy
import hashlib
import importlib.metadata
import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ticketsmith import native, units
from ticketsmith.candidates import loading
from ticketsmith.engines import Arrays, CannotRunError, engine, onnx_runtime
from ticketsmith.errors import RecipeError, in_a_line
from ticketsmith.evidence.choice import FLOAT32, MIXED
from ticketsmith.inference import loaders
from ticketsmith.inference.onnx_file import write_to_serve
from ticketsmith.inference.runtimes import Deployment, eager
from ticketsmith.inference.runtimes.decoding import Stepping, write_step
from ticketsmith.machine import cpu_name, low_instructions
from ticketsmith.plugins import nearest
from ticketsmith.runtime import artifact
from ticketsmith.runtime.calibrate import STATIC, WHOLE, calibrated
from ticketsmith.runtime.from_torch import UnsupportedError, from_torch
from ticketsmith.runtime.graph import Graph, GraphError
from ticketsmith.runtime.model import PRECISIONS
from ticketsmith.runtime.program import InputError
from ticketsmith.version import __version__

AUTO = "sparse-auto"
"""The form whose precisions are searched for by the gates."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Network:
    """What is written: a module in evaluation mode on the CPU, or None where a subclass has another source; one input
    ``[1, ...]``; and what quantisers calibrate with.

    ``calibration()`` gives batches of training inputs. ``folder`` is scratch, where forms share what they make on their way.
    ``decodes``: the model generates, so that its ONNX file is a step of it, with a cache that goes in and comes out.
    """

    model: nn.Module | None
    example: Tensor
    calibration: Callable[[], Sequence[NDArray[Any]]]
    folder: Path
    decodes: bool = False
    mixed: Callable[[Graph, Path], None] | None = None
    """Writes the fastest ``.tsk`` file that passes its gates, each layer in a precision of its own, where there is more to ask
    than a network: its replicates and their gates. Raises TicketSmithError."""

    @cached_property
    def onnx(self) -> Path:
        """The network as ONNX: the bytes of ``ticketsmith export``. Raises CannotRunError."""
        path = self.folder / "model.onnx"
        assert self.model is not None
        if self.decodes:
            return write_step(self.model, self.example, self.folder)[0]
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

    ``decoder(path, threads)`` opens it for sessions, where the runtime has any. ``deploy(path, batch)`` says how a process of its
    own opens it, for calls of that size; None where none can.

    ``packages`` are needed, the last of them being the runtime's. ``dense``: zeros are multiplied like any other number.
    ``by_call``: what an example gets may depend on the others in its call, so that it is judged in calls of the size that is
    timed. ``of_level``: it is looked for among many files, which are judged in every replicate of a level; and nothing lower than
    float32 may be found.
    """

    name: str
    runtime: str
    precision: str
    packages: tuple[str, ...]
    files: tuple[str, ...]
    write: Callable[[Network, Path], None]
    load: Callable[[Path, int, int | None], Arrays]
    deploy: Callable[[Path, int], Deployment] | None = None
    decoder: Callable[[Path, int], Any] | None = None
    dense: bool = True
    by_call: bool = False
    of_level: bool = False

    @property
    def installed(self) -> bool:
        """Whether it can be tried here."""
        return all(map(_installed, self.packages))

    def precision_of(self, path: Path) -> str:
        """That of a file, as it is told."""
        plain = self.of_level and artifact.open_artifact(path).precision == FLOAT32
        return FLOAT32 if plain else self.precision

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
    onnx_runtime.quantise_static(network.onnx, target, network.calibration(), calibration, _caches(network))
    target.rename(folder / "model.onnx")


def _caches(network: Network) -> Callable[[int], Sequence[NDArray[Any]]]:
    """What a step takes beside tokens, of which nothing was read; nothing for a file of one input."""
    return partial(loading.empty, loading.cache_shapes(network.onnx))


def _write_int4(network: Network, folder: Path) -> None:
    onnx_runtime.quantise_weights(network.onnx, folder / "model.onnx")


def _write_compressed(bits: int, network: Network, folder: Path) -> None:
    engine("openvino").compress(network.onnx, folder / "model.xml", bits)


def _write_nncf(network: Network, folder: Path) -> None:
    engine("openvino").quantise(network.onnx, folder / "model.xml", network.calibration(), _caches(network))


def _write_tsk(precision: str, network: Network, folder: Path) -> None:
    from ticketsmith.export.tsk_file import tuned_choices

    graph = network.graph
    if precision == STATIC:
        try:
            graph, precision = calibrated(graph, network.calibration()), WHOLE
        except (RecipeError, InputError) as error:
            raise CannotRunError(str(error)) from error
    choices = tuned_choices(graph, precision)
    artifact.save(folder / "model.tsk", graph, {artifact.machine_key(): choices}, precision)


def _write_mixed(network: Network, folder: Path) -> None:
    if network.mixed is None:
        raise CannotRunError("layers are only lowered by the gates of an experiment.")
    network.mixed(network.graph, folder / "model.tsk")


def _write_torch(network: Network, folder: Path) -> None:
    _save_program(_own(network).to(torch.bfloat16), network.example, torch.bfloat16, folder)


def _write_torchao(network: Network, folder: Path) -> None:
    """Weights of linear layers alone in int8, with a scale for each output. torchao's int4 has no format for CPUs."""
    model = _own(network)
    linear = {id(module) for module in model.modules() if isinstance(module, nn.Linear)}
    if not linear:
        raise CannotRunError("it has no linear layer: torchao rounds nothing else.")
    try:
        torchao = loaders.quiet_torchao()
        torchao.quantize_(model, torchao.Int8WeightOnlyConfig(), filter_fn=lambda module, name: id(module) in linear)
    except Exception as error:  # torchao may fail in any way
        raise CannotRunError(f"torchao cannot round this model ({in_a_line(error)}).") from error
    _save_program(model, network.example, torch.float32, folder)


def _own(network: Network) -> nn.Module:
    if network.model is None:
        raise CannotRunError("PyTorch runs modules of its own alone.")
    return copy.deepcopy(network.model)


def _save_program(model: nn.Module, example: Tensor, dtype: torch.dtype, folder: Path) -> None:
    """The program of ``torch.export``, for batches of any size."""
    inputs = torch.cat([example] * 2)
    inputs = inputs.to(dtype) if inputs.is_floating_point() else inputs
    try:
        with torch.no_grad():
            program = torch.export.export(model, (inputs,), dynamic_shapes=({0: torch.export.Dim("batch")},))
            torch.export.save(program, str(folder / "model.pt2"))
    except Exception as error:  # torch.export may fail in any way
        raise CannotRunError(f"torch.export cannot write this model ({in_a_line(error)}).") from error


def _load_engine(name: str, precision: str, path: Path, threads: int, batch: int | None) -> Arrays:
    return loading.engine_file(path, threads, name, precision, batch, loading.cache_shapes(path))


def _deploy_engine(name: str, precision: str, path: Path, batch: int) -> Deployment:
    options = {"library": name, "precision": precision, "batch": batch, "caches": loading.cache_shapes(path)}
    return Deployment(path, f"{loading.__name__}:engine_file", (name,), options)


def _decode_engine(name: str, precision: str, path: Path, threads: int) -> Stepping:
    opened, caches = engine(name), loading.cache_shapes(path)
    opened.check(precision)
    if not caches:
        raise CannotRunError("the file is no step of a model: it has no cache.")
    return Stepping(opened.steps(path, threads, precision), partial(loading.empty, caches))


def _load_tsk(path: Path, threads: int, batch: int | None) -> Arrays:
    return loading.tsk_file(path, threads)


def _deploy_tsk(path: Path, batch: int) -> Deployment:
    return Deployment(path, f"{loading.__name__}:tsk_file", ("ticketsmith.runtime",))


def _decode_tsk(path: Path, threads: int) -> Any:
    return loading.tsk_file(path, threads)


def _load_torch(options: Mapping[str, Any], path: Path, threads: int, batch: int | None) -> Arrays:
    return loaders.torch_program(path, threads, **options)


def _deploy_torch(options: Mapping[str, Any], path: Path, batch: int) -> Deployment:
    return Deployment(path, eager.LOADER, eager.LIBRARIES, options)


def _ort(name: str, precision: str, write: Callable[[Network, Path], None], by_call: bool = False) -> Form:
    load, decoder = partial(_load_engine, "onnxruntime", FLOAT32), partial(_decode_engine, "onnxruntime", FLOAT32)
    deploy = partial(_deploy_engine, "onnxruntime", FLOAT32)
    packages = ("onnx", "onnxruntime")
    return Form(
        name, "onnxruntime", precision, packages, ("model.onnx",), write, load, deploy, decoder, by_call=by_call
    )


def _openvino(name: str, precision: str, write: Callable[[Network, Path], None], asked: str = FLOAT32) -> Form:
    """Forms that NNCF rounds are files of OpenVINO's own."""
    nncf = precision.startswith("int")
    packages = ("onnx", "nncf", "openvino") if nncf else ("onnx", "openvino")
    files = ("model.xml", "model.bin") if nncf else ("model.onnx",)
    load, decoder = partial(_load_engine, "openvino", asked), partial(_decode_engine, "openvino", asked)
    return Form(
        name, "openvino", precision, packages, files, write, load, partial(_deploy_engine, "openvino", asked), decoder
    )


def _torch(name: str, precision: str, write: Callable[[Network, Path], None], options: Mapping[str, Any]) -> Form:
    packages = ("torchao", "torch") if options.get("torchao") else ("torch",)
    load, deploy = partial(_load_torch, options), partial(_deploy_torch, options)
    return Form(name, "torch", precision, packages, ("model.pt2",), write, load, deploy)


def _sparse(name: str, precision: str, write: Callable[[Network, Path], None], of_level: bool = False) -> Form:
    packages, low = (native.__name__,), precision != FLOAT32
    return Form(
        name, "sparse", precision, packages, ("model.tsk",), write, _load_tsk, _deploy_tsk, _decode_tsk, dense=False,
        by_call=low, of_level=of_level,
    )  # fmt: skip


def _sparse_in(precision: str) -> Form:
    """In a precision that our runtime has; those of one storage differ in what follows it."""
    name = "sparse" if precision == FLOAT32 else f"sparse-{precision.replace('_', '-')}"
    return _sparse(name, precision.partition("_")[0], partial(_write_tsk, precision))


_FORMS = (
    _ort("onnxruntime", FLOAT32, _write_onnx),
    _ort("onnxruntime-int8-dynamic", "int8", _write_dynamic, by_call=True),
    *(
        _ort(f"onnxruntime-int8-static-{name}", "int8", partial(_write_static, name))
        for name in onnx_runtime.CALIBRATIONS
    ),
    _ort("onnxruntime-int4-weights", "int4", _write_int4),
    _openvino("openvino", FLOAT32, _write_onnx),
    _openvino("openvino-bfloat16", "bfloat16", _write_onnx, "bfloat16"),
    _openvino("openvino-int8-nncf", "int8", _write_nncf),
    _openvino("openvino-int8-weights", "int8", partial(_write_compressed, 8)),
    _openvino("openvino-int4-weights", "int4", partial(_write_compressed, 4)),
    _torch("torch-bfloat16", "bfloat16", _write_torch, {"precision": "bfloat16"}),
    _torch("torch-int8-weights", "int8", _write_torchao, {"torchao": True}),
    *map(_sparse_in, (*PRECISIONS, STATIC)),
    _sparse(AUTO, MIXED, _write_mixed, of_level=True),
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
        if form.runtime == "sparse" and {form.name, form.runtime} & set(runtimes):
            try:
                native.library()
            except native.NotBuiltError as error:
                raise CannotRunError(f"{form.name}: {error}") from error
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
    dots = () if os.environ.get("TICKETSMITH_VNNI") != "0" else ("without VNNI",)
    return native.best_isa().name, *dots, f"kernels {_kernels()}"


@cache
def _kernels() -> str:
    return hashlib.sha256(Path(native.library()._name).read_bytes()).hexdigest()[:12]
