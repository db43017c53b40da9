"""Networks of PyTorch, and the same as graphs, for tests of the kernels of training."""

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
