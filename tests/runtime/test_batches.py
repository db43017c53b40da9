"""A model that mixes the samples of a batch, or counts them, is refused by name: the runtime computes one at a time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F

from tests.runtime.networks import ISAS, assert_same
from ticketsmith.runtime.from_onnx import from_onnx
from ticketsmith.runtime.from_torch import UnsupportedError, from_torch


class Function(nn.Module):
    """A layer, and what is made of its outputs."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.layer, self.function = nn.Linear(4, 4), function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.layer(x))


MIXED: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {
    "the first": ("slice|sub", lambda x: x - x[:1]),
    "the last": ("slice|sub", lambda x: x - x[-1:]),
    "turned round": ("flip", lambda x: x.flip(0)),
    "rolled": ("roll", lambda x: x.roll(1, 0)),
    "rolled back": ("roll", lambda x: x.roll(-1, 0)),
    "their number": ("mul", lambda x: x * x.shape[0]),
    "their number, hardly": ("add", lambda x: x + 1e-7 * x.shape[0]),
    "their places": ("add", lambda x: torch.arange(x.shape[0])[:, None] + x),
    "sums so far": ("cumsum", lambda x: x.cumsum(0)),
    "means": ("mean", lambda x: x - x.mean(0)),
    "means that no number shows": ("mean", lambda x: torch.where(x > 1e3, x.mean(0), x)),
    "one softmax": ("softmax", lambda x: x.softmax(0)),
    "sorted": ("sort", lambda x: x.sort(0)[0]),
    "the same one": ("index", lambda x: x[[0] * len(x)]),
    "turned and back": ("view", lambda x: x.view(-1, 2, 2).transpose(0, 1).reshape(-1, 4)),
    "statistics of a batch": ("batch_norm", lambda x: F.batch_norm(torch.stack([x, -x], 2), None, None, training=True)[..., 0]),
    "another way for one": ("output 0", lambda x: 2 * x if len(x) == 1 else x),
    "another way for many": ("relu", lambda x: x.relu() if len(x) > 3 else x),
    "another way for more": ("relu", lambda x: x.relu() if len(x) > 10 else x),
    "another way below seven": ("relu", lambda x: x.relu() if len(x) < 7 else x),
    "another number for very many": ("mul|output 0", lambda x: x * (2.0 if x.shape[0] > 100 else 1.0)),
}  # fmt: skip


@pytest.mark.parametrize("name", MIXED)
def test_what_mixes_samples_is_named(name: str) -> None:
    told, function = MIXED[name]
    with pytest.raises(UnsupportedError, match=told):
        from_torch(Function(function), torch.zeros(1, 4))


@pytest.mark.skipif(not ISAS, reason="the kernels are not built")
@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.cat([torch.zeros(len(x), 2), x], 1),
        lambda x: x[torch.arange(len(x)), 0][:, None] * x,
        lambda x: F.pad(x[:, None], (1, 1), mode="circular")[:, 0],
        lambda x: F.instance_norm(x.view(1, -1, 4)).view(-1, 4),
    ],
)
def test_what_only_looks_like_it_is_served(function: Callable[[Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    assert_same(Function(function).eval(), torch.randn(3, 4))


def test_a_model_is_left_as_it_is() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return x.relu()

    model = Counting()
    from_torch(model, torch.ones(1, 3))
    assert model.calls == 0
    assert not any(one._forward_hooks or one._forward_pre_hooks for one in model.modules())


def test_inputs_of_other_batch_sizes_are_no_batch() -> None:
    with pytest.raises(UnsupportedError, match=r"different batch sizes, \[3, 1\]"):
        from_torch(nn.Bilinear(2, 2, 1), (torch.zeros(3, 2), torch.zeros(1, 2)))


def file(nodes: list[onnx.NodeProto], *first: str | int, **constants: object) -> bytes:
    """An ONNX model of inputs [first, 4], each one's first axis as named."""
    types = onnx.TensorProto
    inputs = [onnx.helper.make_tensor_value_info(f"x{n or ''}", types.FLOAT, [one, 4]) for n, one in enumerate(first)]
    weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = onnx.helper.make_graph(
        nodes, "g", inputs, [onnx.helper.make_tensor_value_info("y", types.FLOAT, None)], weights
    )
    return onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9
    ).SerializeToString()


node, sizes = onnx.helper.make_node, np.array
NODES: dict[str, tuple[str, list[onnx.NodeProto], dict[str, object]]] = {
    "the first": ("'Slice'", [node("Slice", ["x", "s", "e", "a"], ["p"]), node("Sub", ["x", "p"], ["y"])],
                  {"s": sizes([0]), "e": sizes([1]), "a": sizes([0])}),
    "turned round": (r"'Slice' \(node 'turn'\)", [node("Slice", ["x", "s", "e", "a", "s"], ["y"], name="turn")],
                     {"s": sizes([-1]), "e": sizes([-(2**62)]), "a": sizes([0])}),
    "one of them": ("'Gather'", [node("Gather", ["x", "p"], ["q"]), node("Add", ["x", "q"], ["y"])], {"p": sizes([0])}),
    "their number": ("'Mul'", [node("Shape", ["x"], ["h"], end=1), node("Cast", ["h"], ["f"], to=1),
                               node("Mul", ["x", "f"], ["y"])], {}),
    "their places": ("'Add'", [node("Shape", ["x"], ["h"], end=1), node("Squeeze", ["h"], ["n"]),
                               node("Range", ["o", "n", "i"], ["r"]), node("Cast", ["r"], ["f"], to=1),
                               node("Unsqueeze", ["f", "a"], ["u"]), node("Add", ["x", "u"], ["y"])],
                     {"o": sizes(0), "i": sizes(1), "a": sizes([1])}),
    "means": ("'ReduceMean'", [node("ReduceMean", ["x"], ["m"], axes=[0]), node("Sub", ["x", "m"], ["y"])], {}),
    "turned and back": ("'Reshape'", [node("Reshape", ["x", "t"], ["r"]), node("Transpose", ["r"], ["q"], perm=[1, 0, 2]),
                                      node("Reshape", ["q", "u"], ["y"])],
                        {"t": sizes([-1, 2, 2]), "u": sizes([-1, 4])}),
}  # fmt: skip


@pytest.mark.parametrize("name", NODES)
def test_nodes_that_mix_samples_are_named(name: str) -> None:
    told, nodes, constants = NODES[name]
    with pytest.raises(UnsupportedError, match=told):
        from_onnx(file(nodes, "batch", **constants))


def test_files_for_one_sample_are_functions_of_it_and_others_are_asked() -> None:
    _, nodes, constants = NODES["the first"]
    assert from_onnx(file(nodes, 1, **constants)).shape == (4,)
    with pytest.raises(UnsupportedError, match="mixes the samples"):
        from_onnx(file(nodes, 4, **constants))
    with pytest.raises(UnsupportedError, match="the input 'x1' has a batch of 1 and others have not"):
        from_onnx(file([node("Add", ["x", "x1"], ["y"])], "batch", 1))
