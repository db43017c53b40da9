"""Masks and their arithmetic. Several tests are faults of published code, named beside them."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ticketsmith.errors import DamagedRunError, PruningError
from ticketsmith.models.lenet import lenet_300_100
from ticketsmith.models.resnet import ResNet20
from ticketsmith.pruning.criteria import Scoring, score
from ticketsmith.pruning.masks import Masks, full, pack, prune, shuffle, unpack
from ticketsmith.pruning.schedule import survivors
from ticketsmith.pruning.weights import prunable
from ticketsmith.spec import PruneRule


def kept(masks: Masks) -> dict[str, int]:
    return {name: int(mask.sum()) for name, mask in masks.items()}


def rounds(weights: dict[str, Tensor], rule: PruneRule, count: int) -> Masks:
    masks = full(weights)
    for _ in range(count):
        masks = prune(masks, {name: weight.abs() for name, weight in weights.items()}, rule)
    return masks


@pytest.mark.parametrize(
    ("count", "percent"), [(1, 80.04), (3, 51.28), (7, 21.07), (9, 13.52), (15, 3.58), (16, 2.87), (20, 1.19)]
)
def test_lenet_leaves_what_the_paper_labels(count: int, percent: float) -> None:
    """Frankle & Carbin's 51.3 / 21.1 / 13.5 / 3.6 / 2.9 %, by real masks and not by a formula alone."""
    torch.manual_seed(0)
    weights = dict(prunable(lenet_300_100((1, 28, 28), 10)))
    masks = rounds(weights, PruneRule(fraction=0.2, rates=(("output", 0.1),)), count)
    assert round(100 * sum(kept(masks).values()) / 266_200, 2) == percent


def test_exactly_as_many_go_as_asked_although_many_are_equal() -> None:
    """open_lth and Google's code keep ``|w| > threshold``: one too many goes, and every tie."""
    weights = {"a": torch.ones(10, 10)}
    assert kept(rounds(weights, PruneRule(fraction=0.2), 1)) == {"a": 80}
    assert kept(rounds(weights, PruneRule(fraction=0.2, scope="global"), 1)) == {"a": 80}


def test_ties_go_in_order_of_layer_and_place() -> None:
    weights = {"a": torch.ones(4), "b": torch.ones(4)}
    first = rounds(weights, PruneRule(fraction=0.375, scope="global"), 1)
    assert first["a"].tolist() == [False, False, False, True]
    assert bool(first["b"].all())
    assert rounds(weights, PruneRule(fraction=0.5), 1)["b"].tolist() == [False, False, True, True]


def test_a_layer_is_never_emptied() -> None:
    weights = {"a": torch.ones(4), "b": torch.full((4,), 2.0)}
    with pytest.raises(PruningError, match=r"layer 'a' without any weight.*pruning.exclude"):
        rounds(weights, PruneRule(fraction=0.5, scope="global"), 1)


def test_no_fraction_is_taken_of_excluded_layers() -> None:
    """open_lth counts the weights of ignored layers in the fraction, but removes it from the others."""
    weights = {"conv.weight": torch.rand(100), "fc.weight": torch.rand(1000)}
    for scope in ("layer", "global"):
        masks = rounds(weights, PruneRule(fraction=0.2, scope=cast(Any, scope), exclude=("fc",)), 1)
        assert kept(masks) == {"conv.weight": 80, "fc.weight": 1000}


def test_the_smallest_go_and_never_come_back() -> None:
    torch.manual_seed(0)
    weights = {"a": torch.randn(50, 20), "b": torch.randn(30)}
    scores = {name: weight.abs() for name, weight in weights.items()}
    first = prune(full(weights), scores, PruneRule(fraction=0.3))
    for name, mask in first.items():
        assert scores[name][~mask].max() < scores[name][mask].min()
    second = prune(first, {name: torch.rand_like(weight) for name, weight in weights.items()}, PruneRule(fraction=0.3))
    assert all(not bool((second[name] & ~first[name]).any()) for name in weights)


def test_global_ranks_all_layers_together() -> None:
    weights = {"small": torch.full((10,), 0.1), "large": torch.full((30,), 1.0)}
    weights["small"][9] = 2.0
    assert kept(rounds(weights, PruneRule(fraction=0.2, scope="global"), 1)) == {"small": 2, "large": 30}


def test_many_rounds_at_once_leave_as_many_as_one_by_one() -> None:
    torch.manual_seed(0)
    weights = {"a": torch.randn(317), "b": torch.randn(1000)}
    for scope in ("layer", "global"):
        rule = PruneRule(fraction=0.2, scope=cast(Any, scope))
        once = rounds(weights, rule.model_copy(update={"rounds": 7}), 1)
        assert sum(kept(once).values()) == sum(kept(rounds(weights, rule, 7)).values())


def test_a_random_ticket_has_the_same_density_elsewhere() -> None:
    torch.manual_seed(0)
    weights = {"a": torch.randn(40, 40), "b": torch.randn(100)}
    masks = rounds(weights, PruneRule(fraction=0.5), 2)
    shuffled = shuffle(masks, torch.Generator().manual_seed(1))
    assert kept(shuffled) == kept(masks)
    assert any(not torch.equal(shuffled[name], masks[name]) for name in masks)
    again = shuffle(masks, torch.Generator().manual_seed(1))
    assert all(torch.equal(shuffled[name], again[name]) for name in masks)


def test_biases_norms_and_shortcuts() -> None:
    names = list(prunable(ResNet20((3, 32, 32), 10)))
    assert all(name.endswith("weight") for name in names)
    assert not any("norm" in name for name in names)
    assert sum(value.numel() for value in prunable(ResNet20((3, 32, 32), 10)).values()) == 270_896
    with_bias = prunable(lenet_300_100((1, 28, 28), 10), include=("fc1.bias",))
    assert "fc1.bias" in with_bias
    assert "fc2.bias" not in with_bias


def test_a_pattern_without_a_match_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(PruningError, match=r"'ouput' matches no layer. Did you mean 'output'"):
        rounds({"output.weight": torch.rand(9)}, PruneRule(fraction=0.5, rates=(("ouput", 0.1),)), 1)


def test_a_criterion_that_gives_nonsense_is_refused() -> None:
    model = nn.Linear(4, 3)
    weights = prunable(model)
    scoring = Scoring(weights, full(weights), model, cast(Any, None), torch.Generator())
    with pytest.raises(PruningError, match="not finite"):
        score("tests.pruning.test_pruning:nonsense", scoring)
    with pytest.raises(PruningError, match="shape"):
        score("tests.pruning.test_pruning:wrong_shape", scoring)


def nonsense(scoring: Scoring) -> dict[str, Tensor]:
    return {name: torch.full_like(weight, float("nan")) for name, weight in scoring.weights.items()}


def wrong_shape(scoring: Scoring) -> dict[str, Tensor]:
    return {name: torch.zeros(2) for name in scoring.weights}


@given(st.integers(1, 5000), st.floats(0.01, 0.99), st.integers(1, 30))
def test_survivors_fall_and_are_never_negative(count: int, fraction: float, number: int) -> None:
    left = survivors(count, fraction, number)
    assert 0 <= left <= count
    assert survivors(left, fraction) <= left


@settings(max_examples=30)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(0, 1000))
def test_packed_masks_come_back(shape: list[int], seed: int) -> None:
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.3
    bits, shapes = pack({"layer.weight": mask})
    assert bits["layer.weight"].numel() == -(-mask.numel() // 8)
    assert torch.equal(unpack(bits, shapes)["layer.weight"], mask)


def test_a_damaged_mask_is_refused() -> None:
    bits, _ = pack({"a": torch.ones(100, dtype=torch.bool)})
    with pytest.raises(DamagedRunError, match="does not fit its shape"):
        unpack(bits, [("a", [4000])])
    with pytest.raises(DamagedRunError):
        unpack(bits, [("b", [100])])


def test_a_model_may_keep_layers_dense_by_default() -> None:
    class Headed(torch.nn.Sequential):
        dense_by_default = ("1", "gone.*")

    model = Headed(torch.nn.Linear(4, 3), torch.nn.Linear(3, 2), torch.nn.Linear(2, 2))
    assert list(prunable(model)) == ["0.weight", "2.weight"]
    assert list(prunable(model, ("1",))) == ["0.weight", "1.weight", "1.bias", "2.weight"]
    Headed.dense_by_default = ("*",)
    with pytest.raises(PruningError, match="no linear or convolution layer"):
        prunable(model)
