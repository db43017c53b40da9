"""PyTorch modules to graphs, through ``torch.export``. This and the room ``torch`` need torch, and nothing else here.

What cannot be translated is named: the caller can then offer a dense runtime instead.
"""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.export.graph_signature import InputKind, OutputKind

from ticketsmith.errors import in_a_line
from ticketsmith.runtime.builder.core import Builder, UnsupportedError, Value
from ticketsmith.runtime.graph import Graph
from ticketsmith.runtime.simplify import simplify
from ticketsmith.runtime.torch.arrays import ARRAYS
from ticketsmith.runtime.torch.layers import ELEMENTWISE, LAYERS
from ticketsmith.runtime.torch.trace import DENSE, check_samples, without_fast_path

__all__ = ["UnsupportedError", "from_torch"]

Example = Tensor | Sequence[Tensor] | Mapping[str, Tensor]

_DECOMPOSITIONS = 4
"""How often operators are taken apart into others that may have to be, too."""


def from_torch(module: nn.Module, example: Example) -> Graph:
    """The graph of ``module`` in evaluation mode, for inputs shaped like ``example``: a tensor ``[batch, ...]``, several in
    the order of ``forward``, or several by name.

    Raises UnsupportedError for what the runtime does not know and for models that mix the samples of a batch, GraphError for
    shapes that it cannot have.
    """
    # one sample: shapes that hold the batch size are then known, and equal to 1
    positional: tuple[Tensor, ...] = ()
    named: dict[str, Tensor] = {}
    if isinstance(example, Mapping):
        named = {name: _one(tensor) for name, tensor in example.items()}
        examples = list(example.values())
    else:
        examples = [example] if isinstance(example, Tensor) else list(example)
        positional = tuple(_one(tensor) for tensor in examples)
    batches = [len(tensor) for tensor in examples]
    if len(set(batches)) > 1:
        sizes = f"different batch sizes, {batches}"
        raise UnsupportedError(f"the inputs have {sizes}: the first axis of each is the batch.")
    training = module.training
    module.eval()
    try:
        try:
            with torch.no_grad(), without_fast_path(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                exported = _decompose(torch.export.export(module, positional, named))
        except Exception as error:  # torch.export may fail in any way
            raise UnsupportedError(f"torch.export cannot read this model ({in_a_line(error)}).") from error
        graph = simplify(Translator(exported, [*positional, *named.values()]).graph())
        check_samples(module, examples, list(named))
        return graph
    finally:
        module.train(training)


def _decompose(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """The same program without writing in place, and of operators that are known as far as PyTorch can tell."""
    table = torch.export.default_decompositions()
    for _ in range(_DECOMPOSITIONS):
        used = {node.target for node in program.graph.nodes if isinstance(node.target, torch._ops.OpOverload)}
        unknown = {one: table[one] for one in used if _base_name(one) not in OPERATORS and one in table}
        if not unknown and not any(one._schema.is_mutable for one in used):
            break
        program = program.run_decompositions(unknown)
    return program


def _one(tensor: Any) -> Tensor:
    if not isinstance(tensor, Tensor) or not tensor.dim():
        raise UnsupportedError("the sparse runtime serves models whose inputs are tensors with a batch.")
    if tensor.dtype not in (torch.float32, torch.int64, torch.int32, torch.bool):
        raise UnsupportedError(f"inputs of {tensor.dtype} are not supported: float32, or int64 for tokens.")
    return tensor[:1].detach().clone()


OPERATORS: dict[str, Callable[..., Any]] = {**LAYERS, **ELEMENTWISE, **ARRAYS}
"""From an operator of ATen, without its overload, to a function ``(builder, *arguments)`` that adds what it computes."""

_LIKE = {"zeros_like", "ones_like", "full_like", "empty_like", "new_zeros", "new_ones", "new_full", "new_empty"}
"""What makes constants of a value's shape."""


def _name(target: Any) -> str:
    return str(target.__name__ if callable(target) else target)


def _base_name(target: Any) -> str:  # without the overload
    return _name(target).partition(".")[0]


class Translator:
    """Reads one program, of which ``examples`` are the inputs. ``values`` maps its nodes to what they stand for: a ``Value``,
    a tensor or a number that depends on no input, or a list of these."""

    def __init__(self, exported: torch.export.ExportedProgram, examples: Sequence[Tensor]) -> None:
        self.module = exported.graph_module
        self.build = Builder()
        state, signature = {**exported.constants, **exported.state_dict}, exported.graph_signature
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
        self.values: dict[fx.Node, Any] = {}

    def graph(self) -> Graph:
        """The graph as it is written, nothing simplified."""
        for node in self.module.graph.nodes:
            if node.op == "placeholder":
                if node.name in self.inputs:
                    example = self.inputs[node.name]
                    dtype = "float32" if example.dtype == torch.float32 else "int64"
                    value = self.build.input(node.name, tuple(example.shape), dtype)
                    self.values[node] = replace(value, boolean=example.dtype == torch.bool)
                else:
                    self.values[node] = self.state.get(node.name)
            elif node.op == "get_attr":
                self.values[node] = operator.attrgetter(str(node.target))(self.module)
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

    def _get(self, argument: Any) -> Any:
        if isinstance(argument, fx.Node):
            return self.values[argument]
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
        base, where = _base_name(node.target), f"the operator {_name(node.target)!r}{_place(node)}"
        if node.target is operator.getitem:
            self.values[node] = self._get(node.args[0])[node.args[1]]
            return
        arguments = self._get(node.args)
        options = {key: self._get(value) for key, value in node.kwargs.items()}
        meta = node.meta.get("val")
        if base in ("to", "_to_copy", "type_as") and isinstance(meta, Tensor) and isinstance(arguments[0], Value):
            options["dtype"] = meta.dtype
        if base in _LIKE and isinstance(arguments[0], Value):
            arguments[0] = torch.zeros(arguments[0].shape)
            options.setdefault("dtype", meta.dtype if isinstance(meta, Tensor) else None)
        inner = [item for one in arguments if isinstance(one, list) for item in one]
        fixed = all(not isinstance(one, Value) for one in [*arguments, *options.values(), *inner])
        translate = OPERATORS.get(base)
        if translate is None and not fixed:
            raise UnsupportedError(f"{where} is not known to the sparse runtime. {DENSE}")
        try:
            if fixed or translate is None:  # PyTorch computes it, once
                with torch.no_grad():
                    self.values[node] = node.target(*arguments, **options)  # type: ignore[operator]
                return
            self.build.begin(node.name)
            plain = {key: self._plain(value) for key, value in options.items()}
            result = translate(self.build, *self._plain(arguments), **plain)
            if isinstance(result, Value) and isinstance(meta, Tensor):
                result = replace(result, boolean=meta.dtype == torch.bool)
                if tuple(meta.shape) != result.shape:
                    raise ValueError(f"its shape is {tuple(meta.shape)}, not {result.shape}")
            self.values[node] = result
        except (TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
            way = f"is used in a way that the sparse runtime does not know ({error})"
            raise UnsupportedError(f"{where} {way}. {DENSE}") from error


def _place(node: fx.Node) -> str:
    stack = node.meta.get("nn_module_stack") or {}
    where = [path for path, _ in stack.values() if path]
    return f" (in {where[-1].removeprefix('L__self___')})" if where else ""
