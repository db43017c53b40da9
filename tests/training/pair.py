"""Two ranks in processes that are forked, without torchrun: ``run`` makes a recipe's runs with them, stopped now and then.

And models that tell ranks apart.
"""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from tests import warm
from tests.training.runs import ROOT, jobs
from ticketsmith.errors import TaskError
from ticketsmith.store.directory import DirectoryStore
from ticketsmith.training.device import prepare
from ticketsmith.training.follow import follow
from ticketsmith.training.produce import Hooks, Interrupted, produce
from ticketsmith.training.ranks import Ranks


class Busy(nn.Module):
    """All that may differ between ranks: batch norm, dropout; and a layer that only some batches reach."""

    def __init__(self, input_shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(64, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Dropout(0.2))
        self.output, self.seldom, self.never = nn.Linear(24, classes), nn.Linear(24, classes), nn.Linear(24, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.inner(inputs.flatten(1))
        logits: Tensor = self.output(hidden)
        return logits + self.seldom(hidden) if bool(inputs[0].sum() > 0) else logits


class Drifting(nn.Module):
    """A fault: rank 1 changes a weight by itself."""

    def __init__(self, input_shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.output = nn.Linear(64, classes)

    def forward(self, inputs: Tensor) -> Tensor:
        with torch.no_grad():
            self.output.bias += 1e-3 * int(os.environ.get("RANK", 0))
        logits: Tensor = self.output(inputs.flatten(1))
        return logits


def run(recipe: Path, store: Path, every: int = 10**9, variant: str = "") -> list[str]:
    """What rank 0 and rank 1 printed; a run is stopped after each ``every`` steps, and begun again. ``variant``: only that."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = ["-m", "tests.training.pair", port, str(recipe), str(store), str(every), variant]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    ranks = [
        warm.start([*command, str(rank)], cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for rank in range(2)
    ]
    return [process.communicate(timeout=240)[0] for process in ranks]


def _main(port: str, recipe: str, store: str, every: str, variant: str, rank: str) -> None:
    os.environ |= {"RANK": rank, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    device = prepare("cpu")
    ranks = Ranks(device)
    try:
        if rank == "1":
            follow(ranks, device)
            return
        for (name, _, _), job in jobs(Path(recipe)).items():
            outcome = "" if variant in ("", name) else "another variant"
            while not outcome:
                steps = itertools.count(1)
                hooks = Hooks(stop=lambda c=steps: next(c) % int(every) == 0)  # type: ignore[misc]
                try:
                    outcome = produce(job, DirectoryStore(Path(store)), device, hooks, ranks)
                except Interrupted:
                    print("interrupted")
        ranks.begin(None)
    except TaskError as error:
        print(error)


if __name__ == "__main__":
    _main(*sys.argv[1:])
