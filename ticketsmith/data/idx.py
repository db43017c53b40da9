"""The idx format of MNIST and Fashion-MNIST: a big-endian header (type, dimensions), then the bytes."""

from __future__ import annotations

import math
import struct

import numpy as np
from numpy.typing import NDArray

from ticketsmith.errors import DataError

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
_UNSIGNED_BYTES = 0x08


def read(content: bytes, name: str) -> NDArray[np.uint8]:
    """The array in the ``content`` of an idx file of unsigned bytes; DataError (calling it ``name``) otherwise."""
    if len(content) < 4 or content[:3] != bytes((0, 0, _UNSIGNED_BYTES)) or len(content) < 4 + 4 * content[3]:
        raise DataError(f"{name} is not an idx file of unsigned bytes; get it again.")
    shape = struct.unpack_from(f">{content[3]}I", content, 4)
    body = np.frombuffer(content, np.uint8, offset=4 + 4 * len(shape))
    if body.size != math.prod(shape):
        raise DataError(f"{name} is cut short or too long: {body.size} values for shape {shape}; get it again.")
    return body.reshape(shape)


def write(array: NDArray[np.uint8]) -> bytes:
    """The idx file of ``array``: the exact inverse of ``read``."""
    header = bytes((0, 0, _UNSIGNED_BYTES, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.tobytes()
