"""Samples of a batch whose tokens share the columns of a value give what each gives alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.runtime.networks import ISAS, Block, assert_same, sparse
from ticketsmith.runtime import groups
from ticketsmith.runtime.from_torch import from_torch
from ticketsmith.runtime.graph import GraphError
from ticketsmith.runtime.model import Model

pytestmark = pytest.mark.skipif(not ISAS, reason="the kernels are not built")


class Vit(nn.Module):
    """Patches, a class token and positions; what comes out of the class token, or the mean of all tokens."""

    def __init__(self, mean: bool) -> None:
        super().__init__()
        self.patches, self.mean = nn.Conv2d(3, 24, 4, 4), mean
        self.token, self.positions = nn.Parameter(torch.randn(24)), nn.Parameter(torch.randn(17, 24))
        self.blocks = nn.Sequential(Block(24, 2, causal=False), Block(24, 2))
        self.norm, self.head = nn.LayerNorm(24), nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), 1, -1), patches], 1) + self.positions
        x = self.norm(self.blocks(x))
        return self.head(x.mean(1) if self.mean else x[:, 0])


class Tagger(nn.Module):
    """A vector for each token, twice."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.block, self.head = nn.Embedding(30, 24), Block(24, 3), nn.Linear(24, 7)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        x = self.block(self.embedding(tokens))
        return x, self.head(x)


@pytest.mark.parametrize("mean", [False, True])
def test_a_batch_of_sequences_gives_what_each_gives_alone(mean: bool) -> None:
    torch.manual_seed(0)
    model, inputs = sparse(Vit(mean), 0.3), torch.randn(19, 3, 16, 16)
    graph = from_torch(model, inputs)
    assert groups.group_of(graph) == 8
    for precision, tolerance in (("float32", 1e-5), ("int8_dot", 0.05)):
        choices = {f"attention:{node.output}": "attention_dot" for node in graph.nodes}
        assert_same(model, inputs, ISAS, [choices], (1, 2), tolerance, precision, graph)
    served = Model(graph)
    answers = served(inputs)
    inputs[3] = torch.nan
    others = np.arange(19) != 3
    np.testing.assert_array_equal(served(inputs)[others], answers[others])
    assert np.isnan(served(inputs)[3]).all()


def test_tokens_in_and_values_for_each_of_them_out() -> None:
    torch.manual_seed(0)
    model, tokens = sparse(Tagger(), 0.3), torch.randint(0, 30, (11, 19))
    served = Model(from_torch(model, tokens))
    assert groups.group_of(served.graph) > 1
    with torch.inference_mode():
        for answer, expected in zip(served(tokens.numpy()), model(tokens), strict=True):
            np.testing.assert_allclose(answer, expected.numpy(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("sequences", [0, 3, 38, 2**20])
def test_sequences_that_do_not_fill_the_columns_are_refused(sequences: int) -> None:
    graph = from_torch(Block(24, 3), torch.zeros(1, 19, 24))
    wrong = [
        replace(node, attributes={**node.attributes, "sequences": sequences}) if node.op == "attention" else node
        for node in graph.nodes
    ]
    with pytest.raises(GraphError, match="sequences"):
        replace(graph, nodes=tuple(wrong)).shapes()


def test_where_it_would_gain_nothing_or_cannot_be_samples_stay_apart() -> None:
    for tokens, module in ((32, Block(24, 3)), (17, nn.Linear(24, 24))):
        assert groups.group_of(from_torch(module.eval(), torch.zeros(1, tokens, 24))) == 1
