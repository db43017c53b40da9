"""Pictures as PNG files: the same pixels give the same bytes on a machine, with nothing but the standard library."""

from __future__ import annotations

import struct
import zlib

from torch import Tensor

_GREY, _COLOUR = 0, 2


def png(pixels: Tensor) -> bytes:
    """A PNG file of ``pixels``, ``uint8`` ``[1 or 3, height, width]`` (grey, or red, green, blue)."""
    channels, height, width = pixels.shape
    rows = pixels.permute(1, 2, 0).reshape(height, -1).cpu().numpy()
    raw = b"".join(b"\0" + row.tobytes() for row in rows)  # each row begins with its filter: none
    header = struct.pack(">IIBBBBB", width, height, 8, _GREY if channels == 1 else _COLOUR, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(raw, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, content) for kind, content in parts)


def sheet(images: Tensor, columns: int, scale: int, gap: int = 2) -> Tensor:
    """Images ``[n, c, h, w]``, ``uint8``, as one picture of ``columns``, each ``scale`` times larger, white between them."""
    count, channels, height, width = images.shape
    rows = -(-count // columns)
    high, wide = height * scale + gap, width * scale + gap
    page = images.new_full((channels, rows * high - gap, columns * wide - gap), 255)
    large = images.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    for index, image in enumerate(large):
        top, left = index // columns * high, index % columns * wide
        page[:, top : top + height * scale, left : left + width * scale] = image
    return page


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
