"""MLflow: a parent run for the experiment, and below it a run for each sealed one. Needs ``mlflow-skinny`` or ``mlflow``."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from ticketsmith.config.track import Track
from ticketsmith.track.records import EXPERIMENT, Record
from ticketsmith.track.sink import NoTrackerError
from ticketsmith.web import redacted

_DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",  # seconds; its own defaults take many minutes to say that nobody is there
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}
_OURS = "ticketsmith."
_ID, _SENT, _FILES = f"{_OURS}id", f"{_OURS}sent", f"{_OURS}files"
_KIND = {"mlflow.experimentKind": "custom_model_development"}  # which of its pages MLflow shows
_METRICS, _PARAMS, _TAGS = 1000, 100, 100  # of one request

Item = TypeVar("Item")


class MlflowSink:
    """``project`` is the experiment of MLflow; every run of it has its tags under ``ticketsmith.``."""

    def __init__(self, settings: Track, experiment: str) -> None:
        for name, value in _DEFAULTS.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient

        address = _address(settings)
        self.place = f"MLflow at {redacted(address)}"
        self._client = MlflowClient(address)
        self._experiment = self._experiment_id(settings.project)
        self._runs = {run.data.tags[_ID]: run for run in self._search(experiment) if _ID in run.data.tags}

    @staticmethod
    def check(settings: Track) -> None:
        """Raises NoTrackerError when nobody says where the server is."""
        _address(settings)

    def before(self, record: Record) -> str | None:
        run = self._runs.get(record.id)
        return None if run is None else str(run.data.tags.get(_SENT, ""))

    def send(self, record: Record, before: str | None) -> None:
        client, seconds = self._client, record.seconds or 0.0
        if before is None:
            begin = int(1000 * (time.time() - seconds))
            self._runs[record.id] = client.create_run(self._experiment, begin, self._tags(record), run_name=record.name)
        run = self._runs[record.id]
        id_, begin, old = run.info.run_id, run.info.start_time, run.data
        if before:
            client.set_tag(id_, _SENT, "")
        params = {name: value for name, value in record.params.items() if name not in old.params}
        changed = {f"param.{name}": v for name, v in record.params.items() if old.params.get(name, v) != v}
        for part in _parts(params.items(), _PARAMS):
            client.log_batch(id_, params=[_entity("Param", *one) for one in part])
        for part in _parts(self._metrics(record, before, run), _METRICS):
            client.log_batch(id_, metrics=part)
        self._attach(record, id_, json.loads(old.tags.get(_FILES, "{}")) if before else {})
        files = json.dumps({file.name: file.sha256[:16] for file in record.files})
        tags = {**self._tags(record), **changed, _FILES: files, "mlflow.note.content": _note(record)}
        for part in _parts(tags.items(), _TAGS):
            client.log_batch(id_, tags=[_entity("RunTag", *one) for one in part])
        client.set_terminated(id_, "FAILED" if record.diverged else "FINISHED", begin + int(1000 * seconds))
        client.set_tag(id_, _SENT, record.digest)

    def _experiment_id(self, project: str) -> str:
        from mlflow.exceptions import MlflowException

        experiment = self._client.get_experiment_by_name(project)
        if experiment is None:
            try:
                return str(self._client.create_experiment(project, tags=_KIND))
            except MlflowException:  # another process has, meanwhile
                experiment = self._client.get_experiment_by_name(project)
                if experiment is None:
                    raise
        if experiment.lifecycle_stage == "deleted":
            raise NoTrackerError(
                f"{self.place}: the experiment {project!r} was deleted there. Restore it, or name another project."
            )
        return str(experiment.experiment_id)

    def _search(self, experiment: str) -> Iterator[Any]:
        mine, token = f"tags.`{_OURS}experiment` = '{experiment}'", None
        while True:
            page = self._client.search_runs([self._experiment], mine, max_results=1000, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def _tags(self, record: Record) -> dict[str, str]:
        tags = {f"{_OURS}{name}": value for name, value in record.tags.items() if value}
        tags |= {_ID: record.id, f"{_OURS}store": record.link, "mlflow.source.name": "ticketsmith"}
        if not record.is_parent:
            tags["mlflow.parentRunId"] = self._runs[EXPERIMENT].info.run_id
        return tags

    def _metrics(self, record: Record, before: str | None, run: Any) -> Iterator[Any]:
        """Those that are not there; times are spread over the time that the run took, so that they are the same each time."""
        begin, seconds = run.info.start_time, record.seconds or 0.0
        points = [(point.step, name, value) for point in record.curve for name, value in point.values.items()]
        points += [(record.step, name, value) for name, value in record.metrics.items()]
        if before:  # whole, as it was: only what is different now
            latest = run.data.metrics
            points = [
                (step, name, value) for step, name, value in points if latest.get(name) != value and step == record.step
            ]
        elif before is not None:
            names = {name for _, name, _ in points}
            there = {(m.step, name) for name in names for m in self._client.get_metric_history(run.info.run_id, name)}
            points = [point for point in points if point[:2] not in there]
        for step, name, value in points:
            share = 0.0 if record.is_parent else step / max(record.step, 1)
            yield _entity("Metric", name, value, int(begin + 1000 * seconds * share), step)

    def _attach(self, record: Record, run_id: str, there: dict[str, str]) -> None:
        with tempfile.TemporaryDirectory(prefix="ticketsmith-") as folder:
            for file in record.files:
                if there.get(file.name) != file.sha256[:16]:
                    path = Path(folder, file.name)
                    path.write_bytes(file.read())
                    self._client.log_artifact(run_id, str(path))
                    path.unlink()


def _address(settings: Track) -> str:
    address = settings.uri or os.environ.get("MLFLOW_TRACKING_URI")
    if not address:
        raise NoTrackerError(
            "tracking to mlflow: say where the server is, by `uri` or the variable MLFLOW_TRACKING_URI: http://127.0.0.1:5000"
        )
    return address


def _note(record: Record) -> str:
    """The description that MLflow shows, in Markdown."""
    return "\n\n".join([*([record.about] if record.about else []), f"Sealed in `{record.link}`"])


def _entity(kind: str, *values: Any) -> Any:
    import mlflow.entities

    return getattr(mlflow.entities, kind)(*values)


def _parts(items: Iterable[Item], size: int) -> Iterator[Sequence[Item]]:
    rest = iter(items)
    while part := list(islice(rest, size)):
        yield part
