"""The bytes of a safetensors file, taken apart at its masks and put together again: the same bytes, a fraction of the size.

What is here works on bytes and NumPy arrays alone, and on files of strangers: every size is checked before memory is asked for.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ticketsmith.errors import TicketSmithError
from ticketsmith.memory import require

Bits = NDArray[np.bool_]

_DTYPES: dict[str, str] = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "?",
}  # fmt: skip
_MOST_DIMENSIONS = 32
_LARGEST = 2**48  # bytes of a tensor; beyond any memory, below any overflow


class TicketFileError(TicketSmithError):
    """A file is no ticket, or is damaged; the message says what is wrong with it."""


@dataclass(frozen=True)
class Part:
    """One tensor of a safetensors file: where its bytes lie, counted from the end of the header."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def count(self) -> int:
        return math.prod(self.shape)

    @property
    def itemsize(self) -> int:
        return np.dtype(_DTYPES[self.dtype]).itemsize


def header_of(content: bytes) -> str:
    """The header's JSON text, as it is in the file. Raises TicketFileError."""
    size = int.from_bytes(content[:8], "little")
    if len(content) < 8 or size > len(content) - 8:
        raise TicketFileError("it is cut off, or no safetensors file.")
    try:
        return content[8 : 8 + size].decode()
    except UnicodeDecodeError as error:
        raise TicketFileError("its header is not text.") from error


def parse_json(text: str, what: str) -> dict[str, Any]:
    """A JSON object. Raises TicketFileError for anything else."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TicketFileError(f"{what} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise TicketFileError(f"{what} is not a JSON object.")
    return value


def parts_of(header: str) -> list[Part]:
    """The tensors that a header lists, in the order of their bytes, which lie without gaps. Raises TicketFileError."""
    parts = [_part(name, entry) for name, entry in parse_json(header, "a header").items() if name != "__metadata__"]
    require(
        sum(part.end - part.begin for part in parts), "its tensors", "Take a machine with more memory.", TicketFileError
    )
    parts.sort(key=lambda part: (part.begin, part.end))
    end = 0
    for part in parts:
        if part.begin != end or part.end - part.begin != part.count * part.itemsize:
            raise TicketFileError(f"tensor {part.name!r} does not have the place and size of its shape.")
        end = part.end
    return parts


def _part(name: str, entry: Any) -> Part:
    try:
        dtype, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        numbers = (*shape, begin, end)
    except (KeyError, TypeError, ValueError) as error:
        raise TicketFileError(f"tensor {name!r} is not described as safetensors does.") from error
    fine = all(type(number) is int and 0 <= number < _LARGEST for number in numbers)
    if not fine or len(shape) > _MOST_DIMENSIONS or type(dtype) is not str or dtype not in _DTYPES:
        raise TicketFileError(f"tensor {name!r} has no type, shape or place that can be.")
    return Part(name, dtype, shape, begin, end)


def data_of(content: bytes, header: str) -> memoryview:
    """What follows the header."""
    return memoryview(content)[8 + len(header.encode()) :]


def arrays(content: bytes) -> dict[str, NDArray[Any]]:
    """Every tensor as an array; bfloat16 becomes float32, exactly. Raises TicketFileError."""
    header = header_of(content)
    data = data_of(content, header)
    tensors = {}
    for part in parts_of(header):
        raw = data[part.begin : part.end]
        if len(raw) != part.end - part.begin:
            raise TicketFileError("it is cut off.")
        flat: NDArray[Any] = np.frombuffer(raw, _DTYPES[part.dtype])
        if part.dtype == "BF16":
            flat = (flat.astype("<u4") << 16).view("<f4")
        tensors[part.name] = flat.reshape(part.shape)
    return tensors


def take_apart(content: bytes, masks: Mapping[str, Bits]) -> dict[str, bytes]:
    """The bytes of each tensor; of those with a mask, only the values that it keeps. What a mask drops is not looked at."""
    header = header_of(content)
    data = data_of(content, header)
    return {
        part.name: _elements(data[part.begin : part.end], part)[masks[part.name].reshape(-1)].tobytes()
        if part.name in masks
        else bytes(data[part.begin : part.end])
        for part in parts_of(header)
    }


def put_together(header: str, masks: Mapping[str, Bits], blob: Callable[[str], bytes]) -> bytes:
    """The inverse of ``take_apart``; what a mask drops is zero. ``blob(name)`` gives a tensor's bytes.

    Raises TicketFileError when sizes do not fit.
    """
    text = header.encode()
    pieces = [len(text).to_bytes(8, "little"), text]
    for part in parts_of(header):
        raw = blob(part.name)
        mask = masks.get(part.name)
        if mask is None:
            if len(raw) != part.end - part.begin:
                raise TicketFileError(f"tensor {part.name!r} does not have the bytes of its shape.")
            pieces.append(raw)
            continue
        if mask.shape != part.shape or len(raw) != int(np.count_nonzero(mask)) * part.itemsize:
            raise TicketFileError(f"tensor {part.name!r} does not have as many values as its mask keeps.")
        whole = np.zeros(part.count, f"u{part.itemsize}")
        whole[mask.reshape(-1)] = _elements(raw, part)
        pieces.append(whole.tobytes())
    return b"".join(pieces)


def _elements(raw: bytes | memoryview, part: Part) -> NDArray[Any]:
    """The bits of each element, as a number, so that nothing is lost of any type."""
    return np.frombuffer(raw, f"u{part.itemsize}")


def unpacked(bits: bytes, shape: tuple[int, ...], name: str) -> Bits:
    """A mask from one bit a weight. Raises TicketFileError when there are more or fewer bits."""
    count = math.prod(shape)
    if len(bits) != -(-count // 8):
        raise TicketFileError(f"the mask of {name!r} does not have the bits of its shape.")
    return np.unpackbits(np.frombuffer(bits, np.uint8), count=count).view(bool).reshape(shape)
