"""Networks and a task of plain data for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ticketsmith.evidence.outcomes import Outcomes
from ticketsmith.evidence.results import Metric
from ticketsmith.tasks.task import Evaluation, PlainExamples


class Pictures:
    """Images of chance (``uint8``), of which each class is brighter in another place."""

    metrics = (Metric("accuracy", higher_is_better=True, unit="%"), Metric("loss", higher_is_better=False))

    def __init__(
        self, build: Callable[[], nn.Module], shape: tuple[int, ...] = (3, 16, 16), classes: int = 4, size: int = 120
    ) -> None:
        self._build, self._classes, self.train_size = build, classes, size
        generator = torch.Generator().manual_seed(0)
        self.labels = torch.arange(size) % classes
        noise = torch.randint(0, 128, (size, *shape), generator=generator)
        bright = torch.randint(0, 2, (classes, *shape), generator=generator)[self.labels]
        self.inputs = (noise + 127 * bright).to(torch.uint8)

    def build_model(self) -> nn.Module:
        return self._build()

    def batch(self, indices: Tensor, device: torch.device, generator: torch.Generator) -> tuple[Tensor, ...]:
        return self._normal(self.inputs[indices]), self.labels[indices]

    def loss(self, model: nn.Module, batch: tuple[Tensor, ...], generator: torch.Generator) -> Tensor:
        return F.cross_entropy(model(batch[0]), batch[1])

    def evaluate(self, model: nn.Module, split: str, device: torch.device) -> dict[str, float]:
        logits = model(self._normal(self.inputs))
        right = (logits.argmax(1) == self.labels).numpy()
        metrics = {"accuracy": 100.0 * float(right.mean()), "loss": float(F.cross_entropy(logits, self.labels))}
        return Evaluation(metrics, {"accuracy": Outcomes(right, scale=100.0)})

    def example(self, batch_size: int) -> Tensor:
        return self._normal(self.inputs[torch.arange(batch_size) % self.train_size])

    def plain_examples(self) -> PlainExamples:
        mean, std = (0.5,) * self.inputs.shape[1], (0.25,) * self.inputs.shape[1]
        return PlainExamples(self.inputs, self.labels, mean, std, "cross_entropy", self._classes)

    def _normal(self, inputs: Tensor) -> Tensor:
        return (inputs.float() / 255.0 - 0.5) / 0.25


class Deep(nn.Module):
    """Four linear layers with dropout, by module and by function."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(*sizes) for sizes in ((768, 40), (40, 30), (30, 20)))
        self.dropout = nn.Dropout(0.3)
        self.head = nn.Linear(20, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        x = inputs.view(inputs.size(0), -1)
        for index, layer in enumerate(self.layers):
            x = F.relu(layer(x))
            x = F.dropout(x, 0.2, self.training) if index == 1 else self.dropout(x)
        return self.head(x)  # type: ignore[no-any-return]


def strided() -> nn.Module:
    """5x5 strided and grouped convolutions, pools of both kinds, and in-place ReLU."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 5, stride=2, padding=2),
        nn.ReLU(inplace=True),
        nn.Conv2d(8, 16, 3, padding="same", groups=4, bias=False),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, padding=1),
        nn.Conv2d(16, 8, (1, 3), stride=(1, 2), padding=(0, 1)),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(16, 4),
    )


class Residual(nn.Module):
    """A block of the user's own, with batch norm, ``+=`` and a mean over pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8, momentum=0.2)
        self.conv = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(inputs)), inplace=True)
        out = self.norm2(self.conv(x))
        out += x
        return self.head(out.relu_().mean((2, 3)))  # type: ignore[no-any-return]


class Sums(nn.Module):
    """Sums of which both, one or neither value is read elsewhere, before or after what the other is made by; sums of sums, of a
    dropout, of ReLUs and of the images themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(channels, 3, 3, padding=1) for channels in (3,) * 7)
        self.norms = nn.ModuleList(nn.BatchNorm2d(3) for _ in range(3))
        self.wide = nn.Conv2d(3, 8, 5, padding=2)
        self.head = nn.Linear(8, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        x = F.relu(inputs + self.norms[0](self.convs[0](inputs)))
        y = self.convs[1](x)
        x = y + self.convs[2](x)  # one read elsewhere, by what is after the other
        late = self.norms[1](self.convs[3](x))
        z = x + F.dropout(late, 0.0, self.training)
        z = z + F.relu(self.convs[4](x))
        w = self.norms[2](z)
        first = w + self.convs[5](F.relu(w))
        second = (first + w) + F.relu(self.convs[6](first))
        return self.head(F.relu(self.wide(second)).mean((2, 3)))  # type: ignore[no-any-return]


class Wrapped(nn.Module):
    """``inside`` called by ``forward``."""

    def __init__(self, inside: nn.Module, forward: Callable[[nn.Module, Tensor], Any]) -> None:
        super().__init__()
        self.inside, self._forward = inside, forward

    def forward(self, inputs: Tensor) -> Any:
        return self._forward(self, inputs)
