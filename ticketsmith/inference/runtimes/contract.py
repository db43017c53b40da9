"""What a runtime is: a way to run a trained model, whatever it costs to get it ready."""

from __future__ import annotations

import importlib
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ticketsmith.engines import Arrays
from ticketsmith.engines import CannotRunError as CannotRunError
from ticketsmith.tasks.task import Decoder

Call = Callable[[Tensor], Tensor]
"""One inference: inputs ``[batch, ...]`` to outputs ``[batch, ...]``."""


@dataclass(frozen=True)
class ArrayCall:
    """A Call of a runtime that takes and gives NumPy arrays: the benchmark times ``arrays`` alone."""

    arrays: Arrays

    def __call__(self, inputs: Tensor) -> Tensor:
        return torch.from_numpy(np.array(self.arrays(self.given(inputs))))

    def handed_to(self, batch_size: int) -> str:
        """The runtime to which this one gave the whole model, since that was faster; empty where it did not."""
        asked = getattr(self.arrays, "handed_to", None)
        return "" if asked is None else str(asked(batch_size))

    @staticmethod
    def given(inputs: Tensor) -> NDArray[Any]:
        """Inputs as the runtime takes them."""
        return np.ascontiguousarray(inputs.detach().cpu().numpy())


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


class FromFile(ABC):
    """A runtime that is made ready from its file in the benchmark too."""

    @abstractmethod
    def deploy(self, model: nn.Module, example: Tensor, folder: Path) -> Deployment:
        """Writes the model into ``folder``. Raises CannotRunError as ``prepare`` does."""

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
"""How far outputs may be from those of eager float32 PyTorch, as ``agreement.max_error`` counts it."""


def precision_of(runtime: Runtime) -> str:
    """The precision of the weights that a runtime computes with."""
    return str(getattr(runtime, "precision", "float32"))


def is_dense(runtime: Runtime) -> bool:
    """Whether a runtime multiplies zeros like any other number."""
    return bool(getattr(runtime, "dense", True))


def tolerance_of(runtime: Runtime) -> float:
    """The tolerance that a runtime asks for, by default that of its precision."""
    return float(getattr(runtime, "tolerance", TOLERANCES[precision_of(runtime)]))
