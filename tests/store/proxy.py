"""An HTTP proxy with faults, to be put before a server of this machine, and a record of what went through it.

    with FaultyProxy(server_port) as proxy:
        proxy.answer(503, times=2, method="PUT", path="manifest.json")   # the server never sees these two
        proxy.answer(429, retry_after=3)
        proxy.cut_request(after=100_000, path="model")                   # reset in the middle of what the client sends
        proxy.corrupt(path="model")                                      # flips a bit of what the client sends
        proxy.cut_response(after=1000, method="GET")                     # reset in the middle of what the server sends
        proxy.lose_response(method="PUT", path="manifest.json")          # the server did it, the client never hears
        held = proxy.hold(method="PUT", path="comp=blocklist")           # waits until held.release()
        proxy.slow(50_000)                                               # bytes a second, both ways
        proxy.refuse(seconds=5)                                          # nobody listens
        proxy.down()                                                     # stops the server itself, proxy.up() starts it
        proxy.count("GET", "metrics.json")                               # requests that reached the proxy

``path`` is a regular expression that is searched for in path and query, unquoted. Faults are used up in the order in which
they were ordered, each ``times`` times; a request meets one fault at most.
"""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal, Protocol
from urllib.parse import unquote

Kind = Literal["answer", "cut_request", "cut_response", "lose_response", "hold", "corrupt"]


class Server(Protocol):
    """What can be taken down and up."""

    def start(self) -> object: ...

    def stop(self) -> None: ...


@dataclass
class Request:
    """One that reached the proxy. ``status`` is what the client was told, None when the connection was cut."""

    method: str
    path: str
    headers: dict[str, str]
    sent: int = 0
    status: int | None = None


class Held:
    """A request that waits in the proxy. ``come``: it is there. ``release()`` lets it go on to the server."""

    def __init__(self) -> None:
        self.come, self._free = threading.Event(), threading.Event()

    def wait(self) -> None:
        self.come.set()
        self._free.wait(120)

    def release(self) -> None:
        self._free.set()


@dataclass
class _Fault:
    kind: Kind
    method: str
    path: re.Pattern[str]
    times: int
    held: Held | None = None
    status: int = 503
    headers: dict[str, str] = field(default_factory=dict)
    after: int = 0


class FaultyProxy:
    """Listens on ``port`` of this machine while it is entered; every connection goes on to ``server_port``."""

    def __init__(self, server_port: int, server: Server | None = None) -> None:
        self.server_port, self._server = server_port, server
        self.requests: list[Request] = []
        self._faults: list[_Fault] = []
        self._lock = threading.Lock()
        self._rate: float | None = None
        self.delay = 0.0  # seconds that each answer takes longer
        self._open: set[socket.socket] = set()
        self._listener: socket.socket | None = None
        self._closed = False
        self.port = 0

    def __enter__(self) -> FaultyProxy:
        self.listen()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # What may go wrong

    def answer(
        self,
        status: int,
        code: str = "ServerBusy",
        *,
        times: int = 1,
        method: str = "",
        path: str = "",
        retry_after: float | None = None,
    ) -> None:
        """Answers with ``status`` and Azure's error ``code`` instead of the server."""
        headers = {"x-ms-error-code": code}
        if retry_after is not None:
            headers["Retry-After"] = f"{retry_after:g}"
        self._add(_Fault("answer", method, re.compile(path), times, status=status, headers=headers))

    def cut_request(self, *, after: int = 0, times: int = 1, method: str = "", path: str = "") -> None:
        """Resets the connection when ``after`` bytes of a request's body have come."""
        self._add(_Fault("cut_request", method, re.compile(path), times, after=after))

    def cut_response(self, *, after: int = 0, times: int = 1, method: str = "", path: str = "") -> None:
        """Resets the connection when ``after`` bytes of an answer's body have gone to the client."""
        self._add(_Fault("cut_response", method, re.compile(path), times, after=after))

    def lose_response(self, *, times: int = 1, method: str = "", path: str = "") -> None:
        """Lets the server do what was asked, then resets the connection before the client hears of it."""
        self._add(_Fault("lose_response", method, re.compile(path), times))

    def corrupt(self, *, times: int = 1, method: str = "", path: str = "") -> None:
        """Flips a bit of the request's body."""
        self._add(_Fault("corrupt", method, re.compile(path), times))

    def hold(self, *, method: str = "", path: str = "") -> Held:
        """Keeps one request from the server until it is released: for races in a known order."""
        held = Held()
        self._add(_Fault("hold", method, re.compile(path), 1, held=held))
        return held

    def slow(self, bytes_per_second: float | None) -> None:
        """Lets bodies pass at this rate, both ways; None: as fast as they come."""
        self._rate = bytes_per_second

    def refuse(self, seconds: float | None = None) -> None:
        """Cuts every connection and stops listening; for some seconds, or until ``listen()``."""
        listener, self._listener = self._listener, None
        if listener is not None:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
            listener.close()
        for connection in list(self._open):
            _reset(connection)
        if seconds is not None:
            _later(seconds, self.listen)

    def listen(self) -> None:
        """Listens (again)."""
        if self._listener is not None or self._closed:
            return
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen(128)
        self.port = listener.getsockname()[1]
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def down(self, seconds: float | None = None) -> None:
        """Stops the server behind; it is started again by ``up()``, or after some seconds."""
        assert self._server is not None
        self._server.stop()
        if seconds is not None:
            _later(seconds, self.up)

    def up(self) -> None:
        assert self._server is not None
        self._server.start()

    def close(self) -> None:
        self._closed = True
        self.refuse()

    def calm(self) -> None:
        """Forgets the faults that were ordered."""
        with self._lock:
            self._faults = []

    # What was asked

    def count(self, method: str = "", path: str = "") -> int:
        """How many requests of a method came for a path; both may be left open."""
        wanted = re.compile(path)
        return sum(method in ("", r.method) and wanted.search(r.path) is not None for r in list(self.requests))

    def forget(self) -> None:
        """Begins a new record."""
        self.requests = []

    # How it works

    def _add(self, fault: _Fault) -> None:
        with self._lock:
            self._faults.append(fault)

    def _fault_for(self, request: Request) -> _Fault | None:
        with self._lock:
            for fault in self._faults:
                if fault.times and fault.method in ("", request.method) and fault.path.search(request.path):
                    fault.times -= 1
                    return fault
        return None

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            self._open.add(client)
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        upstream: socket.socket | None = None
        try:
            reader = _Reader(client)
            while (head := reader.head()) is not None:
                if upstream is None:
                    upstream = socket.create_connection(("127.0.0.1", self.server_port))
                if not self._exchange(head, reader, client, upstream):
                    break
        except OSError:  # one of the two has gone: so does the other
            _reset(client)
        finally:
            self._open.discard(client)
            client.close()
            if upstream is not None:
                upstream.close()

    def _exchange(self, head: _Head, reader: _Reader, client: socket.socket, upstream: socket.socket) -> bool:
        """One request and its answer; False when the connection ends with it."""
        method, target, _ = head.first.split(" ", 2)
        request = Request(method, unquote(target), head.headers)
        self.requests.append(request)
        fault = self._fault_for(request)
        kind = fault.kind if fault else None
        if head.headers.get("expect") == "100-continue":
            client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        if fault and kind == "answer":
            for piece in reader.body(head):
                request.sent += len(piece)
            request.status = fault.status
            client.sendall(_plain_answer(fault, method))
            return True
        if fault and fault.held:
            fault.held.wait()
        upstream.sendall(head.raw)
        for piece in reader.body(head):
            if kind == "corrupt" and not request.sent:
                piece = bytes([piece[0] ^ 1]) + piece[1:]
            room = max(fault.after - request.sent, 0) if fault and kind == "cut_request" else len(piece)
            upstream.sendall(piece[:room])
            request.sent += len(piece[:room])
            self._pace(len(piece))
            if room < len(piece):
                break
        if kind == "cut_request":
            return _reset(client)
        back = _Reader(upstream)
        answer = back.head()
        if answer is None:
            return _reset(client)
        if kind == "lose_response":
            for _ in back.body(answer, method):
                pass
            return _reset(client)
        time.sleep(self.delay)
        request.status = int(answer.first.split(" ", 2)[1])
        client.sendall(answer.raw)
        given = 0
        for piece in back.body(answer, method):
            room = max(fault.after - given, 0) if fault and kind == "cut_response" else len(piece)
            client.sendall(piece[:room])
            given += len(piece[:room])
            self._pace(len(piece))
            if room < len(piece):
                break
        if kind == "cut_response":
            request.status = None
            return _reset(client)
        return "close" not in (head.headers.get("connection", ""), answer.headers.get("connection", ""))

    def _pace(self, count: int) -> None:
        if self._rate:
            time.sleep(count / self._rate)


@dataclass(frozen=True)
class _Head:
    raw: bytes
    first: str
    headers: dict[str, str]


class _Reader:
    """Reads messages of HTTP/1.1 from a connection; bodies as they come, chunked ones with their framing."""

    def __init__(self, connection: socket.socket) -> None:
        self._file = connection.makefile("rb")

    def head(self) -> _Head | None:
        lines = []
        while (line := self._file.readline()) not in (b"\r\n", b""):
            lines.append(line)
        if not lines:
            return None
        headers = {}
        for line in lines[1:]:
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.strip().lower()] = value.strip()
        return _Head(b"".join([*lines, b"\r\n"]), lines[0].decode("latin-1").strip(), headers)

    def body(self, head: _Head, method: str = "") -> Iterator[bytes]:
        bodiless = head.first.startswith("HTTP/") and (method == "HEAD" or head.first.split(" ")[1] in ("204", "304"))
        if bodiless:
            return
        if head.headers.get("transfer-encoding", "").lower() == "chunked":
            while line := self._file.readline():
                size = int(line, 16)
                yield line + self._file.read(size + 2)
                if size == 0:
                    return
        left = int(head.headers.get("content-length", 0))
        while left and (piece := self._file.read1(min(left, 1 << 16))):
            left -= len(piece)
            yield piece


def _later(seconds: float, what: Callable[[], object]) -> None:
    timer = threading.Timer(seconds, what)
    timer.daemon = True
    timer.start()


def _plain_answer(fault: _Fault, method: str) -> bytes:
    code = fault.headers["x-ms-error-code"]
    told = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>A fault.</Message></Error>".encode()
    body = b"" if method == "HEAD" else told
    headers = {"Content-Type": "application/xml", "Content-Length": str(len(body)), **fault.headers}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {fault.status} Fault\r\n{lines}\r\n".encode() + body


def _reset(connection: socket.socket) -> bool:
    """Ends a connection as a broken network does (RST), not as a polite server."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.shutdown(socket.SHUT_RD)  # wakes whoever reads from it
    with contextlib.suppress(OSError):
        socket.close(connection.detach())
    return False
