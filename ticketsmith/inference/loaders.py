"""Models from files, each made ready by its runtime: what a server does. Only the runtime itself is imported."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ticketsmith.engines import Arrays, need


def sparse(path: Path, threads: int, precision: str = "float32") -> Arrays:
    """Our sparse runtime."""
    from ticketsmith.runtime import load

    return load(path, threads=threads, precision=precision)


def torch_program(
    path: Path, threads: int, compiled: bool = False, precision: str = "float32", torchao: bool = False
) -> Arrays:
    """PyTorch on a program of ``torch.export``, optionally compiled; with ``torchao`` one whose weights that library rounded."""
    import torch

    if torchao:
        need("torchao")
        quiet_torchao()
    torch.set_num_threads(threads)
    model = torch.export.load(str(path)).module()
    run = torch.compile(model) if compiled else model
    dtype = torch.bfloat16 if precision == "bfloat16" else None

    @torch.inference_mode()
    def call(inputs: NDArray[Any]) -> NDArray[Any]:
        tensor = torch.from_numpy(inputs)
        outputs = run(tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor)
        array: NDArray[Any] = outputs.float().numpy()
        return array

    return call


def quiet_torchao() -> Any:
    """``torchao.quantization``, without what it says of GPU kernels that cannot be here."""
    import logging
    import warnings

    logging.getLogger("torchao").setLevel(logging.ERROR)
    logging.getLogger("torch.utils._pytree").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("torchao.quantization")
