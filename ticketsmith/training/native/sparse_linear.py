"""A linear layer of PyTorch whose parameter is its surviving weights: kernels for float32, and gradients by autograd."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from ticketsmith.native import abi
from ticketsmith.training.native import packing
from ticketsmith.training.native.calls import Call, address
from ticketsmith.training.native.pattern import Survivors

_LANES = 128
"""Rows that a kernel computes with at a time."""
_CACHE = 192 * 1024
"""Numbers of inputs and outputs that stay in the caches while products are summed."""


class Pattern:
    """Which weights of a matrix [outputs, inputs] survive, and the tables that kernels need of it. Modules share it."""

    def __init__(self, mask: NDArray[np.bool_]) -> None:
        self.shape = outputs, inputs = mask.shape
        part = packing.channels_a_part(_LANES, float(mask.mean()))
        survivors = Survivors.of(mask, part)
        self.places = torch.from_numpy(survivors.places.astype(np.int64))
        rows, columns = np.divmod(survivors.places.astype(np.int64), inputs)
        every = np.arange(rows.size)
        self._arrays = (
            *packing.table(rows, columns // part, columns * _LANES, every, outputs),
            *packing.table(columns, rows // part, rows * _LANES, every, inputs),
            survivors.columns * np.int32(_LANES), survivors.rows * np.int32(_LANES), survivors.slots,
            np.arange(max(outputs, inputs), dtype=np.int32) * np.int32(_LANES),
        )  # fmt: skip
        starts, taps, back_starts, back_taps, offsets, owners, slots, lanes = self._arrays
        common = {"inputs": inputs, "outputs": outputs, "lanes": _LANES, "places": lanes}
        self._output = Call(abi.LayerOutput, table=_table(starts, taps, outputs), **common)
        self._groups = survivors.size // packing.VECTOR
        self._gradients = Call(
            abi.LayerGradients, table=_table(back_starts, back_taps, inputs), offsets=offsets, owners=owners, slots=slots,
            groups=self._groups, survivors=rows.size, **common,
        )  # fmt: skip

    def __deepcopy__(self, memo: Any) -> Pattern:
        return self

    def dense(self, values: Tensor) -> Tensor:
        """[outputs, inputs] of values [survivors], zeros elsewhere; a gradient finds its way back."""
        flat = values.new_zeros(self.shape[0] * self.shape[1])
        return flat.index_put((self.places,), values).view(self.shape)

    def values(self, matrix: Tensor) -> Tensor:
        """[survivors] of a matrix."""
        return matrix.reshape(-1)[self.places]

    def output(self, inputs: Tensor, values: Tensor, bias: Tensor | None) -> Tensor:
        """[..., outputs] of ``inputs`` [..., inputs], all in float32 and contiguous."""
        outputs, width = self.shape
        out = inputs.new_empty((*inputs.shape[:-1], outputs))
        self._output(
            scratch=_LANES * (width + outputs), rows=inputs.numel() // width, in_=inputs.data_ptr(),
            weights=values.data_ptr(), bias=address(bias), out=out.data_ptr(),
        )  # fmt: skip
        return out

    def gradients(
        self, inputs: Tensor, values: Tensor, gradient: Tensor, wanted: tuple[bool, bool, bool]
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Of inputs, values and bias, those that are ``wanted``; of the ``gradient`` of the output [..., outputs]."""
        outputs, width = self.shape
        rows = inputs.numel() // width
        back = torch.empty_like(inputs) if wanted[0] else None
        products = torch.empty_like(values) if wanted[1] else None
        biases = inputs.new_empty(outputs) if wanted[2] else None
        band = max(1, min(_CACHE // (_LANES * (width + outputs)), -(-rows // _LANES)))
        size = _LANES * (band * (width + outputs) + width) + 16 * outputs + 256 * self._groups
        self._gradients(
            scratch=size, rows=rows, in_=inputs.data_ptr(), weights=values.data_ptr(), band=band,
            out_gradient=gradient.data_ptr(), in_gradient=address(back), weight_gradient=address(products),
            bias_gradient=address(biases),
        )  # fmt: skip
        return back, products, biases


def _table(starts: NDArray[np.int32], taps: NDArray[np.int32], count: int) -> abi.LayerTable:
    return abi.LayerTable(starts.ctypes.data, taps.ctypes.data, len(starts) // count)


class Product(torch.autograd.Function):
    """``F.linear`` of a sparse matrix: of ``inputs`` [..., inputs], ``values`` [survivors], ``bias`` [outputs] or None.

    The kernels compute in float32. Any other type, autocast, and the gradient of a gradient go by PyTorch's dense product.
    """

    @staticmethod
    def forward(context: Any, inputs: Tensor, values: Tensor, bias: Tensor | None, pattern: Pattern) -> Tensor:
        context.save_for_backward(inputs, values)
        context.pattern = pattern
        if inputs.dtype is torch.float32 is values.dtype and not torch.is_autocast_enabled("cpu"):
            return pattern.output(inputs.contiguous(), values.contiguous(), bias)
        return F.linear(inputs, pattern.dense(values), bias)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        inputs, values = context.saved_tensors
        pattern, wanted = context.pattern, context.needs_input_grad[:3]
        if gradient.dtype is torch.float32 is inputs.dtype and not torch.is_grad_enabled():
            return *pattern.gradients(inputs.contiguous(), values.contiguous(), gradient.contiguous(), wanted), None
        outputs, width = pattern.shape
        slope = gradient.to(values.dtype)
        rows, slopes = inputs.to(values.dtype).reshape(-1, width), slope.reshape(-1, outputs)
        return (
            (slope @ pattern.dense(values)).to(inputs.dtype) if wanted[0] else None,
            pattern.values(slopes.t() @ rows) if wanted[1] else None,
            slopes.sum(0) if wanted[2] else None,
            None,
        )


class SparseLinear(nn.Linear):
    """What a linear layer becomes in place (``sparse``): the parameter ``values`` [survivors] instead of ``weight``.

    Its state has the form of the layer that it was, zeros and all. Who reads ``weight`` gets it dense.
    """

    pattern: Pattern
    values: nn.Parameter

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        return self.pattern.dense(self.values)

    def forward(self, inputs: Tensor) -> Tensor:
        with torch._C.DisableTorchFunction():  # nobody else is asked about what is inside
            result: Tensor = Product.apply(inputs, self.values, self.bias, self.pattern)  # type: ignore[no-untyped-call]
        return result

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        weight = self.weight
        destination[f"{prefix}weight"] = weight if keep_vars else weight.detach()
        if self.bias is not None:
            destination[f"{prefix}bias"] = self.bias if keep_vars else self.bias.detach()

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        own = dict(state_dict)
        if f"{prefix}weight" in own:
            own[f"{prefix}values"] = self.pattern.values(own.pop(f"{prefix}weight"))
        super()._load_from_state_dict(own, prefix, *rest)


def sparse(layer: nn.Linear, mask: Tensor) -> None:
    """Makes ``layer``, wherever it is held, one of the weights that ``mask`` leaves."""
    pattern = Pattern(mask.numpy())
    values = nn.Parameter(pattern.values(layer.weight.detach()))
    bias = layer._parameters["bias"]
    layer._parameters.clear()
    layer.__class__ = SparseLinear
    layer.pattern = pattern  # type: ignore[assignment]
    layer.register_parameter("values", values)
    layer.register_parameter("bias", bias)
