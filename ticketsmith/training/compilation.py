"""Training steps by ``torch.compile``. What is measured and sealed is the plain module."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ticketsmith.errors import TaskError, in_a_line


def compiled(model: nn.Module) -> nn.Module:
    """A module that computes what ``model`` does, on its parameters, by code that is made at the first call."""
    from torch._inductor import config

    config.compile_threads = 1  # no processes of its own: a worker has one core
    whole: Any = torch.compile(model)
    return whole  # type: ignore[no-any-return]


@contextmanager
def compiling() -> Iterator[None]:
    """Raises TaskError where the model cannot be compiled here."""
    from torch._dynamo.exc import TorchDynamoException

    try:
        yield
    except Exception as error:
        # Those of the code generator share no base class.
        if isinstance(error, TorchDynamoException) or type(error).__module__.startswith("torch._inductor"):
            raise TaskError(
                f"training.compile: the model cannot be compiled here: {in_a_line(error)} A C++ compiler (g++ or clang++) must "
                "be installed, and the model be one that torch.compile takes; else leave `compile` out."
            ) from error
        raise
