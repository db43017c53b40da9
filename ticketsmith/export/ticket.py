"""The ticket file: one sealed run in one file, small, to serve from, to train again from, and to put back into a store.

    from ticketsmith.export import ticket

    found = ticket.read("model.ticket")     # needs NumPy, and no torch
    found.weights, found.mask, found.spec, found.metrics

A ``.ticket`` is a safetensors file, so that any reader of those can list it. Its tensors are plain bytes:

    file/<name>    a file of the sealed run, as it is; all but the two that follow
    mask/<name>    one bit a weight
    model/<name>   values that the mask keeps; all of them where there is no mask
    start/<name>   the same of the weights that training began with; only where the file was asked to hold them

The one entry of its metadata, ``ticketsmith.ticket``, is a JSON document and before it the document's SHA-256. The document holds
the run's place and manifest, the recipe, the specs that led to the run, and the headers of the files that were taken apart.
Reading puts every file together again and compares it with the manifest: what a ``Ticket`` holds is what was sealed, byte
for byte. A file is read as what it is: bytes of a stranger.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ticketsmith.errors import TicketSmithError
from ticketsmith.export import masked_bytes
from ticketsmith.export.masked_bytes import Bits, TicketFileError
from ticketsmith.memory import read_file
from ticketsmith.spec import RunSpec, from_canonical, is_key_of
from ticketsmith.store.contract import MANIFEST, RunFolder, check_name

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1
_NOTE = "ticketsmith.ticket"
_MASK_NOTE = "ticketsmith"  # as training.tensors writes it
_MODEL, _MASK = "model.safetensors", "mask.safetensors"


@dataclass(frozen=True)
class Ticket:
    """A trained sparse run, whole.

    ``files`` are those of the sealed run, its manifest among them. ``chain`` holds the runs that led to it, and last the
    run itself, as ``plan.json`` has them. ``start_file`` is a safetensors file of the weights that training began with, of
    those that the mask keeps; None where the spec gives them.
    """

    folder: RunFolder
    files: Mapping[str, bytes]
    recipe: str
    chain: Sequence[Mapping[str, Any]]
    start_file: bytes | None = None

    @cached_property
    def spec(self) -> RunSpec:
        """Everything that decides the weights."""
        return from_canonical(json.loads(self.files["spec.json"]))

    @property
    def key(self) -> str:
        """The run's key, 64 hex digits."""
        return str(json.loads(self.files[MANIFEST])["key"])

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """``metrics.json``: quality on the validation and test splits, weights by layer, FLOPs."""
        metrics: dict[str, Any] = json.loads(self.files["metrics.json"])
        return metrics

    @property
    def sparsity(self) -> float:
        """Removed prunable weights over all prunable weights, 0..1."""
        weights = self.metrics["weights"]
        return 1.0 - float(weights["kept"]) / float(weights["total"]) if weights["total"] else 0.0

    @cached_property
    def weights(self) -> dict[str, NDArray[Any]]:
        """Trained weights and buffers by name, zeros where the mask removed."""
        return masked_bytes.arrays(self.files[_MODEL])

    @cached_property
    def mask(self) -> dict[str, Bits]:
        """True where a weight survives, by parameter name and in the parameter's shape."""
        return _masks(self.files[_MASK])

    @cached_property
    def start(self) -> dict[str, NDArray[Any]] | None:
        """The weights that training began with, if the file holds them; zeros where the mask removed."""
        return None if self.start_file is None else masked_bytes.arrays(self.start_file)

    def tensors(self) -> dict[str, Tensor]:
        """The trained weights in the types that they were trained in; other state as JSON, in bytes. Needs torch."""
        from safetensors.torch import load

        return dict(load(self.files[_MODEL]))

    def state_dict(self) -> dict[str, Any]:
        """The same for ``module.load_state_dict``: what ``get_extra_state`` gave beside tensors is what it was."""
        from ticketsmith.models.state import entries

        return entries(self.tensors())


def read(path: str | os.PathLike[str]) -> Ticket:
    """The ticket in a file. Raises TicketFileError when it is missing, damaged, or no ticket."""
    try:
        content = read_file(path)
    except OSError as error:
        raise TicketFileError(f"{path}: cannot be read: {error.strerror}.") from error
    try:
        return parse(content)
    except TicketFileError as error:
        raise TicketFileError(f"{path}: {error}") from error


def to_bytes(ticket: Ticket) -> bytes:
    """The file's content; the same ticket gives the same bytes."""
    from safetensors.numpy import save

    masks = _droppable(ticket.files[_MODEL], _masks(ticket.files[_MASK]))
    document: dict[str, Any] = {
        "format": FORMAT,
        "run": str(ticket.folder),
        "manifest": ticket.files[MANIFEST].decode(),
        "recipe": ticket.recipe,
        "chain": list(ticket.chain),
        "headers": {name: masked_bytes.header_of(ticket.files[name]) for name in (_MODEL, _MASK)},
        "dense": sorted(ticket.mask.keys() - masks.keys()),
    }
    blobs = {f"file/{name}": content for name, content in ticket.files.items() if name not in (_MODEL, _MASK, MANIFEST)}
    blobs |= {f"mask/{name}": blob for name, blob in masked_bytes.take_apart(ticket.files[_MASK], {}).items()}
    blobs |= {f"model/{name}": blob for name, blob in masked_bytes.take_apart(ticket.files[_MODEL], masks).items()}
    if ticket.start_file is not None:
        parts = masked_bytes.take_apart(ticket.start_file, masks)
        header = masked_bytes.header_of(ticket.start_file)
        whole = masked_bytes.put_together(header, masks, parts.__getitem__)
        document["start"] = {"header": header, "sha256": hashlib.sha256(whole).hexdigest()}
        blobs |= {f"start/{name}": blob for name, blob in parts.items()}
    text = json.dumps(document, sort_keys=True, allow_nan=False)
    tensors = {name: np.frombuffer(blob, np.uint8) for name, blob in sorted(blobs.items())}
    return bytes(save(tensors, {_NOTE: f"{hashlib.sha256(text.encode()).hexdigest()} {text}"}))


def _droppable(model: bytes, masks: Mapping[str, Bits]) -> dict[str, Bits]:
    """The masks whose removed weights are zero bits in the model, so that they need not be kept: all, as runs are trained."""
    whole = masked_bytes.put_together(
        masked_bytes.header_of(model), masks, masked_bytes.take_apart(model, masks).__getitem__
    )
    if whole == model:
        return dict(masks)
    there, back = masked_bytes.take_apart(model, {}), masked_bytes.take_apart(whole, {})
    return {name: mask for name, mask in masks.items() if there[name] == back[name]}


def parse(content: bytes) -> Ticket:
    """The ticket of a file's content, every byte checked. Raises TicketFileError."""
    try:
        return _parsed(content)
    except TicketFileError:
        raise
    except (TicketSmithError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise TicketFileError(f"it is not what TicketSmith writes: {type(error).__name__}: {error}") from error


def _parsed(content: bytes) -> Ticket:
    header = masked_bytes.header_of(content)
    document = _document(header)
    data = masked_bytes.data_of(content, header)
    parts = {part.name: part for part in masked_bytes.parts_of(header)}
    if max((part.end for part in parts.values()), default=0) != len(data):
        raise TicketFileError("it is cut off, or has grown.")
    unread = dict(parts)

    def blob(name: str) -> bytes:
        part = unread.pop(name, None)
        if part is None or part.dtype != "U8":
            raise TicketFileError(f"it has no {name!r}.")
        return bytes(data[part.begin : part.end])

    files = {name.removeprefix("file/"): blob(name) for name in parts if name.startswith("file/")}
    headers = document["headers"]
    files[_MASK] = masked_bytes.put_together(headers[_MASK], {}, lambda name: blob(f"mask/{name}"))
    masks = {name: mask for name, mask in _masks(files[_MASK]).items() if name not in document["dense"]}
    files[_MODEL] = masked_bytes.put_together(headers[_MODEL], masks, lambda name: blob(f"model/{name}"))
    start = None
    if "start" in document:
        start = masked_bytes.put_together(document["start"]["header"], masks, lambda name: blob(f"start/{name}"))
        if hashlib.sha256(start).hexdigest() != document["start"]["sha256"]:
            raise TicketFileError("the weights that training began with are damaged.")
    if unread:
        raise TicketFileError(f"it holds {next(iter(unread))!r}, which is no part of a ticket.")
    place, recipe, manifest = (document[name] for name in ("run", "recipe", "manifest"))
    if not all(isinstance(text, str) for text in (place, recipe, manifest)):
        raise TicketFileError("its document has something else where texts should be.")
    folder = RunFolder.parse(place)
    if folder is None:
        raise TicketFileError("it names no folder of a run.")
    ticket = Ticket(folder, {**files, MANIFEST: manifest.encode()}, recipe, document["chain"], start)
    _check(ticket)
    return ticket


def _document(header: str) -> dict[str, Any]:
    metadata = masked_bytes.parse_json(header, "its header").get("__metadata__")
    note = metadata.get(_NOTE) if isinstance(metadata, dict) else None
    if not isinstance(note, str):
        raise TicketFileError("it is no ticket: a safetensors file of something else.")
    digest, _, text = note.partition(" ")
    if hashlib.sha256(text.encode()).hexdigest() != digest:
        raise TicketFileError("its header is damaged.")
    document = masked_bytes.parse_json(text, "its document")
    if document.get("format") != FORMAT:
        raise TicketFileError(
            f"it has version {document.get('format')!r} of the format; this TicketSmith reads {FORMAT}. Export it again."
        )
    return document


def _check(ticket: Ticket) -> None:
    """The files are those of the manifest, the spec is that of the key, and the names stay in their folder."""
    folder = ticket.folder
    check_name(folder.experiment, "experiment")
    listed = json.loads(ticket.files[MANIFEST])["files"]
    if listed.keys() | {MANIFEST} != ticket.files.keys():
        raise TicketFileError("it does not hold the files of its manifest.")
    for name, entry in listed.items():
        check_name(name, "file")
        if hashlib.sha256(ticket.files[name]).hexdigest() != entry["sha256"]:
            raise TicketFileError(f"{name} is not what was sealed.")
    if not is_key_of(ticket.key, json.loads(ticket.files["spec.json"])) or not ticket.key.startswith(folder.key8):
        raise TicketFileError("its spec does not belong to its key: it was changed, or a newer TicketSmith made it.")
    if not 0.0 <= ticket.sparsity <= 1.0:
        raise TicketFileError("its weights are not counted as TicketSmith counts.")
    for node in ticket.chain:
        from_canonical(node["spec"])
        if not is_key_of(node["key"], node["spec"]):
            raise TicketFileError("a spec that led to it does not belong to its key.")
    if not ticket.chain or ticket.chain[-1]["key"] != ticket.key:
        raise TicketFileError("the specs that led to it do not end with its own.")


def _masks(content: bytes) -> dict[str, Bits]:
    """The masks of ``mask.safetensors``, in the order of the model's parameters."""
    metadata = masked_bytes.parse_json(masked_bytes.header_of(content), "a mask's header").get("__metadata__", {})
    bits = masked_bytes.take_apart(content, {})
    shapes = json.loads(metadata[_MASK_NOTE])
    if any(type(number) is not int or number < 0 for _, shape in shapes for number in shape):
        raise TicketFileError("a mask has no valid shape.")
    return {name: masked_bytes.unpacked(bits[name], tuple(shape), name) for name, shape in shapes}
