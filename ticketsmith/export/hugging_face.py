"""A Hugging Face folder, for models that came from there: those that offer ``save_pretrained``, themselves or as ``hf``."""

from __future__ import annotations

import copy
import inspect
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ticketsmith.export.subject import ExportError, Settings, Subject, Written

_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")


def write(subject: Subject, path: Path, settings: Settings) -> Written:
    """A folder that ``from_pretrained`` loads, pruned weights as zeros. Raises ExportError for a model of another kind."""
    source = _pretrained(subject.model)
    if source is None:
        raise ExportError(
            f"{type(subject.model).__name__} did not come from Hugging Face: neither it nor its attribute `hf` has "
            "`save_pretrained`. Other formats can hold it."
        )
    try:
        named = inspect.signature(source.save_pretrained).parameters
        source.save_pretrained(str(path), **({"safe_serialization": True} if "safe_serialization" in named else {}))
        again = type(source).from_pretrained(str(path)).eval()
    except Exception as error:  # code of another library, or of the user
        raise ExportError(f"save_pretrained or from_pretrained failed: {type(error).__name__}: {error}") from error
    pickled = [file.name for file in sorted(path.rglob("*")) if file.suffix in _PICKLES]
    if pickled:
        raise ExportError(f"{pickled[0]} would be a pickle, which can run code. Save safetensors.")
    _same(source.state_dict(), again.state_dict())
    difference = subject.check("the Hugging Face folder", _with(subject.model, again))
    kind = type(source)
    return Written(
        "loaded with from_pretrained: equal weights; outputs compared with PyTorch's",
        (
            f"from {kind.__module__.partition('.')[0]} import {kind.__name__}",
            f'model = {kind.__name__}.from_pretrained("{{name}}")',
        ),
        difference,
    )


def _pretrained(model: nn.Module) -> Any:
    return next((m for m in (model, getattr(model, "hf", None)) if hasattr(m, "save_pretrained")), None)


def _with(model: nn.Module, again: nn.Module) -> nn.Module:
    """The model with what was loaded in the place of what was saved."""
    if hasattr(model, "save_pretrained"):
        return again
    whole = copy.deepcopy(model)
    whole.hf = again
    return whole


def _same(saved: dict[str, torch.Tensor], loaded: dict[str, torch.Tensor]) -> None:
    for name, value in saved.items():
        if name not in loaded or not torch.equal(value, loaded[name]):
            raise ExportError(f"{name} is not the same when the folder is loaded.")
