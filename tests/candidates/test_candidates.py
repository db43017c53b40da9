"""Candidates are files: what is timed, judged and recommended is that file, on real runtimes."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from onnx import numpy_helper

import ticketsmith
from tests.conftest import DIGITS
from ticketsmith import api, runtime
from ticketsmith.candidates import forms, measure, shelf, timing
from ticketsmith.candidates.forms import Form, Network
from ticketsmith.candidates.judging import TIME_IS_OVER
from ticketsmith.cli.main import group
from ticketsmith.engines import onnx_runtime
from ticketsmith.errors import DamagedRunError, RecipeError, TicketSmithError
from ticketsmith.inference.settings import PRECISIONS, BenchmarkSettings
from ticketsmith.inference.tables.footprint import Footprint, footprint
from ticketsmith.report.candidates import document

pytestmark = pytest.mark.usefixtures("undrawn")

NAMES = ("onnxruntime", "onnxruntime-int8-dynamic", "onnxruntime-int8-static-minmax", "sparse", "sparse-int8")
SETTINGS = BenchmarkSettings(precisions=PRECISIONS, batch_sizes=(1, 7), rounds=10)


def _write_broken(network: Network, folder: Path) -> None:
    """The network in less than a byte a weight, which is fast and wrong."""
    model = onnx.load(str(network.onnx))
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        tensor.CopyFrom(numpy_helper.from_array(np.sign(values).astype(values.dtype)[::-1].copy(), tensor.name))
    onnx.save(model, str(folder / "model.onnx"))


def _load_broken(path: Path, threads: int, batch: int | None) -> Any:
    return onnx_runtime.load(path, threads)


BROKEN = Form("broken", "onnxruntime", "int8", ("onnxruntime",), ("model.onnx",), _write_broken, _load_broken)
MEMORY = Footprint(1.5, 2.5, 30_000_000, 40_000_000, 1_000, 20_000_000, 4_000_000)
FORMS = {name: forms.FORMS[name] for name in NAMES} | {"broken": BROKEN}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("candidates")
    (folder / "recipe.yaml").write_text(DIGITS)
    recipe = api.load(folder / "recipe.yaml", [f"store={folder / 'runs'}"])
    trained = api.train(api.prepare(recipe), executor="debug", variants=("ticket",))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forms, "FORMS", FORMS)
        patch.setattr(timing, "FORMS", FORMS)
        patch.setattr("ticketsmith.export.tsk_file.tuned_choices", lambda *_: {})  # takes seconds for each file
        patch.setattr(measure, "footprint", lambda *_: MEMORY)  # a process for each file
        trained.measure_candidates(SETTINGS, machine="here=0.10")
    return folder / "runs"


@pytest.fixture(autouse=True)
def _no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "footprint", lambda *_: MEMORY)


@pytest.fixture
def experiment(store: Path, monkeypatch: pytest.MonkeyPatch) -> ticketsmith.Experiment:
    monkeypatch.setattr(forms, "FORMS", FORMS)
    monkeypatch.setattr(timing, "FORMS", FORMS)
    return ticketsmith.open_experiment("digits", store)


def _rows(experiment: ticketsmith.Experiment) -> list[dict[str, Any]]:
    plain = document(experiment.findings)
    assert plain is not None
    assert not plain["lacking"]
    rows: list[dict[str, Any]] = plain["settings"][0]["candidates"]
    return rows


def _check(rows: list[dict[str, Any]], experiment: ticketsmith.Experiment) -> None:
    """Finds every number of a file again by loading it."""
    for row in rows:
        path = Path(experiment.store.url, "digits", row["files"][0]["path"])
        content = path.read_bytes()
        assert hashlib.sha256(content).hexdigest() == row["sha256"] == row["files"][0]["sha256"]
        assert len(content) == row["bytes"]
        assert _accuracy(path, experiment) == pytest.approx(row["by_seed"]["0"], abs=1e-9), row["form"]
        assert set(row["by_seed"]) == {"0", "1"}


def _accuracy(path: Path, experiment: ticketsmith.Experiment) -> float:
    """Of a file, by its own library, on the test split."""
    import onnxruntime

    inputs, labels = experiment.task._splits[torch.device("cpu"), "test"]
    images = experiment.task._normal(inputs).numpy()
    if path.suffix == ".tsk":
        served = runtime.load(path)
        outputs = [served(images[index : index + 1]) for index in range(len(images))]
    else:
        session = onnxruntime.InferenceSession(str(path))
        outputs = [session.run(None, {"input": images[index : index + 1]})[0] for index in range(len(images))]
    return 100.0 * float(np.mean(np.concatenate(outputs).argmax(1) == labels.numpy()))


def test_every_number_is_found_again_by_loading_the_named_file(experiment: ticketsmith.Experiment) -> None:
    rows = _rows(experiment)
    # dense and the sweet spot in every form, the other level where zeros are skipped
    assert len(rows) == 2 * len(FORMS) + 2
    _check(rows, experiment)


def test_other_instructions_are_another_machine_with_judgements_of_its_own(
    experiment: ticketsmith.Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(experiment.store.url, tmp_path / "runs")
    monkeypatch.setattr("ticketsmith.export.tsk_file.tuned_choices", lambda *_: {})
    monkeypatch.setenv("TICKETSMITH_ISA", "portable")
    other = ticketsmith.open_experiment("digits", tmp_path / "runs")
    few = replace(SETTINGS, runtimes=("onnxruntime", "sparse-int8"), precisions=("int8",), batch_sizes=(1,))
    other.measure_candidates(few, levels=[1])
    scorecard = ["scorecard", "--runs-prefix", str(tmp_path / "runs"), "--json"]
    (plain,) = json.loads(CliRunner().invoke(group, scorecard).stdout)
    rows = plain["candidates"]["settings"][0]["candidates"]
    assert plain["candidates"]["verdict"]
    assert {"sparse-int8", "onnxruntime"} <= {row["form"] for row in rows}
    assert {row["level"] for row in rows} == {0, 1}
    _check(rows, other)
    judged = shelf.judgements(other.store, "digits").values()
    assert len({one.place for one in judged if one.form == "sparse-int8"}) == 2
    assert len({one.place for one in judged if one.form == "onnxruntime"}) == 1


def test_a_level_that_was_not_trained_is_told_at_once(experiment: ticketsmith.Experiment) -> None:
    words = ["benchmark", "--runs-prefix", experiment.store.url, "--experiment", "digits", "--level", "9"]
    for more, told in ((["--candidates"], "has level 9; there are 1 and 2."), ([], "--level is for --candidates")):
        ended = CliRunner().invoke(group, [*words, *more])
        assert isinstance(ended.exception, RecipeError)
        assert told in str(ended.exception)


@pytest.mark.parametrize("name", ["onnxruntime", "sparse"])
def test_memory_is_that_of_a_process_which_serves_the_very_file(
    name: str, experiment: ticketsmith.Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = next(row for row in _rows(experiment) if row["form"] == name)
    assert (row["private_bytes"], row["added_bytes"], row["load_ms"]) == (20_000_000, 4_000_000, 1.5)
    path, deploy = Path(experiment.store.url, "digits", row["files"][0]["path"]), FORMS[name].deploy
    assert deploy is not None
    shown = footprint(deploy(path, 1), np.zeros((1, *experiment.task.example(1).shape[1:]), np.float32), 1, path.parent)
    (path.parent / "inputs.npy").unlink()
    assert shown is not None
    assert shown.private_bytes is not None
    assert shown.added_bytes is not None
    assert 0 < shown.added_bytes < shown.private_bytes < shown.peak_bytes
    assert row["bytes"] < shown.private_bytes
    assert shown.load_ms > 0


def test_what_computes_something_else_loses_its_gate_and_is_not_deployed(experiment: ticketsmith.Experiment) -> None:
    rows = _rows(experiment)
    broken = [row for row in rows if row["form"] == "broken"]
    assert {row["gate"] for row in broken} == {"FAIL"}
    choice = experiment.findings.choice
    assert choice is not None
    assert choice.lead.choice is not None
    for setting in choice.settings:
        assert "broken" in {time.candidate.form for time in setting.times}
        assert "broken" not in {time.candidate.form for time in (*setting.best.values(), setting.rival) if time}


def test_a_second_call_judges_nothing(experiment: ticketsmith.Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path: path.stat().st_mtime_ns for path in Path(experiment.store.url, "digits/candidates").rglob("*.*")}

    def judge(*_: Any) -> Any:
        raise AssertionError("judged again")

    monkeypatch.setattr(measure, "judge", judge)
    choice = experiment.measure_candidates(SETTINGS)
    assert not choice.lacks
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert choice.rate is None


def test_a_recipe_asks_for_them_and_they_are_raced_once(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = shutil.copytree(store, tmp_path / "runs")
    (own / "digits/candidates.json").unlink()
    (tmp_path / "recipe.yaml").write_text(DIGITS)
    more = ["benchmark={candidates: true, batch_sizes: [1], rounds: 10}"]
    recipe = api.load(tmp_path / "recipe.yaml", [f"store={own}", *more])
    monkeypatch.setattr(forms, "FORMS", {name: FORMS[name] for name in ("onnxruntime", "sparse")})
    monkeypatch.setattr(timing, "FORMS", FORMS)
    monkeypatch.setattr(api.Experiment, "time_inference", lambda *_, **__: None)
    trained = api.train(api.prepare(recipe), executor="debug", variants=("ticket",))
    report = api.finish(trained)
    assert report is not None
    choice = api.open_experiment("digits", own).findings.choice
    assert choice is not None
    assert {one.form for one in choice.candidates} == {"onnxruntime", "sparse"}
    assert f"{choice.lead.times[0].entry.sha256[:12]}" in (Path(report).parent / "report.md").read_text()
    before = (own / "digits/candidates.json").stat().st_mtime_ns
    api.finish(api.train(api.prepare(recipe), executor="debug", variants=("ticket",)))
    assert (own / "digits/candidates.json").stat().st_mtime_ns == before


def test_a_file_that_was_changed_is_neither_timed_nor_told(experiment: ticketsmith.Experiment, tmp_path: Path) -> None:
    shutil.copytree(experiment.store.url, tmp_path / "runs")
    other = ticketsmith.open_experiment("digits", tmp_path / "runs")
    row = _rows(other)[0]
    path = tmp_path / "runs/digits" / row["files"][0]["path"]
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(DamagedRunError, match=rf"{row['sha256'][:16]}.*is not the file that was judged"):
        other.measure_candidates(SETTINGS)


def test_a_spent_budget_leaves_out_the_rest_and_the_next_call_goes_on(
    experiment: ticketsmith.Experiment, tmp_path: Path
) -> None:
    shutil.copytree(experiment.store.url, tmp_path / "runs")
    shutil.rmtree(tmp_path / "runs/digits/candidates")
    other = ticketsmith.open_experiment("digits", tmp_path / "runs")
    few = replace(SETTINGS, runtimes=("onnxruntime",), precisions=("float32",), batch_sizes=(1,), budget=12.0)
    seconds = count()  # a clock that passes a second at every look
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "measure", partial(measure.measure, clock=lambda: float(next(seconds))))
        short = other.measure_candidates(few)
    assert {one.reason for one in short.lacks} == {TIME_IS_OVER}
    judged = sum(len(one.judgements) for one in short.candidates)
    whole = other.measure_candidates(replace(few, budget=None))
    assert not whole.lacks
    assert 0 < judged < sum(len(one.judgements) for one in whole.candidates) == 4


def test_the_commands_say_the_verdict_and_name_the_files(experiment: ticketsmith.Experiment) -> None:
    scorecard = ["scorecard", "--runs-prefix", experiment.store.url]
    said = CliRunner().invoke(group, scorecard)
    assert said.exit_code == 0, said.output
    choice = experiment.findings.choice
    assert choice is not None
    assert choice.lead.choice is not None
    words = {"neither": "Neither prune", "quantise": "Quantise, do", "prune": "Prune, do", "both": "Prune and quantise"}
    assert choice.verdict is not None
    assert f"digits: {words[choice.verdict]}" in said.output
    assert choice.lead.choice.entry.sha256[:12] in said.output
    plain = json.loads(CliRunner().invoke(group, [*scorecard, "--json", "--machine", "there=1.0"]).output)
    assert plain[0]["candidates"]["rate"]["machine"] == "there"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--runtime", "onnxruntme"], "no candidate is of this runtime. Did you mean 'onnxruntime'"),
        (["--layers"], "--layers and --load are for the benchmark without"),
        (["--model", "a.b:c", "--shape", "1"], "are those of an experiment"),
        (["--device", "cuda"], "are files for CPUs"),
    ],
)
def test_what_makes_no_sense_is_told_in_a_line(
    experiment: ticketsmith.Experiment, options: list[str], message: str
) -> None:
    command = ["benchmark", "--candidates", "--runs-prefix", experiment.store.url, *options]
    with pytest.raises(RecipeError, match=message):
        CliRunner().invoke(group, command, catch_exceptions=False, standalone_mode=False)


@pytest.fixture(scope="module")
def labelled(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the dense network and a ticket as ONNX files, and the digits that they were trained on, normalised."""
    folder, one = tmp_path_factory.mktemp("onnx"), ticketsmith.open_experiment("digits", store)
    for variant, sparsity in (("dense", None), ("ticket", 0.4)):
        one.export(folder / f"{variant}.onnx", ["onnx"], variant=variant, sparsity=sparsity)
    cpu = torch.device("cpu")
    arrays = {}
    for split in ("train", "test"):
        inputs, arrays[f"y_{split}"] = one.task._splits[cpu, split]
        arrays[f"x_{split}"] = one.task._normal(inputs).numpy()
    np.savez(folder / "digits.npz", **{name: np.asarray(array) for name, array in arrays.items()})
    arrays |= {name: arrays[name][..., 2:] for name in ("x_train", "x_test")}
    np.savez(folder / "narrow.npz", **{name: np.asarray(array) for name, array in arrays.items()})
    whole = dict(np.load(folder / "digits.npz"))
    np.savez(folder / "others.npz", **whole | {"y_test": (whole["y_test"] + 1) % 10})
    np.savez(folder / "single.npz", **whole | {"x_test": whole["x_test"][:1], "y_test": whole["y_test"][:1]})
    model = onnx.load(str(folder / "dense.onnx"))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, str(folder / "fixed.onnx"))
    model = onnx.load(str(folder / "dense.onnx"))
    weight = next(one for one in model.graph.initializer if one.data_type == onnx.TensorProto.FLOAT)
    weight.CopyFrom(numpy_helper.from_array(np.full_like(numpy_helper.to_array(weight), np.nan), weight.name))
    onnx.save(model, str(folder / "nan.onnx"))
    return folder


def test_a_model_of_others_is_judged_by_labelled_data(labelled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        forms, "FORMS", {name: FORMS[name] for name in ("onnxruntime", "onnxruntime-int8-dynamic", "broken")}
    )
    monkeypatch.setattr(timing, "FORMS", FORMS)
    monkeypatch.chdir(labelled)
    command = ["benchmark", "--candidates", "--onnx", "ticket.onnx", "--against", "dense.onnx", "--data", "digits.npz"]
    said = CliRunner().invoke(group, [*command, "--max-drop", "5", "--batch-size", "1", "--rounds", "10", "--json"])
    assert said.exit_code == 0, said.output
    plain = json.loads(said.stdout.splitlines()[-1])["candidates"][0]
    rows = plain["settings"][0]["candidates"]
    assert {(row["variant"], row["form"]) for row in rows} == {
        (variant, form)
        for variant in ("dense", "pruned")
        for form in ("onnxruntime", "onnxruntime-int8-dynamic", "broken")
    }
    assert {row["gate"] for row in rows if row["form"] == "broken"} == {"FAIL"}
    assert next(row["gate"] for row in rows if (row["variant"], row["form"]) == ("dense", "onnxruntime")) == "PASS"
    assert next(row["sparsity"] for row in rows if row["variant"] == "pruned") > 0.4
    for row in rows:
        assert (labelled / "candidates/ticket" / row["files"][0]["path"]).is_file()
    # what is known of a file is known for the data that it was judged by
    part = {name: array[: len(array) // 2] for name, array in np.load("digits.npz").items()}
    np.savez("half.npz", **part)
    command[-1] = "half.npz"
    said = CliRunner().invoke(group, [*command, "--max-drop", "20", "--batch-size", "1", "--rounds", "10", "--json"])
    assert said.exit_code == 0, said.output
    again = json.loads(said.stdout.splitlines()[-1])["candidates"][0]["settings"][0]["candidates"]
    judged = [{(row["variant"], row["form"]): row["by_seed"]["0"] for row in one} for one in (rows, again)]
    assert judged[0] != judged[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "say by which labelled data files are judged"),
        (["--data", "narrow.npz"], r"inputs of \(1, 8, 6\) do not fit the model's, \(1, 8, 8\)"),
        (["--data", "nothing.npz"], "nothing.npz"),
        (["--data", "others.npz"], "on the test split of others.npz, no more than guessing"),
        (["--data", "single.npz"], "one test example"),
        (["--data", "digits.npz", "--against", "fixed.onnx"], "fixed.onnx: its batch has a fixed size"),
        (["--data", "digits.npz", "--against", "nan.onnx"], "nan.onnx cannot be judged .* it gives NaN"),
    ],
)
def test_labelled_data_that_does_not_fit_is_told(
    labelled: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], message: str
) -> None:
    monkeypatch.chdir(labelled)
    command = ["benchmark", "--candidates", "--onnx", "dense.onnx", *options]
    with pytest.raises(TicketSmithError, match=message):
        CliRunner().invoke(group, command, catch_exceptions=False, standalone_mode=False)
