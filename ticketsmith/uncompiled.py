"""PyTorch without its compiler: 800 modules (``torch._dynamo``, sympy ...) that a process which compiles nothing need not import.

Some methods of PyTorch import the compiler at their first call, only to tell it not to trace them. Nothing here is ever
traced, so they are called as they stand. Where PyTorch changes its ways the import comes back, and nothing else.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch


def untraced(owner: type, *names: str) -> None:
    """Lets these methods of ``owner`` run as they are, where ``torch._disable_dynamo`` would import the compiler first."""
    for name in names:
        plain: Any = inspect.unwrap(getattr(owner, name))
        if not hasattr(plain, "__dynamo_disable"):
            plain.__dynamo_disable = plain


def step(optimizer: torch.optim.Optimizer) -> None:
    """``optimizer.step()`` without gradients, without hooks, and without the compiler's mark of a boundary."""
    with torch.no_grad():
        inspect.unwrap(type(optimizer).step)(optimizer)


untraced(torch.optim.Optimizer, "add_param_group", "load_state_dict", "state_dict", "zero_grad")
