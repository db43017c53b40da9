"""PyTorch modules to graphs, through ``torch.export``. This and the room ``torch`` need torch, and nothing else here.

What cannot be translated is named: the caller can then offer a dense runtime instead.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ticketsmith.runtime.builder.core import UnsupportedError
from ticketsmith.runtime.graph import Graph
from ticketsmith.runtime.simplify import simplify
from ticketsmith.runtime.torch.probes import check_samples
from ticketsmith.runtime.torch.translate import OPERATORS, Translator, base_name

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
                exported = _decompose(torch.export.export(module, positional, named))
        except Exception as error:  # torch.export may fail in any way
            first = next(iter(str(error).splitlines()), "")
            raise UnsupportedError(f"torch.export cannot read this model ({type(error).__name__}: {first}).") from error
        graph = simplify(Translator(exported, [*positional, *named.values()]).graph())
        check_samples(module, examples, list(named))
        return graph
    finally:
        module.train(training)
        torch.backends.mha.set_fastpath_enabled(fast)


def _decompose(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """The same program without writing in place, and of operators that are known as far as PyTorch can tell."""
    table = torch.export.default_decompositions()
    for _ in range(_DECOMPOSITIONS):
        used = {node.target for node in program.graph.nodes if isinstance(node.target, torch._ops.OpOverload)}
        unknown = {one: table[one] for one in used if base_name(one) not in OPERATORS and one in table}
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
