"""Blocks: weights between consecutive outputs and inputs stay or go together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import ticketsmith
from ticketsmith.api import prepare, train
from ticketsmith.errors import PruningError, RecipeError
from ticketsmith.pruning.layout import Layout
from ticketsmith.pruning.masks import Masks, full, prune, shuffle
from ticketsmith.pruning.schedule import Layer, left
from ticketsmith.pruning.weights import layouts, prunable
from ticketsmith.spec import PruneRule
from ticketsmith.store.contract import SealedRun
from ticketsmith.training.tensors import masks_from_bytes

EDGES = nn.Sequential(nn.Conv2d(6, 10, 3), nn.Flatten(), nn.Linear(30, 15))
"""No size of which four divides."""


def whole(mask: Tensor, height: int, width: int) -> list[int]:
    """How many weights each block has that stays, ``mask`` as [outputs, inputs, ...]; each must stay or go as a whole."""
    sizes = []
    for rows in mask.split(height):
        for block in rows.split(width, 1):
            for place in block.flatten(2).unbind(2) if block.ndim > 2 else [block]:
                assert bool(place.all()) == bool(place.any())
                sizes += [place.numel()] if bool(place.all()) else []
    return sizes


def pruned(model: nn.Module, rule: PruneRule) -> Masks:
    weights = prunable(model, rule.include)
    scores = {name: weight.detach().abs() for name, weight in weights.items()}
    return prune(full(weights), scores, rule, layouts(model))


@pytest.mark.parametrize("block", [(1, 4), (4, 1), (2, 2)])
def test_the_blocks_of_the_lowest_mean_go(block: tuple[int, int]) -> None:
    """Large weights beside small ones do not stay by themselves, and a second round begins where the first one ended."""
    worth = torch.rand(8 // block[0], 8 // block[1], generator=torch.Generator().manual_seed(0))
    uneven = torch.arange(block[0] * block[1]).view(block) * 10.0
    scores = torch.kron(worth, torch.ones(block)) + uneven.repeat(worth.shape)
    rule, layout = PruneRule(fraction=0.5, block=block), {"a": Layout(1)}
    first = prune(full({"a": scores}), {"a": scores}, rule, layout)
    assert torch.equal(first["a"], torch.kron(worth, torch.ones(block)) >= worth.flatten().sort().values[8])
    second = prune(first, {"a": scores * first["a"]}, rule, layout)
    at_once = prune(full({"a": scores}), {"a": scores}, rule.model_copy(update={"rounds": 2}), layout)
    assert torch.equal(second["a"], at_once["a"])
    assert sum(whole(second["a"], *block)) == 16


def test_inputs_of_a_convolution_are_channels_at_one_place_of_the_kernel() -> None:
    layer = nn.Conv2d(8, 2, 3, bias=False)
    with torch.no_grad():
        layer.weight.fill_(1.0)
        layer.weight[1, 4:8, 0, 2] = 0.1
    mask = pruned(layer, PruneRule(fraction=1 / 36, block=(1, 4)))["weight"]
    assert (~mask).nonzero().tolist() == [[1, channel, 0, 2] for channel in range(4, 8)]
    turned = nn.ConvTranspose2d(8, 6, 2, groups=2, bias=False)  # [in, out / groups, ...]
    with torch.no_grad():
        turned.weight.fill_(1.0)
        turned.weight[4:8, 1, 0, 1] = 0.1  # the second group's four inputs, for the second of its outputs
    mask = pruned(turned, PruneRule(fraction=1 / 24, block=(1, 4)))["weight"]
    assert (~mask).nonzero().tolist() == [[channel, 1, 0, 1] for channel in range(4, 8)]


@pytest.mark.parametrize("scope", ["layer", "row", "global"])
@pytest.mark.parametrize("block", [(1, 4), (4, 1), (4, 4)])
def test_a_block_at_the_edge_is_what_is_left_of_it(scope: Any, block: tuple[int, int]) -> None:
    torch.manual_seed(0)
    rule = PruneRule(fraction=0.4, rounds=2, scope=scope, block=block)
    masks = pruned(EDGES, rule)
    shuffled = shuffle(masks, torch.Generator().manual_seed(0), layouts=layouts(EDGES), block=block)
    for name, mask in masks.items():
        assert sorted(whole(shuffled[name], *block)) == sorted(whole(mask, *block))
        assert not torch.equal(shuffled[name], mask)
    least = left(rule, {"0.weight": Layer(540, 10, 6), "2.weight": Layer(450, 15, 30)})
    assert 0 < least <= sum(int(mask.sum()) for mask in masks.values())


def test_a_small_weight_at_the_edge_is_no_worse_than_elsewhere() -> None:
    """Single weights that are alone in their block are compared with the mean of others, not with their sum."""
    scores = torch.tensor([[1.0, 1.0, 1.0, 1.0, 3.0]])
    mask = prune(full({"a": scores}), {"a": scores}, PruneRule(fraction=0.5, block=(1, 4)), {"a": Layout(1)})["a"]
    assert mask.tolist() == [[False] * 4 + [True]]


@pytest.mark.parametrize("scope", ["layer", "row", "global"])
def test_the_plan_counts_what_is_pruned(scope: Any) -> None:
    model = nn.Sequential(nn.Conv2d(8, 12, 3), nn.Flatten(), nn.Linear(12, 8))
    layers = {"0.weight": Layer(864, 12, 8), "2.weight": Layer(96, 8, 12)}
    for rounds in (1, 3):
        rule = PruneRule(fraction=0.3, rounds=rounds, scope=scope, block=(2, 4))
        assert left(rule, layers) == sum(int(mask.sum()) for mask in pruned(model, rule).values())


def test_layers_without_inputs_or_under_weight_norm_are_named() -> None:
    rule = PruneRule(fraction=0.5, block=(1, 4))
    with pytest.raises(PruningError, match=r"pruning.pattern: 'bias' is no weight of a layer with inputs"):
        pruned(nn.Linear(4, 4), rule.model_copy(update={"include": ("bias",)}))
    normed = {"weight": Layer(16, 4, 4, least=4)}
    for refused in (
        lambda: left(rule, normed),
        lambda: pruned(weight_norm(), rule.model_copy(update={"include": ("*original1",)})),
    ):
        with pytest.raises(PruningError, match=r"pruning.pattern.*under weight norm"):
            refused()


def weight_norm() -> nn.Module:
    return nn.utils.parametrizations.weight_norm(nn.Linear(4, 4, bias=False))


def test_from_a_recipe_to_masks_and_what_the_pattern_costs(recipe_file: Callable[..., Path], tmp_path: Path) -> None:
    short = ["training.duration=30it", "training.evaluate_every=30it", f"store={tmp_path}", "replicates=2"]
    own = ["pruning.pattern={block: [1, 4]}", "pruning.levels=2", "pruning.fraction=0.5", "gates.target_sparsity=null"]
    variants = (
        "variants={random_reinit: false, random_pruning: true, one_shot: true, post_training: {}, unstructured: {}}"
    )
    recipe = ticketsmith.load(recipe_file(), [*short, *own, "pruning.rates={}", variants])
    experiment = train(prepare(recipe), workers=1, device="cpu")
    free = set()
    for node in experiment.plan.by_key.values():
        masks = masks_from_bytes(SealedRun(experiment.store, node.folder("digits")).read("mask.safetensors"), "")
        assert int(masks["fc1.weight"].sum()) == masks["fc1.weight"].numel() >> node.level
        if node.variant == "unstructured":
            free.add(any(0 < int(block.sum()) < block.numel() for block in masks["fc1.weight"].split(4, 1)))
        else:
            whole(masks["fc1.weight"], 1, 4)
    assert free == {True}
    report = (Path(experiment.report()).parent / "report.md").read_text()
    assert "unstructured ticket" in report
    rows = [
        line.split("|")
        for line in report.partition("### What the pattern costs")[2].partition("\n\n![")[0].splitlines()
    ]
    costs = {cells[1].strip(): cells[-2] for cells in rows if len(cells) == 6 and "%" in cells[1]}
    assert list(costs) == ["50.0 %", "75.0 %"]
    assert all("points" in cell for cell in costs.values())
    assert "pattern" in report.partition("unstructured ticket")[2].partition(".\n")[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("pruning.pattern={block: [1, 1]}", "leave `pattern` out"),
        ("pruning.pattern={block: [4]}", r"expected \[outputs, inputs\]"),
        ("pruning={levels: 2, structure: row, pattern: {block: [1, 4]}}", "leave out one of them"),
        ("variants.unstructured=true", "this one is unstructured itself"),
    ],
)
def test_what_has_no_meaning_is_refused(change: str, message: str, recipe_file: Callable[..., Path]) -> None:
    with pytest.raises(RecipeError, match=message):
        ticketsmith.load(recipe_file(), [change])
