"""Decoding with a memory gives what the whole sequence gives, however it is cut into calls."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.runtime.networks import ISAS, Gpt, sparse
from tests.runtime.zoo import ZOO, network, noise
from ticketsmith import runtime
from ticketsmith.native import Isa
from ticketsmith.runtime.from_torch import from_torch
from ticketsmith.runtime.graph import Graph
from ticketsmith.runtime.model import Model
from ticketsmith.runtime.program import InputError
from ticketsmith.runtime.steps import SessionError, step_graph
from ticketsmith.runtime.tune import choices, tune

pytestmark = pytest.mark.skipif(not ISAS, reason="the kernels are not built")
LENGTH = 72
TOKENS = torch.randint(0, 40, (3, LENGTH), generator=torch.Generator().manual_seed(0))
CUTS = ([LENGTH], [1] * LENGTH, [5, 1, 34, 2, 30], [33, 39])


@cache
def decoder(name: str) -> nn.Module:
    torch.manual_seed(0)
    return sparse(Gpt(tokens=LENGTH), 0.4) if name == "learned" else network(name)


@cache
def graph_of(name: str, batch: int = len(TOKENS)) -> Graph:
    return from_torch(decoder(name), TOKENS[:batch])


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", ["learned", "rotary", "rotary_shared"])
@pytest.mark.parametrize("batch", [1, 3])
def test_any_cut_gives_what_the_whole_gives(name: str, batch: int, isa: Isa) -> None:
    module, tokens = decoder(name), TOKENS[:batch]
    with torch.inference_mode():
        expected = module(tokens).numpy()
    session = Model(graph_of(name, batch), isa=isa).session(batch)
    for cuts in CUTS:
        session.reset()
        parts, begin = [], 0
        for count in cuts:
            assert session.length == begin
            parts.append(session(tokens[:, begin : begin + count]))  # DLPack
            begin += count
        np.testing.assert_allclose(np.concatenate(parts, 1), expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize(("precision", "bound"), [("bfloat16", 0.02), ("int8", 0.05), ("int8_dot", 0.1)])
def test_low_precision_stays_near(precision: str, bound: float, tmp_path: Path) -> None:
    runtime.save(tmp_path / "x.tsk", graph_of("rotary"), precision=precision)
    model = runtime.load(tmp_path / "x.tsk")
    expected = Model(graph_of("rotary"))(TOKENS[:1])
    session = model.session()
    given = np.concatenate([session(TOKENS[:1, n : n + 1].numpy()) for n in range(LENGTH)], 1)
    assert np.abs(given - expected).max() < bound * np.abs(expected).max()
    np.testing.assert_allclose(given, model(TOKENS[:1]), rtol=0, atol=bound * np.abs(expected).max())


def test_a_session_of_a_file_with_measured_formats_and_two_threads(tmp_path: Path) -> None:
    graph = graph_of("learned")
    measured = choices(tune(step_graph(graph), rounds=1))
    assert all(key.startswith("vector:") for key in measured)
    session = Model(graph, measured, threads=2).session()
    np.testing.assert_allclose(session(TOKENS[:1].numpy()), Model(graph)(TOKENS[:1]), atol=1e-4)


def test_what_does_not_fit_is_told_and_changes_nothing() -> None:
    model = Model(graph_of("learned"))
    session = model.session(batch=2, capacity=10)
    before = session(TOKENS[:2, :4].numpy())
    with pytest.raises(SessionError, match="has room for 10: 7 more do not fit"):
        session(TOKENS[:2, :7].numpy())
    with pytest.raises(InputError, match="vocabulary"):
        session(np.full((2, 3), 40))
    with pytest.raises(InputError, match=r"\(2, 'new'\)"):
        session(TOKENS[:1, :1].numpy())
    with pytest.raises(InputError, match="int64"):
        session(np.zeros((2, 1), np.float32))
    assert session.length == 4
    assert session(np.zeros((2, 0), np.int64)).shape == (2, 0, 40)
    session(TOKENS[:2, 4:10].numpy())
    assert session.length == 10
    session.reset()
    np.testing.assert_array_equal(session(TOKENS[:2, :4].numpy()), before)


def test_sessions_of_one_model_know_nothing_of_each_other() -> None:
    model = Model(graph_of("rotary"))
    expected = model(TOKENS[:2])
    one, other = model.session(), model.session()
    for begin in range(0, 12, 3):
        for row, session in enumerate((one, other)):
            given = session(TOKENS[row : row + 1, begin : begin + 3].numpy())
            np.testing.assert_allclose(given[0], expected[row, begin : begin + 3], atol=1e-4)


class Backwards(nn.Module):
    """Attention that sees the future."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.layer = nn.Embedding(9, 8), nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.layer(self.embed(tokens))


def test_models_without_sessions_say_why() -> None:
    with pytest.raises(SessionError, match=r"does not work token by token"):
        Model(from_torch(Backwards(), TOKENS % 9)).session()
    with pytest.raises(SessionError, match=r"linear.*token by token"):
        Model(from_torch(nn.Linear(6, 4), noise(1, 6))).session()
    with pytest.raises(SessionError, match="one input"):
        Model(from_torch(network("encoder"), ZOO["encoder"][1](1))).session()
    with pytest.raises(SessionError, match="72 positions, fewer than the session's capacity of 73"):
        Model(graph_of("learned")).session(capacity=73)
    for options in ({"batch": 0}, {"capacity": 0}, {"capacity": 2**40}, {"batch": 10**9}):
        with pytest.raises(SessionError):
            Model(graph_of("learned")).session(**options)
