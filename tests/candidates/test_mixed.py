"""A file whose layers have precisions of their own: the fastest that passes its gates, judged as it is served."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import ticketsmith
from tests.conftest import DIGITS
from ticketsmith import api, runtime
from ticketsmith.candidates import mixed
from ticketsmith.candidates.judging import judge
from ticketsmith.cli.main import group
from ticketsmith.errors import RecipeError
from ticketsmith.evidence.rounds import Ratio
from ticketsmith.evidence.verdicts import Gate
from ticketsmith.runtime.artifact import open_artifact
from ticketsmith.runtime.from_torch import from_torch
from ticketsmith.runtime.graph import PRODUCTS, Graph
from ticketsmith.runtime.model import PRECISIONS
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
    def measured(graph: Graph) -> dict[str, list[Measured]]:
        products = [node for node in graph.nodes if node.op in PRODUCTS]
        return {
            precision: [
                Measured(f"vector:{node.output}", 1.0, {"gemv": 1e-5 * share}, "gemv")
                for node in products
                for share in [SECONDS[node.weights["weight"].partition(".")[0]].get(precision, 1.0)]
            ]
            for precision in PRECISIONS
        }

    monkeypatch.setattr(mixed, "measured", measured)
    monkeypatch.setattr(mixed, "network_choices", lambda *_: {})
    monkeypatch.setattr(mixed._Search, "raced", lambda *_: Ratio(1.5, 1.4, 1.6))


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


def test_a_number_of_precisions_by_name_is_read_back(store: Path, tmp_path: Path) -> None:
    experiment = open_(store)
    experiment.export(tmp_path / "plain.tsk", ["tsk"], variant="dense", sparsity=0.0, tuned=False)
    graph = open_artifact(tmp_path / "plain.tsk").graph
    runtime.save(tmp_path / "own.tsk", graph, None, {"output.weight": "bfloat16"})
    assert open_artifact(tmp_path / "own.tsk").precision == {"output.weight": "bfloat16"}
    with pytest.raises(RecipeError, match="no tensor of this network that can be int8"):
        runtime.save(tmp_path / "own.tsk", graph, None, {"output.bias": "int8"})
