"""What ``validate`` passes, a run takes: each of these tasks is refused by name, or trained, sealed and read again."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.training.runs import CPU, in_parts, jobs, sealed_bytes
from ticketsmith import api
from ticketsmith.config import load_recipe
from ticketsmith.errors import PruningError, TaskError, TicketSmithError
from ticketsmith.evidence.results import Metric
from ticketsmith.export import ticket
from ticketsmith.inference.sources import of_module
from ticketsmith.store.directory import DirectoryStore
from ticketsmith.tasks.classification import Classification
from ticketsmith.training import rehearsal
from ticketsmith.training.produce import Hooks, produce
from ticketsmith.training.selection import Selection

pytestmark = pytest.mark.usefixtures("undrawn")

RECIPE = """
experiment: own
task: {{name: "tests.training.test_rehearsal:{name}"}}
training: {{optimizer: adam, lr: 0.01, batch_size: {batch_size}, duration: 6it, evaluate_every: 3it}}
pruning: {{levels: 1, fraction: 0.5}}
replicates: 1
variants: {{random_reinit: false, random_ticket: false}}
gates: {{metrics: {{loss: {{max_relative_increase: 0.5}}}}}}
"""


class Own:
    """Sums of four numbers. What is under test is what others make of it."""

    metrics = (Metric("loss", higher_is_better=False, decimals=4),)
    train_size = 64

    def build_model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))

    def batch(self, indices: Tensor, device: torch.device, generator: torch.Generator) -> tuple[Tensor, ...]:
        inputs = torch.randn(len(indices), 4, generator=generator)
        return inputs, inputs.sum(1, keepdim=True)

    def loss(self, model: nn.Module, batch: tuple[Tensor, ...], generator: torch.Generator) -> Tensor:
        return F.mse_loss(model(batch[0]), batch[1])

    def evaluate(self, model: nn.Module, split: str, device: torch.device) -> dict[str, float]:
        inputs = torch.randn(9, 4, generator=torch.Generator().manual_seed(len(split)))
        return {"loss": float(F.mse_loss(model(inputs), inputs.sum(1, keepdim=True)))}

    def example(self, batch_size: int) -> Any:
        return torch.ones(batch_size, 4)


class Lazy(Own):
    def build_model(self) -> nn.Module:
        return nn.Sequential(nn.LazyLinear(8), nn.LazyBatchNorm1d(), nn.ReLU(), nn.LazyLinear(1))


class _Counting(nn.Linear):
    """Keeps a dictionary beside its tensors."""

    def __init__(self, inputs: int, outputs: int, kept: Any = None) -> None:
        super().__init__(inputs, outputs)
        self.kept = kept or {"bits": 8, "names": ["a", "b"], "scale": None}

    def get_extra_state(self) -> Any:
        return self.kept

    def set_extra_state(self, state: Any) -> None:
        assert state == self.kept
        self.again = state


class ExtraState(Own):
    def build_model(self) -> nn.Module:
        return nn.Sequential(_Counting(4, 8), nn.ReLU(), nn.Linear(8, 1))


def extra_model() -> nn.Module:
    return ExtraState().build_model()


class _Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(2, 8), nn.Linear(2, 8)
        self.out = nn.Linear(8, 1)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        hidden: Tensor = self.left(left) + self.right(right)
        return self.out(hidden.relu())  # type: ignore[no-any-return]


class TwoInputs(Own):
    def build_model(self) -> nn.Module:
        return _Two()

    def loss(self, model: nn.Module, batch: tuple[Tensor, ...], generator: torch.Generator) -> Tensor:
        return F.mse_loss(model(*batch[0].split(2, 1)), batch[1])

    def evaluate(self, model: nn.Module, split: str, device: torch.device) -> dict[str, float]:
        inputs = torch.randn(9, 4, generator=torch.Generator().manual_seed(len(split)))
        return {"loss": float(F.mse_loss(model(*inputs.split(2, 1)), inputs.sum(1, keepdim=True)))}

    def example(self, batch_size: int) -> Any:
        return torch.ones(batch_size, 2), torch.ones(batch_size, 2)


class _Growing(nn.Module):
    """Keeps a table that grows with the input; it is made where the longest input comes, in an evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.out = nn.Linear(4, 8), nn.Linear(8, 1)
        self.table = torch.zeros(0, 8)

    def forward(self, inputs: Tensor) -> Tensor:
        if len(self.table) < len(inputs):
            self.table = torch.arange(1.0, len(inputs) + 1)[:, None] * self.first.weight.new_ones(8)
        return self.out(self.first(inputs).relu() * self.table[: len(inputs)])  # type: ignore[no-any-return]


class Growing(Own):
    def build_model(self) -> nn.Module:
        return _Growing()


class Normed(Own):
    def build_model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))


class OddState(Own):
    """Its extra state cannot be written down."""

    def build_model(self) -> nn.Module:
        return nn.Sequential(_Counting(4, 8, {1: {2, 3}}), nn.ReLU(), nn.Linear(8, 1))


class NoTest(Own):
    def evaluate(self, model: nn.Module, split: str, device: torch.device) -> dict[str, float]:
        if split == "test":
            raise KeyError("where is it?")
        return super().evaluate(model, split, device)


class ManyLosses(Own):
    def loss(self, model: nn.Module, batch: tuple[Tensor, ...], generator: torch.Generator) -> Tensor:
        return F.mse_loss(model(batch[0]), batch[1], reduction="none")


class OddSamples(Own):
    def samples(self, model: nn.Module, device: torch.device) -> dict[str, bytes]:
        return {"../samples.txt": b""}


class Slow(Own):
    """Its evaluation would take an hour."""

    def evaluate(self, model: nn.Module, split: str, device: torch.device) -> dict[str, float]:
        for _ in range(36_000):
            try:
                model(torch.ones(2, 4))
            except Exception:  # an end that came as an Exception would be swallowed here
                continue
            time.sleep(0.1)
        return {"loss": 0.0}


class Looking(Own):
    """Its table has sparse gradients."""

    def build_model(self) -> nn.Module:
        return _Looking()


class _Looking(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.out = nn.Embedding(6, 8, sparse=True), nn.Linear(8, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.out(self.table(inputs.abs().long().clamp(max=5)).sum(1).relu())  # type: ignore[no-any-return]


class Scored(Classification):
    """Its own measure needs more than a few examples."""

    def __init__(self) -> None:
        super().__init__("digits", {"name": "mlp", "widths": [8]}, 200, base=Path())

    def evaluate(self, model: nn.Module, split: Any, device: torch.device) -> Mapping[str, float]:
        labels = self._on(device, split)[1]
        if len(labels.unique()) < 10:
            raise ValueError("a class is missing")
        return super().evaluate(model, split, device)


def recipe(folder: Path, name: str, batch_size: int = 8) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(RECIPE.format(name=name, batch_size=batch_size))
    return path


def rehearsed(path: Path) -> list[str]:
    return api.rehearse(api.prepare(load_recipe(path)))


@pytest.mark.parametrize("name", ["Own", "Lazy", "ExtraState", "TwoInputs", "Growing"])
def test_what_is_tried_is_trained_and_resumed(tmp_path: Path, name: str) -> None:
    path = recipe(tmp_path, name)
    assert rehearsed(path) == []
    whole, broken = DirectoryStore(tmp_path / "whole"), DirectoryStore(tmp_path / "broken")
    for which, job in jobs(path).items():
        assert produce(job, whole, CPU, Hooks()) == "trained", which
        in_parts(job, broken, 2)
    assert sealed_bytes(tmp_path / "whole") == sealed_bytes(tmp_path / "broken")


def test_extra_state_and_several_inputs_come_back_from_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ExtraState", "TwoInputs"):
        made = api.run(load_recipe(recipe(tmp_path, name), [f"store={tmp_path / name}"]), workers=1, benchmark=False)
        model = made.ticket(0.4)
        assert model(*made.task.example(3) if name == "TwoInputs" else [torch.ones(3, 4)]).shape == (3, 1)
        if name == "ExtraState":
            assert model[0].again == _Counting(1, 1).kept  # type: ignore[index, union-attr]
        files = tmp_path / f"{name}-files"
        document = made.export(files, ["ticket", "safetensors"], sparsity=0.4).document
        by_line, by_ticket = made.task.build_model(), made.task.build_model()
        lines = next(entry["load"] for entry in document["files"] if entry["format"] == "safetensors")
        monkeypatch.chdir(files)
        exec("\n".join(lines), {"model": by_line})  # what the file promises
        by_ticket.load_state_dict(ticket.read("model.ticket").state_dict())
        for again in (by_line, by_ticket):
            assert all(map(torch.equal, again.parameters(), model.parameters()))
        if name == "ExtraState":
            own = of_module("tests.training.test_rehearsal:extra_model", (4,), "model.safetensors")[0]
            assert own.sparsity > 0.3
    with pytest.raises(TicketSmithError, match=r"the model takes 2 inputs.*Let a module join them"):
        made.time_inference()


@pytest.mark.parametrize(
    ("name", "batch_size", "message"),
    [
        ("Normed", 1, "a training step on a batch of 1 fails: .*more than 1 value.*batch_size of 2 or more"),
        ("OddState", 8, "the state '0._extra_state' is a dict that cannot be kept.*plain JSON"),
        (
            "NoTest",
            8,
            r"evaluate\(..., 'test', ...\) fails: KeyError: 'where is it\?' \(in evaluate, .*test_rehearsal.py",
        ),
        ("ManyLosses", 8, "the model does not fit the data"),
        ("OddSamples", 8, "samples fails: task.samples"),
    ],
)
def test_what_a_run_would_fail_at_is_told_before(tmp_path: Path, name: str, batch_size: int, message: str) -> None:
    with pytest.raises((TaskError, PruningError), match=message):
        rehearsed(recipe(tmp_path, name, batch_size))


def test_an_evaluation_of_hours_is_tried_for_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearsal, "PATIENCE", 0.2)
    assert rehearsed(recipe(tmp_path, "Slow")) == ["evaluate on validation", "evaluate on test"]


def test_a_measure_of_the_user_s_own_gets_all_examples(tmp_path: Path) -> None:
    assert rehearsed(recipe(tmp_path, "Scored")) == []


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("pruned", ["fraction: 0.5", "fraction: 0.5, include: [table.weight]"])
def test_sparse_gradients_are_refused_by_name(tmp_path: Path, optimizer: str, pruned: str) -> None:
    path = recipe(tmp_path, "Looking")
    text = path.read_text().replace("fraction: 0.5", pruned).replace("optimizer: adam", f"optimizer: {optimizer}")
    path.write_text(text)
    with pytest.raises(TaskError, match=r"a training step on a batch of 2 fails: .*leave out `sparse=True`"):
        rehearsed(path)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64, torch.complex64, torch.complex128])
def test_weights_of_any_type_are_masked(dtype: torch.dtype) -> None:
    weight = torch.full((4,), torch.inf, dtype=dtype)
    Selection(torch.tensor([True, False, True, False]), dtype).apply_(weight)
    assert weight.isinf().tolist() == [True, False, True, False]
    assert (weight[1], weight[3]) == (0, 0)


def test_it_leaves_the_process_as_it_was(tmp_path: Path) -> None:
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    rehearsed(recipe(tmp_path, "Own"))
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before
