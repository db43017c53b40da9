"""Physical compaction: units and channels that no output depends on are removed, and the outputs stay what they were.

A unit (of a linear layer) or a channel (of a convolution) goes when nothing reads it, or when what comes in is nothing but
zeros: then it is a constant, which is added to the biases of those that read it. Either may set others free, so this is
repeated until nothing changes. Sums are only made in another order: outputs are equal up to rounding.
"""

from __future__ import annotations

import math
import operator
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn import functional as F

from ticketsmith.errors import TicketSmithError, in_a_line
from ticketsmith.pruning.weights import copied


class NothingToRemoveError(TicketSmithError):
    """No unit or channel of a model can be removed; the message says why."""


def compact(model: nn.Module, example: Tensor) -> nn.Module:
    """A smaller model with the outputs of ``model`` in evaluation mode; ``model`` itself is left as it is.

    ``example`` ``[batch, ...]`` shows the shape of inputs; other batch sizes work too. Linear layers, convolutions, batch
    norm, activations, pooling, flattening and sums of equal shapes are understood. Around anything else, everything is
    kept. Raises NothingToRemoveError when nothing is dead, or the model cannot be traced by ``torch.fx``.
    """
    try:
        program = fx.symbolic_trace(copied(model).eval())
        with torch.no_grad():
            ShapeProp(program).propagate(example)
    except Exception as error:  # torch.fx, or the model, may fail in any way
        raise NothingToRemoveError(f"torch.fx cannot trace this model ({in_a_line(error)}).") from error
    with torch.no_grad():
        network = _Network(program)
        network.settle()
        if not network.removed:
            raise NothingToRemoveError("every unit and channel is needed: there is nothing to remove.")
        network.shrink()
    program.graph.eliminate_dead_code()
    program.graph.lint()
    program.recompile()
    return program.eval()


@dataclass(eq=False)
class _Space:
    """The units that one or more values have in common: what one of them loses, all lose."""

    size: int
    pinned: bool = False
    alive: Tensor = field(default_factory=lambda: torch.empty(0))
    parent: _Space | None = None

    def root(self) -> _Space:
        space = self
        while space.parent is not None:
            space = space.parent
        return space


@dataclass(frozen=True)
class _Value:
    """A value of the network: its units, and how many features in a row each of them became by flattening.

    ``axis`` is that of the units: 1 for images and vectors, -1 for tokens of features.
    """

    space: _Space
    repeat: int = 1
    axis: int = 1

    @property
    def plain(self) -> bool:
        """Whether each unit is one place along axis 1: a channel of images, a feature of vectors."""
        return self.repeat == 1 and self.axis == 1


_ELEMENTWISE_MODULES = (
    nn.ReLU, nn.ReLU6, nn.GELU, nn.SiLU, nn.Sigmoid, nn.Tanh, nn.LeakyReLU, nn.ELU, nn.Hardtanh, nn.Hardswish,
    nn.Hardsigmoid, nn.Softplus, nn.Mish, nn.Identity, nn.Dropout, nn.Dropout2d,
)  # fmt: skip
_ELEMENTWISE = (
    torch.relu, F.relu, torch.relu_, F.relu6, F.gelu, F.silu, torch.sigmoid, F.sigmoid, torch.tanh, F.tanh, F.leaky_relu,
    F.elu, F.hardtanh, F.hardswish, F.hardsigmoid, F.softplus, F.mish, F.dropout,
)  # fmt: skip
_ELEMENTWISE_METHODS = ("relu", "relu_", "sigmoid", "tanh", "contiguous")
_POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
_POOL_FUNCTIONS = (F.max_pool1d, F.max_pool2d, F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_max_pool2d)
_AVERAGES = (nn.AvgPool1d, nn.AvgPool2d)
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
_SUMS = (operator.add, operator.iadd, torch.add)


class _Network:
    """What is known of a traced model: the spaces of its values, and which layers write and read them."""

    def __init__(self, program: fx.GraphModule) -> None:
        self.program = program
        self.values: dict[fx.Node, _Value] = {}
        self.layers: dict[fx.Node, nn.Module] = {}
        called = [str(node.target) for node in program.graph.nodes if node.op == "call_module"]
        modules = dict(program.named_modules())
        uses = Counter(id(one) for name in called for one in modules[name].parameters())
        # A weight that the forward pass takes by itself is used there too: `F.linear(x, self.embedding.weight)`.
        read = [str(node.target) for node in program.graph.nodes if node.op == "get_attr"]
        uses.update(id(operator.attrgetter(name)(program)) for name in read)
        for node in program.graph.nodes:
            module = modules[str(node.target)] if node.op == "call_module" else None
            if module is not None and (_does_more(module) or any(uses[id(one)] > 1 for one in module.parameters())):
                module = None  # weights in two places cannot become smaller in one
            self._read(node, module)

    @property
    def removed(self) -> int:
        """Units that need not be there."""
        return sum(int((~space.alive).sum()) for space in self._spaces())

    def settle(self) -> None:
        """Finds all dead units: a layer without them may leave others dead, so it is asked again until nothing changes."""
        for space in self._spaces():
            space.alive = torch.ones(space.size, dtype=torch.bool)
        while True:
            before = self.removed
            constants = self._constants()
            for space in self._spaces():
                if not space.pinned:
                    self._kill(space, constants)
            if self.removed == before:
                return

    def shrink(self) -> None:
        """Rewrites the layers without the dead units."""
        constants = self._constants()
        for node, layer in self.layers.items():
            before, after = self.values[_source(node)], self.values[node]
            ins, outs = before.space.root().alive, after.space.root().alive
            if isinstance(layer, _NORMS):
                smaller: nn.Module = _smaller_norm(layer, ins)
            elif isinstance(layer, nn.Linear):
                smaller = _smaller_linear(layer, ins.repeat_interleave(before.repeat), outs, constants[_source(node)])
            else:
                assert isinstance(layer, _CONVOLUTIONS)
                smaller = _smaller_convolution(layer, ins, outs, constants[_source(node)])
            self.program.set_submodule(str(node.target), smaller)

    def _kill(self, space: _Space, constants: dict[fx.Node, Tensor]) -> None:
        """Marks the units of ``space`` that nobody reads, or whose constants biases can take over; one stays, for the shape."""
        dead = torch.ones(space.size, dtype=torch.bool)
        for node, layer in self.layers.items():
            source = self.values[_source(node)]
            if source.space.root() is space and not isinstance(layer, _NORMS) and not _depthwise(layer):
                read, constant = _nonzero(layer)[self.values[node].space.root().alive], constants[_source(node)]
                unread = ~read.any(0).reshape(space.size, source.repeat).any(1)
                dead &= unread | (constant.isfinite() if _has_no_border(layer) else constant == 0)
        space.alive &= ~dead
        if not space.alive.any():
            space.alive[0] = True

    def _constants(self) -> dict[fx.Node, Tensor]:
        """``[units]`` for each value: what a unit is when it is the same for all inputs, NaN when it is not."""
        constants: dict[fx.Node, Tensor] = {}
        for node, value in self.values.items():
            layer = self.layers.get(node)
            if layer is None:
                constants[node] = self._passed_on(node, value, constants)
            elif isinstance(layer, _NORMS):
                places = (1, 1) if isinstance(layer, nn.BatchNorm2d) else ()
                constants[node] = layer(constants[_source(node)].reshape(1, -1, *places)).flatten()
            else:
                constants[node] = self._written(node, layer, constants)
        return constants

    def _written(self, node: fx.Node, layer: nn.Module, constants: dict[fx.Node, Tensor]) -> Tensor:
        """A linear layer or a convolution: the bias, where all weights on units that live are zeros."""
        source = self.values[_source(node)]
        weight, bias, constant = layer.weight, layer.bias, constants[_source(node)]
        assert isinstance(weight, Tensor)
        alive = source.space.root().alive
        base = bias.clone() if isinstance(bias, Tensor) else torch.zeros(len(weight), dtype=weight.dtype)
        read = _nonzero(layer)
        if not _depthwise(layer):
            read = read[:, alive.repeat_interleave(source.repeat)]
            base += _folded(weight, constant, alive, source.repeat)
        return torch.where(read.any(1), math.nan, base)

    def _passed_on(self, node: fx.Node, value: _Value, constants: dict[fx.Node, Tensor]) -> Tensor:
        sources = [one for one in node.all_input_nodes if one in self.values]
        unknown = torch.full((value.space.size,), math.nan)
        if node.op == "placeholder" or not sources or value.space.root().pinned:
            return unknown
        if len(sources) == 2:
            return constants[sources[0]] + constants[sources[1]]
        function = _function(node, self.program)
        return constants[sources[0]] if function is None else function(constants[sources[0]])

    # ---- reading the program

    def _read(self, node: fx.Node, module: nn.Module | None) -> None:
        if _is_size(node):
            return
        shape = _shape(node)
        if shape is None:  # sizes and other numbers, or several tensors
            self._pin(node.all_input_nodes)
            return
        source = self.values.get(node.all_input_nodes[0]) if node.all_input_nodes else None
        value = None if source is None else self._value(node, module, source, shape)
        if value is None:
            self._pin(node.all_input_nodes)
            value = _Value(_Space(shape[1] if len(shape) > 1 else 1, pinned=True))
        self.values[node] = value

    def _value(self, node: fx.Node, module: nn.Module | None, source: _Value, shape: tuple[int, ...]) -> _Value | None:
        """The value that a node makes of its input; None when it is not understood."""
        before = _shape(node.all_input_nodes[0])
        if before is None or (module is not None and len(node.all_input_nodes) > 1):
            return None
        if isinstance(module, nn.Linear) and (len(before) == 2 or source.axis == -1 or source.space.root().pinned):
            self.layers[node] = module
            if len(before) != 2 and source.axis != -1:  # tokens of an input that stays as it is
                source = _Value(_Space(before[-1], pinned=True), axis=-1)
                self.values[node.all_input_nodes[0]] = source
            return _Value(_Space(shape[-1]), axis=1 if len(shape) == 2 else -1)
        if isinstance(module, _CONVOLUTIONS) and source.plain and len(before) == module.weight.dim():
            if module.padding_mode != "zeros" or not (module.groups == 1 or _depthwise(module)):
                return None
            self.layers[node] = module
            return source if _depthwise(module) else _Value(_Space(shape[1]))
        if isinstance(module, _NORMS) and source.plain and len(before) == len(shape):
            if module.running_mean is None or len(before) == 3:
                return None
            self.layers[node] = module
            return source
        if _function(node, self.program) is not None and len(node.all_input_nodes) == 1 and shape == before:
            return source
        if source.plain and (_is_pool(node, module) or _is_mean(node, len(before))):
            return source
        if _flattens(node, module, before, shape) and source.axis == 1:
            if node.op != "call_module":
                node.op, node.target, node.args, node.kwargs = "call_method", "flatten", (node.args[0], 1), {}
            return _Value(source.space, source.repeat * math.prod(before[2:]))
        if node.target in _SUMS and len(node.all_input_nodes) == 2 and not node.kwargs:
            return self._sum(node, source, before)
        return None

    def _sum(self, node: fx.Node, source: _Value, before: tuple[int, ...]) -> _Value | None:
        other_node = node.all_input_nodes[1]
        other = self.values.get(other_node)
        if other is None or (other.repeat, other.axis) != (source.repeat, source.axis) or _shape(other_node) != before:
            return None
        first, second = source.space.root(), other.space.root()
        if first is not second:
            second.parent = first
            first.pinned |= second.pinned
        return source

    def _pin(self, nodes: Iterable[fx.Node]) -> None:
        for node in nodes:
            if node in self.values:
                self.values[node].space.root().pinned = True

    def _spaces(self) -> list[_Space]:
        return list({id(root): root for root in (value.space.root() for value in self.values.values())}.values())


def _source(node: fx.Node) -> fx.Node:
    return node.all_input_nodes[0]


def _shape(node: fx.Node) -> tuple[int, ...] | None:
    shape = getattr(node.meta.get("tensor_meta"), "shape", None)
    return None if shape is None or node.op == "output" else tuple(shape)


def _does_more(module: nn.Module) -> bool:
    """A subclass, a hook or a parametrisation may do more than its layer does."""
    hooks = module._forward_hooks or module._forward_pre_hooks or hasattr(module, "parametrizations")
    return bool(hooks) or not type(module).__module__.startswith("torch.nn.")


def _depthwise(layer: nn.Module) -> bool:
    return isinstance(layer, _CONVOLUTIONS) and layer.groups == layer.in_channels == layer.out_channels > 1


def _has_no_border(layer: nn.Module) -> bool:
    """Whether a constant channel adds the same everywhere: with zeros around an image it adds less at its border."""
    return not isinstance(layer, _CONVOLUTIONS) or layer.padding == "valid" or layer.padding in ((0,), (0, 0))


def _function(node: fx.Node, program: fx.GraphModule) -> Callable[[Tensor], Tensor] | None:
    """What an elementwise node does with a constant; None for other nodes. Pools leave a constant as it is."""
    if node.op == "call_module":
        module = program.get_submodule(str(node.target))
        return module if isinstance(module, _ELEMENTWISE_MODULES) and not _does_more(module) else None
    elementwise = node.target in (_ELEMENTWISE_METHODS if node.op == "call_method" else _ELEMENTWISE)
    if node.op not in ("call_method", "call_function") or not elementwise or len(node.all_input_nodes) != 1:
        return None

    def apply(constant: Tensor) -> Tensor:
        function: Any = getattr(Tensor, str(node.target)) if node.op == "call_method" else node.target
        result: Tensor = function(constant.clone(), *node.args[1:], **node.kwargs)
        return result

    return apply


def _is_pool(node: fx.Node, module: nn.Module | None) -> bool:
    if isinstance(module, _AVERAGES):
        return module.padding in (0, (0,), (0, 0)) and not module.ceil_mode and len(node.all_input_nodes) == 1
    if isinstance(module, _POOLS):
        return not getattr(module, "return_indices", False)
    if node.target in (F.avg_pool1d, F.avg_pool2d):
        return len(node.args) <= 3 and set(node.kwargs) <= {"kernel_size", "stride"}
    return node.target in _POOL_FUNCTIONS and not node.kwargs.get("return_indices", False)


def _is_mean(node: fx.Node, rank: int) -> bool:
    """The mean over all axes but those of the batch and of the units."""
    if not (node.op == "call_method" and node.target == "mean") and node.target is not torch.mean:
        return False
    axes: Any = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
    axes = [axes] if isinstance(axes, int) else axes
    return isinstance(axes, (list, tuple)) and sorted(axis % rank for axis in axes) == list(range(2, rank))


def _flattens(node: fx.Node, module: nn.Module | None, before: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """A reshape of ``[batch, channels, ...]`` to ``[batch, features]``, whatever it is called."""
    method = node.op == "call_method" and node.target in ("flatten", "view", "reshape")
    called = method or isinstance(module, nn.Flatten) or node.target in (torch.flatten, torch.reshape)
    if not called or len(before) < 2 or shape != (before[0], math.prod(before[1:])):
        return False
    return all(_is_size(one) for one in node.all_input_nodes[1:])


def _is_size(node: fx.Node) -> bool:
    """The size of a batch, as ``x.size(0)`` or ``x.shape[0]``, and ``x.shape`` where only that is taken of it."""
    if node.op == "call_method" and node.target == "size":
        return node.args[1:] == (0,)
    if node.target is getattr and node.args[1:] == ("shape",):
        return all(one.target is operator.getitem and one.args[1:] == (0,) for one in node.users)
    return node.target is operator.getitem and node.args[1:] == (0,) and getattr(node.args[0], "target", 0) is getattr


def _nonzero(layer: nn.Module) -> Tensor:
    """``[outputs, inputs]``: which inputs an output of a linear layer or a convolution reads."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return (weight != 0).flatten(2).any(2) if weight.dim() > 2 else weight != 0


def _folded(weight: Tensor, constant: Tensor, alive: Tensor, repeat: int) -> Tensor:
    """``[outputs]``: what the dead units, being constants, add to a layer's biases."""
    summed = weight.flatten(2).sum(2) if weight.dim() > 2 else weight
    gone = torch.where(alive | constant.isnan(), torch.zeros_like(constant), constant)
    return summed @ gone.repeat_interleave(repeat).to(summed.dtype)


def _smaller_linear(layer: nn.Linear, ins: Tensor, outs: Tensor, constant: Tensor) -> nn.Module:
    repeat = len(ins) // len(constant)
    folded = _folded(layer.weight, constant, ins.reshape(-1, repeat)[:, 0], repeat)
    bias = (folded if layer.bias is None else layer.bias + folded)[outs]
    smaller = nn.Linear(int(ins.sum()), int(outs.sum()), bias=bool((bias != 0).any()), dtype=layer.weight.dtype)
    return _filled(smaller, layer.weight[outs][:, ins], bias)


def _smaller_convolution(layer: nn.Conv1d | nn.Conv2d, ins: Tensor, outs: Tensor, constant: Tensor) -> nn.Module:
    depthwise = _depthwise(layer)
    folded = torch.zeros(layer.out_channels) if depthwise else _folded(layer.weight, constant, ins, 1)
    bias = (folded if layer.bias is None else layer.bias + folded)[outs]
    biased = layer.bias is not None or bool((folded[outs] != 0).any())
    smaller = type(layer)(
        int(ins.sum()), int(outs.sum()), layer.kernel_size, layer.stride, layer.padding, layer.dilation,  # type: ignore[arg-type]
        int(ins.sum()) if depthwise else 1, biased, dtype=layer.weight.dtype,
    )  # fmt: skip
    return _filled(smaller, layer.weight[outs] if depthwise else layer.weight[outs][:, ins], bias)


def _filled(layer: nn.Linear | nn.Conv1d | nn.Conv2d, weight: Tensor, bias: Tensor) -> nn.Module:
    layer.weight.copy_(weight)
    if layer.bias is not None:
        layer.bias.copy_(bias)
    return layer


def _smaller_norm(layer: nn.BatchNorm1d | nn.BatchNorm2d, alive: Tensor) -> nn.Module:
    smaller = type(layer)(int(alive.sum()), layer.eps, layer.momentum, layer.affine)
    for name, tensor in layer.state_dict().items():
        smaller.state_dict()[name].copy_(tensor[alive] if tensor.dim() else tensor)
    return smaller
