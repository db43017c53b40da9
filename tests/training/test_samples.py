"""A generative task's samples: sealed with the run, the same bytes each time, shown level by level in the report."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import ticketsmith
from ticketsmith.errors import DamagedRunError, TaskError
from ticketsmith.evidence.results import Metric
from ticketsmith.store.contract import RunFolder, SealedRun
from ticketsmith.tasks.png import png
from ticketsmith.training.samples import sample_files

pytestmark = pytest.mark.usefixtures("undrawn")

CPU = torch.device("cpu")


DOT = png(torch.zeros(1, 2, 2, dtype=torch.uint8))


class Noisy:
    """Learns a sum, and shows by text and picture what it thinks of chance."""

    metrics = (Metric("loss", higher_is_better=False, decimals=4),)
    train_size = 64

    def build_model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 1))

    def batch(self, indices: Tensor, device: torch.device, generator: torch.Generator) -> tuple[Tensor, ...]:
        inputs = torch.randn(len(indices), 4, generator=generator)
        return inputs, inputs.sum(1, keepdim=True)

    def loss(self, model: nn.Module, batch: tuple[Tensor, ...], generator: torch.Generator) -> Tensor:
        return F.mse_loss(model(batch[0]), batch[1])

    def evaluate(self, model: nn.Module, split: str, device: torch.device) -> dict[str, float]:
        inputs = torch.randn(32, 4, generator=torch.Generator().manual_seed(len(split)))
        return {"loss": float(F.mse_loss(model(inputs), inputs.sum(1, keepdim=True)))}

    def example(self, batch_size: int) -> Tensor:
        return torch.ones(batch_size, 4)

    def samples(self, model: nn.Module, device: torch.device) -> Mapping[str, bytes]:
        assert not model.training
        made = model(torch.randn(8, 4))  # the global generator: the caller seeds it alike for all levels
        text = "=== <b>first</b> ===\n" + repr(made[:4].flatten().tolist()) + "\n=== second ===\n</pre><script>x()\n"
        return {"samples.txt": text.encode(), "samples.png": png(made.sigmoid().mul(255).byte()[None])}


RECIPE = """
experiment: noisy
task: {name: "tests.training.test_samples:Noisy"}
training: {optimizer: adam, lr: 0.01, batch_size: 16, duration: 6it, evaluate_every: 3it}
pruning: {levels: 2, fraction: 0.5}
replicates: 2
variants: {random_ticket: false}
gates: {metrics: {loss: {max_relative_increase: 0.5}}, target_sparsity: 0.7}
"""


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> ticketsmith.api.Experiment:
    folder = tmp_path_factory.mktemp("noisy")
    (folder / "recipe.yaml").write_text(f"{RECIPE}store: {folder}/runs\n")
    experiment = ticketsmith.run(folder / "recipe.yaml", workers=1, benchmark=False)
    assert not experiment.outcome.failed
    return experiment


def test_every_result_holds_its_samples_and_a_rewind_point_none(experiment: ticketsmith.api.Experiment) -> None:
    found = {}
    for folder in experiment.store.folders(experiment.name):
        run = SealedRun(experiment.store, folder)
        run.verify()
        found[folder.variant, folder.level, folder.seed] = {"samples.txt", "samples.png"} & set(run.files)
    assert found.pop(("rewind_point", 0, 0)) == found.pop(("rewind_point", 0, 1)) == set()
    assert len(found) == 10
    assert all(len(names) == 2 for names in found.values())


def test_the_same_weights_give_the_same_samples_and_others_do_not(experiment: ticketsmith.api.Experiment) -> None:
    task = Noisy()
    texts = set()
    for result in experiment.results:
        folder = RunFolder.parse(result.path)
        assert folder is not None
        sealed = SealedRun(experiment.store, folder)
        torch.manual_seed(17)  # whatever happened before
        model = experiment.model(result).train()
        made = sample_files(task, model, CPU)
        assert model.training
        assert made == {name: sealed.read(name) for name in made}
        texts.add(made["samples.txt"])
    assert len(texts) == len(experiment.results)


def test_the_report_shows_dense_the_ticket_and_the_control_of_one_seed(experiment: ticketsmith.api.Experiment) -> None:
    def read(name: str) -> str:
        return (experiment.store.get(f"noisy/report/{name}") or b"").decode()

    page, twin = read("index.html"), read("report.md")
    first = {(r.variant, r.level): r for r in experiment.results if r.seed == 0}
    spot = experiment.sweet_spot()
    control = first["random_reinit", spot.answer[0] if spot else 2]
    shown = [first["dense", 0], first["ticket", 1], first["ticket", 2], control]
    for result in shown:
        folder = RunFolder.parse(result.path)
        assert folder is not None
        run = SealedRun(experiment.store, folder)
        numbers = run.read("samples.txt").decode().splitlines()[1]
        picture = run.read("samples.png")
        assert html.escape(numbers) in page
        assert numbers in twin
        assert base64.b64encode(picture).decode() in page
    assert page.count("data:image/png;base64,") == len(shown)
    assert experiment.store.get("noisy/report/figures/samples-03.png") == picture
    assert "figures/samples-03.png" in twin
    assert "figures/samples-04.png" not in twin
    assert "<script>x()" not in page
    assert "&lt;b&gt;first&lt;/b&gt;" in page


def test_a_file_that_was_changed_is_not_shown(experiment: ticketsmith.api.Experiment) -> None:
    result = next(r for r in experiment.results if (r.variant, r.level, r.seed) == ("ticket", 1, 0))
    path = f"{result.path}/samples.txt"
    before = experiment.store.get(path)
    assert before is not None
    experiment.store.put(path, b"better than it was")
    try:
        with pytest.raises(DamagedRunError, match=r"samples\.txt was changed after it was sealed"):
            ticketsmith.open_experiment("noisy", experiment.store.url).report()
    finally:
        experiment.store.put(path, before)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"../samples.txt": b"x"}, "'../samples.txt' is not one of samples.txt, samples.png"),
        ({"model.safetensors": b"x"}, "'model.safetensors' is not one of"),
        ({"samples.txt": "text"}, "'samples.txt' is str, not bytes"),
        ({"samples.txt": b""}, "has 0 bytes; it may have 1 to 4,000,000"),
        ({"samples.txt": b"x" * 4_000_001}, "has 4,000,001 bytes"),
        ({"samples.txt": b"ab\xff"}, r"is not UTF-8 \(byte 2\)"),
        ({"samples.png": b"GIF89a"}, "'samples.png' is not a PNG"),
        ({"samples.png": DOT[:-1]}, "is not a PNG"),
        ({"samples.png": DOT + b"<script>"}, "is not a PNG"),
        ([b"x"], "must give a mapping of file names to bytes, not list"),
    ],
)
def test_files_that_cannot_be_kept_are_refused(files: object, message: str) -> None:
    task = Noisy()
    task.samples = lambda model, device: files  # type: ignore[method-assign, assignment, return-value]
    with pytest.raises(TaskError, match=message):
        sample_files(task, task.build_model(), CPU)


def test_a_task_that_does_not_generate_has_no_samples() -> None:
    class Plain(Noisy):
        samples = None  # type: ignore[assignment]

    assert sample_files(Plain(), nn.Linear(1, 1), CPU) == {}
