"""Trying again: what may pass is tried until it does, with growing, random pauses, for as long as it is worth."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

from azure.core.exceptions import AzureError, ServiceRequestError
from azure.storage.blob import BlobClient

from ticketsmith.errors import StoreUnreachableError
from ticketsmith.store.blob.told import may_pass, reason, seconds_to_wait, status_of

T = TypeVar("T")

PATIENT = 600.0
"""Seconds. A run may have taken hours to make: an outage of minutes must not lose it."""

BRIEF = 20.0
"""For what is only a convenience: a checkpoint that cannot be saved now is saved later."""

FIRST_CONTACT = 60.0
"""For a store that has never answered: more likely a wrong name than an outage."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 20.0
_CONNECT, _ANSWER = 30.0, 60.0  # seconds for a connection and a piece sent by it, and for a piece of the answer

_log = logging.getLogger("ticketsmith.store")


class Persistence:
    """Sends requests to one store. ``url``, ``endpoint`` and ``prefix`` (of the names of its blobs) are only told."""

    def __init__(self, url: str, endpoint: str, prefix: str, patience: float = PATIENT) -> None:
        self.url, self.endpoint, self.patience = url, endpoint, patience
        self.answered = False
        self._prefix = prefix

    def path(self, blob: BlobClient) -> str:
        """A blob's path in the store."""
        return str(blob.blob_name).removeprefix(self._prefix)

    def send(self, doing: str, request: Callable[..., T], *arguments: object, patience: float, **options: object) -> T:
        """What ``request(*arguments, **options)`` gives, tried again while its failure may pass.

        ``patience`` is in seconds. Raises the AzureError that does not pass, StoreUnreachableError after the patience.
        """
        began, attempt = time.monotonic(), 0
        patience = min(patience, self.patience)
        while True:
            allowed = patience if self.answered else min(patience, FIRST_CONTACT)
            left = max(began + allowed - time.monotonic(), 1.0)
            timeouts = {"connection_timeout": min(_CONNECT, left), "read_timeout": min(_ANSWER, left)}
            try:
                result = request(*arguments, **options, **timeouts)
            except AzureError as error:
                self.answered |= status_of(error) is not None
                if not may_pass(error):
                    raise
                tried = time.monotonic() - began
                if tried >= allowed or tried + seconds_to_wait(error) > allowed:
                    raise self._unreachable(error, doing, tried) from None  # the SDK's text may hold a signature
                pause = min(self._pause(error, attempt), allowed - tried)
                if attempt == 2:  # not each hiccup is worth a line
                    _log.warning("%s: %s: %s; trying again for up to %.0f s", self.url, doing, reason(error), allowed)
            else:
                self.answered = True
                return result
            attempt += 1
            time.sleep(pause)

    def _pause(self, error: AzureError, attempt: int) -> float:
        """Full jitter: workers that failed together do not come back together. Never sooner than the server asks."""
        jitter = random.uniform(0.0, min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**attempt))
        return seconds_to_wait(error) + jitter

    def _unreachable(self, error: AzureError, doing: str, tried: float) -> StoreUnreachableError:
        mend = "Check the network"
        if isinstance(error, ServiceRequestError) and not self.answered:
            mend = "Check the network and the name in AZURE_STORAGE_ACCOUNT or AZURE_STORAGE_CONNECTION_STRING"
        return StoreUnreachableError(
            f"{self.url}: {doing} failed for {tried:.0f} s: {reason(error)} ({self.endpoint}). {mend}, and give the same "
            "command again: sealed runs are safe."
        )
