"""Data-parallel training: the processes that share each batch of a run, and what they tell each other.

Each rank computes the gradient of its part of the batch; the sum over ranks is everybody's (as Li et al. 2020, PyTorch
Distributed). Rank 0 alone reads and writes the store, prunes and measures: the others are given masks, weights and the state
of the optimizer by it when a run begins, and take the same steps. Numbers travel by gloo between CPUs and by NCCL between GPUs.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ticketsmith.errors import TaskError
from ticketsmith.streams import derive
from ticketsmith.tasks.task import Batch
from ticketsmith.training.job import Job
from ticketsmith.training.parts import parts

_PATIENCE = timedelta(days=7)  # a rank waits while rank 0 measures; whoever is killed is noticed at once


class RankLostError(Exception):
    """Another rank has ended: this one cannot go on alone."""


@dataclass(frozen=True)
class Beginning:
    """What rank 0 tells the others of a run: the job, its masks as a file, and where training stands."""

    job: Job
    masks: bytes
    tensors: bytes
    averaged: int
    step: int
    interval_start: int


class Ranks:
    """This process among the ``size`` that torchrun has started. ``asked``: whether somebody wants rank 0 to stop."""

    def __init__(self, device: torch.device) -> None:
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        with _together():
            dist.init_process_group(backend, timeout=_PATIENCE)
        self.rank, self.size, self.device = dist.get_rank(), dist.get_world_size(), device
        self.asked: Callable[[], bool] = lambda: False
        self.stopping = False

    def begin(self, beginning: Beginning | None) -> None:
        """Of rank 0: begins a run with the others; None: there is no more to do."""
        content = pickle.dumps(beginning)  # between processes of one user, as through any pipe of multiprocessing
        with _together():
            dist.broadcast(torch.tensor([len(content)]), 0)
            dist.broadcast(torch.frombuffer(bytearray(content), dtype=torch.uint8), 0)

    def receive(self) -> Beginning | None:
        """Of the others: waits for what ``begin`` tells."""
        size = torch.zeros(1, dtype=torch.int64)
        with _together():
            dist.broadcast(size, 0)
            content = torch.empty(int(size), dtype=torch.uint8)
            dist.broadcast(content, 0)
        beginning: Beginning | None = pickle.loads(content.numpy().tobytes())
        return beginning

    def part(self, batch: Batch, generator: torch.Generator) -> Batch:
        """This rank's examples of a batch; what is drawn from now on in its step is drawn for them alone."""
        if self.rank:
            generator.manual_seed(derive(generator.initial_seed(), "rank", self.rank))
            layers = derive(torch.default_generator.initial_seed(), "rank", self.rank)
            torch.default_generator.manual_seed(layers)
            if self.device.type == "cuda":
                torch.cuda.manual_seed(layers)
        return parts(batch, self.size)[self.rank]

    def sum_(self, tensor: Tensor) -> None:
        """The sum over ranks, in place, the same on each."""
        with _together():
            dist.all_reduce(tensor)

    def any_(self, flags: Tensor) -> None:
        """Which of the flags (``uint8``, on the CPU) are set on some rank, in place."""
        with _together():
            dist.all_reduce(flags, dist.ReduceOp.MAX)

    def first_(self, tensor: Tensor) -> None:
        """What rank 0 has, in place."""
        with _together():
            dist.broadcast(tensor, 0)

    def check(self, states: Mapping[str, Tensor], step: int) -> None:
        """Raises TaskError, on every rank, when these tensors (on the CPU) are not the same on all ranks."""
        sha = hashlib.sha256()
        for name, value in states.items():
            sha.update(f"{name}\0{value.dtype}\0{tuple(value.shape)}\0".encode())
            sha.update(value.contiguous().view(-1).view(torch.uint8).numpy().data)
        mine = torch.frombuffer(bytearray(sha.digest()), dtype=torch.uint8)
        all_of_them = [torch.empty_like(mine) for _ in range(self.size)]
        with _together():
            dist.all_gather(all_of_them, mine)
        for rank, theirs in enumerate(all_of_them):
            if not torch.equal(theirs, all_of_them[0]):
                raise TaskError(
                    f"training.ranks: at iteration {step:,} rank {rank} has other weights than rank 0. Something changes weights "
                    "beside the optimizer, and by chance of its own: a hook, the loss, or a faulty machine."
                )


class Exchange:
    """The gradient of a model over all ranks: of a pruned weight, only what survives is sent."""

    def __init__(self, model: nn.Module, masks: Mapping[str, Tensor], ranks: Ranks) -> None:
        self._ranks = ranks
        named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
        self._parameters = [parameter for _, parameter in named]
        self._survivors = {
            id(parameter): masks[name].flatten().nonzero().squeeze(1) for name, parameter in named if name in masks
        }
        kept = model.state_dict()
        self._buffers = [buffer for name, buffer in model.named_buffers() if name in kept]

    def sum(self, loss: Tensor) -> Tensor:
        """Puts the sum over ranks in the place of each gradient; the sum of the losses. Tells whether to stop, too."""
        ranks = self._ranks
        present = [parameter.grad is not None for parameter in self._parameters]
        flags = torch.tensor([*present, ranks.asked()], dtype=torch.uint8)
        ranks.any_(flags)
        *used, stopping = flags.tolist()
        ranks.stopping = bool(stopping)
        with torch.no_grad():
            total = loss.clone()
            ranks.sum_(total)
            by_dtype: dict[torch.dtype, list[nn.Parameter]] = {}
            for parameter, somewhere in zip(self._parameters, used, strict=True):
                if somewhere:
                    by_dtype.setdefault(parameter.dtype, []).append(parameter)
            for parameters in by_dtype.values():
                pieces = [self._sent(parameter) for parameter in parameters]
                flat = torch.cat(pieces)
                ranks.sum_(flat)
                for parameter, piece in zip(
                    parameters, torch.split(flat, [len(piece) for piece in pieces]), strict=True
                ):
                    self._put(parameter, piece)
        return total

    def same_buffers(self) -> None:
        """Gives every rank the buffers of rank 0: batch norm has seen other examples on each."""
        by_dtype: dict[torch.dtype, list[Tensor]] = {}
        for buffer in self._buffers:
            by_dtype.setdefault(buffer.dtype, []).append(buffer)
        for buffers in by_dtype.values():
            flat = torch.cat([buffer.flatten() for buffer in buffers])
            self._ranks.first_(flat)
            for buffer, piece in zip(buffers, torch.split(flat, [buffer.numel() for buffer in buffers]), strict=True):
                buffer.data.copy_(piece.view_as(buffer))

    def _sent(self, parameter: nn.Parameter) -> Tensor:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        flat = parameter.grad.flatten()
        survivors = self._survivors.get(id(parameter))
        return flat if survivors is None else flat[survivors]

    def _put(self, parameter: nn.Parameter, piece: Tensor) -> None:
        survivors = self._survivors.get(id(parameter))
        assert parameter.grad is not None
        if survivors is not None:
            piece = piece.new_zeros(parameter.numel()).index_copy_(0, survivors, piece)
        parameter.grad.copy_(piece.view_as(parameter.grad))


@contextmanager
def _together() -> Iterator[None]:
    """Around what all ranks do at once: it fails when one of them has ended."""
    try:
        yield
    except RuntimeError as error:
        raise RankLostError(str(error)) from error
