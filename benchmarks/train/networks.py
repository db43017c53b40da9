"""Networks of PyTorch, and the same as graphs, for benchmarks and tests of the kernels of training."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ticketsmith.training.native.graph import Add, BatchNorm, Conv, Dropout, Graph, Linear, Node, Pool, Relu


class Residual(nn.Module):
    """A block of a residual network: relu(norm(conv(x)) + x)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)

    def forward(self, inputs: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(inputs)) + inputs)


class Wider(nn.Module):
    """The first block of a stage: half the rows and columns, twice the channels, as ResNet's with a projection."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(channels, 2 * channels, 3, 2, 1, bias=False), nn.BatchNorm2d(2 * channels)
        self.short, self.short_norm = nn.Conv2d(channels, 2 * channels, 1, 2, bias=False), nn.BatchNorm2d(2 * channels)

    def forward(self, inputs: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(inputs)) + self.short_norm(self.short(inputs)))


def lenet() -> nn.Sequential:
    """LeNet-300-100."""
    layers = (nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10))
    return nn.Sequential(nn.Flatten(), *layers)


def mnist_cnn() -> nn.Sequential:
    """That of ``ticketsmith.models.cnn``."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 5, 3, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 64, 3, 2, 1), nn.ReLU(),
        nn.Flatten(), nn.Linear(576, 10),
    )  # fmt: skip


def conv(*widths: int) -> nn.Sequential:
    """Conv-2 of 64, Conv-4 of 64 and 128 (Frankle and Carbin 2019)."""
    layers: list[nn.Module] = []
    before = 3
    for width in widths:
        layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.ReLU()]
        layers.append(nn.MaxPool2d(2))
        before = width
    size = before * (32 >> len(widths)) ** 2
    linear = (nn.Linear(size, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))
    return nn.Sequential(*layers, nn.Flatten(), *linear)


def residual_network() -> nn.Sequential:
    """As wide and nearly as deep as ResNet-20: blocks of one convolution, 19 in all."""
    stem = (nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
    blocks = [block for width in (16, 32, 64) for block in [*(Residual(width) for _ in range(5)), Wider(width)]][:-1]
    return nn.Sequential(*stem, *blocks, Residual(64), nn.AvgPool2d(8), nn.Flatten(), nn.Linear(64, 10))


def graph(model: nn.Sequential, shape: tuple[int, int, int], loss: Literal["cross_entropy", "squared_error"]) -> Graph:
    """``model`` as a graph."""
    nodes: list[Node] = []
    previous, value = "input", torch.zeros(2, *shape)
    with torch.no_grad():
        for name, module in model.eval().named_children():
            value = module(value)
            if not isinstance(module, nn.Flatten):
                size = tuple(value.shape[1:]) + (1,) * (4 - value.dim())
                nodes += _nodes(name, module, previous, size)
                previous = name
    model.train()
    return Graph(shape, tuple(nodes), loss)


def _nodes(name: str, module: nn.Module, source: str, size: Any) -> list[Node]:
    common: dict[str, Any] = {"name": name, "inputs": (source,), "shape": size}
    if isinstance(module, nn.Linear | nn.Conv2d):
        common |= {"weight": f"{name}.weight", "bias": f"{name}.bias" if module.bias is not None else None}
    match module:
        case nn.Linear():
            return [Linear(**common)]
        case nn.Conv2d():
            return [Conv(**common, stride=module.stride, padding=module.padding, groups=module.groups)]  # type: ignore[arg-type]
        case nn.BatchNorm2d():
            return [_norm(name, module, **common)]
        case nn.Dropout():
            return [Dropout(**common, rate=module.p)]
        case nn.MaxPool2d() | nn.AvgPool2d():
            kernel, stride, padding = (
                (size, size) if isinstance(size, int) else size
                for size in (module.kernel_size, module.stride, module.padding)
            )
            kind: Any = "max" if isinstance(module, nn.MaxPool2d) else "mean"
            return [Pool(**common, kind=kind, kernel=kernel, stride=stride, padding=padding)]
        case Residual():
            conv = Conv(f"{name}.conv", (source,), size, f"{name}.conv.weight", None, padding=(1, 1))
            norm = _norm(f"{name}.norm", module.norm, name=f"{name}.norm", inputs=(conv.name,), shape=size)
            return [conv, norm, Add(f"{name}.sum", (norm.name, source), size), Relu(name, (f"{name}.sum",), size)]
        case Wider():
            branches: list[Node] = []
            for part, layer, norm_ in (("conv", module.conv, module.norm), ("short", module.short, module.short_norm)):
                norm_name = "norm" if part == "conv" else "short_norm"
                pad: Any = layer.padding
                branches.append(Conv(f"{name}.{part}", (source,), size, f"{name}.{part}.weight", None, (2, 2), pad))
                branches.append(
                    _norm(
                        f"{name}.{norm_name}", norm_, name=f"{name}.{norm_name}", inputs=(f"{name}.{part}",), shape=size
                    )
                )
            ends = (f"{name}.norm", f"{name}.short_norm")
            return [*branches, Add(f"{name}.sum", ends, size), Relu(name, (f"{name}.sum",), size)]
        case _:
            return [Relu(**common)]


def _norm(prefix: str, module: nn.BatchNorm2d, **common: Any) -> BatchNorm:
    names = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    parts: dict[str, Any] = {name: f"{prefix}.{name}" for name in names}
    return BatchNorm(**common, **parts, momentum=module.momentum or 0.1, eps=module.eps)


def arrays(model: nn.Module) -> dict[str, np.ndarray[Any, Any]]:
    """Copies of its state."""
    return {name: value.detach().numpy().copy() for name, value in model.state_dict().items()}


def prune(model: nn.Module, density: float) -> dict[str, np.ndarray[Any, Any]]:
    """Random masks of all weights of layers but the last, which ``model`` then obeys."""
    generator = np.random.default_rng(0)
    weights = [(name, parameter) for name, parameter in model.named_parameters() if parameter.dim() > 1]
    masks = {name: generator.random(parameter.shape) < density for name, parameter in weights[:-1]}
    with torch.no_grad():
        for name, parameter in weights[:-1]:
            parameter.mul_(torch.from_numpy(masks[name]))
    return masks
