"""Weights & Biases: a run for each sealed one, in the group of the experiment; offline as well. Needs ``wandb``."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from ticketsmith.config.track import Track
from ticketsmith.track.records import Record
from ticketsmith.track.sink import NoTrackerError

_DEFAULTS = {"WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false", "WANDB_CONSOLE": "off"}
_SENT, _ID = "ticketsmith_sent", "ticketsmith_id"
_MARK = "ticketsmith.json"


class WandbSink:
    """The account comes from WANDB_API_KEY or ``wandb login``, the team from WANDB_ENTITY, the mode from WANDB_MODE.

    Offline (``WANDB_MODE=offline``), runs lie in the folder ``wandb`` of WANDB_DIR until ``wandb sync`` sends them.
    """

    def __init__(self, settings: Track, experiment: str) -> None:
        for name, value in _DEFAULTS.items():
            os.environ.setdefault(name, value)
        import wandb

        self._wandb, self._experiment = wandb, experiment
        self._project = settings.project.replace(" ", "-")
        self._folder = Path(os.environ.get("WANDB_DIR") or ".")
        self._offline = _offline()
        if self._offline:
            self.place = f"Weights & Biases, offline in {self._folder / 'wandb'}"
            self._there: dict[str, str] = {}
        else:
            self.place = f"Weights & Biases, project {self._project}"
            if not wandb.login(prompt=False):  # nobody may be there to be asked
                raise NoTrackerError(
                    "tracking to wandb: nobody is signed in. Set WANDB_API_KEY, or sign in by `wandb login`, or set "
                    "WANDB_MODE=offline."
                )
            self._there = self._online()

    @staticmethod
    def check(settings: Track) -> None:
        """Raises NoTrackerError when W&B was switched off."""
        if os.environ.get("WANDB_MODE") in ("disabled", "dryrun"):
            raise NoTrackerError("tracking to wandb: WANDB_MODE switches it off. Unset it, or set WANDB_MODE=offline.")

    def before(self, record: Record) -> str | None:
        if not self._offline:
            return self._there.get(record.id)
        folders = self._folders(record)
        marks = [folder / _MARK for folder in folders if (folder / _MARK).is_file()]
        if not marks:
            return "" if folders else None
        try:
            return str(json.loads(marks[-1].read_text())["digest"])
        except (ValueError, KeyError, TypeError):
            return ""

    def send(self, record: Record, before: str | None) -> None:
        wandb = self._wandb
        for stale in self._folders(record) if self._offline else []:
            while time.strftime("-%Y%m%d_%H%M%S-") in stale.name:
                time.sleep(0.05)  # a folder has the second in its name, and two of one name become one damaged log
            shutil.rmtree(stale, ignore_errors=True)
        self._folder.mkdir(parents=True, exist_ok=True)
        config = {**record.params, **record.tags, "store": record.link, _ID: record.id}
        run = wandb.init(
            project=self._project,
            entity=os.environ.get("WANDB_ENTITY"),
            dir=str(self._folder),
            id=self._run_id(record),
            name=record.name,
            group=self._experiment,
            job_type="experiment" if record.is_parent else record.tags["variant"],
            notes=record.about or None,
            tags=[value[:64] for name in ("variant", "gate", "status") if (value := record.tags.get(name))],
            config=config,
            mode="offline" if self._offline else "online",
            resume=None if self._offline else "allow",
            reinit="finish_previous",
            settings=wandb.Settings(
                silent=True, console="off", disable_git=True, disable_code=True, save_code=False, x_disable_stats=True,
                x_disable_meta=True, x_save_requirements=False, init_timeout=60,
            ),
        )  # fmt: skip
        try:
            run.config.update({**config, _SENT: ""}, allow_val_change=True)
            for point in record.curve:  # steps that are there already are not taken again
                run.log(dict(point.values), step=point.step)
            run.summary.update(dict(record.metrics))
            self._attach(run, record)
            run.config.update({_SENT: record.digest}, allow_val_change=True)
        except BaseException:
            run.finish(exit_code=1)
            raise
        place = Path(run.dir).parent
        run.finish(exit_code=1 if record.diverged else 0)
        if self._offline:
            (place / _MARK).write_text(json.dumps({"id": record.id, "digest": record.digest}))

    def _attach(self, run: Any, record: Record) -> None:
        if not record.files:
            return
        kind = "report" if record.is_parent else "model"
        artifact = self._wandb.Artifact(f"{self._experiment}-{record.short}", kind, metadata=dict(record.tags))
        with tempfile.TemporaryDirectory(prefix="ticketsmith-") as folder:
            for file in record.files:
                path = Path(folder, file.name)
                path.write_bytes(file.read())
                artifact.add_file(str(path), policy="mutable")
            logged = run.log_artifact(artifact)
            if not self._offline:
                logged.wait()

    def _run_id(self, record: Record) -> str:
        return hashlib.sha256(f"{self._project}\n{self._experiment}\n{record.id}".encode()).hexdigest()[:32]

    def _folders(self, record: Record) -> list[Path]:
        return sorted((self._folder / "wandb").glob(f"offline-run-*-{self._run_id(record)}"))

    def _online(self) -> dict[str, str]:
        """The digests that the server has, by the id of their record."""
        api = self._wandb.Api(timeout=30)
        entity = os.environ.get("WANDB_ENTITY") or api.default_entity
        try:
            runs = list(api.runs(f"{entity}/{self._project}", filters={"group": self._experiment}, per_page=500))
        except ValueError:  # no such project yet
            return {}
        return {run.config[_ID]: str(run.config.get(_SENT, "")) for run in runs if _ID in run.config}


def _offline() -> bool:
    return os.environ.get("WANDB_MODE") == "offline"
