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
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
