"""Candidates of a model that decodes are judged as its tokens are served."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import ticketsmith
from ticketsmith import api, runtime
from ticketsmith.candidates import forms, measure, mixed, shelf
from ticketsmith.candidates.judging import judge
from ticketsmith.evidence.rounds import Ratio
from ticketsmith.evidence.verdicts import Gate
from ticketsmith.inference.runtimes.decoding import by_token
from ticketsmith.inference.settings import BenchmarkSettings
from ticketsmith.runtime.graph import PRODUCTS, Graph
from ticketsmith.runtime.tune import Measured

pytestmark = pytest.mark.usefixtures("undrawn")

RECIPE = """
experiment: letters
task:
  name: language
  data: {name: text, path: letters.txt}
  model: {name: gpt, width: 32, depth: 1, heads: 2}
  context: 16
training: {optimizer: adamw, lr: 0.01, batch_size: 8, duration: 20it, evaluate_every: 20it}
pruning: {levels: 1, fraction: 0.9}
replicates: 1
gates:
  metrics:
    loss: {max_relative_increase: 2.0}
variants: {random_reinit: false, random_ticket: false}
"""


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> ticketsmith.Experiment:
    folder = tmp_path_factory.mktemp("decoding")
    (folder / "letters.txt").write_text("the quick brown fox jumps over the lazy dog, and then again. " * 60)
    (folder / "recipe.yaml").write_text(RECIPE)
    recipe = api.load(folder / "recipe.yaml", [f"store={folder / 'runs'}"])
    return api.train(api.prepare(recipe), executor="debug", variants=("ticket",))


def test_what_rounds_by_call_is_judged_token_by_token(
    experiment: ticketsmith.Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a sparse network in whole numbers, products with one token round more than those of a window do."""
    monkeypatch.setattr(forms, "FORMS", {name: forms.FORMS[name] for name in ("sparse", "sparse-int8-dot")})
    monkeypatch.setattr("ticketsmith.export.tsk_file.tuned_choices", lambda *_: {})
    monkeypatch.setattr(measure, "footprint", lambda *_: None)
    choice = experiment.measure_candidates(BenchmarkSettings(precisions=("int8",), batch_sizes=(2,), rounds=10))
    assert not choice.lacks
    one = next(one for one in choice.candidates if (one.variant, one.form) == ("ticket", "sparse-int8-dot"))
    (own,) = one.judgements
    assert own.place.endswith(", token by token")
    path = Path(experiment.store.url, shelf.folder("letters", own.sha256), own.files[0].name)
    served = runtime.load(path)
    again = {name: judge(experiment.task, arrays, 2, lambda count: None).test for name, arrays in
             {"tokens": by_token(served), "windows": served}.items()}  # fmt: skip
    assert own.test == again["tokens"] != again["windows"]


def test_an_export_is_judged_as_its_tokens_are_served(experiment: ticketsmith.Experiment, tmp_path: Path) -> None:
    experiment.export(tmp_path, ["tsk"], variant="ticket", precision="int8_dot", sparsity=0.9, tuned=False, force=True)
    (entry,) = json.loads((tmp_path / "export.json").read_text())["files"]
    served = runtime.load(next(tmp_path.rglob("*.tsk")))
    again = {name: judge(experiment.task, arrays, 1, lambda count: None).test for name, arrays in
             {"tokens": by_token(served), "windows": served}.items()}  # fmt: skip
    assert entry["test"]["loss"] == pytest.approx(again["tokens"]["loss"], rel=1e-6)
    assert entry["test"]["loss"] != pytest.approx(again["windows"]["loss"], rel=1e-6)


def test_layers_of_a_decoder_are_lowered_by_the_time_of_a_token(
    experiment: ticketsmith.Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(graph: Graph, precision: str) -> list[Measured]:
        """Tokens gain from int8_dot, whole windows from int4_dot alone, where tokens take longer."""
        share = {"int8_dot": (0.5, 1.0), "int4_dot": (1.5, 0.1)}.get(precision, (1.0, 1.0))
        return [
            Measured(f"{mode}:{node.output}", 1.0, {"gemv": 1e-5 * one}, "gemv")
            for node in graph.nodes
            if node.op in PRODUCTS
            for mode, one in zip(("vector", "positions"), share, strict=True)
        ]

    monkeypatch.setattr(mixed, "measured", measured)
    monkeypatch.setattr(mixed, "network_choices", lambda *_: {})
    monkeypatch.setattr(mixed._Search, "raced", lambda *_: Ratio(1.5, 1.4, 1.6))
    export = experiment.export(
        tmp_path / "auto.tsk", ["tsk"], variant="dense", sparsity=0.0, precision="auto", gates=[Gate("loss", 10.0)]
    )
    (entry,) = export.document["files"]
    assert {layer["precision"] for layer in entry["layers"]} == {"int8_dot"}
    assert "token by token" in entry["said"][0]
