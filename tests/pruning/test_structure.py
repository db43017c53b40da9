"""Structures: what stays or goes as a whole, and which combinations of the axes have a meaning."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

import ticketsmith
from ticketsmith.api import prepare, train
from ticketsmith.errors import PruningError, RecipeError
from ticketsmith.pruning import structure
from ticketsmith.pruning.layout import Layout
from ticketsmith.pruning.masks import Masks, full, prune, shuffle
from ticketsmith.pruning.weights import layouts, prunable
from ticketsmith.spec import PruneRule
from ticketsmith.store.contract import SealedRun
from ticketsmith.training.tensors import masks_from_bytes


def whole(mask: Tensor, axis: int) -> list[bool]:
    """For each slice whether it stays; it must stay or go as a whole."""
    slices = mask.movedim(axis, 0).flatten(1)
    assert bool((slices.all(1) == slices.any(1)).all())
    return slices.all(1).tolist()


@pytest.mark.parametrize(("name", "axis"), [("row", 0), ("channel", 1)])
def test_the_outputs_or_inputs_of_the_lowest_mean_go(name: Any, axis: int) -> None:
    worth = torch.tensor([3.0, 1.0, 4.0, 2.0])
    weight = (
        worth.view(-1, 1, 1) + torch.rand(4, 4, 3) / 10
        if axis == 0
        else worth.view(1, -1, 1) + torch.rand(4, 4, 3) / 10
    )
    rule, layout = PruneRule(fraction=0.25, structure=name), {"a": Layout(1)}
    first = prune(full({"a": weight}), {"a": weight}, rule, layout)
    assert whole(first["a"], axis) == [True, False, True, True]
    second = prune(first, {"a": weight * first["a"]}, rule.model_copy(update={"fraction": 0.4}), layout)
    assert whole(second["a"], axis) == [True, False, True, False]
    at_once = prune(full({"a": weight}), {"a": weight}, PruneRule(fraction=0.5, structure=name), layout)
    assert torch.equal(at_once["a"], second["a"])
    moved = shuffle(second, torch.Generator().manual_seed(1), layouts=layout, structure=name)["a"]
    assert sum(whole(moved, axis)) == 2
    assert not torch.equal(moved, second["a"])


def test_rows_of_all_layers_compete_by_their_mean_whatever_their_size() -> None:
    weights = {"long": torch.full((4, 100), 1.0), "short": torch.full((4, 2), 3.0)}
    weights["long"][0] = 9.0
    weights["short"][0] = 0.5
    masks = prune(
        full(weights),
        weights,
        PruneRule(fraction=0.5, scope="global", structure="row"),
        dict.fromkeys(weights, Layout(1)),
    )
    assert (whole(masks["long"], 0), whole(masks["short"], 0)) == (
        [True, False, False, False],
        [False, True, True, True],
    )


def test_a_whole_output_of_a_grouped_transposed_convolution_is_what_it_computes() -> None:
    layer = nn.ConvTranspose2d(8, 6, 2, 2, groups=2, bias=False)
    mask = pruned(layer, PruneRule(fraction=0.5, structure="row"))["weight"]
    with torch.no_grad():
        layer.weight.mul_(mask)
    assert int((layer(torch.ones(1, 8, 1, 1)).flatten(2) == 0).all(2).sum()) == 3


def pruned(model: nn.Module, rule: PruneRule) -> Masks:
    weights = prunable(model, rule.include)
    scores = {name: weight.detach().abs() for name, weight in weights.items()}
    return prune(full(weights), scores, rule, layouts(model))


def squares(name: str, shape: torch.Size, layout: Layout) -> Tensor:
    """Of two by two weights of a matrix: the seam takes a structure that is not built in."""
    return torch.arange(shape.numel()).view(shape).unfold(0, 2, 2).unfold(1, 2, 2).flatten(0, 1).flatten(1)


def test_a_new_structure_is_one_function(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(structure.STRUCTURES, "row", squares)
    weight = torch.arange(16.0).view(2, 2, 2, 2).movedim(1, 2).reshape(4, 4)  # four squares, one above the other
    mask = prune(full({"a": weight}), {"a": weight}, PruneRule(fraction=0.5, structure="row"))["a"]
    assert mask.tolist() == [[False] * 4] * 2 + [[True] * 4] * 2


@pytest.mark.parametrize("other", [{"pattern": "2:4"}, {"scope": "row"}])
def test_a_structure_has_no_meaning_with_a_pattern_or_within_rows(other: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="a `structure` goes with"):
        PruneRule(fraction=0.5, structure="row", **other)


def test_layers_that_have_no_outputs_or_must_keep_each_are_named() -> None:
    for rule, model in (
        (PruneRule(fraction=0.5, structure="row", include=("bias",)), nn.Linear(4, 4)),
        (
            PruneRule(fraction=0.5, structure="channel", include=("0.*",)),
            nn.Sequential(nn.Embedding(4, 4), nn.Linear(4, 4)),
        ),
    ):
        with pytest.raises(PruningError, match=r"pruning.structure.*no weight of a layer with inputs.*pruning.exclude"):
            pruned(model, rule)
    normed = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
    with pytest.raises(PruningError, match="weight norm"):
        pruned(normed, PruneRule(fraction=0.5, structure="row", include=("weight",)))


def test_whole_outputs_from_recipe_to_sealed_masks(recipe_file: Callable[..., Path], tmp_path: Path) -> None:
    own = ["pruning.rates={}", "pruning.exclude=[output]", "replicates=1", "gates.target_sparsity=null"]
    short = ["training.duration=4it", "training.evaluate_every=2it", f"store={tmp_path}", "pruning.structure=row"]
    recipe = ticketsmith.load(recipe_file(), [*own, *short, "variants={random_pruning: true, one_shot: true}"])
    experiment = train(prepare(recipe), workers=1, device="cpu")
    assert len(experiment.results) == 11
    for node in experiment.plan.by_key.values():
        masks = masks_from_bytes(SealedRun(experiment.store, node.folder("digits")).read("mask.safetensors"), "")
        assert [sum(whole(masks[f"fc{i}.weight"], 0)) for i in (1, 2)] == [32 >> node.level, 16 >> node.level]
        assert bool(masks["output.weight"].all())
    with pytest.raises(RecipeError, match="scope: row"):
        ticketsmith.load(recipe_file(), [*own, "pruning.structure=row", "pruning.scope=row"])
