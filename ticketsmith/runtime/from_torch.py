"""PyTorch modules to graphs, through ``torch.export``. This, ``trace`` and ``torch_samples`` need torch, and nothing else here.

What cannot be translated is named: the caller can then offer a dense runtime instead.
"""

from __future__ import annotations

import math
import operator
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.export.graph_signature import InputKind, OutputKind

from ticketsmith.runtime.build import HIDDEN, Builder, UnsupportedError, Value
from ticketsmith.runtime.graph import Graph
from ticketsmith.runtime.simplify import simplify
from ticketsmith.runtime.torch_samples import check_samples

__all__ = ["UnsupportedError", "from_torch"]

Example = Tensor | Sequence[Tensor] | Mapping[str, Tensor]
Argument = Any

_DECOMPOSITIONS = 4
"""How often operators are taken apart into others that may have to be, too."""


def from_torch(module: nn.Module, example: Example) -> Graph:
    """The graph of ``module`` in evaluation mode, for inputs shaped like ``example``: a tensor ``[batch, ...]``, several in
    the order of ``forward``, or several by name.

    Raises UnsupportedError for what the runtime does not know and for models that mix the samples of a batch, GraphError for
    shapes that it cannot have.
    """
    # one sample: shapes that hold the batch size are then known, and equal to 1
    given: tuple[Tensor, ...] = ()
    named: dict[str, Tensor] = {}
    if isinstance(example, Mapping):
        named = {name: _one(tensor) for name, tensor in example.items()}
        examples = list(example.values())
    else:
        examples = [example] if isinstance(example, Tensor) else list(example)
        given = tuple(_one(tensor) for tensor in examples)
    batches = [len(tensor) for tensor in examples]
    if len(set(batches)) > 1:
        raise UnsupportedError(
            f"the inputs have different batch sizes, {batches}: the first axis of each is the batch."
        )
    training, fast = module.training, torch.backends.mha.get_fastpath_enabled()
    module.eval()
    torch.backends.mha.set_fastpath_enabled(False)  # it would hide the layers in one operator
    try:
        try:
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                exported = _taken_apart(torch.export.export(module, given, named))
        except Exception as error:  # torch.export may fail in any way
            first = next(iter(str(error).splitlines()), "")
            raise UnsupportedError(f"torch.export cannot read this model ({type(error).__name__}: {first}).") from error
        graph = simplify(_Translator(exported, [*given, *named.values()]).graph())
        check_samples(module, examples, list(named))
        return graph
    finally:
        module.train(training)
        torch.backends.mha.set_fastpath_enabled(fast)


def _taken_apart(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """The same program without writing in place, and of operators that are known as far as PyTorch can tell."""
    table = torch.export.default_decompositions()
    for _ in range(_DECOMPOSITIONS):
        used = {node.target for node in program.graph.nodes if isinstance(node.target, torch._ops.OpOverload)}
        unknown = {one: table[one] for one in used if _base(one) not in _KNOWN and one in table}
        if not unknown and not any(one._schema.is_mutable for one in used):
            break
        program = program.run_decompositions(unknown)
    return program


def _base(target: Any) -> str:
    """The name of an operator without its overload."""
    name = target.__name__ if callable(target) else str(target)
    return str(name.partition(".")[0])


def _one(tensor: Any) -> Tensor:
    if not isinstance(tensor, Tensor) or not tensor.dim():
        raise UnsupportedError("the sparse runtime serves models whose inputs are tensors with a batch.")
    if tensor.dtype not in (torch.float32, torch.int64, torch.int32, torch.bool):
        raise UnsupportedError(f"inputs of {tensor.dtype} are not supported: float32, or int64 for tokens.")
    return tensor[:1].detach().clone()


class _Translator:
    def __init__(self, exported: torch.export.ExportedProgram, examples: Sequence[Tensor]) -> None:
        self.module = exported.graph_module
        self.build = Builder()
        state: dict[str, Any] = {**exported.constants, **exported.state_dict}
        signature = exported.graph_signature
        self.state: dict[str, Any] = {}
        self.arrays: dict[int, tuple[Any, np.ndarray]] = {}
        for spec in signature.input_specs:
            if spec.kind != InputKind.USER_INPUT and spec.target in state:
                tensor = state[spec.target]
                self.state[spec.arg.name] = tensor.detach() if isinstance(tensor, Tensor) else tensor
                if isinstance(tensor, Tensor):
                    self.build.name_constant(self.array(self.state[spec.arg.name]), spec.target)
        users = [spec.arg for spec in signature.input_specs if spec.kind == InputKind.USER_INPUT]
        self.inputs = {arg.name: tensor for arg, tensor in zip(users, examples, strict=True)}
        self.is_output = [spec.kind == OutputKind.USER_OUTPUT for spec in signature.output_specs]
        self.known: dict[fx.Node, Any] = {}

    def graph(self) -> Graph:
        for node in self.module.graph.nodes:
            if node.op == "placeholder":
                if node.name in self.inputs:
                    example = self.inputs[node.name]
                    dtype = "float32" if example.dtype == torch.float32 else "int64"
                    value = self.build.input(node.name, tuple(example.shape), dtype)
                    self.known[node] = replace(value, boolean=example.dtype == torch.bool)
                else:
                    self.known[node] = self.state.get(node.name)
            elif node.op == "get_attr":
                self.known[node] = operator.attrgetter(str(node.target))(self.module)
            elif node.op == "call_function":
                self._call(node)
            elif node.op == "output":
                results = [self._get(one) for one in node.args[0]]
                wanted = [one for one, mine in zip(results, self.is_output, strict=True) if mine and one is not None]
                return self.build.graph(wanted)
        raise UnsupportedError("the model has no output.")

    def array(self, tensor: Tensor) -> np.ndarray:
        """A constant of PyTorch as one of NumPy, the same one each time."""
        if id(tensor) not in self.arrays:
            plain = tensor.detach().cpu()
            plain = plain.float() if plain.is_floating_point() else plain
            self.arrays[id(tensor)] = (tensor, plain.contiguous().numpy())
        return self.arrays[id(tensor)][1]

    def _get(self, argument: Argument) -> Any:
        if isinstance(argument, fx.Node):
            return self.known[argument]
        if isinstance(argument, (list, tuple)):
            return [self._get(item) for item in argument]
        return argument

    def _plain(self, argument: Any) -> Any:
        """Tensors as arrays."""
        if isinstance(argument, Tensor):
            return self.array(argument)
        if isinstance(argument, list):
            return [self._plain(item) for item in argument]
        return argument

    def _call(self, node: fx.Node) -> None:
        name = node.target.__name__ if callable(node.target) else str(node.target)
        base = _base(node.target)
        if node.target is operator.getitem:
            self.known[node] = self._get(node.args[0])[node.args[1]]
            return
        arguments = self._get(node.args)
        options = {key: self._get(value) for key, value in node.kwargs.items()}
        meta = node.meta.get("val")
        if base in ("to", "_to_copy", "type_as") and isinstance(meta, Tensor) and isinstance(arguments[0], Value):
            options["dtype"] = meta.dtype
        if base in _LIKE and isinstance(arguments[0], Value):
            arguments[0] = torch.zeros(arguments[0].shape)
            options.setdefault("dtype", meta.dtype if isinstance(meta, Tensor) else None)
        fixed = all(not isinstance(one, Value) for one in [*arguments, *options.values(), *_inner(arguments)])
        translate = _KNOWN.get(base)
        if translate is None and not fixed:
            raise UnsupportedError(
                f"the operator {name!r}{_place(node)} is not known to the sparse runtime. Serve this model with a dense "
                "runtime, such as `torch`."
            )
        try:
            if fixed or translate is None:  # PyTorch computes it, once
                with torch.no_grad():
                    self.known[node] = node.target(*arguments, **options)  # type: ignore[operator]
                return
            self.build.begin(node.name)
            plain = {key: self._plain(value) for key, value in options.items()}
            result = translate(self.build, *self._plain(arguments), **plain)
            if isinstance(result, Value) and isinstance(meta, Tensor):
                result = replace(result, boolean=meta.dtype == torch.bool)
                if tuple(meta.shape) != result.shape:
                    raise ValueError(f"its shape is {tuple(meta.shape)}, not {result.shape}")
            self.known[node] = result
        except (TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
            raise UnsupportedError(
                f"the operator {name!r}{_place(node)} is used in a way that the sparse runtime does not know ({error}). "
                "Serve this model with a dense runtime, such as `torch`."
            ) from error


def _inner(arguments: Sequence[Any]) -> list[Any]:
    return [item for argument in arguments if isinstance(argument, list) for item in argument]


def _place(node: fx.Node) -> str:
    stack = node.meta.get("nn_module_stack") or {}
    where = [path for path, _ in stack.values() if path]
    return f" (in {where[-1].removeprefix('L__self___')})" if where else ""


def _list(value: Any, count: int) -> list[int]:
    listed = [int(value)] * count if isinstance(value, int) else [int(one) for one in value]
    return listed * count if len(listed) == 1 else listed


# ---- layers


def _conv(b: Builder, x: Value, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
          groups: int = 1) -> Value:  # fmt: skip
    axes = weight.ndim - 2
    dilation = _list(dilation, axes)
    if padding == "same":
        spans = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
        begin, end = [span // 2 for span in spans], [span - span // 2 for span in spans]
    else:
        begin = end = [0] * axes if padding == "valid" else _list(padding, axes)
    return b.conv(x, weight, bias, _list(stride, axes), begin, end, dilation, groups)


def _conv_transpose(b: Builder, x: Value, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0,
                    output_padding: Any = 0, groups: int = 1, dilation: Any = 1) -> Value:  # fmt: skip
    axes = weight.ndim - 2
    begin = _list(padding, axes)
    end = [pad - more for pad, more in zip(begin, _list(output_padding, axes), strict=True)]
    return b.conv_transpose(x, weight, bias, _list(stride, axes), begin, end, _list(dilation, axes), groups)


def _convolution(b: Builder, x: Value, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any,
                 transposed: bool, output_padding: Any, groups: int) -> Value:  # fmt: skip
    if transposed:
        return _conv_transpose(b, x, weight, bias, stride, padding, output_padding, groups, dilation)
    return _conv(b, x, weight, bias, stride, padding, dilation, groups)


def _batch_norm(b: Builder, x: Value, weight: Any, bias: Any, mean: Any, variance: Any, training: bool,
                momentum: float, epsilon: float, *rest: Any) -> Value:  # fmt: skip
    if training or mean is None:
        raise ValueError("batch norm without running statistics")
    scale = (variance.astype(np.float64) + epsilon) ** -0.5 * (1.0 if weight is None else weight)
    shift = (0.0 if bias is None else bias) - mean * scale
    return b.batch_norm(x, scale, shift)


def _native_batch_norm(b: Builder, x: Value, weight: Any, bias: Any, mean: Any, variance: Any, momentum: float,
                       epsilon: float) -> list[Any]:  # fmt: skip
    return [_batch_norm(b, x, weight, bias, mean, variance, False, momentum, epsilon), None, None]


def _layer_norm(b: Builder, x: Value, shape: list[int], weight: Any = None, bias: Any = None, epsilon: float = 1e-5,
                *rest: Any) -> Value:  # fmt: skip
    return b.norm("layer_norm", x, len(shape), weight, bias, epsilon)


def _rms_norm(b: Builder, x: Value, shape: list[int], weight: Any = None, epsilon: float | None = None) -> Value:
    return b.norm("rms_norm", x, len(shape), weight, None, 2**-23 if epsilon is None else epsilon)


def _group_norm(b: Builder, x: Value, groups: int, weight: Any = None, bias: Any = None, epsilon: float = 1e-5,
                *rest: Any) -> Value:  # fmt: skip
    return b.group_norm(x, groups, weight, bias, epsilon)


def _instance_norm(b: Builder, x: Value, weight: Any, bias: Any, mean: Any, variance: Any, use_input: bool,
                   momentum: float, epsilon: float, *rest: Any) -> Value:  # fmt: skip
    if not use_input:
        return _batch_norm(b, x, weight, bias, mean, variance, False, momentum, epsilon)
    return b.group_norm(x, x.shape[1], weight, bias, epsilon)


def _pool(kind: str, axes: int) -> Callable[..., Any]:
    def translate(b: Builder, x: Value, kernel: Any, stride: Any = None, padding: Any = 0, *rest: Any,
                  ceil_mode: bool = False, count_include_pad: bool = True) -> Value:  # fmt: skip
        kernel, pads = _list(kernel, axes), _list(padding, axes)
        step = _list(stride, axes) if stride else kernel
        if kind == "max_pool":
            dilation, ceil_mode = (list(rest) + [1, ceil_mode][len(rest) :])[:2]
            if any(d != 1 for d in _list(dilation, axes)):
                raise ValueError("dilation")
        else:
            left = [ceil_mode, count_include_pad, None][len(rest) :]
            ceil_mode, count_include_pad, divisor = (list(rest) + left)[:3]
            if divisor is not None:
                raise ValueError("divisor_override")
        return b.pool(kind, x, kernel, step, pads, pads, count_include_pad, ceil_mode)

    return translate


def _adaptive(kind: str, axes: int, several: bool = False) -> Callable[..., Any]:
    def translate(b: Builder, x: Value, size: Any) -> Any:
        wanted = [size] * axes if isinstance(size, int) else [*size] * (axes // len(size))
        pooled = b.adaptive_pool(kind, x, wanted)
        return [pooled, None] if several else pooled  # where the maxima lie is not known

    return translate


def _embedding_bag(b: Builder, table: Any, tokens: Value, offsets: Any, by_frequency: bool = False, mode: int = 0,
                   sparse: bool = False, weights: Any = None, last: bool = False, padding: Any = None) -> list[Any]:  # fmt: skip
    """One bag a sample: with a batch of one, all tokens are in it."""
    if weights is not None or padding not in (None, -1) or offsets.reshape(-1)[:1].any() or offsets.size != 1 + last:
        raise ValueError("bags of a sample's own, weights, or padding")
    rows = b.embedding(table, b.reshape(tokens, (1, math.prod(tokens.shape))))
    return [b.reduce(("sum", "mean", "max")[mode], rows, [1], False), None, None, None]


def _attention(b: Builder, query: Value, key: Value, value: Value, mask: Any = None, dropout: float = 0.0,
               causal: bool = False, scale: float | None = None, enable_gqa: bool = False) -> Value:  # fmt: skip
    if dropout:
        raise ValueError("dropout")
    given = [query, key, value]
    three = all(len(one.shape) == 3 for one in given)
    if three:
        given = [b.unsqueeze(one, (1,)) if isinstance(one, Value) else one[:, None] for one in given]
    if not enable_gqa and len({one.shape[1] for one in given}) > 1:
        raise ValueError("different numbers of heads")
    if isinstance(mask, np.ndarray):
        if mask.dtype == np.bool_:
            mask = np.where(mask, 0.0, HIDDEN)
        plain = mask.reshape(-1, *mask.shape[-2:])
        if not plain.any():
            mask = None
        elif mask.shape[-1] == mask.shape[-2] and (np.tril(plain) == 0).all() and _hides_future(plain):
            mask, causal = None, True
        else:
            mask = np.maximum(mask, HIDDEN)
    elif isinstance(mask, Value) and mask.boolean:
        mask = b.scalar("mul", b.reversed("sub", 1.0, mask), HIDDEN)
    width = query.shape[-1]
    mixed = b.attention(given[0], given[1], given[2], mask, causal, 1 / math.sqrt(width) if scale is None else scale)
    return b.squeeze(mixed, (1,)) if three else mixed


def _hides_future(masks: np.ndarray) -> bool:
    tokens = masks.shape[-1]
    return bool((masks[:, ~np.tri(tokens, dtype=bool)] <= -1e20).all())


def _addmm(b: Builder, bias: Any, x: Any, y: Any, beta: float = 1, alpha: float = 1) -> Value:
    if beta != 1 or alpha != 1:
        raise ValueError("beta or alpha")
    return b.elementwise("add", b.matmul(x, y), bias)


# ---- elementwise


def _activation(kind: str) -> Callable[..., Value]:
    return lambda b, x: b.unary(kind, x)


def _gelu(b: Builder, x: Value, approximate: str = "none") -> Value:
    return b.unary("gelu_tanh" if approximate == "tanh" else "gelu", x)


def _operand(value: Any) -> Any:
    return value if isinstance(value, (Value, np.ndarray)) else np.array(value, np.float32)


def _binary(op: str, turned: bool = False) -> Callable[..., Value]:
    def translate(b: Builder, left: Any, right: Any, alpha: float = 1, rounding_mode: Any = None) -> Value:
        if rounding_mode is not None:
            raise ValueError(f"rounding {rounding_mode}")
        left, right = _operand(left), _operand(right)
        if turned:
            left, right = right, left
        if alpha != 1:  # of what is taken off
            right = b.scalar("mul", right, alpha) if isinstance(right, Value) else right * alpha
        return b.elementwise(op, left, right)

    return translate


def _not(b: Builder, x: Value) -> Value:
    if not x.boolean:
        raise ValueError("bits of whole numbers")
    return b.opposite(x)


def _logical(op: str) -> Callable[..., Value]:
    def translate(b: Builder, left: Any, right: Any) -> Value:
        if not all(one.boolean if isinstance(one, Value) else one.dtype == np.bool_ for one in (left, right)):
            raise ValueError("bits of whole numbers")
        return b.elementwise(op, left, right)

    return translate


def _not_equal(b: Builder, left: Any, right: Any) -> Value:
    return b.opposite(b.elementwise("equal", _operand(left), _operand(right)))


def _power(b: Builder, x: Any, exponent: Any) -> Value:
    if isinstance(exponent, (int, float)):
        return b.power(x, float(exponent))
    return b.elementwise("power", _operand(x), _operand(exponent))


def _where(b: Builder, condition: Any, left: Any, right: Any) -> Value:
    return b.where(_operand(condition), _operand(left), _operand(right))


def _masked_fill(b: Builder, x: Any, mask: Any, value: Any) -> Value:
    return _where(b, mask, value, x)


def _to(b: Builder, x: Value, *given: Any, dtype: Any = None, **_: Any) -> Value:
    wanted = dtype or next((one for one in given if isinstance(one, torch.dtype)), None)
    if wanted is None or wanted.is_floating_point or x.boolean:
        return x
    if wanted == torch.bool:
        return b.opposite(b.scalar("equal", x, 0.0))
    if not x.integer:
        raise ValueError(f"rounding to {wanted}")
    return x


def _glu(b: Builder, x: Value, dim: int = -1) -> Value:
    left, right = b.split(x, [x.shape[dim] // 2] * 2, dim)
    return b.elementwise("mul", left, b.unary("sigmoid", right))


def _prelu(b: Builder, x: Value, slope: Any) -> Value:
    return b.leaky(x, slope.reshape(-1, *[1] * (len(x.shape) - 2)) if slope.size > 1 else slope.reshape(()))


def _softplus(b: Builder, x: Value, beta: float = 1, threshold: float = 20) -> Value:
    scaled = x if beta == 1 else b.scalar("mul", x, beta)
    curve = b.softplus(scaled) if beta == 1 else b.scalar("div", b.softplus(scaled), beta)
    # above the threshold it is the line: beyond 16 the same numbers
    return curve if threshold >= 16 else b.where(b.reversed("less", threshold, scaled), x, curve)


def _dropout(b: Builder, x: Value, share: float, train: bool) -> Value:
    if train and share:
        raise ValueError("dropout in training mode")
    return x


# ---- shapes


def _axes(x: Value, dims: Any) -> list[int]:
    return list(range(len(x.shape))) if dims is None or dims == [] else [dims] if isinstance(dims, int) else list(dims)


def _reduce(function: str) -> Callable[..., Value]:
    def translate(b: Builder, x: Value, dims: Any = None, keepdim: bool = False, dtype: Any = None) -> Value:
        return b.reduce(function, _of_floats(x, dtype), _axes(x, dims), keepdim)

    return translate


def _extreme(function: str) -> Callable[..., Any]:
    """``torch.max`` and ``torch.min``: of two values, over everything, or over an axis and then with places."""

    def translate(b: Builder, x: Any, other: Any = None, keepdim: bool = False) -> Any:
        if isinstance(other, int):
            return [b.reduce(function, x, [other], keepdim), None]  # where it lies is not known
        if other is None:
            return b.reduce(function, x, _axes(x, None), False)
        return b.elementwise(f"{function}imum", _operand(x), _operand(other))

    return translate


def _of_floats(x: Value, dtype: Any) -> Value:
    """``x``, which an operator takes as ``dtype`` first."""
    if dtype is not None and not dtype.is_floating_point and not (x.integer or x.boolean):
        raise ValueError(f"rounding to {dtype}")
    return x


def _vector_norm(b: Builder, x: Value, order: float = 2, dims: Any = None, keepdim: bool = False, dtype: Any = None
                 ) -> Value:  # fmt: skip
    return b.norm_of(_of_floats(x, dtype), order, _axes(x, dims), keepdim)


def _variance(b: Builder, x: Value, dims: Any = None, correction: float | None = 1, keepdim: bool = False) -> Value:
    return b.variance(x, _axes(x, dims), 1 if correction is None else correction, keepdim)


def _variance_and_mean(b: Builder, x: Value, dims: Any = None, **named: Any) -> list[Value]:
    mean = b.reduce("mean", x, _axes(x, dims), named.get("keepdim", False))
    return [_variance(b, x, dims, **named), mean]


def _cumulative(b: Builder, x: Value, dim: int, dtype: Any = None) -> Value:
    return b.along(_of_floats(x, dtype), dim, np.tri(x.shape[dim], dtype=np.float32))


def _view(b: Builder, x: Value, size: Any, *more: Any) -> Value:
    return b.reshape(x, [size, *more] if isinstance(size, int) else size)


def _flatten(b: Builder, x: Value, start: int = 0, end: int = -1) -> Value:
    rank = len(x.shape)
    start, end = start % rank, end % rank
    return b.reshape(x, (*x.shape[:start], math.prod(x.shape[start : end + 1]), *x.shape[end + 1 :]))


def _unflatten(b: Builder, x: Value, dim: int, sizes: Any) -> Value:
    dim %= len(x.shape)
    return b.reshape(x, (*x.shape[:dim], *sizes, *x.shape[dim + 1 :]))


def _transpose(b: Builder, x: Value, first: int, second: int) -> Value:
    axes = list(range(len(x.shape)))
    axes[first], axes[second] = axes[second], axes[first]
    return b.permute(x, axes)


def _squeeze(b: Builder, x: Value, dims: Any = None) -> Value:
    if dims is None:
        raise ValueError("without axes, the batch may go too")
    return b.squeeze(x, [dims] if isinstance(dims, int) else dims)


def _repeat(b: Builder, x: Value, counts: Any) -> Value:
    counts = [int(n) for n in counts]
    wide = b.reshape(x, (1,) * (len(counts) - len(x.shape)) + x.shape)
    for axis, count in enumerate(counts):
        if count > 1:
            wide = b.concat([wide] * count, axis)
    return wide


def _repeat_interleave(b: Builder, x: Value, count: Any, dim: int | None = None, **_: Any) -> Value:
    if not isinstance(count, int) or dim is None:
        raise ValueError("different counts")
    dim %= len(x.shape)
    wide = b.expand(b.unsqueeze(x, (dim + 1,)), (*x.shape[: dim + 1], count, *x.shape[dim + 1 :]))
    return b.reshape(wide, (*x.shape[:dim], count * x.shape[dim], *x.shape[dim + 1 :]))


def _slice(b: Builder, x: Value, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Value:
    size = x.shape[dim]
    return b.slice(x, dim, 0 if start is None else start, size if end is None else min(end, size), step)


def _split(b: Builder, x: Value, sizes: Any, dim: int = 0) -> list[Value]:
    if isinstance(sizes, int):
        whole = x.shape[dim]
        sizes = [min(sizes, whole - begin) for begin in range(0, whole, sizes)]
    return b.split(x, sizes, dim)


def _chunk(b: Builder, x: Value, count: int, dim: int = 0) -> list[Value]:
    return _split(b, x, -(-x.shape[dim] // count), dim)


def _unbind(b: Builder, x: Value, dim: int = 0) -> list[Value]:
    return [b.select(x, dim, index) for index in range(x.shape[dim])]


def _stack(b: Builder, given: list[Any], dim: int = 0) -> Value:
    rank = len(given[0].shape) + 1
    wide = [b.unsqueeze(one, (dim,)) if isinstance(one, Value) else np.expand_dims(one, dim % rank) for one in given]
    return b.concat(wide, dim)


def _index(b: Builder, x: Value, indices: list[Any]) -> Value:
    used = [axis for axis, one in enumerate(indices) if one is not None]
    if used == list(range(len(x.shape))) and all(
        isinstance(one, np.ndarray) and one.dtype != np.bool_ for one in indices
    ):
        return _repeated(b, x, indices)
    arrays = [indices[axis] for axis in used]
    if not all(isinstance(one, np.ndarray) for one in arrays):
        raise ValueError("places that are computed")
    # of several axes: rows [r, 1] and columns [1, c] are each picked alone
    rank = max(one.ndim for one in arrays)
    apart = all(one.size == one.shape[place - rank] for place, one in enumerate(arrays) if one.ndim == rank)
    if (
        used != list(range(used[0], used[0] + rank))
        or not apart
        or any(one.ndim < rank - n for n, one in enumerate(arrays))
    ):
        raise ValueError("places of several axes")
    for axis, one in zip(used, arrays, strict=True):
        x = _index_select(b, x, axis, one.reshape(-1))
    return x


def _repeated(b: Builder, x: Value, indices: list[Any]) -> Value:
    """``x[i, j, ...]`` that gives all of ``x``, once or several times."""
    places = np.ravel_multi_index(np.broadcast_arrays(*indices), x.shape, mode="wrap")
    size = math.prod(x.shape)
    shape, rank = places.shape, places.ndim
    while rank and math.prod(shape[rank:]) < size:
        rank -= 1
    if math.prod(shape[rank:]) != size or (places.reshape(-1, size) != np.arange(size)).any():
        raise ValueError("places of several axes")
    return b.expand(b.reshape(x, (1,) * rank + shape[rank:]), shape)


def _index_select(b: Builder, x: Value, dim: int, places: Any) -> Value:
    return b.take(x, dim, np.flatnonzero(places) if places.dtype == np.bool_ else places)


def _flip(b: Builder, x: Value, dims: Any) -> Value:
    for dim in dims:
        x = b.take(x, dim, np.arange(x.shape[dim])[::-1])
    return x


def _unfold(b: Builder, x: Value, dim: int, size: int, step: int) -> Value:
    dim %= len(x.shape)
    starts = np.arange(0, x.shape[dim] - size + 1, step)
    taken = b.take(x, dim, (starts[:, None] + np.arange(size)).reshape(-1))
    apart = b.reshape(taken, (*x.shape[:dim], len(starts), size, *x.shape[dim + 1 :]))
    rest = [axis for axis in range(len(apart.shape)) if axis != dim + 1]
    return b.permute(apart, [*rest, dim + 1])


def _copy(b: Builder, x: Value, source: Any) -> Any:
    if isinstance(source, Value):
        return b.expand(source, x.shape)
    return torch.from_numpy(np.broadcast_to(source, x.shape).copy())


def _slice_scatter(b: Builder, x: Value, part: Any, dim: int = 0, start: Any = None, end: Any = None, step: int = 1
                   ) -> Value:  # fmt: skip
    begin, stop, step = slice(start, end, step).indices(x.shape[dim])
    if step != 1:
        raise ValueError("a part with gaps is written")
    pieces = [part]
    if begin:
        pieces.insert(0, b.slice(x, dim, 0, begin))
    if stop < x.shape[dim]:
        pieces.append(b.slice(x, dim, stop, x.shape[dim]))
    return b.concat(pieces, dim) if len(pieces) > 1 else _same(b, part)


def _select_scatter(b: Builder, x: Value, part: Any, dim: int, index: int) -> Value:
    index %= x.shape[dim]
    wide = b.unsqueeze(part, (dim % len(x.shape),)) if isinstance(part, Value) else np.expand_dims(part, dim)
    return _slice_scatter(b, x, wide, dim, index, index + 1)


def _roll(b: Builder, x: Value, shifts: Any, dims: Any) -> Value:
    for shift, dim in zip(_list(shifts, 1), _list(dims, 1), strict=True):
        size = x.shape[dim]
        if cut := shift % size:
            x = b.concat([b.slice(x, dim, size - cut, size), b.slice(x, dim, 0, size - cut)], dim)
    return x


def _pad(b: Builder, x: Value, pads: list[int], mode: Any = "constant", value: Any = 0.0) -> Value:
    if not isinstance(mode, str):  # constant_pad_nd has no mode
        mode, value = "constant", mode
    rank = len(x.shape)
    before, behind = [0] * rank, [0] * rank
    for index in range(len(pads) // 2):
        before[rank - 1 - index], behind[rank - 1 - index] = pads[2 * index], pads[2 * index + 1]
    if mode in _PADDING:
        return b.padded(x, before, behind, _PADDING[mode])
    if mode != "constant":
        raise ValueError(f"padding by {mode}")
    return b.pad(x, before, behind, 0.0 if value is None else float(value))


_PADDING = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}
"""PyTorch's names, and NumPy's."""


def _resize(mode: str, separable: bool = True) -> Callable[..., Value]:
    """Interpolation: what PyTorch makes of a unit matrix along each axis is what it does to anything."""

    def translate(b: Builder, x: Value, size: Any, *more: Any) -> Value:
        align, scales = (more[0], more[1:]) if separable else (None, more)
        scales = tuple(scales[0]) if scales and isinstance(scales[0], list) else scales
        factors = [one for one in scales if one is not None]  # where they are given, they say where pixels lie
        matrices = []
        for axis, n in enumerate(x.shape[2:]):
            wanted = {"scale_factor": (1.0, float(factors[axis]))} if factors else {"size": (n, int(size[axis]))}
            options = {"align_corners": align} if separable else {}
            made = nn.functional.interpolate(torch.eye(n)[None, None], mode=mode, **wanted, **options)  # type: ignore[arg-type]
            matrices.append(np.ascontiguousarray(made[0, 0].T.numpy()))  # [wanted, n]
        if separable:
            return b.resized(x, matrices)
        return b.nearest(x, [matrix.argmax(1) for matrix in matrices])

    return translate


def _same(b: Builder, x: Value, *_: Any, **__: Any) -> Value:
    return x


def _embedding(b: Builder, table: Any, tokens: Any, *_: Any) -> Value:
    return b.embedding(table, tokens)


_LIKE = {"zeros_like", "ones_like", "full_like", "empty_like", "new_zeros", "new_ones", "new_full", "new_empty"}
_KNOWN: dict[str, Callable[..., Any]] = {
    "linear": lambda b, x, weight, bias=None: b.linear(x, weight, bias),
    **dict.fromkeys(("conv1d", "conv2d"), _conv),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d"), _conv_transpose),
    "convolution": _convolution,
    "batch_norm": _batch_norm,
    "_native_batch_norm_legit_no_training": _native_batch_norm,
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "group_norm": _group_norm,
    "instance_norm": _instance_norm,
    **{
        name: _activation(name)
        for name in ("relu", "silu", "sigmoid", "tanh", "relu6", "exp", "log", "sqrt", "erf", "sin", "cos", "abs")
    },
    "hardswish": _activation("hard_swish"),
    "hardsigmoid": _activation("hard_sigmoid"),
    "gelu": _gelu,
    "hardtanh": lambda b, x, low=-1.0, high=1.0: b.clip(x, low, high),
    "clamp": lambda b, x, low=None, high=None, **named: b.clip(x, named.get("min", low), named.get("max", high)),
    "clamp_min": lambda b, x, low: b.clip(x, low, None),
    "clamp_max": lambda b, x, high: b.clip(x, None, high),
    "leaky_relu": lambda b, x, slope=0.01: b.leaky(x, np.array(slope, np.float32)),
    "prelu": _prelu,
    "elu": lambda b, x, alpha=1.0, scale=1.0, inner=1.0: b.elu(x, alpha, scale, inner),
    "selu": lambda b, x: b.elu(x, 1.6732632423543772, 1.0507009873554805),
    "softplus": _softplus,
    "mish": lambda b, x: b.mish(x),
    "log1p": lambda b, x: b.unary("log", b.scalar("add", x, 1.0)),
    "expm1": lambda b, x: b.scalar("sub", b.unary("exp", x), 1.0),
    "sign": lambda b, x: b.elementwise(
        "sub", b.scalar("less", b.scalar("mul", x, -1.0), 0.0), b.scalar("less", x, 0.0)
    ),
    "neg": lambda b, x: b.scalar("mul", x, -1.0),
    "rsqrt": lambda b, x: b.power(x, -0.5),
    "reciprocal": lambda b, x: b.reversed("div", 1.0, x),
    "square": lambda b, x: b.power(x, 2),
    "pow": _power,
    "add": _binary("add"),
    "sub": _binary("sub"),
    "rsub": _binary("sub", turned=True),
    "mul": _binary("mul"),
    "div": _binary("div"),
    "maximum": _binary("maximum"),
    "minimum": _binary("minimum"),
    "eq": _binary("equal"),
    "ne": _not_equal,
    "isnan": lambda b, x: _not_equal(b, x, x),
    "lt": _binary("less"),
    "le": _binary("less_equal"),
    "gt": _binary("less", turned=True),
    "ge": _binary("less_equal", turned=True),
    **dict.fromkeys(("logical_not", "bitwise_not", "__invert__"), _not),
    **dict.fromkeys(("logical_and", "bitwise_and", "__and__"), _logical("mul")),
    **dict.fromkeys(("logical_or", "bitwise_or", "__or__"), _logical("maximum")),
    "where": _where,
    "masked_fill": _masked_fill,
    "matmul": lambda b, x, y: b.matmul(x, y),
    "bmm": lambda b, x, y: b.matmul(x, y),
    "mm": lambda b, x, y: b.matmul(x, y),
    "addmm": _addmm,
    "glu": _glu,
    **{f"{kind}_pool{axes}d": _pool(f"{kind}_pool", axes) for kind in ("max", "avg") for axes in (1, 2)},
    "avg_pool3d": _pool("avg_pool", 3),
    **{f"adaptive_avg_pool{axes}d": _adaptive("avg_pool", axes) for axes in (1, 2)},
    **{f"adaptive_max_pool{axes}d": _adaptive("max_pool", axes, several=True) for axes in (1, 2)},
    "mean": _reduce("mean"),
    "sum": _reduce("sum"),
    "amax": _reduce("max"),
    "amin": _reduce("min"),
    "max": _extreme("max"),
    "min": _extreme("min"),
    "var": _variance,
    "var_mean": _variance_and_mean,
    "linalg_vector_norm": _vector_norm,
    "cumsum": _cumulative,
    **dict.fromkeys(("softmax", "_softmax", "_safe_softmax"), lambda b, x, dim, *_: b.softmax(x, dim)),
    **dict.fromkeys(("log_softmax", "_log_softmax"), lambda b, x, dim, *_: b.log_softmax(x, dim)),
    "logsumexp": lambda b, x, dims, keepdim=False: b.logsumexp(x, _axes(x, dims), keepdim),
    **dict.fromkeys(("view", "reshape", "_unsafe_view"), _view),
    "flatten": _flatten,
    "unflatten": _unflatten,
    "permute": lambda b, x, axes: b.permute(x, axes),
    "transpose": _transpose,
    "t": lambda b, x: _transpose(b, x, 0, 1),
    "squeeze": _squeeze,
    "unsqueeze": lambda b, x, dim: b.unsqueeze(x, (dim,)),
    "expand": lambda b, x, sizes, **_: b.expand(x, sizes),
    "expand_as": lambda b, x, other: b.expand(x, other.shape),
    "repeat": _repeat,
    "repeat_interleave": _repeat_interleave,
    **dict.fromkeys(("cat", "concat", "concatenate"), lambda b, given, dim=0: b.concat(given, dim)),
    "stack": _stack,
    "slice": _slice,
    "narrow": lambda b, x, dim, start, length: b.slice(x, dim, start, start + length),
    "select": lambda b, x, dim, index: b.select(x, dim, index),
    **dict.fromkeys(("split", "split_with_sizes"), _split),
    "chunk": _chunk,
    "unbind": _unbind,
    "index": _index,
    "index_select": _index_select,
    "flip": _flip,
    "unfold": _unfold,
    "copy": _copy,
    "slice_scatter": _slice_scatter,
    "select_scatter": _select_scatter,
    "roll": _roll,
    **dict.fromkeys(("pad", "constant_pad_nd"), _pad),
    **{
        f"{kind}_pad{axes}d": lambda b, x, pads, mode=mode: _pad(b, x, pads, mode)
        for kind, mode in (("reflection", "reflect"), ("replication", "replicate"))
        for axes in (1, 2)
    },
    **dict.fromkeys(("upsample_nearest1d", "upsample_nearest2d"), _resize("nearest", separable=False)),
    **dict.fromkeys(
        ("_upsample_nearest_exact1d", "_upsample_nearest_exact2d"), _resize("nearest-exact", separable=False)
    ),
    **dict.fromkeys(("upsample_linear1d", "upsample_bilinear2d"), _resize("bilinear")),
    "upsample_bicubic2d": _resize("bicubic"),
    "pixel_shuffle": lambda b, x, factor: b.depth_to_space(x, factor),
    "scaled_dot_product_attention": _attention,
    "embedding": _embedding,
    "embedding_bag": _embedding_bag,
    "one_hot": lambda b, x, count=-1: b.one_hot(x, count),
    **dict.fromkeys(("to", "_to_copy", "type_as", "float"), _to),
    **dict.fromkeys(("contiguous", "detach", "alias", "clone", "identity", "lift_fresh_copy"), _same),
    **dict.fromkeys(("dropout", "feature_dropout"), _dropout),
    "_assert_tensor_metadata": lambda *_, **__: None,
}
