"""Adam and AdamW of PyTorch without what their ``step`` looks up anew each time, which takes as long as the arithmetic of a small
network."""

from __future__ import annotations

import inspect
from typing import Any

import torch


class _Quick:
    """The same operation of PyTorch on the same tensors, where all of them are there and plain."""

    _base: type[torch.optim.Adam]
    _update: Any
    param_groups: list[dict[str, Any]]
    state: Any

    def step(self, closure: Any = None) -> Any:
        (group,) = self.param_groups
        parameters = group["params"]
        gradients = [parameter.grad for parameter in parameters]
        states = [self.state.get(parameter) for parameter in parameters]
        if not all(states) or any(one is None or one.layout is not torch.strided for one in gradients):
            return inspect.unwrap(self._base.step)(self, closure)
        counts = [state["step"] for state in states]
        torch._foreach_add_(counts, 1)
        beta1, beta2 = group["betas"]
        self._update(
            parameters, gradients, [state["exp_avg"] for state in states], [state["exp_avg_sq"] for state in states], [],
            counts, amsgrad=False, lr=group["lr"], beta1=beta1, beta2=beta2, weight_decay=group["weight_decay"],
            eps=group["eps"], maximize=False, grad_scale=None, found_inf=None,
        )  # fmt: skip
        return None


class _QuickAdam(_Quick, torch.optim.Adam):
    _base, _update = torch.optim.Adam, staticmethod(torch._fused_adam_)


class _QuickAdamW(_Quick, torch.optim.AdamW):
    _base, _update = torch.optim.AdamW, staticmethod(torch._fused_adamw_)


_QUICK: dict[type, type] = {torch.optim.Adam: _QuickAdam, torch.optim.AdamW: _QuickAdamW}


def hasten(optimizer: torch.optim.Optimizer) -> None:
    """Lets an optimizer of ``make_optimizer`` make its steps so, if it is one of these and its numbers are float32."""
    plain = all(parameter.dtype is torch.float32 for parameter in optimizer.param_groups[0]["params"])
    if plain and type(optimizer) in _QUICK:
        optimizer.__class__ = _QUICK[type(optimizer)]
