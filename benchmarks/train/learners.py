"""Networks that native kernels do not follow as a whole, trained by a run's own learner: rivals for ``benchmarks.train``."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn
from torch.nn import functional as F

from ticketsmith.pruning.weights import prunable
from ticketsmith.spec import Training
from ticketsmith.tasks.task import Task, create
from ticketsmith.training.course import Course
from ticketsmith.training.device import prepare
from ticketsmith.training.kernels import make_learner

_CONFIGS = Path(__file__).resolve().parents[2] / "configs"


class Squeeze(nn.Module):
    """What passes is scaled by what the whole of it says (Hu et al. 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(channels, channels // 4), nn.Linear(channels // 4, channels)

    def forward(self, inputs: Tensor) -> Tensor:
        whole = inputs.mean((2, 3)) if inputs.dim() == 4 else inputs
        gate = torch.sigmoid(self.up(F.silu(self.down(whole))))
        return inputs * (gate[:, :, None, None] if inputs.dim() == 4 else gate)


def custom_mlp() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, 300), nn.SiLU(), Squeeze(300), nn.Linear(300, 300), nn.LayerNorm(300), nn.SiLU(),
        nn.Linear(300, 100), nn.SiLU(), nn.Linear(100, 10),
    )  # fmt: skip


def squeezed_cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, 2, 1), nn.SiLU(), Squeeze(32), nn.Conv2d(32, 64, 3, 2, 1), nn.SiLU(), Squeeze(64), nn.Flatten(),
        nn.Linear(64 * 49, 128), nn.SiLU(), nn.Linear(128, 10),
    )  # fmt: skip


class Images:
    """Of chance, as floats in memory."""

    metrics = ()
    train_size = 6000

    def __init__(self, build: Callable[[], nn.Module]) -> None:
        self.build_model = build
        generator = torch.Generator().manual_seed(0)
        self._inputs = torch.rand(6000, 1, 28, 28, generator=generator)
        self._labels = torch.randint(0, 10, (6000,), generator=generator)

    def batch(self, indices: Tensor, device: torch.device, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return self._inputs[indices], self._labels[indices]

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor], generator: torch.Generator) -> Tensor:
        return F.cross_entropy(model(batch[0]), batch[1])


def _recipe(name: str, width: int) -> tuple[Task, dict[str, Any]]:
    recipe = yaml.safe_load((_CONFIGS / f"{name}.yaml").read_text())
    recipe["task"]["model"]["width"] = width
    return create(recipe["task"], _CONFIGS), recipe["training"]


_ADAM = {"optimizer": "adam", "lr": 1e-3, "batch_size": 64, "duration": "10000it"}
ROWS: dict[str, tuple[Callable[[], tuple[Any, dict[str, Any]]], int]] = {
    "gpt": (lambda: _recipe("imp_gpt_pydocs", 64), 20),
    "gpt256": (lambda: _recipe("imp_gpt_pydocs", 256), 2),
    "unet": (lambda: _recipe("imp_flow_mnist", 8), 10),
    "unet32": (lambda: _recipe("imp_flow_mnist", 32), 2),
    "custom_mlp": (lambda: (Images(custom_mlp), _ADAM), 100),
    "squeezed_cnn": (lambda: (Images(squeezed_cnn), _ADAM), 30),
}
"""Task and training of a row, and steps of a round."""


def rival(task: Any, options: dict[str, Any], kernels: str, sparsity: float) -> Callable[[int], float]:
    """Steps a CPU second of so many steps that a learner makes."""
    device = prepare("cpu")
    training = Training(**{**options, "kernels": kernels})
    torch.manual_seed(0)
    model = task.build_model()
    masks = {name: torch.rand(weight.shape) >= sparsity for name, weight in prunable(model).items()}
    learner, course, step = make_learner(task, model, masks, training, device), Course(training, 0, task.train_size), 0

    def run(steps: int) -> float:
        nonlocal step
        begin = time.process_time()
        for _ in range(steps):
            learner.advance(course, step, step + 1)
            step += 1
        return steps / (time.process_time() - begin)

    return run


def rivals(row: str, levels: list[float]) -> dict[str, Callable[[int], float]]:
    """PyTorch dense and masked, and native kernels by level."""
    task, options = ROWS[row][0]()
    named = {
        f"PyTorch {level:.0%}" if level else "PyTorch": rival(task, options, "torch", level)
        for level in (0.0, levels[-1])
    }
    native = {
        f"native {level:.0%}" if level else "native dense": rival(task, options, "native", level)
        for level in (0.0, *levels)
    }
    return named | native
