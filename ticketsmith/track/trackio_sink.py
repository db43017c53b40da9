"""Trackio, its local project: a run for each sealed one, in a group. Needs ``trackio``.

A run is written under another name and gets its own when it is whole.
"""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ticketsmith.config.track import Track
from ticketsmith.track.records import Record
from ticketsmith.track.sink import NoTrackerError

_SENT = "ticketsmith_sent"
_WRITING = " (sending)"
_REMOTE = ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL")


class TrackioSink:
    """``trackio show --project <project>`` shows it; ``trackio sync`` brings it to a Space."""

    def __init__(self, settings: Track, experiment: str) -> None:
        import trackio

        self._trackio, self._project, self._experiment = trackio, _project(settings), experiment
        self.place = f"Trackio's project {self._project}"
        with _quiet():
            self._runs = {run.name: run for run in self._listed() if (run.config or {}).get("experiment") == experiment}

    @staticmethod
    def check(settings: Track) -> None:
        """Raises NoTrackerError when Trackio is told to write elsewhere."""
        if remote := next((name for name in _REMOTE if os.environ.get(name)), None):
            raise NoTrackerError(
                f"tracking to trackio writes the local project: unset {remote}, and bring the project there afterwards: "
                f"trackio sync --project {_project(settings)}"
            )

    def before(self, record: Record) -> str | None:
        name = self._name(record)
        if name in self._runs:
            return str(self._runs[name].config.get(_SENT, ""))
        return "" if name + _WRITING in self._runs else None

    def send(self, record: Record, before: str | None) -> None:
        name = self._name(record)
        with _quiet():
            if name + _WRITING in self._runs:
                self._runs.pop(name + _WRITING).delete()
            self._write(record, name + _WRITING)
            if name in self._runs:
                self._runs.pop(name).delete()
            fresh = next(run for run in self._listed() if run.name == name + _WRITING)
            fresh.rename(name)

    def _write(self, record: Record, name: str) -> None:
        config = {**record.params, **record.tags, "store": record.link, _SENT: record.digest}
        run = self._trackio.init(
            self._project,
            name,
            self._experiment,
            config=config,
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )
        try:
            points = {point.step: dict(point.values) for point in record.curve}
            points.setdefault(record.step, {}).update(record.metrics)
            for step, values in points.items():
                run.log(values, step)
            kind = "experiment" if record.is_parent else "run"
            with tempfile.TemporaryDirectory(prefix="ticketsmith-") as folder:
                for file in record.files:
                    Path(folder, file.name).write_bytes(file.read())
                if record.files:
                    run.log_artifact(folder, f"{self._experiment}-{record.short}", kind)
        finally:
            self._trackio.finish()

    def _name(self, record: Record) -> str:
        return self._experiment if record.is_parent else f"{self._experiment} {record.name}"

    def _listed(self) -> list[Any]:
        try:
            return list(self._trackio.Api().runs(self._project))
        except ValueError:  # no such project yet
            return []


def _project(settings: Track) -> str:
    return settings.project.replace(" ", "-")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Trackio prints how to open its dashboard at every run, and warns where it can do less than it might."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
