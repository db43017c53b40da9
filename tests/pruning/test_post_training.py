"""Criteria for models too large to retrain: Wanda, comparison groups, N:M patterns, and runs that train nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import ticketsmith
from ticketsmith.api import prepare
from ticketsmith.errors import PruningError, RecipeError, TicketSmithError
from ticketsmith.evidence.results import Metric
from ticketsmith.pruning.criteria import Scoring, score
from ticketsmith.pruning.layout import Layout
from ticketsmith.pruning.masks import Masks, full, prune, shuffle
from ticketsmith.pruning.weights import layouts, prunable
from ticketsmith.spec import PruneRule

pytestmark = pytest.mark.usefixtures("undrawn")


@dataclass
class Inputs:
    """A task that is nothing but its inputs: what a criterion calibrates on."""

    inputs: Tensor
    metrics = (Metric("loss", higher_is_better=False),)

    @property
    def train_size(self) -> int:
        return len(self.inputs)

    def batch(self, indices: Tensor, device: torch.device, generator: torch.Generator) -> tuple[Tensor, ...]:
        return (self.inputs[indices],)

    def loss(self, model: nn.Module, batch: tuple[Tensor, ...], generator: torch.Generator) -> Tensor:
        return model(batch[0]).square().mean()  # type: ignore[no-any-return]


def scores(model: nn.Module, inputs: Tensor, criterion: str | dict[str, Any] = "wanda") -> dict[str, Tensor]:
    weights = prunable(model)
    task: Any = Inputs(inputs)
    return score(criterion, Scoring(weights, full(weights), model, task, torch.Generator().manual_seed(0)))


def kept_a_row(mask: Tensor) -> list[int]:
    return mask.sum(1).tolist()


def test_wanda_is_the_weight_times_the_norm_of_its_input() -> None:
    torch.manual_seed(0)
    model, inputs = nn.Linear(6, 4), torch.randn(20, 6)
    expected = model.weight.detach().abs() * inputs.norm(dim=0)
    torch.testing.assert_close(scores(model, inputs)["weight"], expected)
    tokens = torch.randn(5, 7, 6)  # every token of every example counts
    expected = model.weight.detach().abs() * tokens.flatten(0, 1).norm(dim=0)
    torch.testing.assert_close(scores(model, tokens)["weight"], expected)


@pytest.mark.parametrize("groups", [1, 2])
def test_wanda_of_a_convolution_is_that_of_the_same_layer_as_a_matrix(groups: int) -> None:
    torch.manual_seed(0)
    conv, images = nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=groups), torch.randn(8, 4, 9, 9)
    patches = F.unfold(images, 3, padding=1, stride=2)  # [8, 4 * 9, positions]
    norms = patches.square().sum((0, 2)).sqrt().view(groups, 4 // groups, 3, 3)
    expected = conv.weight.detach().abs() * norms.repeat_interleave(6 // groups, 0)
    torch.testing.assert_close(scores(conv, images)["weight"], expected)


def test_wanda_keeps_what_magnitude_throws_away_where_the_input_is_strong() -> None:
    model = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 0.1]]))
    inputs = torch.tensor([[0.01, 10.0]] * 4)
    rule = PruneRule(fraction=0.5)
    kept = {name: prune(full(prunable(model)), scores(model, inputs, name), rule) for name in ("magnitude", "wanda")}
    assert kept["magnitude"]["weight"].tolist() == [[True, False]]
    assert kept["wanda"]["weight"].tolist() == [[False, True]]


def test_wanda_leaves_the_model_as_it_was_and_repeats_itself() -> None:
    model, inputs = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.Linear(4, 2)).train(), torch.randn(64, 4)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first, second = (scores(model, inputs, {"name": "wanda", "examples": 40}) for _ in range(2))
    assert model.training
    assert not any(module._forward_pre_hooks for module in model.modules())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    for name in first:
        assert torch.equal(first[name], second[name])


def test_wanda_names_a_layer_that_is_never_called() -> None:
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.spare = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, inputs: Tensor) -> Tensor:
            return self.used(inputs)  # type: ignore[no-any-return]

    with pytest.raises(PruningError, match=r"'spare' is not called.*pruning.exclude: \[spare\]"):
        scores(Unused(), torch.randn(4, 3))


def test_rows_lose_the_same_part_each() -> None:
    """Compared within a layer, an output with small weights loses them all; compared within rows, none does."""
    weight = torch.rand(5, 40) + torch.tensor([[0.0], [1.0], [2.0], [3.0], [4.0]])
    masks, rule = full({"a": weight}), PruneRule(fraction=0.25, scope="row")
    first = prune(masks, {"a": weight}, rule, {"a": Layout(1)})
    assert kept_a_row(first["a"]) == [30] * 5
    assert kept_a_row(prune(first, {"a": weight}, rule, {"a": Layout(1)})["a"]) == [22] * 5  # 30 - round(7.5)
    assert kept_a_row(prune(masks, {"a": weight}, PruneRule(fraction=0.25), {"a": Layout(1)})["a"]) == [
        0,
        30,
        40,
        40,
        40,
    ]


def test_rows_of_layers_that_store_inputs_first() -> None:
    """GPT-2 keeps its weights as [in, out]: an output is a column there."""
    weight = torch.rand(40, 5)
    mask = prune(full({"a": weight}), {"a": weight}, PruneRule(fraction=0.25, scope="row"), {"a": Layout(0)})["a"]
    assert mask.sum(0).tolist() == [30] * 5


@pytest.mark.parametrize("pattern", ["2:4", "4:8", "1:4"])
@pytest.mark.parametrize("shape", [(6, 16), (6, 8, 3, 3)])
def test_a_pattern_keeps_the_highest_n_of_every_m_inputs(pattern: str, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    n, m = (int(part) for part in pattern.split(":"))
    weight = torch.randn(shape)
    rule = PruneRule(fraction=1 - n / m, pattern=pattern)
    mask = prune(full({"a": weight}), {"a": weight.abs()}, rule, {"a": Layout(1)})["a"]
    groups = mask.movedim(1, -1).reshape(-1, m)
    assert (groups.sum(1) == n).all()
    values = weight.abs().movedim(1, -1).reshape(-1, m)
    assert (values.masked_fill(~groups, 9.0).min(1).values >= values.masked_fill(groups, 0.0).max(1).values).all()


def test_a_sparser_pattern_goes_on_from_the_one_before() -> None:
    weight = torch.rand(4, 16)
    six = prune(full({"a": weight}), {"a": weight}, PruneRule(fraction=0.25, pattern="6:8"), {"a": Layout(1)})
    four = prune(six, {"a": torch.rand(4, 16)}, PruneRule(fraction=0.5, pattern="4:8"), {"a": Layout(1)})
    assert (four["a"].reshape(-1, 8).sum(1) == 4).all()
    assert not bool((four["a"] & ~six["a"]).any())


def test_the_random_ticket_of_a_pattern_keeps_the_pattern() -> None:
    weight = torch.rand(8, 32)
    masks: Masks = prune(full({"a": weight}), {"a": weight}, PruneRule(fraction=0.5, pattern="2:4"), {"a": Layout(1)})
    moved = shuffle(masks, torch.Generator().manual_seed(0), groups=4, layouts={"a": Layout(1)})["a"]
    assert (moved.reshape(-1, 4).sum(1) == 2).all()
    assert not torch.equal(moved, masks["a"])


def test_a_model_says_what_is_kept() -> None:
    class Kept(nn.Module):
        dense_by_default = ("head",)

        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(3, 3), nn.Linear(3, 3)

    assert list(prunable(Kept())) == ["body.weight"]
    assert list(prunable(Kept(), ("head.weight",))) == ["body.weight", "head.weight"]


def test_input_axes_of_torch_layers() -> None:
    model = nn.ModuleList([nn.Linear(2, 3), nn.Conv2d(4, 5, 1), nn.ConvTranspose2d(6, 7, 1), nn.BatchNorm2d(3)])
    axes = {name: layout.inputs for name, layout in layouts(model).items() if layout.inputs is not None}
    assert axes == {"0.weight": 1, "1.weight": 1, "2.weight": 0}


AFTER = """variants:
  ticket: false
  post_training: {rivals: [magnitude, random]}
gates:
"""


def test_pruning_without_retraining_is_judged_like_any_method(recipe_file: Callable[..., Path], tmp_path: Path) -> None:
    path = recipe_file(
        ("  rates: {output: 0.25}", "  scope: row\n  criterion: {name: wanda, examples: 64}"),
        ("replicates: 2", f"replicates: 2\nstore: {tmp_path}"),
        ("gates:\n", AFTER),
    )
    experiment = ticketsmith.run(path, workers=1, benchmark=False)
    results = {(r.variant, r.level, r.seed): r for r in experiment.results}
    assert {variant for variant, _, _ in results} == {"dense", "post_training", "post_magnitude", "post_random"}
    pruned = results["post_training", 1, 0]
    assert (pruned.steps, pruned.training_flops, pruned.curve) == (0, 0, [])
    assert pruned.final is not None
    assert pruned.final.step == 0
    dense, sparse = experiment.model(results["dense", 0, 0]), experiment.model(pruned)
    before = dict(dense.named_parameters())
    for name, weight in sparse.named_parameters():
        kept = weight != 0
        assert torch.equal(weight[kept], before[name][kept])  # nothing was trained
    first = dict(sparse.named_parameters())["fc1.weight"]
    assert ((first != 0).sum(1) == 32).all()  # half of the 64 inputs of every unit
    quality = {v: results[v, 1, 0].final.test["accuracy"] for v in ("post_training", "post_random")}  # type: ignore[union-attr]
    assert quality["post_training"] > quality["post_random"] + 10
    assert experiment.findings.subject == "post_training"
    report = (tmp_path / "digits" / "report" / "report.md").read_text()
    assert "Post-training pruning, magnitude" in report


def test_a_pattern_from_recipe_to_weights(recipe_file: Callable[..., Path], tmp_path: Path) -> None:
    path = recipe_file(
        ("  levels: 2\n  fraction: 0.5\n  rates: {output: 0.25}", '  levels: 2\n  pattern: ["3:4", "2:4"]'),
        ("replicates: 2", f"replicates: 1\nstore: {tmp_path}"),
        ("duration: 120it", "duration: 30it"),
    )
    experiment = ticketsmith.run(path, workers=1, benchmark=False)
    for variant in ("ticket", "random_ticket", "random_reinit"):
        deepest = next(r for r in experiment.results if r.variant == variant and r.level == 2)
        assert deepest.sparsity == 0.5
        weight = dict(experiment.model(deepest).named_parameters())["fc2.weight"]
        assert ((weight != 0).reshape(-1, 4).sum(1) <= 2).all()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("fraction: 0.5", 'pattern: "2:4"', r"`rates`"),
        ("  fraction: 0.5\n  rates: {output: 0.25}", '  pattern: "2:4"', "set `levels` to that"),
        ("  fraction: 0.5\n  rates: {output: 0.25}", "  pattern: 4:2", r'expected "N:M".*below M'),
        ("  fraction: 0.5\n  rates: {output: 0.25}", '  pattern: ["2:4", "3:4"]', "ever fewer N"),
        ("replicates: 2", "replicates: 2\nvariants: {ticket: false}", "switch on another method"),
        ("replicates: 2", "replicates: 2\nvariants: {ticket: false, random_ticket: {}, one_shot: {}}", "need `ticket`"),
        ("duration: 120it", "duration: 0it", "post_training"),
        ("replicates: 2", "replicates: 2\nvariants: {post_training: {rivals: [random, random]}}", "twice"),
    ],
)
def test_a_contradiction_is_refused(recipe_file: Callable[..., Path], old: str, new: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        ticketsmith.load(recipe_file((old, new)))


def broken(scoring: Scoring, examples: int = 512) -> dict[str, Tensor]:
    assert examples == 2, "it is only tried"
    raise ValueError("no such gradient")


def one_number(scoring: Scoring) -> dict[str, Tensor]:
    return {name: weight.sum() for name, weight in scoring.weights.items()}


@pytest.mark.parametrize(
    ("override", "error", "message"),
    [
        ("pruning.criterion={name: wanda, examples: 0}", PruningError, "examples is 0; at least 1 is needed"),
        ("pruning.criterion={name: wanda, example: 9}", RecipeError, "no option 'example'. Did you mean 'examples'"),
        ("variants.post_training={rivals: [{name: wanda, examples: no}]}", RecipeError, "'examples'.*valid integer"),
        (f"pruning.criterion={__name__}:broken", PruningError, "failed: ValueError: no such gradient .in broken"),
        (f"pruning.criterion={__name__}:one_number", PruningError, r"of shape \(32, 64\) for 'fc1.weight'"),
    ],
)
def test_a_criterion_that_cannot_work_is_refused_before_training(
    recipe_file: Callable[..., Path], override: str, error: type[TicketSmithError], message: str
) -> None:
    with pytest.raises(error, match=message):
        prepare(ticketsmith.load(recipe_file(), [override]))


def test_wanda_leaves_alone_what_is_excluded(recipe_file: Callable[..., Path]) -> None:
    """A bias is no weight of a layer that it could score, but it need not."""
    wanted = ["pruning.criterion=wanda", "pruning.include=[output.bias]"]
    with pytest.raises(PruningError, match=r"'output\.bias' is no weight of one"):
        prepare(ticketsmith.load(recipe_file(), wanted))
    prepare(ticketsmith.load(recipe_file(), [*wanted, "pruning.exclude=[output.bias]"]))


def test_a_pattern_that_does_not_fit_is_refused_before_training(recipe_file: Callable[..., Path]) -> None:
    path = recipe_file(
        ("  levels: 2\n  fraction: 0.5\n  rates: {output: 0.25}", '  levels: 1\n  pattern: "3:5"'),
        ("  target_sparsity: 0.4\n", ""),
    )
    with pytest.raises(PruningError, match=r"'fc1.weight' has 64 input\(s\), no multiple of 5.*exclude: \[fc1\]"):
        ticketsmith.api.prepare(ticketsmith.load(path))
