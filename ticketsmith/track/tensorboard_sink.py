"""TensorBoard: event files in a folder for each run, put there whole. Needs ``tensorboard``."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path

from ticketsmith.config.track import Track
from ticketsmith.errors import disk_error
from ticketsmith.track.records import Record

_MARK = "ticketsmith.json"
_WRITING = ".sending-"


class TensorBoardSink:
    """Curves, metrics, and what was asked for as hyperparameters; files are not attached, but linked."""

    def __init__(self, settings: Track, experiment: str) -> None:
        self.root = Path(settings.uri or "tensorboard") / experiment
        self.place = f"TensorBoard in {self.root}"
        for leftover in self.root.glob(f"{_WRITING}*"):  # of a call that was killed
            shutil.rmtree(leftover, ignore_errors=True)

    @staticmethod
    def check(settings: Track) -> None:
        """A folder needs nothing."""

    def before(self, record: Record) -> str | None:
        try:
            return str(json.loads((self._folder(record) / _MARK).read_text())["digest"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError):
            return ""

    def send(self, record: Record, before: str | None) -> None:
        folder = self._folder(record)
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            aside = Path(tempfile.mkdtemp(prefix=_WRITING, dir=self.root))
            aside.chmod(0o755)
            _write(aside, record)
            (aside / _MARK).write_text(json.dumps({"id": record.id, "digest": record.digest}))
            if folder.exists():
                shutil.rmtree(folder)
            os.replace(aside, folder)
        except OSError as error:
            raise disk_error(error, folder) from error

    def _folder(self, record: Record) -> Path:
        if record.is_parent:
            return self.root / "experiment"
        tags = record.tags
        return (
            self.root / tags["variant"] / f"seed-{tags['seed']}" / f"level-{int(tags['level']):02d}-{tags['key'][:8]}"
        )


def _write(folder: Path, record: Record) -> None:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder))
    try:
        for point in record.curve:
            for name, value in point.values.items():
                writer.add_scalar(name, value, point.step)
        for name, value in record.metrics.items():
            writer.add_scalar(name, value, record.step)
        facts = {**record.tags, "store": record.link}
        table = [
            "| | |",
            "| --- | --- |",
            *(f"| {name} | {value.replace('|', '/')} |" for name, value in facts.items() if value),
        ]
        writer.add_text("run", "\n".join([*([record.about, ""] if record.about else []), *table]))
        if not record.is_parent:
            asked = {**record.params, **{name: value for name, value in record.tags.items() if value}}
            measured = {name: value for name, value in record.metrics.items() if name.startswith("final/test_")}
            writer.add_hparams(asked, measured, run_name=".")
    finally:
        writer.close()
