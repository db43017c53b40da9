"""A file whose layers have precisions of their own: the fastest that passes its gates, judged as it is served."""

from __future__ import annotations

import shutil
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import ticketsmith
from tests.conftest import DIGITS
from ticketsmith import api, runtime
from ticketsmith.candidates import forms, measure, mixed, shelf
from ticketsmith.candidates.judging import TimeIsOverError, judge
from ticketsmith.cli.main import group
from ticketsmith.errors import RecipeError
from ticketsmith.evidence.candidates import Judgement
from ticketsmith.evidence.rounds import Ratio
from ticketsmith.evidence.verdicts import Gate, Status
from ticketsmith.inference.settings import BenchmarkSettings
from ticketsmith.runtime.artifact import open_artifact
from ticketsmith.runtime.from_torch import from_torch
from ticketsmith.runtime.graph import PRODUCTS, Graph
from ticketsmith.runtime.precision import rounded
from ticketsmith.runtime.tune import Measured
from ticketsmith.tasks.build import single_example

pytestmark = pytest.mark.usefixtures("undrawn")

SECONDS = {"fc1": {"int8": 0.5, "bfloat16": 0.7}, "fc2": {"int8": 0.9, "bfloat16": 1.0}, "output": {}}
"""What a call of each layer takes, as a part of what it takes in float32: this network is too small to gain anything."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mixed")
    (folder / "recipe.yaml").write_text(DIGITS)
    recipe = api.load(folder / "recipe.yaml", [f"store={folder / 'runs'}", "pruning.levels=1"])
    api.train(api.prepare(recipe), executor="debug", variants=("ticket",))
    return folder / "runs"


@pytest.fixture(autouse=True)
def speeds(monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(graph: Graph, precision: str) -> list[Measured]:
        return [
            Measured(f"vector:{node.output}", 1.0, {"gemv": 1e-5 * share}, "gemv")
            for node in graph.nodes
            if node.op in PRODUCTS
            for share in [SECONDS[node.weights["weight"].partition(".")[0]].get(precision, 1.0)]
        ]

    monkeypatch.setattr(mixed, "measured", measured)
    monkeypatch.setattr(mixed, "network_choices", lambda *_: {})
    monkeypatch.setattr(mixed._Search, "raced", lambda *_: Ratio(1.5, 1.4, 1.6))
    monkeypatch.setattr(measure, "footprint", lambda *_: None)


def open_(store: Path) -> ticketsmith.Experiment:
    return ticketsmith.open_experiment("digits", store)


def test_layers_that_gain_are_lowered_and_the_very_file_is_judged(store: Path, tmp_path: Path) -> None:
    place = tmp_path / "auto.tsk"
    experiment = open_(store)
    export = experiment.export(
        place, ["tsk"], variant="dense", sparsity=0.0, precision="auto", gates=[Gate("accuracy", 30.0)]
    )
    (entry,) = export.document["files"]
    assert {layer["layer"]: layer["precision"] for layer in entry["layers"]} == {
        "fc1": "int8",
        "fc2": "int8",
        "output": "float32",
    }
    assert entry["layers"][0]["validation_loss"].keys() == {"int8", "bfloat16"}
    file, run = open_artifact(place), experiment.find(0.0, variant="dense")
    whole = rounded(from_torch(experiment.model(run), single_example(experiment.task, 1)), "int8")
    for name in ("fc1.weight", "fc2.weight"):
        np.testing.assert_array_equal(file.graph.tensors[name], whole.tensors[name])
    assert not np.array_equal(file.graph.tensors["output.weight"], whole.tensors["output.weight"])
    assert file.precision == {"fc1.weight": "int8", "fc2.weight": "int8"}
    again = judge(experiment.task, runtime.load(place), 1, lambda count: None)
    assert again.test == entry["test"]
    (gate,) = entry["gates"]
    assert gate["status"] == "PASS"


def test_what_breaks_a_gate_stays_in_float32(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounding fc1 is made to cost everything, in any precision."""
    write = mixed._Search.write

    def broken(search: mixed._Search, precisions: dict[str, str]) -> object:
        file = write(search, precisions)
        if "fc1.weight" in precisions:
            for path in file.paths:
                artifact = open_artifact(path)
                artifact.graph.tensors["fc1.weight"][:] = 0.0
                runtime.save(path, artifact.graph, None, artifact.precision)
        return file

    monkeypatch.setattr(mixed._Search, "write", broken)
    gates = [Gate("accuracy", 30.0)]
    export = open_(store).export(
        tmp_path / "auto.tsk", ["tsk"], variant="dense", sparsity=0.0, precision="auto", gates=gates
    )
    (entry,) = export.document["files"]
    first, second, _ = entry["layers"]
    assert (first["precision"], second["precision"]) == ("float32", "int8")
    assert "validation" in first["why"]


def test_without_a_sure_gain_float32_is_kept(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixed._Search, "raced", lambda *_: Ratio(1.01, 0.98, 1.04))
    place = tmp_path / "auto.tsk"
    words = ["--experiment", "digits", "--variant", "dense", "--format", "tsk", "--precision", "auto"]
    said = CliRunner().invoke(group, ["export", str(store), *words, "--gate", "accuracy=30", "--output", str(place)])
    assert said.exit_code == 0, said.output
    assert "float32 is kept" in " ".join(said.output.split())
    assert open_artifact(place).precision == "float32"


def test_where_not_even_float32_passes_nothing_is_written(store: Path, tmp_path: Path) -> None:
    place = tmp_path / "auto.tsk"
    words = ["--experiment", "digits", "--sparsity", "0.4", "--format", "tsk", "--precision", "auto"]
    said = CliRunner().invoke(group, ["export", str(store), *words, "--gate", "accuracy=0.001", "--output", str(place)])
    assert isinstance(said.exception, mixed.NothingPassesError)
    assert said.exception.exit_status == 3
    assert "not even float32 passes" in str(said.exception)
    assert not place.exists()
    for wrong in ("accuracy", "accuracy=much", "=1", "accuracy=-1"):
        refused = CliRunner().invoke(group, ["export", str(store), *words, "--gate", wrong])
        assert "expected METRIC=LOSS" in str(refused.exception)


def test_when_the_time_is_over_the_best_so_far_is_the_file(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment, whole = open_(store), mixed.fastest
    # a clock that passes a second at every look, of which each example that is judged is one
    monkeypatch.setattr(mixed, "fastest", lambda question: whole(question, partial(next, count(0.0))))
    result, gates = experiment.find(0.0, variant="dense"), [Gate("accuracy", 30.0)]

    def within(seconds: float) -> mixed.Mixed:
        return experiment._fastest(result, gates, seconds, lambda text: None)

    short, long = within(4000.0), within(1e6)
    assert 0 < len(short.precisions) <= len(long.precisions) == 2
    assert "The time was over; not tried: " in " ".join(short.words)
    assert "The time was over" not in " ".join(long.words)
    assert {one.status for one in short.verdicts} == {Status.PASS}
    with pytest.raises(TimeIsOverError, match="before the file in float32 was judged"):
        within(1.0)
    with pytest.raises(RecipeError, match="--budget 5: some seconds for --precision auto"):
        experiment.export("nothing", ["tsk"], budget=5.0)


def test_it_is_a_candidate_that_is_searched_once_a_level(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(store, tmp_path / "runs")
    monkeypatch.setattr(forms, "FORMS", {name: forms.FORMS[name] for name in ("sparse", "sparse-auto")})
    monkeypatch.setattr("ticketsmith.export.tsk_file.tuned_choices", lambda *_: {})
    settings, experiment = (
        BenchmarkSettings(precisions=("mixed",), batch_sizes=(1,), rounds=10),
        open_(tmp_path / "runs"),
    )
    choice = experiment.measure_candidates(settings)
    own = [one for one in choice.candidates if one.form == "sparse-auto"]
    assert {one.variant for one in own} == {"dense", "ticket"}
    assert {time.candidate.form for time in choice.lead.times} == {"sparse", "sparse-auto"}
    kinds = {("dense", "mixed"): "quantise", ("ticket", "mixed"): "both", ("dense", "float32"): "neither"}
    for one in own:
        assert kinds.get((one.variant, one.precision), "prune") == one.kind
        assert [judgement.seed for judgement in one.judgements] == [0, 1]
        files = [open_artifact(_place(tmp_path / "runs", judgement)) for judgement in one.judgements]
        assert len({str(file.precision) for file in files}) == 1  # what was chosen is the level's

    def searched(question: mixed.Question) -> mixed.Mixed:
        raise AssertionError("searched again")

    monkeypatch.setattr(mixed, "fastest", searched)
    lost = next(one for one in own if one.variant == "dense").judgements[1]
    shutil.rmtree(_place(tmp_path / "runs", lost).parent)
    again = open_(tmp_path / "runs").measure_candidates(settings)
    assert not again.lacks
    assert lost.sha256 in {one.sha256 for candidate in again.candidates for one in candidate.judgements}


def _place(runs: Path, one: Judgement) -> Path:
    return runs / shelf.folder("digits", one.sha256) / one.files[0].name


def test_a_number_of_precisions_by_name_is_read_back(store: Path, tmp_path: Path) -> None:
    experiment = open_(store)
    experiment.export(tmp_path / "plain.tsk", ["tsk"], variant="dense", sparsity=0.0, tuned=False)
    graph = open_artifact(tmp_path / "plain.tsk").graph
    runtime.save(tmp_path / "own.tsk", graph, None, {"output.weight": "bfloat16"})
    assert open_artifact(tmp_path / "own.tsk").precision == {"output.weight": "bfloat16"}
    with pytest.raises(RecipeError, match="no tensor of this network that can be int8"):
        runtime.save(tmp_path / "own.tsk", graph, None, {"output.bias": "int8"})
