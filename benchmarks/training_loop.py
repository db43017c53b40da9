"""Steps a second of the training loop against the usual one (DataLoader, eager Adam), side by side on one thread.

    python benchmarks/training_loop.py

LeNet-300-100 on MNIST, batch 60, as in the paper; dense, and with a mask of 90 %. Rounds are interleaved; the ratio is the
median of the rounds' ratios, with its smallest and largest.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from ticketsmith.data import load
from ticketsmith.machine import cpu_name
from ticketsmith.pruning.masks import full, prune
from ticketsmith.pruning.weights import prunable
from ticketsmith.spec import PruneRule, Training
from ticketsmith.tasks.task import create
from ticketsmith.training.device import prepare
from ticketsmith.training.learner import TorchLearner
from ticketsmith.training.loop import Progress, train

TASK = {"name": "classification", "data": "mnist", "model": "lenet_300_100"}


def ours(steps: int, sparse: bool) -> Callable[[], float]:
    task = create(TASK, Path())
    model = task.build_model()
    masks = full(prunable(model))
    if sparse:
        scores = {name: weight.detach().abs() for name, weight in prunable(model).items()}
        masks = prune(masks, scores, PruneRule(fraction=0.9))
    training = Training(optimizer="adam", lr=0.0012, batch_size=60, duration="1000000it", evaluate_every="1000000it")
    learner, progress = TorchLearner(task, model, masks, training), Progress()

    def run() -> float:
        stop = progress.step + steps
        began = time.perf_counter()

        def after(progress: Progress, _: torch.Tensor) -> None:
            if progress.step == stop:
                raise StopIteration

        with contextlib.suppress(StopIteration):
            train(learner, training, 0, progress, 1_000_000, after)
        return steps / (time.perf_counter() - began)

    return run


def usual(steps: int) -> Callable[[], float]:
    data = load("mnist", {})
    images = (torch.tensor(data.train.inputs).float() / 255 - data.mean[0]) / data.std[0]
    loader = DataLoader(TensorDataset(images, torch.tensor(data.train.labels)), batch_size=60, shuffle=True)
    model = create(TASK, Path()).build_model()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.0012)

    def run() -> float:
        began = time.perf_counter()
        for inputs, labels in itertools.islice(loader, steps):
            optimizer.zero_grad()
            F.cross_entropy(model(inputs), labels).backward()
            optimizer.step()
        return steps / (time.perf_counter() - began)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    prepare("cpu")
    rivals = {
        "usual loop": usual(options.steps),
        "TicketSmith, dense": ours(options.steps, sparse=False),
        "TicketSmith, masked 90 %": ours(options.steps, sparse=True),
    }
    rates: dict[str, list[float]] = {name: [] for name in rivals}
    for round_ in range(options.rounds + 1):
        for name, run in rivals.items():
            rate = run()
            if round_:  # the first is warm-up
                rates[name].append(rate)
    print(f"python {' '.join(sys.argv)}")
    print(f"{cpu_name()}, 1 thread, torch {torch.__version__}, Python {platform.python_version()}")
    for name, found in rates.items():
        ratios = [rate / base for rate, base in zip(found, rates["usual loop"], strict=True)]
        print(
            f"{name:26s} {statistics.median(found):7.0f} steps/s   {statistics.median(ratios):.2f}x the usual loop "
            f"({min(ratios):.2f} to {max(ratios):.2f})"
        )


if __name__ == "__main__":
    main()
