"""What a model says in float64: nearer to what it means than any runtime, so that runtimes can be judged by it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ticketsmith import memory
from ticketsmith.runtime.onnx.constants import Constants, node_of_constants
from ticketsmith.uncompiled import untraced

Array = NDArray[Any]

PYTORCH, ONNX = "PyTorch in float64", "ONNX's reference in float64"

_SHARE_OF_MEMORY = 0.25
"""That weights in float64 may take of what is free."""


def of_module(model: nn.Module, *inputs: Tensor) -> Tensor | None:
    """The output of ``model`` on ``inputs``, each ``[batch, ...]``, in float64. The model stays as it is.

    None where it does not compute in float64, or gives no tensor.
    """
    state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    free = memory.available() if inputs[0].device.type == "cpu" else None
    if free is not None and 8 * sum(tensor.numel() for tensor in state.values()) > _SHARE_OF_MEMORY * free:
        return None
    try:
        with torch.no_grad(), _default(torch.float64):
            double = {name: _double(tensor.detach()).clone() for name, tensor in state.items()}
            copies = tuple(_double(tensor.clone()) for tensor in inputs)
            with _Lowered() as lowered:
                outputs = functional_call(model, double, copies)
    except Exception:  # a model may make float32 of its own, or fail in any other way
        return None
    if lowered.happened or not isinstance(outputs, Tensor) or outputs.dtype != torch.float64:
        return None
    return outputs


class _Lowered(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Tells whether a number was computed in less than float64 on the way, as by ``.float()`` within a norm."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.happened = False

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        results = func(*args, **(kwargs or {}))
        if not func.is_view and any(map(_inexact, tree_leaves((args, kwargs)))):
            self.happened |= any(_inexact(one) and torch.finfo(one.dtype).bits < 64 for one in tree_leaves(results))
        return results


untraced(_Lowered, "__torch_dispatch__")


def _inexact(value: Any) -> bool:
    return isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex())


def _double(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


@contextlib.contextmanager
def _default(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def of_onnx(path: Path, inputs: Tensor, seconds: float) -> Tensor | None:
    """The output of an ONNX file of one input and one output in float64, node by node by ONNX's own reference; None where
    that does not know a node, or takes longer than ``seconds``."""
    import onnx
    from onnx import inliner

    end = time.monotonic() + seconds
    try:
        proto = onnx.load_model_from_string(path.read_bytes())
        if proto.functions:
            proto = inliner.inline_local_functions(proto)
        opsets = [(one.domain, one.version) for one in proto.opset_import]
        values: dict[str, Any] = {
            name: _raised(array) for name, array in Constants(proto, path.parent).initializers(proto.graph).items()
        }
        names = [port.name for port in proto.graph.input if port.name not in values]
        values[names[0]] = _raised(inputs.numpy())
        for node in proto.graph.node:
            if time.monotonic() > end:
                return None
            values |= {name: _raised(value) for name, value in _computed(node, values, opsets).items()}
        output = np.asarray(values[proto.graph.output[0].name])
    except Exception:  # the reference raises whatever NumPy does
        return None
    return torch.from_numpy(output) if output.dtype == np.float64 else None


def _raised(value: Any) -> Any:
    return value.astype(np.float64) if isinstance(value, np.ndarray) and value.dtype.kind == "f" else value


def _computed(node: Any, values: Mapping[str, Any], opsets: list[tuple[str, int]]) -> Mapping[str, Any]:
    """The outputs of a node. A cast to a float keeps all digits."""
    inputs: list[Any] = [values[name] if name else None for name in node.input]
    if node.op_type in ("Cast", "CastLike") and inputs[0].dtype.kind == "f":
        kind = inputs[1].dtype.kind if node.op_type == "CastLike" else _kind(node)
        if kind == "f":
            return {node.output[0]: inputs[0]}
    if node.op_type == "Conv" and not any(one.name == "auto_pad" for one in node.attribute):
        return {node.output[0]: _conv(node, *inputs)}
    return node_of_constants(node, values, opsets)


def _kind(node: Any) -> str:
    import onnx

    dtype = onnx.helper.tensor_dtype_to_np_dtype(next(one.i for one in node.attribute if one.name == "to"))
    return "f" if dtype.kind in "fV" else str(dtype.kind)


def _conv(node: Any, x: Array, weight: Array, bias: Array | None = None) -> Array:
    """A convolution by PyTorch: the reference takes long for it."""
    attributes: dict[str, Any] = {one.name: (list(one.ints) or one.i) for one in node.attribute}
    axes = weight.ndim - 2
    pads = attributes.get("pads", [0] * 2 * axes)
    around = [n for axis in reversed(range(axes)) for n in (pads[axis], pads[axes + axis])]
    function = (nn.functional.conv1d, nn.functional.conv2d, nn.functional.conv3d)[axes - 1]
    outputs = function(
        nn.functional.pad(torch.from_numpy(x), around), torch.from_numpy(weight),
        None if bias is None else torch.from_numpy(bias), attributes.get("strides", [1] * axes), 0,
        attributes.get("dilations", [1] * axes), attributes.get("group", 1),
    )  # fmt: skip
    return np.asarray(outputs.numpy())
