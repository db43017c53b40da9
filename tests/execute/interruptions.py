"""``python -m tests.execute.interruptions RECIPE STORE KILLS``: trains a recipe in processes that are killed as many times.

They are forked from this one, which has torch and the data loaded, so that a life costs no more than what is trained in it.
Without kills, two of them share the work. Prints how many were killed.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time

from ticketsmith import api
from ticketsmith.api import Prepared
from ticketsmith.execute import executor, local
from ticketsmith.execute.executor import Event


def life(prepared: Prepared) -> tuple[int, int]:
    """A process that trains, and a pipe on which it writes a byte for each event."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writing)
        return pid, reading
    status = 1
    try:

        def tell(event: Event) -> None:
            os.write(writing, b".")

        api.train(prepared, device="cpu", executor="debug", checkpoint_every=0.0, on_event=tell)
        status = 0
    finally:
        os._exit(status)


def end(pid: int) -> int:
    """The exit status of a process."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main(recipe: str, store: str, kills: int) -> int:
    import torch

    torch.set_num_threads(1)
    executor.BUSY_WAIT = local.BUSY_WAIT = 0.05  # runs take less
    prepared = api.prepare(api.load(recipe, [f"store={store}"]))
    if not kills:
        statuses = [end(pid) for pid in [life(prepared)[0] for _ in range(2)]]
        return max(statuses)
    chance, count = random.Random(5), 0
    for _ in range(kills):
        pid, events = life(prepared)
        for _ in range(chance.randint(1, 5)):
            os.read(events, 1)
        time.sleep(chance.uniform(0, 0.02))
        os.kill(pid, signal.SIGKILL)
        count += end(pid) == -signal.SIGKILL
        os.close(events)
    print(count)
    return end(life(prepared)[0])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
