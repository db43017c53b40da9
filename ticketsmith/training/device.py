"""How a process computes: device, threads, and the settings that make the same spec give the same bytes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ticketsmith.errors import RecipeError


def check_device(device: str) -> str:
    """The device's name; ``auto`` takes a GPU when there is one. Raises RecipeError for a device that is not here."""
    name = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    try:
        torch.zeros(1, device=torch.device(name))
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise RecipeError(f"--device {device}: cannot be used here: {str(error).splitlines()[0]}") from error
    return name


def device_of(device: str, slot: int, local_rank: int = 0, ranks: int = 1) -> str:
    """The device of one process: worker number ``slot``, or a rank of it. On ``cuda``, the next GPU for each.

    A rank has a GPU of its own; workers of one rank share those that there are. Raises RecipeError.
    """
    if ranks > 1 and not torch.distributed.is_available():
        raise RecipeError(
            "training.ranks: this PyTorch has no torch.distributed; install one that has, or leave it out."
        )
    if ranks > 1 and device.startswith("cuda:"):
        raise RecipeError(f"--device {device}: that is one GPU, and training.ranks is {ranks}: say `--device cuda`.")
    here = torch.cuda.device_count() if device == "cuda" else 0
    if ranks > 1 and device == "cuda" and here < ranks:
        raise RecipeError(
            f"training.ranks: {ranks} ranks need a GPU each, and {here} can be seen here. Set it to {here}."
        )
    gangs = here // ranks
    return device if gangs * ranks < 2 else f"cuda:{slot % gangs * ranks + local_rank}"


@contextmanager
def prepared(device: str) -> Iterator[torch.device]:
    """``prepare`` for the time inside; after it, the process is as it was."""
    threads, mode = torch.get_num_threads(), torch.get_deterministic_debug_mode()
    try:
        yield prepare(device)
    finally:
        torch.set_num_threads(threads)
        torch.set_deterministic_debug_mode(mode)
        torch.set_flush_denormal(False)


def prepare(device: str) -> torch.device:
    """Sets this process up for one replicate: one CPU thread, deterministic kernels (on a GPU: wherever PyTorch has them).

    One single-threaded replicate a core is faster than one on all cores, and its sums do not depend on the machine's
    number of cores. Raises RecipeError for a device that is not here.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    os.environ.setdefault("TORCHINDUCTOR_DETERMINISTIC", "1")  # should a model of the user's own be compiled
    torch.set_num_threads(1)
    torch_device = torch.device(check_device(device))
    if torch_device.type == "cuda" and torch_device.index is not None:
        torch.cuda.set_device(torch_device)  # the one that dropout is seeded on, and that ranks talk by
    # As torch.use_deterministic_algorithms, which imports the compiler only to tell it of this.
    torch.set_deterministic_debug_mode("error" if torch_device.type == "cpu" else "warn")
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # it costs time, and nothing here reads such memory
    torch.backends.cudnn.benchmark = False
    torch.set_flush_denormal(True)  # Adam's moments of dying units: denormal arithmetic is many times slower
    return torch_device
