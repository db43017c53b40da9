"""What a tracker has to do, which there are, and what their faults mean."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from ticketsmith.config.track import Track
from ticketsmith.errors import Exit, TicketSmithError
from ticketsmith.track.records import Record
from ticketsmith.web import redacted


class TrackError(TicketSmithError):
    """A tracker cannot be reached, or did not take what was sent; the same command goes on."""

    exit_status = Exit.INCOMPLETE


class NoTrackerError(TicketSmithError):
    """A tracker cannot be used as asked: its library, its address or a sign-in is missing."""


class Sink(Protocol):
    """A tracker, opened for one experiment. ``place`` is where it is, for a reader. For one thread.

    Whatever its library raises leaves ``send`` and ``before`` as it is: ``faults`` makes words of it.
    """

    place: str

    def before(self, record: Record) -> str | None:
        """The digest of the record as it is there; empty when it was sent in part, None when it is not there."""
        ...

    def send(self, record: Record, before: str | None) -> None:
        """Sends a record that ``before`` does not tell to be there, its digest last: until then it counts as sent in part."""
        ...


SINKS: dict[str, tuple[str, str]] = {
    "mlflow": ("mlflow", "ticketsmith.track.mlflow_sink:MlflowSink"),
    "wandb": ("wandb", "ticketsmith.track.wandb_sink:WandbSink"),
    "trackio": ("trackio", "ticketsmith.track.trackio_sink:TrackioSink"),
    "tensorboard": ("tensorboard", "ticketsmith.track.tensorboard_sink:TensorBoardSink"),
}
"""Of each tracker the library that it needs, and its class: ``Class(settings, experiment)``."""

TITLES = {"mlflow": "MLflow", "wandb": "Weights & Biases", "trackio": "Trackio", "tensorboard": "TensorBoard"}


def check(settings: Track) -> None:
    """Whether a tracker can be used at all, without asking it. Raises NoTrackerError."""
    library, where = SINKS[settings.to]
    if importlib.util.find_spec(library) is None:
        raise NoTrackerError(f"tracking to {settings.to} needs {library}: pip install 'ticketsmith[{settings.to}]'")
    if settings.uri is not None and settings.to not in ("mlflow", "tensorboard"):
        raise NoTrackerError(
            f"tracking to {settings.to}: `uri` is for mlflow and tensorboard; docs/tracking.md tells more."
        )
    module, _, name = where.partition(":")
    getattr(importlib.import_module(module), name).check(settings)


def open_sink(settings: Track, experiment: str) -> Sink:
    """The tracker, with what it has of the experiment already. Raises TrackError and NoTrackerError."""
    check(settings)
    module, _, name = SINKS[settings.to][1].partition(":")
    opened: Callable[[Track, str], Sink] = getattr(importlib.import_module(module), name)
    with faults(TITLES[settings.to]):
        return opened(settings, experiment)


@contextmanager
def faults(place: str) -> Iterator[None]:
    """Turns whatever a tracker's library raises into one line without a secret. Raises TrackError."""
    try:
        yield
    except TicketSmithError:
        raise
    except Exception as error:  # libraries of others and their networks may fail in any way
        first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
        raise TrackError(
            f"{place} did not take it ({redacted(f'{type(error).__name__}: {first}')[:300]}). What was sent is kept; the same "
            "command goes on."
        ) from None  # its traceback might hold a secret
