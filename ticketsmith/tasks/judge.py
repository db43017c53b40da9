"""The classifier in whose feature space generated images are judged: the project's own, trained on the real images.

It is a pure function of the images, their labels and this module, so it is trained once on a machine and kept in the user's
cache folder; deleting that costs seconds and changes nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from filelock import FileLock
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn import functional as F

from ticketsmith.data.places import cache
from ticketsmith.machine import cpu_name
from ticketsmith.models.cnn import MnistCnn
from ticketsmith.streams import derive

WIDTH, STEPS, BATCH, LR = 32, 1200, 100, 3e-3
_PART = 500
_VERSION = 1
"""Raised when the same images would train to another classifier."""


class Judge:
    """An ``mnist_cnn`` trained on images ``[n, c, h, w]`` in -1..1 and labels ``[n]`` in ``0 .. classes - 1``."""

    def __init__(self, images: Tensor, labels: Tensor, classes: int) -> None:
        with torch.inference_mode(False):  # whoever measures may be in it, but weights made there cannot be trained
            self._network = _trained(images, labels, classes).eval()

    @classmethod
    def untrained(cls, shape: tuple[int, ...], classes: int) -> Judge:
        """One that has learned nothing, for trying out what a judge is asked."""
        judge = cls.__new__(cls)
        judge._network = MnistCnn(shape, classes, width=WIDTH).eval()
        return judge

    def features(self, images: Tensor) -> Tensor:
        """What the classifier sees in images, ``[n, 4 * WIDTH]``: its last convolution, averaged over the places."""
        with torch.no_grad():
            return torch.cat([self._network.features(part).mean((2, 3)) for part in torch.split(images, _PART)])

    def accuracy(self, images: Tensor, labels: Tensor) -> float:
        """The share of images that it takes for the class in ``labels``, 0..1."""
        with torch.no_grad():
            labels_told = torch.cat([self._network(part).argmax(1) for part in torch.split(images, _PART)])
        return float((labels_told == labels).double().mean())


def _trained(images: Tensor, labels: Tensor, classes: int) -> MnistCnn:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(0, "judge"))
        network = MnistCnn(tuple(images.shape[1:]), classes, width=WIDTH)
    folder = cache().parent / "judges" / _digest(images, labels, classes)
    with _locked(folder.with_suffix(".lock")):
        state = _read(folder)
        if state is None:
            _train(network, images, labels)
            _write(folder, network.state_dict())
        else:
            network.load_state_dict(state)
    return network


def _train(network: nn.Module, images: Tensor, labels: Tensor) -> None:
    """In one thread, so that its sums do not depend on the number of cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.enable_grad():
            optimizer = torch.optim.Adam(network.parameters(), LR, fused=True)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
            generator = torch.Generator().manual_seed(derive(0, "judge", "order"))
            for _ in range(STEPS):
                indices = torch.randint(len(images), (BATCH,), generator=generator)
                F.cross_entropy(network(images[indices]), labels[indices]).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                optimizer.zero_grad()
                schedule.step()
    finally:
        torch.set_num_threads(threads)


def _digest(images: Tensor, labels: Tensor, classes: int) -> str:
    facts = [_VERSION, WIDTH, STEPS, BATCH, LR, classes, list(images.shape), torch.__version__, cpu_name()]
    digest = hashlib.sha256(json.dumps(facts).encode())
    digest.update(images.numpy().data)
    digest.update(labels.numpy().data)
    return digest.hexdigest()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process trains, the others wait for it; where there is no folder to share, each trains its own."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        lock.acquire()
    except OSError:
        yield
        return
    try:
        yield
    finally:
        lock.release()


def _read(path: Path) -> dict[str, Tensor] | None:
    """The kept weights; None when there are none, or they are not what was written."""
    try:
        stored = path.read_bytes()
    except OSError:
        return None
    digest, content = stored[:32], stored[32:]
    if hashlib.sha256(content).digest() != digest:
        return None
    try:
        return load(content)
    except SafetensorError:
        return None


def _write(path: Path, state: dict[str, Tensor]) -> None:
    content = save(state)
    with suppress(OSError):
        handle, part = tempfile.mkstemp(dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(hashlib.sha256(content).digest() + content)
        os.replace(part, path)
