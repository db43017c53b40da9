"""Recurrent layers, attention, transposed convolutions, norms of weights, shared weights: pruned like any other layer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import ticketsmith
from tests.cli.test_commands import call
from tests.pruning import nets
from tests.training.runs import CPU, jobs
from ticketsmith.api import Prepared, prepare
from ticketsmith.errors import PruningError
from ticketsmith.pruning.criteria import Scoring, magnitude
from ticketsmith.pruning.layout import neighbours, rows
from ticketsmith.pruning.layout_version import layout_version
from ticketsmith.pruning.masks import Masks, full, prune, shuffle
from ticketsmith.pruning.unpruned import unpruned_matrices
from ticketsmith.pruning.weights import computed, copied, layouts, prunable
from ticketsmith.spec import PruneRule, Training
from ticketsmith.store.contract import SealedRun
from ticketsmith.store.directory import DirectoryStore
from ticketsmith.tasks.flops import forward_flops
from ticketsmith.tasks.task import create
from ticketsmith.training.job import Job
from ticketsmith.training.learner import TorchLearner
from ticketsmith.training.loop import Progress, train
from ticketsmith.training.produce import Hooks, produce
from ticketsmith.training.start import read_weights
from ticketsmith.training.tensors import masks_from_bytes

Write = Callable[..., Path]
NETS = "tests.pruning.nets"


def task(model: str, **options: Any) -> Any:
    component = {"name": f"{NETS}:{model}", **options}
    return create({"name": "classification", "data": "digits", "model": component, "validation": 200}, Path())


def pruned(model: nn.Module, rule: PruneRule, rounds: int = 1) -> Masks:
    """Masks by magnitude, as a run makes them."""
    weights = prunable(model, rule.include)
    masks = full(weights)
    for _ in range(rounds):
        scoring = Scoring(weights, masks, model, None, torch.Generator())  # type: ignore[arg-type]
        masks = prune(masks, magnitude(scoring), rule, layouts(model))
    return masks


def prepared(recipe_file: Write, model: str, *overrides: str, **options: Any) -> Prepared:
    component = json.dumps({"name": f"{NETS}:{model}", **options})
    return prepare(ticketsmith.load(recipe_file(), [f"task.model={component}", "pruning.rates={}", *overrides]))


# ---- what stays dense, and the pattern that takes it

DENSE = [
    ("Recurrent", {}, {"rnn.weight_*": 4}, "recurrent layer (LSTM)"),
    ("Recurrent", {"kind": "GRU"}, {"rnn.weight_*": 4}, "recurrent layer (GRU)"),
    ("Encoder", {}, {"body.layers.*.self_attn.in_proj_weight": 2}, "queries, keys and values of attention"),
    ("Decoder", {}, {"up3.weight": 1}, "transposed convolution in 3-d"),
    ("Normed", {}, {"conv.weight": 1, "fc.weight": 1}, "under weight norm"),
    ("Normed", {"norm": "older weight"}, {"conv.weight": 1, "fc.weight": 1}, "under weight norm"),
    ("Normed", {"norm": "spectral"}, {"fc.weight": 1}, "under spectral norm"),
    ("Normed", {"norm": "older spectral"}, {"fc.weight": 1}, "under spectral norm"),
    ("Normed", {"norm": "double"}, {"fc.weight": 1}, "under the parametrization Double"),
    ("Tied", {}, {"embedding.weight": 1}, "embedding (shared by embedding.weight, head.weight)"),
    ("Tied", {"reverse": True}, {"head.weight": 1}, "embedding (shared by head.weight, embedding.weight)"),
]


@pytest.mark.parametrize(("model", "options", "includes", "why"), DENSE)
def test_the_pattern_that_is_told_takes_what_was_dense(
    model: str, options: dict[str, Any], includes: dict[str, int], why: str
) -> None:
    built = getattr(nets, model)(**options)
    dense = [one for one in unpruned_matrices(built, PruneRule(fraction=0.5)) if "lengths" not in one.why]
    told = [one.include for one in dense]
    assert {str(include): told.count(include) for include in told} == includes
    assert {one.why for one in dense} == {why}
    before, after = prunable(built), prunable(built, tuple(includes))
    assert after.keys() - before.keys() == {one.name for one in dense}
    total = sum(parameter.numel() for parameter in built.parameters())
    assert sum(one.share for one in dense) == pytest.approx(sum(one.count for one in dense) / total)
    left = unpruned_matrices(built, PruneRule(fraction=0.5, include=tuple(includes)))
    assert not [one for one in left if "lengths" not in one.why]


def test_what_is_frozen_excluded_or_kept_by_the_model_is_told() -> None:
    class Kept(nn.Sequential):
        dense_by_default = ("2",)

    model = Kept(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    model[0].requires_grad_(False)
    dense = {one.name: one for one in unpruned_matrices(model, PruneRule(fraction=0.5, exclude=("1",)))}
    assert {name: (one.why, one.include) for name, one in dense.items()} == {
        "0.weight": ("frozen: it is not trained", "0.weight"),
        "1.weight": ("pruning.exclude names it (1)", None),
        "2.weight": ("the model keeps it dense by default", "2.weight"),
    }


@pytest.mark.parametrize("norm", ["orthogonal", "symmetric"])
def test_a_weight_whose_zeros_are_others_is_refused_by_name(norm: str) -> None:
    model = nets.Normed(norm)
    assert [one.include for one in unpruned_matrices(model, PruneRule(fraction=0.5))] == [None]
    with pytest.raises(
        PruningError, match=r"'fc.parametrizations.weight.original' cannot be pruned.*makes 'fc.weight'"
    ):
        prunable(model, ("fc.weight",))


def test_validate_and_plan_tell_it(recipe_file: Write, capsys: pytest.CaptureFixture[str]) -> None:
    own = ["--set", f"task.model={NETS}:Recurrent", "--set", "pruning.rates={}"]
    told = []
    for command in ("validate", "plan"):
        arguments = [command, "--config", str(recipe_file()), *own, "--set", "gates.target_sparsity=null"]
        code, text, _ = call(*arguments, capsys=capsys)
        assert code == 0
        assert "160 of them (4.0 %) prunable in 1 layer" in text
        assert "rnn.weight_ih_l0" in text
        assert "rnn.weight_*" in text
        told.append(json.loads(call(*arguments, "--json", capsys=capsys)[1]))
    for document in told:
        assert document["parameters"] == 4_010
        assert document["prunable_share"] == 160 / 4_010
        first = document["dense_matrices"][0]
        assert first["shape"] == [64, 8]
        assert (first["weights"], first["share"]) == (512, 512 / 4_010)


# ---- groups: along the right axis


def test_rows_and_neighbours_of_a_grouped_transposed_convolution_are_what_an_output_reads() -> None:
    """Found by asking the layer: a weight belongs to the output that it changes, and to the input that it reads."""
    layer = nn.ConvTranspose2d(8, 6, 2, 2, groups=2, bias=False)
    layout = layouts(layer)["weight"]
    index = rows(layer.weight.shape, layout)
    assert index.shape == (6, 16)  # 4 inputs of a group, 2 x 2
    for output, row in enumerate(index):
        with torch.no_grad():
            layer.weight.zero_().view(-1)[row] = 1.0
            touched = layer(torch.ones(1, 8, 1, 1)).sum((0, 2, 3)) != 0
        assert touched.nonzero().flatten().tolist() == [output]
    for group in neighbours("weight", layer.weight.shape, layout, 4):
        inputs = torch.ones(1, 8, 1, 1, requires_grad=True)
        with torch.no_grad():
            layer.weight.zero_().view(-1)[group] = 1.0
        layer(inputs).sum().backward()
        assert inputs.grad is not None
        read = inputs.grad.flatten().nonzero().flatten().tolist()
        assert read in ([0, 1, 2, 3], [4, 5, 6, 7])
    with pytest.raises(PruningError, match=r"has 4 input\(s\), no multiple of 8"):
        neighbours("weight", layer.weight.shape, layout, 8)


@pytest.mark.parametrize(
    ("model", "include"),
    [
        (nets.Recurrent(), "rnn.weight_*"),
        (nets.Recurrent("GRU"), "rnn.weight_*"),
        (nets.Recurrent(proj=4), "rnn.weight_*"),
        (nets.Encoder(), "*.in_proj_weight"),
        (nn.ModuleDict({"att": nn.MultiheadAttention(8, 2, kdim=4, vdim=12)}), "att.?_proj_weight"),
        (nn.ModuleDict({"cell": nn.LSTMCell(8, 4)}), "cell.weight_*"),
    ],
)
def test_every_output_loses_the_same(model: nn.Module, include: str) -> None:
    half = pruned(model, PruneRule(fraction=0.5, scope="row", include=(include,)))
    pattern = pruned(model, PruneRule(fraction=0.5, pattern="2:4", include=(include,)))
    for name, mask in half.items():
        assert (mask.sum(1) == mask.shape[1] // 2).all(), name
        assert (pattern[name].reshape(-1, 4).sum(1) == 2).all(), name


def test_the_parts_of_attention_are_layers_of_their_own() -> None:
    torch.manual_seed(0)
    attention = nn.ModuleDict({"att": nn.MultiheadAttention(8, 2)})
    weight = attention["att"].in_proj_weight
    with torch.no_grad():
        weight[:8] *= 100  # queries would keep all if the three were compared with each other
    rates = (("att.v_proj_weight", 0.25),)
    rule = PruneRule(
        fraction=0.5, include=("*.in_proj_weight",), rates=rates, exclude=("att.k_proj_weight", "*.out_proj")
    )
    mask = pruned(attention, rule)["att.in_proj_weight"]
    assert [int(part.sum()) for part in mask.chunk(3)] == [32, 64, 48]
    moved = shuffle({"att.in_proj_weight": mask}, torch.Generator().manual_seed(0), layouts=layouts(attention))
    assert [int(part.sum()) for part in moved["att.in_proj_weight"].chunk(3)] == [32, 64, 48]
    assert not torch.equal(moved["att.in_proj_weight"], mask)


# ---- norms of weights


@pytest.mark.parametrize("norm", ["weight", "older weight", "spectral", "older spectral", "double"])
def test_masked_weights_are_zero_as_they_are_computed_with_at_every_step(norm: str) -> None:
    work = task("Normed", norm=norm)
    torch.manual_seed(0)
    model = work.build_model()
    masks = pruned(model, PruneRule(fraction=0.8, include=("fc.weight",)))
    training = Training(optimizer="adam", lr=0.01, weight_decay=0.01, batch_size=50, duration="5it", ema=0.5)
    learner = TorchLearner(work, model, masks, training)
    (name,) = [name for name in masks if name.startswith("fc")]
    seen = []

    def check(progress: Progress, loss: Tensor) -> None:
        for one in (model, learner.result):
            weight = computed(one)[name]
            assert bool((weight[~masks[name]] == 0).all())
            assert bool((weight[masks[name]] != 0).all())
        seen.append(progress.step)

    train(learner, training, 0, Progress(), 5, check)
    assert seen == [1, 2, 3, 4, 5]
    copied(model).load_state_dict(model.state_dict())


def test_weights_of_older_norms_are_those_of_what_was_loaded() -> None:
    first, second = nets.Normed("older weight"), nets.Normed("older weight")
    second.load_state_dict(first.state_dict())
    assert not torch.equal(first.fc.weight, second.fc.weight)  # torch makes it in the next call only
    assert torch.equal(copied(second).fc.weight, first.fc.weight)


def test_magnitude_is_that_of_the_weight_not_of_its_direction() -> None:
    model = nets.Normed("weight")
    with torch.no_grad():
        model.fc.parametrizations.weight.original0[:18] *= 100  # rows that matter
        model.fc.parametrizations.weight.original1[:18] /= 100  # whatever the length of their direction
    mask = pruned(model, PruneRule(fraction=0.5, include=("fc.weight",)))["fc.parametrizations.weight.original1"]
    assert mask[:18].float().mean() > 0.9


def test_no_norm_of_weight_norm_becomes_zero() -> None:
    """A direction of zeros is 0/0."""
    model = nets.Normed("weight")
    name = "fc.parametrizations.weight.original1"
    with torch.no_grad():
        model.fc.parametrizations.weight.original0[:9] = 1e-6  # rows that magnitude would remove altogether
    rule = PruneRule(fraction=0.95, include=("fc.weight",))
    mask = pruned(model, rule)[name]
    assert (mask.sum(1) >= 1).all()
    assert int(mask.sum()) == round(36 * 36 * 0.05)
    moved = shuffle({name: mask}, torch.Generator().manual_seed(0), layouts=layouts(model))[name]
    assert (moved.sum(1) >= 1).all()
    assert int(moved.sum()) == int(mask.sum())
    with pytest.raises(PruningError, match="without a weight for each of the 36 norms"):
        pruned(model, PruneRule(fraction=0.98, include=("fc.weight",)))


# ---- one weight, several names


@pytest.mark.parametrize("reverse", [False, True])
def test_a_shared_weight_is_one_decision(recipe_file: Write, reverse: bool) -> None:
    model, rule = nets.Tied(reverse), PruneRule(fraction=0.5)
    first = "head.weight" if reverse else "embedding.weight"
    assert list(prunable(model)) == ["body.weight", "pick.weight"]
    for name in ("embedding", "head"):
        assert set(prunable(model, (name,))) == {first, "body.weight", "pick.weight"}
        kept = pruned(model, rule.model_copy(update={"include": ("head",), "exclude": (name,)}))
        assert bool(kept[first].all())
        less = pruned(model, rule.model_copy(update={"include": ("embedding",), "rates": ((name, 0.25),)}))
        assert int(less[first].sum()) == 408
        facts = prepared(
            recipe_file, "Tied", f"pruning.include=[{name}]", f"pruning.rates={{{name}: 0.25}}", reverse=reverse
        )
        assert facts.facts.layers[first].weights == 544
    one_a_row = pruned(model, rule.model_copy(update={"include": ("head",), "scope": "row"}))[first]
    assert one_a_row.sum(1).tolist() == [16] * 17


def test_two_linear_layers_that_share_a_weight_are_pruned_once() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    assert list(prunable(model)) == ["0.weight"]
    for name in ("0", "1"):
        with pytest.raises(PruningError, match="leaves no layer"):
            pruned(model, PruneRule(fraction=0.5, exclude=(name,)))
    model.dense_by_default = ("1",)  # type: ignore[assignment]
    with pytest.raises(PruningError, match="no linear or convolution layer"):
        prunable(model)


# ---- keys


@pytest.mark.parametrize(
    ("model", "rule", "version"),
    [
        (nets.Recurrent(), {"include": ("rnn.weight_*",)}, 1),
        (nets.Recurrent(), {"include": ("rnn.weight_*",), "scope": "row"}, 2),
        (nets.Decoder(), {}, 1),
        (nets.Decoder(), {"scope": "row"}, 2),  # because of its groups
        (nets.Encoder(), {"scope": "row"}, 1),
        (nets.Encoder(), {"include": ("*.in_proj_weight",)}, 2),
        (nets.Normed(), {}, 1),
        (nets.Normed(), {"include": ("fc.weight",)}, 2),
        (nets.Tied(), {}, 1),
        (nets.Tied(), {"include": ("embedding",)}, 1),
        (nets.Tied(), {"include": ("head",)}, 2),
        (nets.Tied(reverse=True), {}, 2),
    ],
)
def test_only_rules_that_now_mean_another_mask_have_another_key(
    model: nn.Module, rule: dict[str, Any], version: int
) -> None:
    assert layout_version(model, PruneRule(fraction=0.5, **rule)) == version


# ---- from a recipe to files


@pytest.mark.parametrize(
    ("model", "options", "include"),
    [
        ("Recurrent", {}, "rnn.weight_*"),
        ("Encoder", {}, "*.in_proj_weight"),
        ("Normed", {"norm": "older weight"}, "*.weight_v"),
        ("Tied", {"reverse": True}, "embedding"),
    ],
)
def test_runs_of_a_recipe(
    recipe_file: Write, tmp_path: Path, model: str, options: dict[str, Any], include: str
) -> None:
    component = json.dumps({"name": f"{NETS}:{model}", **options})
    short = ["training.duration=2it", "training.evaluate_every=2it", "replicates=1", "variants.random_pruning=true"]
    own = [f"task.model={component}", "pruning.rates={}", f"pruning.include=['{include}']"]
    made, store = jobs(recipe_file(), *short, *own), DirectoryStore(tmp_path)
    layers: dict[int, list[dict[str, Any]]] = {1: [], 2: []}
    for (variant, level, _), job in made.items():
        assert produce(job, store, CPU, Hooks()) == "trained"
        run = SealedRun(store, job.folder)
        masks = masks_from_bytes(run.read("mask.safetensors"), "")
        built = create(job.task, job.base).build_model()
        built.load_state_dict(read_weights(run))
        weights = {**dict(built.named_parameters()), **computed(built)}
        for name, mask in masks.items():
            assert bool((weights[name][~mask] == 0).all())
        if level:
            layers[level].append(run.read_json("metrics.json")["layers"])
            assert masks.keys() == prunable(built, (include,)).keys(), variant
    for several in layers.values():
        assert len(several) == 4
        assert all(one == several[0] for one in several), "a control has other numbers than its ticket"
        assert (
            0
            < sum(layer["kept"] for layer in several[0].values())
            < sum(layer["total"] for layer in several[0].values())
        )


def test_a_network_of_recurrent_layers_alone(recipe_file: Write, tmp_path: Path) -> None:
    """Its dense baseline has nothing that is pruned by default."""
    short = [
        "training.duration=2it",
        "training.evaluate_every=2it",
        "replicates=1",
        "pruning.levels=1",
        "pruning.rates={}",
    ]
    own = [f"task.model={__name__}:OnlyRecurrent", "pruning.include=['weight_*']", f"store={tmp_path}"]
    gates = ["gates.metrics={accuracy: {max_drop: 99}}"]
    recipe = ticketsmith.load(
        recipe_file(), [*short, *own, *gates, "variants={random_reinit: false, random_ticket: false}"]
    )
    plan, store = prepare(recipe).plan, DirectoryStore(tmp_path)
    store.put("digits/plan.json", plan.to_bytes())
    store.put("digits/recipe.yaml", recipe.source.encode())
    for node in plan.nodes:
        produce(Job(node.spec, node.folder("digits"), recipe.task_component, recipe.base, ""), store, CPU, Hooks())
    experiment = ticketsmith.open_experiment("digits", tmp_path)
    assert {run.level: (run.kept, run.total, run.sparsity) for run in experiment.results} == {
        0: (0, 0, 0.0),
        1: (370, 740, 0.5),
    }
    experiment.judge()
    exported = experiment.export(tmp_path / "out", ["ticket", "safetensors"], variant="dense")
    assert [entry["max_error"] for entry in exported.document["files"]] == [0.0, 0.0]
    with pytest.raises(PruningError, match=r"name parameters under `pruning\.include`"):
        prepared(recipe_file, "Recurrent", f"task.model={__name__}:OnlyRecurrent")


class OnlyRecurrent(nn.RNN):
    def __init__(self) -> None:
        super().__init__(64, 10, batch_first=True, bias=False)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x.flatten(1)[:, None])[0][:, 0]  # type: ignore[no-any-return]


def test_the_arithmetic_of_recurrent_and_attention_layers_is_counted() -> None:
    def flops(model: nn.Module) -> int:
        holder: Any = type(
            "Held", (), {"build_model": lambda self: model, "example": lambda self, n: torch.zeros(n, 1, 8, 8)}
        )
        return forward_flops(holder())

    weights = sum(w.numel() for name, w in nets.Recurrent().named_parameters() if name.startswith("rnn.weight"))
    assert flops(nets.Recurrent()) == 2 * 8 * weights + 2 * 160
    body = nets.Encoder().body
    matrices = sum(w.numel() for w in body.parameters() if w.dim() > 1)
    assert flops(nets.Encoder()) >= 2 * 8 * matrices
