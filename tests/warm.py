"""Commands in processes that have torch imported already: each is forked from a server that did nothing but import.

To start Python and to import torch takes seconds of processor time, many times what a small recipe takes to train. ``run``
and ``start`` are for tests of anything but that start: what a command does, prints and leaves is the same. What cannot be
so (Python's own options, a script, another system) is run in a process of its own.

One server for each set of variables that are read at imports, ended with the process that asks. No server has threads.
"""

from __future__ import annotations

import atexit
import fcntl
import gc
import importlib
import json
import os
import re
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

_PRELOADED = (
    "ticketsmith",
    "altair",
    "azure.identity",
    "azure.storage.blob",
    "numpy",
    "onnx",
    "pandas",
    "rich.live",
    "rich.progress",
    "safetensors.torch",
    "scipy.stats",
    "torch",
    "torch.onnx",
    "ticketsmith.api",
    "ticketsmith.cli.main",
    "ticketsmith.execute.local",
    "ticketsmith.execute.server",
    "ticketsmith.experiment",
    "ticketsmith.exporter",
    "ticketsmith.inference.suite",
    "ticketsmith.report.render",
    "ticketsmith.store.blob",
    "ticketsmith.tasks",
    "ticketsmith.training.produce",
    "vl_convert",
)
_READ_WHEN_NEEDED = (
    *("AZURE_", "JOB_COMPLETION_INDEX", "KUBE", "LIGHT_", "PYTEST_", "SOCKETS_LOG", "TICKETSMITH_", "XDG_"),
    *("COLUMNS", "HOME", "HOSTNAME", "LINES", "PATH", "PWD", "OLDPWD", "SHLVL", "TERM", "TMPDIR", "_"),
)
"""Beginnings of names of variables that no import depends on. All others must be the server's."""
_READ_AT_IMPORT = ("TICKETSMITH_ISA",)
_MOST_SERVERS = 2
_LONGEST = 1 << 17  # bytes of a request


def run(
    arguments: Sequence[str | Path],
    *,
    cwd: str | Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float | None = None,
) -> subprocess.CompletedProcess[str]:
    """As ``subprocess.run([sys.executable, *arguments], capture_output=True, text=True, ...)``.

    Raises subprocess.TimeoutExpired.
    """
    process = start(arguments, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with process:
        try:
            out, err = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess([sys.executable, *map(str, arguments)], process.returncode, out, err)


def start(
    arguments: Sequence[str | Path], *, env: Mapping[str, str] | None = None, **more: Any
) -> subprocess.Popen[str]:
    """As ``subprocess.Popen([sys.executable, *arguments], text=True, env=env, **more)``.

    Of ``more``, ``cwd``, ``stdin``, ``stdout``, ``stderr`` and ``start_new_session`` are known to forked processes.
    """
    words = [str(word) for word in arguments]
    variables = dict(os.environ if env is None else env)
    kind = _Warm if _can_be_forked(words, variables) else subprocess.Popen
    return kind([sys.executable, *words], text=True, env=variables, **more)


def _can_be_forked(words: Sequence[str], env: Mapping[str, str]) -> bool:
    place = env.get("PYTHONPATH", "").partition(os.pathsep)[0]
    return (
        sys.platform == "linux"
        and words[:1] == ["-m"]
        and words[1].startswith(("ticketsmith", "tests."))
        and Path(place, "ticketsmith", "cli", "main.py").is_file()
    )


class _Warm(subprocess.Popen[str]):
    """A command that a server was asked to fork: who started it hears of its end from the server."""

    def _execute_child(self, args: Any, _1: Any, _2: Any, _3: Any, _4: Any, cwd: Any, env: Any, *more: Any) -> None:
        _, _, _, p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite, *_, new_session, _ = more
        self._reply, theirs = socket.socketpair()
        with theirs:
            _server_for(env).fork(
                {"words": args[1:], "cwd": os.fspath(cwd or Path.cwd()), "env": env, "session": new_session},
                [*(own if own != -1 else number for number, own in enumerate((p2cread, c2pwrite, errwrite)))],
                theirs.fileno(),
            )
        self._close_pipe_fds(p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)  # type: ignore[attr-defined]
        self._child_created = True
        self.pid = int(self._told() or 0)
        if not self.pid:
            raise OSError("the server that commands are forked from has ended")

    def _told(self) -> bytes:
        try:
            return self._reply.recv(64).partition(b"\n")[0]
        except ConnectionError:
            return b""

    def _try_wait(self, flags: int) -> tuple[int, int]:
        self._reply.settimeout(0 if flags & os.WNOHANG else None)
        try:
            told = self._told()
        except (BlockingIOError, TimeoutError):
            return 0, 0
        self._reply.close()
        return self.pid, int(told) if told else signal.SIGKILL  # the server was killed, and its children with it

    def _internal_poll(self, _deadstate: int | None = None, *_: Any) -> int | None:
        if self.returncode is None and self._child_created and self._waitpid_lock.acquire(False):  # type: ignore[attr-defined]
            try:
                pid, status = self._try_wait(os.WNOHANG)
                if pid:
                    self._handle_exitstatus(status)  # type: ignore[attr-defined]
            finally:
                self._waitpid_lock.release()  # type: ignore[attr-defined]
        return self.returncode


class _Server:
    """Our side of the process that commands are forked from.

    It has only the variables ``read`` at imports: of others, one may be the mark of a pod, with which the server would end.
    """

    def __init__(self, read: Iterable[tuple[str, str]]) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", __file__, str(theirs.fileno())],
                env={
                    **dict(read),
                    "PATH": os.environ["PATH"],
                    "JE_ARROW_MALLOC_CONF": "background_thread:false",
                },  # a thread of pyarrow's, at its import
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )

    def fork(self, order: dict[str, Any], stdio: list[int], reply: int) -> None:
        request = json.dumps(order).encode()
        assert len(request) < _LONGEST
        socket.send_fds(self._control, [request], [*stdio, reply])

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def close(self) -> None:
        self._control.close()
        self._process.wait(60)


_servers: dict[tuple[int, frozenset[tuple[str, str]]], _Server] = {}


def _read_at_import(env: Mapping[str, str]) -> frozenset[tuple[str, str]]:
    """The variables that must be the same for processes of one server."""
    return frozenset(
        (name, value)
        for name, value in env.items()
        if name in _READ_AT_IMPORT or not name.startswith(_READ_WHEN_NEEDED)
    )


def _server_for(env: Mapping[str, str]) -> _Server:
    read = _read_at_import(env)
    key = (os.getpid(), read)
    server = _servers.pop(key, None)
    if server is None or not server.is_alive():
        while len(_servers) >= _MOST_SERVERS:
            _servers.pop(next(iter(_servers))).close()
        server = _Server(read)
        atexit.register(server.close)
    _servers[key] = server  # the last one is the one used last
    return server


def _serve(control: socket.socket) -> dict[str, Any] | None:
    """Returns in a process that was forked, with what it is to do; and with None when nobody can ask any more."""
    replies: dict[int, tuple[int, int]] = {}
    ready = selectors.DefaultSelector()
    ready.register(control, selectors.EVENT_READ)
    while True:
        for key, _ in ready.select():
            if key.fd in replies:
                pid, reply = replies.pop(key.fd)
                ready.unregister(key.fd)
                os.close(key.fd)
                with suppress(OSError):  # nobody waits for it any more
                    os.write(reply, b"%d\n" % os.waitpid(pid, 0)[1])
                os.close(reply)
                continue
            request, fds, _, _ = socket.recv_fds(control, _LONGEST, 4)
            if not request:
                return None
            pid = os.fork()
            if pid == 0:
                ready.close()
                control.close()
                for pidfd, (_, reply) in replies.items():
                    os.close(pidfd)
                    os.close(reply)
                os.close(fds[3])
                for number, own in enumerate(fds[:3]):
                    os.dup2(own, number)
                    os.close(own)
                order: dict[str, Any] = json.loads(request)
                return order
            pidfd = os.pidfd_open(pid)
            replies[pidfd] = (pid, fds[3])
            ready.register(pidfd, selectors.EVENT_READ)
            with suppress(OSError):
                os.write(fds[3], b"%d\n" % pid)
            for fd in fds[:3]:
                os.close(fd)


def _become(order: Mapping[str, Any]) -> None:
    """Does in this process, just forked, what ``python -m`` does in a fresh one."""
    if order["session"]:
        os.setsid()
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["env"])
    from ticketsmith import telemetry

    telemetry.switch_off()  # as the import did in the server
    _open_streams()
    _spawn_by_forking()
    module = order["words"][1]
    sys.argv[:] = [module, *order["words"][2:]]
    sys.path.insert(0, order["cwd"])
    if not hasattr(sys.modules.get(module), "__path__"):
        sys.modules.pop(module, None)
    _end_with(lambda: runpy.run_module(module, run_name="__main__", alter_sys=True))


def _open_streams() -> None:
    """Python's own, upon the files 0 to 2; what the former ones still held is not written again."""
    for name, number in (("stdout", 1), ("stderr", 2)):
        former = getattr(sys, name)
        stream = open(number, "w", encoding=former.encoding, errors=former.errors, closefd=False)  # noqa: SIM115
        stream.reconfigure(line_buffering=number == 2 or os.isatty(number), write_through=former.write_through)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    sys.stdin = sys.__stdin__ = open(0, closefd=False)  # type: ignore[misc]  # noqa: SIM115


def _end_with(command: Callable[[], object]) -> NoReturn:
    """As Python ends, without taking all modules apart: that takes a second, and copies the memory that is shared."""
    status = 0
    try:
        command()
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        status = 1
    threading._shutdown()  # type: ignore[attr-defined]  # waits for all that are no daemons
    atexit._run_exitfuncs()
    with suppress(OSError, ValueError):
        sys.stderr.flush()
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        status = 120
    os._exit(status & 0xFF)


def _spawn_by_forking() -> None:
    """The first process that this one spawns by ``multiprocessing`` is a child that was forked now, with the imports alone.

    Later there are threads here, whose locks stay locked in what is forked, and connections that must not be shared.
    """
    from multiprocessing import util

    spawn_afresh = util.spawnv_passfds
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    waiting = [os.fork()]
    if waiting == [0]:
        ours.close()
        _wait_to_be_spawned(theirs)
    theirs.close()

    def spawnv_passfds(path: bytes, arguments: Sequence[Any], passed: Sequence[int]) -> int:
        words = [os.fsdecode(word) for word in arguments]
        if "--multiprocessing-fork" not in words or not waiting:
            return spawn_afresh(path, arguments, passed)
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):  # nobody reads it any more
                stream.flush()
        order = {
            "words": words,
            "cwd": str(Path.cwd()),
            "env": dict(os.environ),
            "passed": [0, 1, 2, *passed],
            "ignored": [number for number in _ASKED if signal.getsignal(number) is signal.SIG_IGN],
            "blocked": list(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
        }
        with ours:
            socket.send_fds(ours, [json.dumps(order).encode()], [0, 1, 2, *passed])
        return waiting.pop()

    def end() -> None:
        ours.close()
        for pid in waiting:
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)

    util.spawnv_passfds = spawnv_passfds  # type: ignore[assignment]
    atexit.register(end)


_ASKED = (signal.SIGTERM, signal.SIGINT)
"""Signals by which a process is asked to end."""


def _wait_to_be_spawned(control: socket.socket) -> NoReturn:
    """Becomes what is to be spawned; ends when nobody can ask for that any more."""
    from multiprocessing import spawn

    signal.pthread_sigmask(signal.SIG_BLOCK, _ASKED)  # they are meant for who is there
    request, fds, _, _ = socket.recv_fds(control, _LONGEST, 16)
    if not request:
        os._exit(0)
    order = json.loads(request)
    control.detach()  # its number may soon be another's
    above = 1 + max(order["passed"])
    held = [fcntl.fcntl(fd, fcntl.F_DUPFD, above) for fd in fds]
    for fd in {int(path.name) for path in Path("/proc/self/fd").iterdir()} - set(held):
        with suppress(OSError):
            os.close(fd)
    for own, number in zip(held, order["passed"], strict=True):
        os.dup2(own, number)
        os.close(own)
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["env"])
    for number in _ASKED:
        signal.signal(number, signal.SIG_IGN)  # what came so far is forgotten
        if number not in order["ignored"]:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, order["blocked"])
    words = order["words"]
    sys.argv[:] = ["-c", *words[words.index("--multiprocessing-fork") :]]
    _end_with(lambda: spawn.spawn_main(**_options_of(words)))


def _options_of(words: Sequence[str]) -> dict[str, int]:
    """Those of ``spawn_main(tracker_fd=5, pipe_handle=7)`` in a command line of ``multiprocessing``."""
    code = next(word for word in words if "spawn_main(" in word)
    return {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", code)}


def _main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    for name in _PRELOADED:
        importlib.import_module(name)
    threads = len(list(Path("/proc/self/task").iterdir()))
    assert threads == 1, f"{threads} threads after the imports: such a process cannot be forked"
    gc.collect()
    gc.freeze()  # so that looking for garbage does not touch, and so copy, what is shared
    order = _serve(control)
    if order is not None:
        _become(order)


if __name__ == "__main__":
    _main()
