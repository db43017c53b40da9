"""Ways to run a trained model, a file for each library, whatever they cost to get ready, and those that a user names."""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from torch import Tensor, nn

from ticketsmith.engines import Arrays
from ticketsmith.engines import CannotRunError as CannotRunError
from ticketsmith.errors import RecipeError
from ticketsmith.inference.settings import PRECISIONS, RUNTIMES
from ticketsmith.plugins import build, is_dotted, resolve
from ticketsmith.race import Runner
from ticketsmith.tasks.task import Decoder

Call = Callable[[Tensor], Tensor]
"""One inference: inputs ``[batch, ...]`` to outputs ``[batch, ...]``."""


@dataclass(frozen=True)
class ArrayCall:
    """A Call of a runtime that takes and gives NumPy arrays: the benchmark times ``arrays`` alone."""

    arrays: Arrays

    def __call__(self, inputs: Tensor) -> Tensor:
        return torch.from_numpy(np.array(self.arrays(self.as_array(inputs))))

    def handed_to(self, batch_size: int) -> str:
        """The runtime to which this one gave the whole model, since that was faster; empty where it did not."""
        handed_to = getattr(self.arrays, "handed_to", None)
        return "" if handed_to is None else str(handed_to(batch_size))

    @staticmethod
    def as_array(inputs: Tensor) -> NDArray[Any]:
        """Inputs as the runtime takes them."""
        return np.ascontiguousarray(inputs.detach().cpu().numpy())


def runner_of(call: Call, inputs: Tensor) -> Runner:
    """A call's innermost function, and inputs that are converted already."""
    return Runner(call.arrays, call.as_array(inputs)) if isinstance(call, ArrayCall) else Runner(call, inputs)


@dataclass(frozen=True)
class ArrayDecoder:
    """A Decoder of a runtime whose sessions take and give NumPy arrays: the benchmark times them alone."""

    arrays: Decoder


@dataclass(frozen=True)
class OnnxFile:
    """A model that is not PyTorch's: an ONNX file of one input and one output."""

    path: Path


@runtime_checkable
class Runtime(Protocol):
    """A way to run a trained model.

    Optional attributes, read with these defaults: ``dense = True`` (zeros are multiplied like any other number),
    ``precision = "float32"`` (of the weights), ``tolerance`` (see ``tolerance_of``). ``takes_onnx = True`` says that
    ``prepare`` also takes an OnnxFile in place of a module. A class with a tuple ``precisions`` takes an option
    ``precision``, one of them. See also Deployable and Decodes.
    """

    name: str
    """What tables and reports call it."""

    def prepare(self, model: nn.Module, example: Tensor) -> Call:
        """A call that does what ``model`` does on inputs shaped like ``example`` (``[batch, ...]``).

        ``model`` is in evaluation mode on the device of ``example``, pruned weights are zeros in it, and it must be
        left as it is. The call may give the same output buffer each time, and computes on ``torch.get_num_threads()``
        threads. Raises CannotRunError with the reason when the runtime has nothing to offer for this model.
        """
        ...


@runtime_checkable
class Decodes(Protocol):
    """A runtime that can give a model one token after another, and remembers what it read."""

    def decoder(self, model: nn.Module, example: Tensor) -> Decoder | ArrayDecoder:
        """What makes sessions of ``model``, for tokens shaped like ``example``, ``[b, t]``, or fewer.

        Their logits are those of the model for the whole sequence. Raises CannotRunError as ``prepare`` does.
        """
        ...


@dataclass(frozen=True)
class Deployment:
    """A model as a server would find it: a file, and the function that makes it ready.

    ``loader`` is a dotted name, ``package.module:function``; the function takes the path, a number of threads and
    ``options``, and gives a function from arrays to arrays. ``libraries`` are what it imports: so much is there before
    the loading of the model is timed.
    """

    path: Path
    loader: str
    libraries: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    def load(self, threads: int) -> Arrays:
        """The model, ready to call in this process."""
        module, _, name = self.loader.partition(":")
        loaded: Arrays = getattr(importlib.import_module(module), name)(self.path, threads, **self.options)
        return loaded


@runtime_checkable
class Deployable(Protocol):
    """A runtime that has a file of its own: its size, load time and memory can be measured."""

    def deploy(self, model: nn.Module, example: Tensor, folder: Path) -> Deployment:
        """Writes the model into ``folder``. Raises CannotRunError as ``prepare`` does."""
        ...


class FromFile(Deployable):
    """A runtime that is made ready from its file in the benchmark too."""

    def prepare(self, model: nn.Module, example: Tensor) -> Call:
        """A call on arrays. Raises CannotRunError."""
        need_cpu(example)
        with tempfile.TemporaryDirectory(prefix="ticketsmith-") as folder:
            return ArrayCall(self.deploy(model, example, Path(folder)).load(torch.get_num_threads()))


def need_cpu(example: Tensor) -> None:
    """Raises CannotRunError for inputs that lie elsewhere."""
    if example.device.type != "cpu":
        raise CannotRunError("it runs on CPUs only.")


TOLERANCES = {"float32": 1e-4, "bfloat16": 0.05, "int8": 0.1}
"""How far outputs may be from those of eager float32 PyTorch, as ``measuring.agreement.judged`` counts it."""


def precision_of(runtime: Runtime) -> str:
    """The precision of the weights that a runtime computes with."""
    return str(getattr(runtime, "precision", "float32"))


def is_dense(runtime: Runtime) -> bool:
    """Whether a runtime multiplies zeros like any other number."""
    return bool(getattr(runtime, "dense", True))


def tolerance_of(runtime: Runtime) -> float:
    """The tolerance that a runtime asks for, by default that of its precision."""
    return float(getattr(runtime, "tolerance", TOLERANCES[precision_of(runtime)]))


def check_precision(name: str, precision: str, precisions: Sequence[str]) -> str:
    """A precision that a runtime has. Raises RecipeError for another."""
    if precision not in precisions:
        raise RecipeError(f"runtime {name!r}: precision {precision!r} is not one of {', '.join(precisions)}.")
    return precision


BUILTINS = {name: builtin.target for name, builtin in RUNTIMES.items()}


def create(name: str, options: Mapping[str, Any] | None = None) -> Runtime:
    """The runtime that a recipe or a command names. Raises RecipeError for unknown names and options."""
    runtime = build("runtime", name, BUILTINS, options or {})
    if not isinstance(runtime, Runtime):
        raise RecipeError(f"runtime {name!r} gives a {type(runtime).__name__}, which has no `name` and `prepare`.")
    if precision_of(runtime) not in PRECISIONS:
        raise RecipeError(f"runtime {name!r} has the precision {precision_of(runtime)!r}, not {', '.join(PRECISIONS)}.")
    return runtime


def lined_up(texts: tuple[str, ...], precisions: tuple[str, ...]) -> tuple[list[Runtime], list[str]]:
    """The runtimes that a user names, in each precision asked for, and notes on what was left out.

    A text is a name, and options after commas: ``sparse``, ``sparse,tuned=false``, ``package.module:Runtime,depth=3``.
    Where a text gives no ``precision``, the runtime is taken in each of ``precisions`` that it has. Raises RecipeError.
    """
    runtimes: list[Runtime] = []
    notes: list[str] = []
    for text in dict.fromkeys(texts):
        name, options = parse(text)
        target = resolve("runtime", name, BUILTINS)
        own = str(getattr(target, "precision", "float32"))
        offered = getattr(target, "precisions", (own,))
        if "precision" in options:
            runtimes.append(_named(create(name, options), name, options))
            continue
        lacking = [precision for precision in dict.fromkeys(precisions) if precision not in offered]
        if lacking:
            notes.append(f"{name} has no {' and no '.join(lacking)}")
        for precision in dict.fromkeys(precisions):
            if precision in offered:
                full = options if precision == own else {**options, "precision": precision}
                runtimes.append(_named(create(name, full), name, options))
    if not runtimes:
        raise RecipeError(f"no runtime is left to measure: {'; '.join(notes)}.")
    return runtimes, notes


def parse(text: str) -> tuple[str, dict[str, Any]]:
    """Name and options of ``sparse,precision=int8``. Raises RecipeError."""
    name, *parts = [part.strip() for part in text.split(",")]
    options: dict[str, Any] = {}
    for part in parts:
        option, equals, value = part.partition("=")
        if not equals or not option:
            raise RecipeError(
                f"runtime {text!r}: options are written NAME,OPTION=VALUE, for example `sparse,tuned=false`."
            )
        try:
            options[option] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise RecipeError(f"runtime {text!r}: the value of {option!r} cannot be read.") from error
    return name, options


def _named(runtime: Runtime, name: str, options: Mapping[str, Any]) -> Runtime:
    """Tells a runtime with options from the same without; precision has a column of its own."""
    said = [f"{option}={value}".lower() for option, value in options.items() if option != "precision"]
    if said and not is_dotted(name):
        runtime.name = ",".join([runtime.name, *said])
    return runtime
