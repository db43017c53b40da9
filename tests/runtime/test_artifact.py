"""Files: what is saved comes back; damaged and malicious ones give an error, never a crash."""

from __future__ import annotations

import hashlib
import json
import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.runtime.networks import ISAS, Gpt, sparse
from ticketsmith import runtime
from ticketsmith.errors import TicketSmithError
from ticketsmith.runtime.artifact import ArtifactError, machine_key, read
from ticketsmith.runtime.from_torch import from_torch

pytestmark = pytest.mark.skipif(not ISAS, reason="the kernels are not built")


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(2, 6, 3, stride=2, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(24, 5),
    )
    return sparse(layers, 0.3)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "ticket.tsk"
    runtime.save(file, from_torch(network(), torch.zeros(1, 2, 8, 8)), {machine_key(): {"vector:linear": "rows"}})
    return file


def test_what_is_saved_answers_as_before(path: Path) -> None:
    inputs = torch.randn(3, 2, 8, 8)
    model = runtime.load(path)
    assert model.choices == {"vector:linear": "rows"}
    with torch.inference_mode():
        np.testing.assert_allclose(model(inputs), network()(inputs).numpy(), atol=1e-5)
    assert [file.name for file in path.parent.iterdir()] == ["ticket.tsk"]


def test_zeros_take_a_bit_each(tmp_path: Path) -> None:
    layer = sparse(nn.Linear(1000, 1000), 0.1)
    runtime.save(tmp_path / "x.tsk", from_torch(layer, torch.zeros(1, 1000)))
    assert (tmp_path / "x.tsk").stat().st_size < 0.14 * 4e6


def rewrite(path: Path, change: Any) -> None:
    """The file with another header, its sum made right: what an attacker would do."""
    data = path.read_bytes()
    size = struct.unpack_from("<Q", data, 16)[0]
    document = json.loads(data[56 : 56 + size])
    document = change(document) or document
    header = json.dumps(document).encode()
    prefix = data[:16] + struct.pack("<Q", len(header)) + hashlib.sha256(header).digest()
    path.write_bytes(prefix + header + data[56 + size :])


def test_every_damaged_byte_is_noticed(path: Path) -> None:
    whole = path.read_bytes()
    chance = random.Random(0)
    places = [*range(56), *(chance.randrange(len(whole)) for _ in range(300))]
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        try:
            graph, _ = read(path)
        except ArtifactError:
            continue
        assert graph.tensors
        assert place > 56  # padding between tensors is nobody's
    for length in (0, 1, 40, 56, 60, 500, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ArtifactError):
            read(path)
    path.write_bytes(whole + b"more")
    with pytest.raises(ArtifactError, match="has grown"):
        read(path)


def test_another_version_and_another_kind_of_file_are_told(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:8] + struct.pack("<I", 2) + data[12:])
    with pytest.raises(ArtifactError, match=r"version 2.*Export it again"):
        runtime.load(path)
    path.write_bytes(b"PK\x03\x04" + data)
    with pytest.raises(ArtifactError, match=r"no \.tsk file"):
        runtime.load(path)
    with pytest.raises(ArtifactError, match="cannot be read"):
        runtime.load(path.parent / "missing.tsk")


NUMBERS = [-1, 0, 1, 2**20, 2**31, 2**63, 1.5, float("nan"), True]
WRONG: list[Any] = [None, *NUMBERS, "", "x", "linear", [], [0], [1, 1], [2**30], {}]


def places(document: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON document."""
    items = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    found = [path] if path else []
    for key, value in items:
        found += places(value, (*path, key))
    return found


@pytest.mark.parametrize("which", ["images", "tokens"])
def test_malicious_headers_give_an_error_or_a_model_that_works(path: Path, which: str) -> None:
    if which == "tokens":
        runtime.save(path, from_torch(sparse(Gpt(tokens=5), 0.3), torch.zeros(1, 5, dtype=torch.int64)))
    whole = path.read_bytes()
    chance = random.Random(1)
    found: list[tuple[Any, ...]] = []
    rewrite(path, lambda document: found.extend(places(document)))
    for _ in range(400):
        path.write_bytes(whole)
        place = chance.choice(found)

        def change(document: Any, place: tuple[Any, ...] = place) -> None:
            inner = document
            for key in place[:-1]:
                inner = inner[key]
            if chance.random() < 0.2:
                del inner[place[-1]]
            else:
                inner[place[-1]] = chance.choice(WRONG)

        rewrite(path, change)
        try:
            model = runtime.load(path)
            if np.prod(model.shape) < 1e6:
                outputs = model(np.zeros((1, *model.shape), model.dtype))
                assert outputs.shape == (1, *model.output_shape)
        except TicketSmithError:
            continue


def test_a_header_of_nested_lists_is_refused(path: Path) -> None:
    data = path.read_bytes()
    header = b"[" * 100_000
    path.write_bytes(data[:16] + struct.pack("<Q", len(header)) + hashlib.sha256(header).digest() + header)
    with pytest.raises(ArtifactError):
        read(path)
