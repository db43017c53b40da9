"""The break-even of each kind of layer: from which sparsity on the sparse runtime is faster than the best dense one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ticketsmith.evidence.serving import LayerSpeed
from ticketsmith.inference.measuring.lineup import Candidate
from ticketsmith.inference.measuring.measure import Contest, Progress, measure
from ticketsmith.inference.measuring.surroundings import Surroundings
from ticketsmith.inference.runtimes import Runtime
from ticketsmith.inference.runtimes.sparse import Sparse
from ticketsmith.inference.settings import BenchmarkSettings

SPARSITIES = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98)
_ROUNDS = 30
_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d)


def break_even(
    model: nn.Module,
    example: Tensor,
    dense: Sequence[Runtime],
    *,
    threads: int = 1,
    rounds: int = _ROUNDS,
    progress: Progress = lambda what, count, total: None,
) -> tuple[LayerSpeed, ...]:
    """Each distinct layer of ``model`` alone, with random masks, against the fastest of ``dense`` runtimes on it.

    ``example`` ``[batch, ...]`` shows the shapes that layers get. A layer that the sparse runtime does not know is left
    out.
    """
    shapes = _distinct(model, example)
    speeds: list[LayerSpeed] = []
    for index, ((kind, shape), (layer, size)) in enumerate(shapes.items()):
        progress(f"break-even of {kind} {shape}", index, len(shapes))
        inputs = torch.randn(size, generator=torch.Generator().manual_seed(0))
        field = [Candidate("layer", step, 0, f"{kind} {shape} {share}", share, _masked(layer, share))
                 for step, share in enumerate(SPARSITIES)]  # fmt: skip
        contest = Contest(field[0], field, lambda count, inputs=inputs: inputs[:count])  # type: ignore[misc]
        measured = measure(
            contest,
            [*dense, Sparse(handover=False)],
            BenchmarkSettings(batch_sizes=(len(inputs),), rounds=min(rounds, _ROUNDS), threads=(threads,)),
            everywhere=False,
            surroundings=_Unasked(),
        )
        speeds += [
            LayerSpeed(
                kind, shape, len(inputs), timing.sparsity, timing.speedup, timing.speedup_low, timing.speedup_high
            )
            for timing in measured.timings
            if timing.runtime == Sparse.name and timing.against
        ]
    return tuple(speeds)


class _Unasked(Surroundings):
    """The benchmark that these are part of tells the machine's peaks."""

    def peaks(self, threads: int) -> None:
        return None


def _distinct(model: nn.Module, example: Tensor) -> dict[tuple[str, str], tuple[nn.Module, torch.Size]]:
    """One layer of every kind and shape, and the shape of its inputs."""
    layers: dict[tuple[str, str], tuple[nn.Module, torch.Size]] = {}

    def note(layer: nn.Module, inputs: tuple[Tensor, ...], outputs: Tensor) -> None:
        layers.setdefault(described(layer, inputs[0]), (layer, inputs[0].shape))

    handles = [module.register_forward_hook(note) for module in model.modules() if isinstance(module, _LAYERS)]
    try:
        with torch.inference_mode():
            model(example.clone())
    finally:
        for handle in handles:
            handle.remove()
    return layers


def described(layer: nn.Module, inputs: Tensor) -> tuple[str, str]:
    """Kind and shape of a layer, as a reader knows them: ``linear``, ``300x784``; ``convolution``, ``3x3 64->64 at 32x32``."""
    if isinstance(layer, nn.Linear):
        tokens = f" on {inputs.shape[1]} tokens" if inputs.dim() == 3 and inputs.shape[1] > 1 else ""
        return "linear", f"{layer.out_features}x{layer.in_features}{tokens}"
    assert isinstance(layer, (nn.Conv1d, nn.Conv2d))
    kernel, stride = "x".join(map(str, layer.kernel_size)), max(layer.stride)
    shape = f"{kernel} {layer.in_channels}->{layer.out_channels} at {'x'.join(map(str, inputs.shape[2:]))}"
    shape += f", stride {stride}" if stride > 1 else ""
    if layer.groups == 1:
        return "convolution", shape
    if layer.groups == layer.in_channels:
        return "depthwise convolution", shape
    return "grouped convolution", f"{shape}, {layer.groups} groups"


def _plain(layer: nn.Module) -> nn.Module:
    """A layer of the same kind and shape, whose weights no mask and no parametrization makes; they are not set."""
    skip_init: Any = nn.utils.skip_init  # for the checker of types, which does not know it
    if isinstance(layer, nn.Linear):
        plain = skip_init(nn.Linear, layer.in_features, layer.out_features, bias=layer.bias is not None)
    else:
        assert isinstance(layer, (nn.Conv1d, nn.Conv2d))
        kind = nn.Conv1d if isinstance(layer, nn.Conv1d) else nn.Conv2d
        plain = skip_init(
            kind, layer.in_channels, layer.out_channels, layer.kernel_size, stride=layer.stride, padding=layer.padding,
            dilation=layer.dilation, groups=layer.groups, bias=layer.bias is not None, padding_mode=layer.padding_mode,
        )  # fmt: skip
    if layer.bias is not None:
        with torch.no_grad():
            plain.bias.copy_(layer.bias)
    result: nn.Module = plain
    return result


def _masked(layer: nn.Module, sparsity: float) -> nn.Module:
    """A layer like it with random weights, of which ``sparsity`` are zero."""
    masked = _plain(layer)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        weight = masked.weight
        assert isinstance(weight, Tensor)
        scores = torch.rand(weight.numel(), generator=generator)
        mask = torch.ones_like(scores)
        mask[scores.argsort()[: round(sparsity * len(scores))]] = 0
        fan_in = weight[0].numel() * max(1e-3, 1 - sparsity)
        weight.copy_(torch.randn(weight.shape, generator=generator) / fan_in**0.5 * mask.reshape(weight.shape))
    return masked.eval()
