"""Linear layers and convolutions of PyTorch whose parameter is their surviving weights: kernels for float32, and gradients by
autograd."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from ticketsmith.native import abi
from ticketsmith.training.native import calls, packing
from ticketsmith.training.native.calls import Calls, address
from ticketsmith.training.native.graph import Conv, Linear, Shape
from ticketsmith.training.native.operations import Layer, Sink, Value, make
from ticketsmith.training.native.packing import Layout
from ticketsmith.training.native.parameters import OptimizerSettings, SparseWeight

_LANES = 128
"""Rows of a linear layer that kernels compute with at a time, at most."""
_NUMBERS = np.zeros(0, np.float32)
_ONE_STEP = np.array([-1.0]), np.zeros(1, np.int64), np.zeros(1)
_GRADIENT = abi.Job(steps=1, **{
    name: array.ctypes.data for name, array in zip(("rates", "seeds", "losses"), _ONE_STEP, strict=True)
})  # fmt: skip
"""A step of SGD of rate -1, which makes a gradient of zeros."""


def layer_of(module: nn.Module) -> Linear | Conv | None:
    """What the kernels can make of a module; None where they cannot."""
    if type(module) is nn.Linear:
        return Linear("layer", ("input",), (module.out_features, 1, 1), "weight", None)
    if type(module) is not nn.Conv2d or module.padding_mode != "zeros" or module.dilation != (1, 1):
        return None
    height, width = module.kernel_size
    down, right = module.stride
    if module.padding == "same" and (height % 2 == 0 or width % 2 == 0):
        return None  # one more zero on one side than on the other
    words = {"valid": (0, 0), "same": (height // 2, width // 2)}
    above, before = words[module.padding] if isinstance(module.padding, str) else module.padding
    shape = (module.out_channels, 1, 1)
    return Conv("layer", ("input",), shape, "weight", None, (down, right), (above, before), module.groups)


class _Block(Value):
    """Values of a block of examples, counted from where it begins."""

    def __init__(self, layout: Layout) -> None:
        super().__init__(layout, _NUMBERS, None)

    @property
    def at(self) -> int:
        return 4 * self.layout.origin

    gradient = at


@dataclass(frozen=True)
class _Alone:
    """The parameters of one layer, as ``Layer`` wants them. Room is given with each call."""

    weights: dict[str, SparseWeight]

    def room(self, count: int) -> None:
        return None


class _Operations:
    """Of a layer ``node`` whose inputs have one shape. With each call they are told of addresses, and of how many examples
    there are."""

    def __init__(self, node: Linear | Conv, mask: NDArray[np.bool_], shape: Shape, lanes: int) -> None:
        weight = SparseWeight(np.zeros(mask.shape, np.float32), mask, OptimizerSettings("sgd"))
        self.slots = torch.from_numpy(weight.survivors.slots.astype(np.int64))
        weight.survivors = replace(weight.survivors, slots=np.arange(len(self.slots), dtype=np.int32))
        self.numbers = torch.from_numpy(weight.arrays["values"])
        self.inside, self.outside = _layouts(node, mask.shape, shape, lanes)
        self.source, self.out = _Block(self.inside), _Block(self.outside)
        layer = Layer(node, self.source, self.out, _Alone({node.weight: weight}))  # type: ignore[arg-type]
        self.output = _example_taps(self.inside, self.outside, layer.forward("values", False, training=True))
        self.back = _example_taps(self.outside, self.inside, layer.input_gradient(Sink(self.source, False, False)))
        self.keep = _example_taps(self.inside, self.inside, [])
        self.back.keep = self.keep.keep = 1
        (self.products,) = layer.weight_gradient(None)
        self.biases = layer.bias_gradient(None)
        self._work = len(self.slots) * self.outside.pixels
        self._forward = Calls([self.output])
        self._backward: dict[tuple[bool, ...], Calls] = {}
        self._last: dict[bool, tuple[int, ...]] = {}

    def forward(self, examples: int) -> None:
        """Room for the lanes of so many, and the call."""
        threads = calls.threads(self._work * examples)
        place = calls.room(threads * (self.inside.block + self.outside.block))
        if self._changed(False, examples, threads, place):
            self._tell(self.output, examples, place, place + 4 * threads * self.inside.block)
        self._forward(threads=threads)

    def backward(self, examples: int, wanted: tuple[bool, ...]) -> None:
        """The same."""
        blocks, threads = -(-examples // self.inside.lanes), calls.threads(self._work * examples)
        inside, outside, products, sums = self.inside.block, self.outside.block, self.products, self.biases
        bands = products.band < blocks * products.vectors.rows
        sizes = blocks * outside, blocks * inside, threads * inside, 256 * products.groups * bands
        place = calls.room(sum(sizes))
        if self._changed(True, examples, threads, place):
            outs, ins, free, products.scratch = (place + 4 * sum(sizes[:index]) for index in range(4))
            self._tell(self.back, examples, outs, free)
            self._tell(self.keep, examples, ins, None)
            products.vectors.blocks = sums.vectors.blocks = blocks
            products.in_, products.out, sums.in_ = ins + self.source.at, outs + self.out.at, outs + self.out.at
            products.op.work = self._work * examples
        if wanted not in self._backward:
            steps = [self.back, *([self.keep, products] if wanted[1] else []), *([sums] if wanted[2] else [])]
            self._backward[wanted] = Calls(steps)
        self._backward[wanted](_GRADIENT, threads)

    def _changed(self, backward: bool, *now: int) -> bool:
        before = self._last.get(backward)
        self._last[backward] = now
        return before != now

    def _tell(self, one: abi.Operation, examples: int, ins: int, outs: int | None) -> None:
        one.in_lanes, one.out_lanes, one.examples, one.blocks = ins, outs, examples, -(-examples // one.lanes)
        one.op.work = self._work * examples


def _layouts(node: Linear | Conv, weight: tuple[int, ...], shape: Shape, lanes: int) -> tuple[Layout, Layout]:
    if isinstance(node, Linear):
        return Layout(shape, lanes, 1), Layout((weight[0], 1, 1), lanes, 1)
    kernel = (weight[2], weight[3])
    rows, columns = _size(node, kernel, shape)
    reach = packing.reach(kernel, node.stride, node.padding, shape[1:], (rows, columns))
    return Layout(shape, lanes, 1, node.padding), Layout((weight[0], rows, columns), lanes, 1, reach)


def _size(node: Conv, kernel: tuple[int, int], shape: tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns of the output."""
    rows, columns = (
        (size + 2 * around - window) // step + 1
        for size, around, window, step in zip(shape[-2:], node.padding, kernel, node.stride, strict=True)
    )
    return rows, columns


def _example_taps(inside: Layout, outside: Layout, taps: list[abi.Operation]) -> abi.Operation:
    array = (abi.SparseTaps * len(taps))(*taps)  # type: ignore[misc]
    places = [layout.features() + np.int32(layout.origin) for layout in (inside, outside)]
    free = np.ones(inside.block // inside.lanes, np.bool_)
    free[places[0] // inside.lanes] = False
    edges = (np.flatnonzero(free) * inside.lanes).astype(np.int32)
    operation = make(
        abi.ExampleTaps, 0, taps=ctypes.addressof(array), count=len(taps), in_places=places[0], out_places=places[1],
        edge_places=edges, edges=len(edges), lanes=inside.lanes, in_features=inside.count, out_features=outside.count,
        in_block=inside.block, out_block=outside.block,
    )  # fmt: skip
    operation.arrays += [array, *taps]
    return operation


class Pattern:
    """Which weights of a layer survive, and the tables that kernels need of it. Modules share it."""

    def __init__(self, node: Linear | Conv, mask: NDArray[np.bool_]) -> None:
        self.node, self.shape, self._mask = node, mask.shape, mask
        self.places = torch.from_numpy(np.flatnonzero(mask))
        self._operations: dict[tuple[int, ...], _Operations] = {}

    def __deepcopy__(self, memo: Any) -> Pattern:
        return self

    def dense(self, values: Tensor) -> Tensor:
        """The weight, of values [survivors], zeros elsewhere; a gradient finds its way back."""
        flat = values.new_zeros(prod(self.shape))
        return flat.index_put((self.places,), values).view(self.shape)

    def values(self, weight: Tensor) -> Tensor:
        """[survivors] of a weight."""
        return weight.reshape(-1)[self.places]

    def plain(self, inputs: Tensor, values: Tensor, bias: Tensor | None) -> Tensor:
        """The layer by PyTorch's dense product."""
        weight, node = self.dense(values), self.node
        if isinstance(node, Linear):
            return F.linear(inputs, weight, bias)
        return F.conv2d(inputs, weight, bias, node.stride, node.padding, 1, node.groups)

    def takes(self, inputs: Tensor) -> bool:
        """Whether kernels can compute with these inputs."""
        node = self.node
        if inputs.dtype is not torch.float32 or inputs.numel() == 0:
            return False
        if isinstance(node, Linear):
            return bool(inputs.shape[-1] == self.shape[1])
        if inputs.dim() != 4 or inputs.shape[1] != self.shape[1] * node.groups:
            return False
        return min(_size(node, (self.shape[2], self.shape[3]), tuple(inputs.shape))) > 0

    def output(self, inputs: Tensor, values: Tensor, bias: Tensor | None) -> Tensor:
        """Of ``inputs`` that ``takes`` takes; all contiguous."""
        own, examples = self._of(inputs)
        image = own.outside.image if isinstance(self.node, Conv) else ()
        lead = inputs.shape[:1] if image else inputs.shape[:-1]
        out = inputs.new_empty((*lead, self.shape[0], *image))
        with calls.lock:
            one = own.output
            one.in_, one.out = inputs.data_ptr(), out.data_ptr()
            one.weights, one.bias = values.data_ptr(), address(bias)
            own.forward(examples)
        return out

    def gradients(
        self, inputs: Tensor, values: Tensor, gradient: Tensor, wanted: tuple[bool, bool, bool]
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Of inputs, values and bias, those that are ``wanted``; of the ``gradient`` of the output."""
        own, examples = self._of(inputs)
        back = torch.empty_like(inputs) if wanted[0] else None
        slopes, biases = None, inputs.new_empty(self.shape[0]) if wanted[2] else None
        with calls.lock:
            one = own.back
            one.in_, one.weights, one.out = gradient.data_ptr(), values.data_ptr(), address(back)
            own.keep.in_, own.biases.sums = inputs.data_ptr(), address(biases)
            own.numbers.zero_()
            own.backward(examples, wanted)
            if wanted[1]:
                slopes = own.numbers[own.slots]
        return back, slopes, biases

    def _of(self, inputs: Tensor) -> tuple[_Operations, int]:
        """And how many examples there are."""
        if isinstance(self.node, Linear):
            examples = inputs.numel() // self.shape[1]
            shape, lanes = (self.shape[1], 1, 1), min(_LANES, -(-examples // packing.VECTOR) * packing.VECTOR)
        else:
            examples, *image = inputs.shape
            shape, lanes = (image[0], image[1], image[2]), packing.VECTOR
        key = (*shape, lanes)
        if key not in self._operations:
            self._operations[key] = _Operations(self.node, self._mask, shape, lanes)
        return self._operations[key], examples


class Product(torch.autograd.Function):
    """A layer of ``inputs``, ``values`` [survivors], and ``bias`` [outputs] or None.

    The kernels compute in float32. Any other type, autocast, and the gradient of a gradient go by PyTorch's dense product.
    """

    @staticmethod
    def forward(context: Any, inputs: Tensor, values: Tensor, bias: Tensor | None, pattern: Pattern) -> Tensor:
        context.save_for_backward(inputs, values, bias)
        context.pattern = pattern
        plain = torch.is_autocast_enabled("cpu") or values.dtype is not torch.float32 or not pattern.takes(inputs)
        context.native = not plain
        if plain:
            return pattern.plain(inputs, values, bias)
        return pattern.output(inputs.contiguous(), values.contiguous(), bias)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        inputs, values, bias = context.saved_tensors
        pattern, wanted = context.pattern, context.needs_input_grad[:3]
        if context.native and not torch.is_grad_enabled():
            return *pattern.gradients(inputs.contiguous(), values.contiguous(), gradient.contiguous(), wanted), None
        again = torch.is_grad_enabled()
        with torch.enable_grad():
            arguments = [
                one if again or one is None else one.detach().requires_grad_() for one in (inputs, values, bias)
            ]
            out = pattern.plain(arguments[0].to(values.dtype), *arguments[1:])
        mine = [one for one, want in zip(arguments, wanted, strict=True) if want]
        slopes = iter(torch.autograd.grad(out, mine, gradient.to(out.dtype), create_graph=again))
        return *(next(slopes) if want else None for want in wanted), None


class _Sparse(nn.Module):
    """What a layer becomes in place (``sparse``): the parameter ``values`` [survivors] instead of ``weight``.

    Its state has the form of the layer that it was, zeros and all. Who reads ``weight`` gets it dense.
    """

    pattern: Pattern
    values: nn.Parameter
    bias: nn.Parameter | None

    @property
    def weight(self) -> Tensor:
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


class SparseLinear(_Sparse, nn.Linear):  # type: ignore[misc, override]
    """A linear layer."""


class SparseConv2d(_Sparse, nn.Conv2d):  # type: ignore[misc, override]
    """A convolution."""


def sparse(layer: nn.Module, mask: Tensor) -> None:
    """Makes ``layer``, which ``layer_of`` knows, one of the weights that ``mask`` leaves, wherever it is held."""
    node = layer_of(layer)
    assert node is not None
    pattern = Pattern(node, mask.numpy())
    values = nn.Parameter(pattern.values(layer.get_parameter("weight").detach()))
    bias = layer._parameters["bias"]
    layer._parameters.clear()
    layer.__class__ = SparseLinear if isinstance(node, Linear) else SparseConv2d
    layer.pattern = pattern  # type: ignore[assignment]
    layer.register_parameter("values", values)
    layer.register_parameter("bias", bias)
