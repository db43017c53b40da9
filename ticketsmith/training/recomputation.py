"""Activation checkpointing (Chen et al. 2016): blocks of a model keep their inputs alone, and are computed once more for
their gradients. Memory of activations for about a third more arithmetic; the numbers are the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint

from ticketsmith.errors import TaskError

_CONTAINERS = (nn.ModuleList, nn.Sequential, nn.ModuleDict)


def blocks(model: nn.Module) -> list[nn.Module]:
    """What is computed once more: the members of the outermost lists and sequences of modules, and other child modules.

    Single layers are none of them: they keep little but their input. Raises TaskError when the model has no such block.
    """
    chosen = [module for module in _outermost(model) if any(True for _ in module.children())]
    if not chosen:
        raise TaskError(
            "training.activation_checkpointing: the model consists of single layers, and has no blocks to compute once more. "
            "Leave it out, or gather layers in modules."
        )
    return chosen


def _outermost(module: nn.Module) -> Iterator[nn.Module]:
    for child in module.children():
        nested = any(isinstance(inner, _CONTAINERS) for inner in child.modules())
        within_list = isinstance(module, _CONTAINERS)
        if isinstance(child, _CONTAINERS) or (nested and not within_list):
            yield from _outermost(child)
        else:
            yield child


@contextmanager
def recomputed(chosen: list[nn.Module]) -> Iterator[None]:
    """Forward passes inside keep no activations of these blocks; after it the modules are as they were."""
    with ExitStack() as stack:
        for module in chosen:
            stack.enter_context(_one(module))
        yield


@contextmanager
def _one(module: nn.Module) -> Iterator[None]:
    plain, own = module.forward, "forward" in vars(module)

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _same_buffers(module)

    def forward(*inputs: Any, **named: Any) -> Any:
        return checkpoint(plain, *inputs, use_reentrant=False, context_fn=contexts, **named)

    module.forward = forward
    try:
        yield
    finally:
        if own:
            module.forward = plain
        else:
            del module.forward


@contextmanager
def _same_buffers(module: nn.Module) -> Iterator[None]:
    """Batch norm and the like shall count a batch once, and not when it is computed once more."""
    before = [(buffer, buffer.detach().clone()) for buffer in module.buffers()]
    try:
        yield
    finally:
        for buffer, value in before:
            buffer.data.copy_(value)  # by `data`: what the gradient still needs of it is not taken for outdated
