"""PyTorch modules to graphs, through ``torch.export``. The one module of this package that needs torch.

What cannot be translated is named: the caller can then offer a dense runtime instead.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from ticketsmith.errors import TicketSmithError
from ticketsmith.runtime.graph import Graph, Node, Shape
from ticketsmith.runtime.simplify import simplify


class UnsupportedError(TicketSmithError):
    """A model does what the sparse runtime cannot; the message names the operator. A dense runtime may serve it."""


@dataclass(frozen=True)
class _Value:
    """A value of the graph, and how PyTorch sees it: ``heads`` are features seen as [heads, width], which
    ``swapped`` puts before the tokens."""

    name: str
    shape: Shape
    heads: int = 0
    swapped: bool = False


Argument = Any


def from_torch(module: nn.Module, example: Tensor) -> Graph:
    """The graph of ``module`` in evaluation mode, for inputs shaped like ``example`` ``[batch, ...]``.

    Raises UnsupportedError for what the runtime does not know, GraphError for shapes that it cannot have.
    """
    training = module.training
    module.eval()
    try:
        with torch.no_grad():
            # one sample: shapes that hold the batch size are then known, and equal to 1
            exported = torch.export.export(module, (example[:1].detach().clone(),))
    except Exception as error:  # torch.export may fail in any way
        first = next(iter(str(error).splitlines()), "")
        raise UnsupportedError(f"torch.export cannot read this model ({type(error).__name__}: {first}).") from error
    finally:
        module.train(training)
    return simplify(_Translator(exported, example).graph())


class _Translator:
    def __init__(self, exported: torch.export.ExportedProgram, example: Tensor) -> None:
        self.module = exported.graph_module
        signature = exported.graph_signature
        named = {
            **signature.inputs_to_parameters,
            **signature.inputs_to_buffers,
            **signature.inputs_to_lifted_tensor_constants,
        }
        state = {**exported.constants, **exported.state_dict}
        self.constants: dict[str, Tensor] = {place: state[name].detach() for place, name in named.items()}
        self.names = dict(named)
        self.inputs, self.outputs = signature.user_inputs, signature.user_outputs
        if len(self.inputs) != 1 or len(self.outputs) != 1:
            raise UnsupportedError("the sparse runtime serves models of one input and one output tensor.")
        if example.dtype not in (torch.float32, torch.int64):
            raise UnsupportedError(f"inputs of {example.dtype} are not supported: float32, or int64 for tokens.")
        self.shape = tuple(example.shape[1:])
        self.dtype = "int64" if example.dtype == torch.int64 else "float32"
        self.known: dict[fx.Node, Any] = {}
        self.nodes: list[Node] = []
        self.tensors: dict[str, np.ndarray] = {}

    def graph(self) -> Graph:
        for node in self.module.graph.nodes:
            if node.op == "placeholder":
                if node.name in self.constants:
                    self.known[node] = self.constants[node.name]
                else:
                    self.known[node] = _Value(node.name, self.shape)
            elif node.op == "call_function":
                self._call(node)
            elif node.op == "output":
                result = self._get(node.args[0][0])
                if not isinstance(result, _Value) or result.heads or result.name == str(self.inputs[0]):
                    raise UnsupportedError("the model's output is not computed from its input by known operators.")
                return Graph(str(self.inputs[0]), self.shape, self.dtype, tuple(self.nodes), result.name, self.tensors)
        raise UnsupportedError("the model has no output.")

    def _get(self, argument: Argument) -> Any:
        if isinstance(argument, fx.Node):
            return self.known[argument]
        if isinstance(argument, (list, tuple)):
            return [self._get(item) for item in argument]
        return argument

    def _call(self, node: fx.Node) -> None:
        name = node.target.__name__ if callable(node.target) else str(node.target)
        base = name.partition(".")[0].removesuffix("_")
        if node.target is operator.getitem:
            self.known[node] = self._get(node.args[0])[node.args[1]]
            return
        arguments = self._get(node.args)
        options = {key: self._get(value) for key, value in node.kwargs.items()}
        if all(not isinstance(one, _Value) for one in [*arguments, *options.values(), *_inner(arguments)]):
            # only constants: PyTorch computes them, once
            self.known[node] = node.target(*arguments, **options)  # type: ignore[operator]
            return
        translate = _KNOWN.get(base)
        if translate is None:
            raise UnsupportedError(
                f"the operator {name!r}{_place(node)} is not known to the sparse runtime. Serve this model with a dense "
                "runtime, such as `torch`."
            )
        try:
            self.known[node] = translate(self, node.name, *arguments, **options)
        except (TypeError, ValueError, AttributeError, IndexError) as error:
            raise UnsupportedError(
                f"the operator {name!r}{_place(node)} is used in a way that the sparse runtime does not know ({error}). "
                "Serve this model with a dense runtime, such as `torch`."
            ) from error

    # ---- what translators use

    def tensor(self, value: Any, name: str) -> str:
        """Keeps a constant under a readable name."""
        if not isinstance(value, Tensor):
            raise ValueError(f"{name} is computed from the input")
        readable = next((self.names[key] for key, one in self.constants.items() if one is value), name)
        self.tensors.setdefault(readable, value.detach().to(torch.float32).cpu().contiguous().numpy().copy())
        return readable

    def add(
        self,
        op: str,
        inputs: Sequence[_Value],
        output: str,
        shape: Shape,
        weights: dict[str, Any] | None = None,
        **attributes: Any,
    ) -> _Value:
        """One node more."""
        for value in inputs:
            if not isinstance(value, _Value):
                raise ValueError(f"{op} of a constant")
            if value.heads:
                raise ValueError(f"{op} of features that are split into heads")
        kept = {key: self.tensor(one, f"{output}.{key}") for key, one in (weights or {}).items() if one is not None}
        self.nodes.append(Node(op, tuple(value.name for value in inputs), output, kept, attributes))
        return _Value(output, shape)


def _inner(arguments: Sequence[Any]) -> list[Any]:
    return [item for argument in arguments if isinstance(argument, list) for item in argument]


def _place(node: fx.Node) -> str:
    stack = node.meta.get("nn_module_stack") or {}
    where = [path for path, _ in stack.values() if path]
    return f" (in {where[-1].removeprefix('L__self___')})" if where else ""


def _pair(value: Any) -> list[int]:
    pair = [int(value)] * 2 if isinstance(value, int) else [int(one) for one in value]
    return pair * 2 if len(pair) == 1 else pair


def _linear(t: _Translator, name: str, x: _Value, weight: Tensor, bias: Tensor | None = None) -> _Value:
    return t.add("linear", [x], name, (*x.shape[:-1], len(weight)), {"weight": weight, "bias": bias})


def _conv2d(t: _Translator, name: str, x: _Value, weight: Tensor, bias: Tensor | None = None, stride: Any = 1,
            padding: Any = 0, dilation: Any = 1, groups: int = 1) -> _Value:  # fmt: skip
    stride, dilation = _pair(stride), _pair(dilation)
    if padding == "same":
        spans = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
        if any(span % 2 for span in spans):
            raise ValueError("uneven padding")
        padding = [span // 2 for span in spans]
    padding = [0, 0] if padding == "valid" else _pair(padding)
    sizes = [
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, p, d, k, s in zip(x.shape[1:], padding, dilation, weight.shape[2:], stride, strict=True)
    ]
    return t.add("conv2d", [x], name, (len(weight), *sizes), {"weight": weight, "bias": bias}, stride=stride,
                 padding=padding, dilation=dilation, groups=groups)  # fmt: skip


def _convolution(t: _Translator, name: str, x: _Value, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any,
                 dilation: Any, transposed: bool, output_padding: Any, groups: int) -> _Value:  # fmt: skip
    if transposed:
        raise ValueError("transposed convolution")
    return _conv2d(t, name, x, weight, bias, stride, padding, dilation, groups)


def _batch_norm(t: _Translator, name: str, x: _Value, weight: Tensor | None, bias: Tensor | None, mean: Tensor,
                variance: Tensor, training: bool, momentum: float, epsilon: float, *rest: Any) -> _Value:  # fmt: skip
    if training:
        raise ValueError("batch norm in training mode")
    scale = (variance.double() + epsilon).rsqrt() * (1.0 if weight is None else weight.double())
    shift = (0.0 if bias is None else bias.double()) - mean.double() * scale
    return t.add("affine", [x], name, x.shape, {"scale": scale, "shift": shift})


def _layer_norm(t: _Translator, name: str, x: _Value, shape: list[int], weight: Tensor | None = None,
                bias: Tensor | None = None, epsilon: float = 1e-5, *rest: Any) -> _Value:  # fmt: skip
    if list(shape) != [x.shape[-1]] or len(x.shape) > 2:
        raise ValueError("layer norm over more than the features")
    scale = torch.ones(x.shape[-1]) if weight is None else weight
    shift = torch.zeros(x.shape[-1]) if bias is None else bias
    return t.add("layer_norm", [x], name, x.shape, {"scale": scale, "shift": shift}, epsilon=epsilon)


def _activation(kind: str) -> Callable[..., _Value]:
    def translate(t: _Translator, name: str, x: _Value, approximate: str = "none") -> _Value:
        chosen = "gelu_tanh" if kind == "gelu" and approximate == "tanh" else kind
        return t.add("activation", [x], name, x.shape, activation=chosen)

    return translate


def _hardtanh(t: _Translator, name: str, x: _Value, low: float = -1.0, high: float = 1.0) -> _Value:
    if (low, high) != (0.0, 6.0):
        raise ValueError(f"limits {low} and {high}")
    return t.add("activation", [x], name, x.shape, activation="relu6")


def _binary(kind: str) -> Callable[..., _Value]:
    def translate(t: _Translator, name: str, left: Any, right: Any, alpha: float = 1) -> _Value:
        if alpha != 1:
            raise ValueError(f"alpha {alpha}")
        if isinstance(left, _Value) and isinstance(right, _Value):
            if left.shape != right.shape:
                raise ValueError(f"shapes {left.shape} and {right.shape}: broadcasting")
            return t.add(kind, [left, right], name, left.shape)
        value, constant = (left, right) if isinstance(left, _Value) else (right, left)
        constant = torch.as_tensor(constant, dtype=torch.float32)
        if kind == "sub":
            if value is right:
                raise ValueError("a constant less a value")
            constant = -constant
        if kind in ("add", "sub"):
            full = torch.broadcast_to(constant, (1, *value.shape))[0].contiguous()
            return t.add("add_constant", [value], name, value.shape, {"value": full})
        if constant.numel() != 1:
            raise ValueError("a product with a constant tensor")
        features = value.shape[0] if len(value.shape) == 3 else value.shape[-1]
        scale = constant.reshape(1).expand(features).contiguous()
        return t.add("affine", [value], name, value.shape, {"scale": scale, "shift": torch.zeros(features)})

    return translate


def _divide(t: _Translator, name: str, left: Any, right: Any) -> _Value:
    if isinstance(right, _Value):
        raise ValueError("division by a value")
    divided: _Value = _binary("mul")(t, name, left, 1 / torch.as_tensor(right, dtype=torch.float32))
    return divided


def _pool(kind: str) -> Callable[..., _Value]:
    def translate(t: _Translator, name: str, x: _Value, kernel: Any, stride: Any = None, padding: Any = 0,
                  *rest: Any, ceil_mode: bool = False, count_include_pad: bool = True) -> _Value:  # fmt: skip
        kernel = _pair(kernel)
        step, padding = _pair(stride) if stride else kernel, _pair(padding)
        if kind == "max_pool":
            dilation, ceil_mode = (list(rest) + [1, ceil_mode][len(rest) :])[:2] if rest else (1, ceil_mode)
            if _pair(dilation) != [1, 1]:
                raise ValueError("dilation")
        elif rest:
            ceil_mode, count_include_pad = (*rest, count_include_pad)[:2] if len(rest) < 2 else rest[:2]
            if len(rest) > 2 and rest[2] is not None:
                raise ValueError("divisor_override")
        sizes = [(n + 2 * p - k) // s + 1 for n, p, k, s in zip(x.shape[1:], padding, kernel, step, strict=True)]
        if ceil_mode and any(
            (n + 2 * p - k) % s for n, p, k, s in zip(x.shape[1:], padding, kernel, step, strict=True)
        ):
            raise ValueError("ceil_mode")
        return t.add(kind, [x], name, (x.shape[0], *sizes), kernel=kernel, stride=step, padding=padding,
                     count_padding=bool(count_include_pad))  # fmt: skip

    return translate


def _adaptive(kind: str) -> Callable[..., _Value]:
    def translate(t: _Translator, name: str, x: _Value, size: Any) -> _Value:
        sizes = [n if s is None else s for s, n in zip(_pair(size), x.shape[1:], strict=True)]
        if any(n % s for n, s in zip(x.shape[1:], sizes, strict=True)):
            raise ValueError("windows of different sizes")
        kernel = [n // s for n, s in zip(x.shape[1:], sizes, strict=True)]
        return t.add(
            kind, [x], name, (x.shape[0], *sizes), kernel=kernel, stride=kernel, padding=[0, 0], count_padding=True
        )

    return translate


def _mean(t: _Translator, name: str, x: _Value, dims: Any, keepdim: bool = False, **_: Any) -> _Value:
    if len(x.shape) != 3 or sorted(d % 4 for d in dims) != [2, 3]:
        raise ValueError("a mean over other axes than rows and columns")
    pooled = _adaptive("avg_pool")(t, name, x, 1)
    return pooled if keepdim else t.add("flatten", [pooled], f"{name}.flat", (x.shape[0],))


def _view(t: _Translator, name: str, x: _Value, size: Any, *more: Any) -> _Value:
    sizes = [size, *more] if isinstance(size, int) else list(size)
    count = math.prod(x.shape)
    if -1 in sizes:
        known = -math.prod(sizes)
        sizes[sizes.index(-1)] = count // known
    if sizes[0] != 1 or math.prod(sizes) != count:
        raise ValueError(f"a view as {sizes}")
    target = tuple(int(one) for one in sizes[1:])
    if x.heads:  # back from heads to features
        if x.swapped or target != x.shape:
            raise ValueError(f"a view of heads as {sizes}")
        return _Value(x.name, x.shape)
    if target == x.shape:
        return x
    if len(x.shape) == 2 and len(target) == 3 and target[0] == x.shape[0]:
        return _Value(x.name, x.shape, heads=target[1])
    if len(target) == 1:
        return t.add("flatten", [x], name, target)
    raise ValueError(f"a view of {x.shape} as {target}")


def _flatten(t: _Translator, name: str, x: _Value, start: int = 0, end: int = -1) -> _Value:
    if start != 1 or end not in (-1, len(x.shape)):
        raise ValueError("flattening other axes than all but the batch")
    return x if len(x.shape) == 1 else t.add("flatten", [x], name, (math.prod(x.shape),))


def _transpose(t: _Translator, name: str, x: _Value, first: int, second: int) -> _Value:
    if not x.heads or {first % 4, second % 4} != {1, 2}:
        raise ValueError("axes other than tokens and heads")
    return _Value(x.name, x.shape, x.heads, not x.swapped)


def _attention(t: _Translator, name: str, query: _Value, key: _Value, value: _Value, mask: Any = None,
               dropout: float = 0.0, causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
               ) -> _Value:  # fmt: skip
    given = (query, key, value)
    if mask is not None or dropout or enable_gqa:
        raise ValueError("a mask, dropout or grouped queries")
    if any(not one.heads or not one.swapped or one.heads != query.heads for one in given):
        raise ValueError("inputs that are not [batch, heads, tokens, width]")
    width = query.shape[-1] // query.heads
    plain = [_Value(one.name, one.shape) for one in given]
    out = t.add("attention", plain, name, query.shape, heads=query.heads, causal=bool(causal),
                scale=1 / math.sqrt(width) if scale is None else float(scale))  # fmt: skip
    return _Value(out.name, out.shape, query.heads, True)


def _softmax(t: _Translator, name: str, x: _Value, dim: int, *_: Any) -> _Value:
    if dim % (len(x.shape) + 1) != len(x.shape):
        raise ValueError("softmax over another axis than the last")
    return t.add("softmax", [x], name, x.shape)


def _embedding(t: _Translator, name: str, table: Tensor, tokens: _Value, *_: Any) -> _Value:
    return t.add("embedding", [tokens], name, (tokens.shape[0], table.shape[1]), {"table": table})


def _split(t: _Translator, name: str, x: _Value, sizes: Any, dim: int = 0) -> list[_Value]:
    if dim % (len(x.shape) + 1) != len(x.shape) or len(x.shape) > 2:
        raise ValueError("another axis than the features")
    if isinstance(sizes, int):
        sizes = [min(sizes, x.shape[-1] - begin) for begin in range(0, x.shape[-1], sizes)]
    parts, begin = [], 0
    for index, size in enumerate(sizes):
        shape = (*x.shape[:-1], size)
        parts.append(t.add("slice", [x], f"{name}.{index}", shape, begin=begin, end=begin + size))
        begin += size
    return parts


def _chunk(t: _Translator, name: str, x: _Value, count: int, dim: int = 0) -> list[_Value]:
    return _split(t, name, x, -(-x.shape[-1] // count), dim)


def _same(t: _Translator, name: str, x: _Value, *_: Any, **__: Any) -> _Value:
    return x


_KNOWN: dict[str, Callable[..., Any]] = {
    "linear": _linear,
    "conv2d": _conv2d,
    "convolution": _convolution,
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    **{name: _activation(name) for name in ("relu", "gelu", "silu", "sigmoid", "tanh", "relu6")},
    "hardtanh": _hardtanh,
    "add": _binary("add"),
    "sub": _binary("sub"),
    "mul": _binary("mul"),
    "div": _divide,
    "max_pool2d": _pool("max_pool"),
    "avg_pool2d": _pool("avg_pool"),
    "adaptive_avg_pool2d": _adaptive("avg_pool"),
    "adaptive_max_pool2d": lambda *given: [_adaptive("max_pool")(*given), None],  # where the maxima lie is not known
    "mean": _mean,
    "view": _view,
    "reshape": _view,
    "flatten": _flatten,
    "transpose": _transpose,
    "scaled_dot_product_attention": _attention,
    "softmax": _softmax,
    "embedding": _embedding,
    "split": _split,
    "split_with_sizes": _split,
    "chunk": _chunk,
    **dict.fromkeys(("dropout", "contiguous", "detach", "alias", "clone", "identity"), _same),
}
