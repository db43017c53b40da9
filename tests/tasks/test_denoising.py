"""Making images from noise: training makes them better, the same noise gives the same picture, pruning keeps its promises."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from tests.training.runs import CPU, goes_on_to_the_same_bytes, in_parts, jobs, sealed_bytes
from ticketsmith import api
from ticketsmith.config import Recipe, load_recipe
from ticketsmith.data import load as load_data
from ticketsmith.errors import RecipeError, TaskError
from ticketsmith.models.unet import UNet
from ticketsmith.spec import Training
from ticketsmith.store.contract import SealedRun
from ticketsmith.store.directory import DirectoryStore
from ticketsmith.tasks.denoising import NEAREST, Denoising
from ticketsmith.tasks.facts import examine
from ticketsmith.tasks.judge import Judge
from ticketsmith.tasks.png import png, row
from ticketsmith.tasks.task import create
from ticketsmith.training.device import prepare
from ticketsmith.training.learner import TorchLearner
from ticketsmith.training.loop import Progress, measure_final, train
from ticketsmith.training.produce import Hooks, produce

RECIPE = """
experiment: flow
task:
  name: denoising
  data: digits
  model: {name: unet, width: 8}
  validation: 200
  steps: 4
  measured: 60
training: {optimizer: adam, lr: 0.004, batch_size: 32, duration: 30it, evaluate_every: 10it, ema: 0.9}
pruning: {levels: 1, fraction: 0.5, exclude: [input, output]}
rewind: 5it
replicates: 1
variants: {random_ticket: false}
gates:
  metrics:
    frechet_distance_mnist_cnn: {max_relative_increase: 0.5}
"""


@pytest.fixture(autouse=True, scope="module")
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The classifier is trained once for this module, and not kept in the home of whoever runs the tests."""
    prepare("cpu")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def digits(**options: Any) -> Denoising:
    component = {"data": "digits", "model": {"name": "unet", "width": 8}, "validation": 200, "measured": 100}
    task = create({"name": "denoising", **component, **options}, Path())
    assert isinstance(task, Denoising)
    return task


def picture(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)))


class Constant(nn.Module):
    """Guesses the same image whatever it sees."""

    def __init__(self, image: Tensor) -> None:
        super().__init__()
        self.image = image

    def forward(self, inputs: Tensor) -> Tensor:
        return self.image.expand(len(inputs), -1, -1, -1)


def test_training_brings_what_is_made_nearer_to_real_images() -> None:
    task = digits()
    torch.manual_seed(0)
    model = task.build_model()
    training = Training(optimizer="adam", lr=0.005, batch_size=64, duration="150it", schedule="cosine")
    before, progress = measure_final(task, model, CPU), Progress()
    train(TorchLearner(task, model, {}, training), training, 0, progress, 150, lambda *_: None)
    after = measure_final(task, model, CPU)
    losses = [point.validation["loss"] for point in progress.curve]
    assert losses[-1] < 0.7 * losses[0]
    for split in ("validation", "test"):
        assert after[split]["frechet_distance_mnist_cnn"] < 0.2 * before[split]["frechet_distance_mnist_cnn"]
        assert before[split]["recall_mnist_cnn"] < 10 < 30 < after[split]["recall_mnist_cnn"]


def test_the_loss_is_that_of_the_velocity_at_fixed_noise_levels() -> None:
    task, black = digits(), Constant(torch.full((1, 1, 8, 8), -1.0))
    images = torch.tensor(load_data("digits", {}).test.inputs[:100]).float() / 127.5 - 1
    left = 1 - (torch.arange(100) % 10 + 0.5) / 10
    errors = ((images + 1).square().mean((1, 2, 3)) / left.clamp(min=NEAREST).square()).mean()
    assert task.evaluate(black, "test", CPU)["loss"] == pytest.approx(float(errors), rel=1e-4)
    assert task.evaluate(black, "test", CPU) == task.evaluate(black, "test", CPU)


@pytest.mark.parametrize("steps", [1, 4, 16])
def test_following_the_velocity_ends_at_the_guess(steps: int) -> None:
    image = torch.linspace(-1, 1, 64).view(1, 1, 8, 8)
    made = digits(steps=steps).generate(Constant(image), torch.randn(5, 1, 8, 8), torch.arange(5), CPU)
    assert torch.allclose(made, image.expand_as(made), atol=1e-5)


def test_a_picture_of_samples_shows_the_same_noise_in_the_same_places() -> None:
    task = digits()
    torch.manual_seed(1)
    first, second = task.build_model().eval(), task.build_model().eval()
    one, again, other = (task.samples(model, CPU)["samples.png"] for model in (first, first, second))
    assert one == again != other
    assert picture(one).shape == (16, 10 * 18 - 2)
    shown = picture(task.samples(Constant(torch.zeros(1, 1, 8, 8)), CPU)["samples.png"])
    assert set(np.unique(shown)) == {128, 255}  # grey images, white gaps


def test_png_files_hold_the_pixels_given() -> None:
    generator = torch.Generator().manual_seed(0)
    for channels in (1, 3):
        pixels = torch.randint(0, 256, (channels, 5, 7), generator=generator, dtype=torch.uint8)
        assert np.array_equal(picture(png(pixels)), pixels.permute(1, 2, 0).squeeze(2).numpy())
        images = pixels[None].expand(3, -1, -1, -1)
        assert row(images, scale=2, gap=1).shape == (channels, 10, 3 * 15 - 1)


def test_the_judge_knows_the_classes_and_is_trained_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = load_data("digits", {})
    images, labels = torch.tensor(data.train.inputs) / 127.5 - 1, torch.tensor(data.train.labels)
    test = torch.tensor(data.test.inputs) / 127.5 - 1
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("ticketsmith.tasks.judge.STEPS", 300)
    judge = Judge(images, labels, 10)
    assert judge.accuracy(test, torch.tensor(data.test.labels)) > 0.9
    (kept,) = [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".lock"]
    written, content = kept.stat().st_mtime_ns, kept.read_bytes()
    assert torch.equal(Judge(images, labels, 10).features(test), judge.features(test))
    assert kept.stat().st_mtime_ns == written, "it was trained again"
    monkeypatch.setattr("ticketsmith.tasks.judge.STEPS", 1)
    other = Judge(images, labels, 10)
    assert not torch.equal(other.features(test), judge.features(test))
    assert kept.read_bytes() == content, "another classifier lies elsewhere"


def test_a_damaged_cache_or_none_costs_time_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ticketsmith.tasks.judge.STEPS", 3)
    images, labels = torch.randn(200, 1, 8, 8), torch.arange(200) % 2
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    features = Judge(images, labels, 2).features(images)
    (kept,) = [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".lock"]
    content = kept.read_bytes()
    kept.write_bytes(content[:-5] + b"wrong")
    assert torch.equal(Judge(images, labels, 2).features(images), features)
    assert kept.read_bytes() == content
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))  # where no folder can be made
    assert torch.equal(Judge(images, labels, 2).features(images), features)


def test_interrupted_at_any_step_or_not_the_bytes_are_the_same(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE)
    made = jobs(recipe)
    whole, broken = DirectoryStore(tmp_path / "whole"), DirectoryStore(tmp_path / "broken")
    names = [("rewind_point", 0, 0), ("dense", 0, 0), ("ticket", 1, 0), ("random_reinit", 1, 0)]
    for name in names:
        produce(made[name], whole, CPU, Hooks())
    interruptions = sum(in_parts(made[name], broken, 8) for name in names)
    assert interruptions >= 9
    assert sealed_bytes(tmp_path / "whole") == sealed_bytes(tmp_path / "broken")
    run = SealedRun(whole, made["ticket", 1, 0].folder)
    assert picture(run.read("samples.png")).shape == (16, 178)
    metrics = run.read_json("metrics.json")
    assert set(metrics["final"]["test"]) == set(metrics["final"]["validation"]) == {
        "loss", "recognised_mnist_cnn", "frechet_distance_mnist_cnn", "precision_mnist_cnn", "recall_mnist_cnn"
    }  # fmt: skip
    assert run.read("curve.csv").decode().splitlines()[0] == "step,train_loss,validation_loss"
    assert "samples.png" not in SealedRun(whole, made["rewind_point", 0, 0].folder).files
    told_in_the_report(whole, load_recipe(recipe))


def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE)
    goes_on_to_the_same_bytes(recipe, tmp_path)


def told_in_the_report(store: DirectoryStore, recipe: Recipe) -> None:
    store.put("x/plan.json", api.prepare(recipe).plan.to_bytes())
    experiment = api.Experiment(store, "x", recipe)
    assert {"recall_mnist_cnn", "loss"} <= set(experiment.table().columns)
    experiment.report()
    page = (store.get("x/report/index.html") or b"").decode()
    assert page.count("data:image/png;base64,") == 3  # dense, ticket, control
    assert "It is no FID" in page


def test_the_network_sees_time_and_class_and_can_be_exported() -> None:
    torch.manual_seed(0)
    network = UNet((1, 8, 8), classes=2, width=8).eval()
    images = torch.randn(2, 1, 8, 8)

    def told(time: float, label: int) -> Tensor:
        planes = [torch.full_like(images, value) for value in (time, label == 0, label == 1)]
        return torch.cat([images, *planes], 1)

    early, late, other = told(0.1, 0), told(0.9, 0), told(0.1, 1)
    assert network(early).shape == images.shape
    assert not torch.allclose(network(early), network(late), atol=1e-4)
    assert not torch.allclose(network(early), network(other), atol=1e-4)
    exported = torch.export.export(network, (early,)).module()
    assert torch.allclose(exported(late), network(late), atol=1e-6)


def test_the_example_is_of_real_images_with_their_time_and_class() -> None:
    example, labels = digits().example(130), load_data("digits", {}).test.labels
    assert example.shape == (130, 12, 8, 8)
    assert bool((example[:, 1:] == example[:, 1:, :1, :1]).all()), "time and class fill their channels"
    assert example[:12, 1, 0, 0].tolist() == pytest.approx([0.05 + 0.1 * (index % 10) for index in range(12)])
    assert example[:, 2:, 0, 0].argmax(1).tolist() == [*labels[:100], *labels[:30]]


class Tiny(nn.Module):
    """A user's own network."""

    def __init__(self, input_shape: tuple[int, ...], classes: int, channels: int = 0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(input_shape[0] + 1 + classes, channels or input_shape[0], 3, padding=1)

    def forward(self, inputs: Tensor) -> Tensor:
        output: Tensor = self.conv(inputs)
        return output


def colours() -> dict[str, np.ndarray]:
    images = np.random.default_rng(0).uniform(-3, 5, (300, 3, 12, 8)).astype(np.float32)
    labels = np.arange(300) % 2
    return {"x_train": images[:200], "y_train": labels[:200], "x_test": images[200:], "y_test": labels[200:]}


def test_colour_images_of_ones_own_with_a_network_of_ones_own() -> None:
    here = "tests.tasks.test_denoising"
    task = digits(data=f"{here}:colours", model=f"{here}:Tiny", validation=60, measured=50)
    batch, labels = task.batch(torch.arange(20), CPU, torch.Generator())
    assert -1 <= float(batch.min()) < -0.9 < 0.9 < float(batch.max()) <= 1
    assert set(labels.tolist()) == {0, 1}
    made = picture(task.samples(task.build_model(), CPU)["samples.png"])
    assert made.shape == (24, 10 * 18 - 2, 3)


HERE = "tests.tasks.test_denoising"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": "mnist1d"}, r"has inputs of shape \(1, 40\); denoising is for grey or colour images"),
        ({"validation": 1437}, "task.validation is 1437, but 'digits' has 1437 training images"),
        (
            {"measured": 201},
            "task.measured is 201; it must lie between 50 and the images of the smaller held-out split, 200",
        ),
        ({"model": {"name": "unet", "width": 12}}, "width must be a multiple of 8, not 12"),
        (
            {"model": "lenet_300_100"},
            "the model does not fit the data, .*shapes cannot be multiplied .2x768 and 64x300",
        ),
        (
            {"model": {"name": f"{HERE}:Tiny", "channels": 2}},
            r"gives \(2, 2, 8, 8\) where images of shape \(2, 1, 8, 8\)",
        ),
    ],
)
def test_what_does_not_fit_is_told(options: dict[str, Any], message: str) -> None:
    plain = {
        "name": "denoising",
        "data": "digits",
        "model": {"name": "unet", "width": 8},
        "validation": 200,
        "measured": 100,
    }
    with pytest.raises(TaskError, match=message):
        examine({**plain, **options}, Path())


def test_sides_that_cannot_be_halved_twice_are_told() -> None:
    with pytest.raises(TaskError, match=r"multiples of 4, not inputs of shape \(1, 30, 28\)"):
        UNet((1, 30, 28), classes=10)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("task.steps=0", "task.steps: should be greater than or equal to 1"),
        ("task.measured=10", "task.measured: should be greater than or equal to 50"),
        ("task.stepz=4", "task.stepz: unknown key. Did you mean 'steps'?"),
        ("training.ema=1.0", "training.ema: should be less than 1"),
        ("gates.metrics={fid: {max_relative_increase: 0.1}}", "the task does not measure 'fid'"),
    ],
)
def test_a_wrong_recipe_is_told(tmp_path: Path, override: str, message: str) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE)
    with pytest.raises(RecipeError) as refused:
        jobs(recipe, override)
    assert message in str(refused.value)
