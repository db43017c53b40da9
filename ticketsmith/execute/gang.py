"""A worker of several processes, which make each run together: torchrun and its ranks, in a process group of their own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

from ticketsmith.errors import Exit, TicketSmithError
from ticketsmith.execute.worker import WorkerSettings


class GangError(TicketSmithError):
    """The ranks of a run cannot be started."""

    exit_status = Exit.INCOMPLETE


class Gang:
    """Looks like the one process of a worker. ``pipe`` leads to rank 0; SIGTERM goes to it, which decides for all.

    When one rank ends, torchrun ends the others, and the pipe; when this process ends, all of them do.
    """

    def __init__(self, settings: WorkerSettings) -> None:
        if not hasattr(socket, "AF_UNIX"):
            raise GangError(
                "training.ranks: several processes for a run need Linux or macOS: set it to 1, which is another run."
            )
        self._size = settings.ranks
        self._folder = Path(tempfile.mkdtemp(prefix="ticketsmith-"))  # nobody else may enter it
        self._ends: dict[str, Connection] = {}
        self._pids: dict[str, int] = {}
        self._why = ""
        address = str(self._folder / "ranks")
        try:
            with socket.socket(socket.AF_UNIX) as door:
                door.bind(address)
                door.listen(self._size + 2)
                door.settimeout(0.2)
                self._process = self._begin(address)
                try:
                    self._receive(door, settings)
                except BaseException:
                    self._give_up()
                    raise
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def pipe(self) -> Connection:
        """As that of a worker: jobs go in, events come out."""
        return self._ends["jobs"]

    @property
    def exitcode(self) -> int | None:
        """That of torchrun: 0 only if all ranks ended as they should."""
        return self._process.poll()

    @property
    def fault(self) -> str:
        """What happened to the rank that failed first, once all have ended."""
        return self._why or "its processes have ended"

    def is_alive(self) -> bool:
        """Whether torchrun, and so some rank, is there."""
        return self._process.poll() is None

    def join(self, timeout: float | None = None) -> None:
        """Waits until all have ended."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout)
            self._explain()
            self._release()

    def terminate(self) -> None:
        """Asks rank 0 to stop, and so all of them."""
        if self.is_alive():
            with suppress(ProcessLookupError):
                os.kill(self._pids["0"], signal.SIGTERM)

    def _begin(self, address: str) -> subprocess.Popen[bytes]:
        package = str(Path(__file__).resolve().parents[2])
        paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
        return subprocess.Popen(
            [sys.executable, "-m", "ticketsmith.execute.gang_agent", str(self._size), address],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the executor
        )

    def _receive(self, door: socket.socket, settings: WorkerSettings) -> None:
        """Waits until everybody has come in."""
        everybody = {"agent", "jobs", *map(str, range(self._size))}
        while set(self._ends) < everybody:
            try:
                theirs, _ = door.accept()
            except TimeoutError:
                if self._process.poll() is not None:
                    self._explain()
                    raise GangError(
                        f"training.ranks: {self._size} processes could not be started: {self.fault}."
                    ) from None
                continue
            theirs.setblocking(True)
            connection = Connection(theirs.detach())
            with suppress(EOFError, OSError):  # killed already: torchrun will say so
                role, pid = connection.recv()
                self._ends[role], self._pids[role] = connection, pid
                if role.isdigit():
                    connection.send(settings)

    def _explain(self) -> None:
        told = {role: _last(end) for role, end in self._ends.items() if role != "jobs"}
        failures = told.get("agent")
        if self._why or not isinstance(failures, dict):
            return
        rank, code = min(failures.items(), key=lambda failure: failure[1])  # a signal, below 0, comes first
        words = told.get(str(rank))
        how = "was killed (out of memory?)" if code == -signal.SIGKILL else f"ended with status {code}"
        self._why = f"rank {rank} of {self._size} {how}" if words is None else f"rank {rank} of {self._size}: {words}"

    def _give_up(self) -> None:
        """Ends what has begun."""
        self._release()
        self._process.terminate()
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _release(self) -> None:
        """Lets go of the ranks; those that are left end."""
        for role, end in self._ends.items():
            if role != "jobs":
                end.close()


def _last(end: Connection) -> object:
    """What was sent last before the end; None for nothing."""
    message = None
    with suppress(EOFError, OSError):
        while end.poll(0):
            message = end.recv()
    return message
