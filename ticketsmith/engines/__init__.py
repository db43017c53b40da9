"""Dense libraries that read ONNX models, one module each, all with the same door; NumPy only.

Such a module has

- ``BY_SIZE``: whether it is faster when it knows the size of batches;
- ``check(precision)``: raises CannotRunError where it cannot compute in it;
- ``convert(path, precision, folder)``: an ONNX file of float32 as the file that it reads for a precision;
- ``load(path, threads, precision, batch)``: an Array call of a model of one input and one output;
- ``call(model, threads)``: a Call of a model's bytes, for any number of callers at once;
- ``steps(path, threads, precision)``: gives Steps, each for one caller, which share no memory.

A library is imported where it is opened, and nothing else is: what a process needs to serve is measured.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

from numpy.typing import NDArray

from ticketsmith.errors import TicketSmithError

ENGINES = {
    "onnxruntime": "ticketsmith.engines.onnx_runtime",
    "openvino": "ticketsmith.engines.openvino",
}
"""Modules by the name of the package that they open."""

Arrays = Callable[[NDArray[Any]], NDArray[Any]]
"""Inputs ``[batch, ...]`` to outputs ``[batch, ...]``, in the same buffer each time perhaps."""

Call = Callable[[Sequence[NDArray[Any]]], list[NDArray[Any]]]
"""All inputs of a model, in order, to all its outputs, which belong to the caller. Any number of threads may call."""

Step = Callable[[Sequence[NDArray[Any]]], list[NDArray[Any]]]
"""The same for one caller; the outputs of one call stay as they are until the call after the next."""


class CannotRunError(TicketSmithError):
    """A runtime cannot run a model, or would run it exactly as another runtime does; the message says why."""


def installed() -> tuple[str, ...]:
    """The engines that are here; each also needs the package ``onnx``, in whose format it is given a network."""
    packages = [name for name in ("onnx", *ENGINES) if importlib.util.find_spec(name) is not None]
    return tuple(packages[1:]) if packages[:1] == ["onnx"] else ()


def engine(name: str) -> Any:
    """The module of an engine."""
    return importlib.import_module(ENGINES[name])


def need(*packages: str) -> None:
    """Raises CannotRunError, with what to install, when one of ``packages`` is not there."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise CannotRunError(f'{package} is not installed: pip install "ticketsmith[serve]".')
