"""A PyTorch module, and a task whose data and loss are plain, as a ``Graph``; or the sentence that says why not.

The module's own ``forward`` is called on stand-ins: each operation of PyTorch becomes a node, whatever module it came from,
and gives memory of the right shape that nothing computes. So nothing that depends on values can hide, since it would have to
read them by an operation that is none of these.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode, resolve_name

from ticketsmith.errors import TicketSmithError, in_a_line
from ticketsmith.spec import Training
from ticketsmith.tasks.task import PlainExamples, Task, plain_examples
from ticketsmith.training.native.graph import Add, BatchNorm, Conv, Dropout, Graph, Linear, Node, Pool, Relu, Shape

_BATCH = 7
"""Examples of the stand-in: a number that no module is likely to have written down."""

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class NotFollowedError(TicketSmithError):
    """A sentence, without its full stop, that says what the training kernels cannot follow."""


def recognise(
    model: nn.Module, task: Task, training: Training, masks: Mapping[str, Tensor]
) -> tuple[Graph, PlainExamples]:
    """The network, from its module in training mode, and the examples that it learns. The module stays as it is.

    The answer depends on these arguments alone. Raises NotFollowedError.
    """
    for name in ("accumulate", "ranks", "activation_checkpointing", "compile"):
        if getattr(training, name) != Training.model_fields[name].default:
            raise NotFollowedError(f"`{name}: {getattr(training, name)}` is for PyTorch")
    examples = plain_examples(task)
    if examples is None:
        raise NotFollowedError("the task's data or loss are not plain ones")
    parameters = _parameters(model)
    nodes, shape = _traced(model, examples, training=True)
    evaluated, _ = _traced(model, examples, training=False)
    if _without_dropout(nodes) != list(evaluated):
        raise NotFollowedError("the model is another network when it is evaluated than when it is trained")
    _check_ends(nodes, examples)
    _check_names(model, nodes)
    products = {node.weight for node in nodes if isinstance(node, Linear | Conv)}
    for name, mask in masks.items():
        if name not in products and not bool(mask.all()):
            raise NotFollowedError(f"{name} is pruned, which is no weight of a linear layer or a convolution")
        if name not in parameters:
            raise NotFollowedError(f"{name} is pruned under a name that is not the model's")
    if (len({*examples.mean}) > 1 or len({*examples.std}) > 1) and shape[0] != examples.inputs.shape[1]:
        raise NotFollowedError(
            "its first operation gives the examples other channels than those they are normalised by"
        )
    return Graph(shape, nodes, examples.loss, training.dtype == "bfloat16"), examples


def _parameters(model: nn.Module) -> Mapping[str, nn.Parameter]:
    """All of them by name, each trained, alone, and in float32."""
    every = dict(model.named_parameters(remove_duplicate=False))
    for name, parameter in every.items():
        if not parameter.requires_grad:
            raise NotFollowedError(f"{name} is not trained")
        if parameter.dtype != torch.float32:
            raise NotFollowedError(f"{name} is in {str(parameter.dtype).removeprefix('torch.')}, not in float32")
        if parameter._backward_hooks or getattr(parameter, "_post_accumulate_grad_hooks", None):
            raise NotFollowedError(f"{name} has a hook")
    if len({id(parameter) for parameter in every.values()}) < len(every):
        raise NotFollowedError("two layers share a weight")
    for path, module in model.named_modules():
        if has_hooks(module):
            raise NotFollowedError(f"{path or 'the model'} has a hook")
    return every


def has_hooks(module: nn.Module) -> bool:
    """Whether something is called with it that is no part of its ``forward``."""
    return any(getattr(module, hooks) for hooks in _HOOKS)


def _check_ends(nodes: tuple[Node, ...], examples: PlainExamples) -> None:
    if not any(isinstance(node, Linear | Conv) for node in nodes):
        raise NotFollowedError("the model has no linear layer and no convolution")
    outputs = nodes[-1].shape
    if outputs[1:] != (1, 1) or (examples.outputs is not None and outputs[0] != examples.outputs):
        raise NotFollowedError(
            f"the loss takes {examples.outputs} outputs of an example, and the model gives {outputs}"
        )


def _check_names(model: nn.Module, nodes: tuple[Node, ...]) -> None:
    """Each tensor of the state belongs to one node."""
    used = [name for node in nodes for name in tensors_of(node)]
    for name in used:
        if used.count(name) > 1:
            raise NotFollowedError(f"{name} is used more than once")
    for name in model.state_dict():
        if name not in used:
            raise NotFollowedError(f"{name} takes no part in the forward pass, or in another one than the kernels know")


def tensors_of(node: Node) -> tuple[str, ...]:
    """The names in the ``state_dict`` of what a node holds."""
    names: tuple[str | None, ...] = ()
    if isinstance(node, Linear | Conv):
        names = (node.weight, node.bias)
    elif isinstance(node, BatchNorm):
        names = (node.weight, node.bias, node.running_mean, node.running_var, node.num_batches_tracked)
    return tuple(name for name in names if name is not None)


def _without_dropout(nodes: tuple[Node, ...]) -> list[Node]:
    same: dict[str, str] = {}
    kept = []
    for node in nodes:
        inputs = tuple(same.get(name, name) for name in node.inputs)
        if isinstance(node, Dropout):
            same[node.name] = inputs[0]
        else:
            kept.append(replace(node, inputs=inputs))
    return kept


def _traced(model: nn.Module, examples: PlainExamples, training: bool) -> tuple[tuple[Node, ...], Shape]:
    tensors = [*model.parameters(), *model.buffers()]
    twin = copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})  # the same tensors, which nothing writes
    twin.train(training)
    trace = _Trace(twin, tuple(examples.inputs.shape[1:]), training)
    before = [dict(vars(module)) for module in twin.modules()]
    chance = random.getstate(), np.random.get_state()[1].tobytes()  # type: ignore[index]
    try:
        with torch.enable_grad(), trace:
            output = twin(trace.input)
    except NotFollowedError:
        raise
    except Exception as error:  # a user's module may fail in any way on a stand-in
        raise NotFollowedError(f"its forward pass cannot be followed: {in_a_line(error)}") from error
    if (random.getstate(), np.random.get_state()[1].tobytes()) != chance:  # type: ignore[index]
        raise NotFollowedError("its forward pass draws from Python's or NumPy's generator")
    for attributes, module in zip(before, twin.modules(), strict=True):
        now = vars(module)
        if now.keys() != attributes.keys() or any(now[name] is not value for name, value in attributes.items()):
            raise NotFollowedError("its forward pass changes the module")
    return trace.finished(output), trace.shape


@dataclass(frozen=True, eq=False)
class _Value:
    """What a tensor of the trace stands for: ``node``'s name (or ``input``) and its shape; ``tensor`` keeps the ``id``."""

    node: str
    shape: Shape
    tensor: Tensor


class _Trace(TorchFunctionMode):
    """Nodes of the operations that are called inside."""

    def __init__(self, model: nn.Module, example: tuple[int, ...], training: bool) -> None:
        super().__init__()
        self._training = training
        self._names = {id(tensor): name for name, tensor in (*model.named_parameters(), *model.named_buffers())}
        self._nodes: list[Node] = []
        self._counts: dict[str, int] = {}
        self.input = torch.empty((_BATCH, *example))
        self.shape = _shape(example)
        self._values = {id(self.input): _Value("input", self.shape, self.input)}

    def finished(self, output: Any) -> tuple[Node, ...]:
        """The nodes, of which ``output`` is the last one's."""
        if not isinstance(output, Tensor) or id(output) not in self._values:
            raise NotFollowedError("its output is no tensor that the kernels could follow")
        last = self._values[id(output)]
        if not self._nodes or last.node != self._nodes[-1].name or output.dim() != 2:
            raise NotFollowedError("its output is not what its last operation gives, a vector for each example")
        inputs = {name for node in self._nodes for name in node.inputs}
        for node in self._nodes[:-1]:
            if node.name not in inputs:
                raise NotFollowedError(f"the result of {node.name} is used by nothing")
        return tuple(self._nodes)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _SHAPES:
            return func(*args, **kwargs)
        operation = _OPERATIONS.get(func)
        name = resolve_name(func) or getattr(func, "__name__", "an operation")
        if operation is None:
            raise NotFollowedError(f"{name} is none of the operations that they know")
        if not torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"):
            raise NotFollowedError(f"{name} is called without a gradient, under one of its own, or under autocast")
        try:
            return operation(self, *args, **kwargs)
        except TypeError as error:
            raise NotFollowedError(f"{name} is called as the kernels do not know it ({in_a_line(error)})") from error

    def value(self, tensor: Any) -> _Value:
        """What ``tensor`` stands for."""
        if not isinstance(tensor, Tensor) or id(tensor) not in self._values:
            raise NotFollowedError("it computes with a tensor that is neither an input nor what a layer gives")
        return self._values[id(tensor)]

    def name(self, tensor: Tensor | None) -> str:
        """What the module calls a parameter or buffer."""
        if id(tensor) not in self._names:
            raise NotFollowedError("a layer computes with a weight that is no parameter of the model")
        return self._names[id(tensor)]

    def add(self, kind: str, like: tuple[int, ...], build: Callable[[str], Node]) -> Tensor:
        """The result, of shape ``like``, of a new node."""
        self._counts[kind] = self._counts.get(kind, 0) + 1
        node = build(f"{kind}{self._counts[kind]}")
        if min(node.shape) < 1:
            raise NotFollowedError(f"{node.name} gives nothing: its input is smaller than its window")
        self._nodes.append(node)
        return self._bound(torch.empty(like), node.name, node.shape)

    def overwrite(self, target: Tensor, result: Tensor) -> Tensor:
        """``target`` in the place of ``result``, which an operation wrote into it."""
        place = target.data_ptr()
        if any(one.tensor is not target and one.tensor.data_ptr() == place for one in self._values.values()):
            raise NotFollowedError("it writes into a tensor that it also reads in another shape")
        value = self.value(result)
        return self._bound(target, value.node, value.shape)

    def reshaped(self, tensor: Tensor, result: Tensor) -> Tensor:
        """``result`` is ``tensor`` in another shape: that of its node, or flat."""
        value, shape = self.value(tensor), tuple(result.shape)
        flat = (_BATCH, value.shape[0] * value.shape[1] * value.shape[2])
        if shape in (flat, (_BATCH, *value.shape)):
            return self._bound(result, value.node, value.shape)
        if value.node == "input" and not self._nodes and shape[0] == _BATCH and len(shape) in (2, 3, 4):
            self.shape = _shape(shape[1:])
            return self._bound(result, "input", self.shape)
        raise NotFollowedError(f"it gives {tuple(tensor.shape)[1:]} another shape, {shape[1:]}")

    def _bound(self, tensor: Tensor, node: str, shape: Shape) -> Tensor:
        self._values[id(tensor)] = _Value(node, shape, tensor)
        return tensor


def _shape(example: tuple[int, ...]) -> Shape:
    if len(example) == 1:
        return example[0], 1, 1
    if len(example) == 2:
        return example[0], 1, example[1]
    if len(example) == 3:
        return example[0], example[1], example[2]
    raise NotFollowedError(f"an example has the shape {example}, not that of a vector or an image")


def _pair(value: Any) -> tuple[int, int]:
    one, two = (value[0], value[-1]) if isinstance(value, tuple | list) else (value, value)
    return int(one), int(two)


def _image(trace: _Trace, tensor: Any) -> _Value:
    value = trace.value(tensor)
    if tuple(tensor.shape) != (_BATCH, *value.shape):
        raise NotFollowedError(f"a layer for images is given {tuple(tensor.shape)[1:]}")
    return value


def _linear(trace: _Trace, input: Any, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    value = trace.value(input)
    if input.dim() != 2:
        raise NotFollowedError(f"a linear layer is given {tuple(input.shape)[1:]}, no vector for each example")
    names = trace.name(weight), None if bias is None else trace.name(bias)
    outputs = weight.shape[0]
    if weight.shape[1] != input.shape[1]:
        raise NotFollowedError(f"{names[0]} takes {weight.shape[1]} inputs, and is given {input.shape[1]}")
    return trace.add(
        "linear", (_BATCH, outputs), lambda name: Linear(name, (value.node,), (outputs, 1, 1), names[0], names[1])
    )


def _conv2d(
    trace: _Trace,
    input: Any,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    value = _image(trace, input)
    names = trace.name(weight), None if bias is None else trace.name(bias)
    size, step = _pair(weight.shape[2:]), _pair(stride)
    if _pair(dilation) != (1, 1):
        raise NotFollowedError(f"{names[0]} is dilated")
    if weight.shape[1] * groups != value.shape[0]:
        raise NotFollowedError(f"{names[0]} takes {weight.shape[1] * groups} channels, and is given {value.shape[0]}")
    if padding == "same" and size[0] % 2 and size[1] % 2:
        padding = size[0] // 2, size[1] // 2
    elif padding == "same":
        raise NotFollowedError(f"{names[0]} is padded on one side more than on the other")
    pad = (0, 0) if padding == "valid" else _pair(padding)
    shape = weight.shape[0], *_windows(value.shape, size, step, pad)
    return trace.add(
        "conv",
        (_BATCH, *shape),
        lambda name: Conv(name, (value.node,), shape, names[0], names[1], step, pad, groups),
    )


def _windows(shape: Shape, size: tuple[int, int], step: tuple[int, int], pad: tuple[int, int]) -> tuple[int, int]:
    rows, columns = ((shape[1 + axis] + 2 * pad[axis] - size[axis]) // step[axis] + 1 for axis in (0, 1))
    return rows, columns


def _relu(trace: _Trace, input: Any, inplace: bool = False) -> Tensor:
    value = trace.value(input)
    result = trace.add("relu", tuple(input.shape), lambda name: Relu(name, (value.node,), value.shape))
    return trace.overwrite(input, result) if inplace else result


def _relu_(trace: _Trace, input: Any) -> Tensor:
    return _relu(trace, input, inplace=True)


def _dropout(trace: _Trace, input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    value = trace.value(input)
    if not training or p == 0.0:
        result = torch.empty(input.shape)
        trace._bound(result, value.node, value.shape)
    elif p == 1.0:
        raise NotFollowedError("a dropout leaves nothing")
    else:
        result = trace.add("dropout", tuple(input.shape), lambda name: Dropout(name, (value.node,), value.shape, p))
    return trace.overwrite(input, result) if inplace else result


def _add(trace: _Trace, input: Any, other: Any, *, alpha: float = 1, inplace: bool = False) -> Tensor:
    if _is_counter(trace, input) and inplace:  # batch norm counts its batches
        return input  # type: ignore[no-any-return]
    left, right = trace.value(input), trace.value(other)
    if left.shape != right.shape or input.shape != other.shape or alpha != 1:
        raise NotFollowedError("it adds values of two shapes, or a multiple")
    result = trace.add("add", tuple(input.shape), lambda name: Add(name, (left.node, right.node), left.shape))
    return trace.overwrite(input, result) if inplace else result


def _add_(trace: _Trace, input: Any, other: Any, *, alpha: float = 1) -> Tensor:
    return _add(trace, input, other, alpha=alpha, inplace=True)


def _is_counter(trace: _Trace, tensor: Any) -> bool:
    return id(tensor) in trace._names and trace.name(tensor).rpartition(".")[2] == "num_batches_tracked"


def _batch_norm(
    trace: _Trace,
    input: Any,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float | None = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    value = trace.value(input)
    if input.dim() != 2 or value.shape[1:] != (1, 1):
        value = _image(trace, input)
    if weight is None or bias is None or running_mean is None or running_var is None or momentum is None:
        raise NotFollowedError("a batch norm has no weights, or no moving averages")
    if training != trace._training:
        raise NotFollowedError("a batch norm does not follow the mode of the model")
    names = [trace.name(tensor) for tensor in (weight, bias, running_mean, running_var)]
    before = names[2].rpartition(".")[0]
    counter = f"{before}.num_batches_tracked" if before else "num_batches_tracked"
    rate = float(momentum)
    return trace.add(
        "norm",
        tuple(input.shape),
        lambda name: BatchNorm(
            name, (value.node,), value.shape, names[0], names[1], names[2], names[3], counter, rate, float(eps)
        ),
    )


def _pool(
    trace: _Trace,
    kind: Literal["max", "mean"],
    input: Any,
    size: tuple[int, int],
    step: tuple[int, int],
    pad: tuple[int, int] = (0, 0),
    ceil_mode: bool = False,
) -> Tensor:
    value = _image(trace, input)
    shape = value.shape[0], *_windows(value.shape, size, step, pad)
    rest = [(value.shape[1 + axis] + 2 * pad[axis] - size[axis]) % step[axis] for axis in (0, 1)]
    if ceil_mode and any(rest):
        raise NotFollowedError("a pool counts windows that are not full (`ceil_mode`)")
    return trace.add("pool", (_BATCH, *shape), lambda name: Pool(name, (value.node,), shape, kind, size, step, pad))


def _max_pool2d(
    trace: _Trace,
    input: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor:
    if _pair(dilation) != (1, 1) or return_indices:
        raise NotFollowedError("a pool is dilated, or gives places")
    size = _pair(kernel_size)
    return _pool(trace, "max", input, size, _pair(stride) if stride else size, _pair(padding), ceil_mode)


def _avg_pool2d(
    trace: _Trace,
    input: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    size, pad = _pair(kernel_size), _pair(padding)
    if (pad != (0, 0) and count_include_pad) or divisor_override:
        raise NotFollowedError("a mean pool divides by another number than that of its pixels")
    return _pool(trace, "mean", input, size, _pair(stride) if stride else size, pad, ceil_mode)


def _adaptive(trace: _Trace, kind: Literal["max", "mean"], input: Any, output_size: Any) -> Tensor:
    value = _image(trace, input)
    wanted = output_size if isinstance(output_size, tuple | list) else (output_size, output_size)
    sizes = [whole if part is None else part for whole, part in zip(value.shape[1:], wanted, strict=True)]
    if any(whole % part for whole, part in zip(value.shape[1:], sizes, strict=True)):
        raise NotFollowedError("an adaptive pool has windows of several sizes")
    size = value.shape[1] // sizes[0], value.shape[2] // sizes[1]
    return _pool(trace, kind, input, size, size)


def _adaptive_avg_pool2d(trace: _Trace, input: Any, output_size: Any) -> Tensor:
    return _adaptive(trace, "mean", input, output_size)


def _adaptive_max_pool2d(trace: _Trace, input: Any, output_size: Any, return_indices: bool = False) -> Tensor:
    if return_indices:
        raise NotFollowedError("a pool gives places")
    return _adaptive(trace, "max", input, output_size)


def _mean(trace: _Trace, input: Any, dim: Any, keepdim: bool = False) -> Tensor:
    """Over all pixels."""
    value = _image(trace, input)
    if not isinstance(dim, tuple | list) or sorted(axis % 4 for axis in dim) != [2, 3]:
        raise NotFollowedError("it takes a mean that is not over all pixels of a channel")
    size = value.shape[1], value.shape[2]
    result = _pool(trace, "mean", input, size, size)
    return result if keepdim else trace.reshaped(result, torch.empty(_BATCH, value.shape[0]))


def _shaped(function: Any) -> Callable[..., Tensor]:
    def operation(trace: _Trace, input: Any, *args: Any, **kwargs: Any) -> Tensor:
        trace.value(input)
        with torch._C.DisableTorchFunction():
            result = function(input, *args, **kwargs)
        return input if result is input else trace.reshaped(input, result)

    return operation


_SHAPES: set[Any] = {
    Tensor.size,
    Tensor.dim,
    Tensor.numel,
    Tensor.__len__,
    Tensor.shape.__get__,  # type: ignore[attr-defined]
    Tensor.ndim.__get__,  # type: ignore[attr-defined]
    Tensor.device.__get__,
    Tensor.dtype.__get__,  # type: ignore[attr-defined]
    Tensor.is_floating_point,
    Tensor.is_contiguous,
}
"""What looks at a tensor's shape and kind alone."""

_OPERATIONS: dict[Any, Callable[..., Tensor]] = {
    F.linear: _linear,
    torch.conv2d: _conv2d,
    F.conv2d: _conv2d,
    F.relu: _relu,
    torch.relu: _relu,
    Tensor.relu: _relu,
    F.relu_: _relu_,
    torch.relu_: _relu_,
    Tensor.relu_: _relu_,
    F.dropout: _dropout,
    F.batch_norm: _batch_norm,
    F.max_pool2d: _max_pool2d,
    torch.max_pool2d: _max_pool2d,
    F.avg_pool2d: _avg_pool2d,
    F.adaptive_avg_pool2d: _adaptive_avg_pool2d,
    F.adaptive_max_pool2d: _adaptive_max_pool2d,
    torch.mean: _mean,
    Tensor.mean: _mean,
    torch.add: _add,
    Tensor.add: _add,
    Tensor.__add__: _add,
    Tensor.add_: _add_,
    Tensor.__iadd__: _add_,
    **{
        function: _shaped(function)
        for function in (
            torch.flatten,
            Tensor.flatten,
            Tensor.view,
            torch.reshape,
            Tensor.reshape,
            torch.squeeze,
            Tensor.squeeze,
            torch.unsqueeze,
            Tensor.unsqueeze,
            Tensor.contiguous,
        )
    },
}
