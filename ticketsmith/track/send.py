"""Sends what is sealed of an experiment to a tracker: only what is not there, or has changed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ticketsmith.config.track import Track
from ticketsmith.errors import StoreError
from ticketsmith.track.records import records_of
from ticketsmith.track.sink import TITLES, TrackError, faults, open_sink

if TYPE_CHECKING:
    from ticketsmith.experiment import ExperimentReader


@dataclass(frozen=True)
class Tally:
    """How many records, of runs and of the experiment itself, were new, told anew, and there already."""

    place: str
    new: int = 0
    renewed: int = 0
    there: int = 0


def send(
    experiment: ExperimentReader,
    settings: Track,
    note: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Tally:
    """Brings a tracker up to date with the sealed runs of an experiment; ``note(what, done, total)`` is told the progress.

    Sending again adds nothing, and goes on where an earlier call was stopped. Raises NoTrackerError when the tracker cannot
    be used, and TrackError when it cannot be reached, refuses, or somebody else is sending to it.
    """
    records = list(records_of(experiment, settings.models))
    title = TITLES[settings.to]
    with ExitStack() as stack:
        where = "\n".join(("track", settings.to, settings.project, settings.uri or "", experiment.name))
        claim = hashlib.sha256(where.encode()).hexdigest()
        try:
            mine = stack.enter_context(experiment.store.claim(claim))
        except StoreError:  # that is only read; whoever else sends cannot be known then
            mine = True
        if not mine:
            raise TrackError(f"{experiment.name}: another process is sending it to {title} just now. Try again later.")
        sink = open_sink(settings, experiment.name)
        new = renewed = 0
        for count, record in enumerate(records):
            note(f"{experiment.name} to {title}", count, len(records))
            with faults(sink.place):
                before = sink.before(record)
                if before == record.digest:
                    continue
                sink.send(record, before)
            new += not before  # what was sent in part is told as new
            renewed += bool(before)
        return Tally(sink.place, new, renewed, len(records) - new - renewed)
