"""Training by native kernels beside PyTorch: steps a second of CPU time of the process, rivals in turn in one process.

    python -m benchmarks.train lenet            # LeNet-300-100, batch 60, Adam
    python -m benchmarks.train lenet --open-lth DIR --torchvision DIR --data DIR  # see benchmarks/train/open_lth.py
    python -m benchmarks.train lenet --sparseprop DIR --sparselab DIR  # layers of theirs; see sparse_layers.py
    python -m benchmarks.train cnn              # the network of configs/imp_mnist.yaml, batch 64
    python -m benchmarks.train conv2 --rounds 3 # and conv4
    python -m benchmarks.train resnet --rounds 3 --levels 0.9  # ResNet-20, batch 128; vgg: VGG-16
    python -m benchmarks.train gpt              # that of configs/imp_gpt_pydocs.yaml; gpt256: of width 256
    python -m benchmarks.train unet             # that of configs/imp_flow_mnist.yaml; unet32: of width 32
    python -m benchmarks.train custom_mlp       # with SiLU, layer norm and a block of its own; squeezed_cnn: convolutions
    python -m benchmarks.train memory           # what an engine holds of LeNet and Conv-2, by level

PyTorch has its examples as float tensors in memory, a fused optimizer and one thread; convolutions with channels last too.
Masks are random, in all layers but the last. Examples are random bytes: no kernel's time depends on them. The networks that
kernels do not follow as a whole are trained by a run's own learner, with PyTorch and with native kernels.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.train import learners, networks, open_lth, sparse_layers
from ticketsmith import models
from ticketsmith.machine import cpu_name
from ticketsmith.native import best_isa
from ticketsmith.training.native.engine import Engine, Examples, Normalise, OptimizerSettings

ADAM = OptimizerSettings("adam")
SGD = OptimizerSettings("sgd", 0.9, weight_decay=1e-4)
ROWS: dict[str, tuple[str, tuple[int, int, int], int, OptimizerSettings, int]] = {
    "lenet": ("lenet_300_100", (1, 28, 28), 60, ADAM, 300),
    "cnn": ("mnist_cnn", (1, 28, 28), 64, ADAM, 100),
    "conv2": ("conv2", (3, 32, 32), 60, ADAM, 3),
    "conv4": ("conv4", (3, 32, 32), 60, ADAM, 3),
    "resnet": ("resnet20", (3, 32, 32), 128, SGD, 2),
    "vgg": ("vgg16", (3, 32, 32), 128, SGD, 1),
}
"""Built-in model, shape of an example, batch, optimizer, and steps of a round."""

Rival = Callable[[int], float]


def examples(shape: tuple[int, int, int]) -> Examples:
    generator = np.random.default_rng(0)
    return Examples(generator.integers(0, 256, (6000, *shape), dtype=np.uint8), generator.integers(0, 10, 6000))


def pytorch(model: nn.Module, data: Examples, batch: int, settings: OptimizerSettings, channels_last: bool) -> Rival:
    inputs, targets = torch.from_numpy(data.inputs).float() / 255, torch.from_numpy(data.targets)
    if channels_last:
        model, inputs = (
            model.to(memory_format=torch.channels_last),
            inputs.contiguous(memory_format=torch.channels_last),
        )  # type: ignore[call-overload]
    optimizer: torch.optim.Optimizer
    if settings.kind == "adam":
        optimizer = torch.optim.Adam(model.parameters(), 1e-3, fused=True)
    else:
        decay = settings.weight_decay
        optimizer = torch.optim.SGD(model.parameters(), 1e-3, settings.momentum, weight_decay=decay, fused=True)
    generator = torch.Generator().manual_seed(0)

    def run(steps: int) -> float:
        order = torch.randint(0, len(inputs), (steps, batch), generator=generator)
        begin = time.process_time()
        for index in order:
            loss = F.cross_entropy(model(inputs[index]), targets[index])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        return steps / (time.process_time() - begin)

    return run


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    return models.create(ROWS[name][0], {}, ROWS[name][1], 10)


def engine(name: str, sparsity: float) -> Engine:
    _, shape, batch, settings, _ = ROWS[name]
    model = network(name)
    masks = networks.prune(model, 1 - sparsity) if sparsity else {}
    graph = networks.graph(model, shape, "cross_entropy")
    return Engine(graph, networks.arrays(model), masks, set(masks), batch, settings, Normalise(1 / 255, 0.0))


def native(name: str, sparsity: float, data: Examples) -> Rival:
    trained, batch, generator = engine(name, sparsity), ROWS[name][2], np.random.default_rng(0)

    def run(steps: int) -> float:
        order = generator.integers(0, len(data.inputs), (steps, batch))
        begin = time.process_time()
        trained.train(data, order, np.full(steps, 1e-3), np.zeros(steps))
        return steps / (time.process_time() - begin)

    return run


def followed(name: str, levels: list[float], others: dict[str, Rival], layers: Sequence[str]) -> dict[str, Rival]:
    _, shape, batch, settings, _ = ROWS[name]
    data = examples(shape)
    rivals = {"PyTorch": pytorch(network(name), data, batch, settings, channels_last=False)}
    if name != "lenet":
        rivals["PyTorch, channels last"] = pytorch(network(name), data, batch, settings, channels_last=True)
    for library, level in product(layers, levels):
        model = network(name)
        networks.prune(model, 1 - level)
        model = sparse_layers.LIBRARIES[library](model, (batch, *shape))
        rivals[f"{library} {level:.0%}"] = pytorch(model, data, batch, settings, channels_last=False)
    rivals |= {
        f"native {level:.0%}" if level else "native dense": native(name, level, data) for level in [0.0, *levels]
    }
    return rivals | others


def race(rivals: dict[str, Rival], steps: int, rounds: int) -> None:
    rates: dict[str, list[float]] = {rival: [] for rival in rivals}
    for turn in range(rounds + 1):
        for rival, run in rivals.items():
            rate = run(steps)
            if turn:  # the first one warms up
                rates[rival].append(rate)
    best = max(
        (rival for rival in rivals if rival.startswith("PyTorch")), key=lambda rival: statistics.median(rates[rival])
    )
    beside = " x open_lth of the same sparsity" if any(rival.startswith("open_lth") for rival in rivals) else ""
    print(f"{'':24s} steps a CPU second (least to most)   x {best} (least to most)   time / dense time{beside}")
    for rival, each in rates.items():
        ratios = [rate / other for rate, other in zip(each, rates[best], strict=True)]
        same = rates.get(rival.replace("native", "open_lth"), []) if rival.startswith("native") else []
        also = (
            f"   {statistics.median(rate / other for rate, other in zip(each, same, strict=False)):8.1f}"
            if same
            else ""
        )
        share = statistics.median(dense / rate for rate, dense in zip(each, rates["native dense"], strict=True))
        print(
            f"{rival:24s} {statistics.median(each):10.1f} ({min(each):.1f} to {max(each):.1f})"
            f"   {statistics.median(ratios):8.2f} ({min(ratios):.2f} to {max(ratios):.2f})   {share:8.3f}{also}"
        )


def memory(levels: list[float]) -> None:
    """What an engine holds: parameters, moments, gradients, masks and tables of taps; without values of the batch."""
    for name in ("lenet", "conv2"):
        sizes = {level: engine(name, level).held() for level in [0.0, *levels]}
        for level, size in sizes.items():
            print(f"{name:8s} {level:5.0%} {size / 2**20:8.2f} MiB   {size / sizes[0.0]:.3f} of dense")


def machine() -> str:
    return f"{cpu_name()}, {best_isa().name}, torch {torch.__version__}, one thread"


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("row", choices=[*ROWS, *learners.ROWS, "memory"])
    parser.add_argument("--levels", type=float, nargs="*", default=[0.8, 0.9, 0.98])
    parser.add_argument("--rounds", type=int, default=9)
    for name in ("open-lth", "torchvision", "data"):
        parser.add_argument(f"--{name}", type=Path)
    for name in sparse_layers.LIBRARIES:
        parser.add_argument(f"--{name}", type=Path, help="the folder that `pip install --target` put it into")
    options: Any = parser.parse_args(arguments)
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    print(f"{machine()}\npython -m benchmarks.train {' '.join(arguments)}\n")
    if options.row == "memory":
        memory([*options.levels, 0.95])
    elif options.row in ROWS:
        others = {}
        if options.open_lth:
            others = {
                f"open_lth {level:.0%}" if level else "open_lth dense": open_lth.rival(
                    options.open_lth, options.torchvision, options.data, level
                )
                for level in [0.0, *options.levels]
            }
        layers = [name for name in sparse_layers.LIBRARIES if getattr(options, name)]
        sys.path += [str(getattr(options, name)) for name in layers]
        race(followed(options.row, options.levels, others, layers), ROWS[options.row][-1], options.rounds)
    else:
        race(learners.rivals(options.row, options.levels), learners.ROWS[options.row][-1], options.rounds)


if __name__ == "__main__":
    main(sys.argv[1:])
