"""The runtime's own file, ``.tsk``: a graph, its weights, and which formats were fastest on which machine.

A file is read as what it is: bytes of a stranger. It holds no code, and no number that is used as an address: weights are
stored plainly (a bit for each weight, then the values of those that are not zero), and everything that the kernels index
with is computed here from shapes that were checked.

    8 bytes   magic
    4 bytes   version, little endian, as all numbers
    4 bytes   zero
    8 bytes   size of the header
    32 bytes  SHA-256 of the header
    header    JSON: the graph, the place and SHA-256 of each tensor, choices of formats
    data      tensors, each beginning at a multiple of 64 bytes of the file
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ticketsmith.errors import TicketSmithError, disk_error
from ticketsmith.machine import cpu_name
from ticketsmith.native import Isa, best_isa
from ticketsmith.runtime.graph import Graph, GraphError, Node
from ticketsmith.runtime.model import Model

MAGIC = b"\x89TSK\r\n\x1a\n"
VERSION = 1
_PREFIX = struct.Struct("<8sIIQ32s")
_MOST_HEADER = 64 * 2**20
_ALIGNMENT = 64


class ArtifactError(TicketSmithError):
    """A file is no model of this runtime, or is damaged; the message says what is wrong with it."""


def machine_key() -> str:
    """What a measured choice of formats holds for: a processor, and the instructions that are used of it."""
    return f"{cpu_name()} {best_isa().name}"


def load(
    path: str | os.PathLike[str], *, threads: int = 1, isa: Isa | None = None, precision: str = "float32"
) -> Model:
    """The model of a ``.tsk`` file, ready to call.

    Raises ArtifactError when the file is missing, damaged or of another version, NotBuiltError when there are no kernels.
    """
    graph, choices = read(path)
    return Model(graph, choices.get(machine_key()), threads=threads, isa=isa, precision=precision)


def save(path: str | os.PathLike[str], graph: Graph, choices: Mapping[str, Mapping[str, str]] | None = None) -> None:
    """Writes ``graph``; ``choices`` maps machines (``machine_key``) to formats. The file appears whole or not at all.

    Raises StoreError when the place cannot be written.
    """
    graph.shapes()
    places: dict[str, Any] = {}
    blobs: list[bytes] = []
    offset = 0
    for name, tensor in graph.tensors.items():
        encoding, blob = _encoded(tensor)
        places[name] = {
            "shape": list(tensor.shape),
            "encoding": encoding,
            "offset": offset,
            "size": len(blob),
            "sha256": hashlib.sha256(blob).hexdigest(),
        }
        blobs.append(blob + bytes(-len(blob) % _ALIGNMENT))
        offset += len(blobs[-1])
    document = {
        "graph": {
            "input": graph.input,
            "shape": list(graph.shape),
            "dtype": graph.dtype,
            "output": graph.output,
            "nodes": [
                {
                    "op": node.op,
                    "inputs": list(node.inputs),
                    "output": node.output,
                    "weights": dict(node.weights),
                    "attributes": dict(node.attributes),
                }
                for node in graph.nodes
            ],
        },
        "tensors": places,
        "choices": {machine: dict(formats) for machine, formats in (choices or {}).items()},
        "data": offset,
    }
    header = json.dumps(document, allow_nan=False).encode()
    header += b" " * (-(_PREFIX.size + len(header)) % _ALIGNMENT)
    prefix = _PREFIX.pack(MAGIC, VERSION, 0, len(header), hashlib.sha256(header).digest())
    target = Path(path)
    aside = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with open(aside, "wb") as file:
            file.writelines([prefix, header, *blobs])
        os.replace(aside, target)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise disk_error(error, target) from error


def read(path: str | os.PathLike[str]) -> tuple[Graph, dict[str, dict[str, str]]]:
    """The graph of a file and its choices of formats by machine. Raises ArtifactError."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read: {error.strerror}.") from error
    try:
        return _parsed(data)
    except (ArtifactError, GraphError) as error:
        raise ArtifactError(f"{path}: {error}") from error


def _parsed(data: bytes) -> tuple[Graph, dict[str, dict[str, str]]]:
    if len(data) < _PREFIX.size or data[:8] != MAGIC:
        raise ArtifactError("this is no .tsk file, or its beginning is damaged.")
    _, version, zero, size, digest = _PREFIX.unpack_from(data)
    if version != VERSION or zero:
        raise ArtifactError(
            f"it has version {version} of the format; this TicketSmith reads {VERSION}. Export it again."
        )
    header = data[_PREFIX.size : _PREFIX.size + size]
    if size > _MOST_HEADER or len(header) != size:
        raise ArtifactError("it is cut off.")
    if hashlib.sha256(header).digest() != digest:
        raise ArtifactError("its header is damaged.")
    try:
        document = json.loads(header)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"its header is not JSON: {error}") from error
    body = memoryview(data)[_PREFIX.size + size :]
    if len(body) != _field(document, "data", int):
        raise ArtifactError("it is cut off, or has grown.")
    tensors = {name: _tensor(name, place, body) for name, place in _field(document, "tensors", dict).items()}
    graph = _graph(_field(document, "graph", dict), tensors)
    graph.shapes()
    return graph, _choices(_field(document, "choices", dict))


def _field(document: Any, name: str, kind: type) -> Any:
    value = document.get(name) if isinstance(document, dict) else None
    if type(value) is not kind:
        raise ArtifactError(f"its header has no valid {name!r}.")
    return value


def _strings(values: Any, what: str) -> tuple[str, ...]:
    if not all(type(value) is str for value in values):
        raise ArtifactError(f"its header has no valid {what!r}.")
    return tuple(values)


def _graph(document: dict[str, Any], tensors: dict[str, NDArray[np.float32]]) -> Graph:
    nodes = []
    for one in _field(document, "nodes", list):
        weights = _field(one, "weights", dict)
        _strings(weights.values(), "weights")
        inputs = _strings(_field(one, "inputs", list), "inputs")
        op, output = _field(one, "op", str), _field(one, "output", str)
        nodes.append(Node(op, inputs, output, weights, _field(one, "attributes", dict)))
    shape = tuple(_field(document, "shape", list))
    names = (_field(document, name, str) for name in ("input", "dtype", "output"))
    value, dtype, output = names
    return Graph(value, shape, dtype, tuple(nodes), output, tensors)


def _choices(document: dict[str, Any]) -> dict[str, dict[str, str]]:
    for formats in document.values():
        _strings(formats.values() if type(formats) is dict else [None], "choices")
    return document


def _encoded(tensor: NDArray[np.float32]) -> tuple[str, bytes]:
    flat = np.ascontiguousarray(tensor, np.float32).ravel()
    kept = flat != 0
    count = int(np.count_nonzero(kept))
    if 4 * count + -(-flat.size // 8) >= 4 * flat.size:
        return "dense", flat.astype("<f4").tobytes()
    return "bitmap", np.packbits(kept).tobytes() + flat[kept].astype("<f4").tobytes()


def _tensor(name: str, place: Any, body: memoryview) -> NDArray[np.float32]:
    shape = _field(place, "shape", list)
    offset, size = _field(place, "offset", int), _field(place, "size", int)
    encoding, digest = _field(place, "encoding", str), _field(place, "sha256", str)
    if len(shape) > 4 or any(type(n) is not int or n < 1 for n in shape) or offset < 0 or size < 0:
        raise ArtifactError(f"tensor {name!r} has no valid place or shape.")
    blob = body[offset : offset + size]
    if len(blob) != size:
        raise ArtifactError(f"tensor {name!r} lies outside of the file.")
    if hashlib.sha256(blob).hexdigest() != digest:
        raise ArtifactError(f"tensor {name!r} is damaged.")
    count = math.prod(shape)
    bitmap = -(-count // 8) if encoding == "bitmap" else 0
    if (
        encoding not in ("dense", "bitmap")
        or bitmap > size
        or (size - bitmap) % 4
        or (not bitmap and size != 4 * count)
    ):
        raise ArtifactError(f"tensor {name!r} does not have the bytes of its shape.")
    values = np.frombuffer(blob[bitmap:], "<f4")
    if not bitmap:
        return values.reshape(shape)
    kept = np.unpackbits(np.frombuffer(blob[:bitmap], np.uint8), count=count).view(bool)
    if int(np.count_nonzero(kept)) != len(values):
        raise ArtifactError(f"tensor {name!r} does not have as many values as its mask says.")
    out = np.zeros(count, np.float32)
    out[kept] = values
    return out.reshape(shape)
