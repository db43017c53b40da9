"""Keeps torch from importing its compiler where nothing is compiled: that takes a second in every process that trains.

torch's optimizers and its counter of arithmetic import ``torch._dynamo`` only to say that they are not to be compiled. What
is done here changes no number, and ``torch.compile`` of models works as before.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import torch


def uncompiled(*functions: Callable[..., Any]) -> None:
    """Tells torch that these functions of its own need no compiler to say that they are not compiled.

    They are wrapped in ``torch._disable_dynamo``, whose first call imports the compiler for the function to call instead,
    and keeps that in the attribute that is set here. A torch that keeps it elsewhere is slow to start, and no more.
    """
    for function in functions:
        plain = getattr(function, "__wrapped__", function)
        if not hasattr(plain, "__dynamo_disable"):
            setattr(plain, "__dynamo_disable", plain)


def plain_steps(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The optimizer with the ``step`` of its source code, without gradients and without hooks around it."""
    step = inspect.unwrap(type(optimizer).step)
    optimizer.step = torch.no_grad()(partial(step, optimizer))  # type: ignore[method-assign]
    return optimizer
