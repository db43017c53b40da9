"""Whether a batch fits in memory, before anything is tried: a machine out of memory kills without a word."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ticketsmith.errors import RecipeError
from ticketsmith.inference.runtimes import OnnxFile
from ticketsmith.memory import available
from ticketsmith.models.size import bounded_by

_COPIES = 3
"""Values of a layer that exist at the same time: its inputs, its outputs, and those of another runtime."""


def check(
    model: nn.Module | OnnxFile, inputs_of: Callable[[int], Tensor], batch_sizes: Sequence[int], device: torch.device
) -> None:
    """Raises RecipeError, naming a batch size that fits, when the largest one does not."""
    if device.type != "cpu" or isinstance(model, OnnxFile):
        return
    example = inputs_of(1)
    one = _bytes_of_one(model, example)
    free, largest = available(), max(batch_sizes)
    if free is None or _COPIES * one * largest <= free:
        return
    fits = max(1, int(free / (_COPIES * one)))
    raise RecipeError(
        f"batch size {largest} needs about {_COPIES * one * largest / 2**30:,.1f} GiB; {free / 2**30:,.1f} GiB of memory is "
        f"free on this machine. Choose {fits} or less."
    )


def _bytes_of_one(model: nn.Module, example: Tensor) -> int:
    """Of the largest value that one input leads to, its own included."""
    largest = example.numel() * example.element_size()

    def note(module: nn.Module, inputs: object, outputs: object) -> None:
        nonlocal largest
        if isinstance(outputs, Tensor):
            largest = max(largest, outputs.numel() * outputs.element_size())

    handles = [module.register_forward_hook(note) for module in model.modules()]
    try:
        with torch.inference_mode(), bounded_by(example, mend="Take smaller inputs, or a shorter context."):
            model.eval()(example.clone())
    except RuntimeError:  # what is wrong with the model is said by the race
        pass
    finally:
        for handle in handles:
            handle.remove()
    return largest
