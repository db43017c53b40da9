"""Damaged and malicious ``.tsk`` files: each gives an error or a model that works, never a crash.

    python -m tests.runtime.fuzz --mutations 100000

runs them in a process of their own and says which mutation a crash came from.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import random
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ticketsmith import runtime
from ticketsmith.errors import TicketSmithError
from ticketsmith.runtime.artifact import open_artifact
from ticketsmith.runtime.model import Model
from ticketsmith.runtime.ops import OPERATORS

PREFIX = 56
WRONG: list[Any] = [
    None, -1, 0, 1, 2, 3, 7, 2**20, 2**31, 2**63, 1.5, float("nan"), True, "", "x", "float32", "int8", "int64", [], [0], [1, 1],
    [2**30], [1, 2, 0], [-1], {}, {"x": 1},
]  # fmt: skip


def with_header(whole: bytes, header: bytes) -> bytes:
    """The file with another header, its sum made right: what an attacker would do."""
    size = struct.unpack_from("<Q", whole, 16)[0]
    prefix = whole[:16] + struct.pack("<Q", len(header)) + hashlib.sha256(header).digest()
    return prefix + header + whole[PREFIX + size :]


def places(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a JSON document."""
    if path:
        yield path
    items = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for key, value in items:
        yield from places(value, (*path, key))


class Mutator:
    """Mutations of one file. The same seed gives the same ones."""

    def __init__(self, whole: bytes) -> None:
        self.whole = whole
        size = struct.unpack_from("<Q", whole, 16)[0]
        self.header, self.body = whole[PREFIX : PREFIX + size], whole[PREFIX + size :]
        self.document = json.loads(self.header)
        self.places = list(places(self.document))
        self.values = [self._at(place) for place in self.places]
        self.kinds: tuple[Callable[[random.Random], bytes], ...] = (
            self.fields, self.fields, self.fields, self.text, self.tensors, self.bits, self.cut, self.noise,
        )  # fmt: skip

    def _at(self, place: tuple[Any, ...]) -> Any:
        inner = self.document
        for key in place:
            inner = inner[key]
        return inner

    def mutated(self, seed: int) -> bytes:
        chance = random.Random(seed)
        return chance.choice(self.kinds)(chance)

    def fields(self, chance: random.Random) -> bytes:
        """Fields of the header are other ones."""
        document = copy.deepcopy(self.document)
        for _ in range(chance.choice((1, 1, 1, 2, 4))):
            place = chance.choice(self.places)
            inner = document
            try:
                for key in place[:-1]:
                    inner = inner[key]
                roll = chance.random()
                if roll < 0.1:
                    del inner[place[-1]]
                elif place[-1] == "op":
                    inner["op"] = chance.choice(tuple(OPERATORS))
                elif roll < 0.5:
                    inner[place[-1]] = copy.deepcopy(chance.choice(self.values))
                elif roll < 0.7 and isinstance(inner[place[-1]], int):
                    inner[place[-1]] += chance.choice((-1, 1, 16, -64, 2**32))
                else:
                    inner[place[-1]] = copy.deepcopy(chance.choice(WRONG))
            except (KeyError, IndexError, TypeError):
                continue
        return with_header(self.whole, json.dumps(document).encode())

    def text(self, chance: random.Random) -> bytes:
        """Characters of the header are other ones."""
        header = bytearray(self.header)
        for _ in range(chance.choice((1, 3))):
            header[chance.randrange(len(header))] = chance.choice(b'0123456789[]{}",:-e ax\xff')
        return with_header(self.whole, bytes(header))

    def tensors(self, chance: random.Random) -> bytes:
        """Weights are other ones, and their sum is right."""
        document, body = copy.deepcopy(self.document), bytearray(self.body)
        name = chance.choice(list(document["tensors"]))
        place = document["tensors"][name]
        begin, size = place["offset"], place["size"]
        for _ in range(chance.choice((1, 8))):
            body[begin + chance.randrange(size)] = chance.choice((0, 0xFF, 0x7F, 0x80, chance.randrange(256)))
        place["sha256"] = hashlib.sha256(body[begin : begin + size]).hexdigest()
        return with_header(self.whole[: PREFIX + len(self.header)] + bytes(body), json.dumps(document).encode())

    def bits(self, chance: random.Random) -> bytes:
        damaged = bytearray(self.whole)
        for _ in range(chance.choice((1, 2, 8))):
            place = chance.randrange(chance.choice((PREFIX, len(damaged))))
            damaged[place] ^= 1 << chance.randrange(8)
        return bytes(damaged)

    def cut(self, chance: random.Random) -> bytes:
        return self.whole[: chance.randrange(len(self.whole))] + bytes(chance.choice((0, 0, 7)))

    def noise(self, chance: random.Random) -> bytes:
        return self.whole[: chance.choice((0, 8, 16, PREFIX))] + chance.randbytes(chance.randrange(300))


def meets(path: Path, data: bytes) -> bool:
    """Whether a file was read and answered; False for an error that a user can understand. Anything else is raised."""
    path.write_bytes(data)
    try:
        found = open_artifact(path)
        model = Model(found.graph, precision=found.precision)
        sizes = [int(np.prod(shape)) for shape in found.graph.shapes().values()]
        if sum(sizes) < 3e5:  # what is larger would only take longer
            with np.errstate(all="ignore"):
                inputs = [np.zeros((1, *port.shape), port.dtype) for port in model.inputs]
                outputs = model(*inputs)
            outputs = outputs if isinstance(outputs, tuple) else (outputs,)
            assert [one.shape[1:] for one in outputs] == list(model.output_shapes)
            if len(inputs) == 1 and found.graph.dtype == "int64" and len(found.graph.shape) == 1:
                session = model.session(capacity=min(8, max(1, found.graph.shape[0])))
                session(np.zeros((1, 5), np.int64))
                session(np.zeros((1, 1), np.int64))
        return True
    except TicketSmithError:
        return False


def bases(folder: Path) -> list[bytes]:
    """Files of every kind."""
    import torch

    from tests.runtime.zoo import ZOO, network
    from ticketsmith.runtime.calibrate import calibrated
    from ticketsmith.runtime.from_torch import from_torch

    torch.manual_seed(0)
    found = []
    for name, precision in (
        ("rotary_shared", "float32"), ("unet", "int8"), ("encoder", "bfloat16"), ("mobile", "int8_dot"), ("vit", "int4_dot"),
        ("classic", "float32"), ("segmenter", "bfloat16"),
    ):  # fmt: skip
        file = folder / f"{name}.tsk"
        example = ZOO[name][1](1)
        graph = from_torch(network(name), example)
        if precision == "int8_dot":
            graph = calibrated(graph, [[one.numpy() for one in example]])
        runtime.save(file, graph, precision=precision)
        found.append(file.read_bytes())
    return found


def run(folder: Path, first: int, last: int) -> None:
    """Mutations by number; the number of the one that is tried is printed, so that a crash can be found again."""
    mutators = [Mutator(file.read_bytes()) for file in sorted(folder.glob("*.tsk"))]
    worked = 0
    for seed in range(first, last):
        data = mutators[seed % len(mutators)].mutated(seed)
        (folder / "seed").write_text(str(seed))
        worked += meets(folder / "mutated.bin", data)
    print(f"{last - first} mutations, {worked} of them gave a model that works, the others an error")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutations", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=None, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.folder is not None:
        run(given.folder, given.first, given.first + given.mutations)
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bases(folder)
        command = [sys.executable, "-m", "tests.runtime.fuzz", "--folder", name]
        status = subprocess.run([*command, "--first", str(given.first), "--mutations", str(given.mutations)]).returncode
        if status:
            print(f"status {status} at mutation {(folder / 'seed').read_text()}")
        return status


if __name__ == "__main__":
    sys.exit(main())
