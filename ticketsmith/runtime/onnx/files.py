"""ONNX models as files: weights in them and beside them, with no more trust than a stranger's file deserves."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ticketsmith.errors import TicketSmithError
from ticketsmith.memory import require
from ticketsmith.runtime.builder.core import Array, UnsupportedError
from ticketsmith.runtime.graph import MOST_ELEMENTS


class OnnxError(TicketSmithError):
    """A file is no ONNX model, is damaged, or reaches beyond its folder; or ``onnx`` is not installed."""


@dataclass(frozen=True)
class Files:
    """What a model may read: its own bytes, and files in its ``folder``; None: none."""

    folder: Path | None

    def plain(self, tensor: Any) -> Any:
        """A tensor whose bytes are all there."""
        import onnx

        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            return tensor
        entries = {one.key: one.value for one in tensor.external_data}
        location = entries.get("location", "")
        if self.folder is None:
            raise OnnxError(f"weights {tensor.name!r} lie in another file, {location!r}: give the path of the model.")
        folder = self.folder.resolve()
        path = (folder / location).resolve()
        if not location or Path(location).is_absolute() or not path.is_relative_to(folder) or not path.is_file():
            raise OnnxError(f"weights {tensor.name!r} lie in {location!r}, which is no file in the model's folder.")
        try:
            offset = int(entries.get("offset", 0))
            with open(path, "rb") as file:
                size = os.fstat(file.fileno()).st_size
                length = int(entries.get("length", size - offset))
                if not 0 <= offset <= size or not 0 <= length <= size - offset:
                    raise OnnxError(f"weights {tensor.name!r} lie beyond the end of {location!r}.")
                require(length, f"weights {tensor.name!r}", "Take a machine with more memory.", OnnxError)
                file.seek(offset)
                content = file.read(length)
        except (OSError, ValueError) as error:
            raise OnnxError(f"weights {tensor.name!r} cannot be read from {location!r}: {error}") from error
        plain = onnx.TensorProto()
        plain.CopyFrom(tensor)
        del plain.external_data[:]
        plain.data_location = onnx.TensorProto.DEFAULT
        plain.raw_data = content
        return plain

    def array(self, tensor: Any) -> Array:
        """A tensor as float32, or as whole numbers. Raises OnnxError or UnsupportedError."""
        return array(self.plain(tensor))

    def attribute(self, attribute: Any) -> Any:
        """The value of an attribute: a number, a text, a list, or an array."""
        import onnx

        value = onnx.helper.get_attribute_value(attribute)
        if isinstance(value, bytes):
            return value.decode(errors="replace")
        if isinstance(value, onnx.TensorProto):
            return self.array(value)
        return value


def array(tensor: Any) -> Array:
    """A tensor whose bytes are all there, as float32 or whole numbers."""
    from onnx import numpy_helper

    if math.prod(tensor.dims) > MOST_ELEMENTS or any(n < 0 for n in tensor.dims):
        raise OnnxError(f"weights {tensor.name!r} have an impossible shape {list(tensor.dims)}.")
    require(4 * math.prod(tensor.dims), f"weights {tensor.name!r}", "Take a machine with more memory.", OnnxError)
    try:
        values = numpy_helper.to_array(tensor)
    except Exception as error:  # of many kinds
        raise OnnxError(f"weights {tensor.name!r} are damaged ({error}).") from error
    if values.dtype.kind in "iub":
        return values.copy()
    if values.dtype.kind not in "fV" or values.dtype.names:
        raise UnsupportedError(f"weights {tensor.name!r} are {values.dtype}, which the sparse runtime does not know.")
    return values.astype(np.float32)  # which keeps scalars scalars


def spread(tensor: Any) -> Array:
    """A sparse tensor with its zeros."""
    values, places = array(tensor.values), array(tensor.indices).astype(np.int64)
    size = math.prod(tensor.dims)
    if not 0 <= size <= MOST_ELEMENTS or any(n < 0 for n in tensor.dims):
        raise ValueError("an impossible shape")
    flat = places if places.ndim == 1 else np.ravel_multi_index(tuple(places.T), tuple(tensor.dims))
    dense = np.zeros(size, values.dtype)
    dense[flat] = values
    return dense.reshape(tuple(tensor.dims))
