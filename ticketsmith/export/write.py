"""Files for others, written aside, checked, and only then put in their place; with ``export.json``, which says what they are."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ticketsmith.errors import RecipeError, StoreError, TicketSmithError
from ticketsmith.evidence.size import size_of
from ticketsmith.evidence.statistics import mean
from ticketsmith.evidence.summarise import measured_value
from ticketsmith.evidence.variants import DENSE
from ticketsmith.export import model_card
from ticketsmith.export.subject import ExportError, ExportSettings, Subject, Written
from ticketsmith.plugins import nearest
from ticketsmith.runtime.calibrate import STATIC
from ticketsmith.runtime.model import PRECISIONS
from ticketsmith.store.contract import to_json
from ticketsmith.tasks.build import example
from ticketsmith.training.environment import git_commit
from ticketsmith.units import removed
from ticketsmith.version import __version__

ALL = "all"
AUTO = "auto"
"""The fastest precision of each layer with which a .tsk file passes its gates."""


@dataclass(frozen=True)
class Format:
    """``name`` is the file's in a folder; ``writer`` is ``module:function``, ``(subject, path, settings) -> Written``."""

    name: str
    writer: str


FORMATS = {
    "ticket": Format("model.ticket", "ticketsmith.export.weights:write_ticket"),
    "safetensors": Format("model.safetensors", "ticketsmith.export.weights:write_safetensors"),
    "onnx": Format("model.onnx", "ticketsmith.export.onnx_file:write_dense"),
    "onnx-compact": Format("model-compact.onnx", "ticketsmith.export.onnx_file:write_compact"),
    "tsk": Format("model.tsk", "ticketsmith.export.tsk_file:write"),
    "hf": Format("huggingface", "ticketsmith.export.hugging_face:write"),
    "card": Format(model_card.FILE, ""),
}
CARD = "card"
"""The model card, which tells of the other files: it is written last, and has no writer. A folder of ``hf`` has one too."""


@dataclass(frozen=True)
class Export:
    """What was written: ``document`` is that of ``export.json``, ``path`` its place."""

    path: Path
    document: dict[str, Any]


def check_formats(formats: Sequence[str], precision: str) -> list[str]:
    """Each format once; ``all`` is every one. Raises RecipeError for what is not known."""
    for name in formats:
        if name not in FORMATS and name != ALL:
            raise RecipeError(f"format {name!r} is unknown.{nearest(name, [*FORMATS, ALL])}")
    if precision not in (*PRECISIONS, STATIC, AUTO):
        raise RecipeError(f"precision {precision!r} is not one of {', '.join((*PRECISIONS, STATIC, AUTO))}.")
    kinds = list(dict.fromkeys(FORMATS if ALL in formats else formats))
    if not kinds:
        raise RecipeError(f"name a format: {', '.join([*FORMATS, ALL])}.")
    if precision != "float32" and "tsk" not in kinds:
        raise RecipeError(f"precision {precision!r} is for the format tsk; others hold float32.")
    return kinds


def export(
    subject: Subject,
    output: Path,
    formats: Sequence[str],
    settings: ExportSettings,
    note: Callable[[str], None] = lambda text: None,
) -> Export:
    """Writes ``formats`` into the folder ``output``, or a single one to ``output`` if that has a suffix.

    With ``all``, a format that this model cannot have is left out, and ``export.json`` says why; else it is an error, and
    nothing is written. Raises ExportError when something is there already and ``settings.force`` is not set.
    """
    kinds = check_formats(formats, settings.precision)
    folder, names, about = _places(output, kinds)
    if not settings.force:
        there = [name for name in (*names.values(), about) if (folder / name).exists()]
        if there:
            raise ExportError(
                f"{folder / there[0]} is there already. Name another --output, or replace it with --force."
            )
    is_new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=".export-", dir=folder))
    except OSError as error:
        raise _unwritable(folder, error) from error
    try:
        entries, left_out = [], []
        for kind in kinds:
            if kind == CARD:
                continue
            note(f"{kind} ...")
            try:
                written = _write(kind, subject, aside / names[kind], settings)
            except TicketSmithError as error:
                if ALL not in formats:
                    raise type(error)(f"{kind}: {error}") from error
                left_out.append({"format": kind, "why": str(error)})
                _remove(aside / names[kind])
                continue
            entries.append(_entry(kind, names[kind], aside / names[kind], written, subject))
        document = _document(subject, entries, left_out)
        entries += _write_cards(subject, document, aside, names, settings)
        (aside / about).write_bytes(to_json(document))
        for name in (*(str(entry["name"]) for entry in entries), about):
            if settings.force:
                _remove(folder / name)
            os.replace(aside / name, folder / name)
    except OSError as error:
        raise _unwritable(folder, error) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        if is_new and not any(folder.iterdir()):
            folder.rmdir()
    return Export(folder / about, document)


def _unwritable(folder: Path, error: OSError) -> StoreError:
    return StoreError(f"{folder}: cannot write: {error.strerror or error}. Free space, or name another --output.")


def _places(output: Path, kinds: Sequence[str]) -> tuple[Path, dict[str, str], str]:
    """The folder, the name of each format's file in it, and that of what tells about them."""
    if len(kinds) == 1 and output.suffix and not output.is_dir():
        return output.parent, {kinds[0]: output.name}, f"{output.name}.export.json"
    if output.exists() and not output.is_dir():
        raise ExportError(f"{output} is a file; {len(kinds)} formats need a folder.")
    return output, {kind: FORMATS[kind].name for kind in kinds}, "export.json"


def _write(kind: str, subject: Subject, path: Path, settings: ExportSettings) -> Written:
    module, _, function = FORMATS[kind].writer.partition(":")
    write: Callable[[Subject, Path, ExportSettings], Written] = getattr(importlib.import_module(module), function)
    return write(subject, path, settings)


def _entry(kind: str, name: str, path: Path, written: Written, subject: Subject) -> dict[str, Any]:
    return {
        "format": kind,
        **_of_files(name, path, subject),
        "checked": written.checked,
        "max_error": written.max_error,
        "load": [line.replace("{name}", name) for line in written.load],
        **written.more,
    }


def _of_files(name: str, path: Path, subject: Subject) -> dict[str, Any]:
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    size = sum(file.stat().st_size for file in files)
    hashes = {file.relative_to(path.parent).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    return {"name": name, "bytes": size, "share_of_dense": size / _dense_bytes(subject), "sha256": hashes}


def _write_cards(
    subject: Subject, document: dict[str, Any], aside: Path, names: dict[str, str], settings: ExportSettings
) -> list[dict[str, Any]]:
    """The cards of a folder and of what ``hf`` wrote; gives the entries that are new, and renews that of ``hf``."""
    for entry in document["files"]:
        if entry["format"] == "hf":
            folder = aside / entry["name"]
            text = model_card.card_of(subject, document, settings.licence, f"{entry['name']}/")
            (folder / model_card.FILE).write_text(text, encoding="utf-8")
            entry |= _of_files(entry["name"], folder, subject)
    if CARD not in names:
        return []
    path = aside / names[CARD]
    path.write_text(model_card.card_of(subject, document, settings.licence), encoding="utf-8")
    written = Written("its metadata is that of the Hugging Face Hub", ())
    return [_entry(CARD, names[CARD], path, written, subject)]


def _document(subject: Subject, entries: list[dict[str, Any]], left_out: list[dict[str, str]]) -> dict[str, Any]:
    result, ticket = subject.result, subject.ticket
    size = size_of([result])
    inputs = [
        {"shape": ["batch", *tensor.shape[1:]], "dtype": str(tensor.dtype).removeprefix("torch.")}
        for tensor in example(subject.task, 1)
    ]
    environment = json.loads(ticket.files["environment.json"])
    return {
        "format": 1,
        "experiment": ticket.folder.experiment,
        "variant": result.variant,
        "seed": result.seed,
        "level": result.level,
        "key": result.key,
        "sparsity": result.sparsity,
        "weights": {"kept": result.kept, "total": result.total},
        "parameters": result.parameters,
        "network_sparsity": size.network_sparsity,
        "compression": {"network": size.network_compression, "prunable": size.compression},
        "removed": removed(size),
        "input": inputs[0] if len(inputs) == 1 else inputs,
        "output": {"shape": ["batch", *subject.outputs(*example(subject.task, 1))[0].shape[1:]]},
        "test": _test(subject),
        "gate": subject.verdict,
        "warnings": list(subject.warnings),
        "dense_bytes": _dense_bytes(subject),
        "files": entries,
        "left_out": left_out,
        "recipe_sha256": environment.get("recipe_sha256"),
        "trained_with": {
            name: environment.get(name) for name in ("ticketsmith", "git_commit", "torch", "python", "device")
        },
        "exported_with": {"ticketsmith": __version__, "git_commit": git_commit()},
    }


def _test(subject: Subject) -> dict[str, Any]:
    """Each metric on the test split: of this run, and of all seeds of its level; of the dense network beside it."""
    result = subject.result
    metrics: dict[str, Any] = {}
    for name, metric in result.metrics.items():
        metrics[name] = {"unit": metric.unit, "higher_is_better": metric.higher_is_better}
        metrics[name]["this_run"] = measured_value(result, name, "test", "final")
        for what, variant, level in (("all_seeds", result.variant, result.level), (DENSE, DENSE, 0)):
            values = {
                run.seed: value
                for run in subject.results
                if (run.variant, run.level, run.draw) == (variant, level, result.draw if what == "all_seeds" else 0)
                and (value := measured_value(run, name, "test", "final")) is not None
            }
            metrics[name][what] = {"seeds": sorted(values), "mean": mean(list(values.values())) if values else None}
    return metrics


def _dense_bytes(subject: Subject) -> int:
    """The size of all weights without sparse storage: what ``model.safetensors`` takes, zeros included."""
    return len(subject.ticket.files["model.safetensors"])


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
