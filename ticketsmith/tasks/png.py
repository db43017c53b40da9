"""Pictures as PNG files: the same pixels give the same bytes on a machine, with nothing but the standard library."""

from __future__ import annotations

import struct
import zlib

import torch
from torch import Tensor
from torch.nn import functional as F

_GREY, _COLOUR = 0, 2


def png(pixels: Tensor) -> bytes:
    """A PNG file of ``pixels``, ``uint8`` ``[1 or 3, height, width]`` (grey, or red, green, blue)."""
    channels, height, width = pixels.shape
    rows = pixels.permute(1, 2, 0).reshape(height, -1).cpu().numpy()
    raw = b"".join(b"\0" + row.tobytes() for row in rows)  # each row begins with its filter: none
    header = struct.pack(">IIBBBBB", width, height, 8, _GREY if channels == 1 else _COLOUR, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(raw, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, content) for kind, content in parts)


def row(images: Tensor, scale: int, gap: int = 2) -> Tensor:
    """Images ``[n, c, h, w]``, ``uint8``, side by side, each ``scale`` times larger, white between them: ``[c, h, w]``."""
    large = images.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    return torch.cat(list(F.pad(large, (0, gap), value=255)), dim=2)[:, :, :-gap]


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
