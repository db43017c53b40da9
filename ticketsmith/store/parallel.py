"""Many requests at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

THREADS = 16
"""Enough to hide the time that an answer takes; more bring nothing, since Python itself is then the limit."""


def each(function: Callable[[T], R], items: Iterable[T], threads: int = THREADS) -> Iterator[R]:
    """Results in the order of ``items``, made side by side. The first error ends it: what waits is not begun."""
    todo = list(items)
    if len(todo) < 2:
        yield from map(function, todo)
        return
    pool = ThreadPoolExecutor(min(threads, len(todo)), thread_name_prefix="store")
    try:
        yield from pool.map(function, todo)
    except BaseException as error:
        # What is under way ends first, so that nothing goes on behind the caller's back; Ctrl-C waits for nothing.
        pool.shutdown(wait=isinstance(error, Exception), cancel_futures=True)
        raise
    pool.shutdown()
