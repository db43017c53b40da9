"""Every format: written, loaded as ``export.json`` says, and equal to the model; refused where it should be."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import ticketsmith
from tests.runtime.networks import ISAS
from ticketsmith import exporter, models
from ticketsmith.engines import Arrays, installed, onnx_runtime, openvino
from ticketsmith.errors import Exit, RecipeError, TicketSmithError
from ticketsmith.export import hugging_face, onnx_file, ticket, tsk_file
from ticketsmith.export.subject import ExportError, ExportSettings, QualityLostError, Subject
from ticketsmith.inference.settings import BenchmarkSettings

kernels = pytest.mark.skipif(not ISAS, reason="the kernels are not built")


def documents(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "export.json").read_text())
    return found


@kernels
def test_all_formats_load_as_they_say_and_give_the_model_s_outputs(
    experiment: ticketsmith.Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = experiment.export(tmp_path / "out", ["all"], sparsity=0.7, tuned=False)
    document = documents(tmp_path / "out")
    assert made.document == document
    assert 0.7 < document["sparsity"] < 0.8
    weights, parameters = document["weights"], document["parameters"]
    gone = weights["total"] - weights["kept"]
    assert document["network_sparsity"] == pytest.approx(gone / parameters)
    assert document["compression"]["network"] == pytest.approx(parameters / (parameters - gone))
    assert "did not come from Hugging Face" in next(
        entry["why"] for entry in document["left_out"] if entry["format"] == "hf"
    )
    model = experiment.ticket(sparsity=0.7)
    inputs = torch.randn(5, *document["input"]["shape"][1:])
    with torch.inference_mode():
        expected = model(inputs).numpy()
    monkeypatch.chdir(tmp_path / "out")
    for entry in document["files"]:
        for name, digest in entry["sha256"].items():
            assert hashlib.sha256(Path(name).read_bytes()).hexdigest() == digest
        assert entry["bytes"] == Path(entry["name"]).stat().st_size
        fresh = models.create("mlp", {"widths": [32, 16]}, (1, 8, 8), 10).eval()
        scope: dict[str, Any] = {"inputs": inputs.numpy(), "model": fresh}
        exec("\n".join(entry["load"]), scope)  # what the file promises
        match entry["format"]:
            case "ticket":
                fresh.load_state_dict({name: torch.tensor(value) for name, value in scope["weights"].items()})
                outputs = fresh(inputs).detach().numpy()
            case "safetensors":
                outputs = fresh(inputs).detach().numpy()
            case "onnx" | "onnx-compact":
                outputs = scope["outputs"][0]
            case "tsk":
                outputs = scope["model"](inputs)
        np.testing.assert_allclose(outputs, expected, atol=1e-4, err_msg=entry["format"])
    assert {entry["format"] for entry in document["files"]} >= {"ticket", "safetensors", "onnx", "tsk"}


def test_export_json_tells_the_quality_with_its_seeds_and_no_place(
    experiment: ticketsmith.Experiment, tmp_path: Path
) -> None:
    experiment.export(tmp_path, ["ticket"], sparsity=0.7)
    document = documents(tmp_path)
    runs = [r for r in experiment.results if (r.variant, r.level) == ("ticket", document["level"])]
    accuracy = document["test"]["accuracy"]
    assert accuracy["all_seeds"]["seeds"] == [0, 1]
    assert accuracy["all_seeds"]["mean"] == pytest.approx(np.mean([r.final.test["accuracy"] for r in runs if r.final]))
    assert accuracy["this_run"] == runs[0].final.test["accuracy"] if runs[0].final else None
    assert document["gate"] in ("PASS", "FAIL", "INCONCLUSIVE")
    assert str(tmp_path.parent) not in (tmp_path / "export.json").read_text()
    assert experiment.store.url not in (tmp_path / "export.json").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["export.json", "model.ticket"]


def test_nothing_is_overwritten_unless_forced(experiment: ticketsmith.Experiment, tmp_path: Path) -> None:
    one = tmp_path / "mine.safetensors"
    one.write_bytes(b"precious")
    with pytest.raises(ExportError, match=r"mine.safetensors is there already.*--force"):
        experiment.export(one, ["safetensors"], sparsity=0.7)
    assert one.read_bytes() == b"precious"
    experiment.export(one, ["safetensors"], sparsity=0.7, force=True)
    assert load_file(one).keys() == experiment.ticket(sparsity=0.7).state_dict().keys()
    assert json.loads((tmp_path / "mine.safetensors.export.json").read_text())["files"][0]["name"] == one.name
    with pytest.raises(ExportError, match="is a file; 2 formats need a folder"):
        experiment.export(one, ["safetensors", "ticket"], sparsity=0.7)


def test_an_export_that_fails_leaves_nothing(experiment: ticketsmith.Experiment, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"hf: LeNet did not come from Hugging Face: .* `hf` and `network` have"):
        experiment.export(tmp_path / "out", ["ticket", "hf"], sparsity=0.7)
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_asked_for(experiment: ticketsmith.Experiment, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"format 'safetensor' is unknown. Did you mean 'safetensors'"):
        experiment.export(tmp_path, ["safetensor"])
    with pytest.raises(RecipeError, match="precision 'int3' is not one of float32"):
        experiment.export(tmp_path, ["tsk"], precision="int3")
    with pytest.raises(RecipeError, match="precision 'int8' is for the format tsk"):
        experiment.export(tmp_path, ["onnx"], precision="int8")
    with pytest.raises(
        TicketSmithError, match=r"has 99.9% of its prunable weights removed, or more. These have 4\d.\d+%, 7"
    ):
        experiment.export(tmp_path, ["ticket"], sparsity=0.999)
    with pytest.raises(TicketSmithError, match="the run 00000000 does not belong"):
        experiment.export(tmp_path, ["ticket"], key="0" * 64)
    with pytest.raises(
        TicketSmithError, match=r"no sealed 'one_shot' run of seed 0. There are: dense \(seed 0\), dense"
    ):
        experiment.export(tmp_path, ["ticket"], sparsity=0.5, variant="one_shot")
    point = next(node.key for node in experiment.plan.nodes if node.variant == "rewind_point")
    with pytest.raises(TicketSmithError, match="is a rewind point"):
        experiment.export(tmp_path, ["ticket"], key=point)


def test_the_dense_network_is_exported_too(experiment: ticketsmith.Experiment, tmp_path: Path) -> None:
    experiment.export(tmp_path / "dense.ticket", variant="dense")
    found = ticket.read(tmp_path / "dense.ticket")
    assert found.sparsity == 0
    assert found.folder.variant == "dense"


def test_a_replicate_beyond_the_margin_is_exported_with_a_warning(
    experiment: ticketsmith.Experiment, finished: Path, tmp_path: Path
) -> None:
    loss = {(r.variant, r.seed): r.final.test["loss"] for r in experiment.results if r.level in (0, 2) and r.final}
    worse = {seed: loss["ticket", seed] - loss["dense", seed] for seed in (0, 1)}
    worst = max(worse, key=lambda seed: worse[seed])
    gate = f"gates.metrics={{loss: {{max_drop: {worse[worst] / 2}}}}}"
    recipe = ticketsmith.load(finished.parent / "recipe.yaml", [gate])
    judged = ticketsmith.Experiment(experiment.store, "digits", recipe)
    made = judged.export(tmp_path / "a.safetensors", ["safetensors"], sparsity=0.7, seed=worst)
    assert f"this run itself, seed {worst}, is" in made.document["warnings"][0]
    assert "beyond the margin" in made.document["warnings"][0]
    dense = judged.export(tmp_path / "b.safetensors", ["safetensors"], variant="dense", seed=worst)
    assert dense.document["warnings"] == []


def test_without_a_sweet_spot_the_sparsities_that_exist_are_told(finished: Path, tmp_path: Path) -> None:
    recipe = ticketsmith.load(finished.parent / "recipe.yaml", ["gates.metrics={accuracy: {max_drop: 1.0e-6}}"])
    store = ticketsmith.open_experiment("digits", finished).store
    with pytest.raises(TicketSmithError, match=r"no level passes its gates; ask for a sparsity. 'ticket' runs .* 7\d"):
        ticketsmith.Experiment(store, "digits", recipe).export(tmp_path, ["ticket"])


@pytest.fixture
def subject(experiment: ticketsmith.Experiment) -> Subject:
    return exporter.subject_of(experiment, experiment.find(0.7))


class Task:
    """Stands for a task of other inputs than those of the experiment."""

    def __init__(self, shape: tuple[int, ...], model: nn.Module) -> None:
        self.shape, self.model = shape, model

    def example(self, batch_size: int) -> Tensor:
        return torch.randn(batch_size, *self.shape, generator=torch.Generator().manual_seed(batch_size))

    def build_model(self) -> nn.Module:
        return self.model


def subject_of(subject: Subject, model: nn.Module, *shape: int) -> Subject:
    model.eval()
    given = {**subject.__dict__, "model": model, "task": Task(shape, model)}
    return Subject(**given)


@pytest.mark.parametrize("name", ["mnist_cnn", "conv2", "resnet20"])
def test_convolutional_networks_become_onnx(subject: Subject, tmp_path: Path, name: str) -> None:
    shape = (1, 28, 28) if name == "mnist_cnn" else (3, 32, 32)
    model = models.create(name, {}, shape, 10)
    written = onnx_file.write_dense(subject_of(subject, model, *shape), tmp_path / "x.onnx", ExportSettings())
    assert written.max_error is not None
    assert written.max_error < 1e-4
    session = onnxruntime.InferenceSession(tmp_path / "x.onnx")
    assert session.get_inputs()[0].shape == ["batch", *shape]
    assert session.get_modelmeta().custom_metadata_map["ticketsmith.key"] == subject.result.key


class Steps(nn.Module):
    """``torch.diff`` is known to the second exporter only."""

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.diff(inputs)


def test_what_the_first_exporter_does_not_know_the_second_may(
    subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    steps = subject_of(subject, Steps(), 8)
    with monkeypatch.context() as patch:
        find = importlib.util.find_spec
        patch.setattr(
            "importlib.util.find_spec", lambda name, *more: None if name == "onnxscript" else find(name, *more)
        )
        with pytest.raises(ExportError, match=r"aten::diff.*; `pip install onnxscript` brings its other exporter"):
            onnx_file.write_dense(steps, tmp_path / "x.onnx", ExportSettings())
    pytest.importorskip("onnxscript")
    written = onnx_file.write_dense(steps, tmp_path / "x.onnx", ExportSettings())
    assert written.max_error is not None
    assert capfd.readouterr() == ("", "")


class Fickle(nn.Module):
    """Gives other outputs once it is traced, which an export cannot hold."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs * len(inputs)


def test_a_file_that_gives_other_outputs_is_refused(subject: Subject, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="the ONNX file gives other outputs than the model: they differ by up to"):
        onnx_file.write_dense(subject_of(subject, Fickle(), 4), tmp_path / "x.onnx", ExportSettings())


def test_a_model_that_onnx_cannot_hold_is_told(subject: Subject, tmp_path: Path) -> None:
    class Two(nn.Module):
        def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
            return inputs, inputs

    with pytest.raises(ExportError, match="gives a tuple; this format takes models of one tensor"):
        onnx_file.write_dense(subject_of(subject, Two(), 4), tmp_path / "x.onnx", ExportSettings())


@kernels
def test_a_tsk_file_holds_models_of_several_outputs_and_of_single_numbers(subject: Subject, tmp_path: Path) -> None:
    class Several(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, inputs: Tensor) -> dict[str, Tensor]:
            return {"features": self.layer(inputs), "score": self.layer(inputs).sum(1)}

    written = tsk_file.write(subject_of(subject, Several(), 4), tmp_path / "x.tsk", ExportSettings(tuned=False))
    assert written.max_error is not None
    assert written.max_error < 1e-5


def test_a_missing_extra_is_told(subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(ExportError, match=r'pip install "ticketsmith\[serve\]"'):
        onnx_file.write_dense(subject, tmp_path / "x.onnx", ExportSettings())


@kernels
@pytest.mark.parametrize("precision", ["int8", "int8_dot", "int8_static", "int4_dot"])
def test_low_precision_is_judged_by_the_task_s_own_metrics(
    experiment: ticketsmith.Experiment, precision: str, tmp_path: Path
) -> None:
    experiment.export(tmp_path / precision, ["tsk"], sparsity=0.7, precision=precision, tuned=False)
    entry = documents(tmp_path / precision)["files"][0]
    result = experiment.find(0.7)
    assert result.final is not None
    assert entry["test"]["accuracy"] == pytest.approx(result.final.test["accuracy"], abs=2)
    assert entry["test"]["loss"] != result.final.test["loss"]  # it rounds: it was measured, not copied
    assert entry["precision"] == precision


@kernels
def test_low_precision_that_breaks_a_gate_is_refused(
    subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Worse(Task):
        def evaluate(self, model: nn.Module, split: str, device: torch.device) -> dict[str, float]:
            assert split == "test"
            good = 90.0 if model is self.model else 80.0
            assert model(self.example(2)).shape == (2, 10)
            return {"accuracy": good, "loss": 1.0}

    given = {**subject.__dict__, "task": Worse((1, 8, 8), subject.model)}
    settings = ExportSettings(precision="int8", tuned=False)
    with pytest.raises(QualityLostError, match=r"accuracy is 80 instead of 90, 5 may be lost. .*--force") as refused:
        tsk_file.write(Subject(**given), tmp_path / "x.tsk", settings)
    assert refused.value.exit_status is Exit.GATE_FAILED
    forced = tsk_file.write(Subject(**given), tmp_path / "x.tsk", ExportSettings("int8", tuned=False, force=True))
    assert forced.more["test"] == {"accuracy": 80.0, "loss": 1.0}


class Pretrained(nn.Linear):
    """A model of the user's own with the two methods that Hugging Face's models have."""

    def save_pretrained(self, folder: str) -> None:
        Path(folder).mkdir()
        save_file(self.state_dict(), Path(folder) / "model.safetensors")

    @classmethod
    def from_pretrained(cls, folder: str) -> Pretrained:
        model = cls(3, 2)
        model.load_state_dict(load_file(Path(folder) / "model.safetensors"))
        return model


def test_a_folder_that_loads_as_something_else_or_as_pickle_is_refused(subject: Subject, tmp_path: Path) -> None:
    class Forgetful(Pretrained):
        @classmethod
        def from_pretrained(cls, folder: str) -> Pretrained:
            return cls(3, 2)

    class Pickled(Pretrained):
        def save_pretrained(self, folder: str) -> None:
            super().save_pretrained(folder)
            (Path(folder) / "pytorch_model.bin").touch()

    class Broken(Pretrained):
        def save_pretrained(self, folder: str) -> None:
            raise KeyError("config")

    for kind, message in ((Forgetful, "weight is not the same"), (Pickled, "pickle"), (Broken, "failed: KeyError")):
        with pytest.raises(ExportError, match=message):
            hugging_face.write(subject_of(subject, kind(3, 2), 3), tmp_path / kind.__name__, ExportSettings())


class Inner(nn.Module):
    """A user's own module around a model of transformers; inputs are whole numbers."""

    def __init__(self, hf: Any) -> None:
        super().__init__()
        self.hf = hf

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.hf(inputs.abs().long() % 11, use_cache=False).logits
        return logits


def test_a_transformers_model_as_an_attribute(subject: Subject, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": 11, "n_positions": 8, "n_embd": 8, "n_layer": 1, "n_head": 2}
    network = transformers.GPT2LMHeadModel(transformers.GPT2Config(bos_token_id=None, eos_token_id=None, **sizes))
    weight = network.transformer.h[0].mlp.c_fc.weight
    with torch.no_grad():
        weight[torch.rand(weight.shape) < 0.9] = 0
    written = hugging_face.write(subject_of(subject, Inner(network), 8), tmp_path / "huggingface", ExportSettings())
    assert written.load == (
        "from transformers import GPT2LMHeadModel",
        'model = GPT2LMHeadModel.from_pretrained("{name}")',
    )
    again = type(network).from_pretrained(tmp_path / "huggingface")
    assert torch.equal(again.transformer.h[0].mlp.c_fc.weight, weight)


def test_a_fine_tuned_run_keeps_the_weights_that_it_went_on_from(
    experiment: ticketsmith.Experiment, tmp_path: Path
) -> None:
    experiment.export(tmp_path / "x.ticket", ["ticket"], sparsity=0.7, variant="finetune")
    found = ticket.read(tmp_path / "x.ticket")
    before = experiment.model(experiment.find(0.4, variant="finetune")).state_dict()
    assert found.start is not None
    for name, mask in found.mask.items():
        assert np.array_equal(found.start[name], before[name].numpy() * mask)


def test_the_file_that_is_benchmarked_is_the_file_that_is_exported(
    experiment: ticketsmith.Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raced: list[str] = []
    for engine in (onnx_runtime, openvino):

        def load(path: Path, *how: Any, load: Any = engine.load, **more: Any) -> Arrays:
            raced.append(hashlib.sha256(path.read_bytes()).hexdigest())
            arrays: Arrays = load(path, *how, **more)
            return arrays

        monkeypatch.setattr(engine, "load", load)
    keys = [experiment.find(0.7).key, experiment.find(variant="dense").key]
    libraries = [name for name in ("onnxruntime", "openvino") if name in installed()]
    experiment.compare_with_dense(keys[0], BenchmarkSettings(("torch", *libraries), batch_sizes=(1, 3), rounds=10))
    monkeypatch.undo()
    for key in keys:
        experiment.export(tmp_path / key, ["onnx"], key=key)
    exported = [digest for key in keys for digest in documents(tmp_path / key)["files"][0]["sha256"].values()]
    assert set(raced) == set(exported)
    assert len(raced) >= len(libraries) * len(keys) * 2
