"""One of the processes that make a run together, as torchrun starts it: rank 0 is a worker, the others follow it.

    torchrun ... -m ticketsmith.execute.rank ADDRESS

``ADDRESS`` is the socket of the executor (``gang.Gang``), which tells the settings. A rank ends with the executor.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING

from ticketsmith.errors import TicketSmithError, in_a_line
from ticketsmith.execute.worker import Ended, Maker, WorkerSettings, fault, settle
from ticketsmith.training.job import Job

if TYPE_CHECKING:
    import torch

    from ticketsmith.training.ranks import Ranks

ALONE = 75
"""Exit status of a rank that could not go on, since another one had ended."""


def connect(address: str, role: str) -> Connection:
    """A connection to the executor, which is told who this is. Without an executor, the process ends."""
    ours = socket.socket(socket.AF_UNIX)
    try:
        ours.connect(address)
        connection = Connection(ours.detach())
        connection.send((role, os.getpid()))
    except OSError:
        sys.exit(ALONE)
    return connection


def main(address: str) -> int:
    """The body of the process; its exit status."""
    stopping: list[int] = []
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the executor decides
    signal.signal(signal.SIGTERM, lambda number, _: stopping.append(number))
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    executor = connect(address, str(rank))
    try:
        settings: WorkerSettings = executor.recv()
    except (EOFError, OSError):
        return ALONE
    threading.Thread(target=_end_with, args=(executor,), daemon=True).start()
    jobs = connect(address, "jobs") if rank == 0 else None
    settle(settings)

    from ticketsmith.training.device import device_of, prepare  # these import torch, and read what `settle` has set
    from ticketsmith.training.follow import follow
    from ticketsmith.training.ranks import RankLostError, Ranks

    try:
        device = prepare(device_of(settings.device, settings.slot, int(os.environ["LOCAL_RANK"]), size))
    except TicketSmithError as error:  # the same on all ranks
        if jobs is not None:
            _refuse(jobs, error)
        return 0
    try:
        ranks = Ranks(device)
        if jobs is None:
            follow(ranks, device)
        else:
            _lead(jobs, settings, device, ranks, stopping)
    except RankLostError:
        return ALONE
    except Exception as error:
        executor.send(in_a_line(error))
        return 1
    return 0


def _lead(jobs: Connection, settings: WorkerSettings, device: torch.device, ranks: Ranks, stopping: list[int]) -> None:
    from ticketsmith.store import open_store
    from ticketsmith.training.ranks import RankLostError

    try:
        store = open_store(settings.store)
    except TicketSmithError as error:
        _refuse(jobs, error)
        ranks.begin(None)
        return
    maker = Maker(settings, store, device, jobs.send, lambda: bool(stopping), ranks)
    while True:
        job: Job | None = jobs.recv()
        if job is None:
            ranks.begin(None)
            return
        began = time.monotonic()
        try:
            event = maker.make(job)
        except RankLostError:
            raise
        except Exception as error:
            event = fault(job.spec.key, time.monotonic() - began, error)
        jobs.send(event)
        if event.outcome == "failed":
            return  # the others may be anywhere in that run: all begin anew
        if event.outcome == "interrupted":
            ranks.begin(None)
            return


def _refuse(jobs: Connection, error: TicketSmithError) -> None:
    jobs.send(Ended("", "failed", 0.0, f"a worker cannot start: {error}", int(error.exit_status), fatal=True))


def _end_with(executor: Connection) -> None:
    wait([executor])  # nothing more is sent: its end
    os._exit(1)


if __name__ == "__main__":
    status = main(sys.argv[1])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # gloo's threads may still wait for a rank that has gone, and would be found fault with
