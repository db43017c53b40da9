"""What an earlier version wrote: the same recipes still give those keys and bytes, and its files are still read.

The files here were written once and are never made anew. Where a test fails, users' stores and files are concerned: either
the change is a fault, or it is meant, and then raises ``SCIENCE_VERSION`` or the version of the format.
"""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import ticketsmith
from tests.golden.masks import masks_of
from ticketsmith import api, runtime
from ticketsmith.errors import PruningError
from ticketsmith.export import ticket
from ticketsmith.models.cnn import MnistCnn
from ticketsmith.models.gpt import GPT
from ticketsmith.runtime import artifact
from ticketsmith.runtime.formats import FORMER_NAMES
from ticketsmith.runtime.from_torch import from_torch
from ticketsmith.store.directory import DirectoryStore
from ticketsmith.training.device import prepared
from ticketsmith.training.environment import describe
from ticketsmith.training.job import Job
from ticketsmith.training.produce import Hooks, produce

HERE = Path(__file__).parent
FILES = HERE / "files"
RECIPES = ("digits", "conv", "patterns", "rows")
ANSWERS = load_file(FILES / "answers.safetensors")


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store as it was written."""
    folder = tmp_path_factory.mktemp("golden")
    with tarfile.open(HERE / "runs.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_gives_the_same_keys_and_sealed_bytes(name: str, golden: Path, tmp_path: Path) -> None:
    """On another processor, whose kernels add in another order, weights and what is measured of them nearly so."""
    recipe = ticketsmith.load(HERE / f"{name}.yaml")
    plan = api.prepare(recipe).plan
    assert plan.to_bytes() == (golden / name / "plan.json").read_bytes()
    store = DirectoryStore(tmp_path)
    with prepared("cpu") as device:
        here = describe(device, "")
        for node in plan.by_key.values():
            folder = node.folder(name)
            assert (
                produce(Job(node.spec, folder, recipe.task_component, recipe.base, ""), store, device, Hooks())
                == "trained"
            )
            _compare(tmp_path / str(folder), golden / str(folder), here)


def _compare(run: Path, golden: Path, here: dict[str, Any]) -> None:
    files = {path.name for path in golden.iterdir()}  # all of them are compared
    later = {"outcomes.safetensors"} if "model.safetensors" in files and _is_measured(golden) else set()
    assert {path.name for path in run.iterdir()} == files | later
    assert (run / "spec.json").read_bytes() == (golden / "spec.json").read_bytes()
    there = json.loads((golden / "environment.json").read_bytes())
    if all(here[what] == there[what] for what in ("cpu", "cpu_capability", "torch", "numpy")):
        for file in files - {"environment.json", "manifest.json"}:
            assert (run / file).read_bytes() == (golden / file).read_bytes(), f"{golden}/{file}"
        return
    now, before = (load_file(folder / "model.safetensors") for folder in (run, golden))
    assert now.keys() == before.keys()
    for tensor, value in now.items():
        assert torch.isclose(value, before[tensor], rtol=0.01, atol=0.01).float().mean() > 0.99, tensor
    layers = [json.loads((folder / "metrics.json").read_bytes())["layers"] for folder in (run, golden)]
    assert layers[0] == layers[1]


def _is_measured(run: Path) -> bool:
    """Whether it is no rewind point."""
    return "final" in json.loads((run / "metrics.json").read_bytes())


@pytest.mark.parametrize("net", ["Recurrent", "Decoder", "Encoder", "Normed", "Tied"])
def test_a_rule_means_the_same_masks(net: str) -> None:
    """Every kind of rule on recurrent layers, transposed convolutions, attention, weight norm and tied weights."""
    for entry in json.loads((HERE / "masks.json").read_text()):
        if entry["net"] != net:
            continue
        if "refused" in entry:
            with pytest.raises(PruningError) as refusal:
                masks_of(entry)
            assert str(refusal.value) == entry["refused"], entry
        else:
            assert masks_of(entry) == (entry["masks"], entry["shuffled"]), entry


@pytest.mark.parametrize("path", sorted(FILES.glob("*.tsk")), ids=lambda path: path.stem)
def test_a_file_of_the_runtime_gives_the_same_answers(path: Path) -> None:
    _answers(runtime.load(path), path.stem)


@pytest.mark.parametrize("former", sorted(FORMER_NAMES))
def test_choices_by_the_former_names_of_formats_are_taken(former: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of each name is in the file."""
    monkeypatch.setattr(artifact, "machine_key", lambda: former)
    choices = artifact.open_artifact(FILES / "wide.tsk").choices[former]
    assert set(choices.values()) == {FORMER_NAMES[former]}
    _answers(runtime.load(FILES / "wide.tsk"), "wide")


def _answers(model: runtime.Model, name: str) -> None:
    outputs = np.asarray(model(ANSWERS[f"{name}.inputs"].numpy()))
    np.testing.assert_allclose(outputs, ANSWERS[f"{name}.outputs"].numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
def test_an_untuned_export_is_the_same_file(precision: str, golden: Path, tmp_path: Path) -> None:
    experiment = ticketsmith.open_experiment("digits", golden)
    place = tmp_path / f"{precision}.tsk"
    experiment.export(place, ["tsk"], sparsity=0.7, precision=precision, tuned=False, force=True)
    assert place.read_bytes() == (FILES / place.name).read_bytes()


@pytest.mark.parametrize(
    ("name", "model", "example"),
    [
        ("conv", MnistCnn((1, 16, 16), 10, width=4), torch.zeros(1, 1, 16, 16)),
        ("gpt", GPT((8,), 32, width=16, depth=1, heads=2), torch.zeros(1, 8, dtype=torch.long)),
    ],
)
def test_a_network_is_the_same_file(name: str, model: nn.Module, example: torch.Tensor, tmp_path: Path) -> None:
    model.load_state_dict(load_file(FILES / f"{name}.safetensors"))
    runtime.save(tmp_path / "again.tsk", from_torch(model.eval(), example))
    assert (tmp_path / "again.tsk").read_bytes() == (FILES / f"{name}.tsk").read_bytes()


def test_a_ticket_file_is_read_and_written_alike(golden: Path, tmp_path: Path) -> None:
    place = tmp_path / "digits.ticket"
    sealed = ticket.read(FILES / place.name)
    run = golden / str(sealed.folder)
    assert {name: content for name, content in sealed.files.items() if name != "manifest.json"} == {
        path.name: path.read_bytes() for path in run.iterdir() if path.name != "manifest.json"
    }
    assert sealed.start_file is not None
    experiment = ticketsmith.open_experiment("digits", golden)
    experiment.export(place, ["ticket"], sparsity=0.7, start_weights=True)
    assert place.read_bytes() == (FILES / place.name).read_bytes()


def test_a_stored_experiment_is_whole(golden: Path, tmp_path: Path) -> None:
    """Nothing of it is trained again, and it is judged."""
    store = shutil.copytree(golden, tmp_path / "runs")
    recipe = ticketsmith.load(HERE / "digits.yaml", [f"store={store}"])
    experiment = api.train(api.prepare(recipe), workers=1, device="cpu")
    assert (experiment.outcome.trained, experiment.outcome.cached) == (0, len(experiment.plan.by_key))
    assert len(experiment.judge().test) == 18
