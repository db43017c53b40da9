"""Weights as a model computes with them, masks, parametrizations and folded constants applied, and the least work of a call.

Every share of zeros, every roofline and every count of bytes that is shown of a model comes from here.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ticketsmith.runtime.onnx.constants import Constants
from ticketsmith.runtime.torch.trace import Operation, trace

_OPERANDS = {
    "linear": (1,), "mm": (0, 1), "bmm": (0, 1), "matmul": (0, 1), "mv": (0, 1), "dot": (0, 1), "addmm": (1, 2),
    "addmv": (1, 2), "baddbmm": (1, 2), "addbmm": (1, 2), "bilinear": (2,),
    "convolution": (1,), "_convolution": (1,), "conv1d": (1,), "conv2d": (1,), "conv3d": (1,), "mkldnn_convolution": (1,),
    "conv_transpose1d": (1,), "conv_transpose2d": (1,), "conv_transpose3d": (1,),
    "lstm": (2,), "gru": (2,), "rnn_tanh": (2,), "rnn_relu": (2,), "mkldnn_rnn_layer": (1, 2),
}  # fmt: skip
"""Operators of PyTorch that multiply by weights, and which of their arguments weights can be."""


@dataclass(frozen=True)
class Weights:
    """What a call multiplies by (``total`` numbers, of which ``kept`` are not zero), its arithmetic in ``flops`` with what is
    not zero (a multiply-add is two), and how many numbers that are not zero it reads ``beside``: biases, norms, tables."""

    total: int
    kept: int
    flops: float = 0.0
    beside: int = 0

    @property
    def sparsity(self) -> float:
        """The share of zeros, 0..1; 0 where there is nothing to multiply by."""
        return 1 - self.kept / self.total if self.total else 0.0


def of_module(model: nn.Module, call: Callable[[Tensor], Any], inputs: Tensor) -> tuple[Weights, Any]:
    """Of one ``call`` of ``model`` on ``inputs`` ``[batch, ...]``, and what it gives.

    A weight is what follows from parameters and buffers alone where it meets what follows from the inputs, so it does not
    matter how a model makes it. One that is used several times, or tied, counts once, but for its arithmetic.
    """
    products: dict[Any, tuple[int, int]] = {}
    others: dict[Any, int] = {}
    flops = 0.0

    def note(operation: Operation) -> None:
        nonlocal flops
        origins = [(tensor, operation.origin(tensor)) for tensor in operation.tensors]
        if not any(origin.inputs for _, origin in origins):
            return
        for place, weight in _packed(operation):
            layer = (operation.place, place)
            products.setdefault(layer, (weight.numel(), int(torch.count_nonzero(weight))))
            flops += 2.0 * products[layer][1] * _uses(operation, weight)
        multiplied = set(_operands(operation))
        for tensor, origin in origins:
            if origin.inputs or not origin.weights:
                continue
            plain = _once(tensor)
            key = (origin.weights, plain.storage_offset(), plain.numel())
            if id(tensor) in multiplied and tensor.dim() > 1:
                if key not in products:
                    products[key] = plain.numel(), int(torch.count_nonzero(plain))
                flops += 2.0 * products[key][1] * _macs(operation, tensor) / max(1, plain.numel())
            elif key not in others and operation.name not in _UNREAD:
                most = (
                    operation.results[0].numel() if operation.name in _TABLES and operation.results else plain.numel()
                )
                others[key] = min(most, int(torch.count_nonzero(plain)))

    copied = inputs.clone()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        outputs = trace(model, lambda: call(copied), [copied], note)
    beside = sum(count for key, count in others.items() if key not in products)
    return Weights(*_sums(products.values()), flops, beside), outputs


BYTES = {"float32": 4, "bfloat16": 2, "int8": 1}
"""Bytes of one weight, by precision."""


@dataclass(frozen=True)
class Work:
    """``flops`` at least (a multiply-add is two), ``weights`` that are not zero, ``values``: inputs and outputs."""

    flops: float
    weights: int
    values: int

    def bytes(self, precision: str) -> float:
        """What must be read and written at least: weights that are not zero, inputs and outputs, once each."""
        return float(self.weights * BYTES[precision] + 4 * self.values)


def work(model: nn.Module, call: Callable[[Tensor], Tensor], inputs: Tensor) -> Work:
    """Of one ``call`` of ``model`` on ``inputs`` ``[batch, ...]``: weights that are not zero, wherever they are used.

    Counts products with weights; what a model does beside them is not counted, so this is a lower bound.
    """
    read, outputs = of_module(model, call, inputs)
    written = outputs.numel() if isinstance(outputs, Tensor) else 0
    return Work(read.flops, read.kept + read.beside, inputs.numel() + written)


def _sums(pairs: Iterable[tuple[int, int]]) -> tuple[int, int]:
    total = left = 0
    for one, other in pairs:
        total, left = total + one, left + other
    return total, left


def _packed(operation: Operation) -> Iterator[tuple[int, Tensor]]:
    """Weights that PyTorch's quantised layers hold packed, each with its place, as what they stand for."""
    for place, argument in enumerate(operation.arguments):
        if isinstance(argument, torch.ScriptObject) and hasattr(argument, "unpack"):
            weight = argument.unpack()[0]
            yield place, weight.dequantize()


def _uses(operation: Operation, weight: Tensor) -> float:
    """How often each number of a packed weight is multiplied."""
    output = operation.results[0]
    return output.numel() / (weight.shape[0] if weight.dim() == 2 else output.shape[1])


_TABLES = {"embedding", "index_select", "embedding_bag", "index", "gather"}
_UNREAD = {"copy_", "expand_as", "view_as"}


def _operands(operation: Operation) -> Iterator[int]:
    for place in _OPERANDS.get(operation.name, ()):
        argument = operation.arguments[place] if place < len(operation.arguments) else None
        for one in argument if isinstance(argument, (list, tuple)) else (argument,):
            if isinstance(one, Tensor):
                yield id(one)


def _once(tensor: Tensor) -> Tensor:
    """Without the axes along which it is only repeated."""
    plain = tensor.detach()
    if plain.layout != torch.strided:
        return plain
    return plain[tuple(slice(0, 1) if stride == 0 else slice(None) for stride in plain.stride())]


def _macs(operation: Operation, weight: Tensor) -> float:
    """Multiply-adds of a whole product with ``weight``, zeros included."""
    name, arguments = operation.name, operation.arguments
    outputs = operation.results[0].numel()
    if name.endswith(("convolution", "conv1d", "conv2d", "conv3d")) or name.startswith("conv_transpose"):
        transposed = name.startswith("conv_transpose") or (name.endswith("convolution") and arguments[6] is True)
        places = arguments[0].numel() if transposed else outputs
        return float(places * weight[0].numel())
    if name == "linear":
        return float(outputs * weight.shape[-1])
    if _OPERANDS[name] in ((0, 1), (1, 2)) and name != "mkldnn_rnn_layer":
        return float(outputs * arguments[_OPERANDS[name][0]].shape[-1])
    inputs = arguments[0]
    return float(inputs.numel() / max(1, inputs.shape[-1]) * weight.numel())  # recurrent: each weight once a step


_PRODUCTS = {
    "Conv": (1,), "ConvTranspose": (1,), "Gemm": (0, 1), "MatMul": (0, 1), "FusedMatMul": (0, 1), "FusedConv": (1,),
    "FusedGemm": (0, 1), "LSTM": (1, 2), "GRU": (1, 2), "RNN": (1, 2), "Einsum": (0, 1, 2, 3), "DeformConv": (1,),
    "Attention": (1,), "MatMulInteger": (0, 1), "ConvInteger": (1,), "QLinearMatMul": (0, 3), "QLinearConv": (3,),
    "DynamicQuantizeMatMul": (1,), "MatMulIntegerToFloat": (1,),
}  # fmt: skip
"""Operators of ONNX that multiply by weights, and which of their inputs weights can be."""

_ZERO_POINTS = {
    "MatMulInteger": {0: 2, 1: 3}, "ConvInteger": {1: 3}, "QLinearMatMul": {0: 2, 3: 5}, "QLinearConv": {3: 5},
    "DynamicQuantizeMatMul": {1: 3}, "MatMulIntegerToFloat": {1: 5},
}  # fmt: skip
"""Which input says what stands for zero in a weight of whole numbers."""


def of_onnx(proto: Any, constants: Constants) -> Weights:
    """Of an ONNX model: constants that reach a product, after all that is computed from constants alone.

    ``constants`` gives their values; a weight that several nodes read counts once.
    """
    sizes: dict[str, tuple[int, int]] = {}
    for node, values in constants.along(proto.graph):
        for place in _PRODUCTS.get(node.op_type, ()):
            name = node.input[place] if place < len(node.input) else ""
            weight = values.get(name)
            if weight is None or name in sizes or weight.ndim < 2:
                continue
            point = _ZERO_POINTS.get(node.op_type, {}).get(place)
            zero = values.get(node.input[point]) if point is not None and point < len(node.input) else None
            sizes[name] = weight.size, _kept(weight, zero)
    return Weights(*_sums(sizes.values()))


def _kept(weight: NDArray[Any], zero: NDArray[Any] | None) -> int:
    if zero is None:
        return int(np.count_nonzero(weight))
    if zero.ndim == 1 and zero.size > 1:  # one for each output: the first axis of a convolution, the last of a matrix
        shape: Sequence[int] = [-1, *[1] * (weight.ndim - 1)] if weight.ndim > 2 else [-1]
        zero = zero.reshape(shape) if math.prod(zero.shape) in weight.shape else zero.reshape(-1)[:1]
    return int(np.count_nonzero(weight != zero))
