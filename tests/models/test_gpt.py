"""The GPT: causal, its cache exact, its weights begun and named as promised; it can be exported."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from ticketsmith.errors import TaskError
from ticketsmith.models.gpt import GPT, angles, rotated
from ticketsmith.pruning.weights import prunable

CONTEXT, SIZE = 24, 37
KINDS: list[dict[str, Any]] = [
    {"positions": "rotary"},
    {"positions": "learned"},
    {"positions": "rotary", "tied": True, "heads": 2},
]


def gpt(**options: Any) -> GPT:
    torch.manual_seed(3)
    model = GPT((CONTEXT,), SIZE, **{"width": 32, "depth": 2, "heads": 4, **options})
    for parameter in model.parameters():  # far from their small beginnings, so that errors show
        parameter.data += 0.2 * torch.randn(parameter.shape)
    return model.eval()


def some_tokens(batch: int = 3, length: int = CONTEXT) -> Tensor:
    return torch.randint(SIZE, (batch, length), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("options", KINDS, ids=str)
def test_a_token_sees_those_before_it_and_no_other(options: dict[str, Any]) -> None:
    model, tokens = gpt(**options), some_tokens(1)
    changed = tokens.clone()
    changed[0, 10] = (changed[0, 10] + 1) % SIZE
    with torch.no_grad():
        before, after = model(tokens)[0], model(changed)[0]
    assert torch.equal(before[:10], after[:10])
    differ = (before[10:] - after[10:]).abs().amax(dim=1)
    assert bool((differ > 1e-4).all()), "a later place does not see it"


@pytest.mark.parametrize("options", KINDS, ids=str)
@pytest.mark.parametrize("cuts", [[1] * CONTEXT, [CONTEXT], [7, 1, 1, 5, 10]], ids=len)
def test_the_cache_gives_what_the_whole_sequence_gives(options: dict[str, Any], cuts: list[int]) -> None:
    model, tokens = gpt(**options), some_tokens()
    session = model.session(batch=3)
    pieces = [session(piece) for piece in torch.split(tokens, cuts, dim=1)]
    with torch.no_grad():
        whole = model(tokens)
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole, rtol=1e-5, atol=1e-5)
    assert session.length == CONTEXT


def test_a_session_goes_back_and_begins_again() -> None:
    model, tokens = gpt(), some_tokens(1)
    session = model.session()
    first = session(tokens[:, :9])
    other = session(tokens[:, 15:20])
    session.length = 9
    again = session(tokens[:, 15:20])
    assert torch.equal(other, again)
    session.length = 0
    assert torch.equal(session(tokens[:, :9]), first)


def test_a_session_refuses_what_it_cannot_hold() -> None:
    model, tokens = gpt(), some_tokens(2)
    with pytest.raises(TaskError, match="the model reads 1 to 24"):
        model.session(1, CONTEXT + 1)
    with pytest.raises(TaskError, match="0 sequences: give 1 or more"):
        model.session(0)
    session = model.session(2, 10)
    session(tokens[:, :8])
    with pytest.raises(TaskError, match="a session of 10 tokens holds 8: there is no room for 3 more"):
        session(tokens[:, 8:11])
    with pytest.raises(TaskError, match=r"2 sequences was given tokens of shape \(1, 1\)"):
        session(tokens[:1, :1])
    with pytest.raises(TaskError, match="of 8 tokens cannot go back to 9"):
        session.length = 9


def test_rotary_positions_tell_distances_only() -> None:
    """Su et al. 2021: the product of a turned query and key depends on how far apart they are."""
    query, key = torch.randn(2, 1, 1, 1, 16, generator=torch.Generator().manual_seed(0))
    cosines, sines = angles(20, 16)

    def product(at: int, of: int) -> float:
        first = rotated(query, (cosines[at : at + 1], sines[at : at + 1]))
        second = rotated(key, (cosines[of : of + 1], sines[of : of + 1]))
        return float((first * second).sum())

    assert product(9, 4) == pytest.approx(product(17, 12), abs=1e-5)
    assert product(9, 4) != pytest.approx(product(9, 5), abs=1e-3)
    assert product(6, 6) == pytest.approx(float((query * key).sum()), abs=1e-5)


def test_weights_begin_as_in_gpt_2() -> None:
    torch.manual_seed(0)
    model = GPT((16,), 500, width=128, depth=8, heads=4)
    spread = {
        name: float(parameter.detach().std()) for name, parameter in model.named_parameters() if parameter.dim() == 2
    }
    for name, value in spread.items():
        adds = name.endswith(("attention.output.weight", "mlp.down.weight"))
        assert value == pytest.approx(0.02 / math.sqrt(16) if adds else 0.02, rel=0.05), name
    assert all(not parameter.any() for name, parameter in model.named_parameters() if name.endswith("bias"))
    with torch.no_grad():
        logits = model(torch.arange(16)[None])
    loss = torch.nn.functional.cross_entropy(logits[0], torch.arange(16))
    assert float(loss) == pytest.approx(math.log(500), abs=0.2)


SPANS = [
    f"blocks.{b}.{part}.weight" for b in (0, 1) for part in ("attention.qkv", "attention.output", "mlp.up", "mlp.down")
]


@pytest.mark.parametrize("tied", [False, True])
def test_attention_and_mlp_are_pruned_and_the_rest_is_not(tied: bool) -> None:
    assert list(prunable(gpt(tied=tied, positions="learned"))) == SPANS


def test_the_head_is_pruned_when_it_is_asked_for() -> None:
    assert list(prunable(gpt(), ("head",))) == [*SPANS, "head.weight"]
    assert list(prunable(gpt(tied=True), ("embedding",))) == ["embedding.weight", *SPANS]
    assert list(prunable(gpt(tied=True), ("head",))) == ["embedding.weight", *SPANS]  # one weight, by either name


def test_a_tied_head_is_the_embedding() -> None:
    model = gpt(tied=True)
    model.embedding.weight.data[5] += 1
    assert torch.equal(model.head.weight, model.embedding.weight)
    assert len(list(gpt().parameters())) == len(list(model.parameters())) + 1


@pytest.mark.parametrize("options", KINDS, ids=str)
def test_it_can_be_exported(options: dict[str, Any]) -> None:
    model, tokens = gpt(**options), some_tokens(1)
    program = torch.export.export(model, (tokens,))
    torch.testing.assert_close(program.module()(tokens), model(tokens))
    assert any("scaled_dot_product_attention" in str(node.target) for node in program.graph.nodes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 30}, "width 30 is not 4 heads of the same width"),
        ({"heads": 0}, "0 heads"),
        ({"width": 12}, "heads of even width, not 3"),
        ({"dropout": 1.0}, "dropout 1 does not lie in 0 to 1"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(TaskError, match=message):
        GPT((8,), 10, **{"width": 32, "depth": 1, "heads": 4, **options})
