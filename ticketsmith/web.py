"""Asking a server over http: what its answers mean, and how long to go on asking."""

from __future__ import annotations

import http.client
import os
import re
import time
import urllib.error
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Patience:
    """How long to try: seconds to wait for an answer, tries, seconds before the second try (then double), and at most."""

    timeout: float = 30.0
    tries: int = 4
    pause: float = 1.0
    longest: float = 60.0


class RefusedError(Exception):
    """The server does not have it: no use to ask again."""


class AgainError(Exception):
    """A fault that may pass; ``after``: seconds that the server asks to wait."""

    def __init__(self, reason: str, after: float | None = None) -> None:
        super().__init__(reason)
        self.after = after


@contextmanager
def faults(server: str) -> Iterator[None]:
    """Tells what may pass from what will not. Raises AgainError and RefusedError, in which ``server`` is what answered."""
    try:
        yield
    except urllib.error.HTTPError as error:
        reason, after = f"{server} answered {error.code} {error.reason}", error.headers.get("Retry-After", "")
        if error.code in (408, 416, 429) or error.code >= 500:
            raise AgainError(reason, float(after) if after.isdigit() else None) from error
        raise RefusedError(reason) from error
    except urllib.error.URLError as error:
        raise AgainError(f"no connection: {error.reason}") from error
    except (http.client.HTTPException, TimeoutError, ConnectionError) as error:
        raise AgainError(f"the connection broke off: {error or type(error).__name__}") from error


def patiently(ask: Callable[[], Answer], patience: Patience) -> Answer:
    """What ``ask`` gives, which is called again, later each time, while it raises AgainError. Raises the last of these."""
    for attempt in range(1, patience.tries):
        try:
            return ask()
        except AgainError as error:
            wait = patience.pause * 2 ** (attempt - 1) if error.after is None else error.after
            time.sleep(min(wait, patience.longest))
    try:
        return ask()
    except AgainError as error:
        raise AgainError(f"{error} ({patience.tries} tries)") from error


def redacted(text: str) -> str:
    """The text without users and passwords in addresses, and without any secret of the environment."""
    text = re.sub(r"//[^/@\s]+@", "//***@", text)
    for name, value in os.environ.items():
        if re.search(r"TOKEN|PASSWORD|SECRET|KEY|CREDENTIAL", name) and len(value) >= 6:
            text = text.replace(value, "***")
    return text
