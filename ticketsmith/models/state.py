"""A model's state as tensors, and back. What ``get_extra_state`` gives beside tensors travels as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ticketsmith.errors import TaskError

_JSON = ":json"
"""Ends the name of a tensor (``uint8``) that holds JSON; no attribute of a module has a colon."""


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the model's state, on the CPU, each tensor with memory of its own.

    Raises TaskError for a part that is neither a tensor nor plain JSON.
    """
    state: dict[str, Tensor] = {}
    for name, value in model.state_dict().items():
        if isinstance(value, Tensor):
            state[name] = value.detach().to("cpu", copy=True).contiguous()
        else:
            state[name + _JSON] = _to_tensor(name, value)
    return state


def load(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """The inverse of ``snapshot``, in place."""
    model.load_state_dict(entries(state))


def entries(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """A snapshot as ``model.load_state_dict`` takes it: JSON as what it stands for."""
    return dict(_entry(name, value) for name, value in state.items())


def is_plain(state: Mapping[str, Tensor]) -> bool:
    """Whether ``model.load_state_dict`` takes a snapshot as it is."""
    return not any(name.endswith(_JSON) for name in state)


def _entry(name: str, value: Tensor) -> tuple[str, Any]:
    if not name.endswith(_JSON):
        return name, value
    return name.removesuffix(_JSON), json.loads(value.numpy().tobytes())


def _to_tensor(name: str, value: Any) -> Tensor:
    try:
        text = json.dumps(value, sort_keys=True, allow_nan=False)
        same = json.loads(text) == value
    except (TypeError, ValueError):
        same = False
    if not same:
        raise TaskError(
            f"task.model: the state {name!r} is a {type(value).__name__} that cannot be kept with the weights. Let "
            "`get_extra_state` give a tensor, or plain JSON: dictionaries with text as keys, lists, text, finite numbers, True, "
            "False, None."
        )
    return torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)
