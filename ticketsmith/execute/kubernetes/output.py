"""What this process and its children print: copied into memory, and on to where it went."""

from __future__ import annotations

import os
import select
import sys
import threading
from contextlib import suppress

_HEAD, _TAIL = 1 << 20, 3 << 20  # bytes kept of a log: how it began and how it ended


class Output:
    """Between ``__enter__`` and ``__exit__`` everything that goes to standard output and error passes through here."""

    def __init__(self) -> None:
        self._head, self._tail = bytearray(), bytearray()
        self._lock = threading.Lock()

    def __enter__(self) -> Output:
        sys.stdout.flush()
        sys.stderr.flush()
        self._out, self._err = os.dup(1), os.dup(2)
        read, write = os.pipe()
        os.dup2(write, 1)
        os.dup2(write, 2)
        os.close(write)
        over, self._over = os.pipe()
        self._thread = threading.Thread(target=self._copy, args=(read, over), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(self._out, 1)
        os.dup2(self._err, 2)
        os.close(
            self._over
        )  # not the end of the pipe: a child that lives on, such as a resource tracker, holds it open
        self._thread.join()
        os.close(self._out)
        os.close(self._err)

    def flush(self) -> None:
        """Waits until what was printed has arrived."""
        sys.stdout.flush()
        sys.stderr.flush()
        before = -1
        while before != len(self._head) + len(self._tail):
            before = len(self._head) + len(self._tail)
            threading.Event().wait(0.05)

    def text(self) -> bytes:
        """All of it; of a very long one the beginning and the end."""
        with self._lock:
            cut = b"\n[...]\n" if len(self._tail) >= _TAIL else b""
            return bytes(self._head) + cut + bytes(self._tail)

    def _copy(self, read: int, over: int) -> None:
        """Until ``over`` is closed and what was printed before has been read."""
        os.set_blocking(read, False)
        going = True
        while going:
            going = over not in select.select([read, over], [], [])[0]
            with suppress(BlockingIOError):
                while chunk := os.read(read, 65536):
                    self._take(chunk)
                going = False  # nobody can print any more
        os.close(read)
        os.close(over)

    def _take(self, chunk: bytes) -> None:
        os.write(self._out, chunk)
        with self._lock:
            room = _HEAD - len(self._head)
            self._head += chunk[:room]
            self._tail += chunk[room:]
            del self._tail[:-_TAIL]
