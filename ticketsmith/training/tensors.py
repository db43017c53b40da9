"""Tensors to bytes and back: safetensors, never pickle; the same tensors give the same bytes."""

from __future__ import annotations

import json
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from ticketsmith.errors import DamagedRunError
from ticketsmith.pruning.masks import Masks, pack, unpack

_NOTE = "ticketsmith"  # one metadata entry: the order of several is random in the file


def to_bytes(tensors: dict[str, Tensor], note: Any = None) -> bytes:
    """A safetensors file; ``note`` is any JSON value, kept in its header."""
    return bytes(save(tensors, metadata={_NOTE: json.dumps(note, sort_keys=True)}))


def from_bytes(content: bytes, what: str) -> tuple[dict[str, Tensor], Any]:
    """Tensors and note of a safetensors file. Raises DamagedRunError when it cannot be read."""
    try:
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        note = json.loads(header.get("__metadata__", {}).get(_NOTE, "null"))
        # Sorted, since safetensors gives them in another order in each process.
        return dict(sorted(load(content).items())), note
    except (SafetensorError, ValueError, KeyError, AttributeError, RecursionError) as error:
        raise DamagedRunError(f"{what} cannot be read: {error}") from error


def masks_to_bytes(masks: Masks) -> bytes:
    """``mask.safetensors``: one bit a weight."""
    bits, shapes = pack(masks)
    return to_bytes(bits, shapes)


def masks_from_bytes(content: bytes, what: str) -> Masks:
    """The inverse of ``masks_to_bytes``. Raises DamagedRunError."""
    bits, shapes = from_bytes(content, what)
    return unpack(bits, shapes or [])
