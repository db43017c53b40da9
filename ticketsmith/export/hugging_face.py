"""A Hugging Face folder, for models that came from there: themselves, as ``hf``, or as ``network`` of the built-in task."""

from __future__ import annotations

import copy
import inspect
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ticketsmith.export.subject import ExportError, ExportSettings, Subject, Written

_INSIDE = ("hf", "network")
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")


def write(subject: Subject, path: Path, settings: ExportSettings) -> Written:
    """A folder that ``from_pretrained`` loads, pruned weights as zeros. Raises ExportError for a model of another kind."""
    model: Any = subject.model
    place = _place(model)
    source = getattr(model, place) if place else model
    # A model around the one of Hugging Face may know what else belongs into the folder, such as its tokenizer.
    save = model.save_pretrained if hasattr(model, "save_pretrained") else source.save_pretrained
    try:
        named = inspect.signature(save).parameters
        save(str(path), **({"safe_serialization": True} if "safe_serialization" in named else {}))
        again = type(source).from_pretrained(str(path)).eval()
    except Exception as error:  # code of another library, or of the user
        raise ExportError(f"save_pretrained or from_pretrained failed: {type(error).__name__}: {error}") from error
    pickled = [file.name for file in sorted(path.rglob("*")) if file.suffix in _PICKLES]
    if pickled:
        raise ExportError(f"{pickled[0]} would be a pickle, which can run code. Save safetensors.")
    _same(source.state_dict(), again.state_dict())
    difference = subject.check("the Hugging Face folder", _with(model, place, again))
    library, kind = type(source).__module__.partition(".")[0], type(source).__name__
    load = [f"from {library} import {kind}", f'model = {kind}.from_pretrained("{{name}}")']
    if (path / "tokenizer_config.json").is_file():
        load += ["from transformers import AutoTokenizer", 'tokenizer = AutoTokenizer.from_pretrained("{name}")']
    return Written(
        "loaded with from_pretrained: equal weights; outputs compared with PyTorch's", tuple(load), difference
    )


def _place(model: nn.Module) -> str:
    """The attribute that can be saved and loaded as Hugging Face does, empty for the model itself."""
    for place in ("", *_INSIDE):
        one = getattr(model, place, None) if place else model
        if hasattr(one, "save_pretrained") and hasattr(one, "from_pretrained"):
            return place
    raise ExportError(
        f"{type(model).__name__} did not come from Hugging Face: neither it nor its attributes `hf` and `network` "
        "have `save_pretrained` and `from_pretrained`. Other formats can hold it."
    )


def _with(model: nn.Module, place: str, again: nn.Module) -> nn.Module:
    """The model with what was loaded in the place of what was saved."""
    if not place:
        return again
    whole = copy.deepcopy(model)
    setattr(whole, place, again)
    return whole


def _same(saved: dict[str, torch.Tensor], loaded: dict[str, torch.Tensor]) -> None:
    for name, value in saved.items():
        if name not in loaded or not torch.equal(value, loaded[name]):
            raise ExportError(f"{name} is not the same when the folder is loaded.")
