"""How MNIST fits into 8 MB: stroke first, grey values after, sorted by how deep in the stroke they lie.

Four of five pixels are 0. So the file holds one bit a pixel (zero or not) and then only the other values, ordered by
the number of their 3x3 neighbours that are not zero: the nearly white inside of strokes comes apart from their grey
rim, which saves an eighth against plain xz. All of it is one xz stream, readable with the standard library.
"""

from __future__ import annotations

import lzma
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ticketsmith.errors import DataError

_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 1 << 25, "lc": 4, "pb": 0}]
_BLOCK = 512


def pack(images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> bytes:
    """One xz stream of ``[n, height, width]`` images and their ``[n]`` labels; width x height a multiple of 8."""
    mask = images != 0
    values = images[mask][_order(mask)]
    return lzma.compress(np.packbits(mask).tobytes() + labels.tobytes() + values.tobytes(), filters=_FILTERS)


def unpack(packed: bytes, count: int, side: int, name: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The ``count`` images of ``side`` x ``side`` and the labels in ``packed``; DataError (calling it ``name``)."""
    try:
        content = np.frombuffer(lzma.decompress(packed), np.uint8)
        bits, labels, values = np.split(content, [count * side * side // 8, count * side * side // 8 + count])
        mask = np.unpackbits(bits).view(np.bool_).reshape(count, side, side)
        ordered = np.empty_like(values)
        ordered[_order(mask)] = values
        images = np.zeros(mask.shape, np.uint8)
        images[mask] = ordered
    except (lzma.LZMAError, EOFError, ValueError, IndexError) as error:
        raise DataError(f"{name} is damaged ({error}); install ticketsmith again.") from error
    return images, labels


def _order(mask: NDArray[np.bool_]) -> NDArray[Any]:
    """The stable order of the values under ``mask`` by their number of neighbours under it."""
    # In blocks that fit the processor's cache: three times as fast as all images at once.
    blocks = (mask[start : start + _BLOCK] for start in range(0, len(mask), _BLOCK))
    return np.argsort(np.concatenate([_neighbours(block)[block] for block in blocks]), kind="stable")


def _neighbours(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """For every pixel, how many of the 3x3 around it are under ``mask``."""
    bits = mask.view(np.uint8)
    rows = bits.copy()
    rows[:, 1:] += bits[:, :-1]
    rows[:, :-1] += bits[:, 1:]
    total = rows.copy()
    total[:, :, 1:] += rows[:, :, :-1]
    total[:, :, :-1] += rows[:, :, 1:]
    return total
