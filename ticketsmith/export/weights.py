"""Weights alone: the ticket file, and plain safetensors."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save

from ticketsmith.export import ticket as tickets
from ticketsmith.export.retrain import start_model
from ticketsmith.export.subject import ExportError, ExportSettings, Subject, Written
from ticketsmith.models.state import is_plain, snapshot
from ticketsmith.spec import Continue, Init
from ticketsmith.training.start import read_weights
from ticketsmith.training.tensors import to_bytes


def write_ticket(subject: Subject, path: Path, settings: ExportSettings) -> Written:
    """One file that holds the whole run; read back, it must be that run, byte for byte."""
    ticket = subject.ticket
    start = _start(subject, settings.start)
    path.write_bytes(tickets.to_bytes(dataclasses.replace(ticket, start_file=start)))
    again = tickets.read(path)
    if dict(again.files) != dict(ticket.files):
        raise ExportError("the file does not hold what was sealed.")
    error = subject.check("the ticket file", subject.rebuilt(again.tensors()))
    return Written(
        "read back: every file of the sealed run, byte for byte; outputs compared with PyTorch's",
        ("from ticketsmith.export import ticket", 'weights = ticket.read("{name}").weights'),
        error,
        {"start_weights": again.start_file is not None},
    )


def write_safetensors(subject: Subject, path: Path, settings: ExportSettings) -> Written:
    """A dense state dict, zeros where the mask removed, that any reader of safetensors loads."""
    state = subject.ticket.tensors()
    note = {
        **subject.identity,
        "sealed_sha256": json.loads(subject.ticket.files["manifest.json"])["files"]["model.safetensors"]["sha256"],
    }
    path.write_bytes(
        save(state, {"ticketsmith": json.dumps(note, sort_keys=True)})
    )  # save_file would keep it from other users
    again = load_file(path)
    if again.keys() != state.keys() or not all(torch.equal(again[name], value) for name, value in state.items()):
        raise ExportError("the file does not hold the model's weights.")
    error = subject.check("the safetensors file", subject.rebuilt(again))
    lines: tuple[str, ...] = ("from safetensors.torch import load_file", 'model.load_state_dict(load_file("{name}"))')
    if not is_plain(state):
        lines = (lines[0], "from ticketsmith.models.state import load", 'load(model, load_file("{name}"))')
    return Written("read back: equal weights; outputs compared with PyTorch's", lines, error)


def _start(subject: Subject, required: bool) -> bytes | None:
    """The weights that training began with, where they are wanted, or where no spec gives them.

    Raises ExportError when they are required and cannot be had.
    """
    weights = subject.ticket.spec.weights
    if not required and not isinstance(weights, Continue):
        return None
    parent = None if isinstance(weights, Init) else subject.parent(weights.run)
    if parent is not None:
        return to_bytes(read_weights(parent))
    if not isinstance(weights, Continue):
        return to_bytes(snapshot(start_model(subject.ticket, subject.task)))
    if required:
        raise ExportError(f"--start-weights: the run {weights.run[:8]}, which has them, is not in the store.")
    return None
