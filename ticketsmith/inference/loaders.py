"""Models from files, each made ready by its runtime: what a server does. Only the runtime itself is imported."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ticketsmith.dense_libraries import onnx_session, openvino_model

Arrays = Callable[[NDArray[Any]], NDArray[Any]]
"""Inputs ``[batch, ...]`` to outputs ``[batch, ...]``."""


Step = Callable[[Sequence[NDArray[Any]]], list[NDArray[Any]]]
"""All inputs of a model, in order, to all its outputs; those of one call stay as they are until the call after the next."""


def onnx_runtime(path: Path, threads: int) -> Arrays:
    """ONNX Runtime on the CPU, all its graph optimisations on."""
    session = onnx_session(str(path), threads)
    name, run = session.get_inputs()[0].name, session.run

    def call(inputs: NDArray[Any]) -> NDArray[Any]:
        outputs: NDArray[Any] = run(None, {name: inputs})[0]
        return outputs

    return call


def onnx_runtime_step(path: Path, threads: int) -> Step:
    """The same, for a model of several inputs and outputs."""
    session = onnx_session(str(path), threads)
    names, run = [one.name for one in session.get_inputs()], session.run

    def step(inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        outputs: list[NDArray[Any]] = run(None, dict(zip(names, inputs, strict=True)))
        return outputs

    return step


def open_vino(path: Path, threads: int, precision: str = "float32") -> Arrays:
    """OpenVINO on the CPU, set for latency. ``precision`` is what it may compute in: float32 or bfloat16."""
    request = openvino_model(str(path), threads, precision).create_infer_request()

    def call(inputs: NDArray[Any]) -> NDArray[Any]:
        outputs: NDArray[Any] = request.infer([inputs], share_inputs=True, share_outputs=True)[0]
        return outputs

    return call


def open_vino_steps(path: Path, threads: int, precision: str = "float32") -> Callable[[], Step]:
    """The same, for a model of several inputs and outputs: steps that do not share memory."""
    compiled = openvino_model(str(path), threads, precision)

    def begin() -> Step:
        # Outputs lie in a request's own memory. Two take turns, lest one writes where it reads what it was given.
        requests = [compiled.create_infer_request() for _ in range(2)]
        last: list[list[NDArray[Any]]] = [[], []]

        def step(inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
            turn = int(any(given is made for made in last[0] for given in inputs))
            outputs = requests[turn].infer(list(inputs), share_inputs=True, share_outputs=True)
            last[turn] = [outputs[index] for index in range(len(outputs))]
            return last[turn]

        return step

    return begin


def sparse(path: Path, threads: int, precision: str = "float32") -> Arrays:
    """Our sparse runtime."""
    from ticketsmith.runtime import load

    return load(path, threads=threads, precision=precision)


def torch_program(path: Path, threads: int, compiled: bool = False, precision: str = "float32") -> Arrays:
    """PyTorch on a program of ``torch.export``, optionally compiled."""
    import torch

    torch.set_num_threads(threads)
    model = torch.export.load(str(path)).module()
    run = torch.compile(model) if compiled else model
    dtype = torch.bfloat16 if precision == "bfloat16" else None

    @torch.inference_mode()
    def call(inputs: NDArray[Any]) -> NDArray[Any]:
        given = torch.from_numpy(inputs)
        outputs = run(given.to(dtype) if dtype is not None and given.is_floating_point() else given)
        array: NDArray[Any] = outputs.float().numpy()
        return array

    return call
