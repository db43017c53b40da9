"""Whether a given ONNX file fits into memory: what it says of its weights and values, before anything is asked for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ticketsmith.errors import RecipeError
from ticketsmith.memory import require
from ticketsmith.runtime.onnx.constants import Constants, result_size


def check_weights(model: Any, folder: Path) -> None:
    """Whether the weights of an ``onnx.ModelProto`` lie in files that hold them, and fit. Raises RecipeError."""
    import onnx

    total = 0
    for tensor in model.graph.initializer:
        if any(size < 0 for size in tensor.dims):
            raise RecipeError(f"weights {tensor.name!r} have an impossible shape {list(tensor.dims)}.")
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            _check_external(tensor, folder)
        size = _itemsize(tensor.data_type) * math.prod(tensor.dims)
        require(size, f"weights {tensor.name!r}", "Is it the right file? Else take a machine with more memory.")
        total += size
    require(total, "all weights together", "Take a machine with more memory.")


def check_values(model: Any, shape: Sequence[int], what: str) -> None:
    """Whether every value that an input of ``shape`` (without the batch) leads to fits, as far as the model tells sizes.

    Runtimes fold constants while they load, so that a small file may ask for any amount. Raises RecipeError.
    """
    import onnx

    sized = onnx.ModelProto()
    sized.CopyFrom(model)
    constants = {tensor.name for tensor in model.graph.initializer}
    for value in sized.graph.input:
        if value.name not in constants:
            for size, own in zip(value.type.tensor_type.shape.dim[1:], shape, strict=False):
                size.dim_value = own
    try:
        graph = onnx.shape_inference.infer_shapes(sized, data_prop=True).graph
    except Exception:  # too large for a message of protobuf, or what inference does not know
        graph = sized.graph
    mend = "Give a smaller --shape, or export a smaller model."
    for value in (*graph.input, *graph.value_info, *graph.output):
        require(_value_size(value), f"{what}: the value {value.name!r}", mend)
    for node, constants_before in Constants(model, None).along(model.graph):
        if node.input and all(name in constants_before or not name for name in node.input):
            size = result_size(node, [constants_before.get(name) for name in node.input])
            if size < math.inf:
                require(8 * int(size), f"{what}: the constant that {node.op_type} makes", mend)


def _value_size(value: Any) -> int:
    """Bytes of one value of a graph, sizes that are free counted as 1."""
    kind = value.type.tensor_type
    count: int = math.prod(size.dim_value or 1 for size in kind.shape.dim)
    return _itemsize(kind.elem_type) * count


def _itemsize(kind: int) -> int:
    import onnx

    try:
        size: int = onnx.helper.tensor_dtype_to_np_dtype(kind).itemsize
    except (KeyError, TypeError, ValueError):  # no tensor, or of a type that this version does not know
        return 4
    return size


def _check_external(tensor: Any, folder: Path) -> None:
    entries = {one.key: one.value for one in tensor.external_data}
    try:
        size = (folder / entries["location"]).stat().st_size
        offset = int(entries.get("offset", 0))
        length = int(entries.get("length", size - offset))
    except (OSError, KeyError, ValueError) as error:
        raise RecipeError(f"weights {tensor.name!r} lie in another file, which cannot be read: {error}.") from error
    if not 0 <= offset <= size or not 0 <= length <= size - offset:
        raise RecipeError(
            f"weights {tensor.name!r} lie beyond the end of {entries['location']!r}, which has {size:,} bytes."
        )
