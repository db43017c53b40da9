"""Ticket files: the whole run comes back; damaged and malicious ones give an error, never a crash."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

import ticketsmith
from tests.conftest import ROOT
from ticketsmith.errors import TicketSmithError
from ticketsmith.export import masked_bytes
from ticketsmith.export.masked_bytes import TicketFileError
from ticketsmith.export.ticket import Ticket, parse, read, to_bytes
from ticketsmith.store.contract import MANIFEST, manifest_of, to_json
from ticketsmith.training.tensors import masks_to_bytes
from ticketsmith.training.tensors import to_bytes as tensors_to_bytes


@pytest.fixture(scope="module")
def content(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A ticket of the sparsest level, with its start weights."""
    place = tmp_path_factory.mktemp("ticket") / "x.ticket"
    ticketsmith.open_experiment("digits", finished).export(place, sparsity=0.7, start_weights=True)
    return place.read_bytes()


def test_it_holds_the_sealed_run_byte_for_byte(content: bytes, finished: Path) -> None:
    ticket = parse(content)
    sealed = {path.name: path.read_bytes() for path in (finished / str(ticket.folder)).iterdir()}
    assert dict(ticket.files) == sealed
    assert to_bytes(ticket) == content
    assert ticket.folder.variant == "ticket"
    assert 0.7 < ticket.sparsity < 0.8
    assert ticket.metrics["final"]["test"]["accuracy"] > 50


def test_weights_masks_and_start_weights_are_arrays(content: bytes) -> None:
    ticket = parse(content)
    assert ticket.start is not None
    for name, mask in ticket.mask.items():
        assert ticket.weights[name].shape == mask.shape
        assert not ticket.weights[name][~mask].any()
        assert not ticket.start[name][~mask].any()
        assert (ticket.start[name][mask] != ticket.weights[name][mask]).mean() > 0.9
    state = ticket.state_dict()
    assert all(np.array_equal(state[name].numpy(), value) for name, value in ticket.weights.items())


def test_reading_needs_no_torch(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.ticket").write_bytes(content)
    code = (
        "import sys; from ticketsmith.export import ticket; found = ticket.read('x.ticket')\n"
        "assert found.weights and found.mask and found.key; assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def sealed(model: dict[str, torch.Tensor], masks: dict[str, torch.Tensor], like: Ticket) -> Ticket:
    """A ticket of any weights."""
    files = {name: like.files[name] for name in ("spec.json", "metrics.json", "curve.csv", "environment.json")}
    files |= {"model.safetensors": tensors_to_bytes(model), "mask.safetensors": masks_to_bytes(masks)}
    files["samples.png"] = bytes(range(256))
    return Ticket(like.folder, {**files, MANIFEST: manifest_of(like.key, "trained", files)}, like.recipe, like.chain)


def test_nine_tenths_zeros_take_an_eighth_of_the_dense_size(content: bytes) -> None:
    mask = torch.rand(1000, 1000, generator=torch.Generator().manual_seed(0)) < 0.1
    ticket = sealed({"weight": torch.ones(1000, 1000) * mask}, {"weight": mask}, parse(content))
    assert len(to_bytes(ticket)) < 4e6 * 0.14


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.bool, torch.uint8])
def test_every_type_and_other_files_come_back(content: bytes, dtype: torch.dtype) -> None:
    values = torch.arange(-6, 6).reshape(3, 4).to(dtype)
    model = {"scalar": torch.tensor(3), "values": values, "none": torch.zeros(0, 5), "odd": torch.rand(3, 3)}
    mask = torch.eye(3, dtype=torch.bool)
    model["odd"] *= mask
    ticket = sealed(model, {"odd": mask}, parse(content))
    again = parse(to_bytes(ticket))
    assert again.files == ticket.files
    assert torch.equal(again.state_dict()["values"], values)
    assert np.array_equal(again.weights["values"], values.double().numpy())
    assert again.weights["none"].shape == (0, 5)


def test_weights_that_are_not_zero_where_the_mask_removed_are_kept(content: bytes) -> None:
    """A task that writes into its model, or minus zero: the run comes back as it was sealed all the same."""
    mask = torch.tensor([True, False, True, False])
    model = {"a": torch.tensor([1.0, -0.0, 2.0, 0.0]), "b": torch.tensor([1.0, 0.0, 2.0, 0.0])}
    ticket = sealed(model, {"a": mask, "b": mask}, parse(content))
    assert parse(to_bytes(ticket)).files == ticket.files


def test_every_changed_bit_is_noticed(content: bytes) -> None:
    chance = random.Random(0)
    header = 8 + int.from_bytes(content[:8], "little")
    places = [
        *range(8),
        *(chance.randrange(8, header) for _ in range(150)),
        *(chance.randrange(header, len(content)) for _ in range(150)),
    ]
    whole = parse(content)
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 1 << chance.randrange(8)
        try:
            found = parse(bytes(damaged))
        except TicketFileError:
            continue
        assert place < header  # a space between two words of JSON, say: what is read is what was written
        assert found == whole
    for length in (0, 7, 8, 100, header - 1, header, len(content) - 1):
        with pytest.raises(TicketFileError):
            parse(content[:length])
    with pytest.raises(TicketFileError, match="has grown"):
        parse(content + b"more")


def rewritten(content: bytes, change: Callable[[dict[str, Any], dict[str, Any]], Any]) -> bytes:
    """The file with another header and document, the sum made right: what an attacker would do."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    document = json.loads(header["__metadata__"]["ticketsmith.ticket"].partition(" ")[2])
    change(header, document)
    text = json.dumps(document, sort_keys=True)
    header["__metadata__"]["ticketsmith.ticket"] = f"{hashlib.sha256(text.encode()).hexdigest()} {text}"
    new = json.dumps(header).encode()
    return len(new).to_bytes(8, "little") + new + content[8 + size :]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("format",), 2, "version 2.*Export it again"),
        (("run",), "../ticket/seed-0/level-01-00000000", "experiment '..'"),
        (("run",), "/ticket/seed-0/level-01-00000000", "names no folder"),
        (("run",), "a/../ticket/seed-0/level-01-00000000", "names no folder"),
        (("run",), None, "where texts should be"),
        (("run",), "digits/ticket/seed-0/level-01-00000000", "does not belong to its key"),
        (("chain",), [], "do not end with its own"),
        (("recipe",), None, "where texts should be"),
        (("headers", "model.safetensors"), "[" * 100_000, "not JSON"),
        (("headers", "model.safetensors"), "{}", "no part of a ticket"),
    ],
)
def test_what_a_document_must_not_say(content: bytes, path: tuple[str, ...], value: Any, message: str) -> None:
    def change(header: dict[str, Any], document: dict[str, Any]) -> None:
        inner = document
        for name in path[:-1]:
            inner = inner[name]
        inner[path[-1]] = value

    with pytest.raises(TicketFileError, match=message):
        parse(rewritten(content, change))


def test_names_that_leave_their_folder_are_refused(content: bytes) -> None:
    def change(header: dict[str, Any], document: dict[str, Any]) -> None:
        for name in ("../evil", "/etc/evil", "a\0b", ".."):
            header[f"file/{name}"] = {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}
            manifest = json.loads(document["manifest"])
            manifest["files"][name] = {"sha256": hashlib.sha256(b"").hexdigest(), "bytes": 0}
            document["manifest"] = to_json(manifest).decode()

    with pytest.raises(TicketFileError, match="use letters"):
        parse(rewritten(content, change))


@pytest.mark.parametrize("shape", [[2**47], [2**40, 2**40], [-1, -4], [1.5], [True, 4], ["x"], [0] * 40, None, {}])
def test_shapes_that_lie_ask_for_no_memory(content: bytes, shape: Any) -> None:
    def change(header: dict[str, Any], document: dict[str, Any]) -> None:
        inner = json.loads(document["headers"]["model.safetensors"])
        inner["output.weight"]["shape"] = shape
        document["headers"]["model.safetensors"] = json.dumps(inner)

    hostile = rewritten(content, change)
    tracemalloc.start()
    try:
        with pytest.raises(TicketFileError):
            parse(hostile)
        assert tracemalloc.get_traced_memory()[1] < 50 * len(content)
    finally:
        tracemalloc.stop()


NUMBERS = [-1, 0, 1, 2**20, 2**31, 2**63, 1.5, float("nan"), True]
WRONG: list[Any] = [None, *NUMBERS, "", "x", "../x", "\ud800", [], [0], [1, 1], [2**40], {}]


def places(document: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON document."""
    items = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    return [found for key, value in items for found in ((*path, key), *places(value, (*path, key)))]


def test_malicious_documents_give_an_error_or_the_run(content: bytes) -> None:
    chance = random.Random(1)
    whole = parse(content)
    for _ in range(300):

        def change(header: dict[str, Any], document: dict[str, Any]) -> None:
            inner: Any = {"header": header, "document": document}
            name = chance.choice(["manifest", "model.safetensors", "mask.safetensors", ""])
            outer = document["headers"] if name in document["headers"] else document
            if name and chance.random() < 0.5:
                inner = {"inside": json.loads(outer[name])}
            place = chance.choice(places(inner)[1:])
            at = inner
            for key in place[:-1]:
                at = at[key]
            if place in (("header", "__metadata__"), ("header", "__metadata__", "ticketsmith.ticket")):
                return
            if chance.random() < 0.2:
                del at[place[-1]]
            else:
                at[place[-1]] = chance.choice(WRONG)
            if "inside" in inner:
                outer[name] = json.dumps(inner["inside"])

        try:
            found = parse(rewritten(content, change))
        except TicketSmithError:
            continue
        assert {name: found.files[name] for name in found.files if name != MANIFEST} == {
            name: whole.files[name] for name in whole.files if name != MANIFEST
        }


def test_other_files_are_told(tmp_path: Path, finished: Path, content: bytes) -> None:
    model = next(finished.rglob("model.safetensors"))
    with pytest.raises(TicketFileError, match="no ticket: a safetensors file of something else"):
        read(model)
    (tmp_path / "zip.ticket").write_bytes(b"PK\x03\x04" + content)
    with pytest.raises(TicketFileError, match=r"zip.ticket: it is cut off, or no safetensors file"):
        read(tmp_path / "zip.ticket")
    with pytest.raises(TicketFileError, match="cannot be read"):
        read(tmp_path / "missing.ticket")
    with pytest.raises(TicketFileError, match="cannot be read"):
        read(tmp_path)


def test_any_reader_of_safetensors_lists_it(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.ticket").write_bytes(content)
    with safe_open(tmp_path / "x.ticket", "np") as file:
        assert "model/output.weight" in file.keys()  # noqa: SIM118
        assert bytes(file.get_tensor("file/curve.csv")).startswith(b"step,train_loss")


def test_a_header_s_places_must_follow_one_another() -> None:
    entry = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    with pytest.raises(TicketFileError, match="place and size"):
        masked_bytes.parts_of(json.dumps({"a": entry, "b": entry}))
    with pytest.raises(TicketFileError, match="place and size"):
        masked_bytes.parts_of(json.dumps({"a": {**entry, "data_offsets": [4, 8]}}))
