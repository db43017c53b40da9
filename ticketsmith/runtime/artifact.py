"""The runtime's own file, ``.tsk``: a graph, its weights, and which formats were fastest on which machine.

A file is read as what it is: bytes of a stranger. It holds no code, and no number that is used as an address: weights are
stored plainly (a bit for each weight, then the values of those that are not zero, of 32, 16, 8 or 4 bits), and everything that
the kernels index with is computed here from shapes that were checked.

    8 bytes   magic
    4 bytes   version, little endian, as all numbers
    4 bytes   zero
    8 bytes   size of the header
    32 bytes  SHA-256 of the header
    header    JSON: the graph, the place and SHA-256 of each tensor, the precision, choices of formats
    data      tensors, each beginning at a multiple of 64 bytes of the file
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ticketsmith.errors import TicketSmithError, disk_error
from ticketsmith.machine import cpu_name
from ticketsmith.memory import read_file, require
from ticketsmith.native import Isa, best_isa
from ticketsmith.runtime.formats import FORMER_NAMES, stored
from ticketsmith.runtime.graph import MOST_AXES, Graph, GraphError, Node, Port
from ticketsmith.runtime.model import PRECISIONS, Model
from ticketsmith.runtime.precision import by_tensor, from_bfloat16, from_whole, to_whole
from ticketsmith.sparse.values import LEVELS, from_pairs, pairs, to_bfloat16

MAGIC = b"\x89TSK\r\n\x1a\n"
VERSION = 4
"""1 had one input and one output, and values of 32 bits; 2 knew no int4, and no products of whole numbers; 3 no ranges of
values. All are read, and of 2 to 4 the first that knows all that is in a file is written."""

_PRECISIONS_OF_2 = ("float32", "bfloat16", "int8")

_PREFIX = struct.Struct("<8sIIQ32s")
_MOST_HEADER = 64 * 2**20
_ALIGNMENT = 64
_MOST = float(np.finfo(np.float32).max) / 4


class ArtifactError(TicketSmithError):
    """A file is no model of this runtime, or is damaged; the message says what is wrong with it."""


def machine_key() -> str:
    """What a measured choice of formats holds for: a processor, and the instructions that are used of it."""
    return f"{cpu_name()} {best_isa().name}"


@dataclass(frozen=True)
class Artifact:
    """What a file holds. ``choices`` are formats by machine; tensors of low ``precision``, one for all or by name, are rounded
    float32."""

    graph: Graph
    choices: Mapping[str, Mapping[str, str]]
    precision: str | Mapping[str, str]


def load(path: str | os.PathLike[str], *, threads: int = 1, isa: Isa | None = None, precision: str | None = None,
         handover: bool = True) -> Model:  # fmt: skip
    """The model of a ``.tsk`` file, ready to call. ``precision`` is the file's unless another one is asked for.

    With ``handover``, what was measured to be faster in a dense library is computed there, if it is installed.

    Raises ArtifactError when the file is missing, damaged or of another version, NotBuiltError when there are no kernels.
    """
    artifact = open_artifact(path)
    choices, kind = artifact.choices.get(machine_key()), precision or artifact.precision
    return Model(artifact.graph, choices, threads=threads, isa=isa, precision=kind, handover=handover)


def save(path: str | os.PathLike[str], graph: Graph, choices: Mapping[str, Mapping[str, str]] | None = None,
         precision: str | Mapping[str, str] = "float32") -> None:  # fmt: skip
    """Writes ``graph``; ``choices`` maps machines (``machine_key``) to formats. The file appears whole or not at all.

    With ``precision`` bfloat16, int8 or int4 (a scale for each row) the weights of products take two bytes, one or half of one
    each, and are rounded; int8_dot and int4_dot are stored alike, and served in whole numbers; with precisions by name, those
    tensors alone are. Raises StoreError when the place cannot be written.
    """
    low = by_tensor(graph, precision)
    graph.shapes()
    places: dict[str, Any] = {}
    blobs: list[bytes] = []
    offset = 0
    for name, tensor in graph.tensors.items():
        values = stored(low.get(name, "float32"))
        encoding, blob = _encode(tensor, values)
        places[name] = {
            "shape": tensor.shape, "encoding": encoding, "values": values, "offset": offset, "size": len(blob),
            "sha256": hashlib.sha256(blob).hexdigest(),
        }  # fmt: skip
        blobs.append(blob + bytes(-len(blob) % _ALIGNMENT))
        offset += len(blobs[-1])
    document = {
        "graph": {
            "inputs": [vars(port) for port in graph.inputs], "outputs": graph.outputs, "scalars": graph.scalars,
            "nodes": [
                {**vars(node), "weights": dict(node.weights), "attributes": dict(node.attributes)} for node in graph.nodes
            ],
        },
        "tensors": places, "precision": precision if isinstance(precision, str) else low,
        "choices": {machine: dict(formats) for machine, formats in (choices or {}).items()}, "data": offset,
        **({"ranges": dict(graph.ranges)} if graph.ranges else {}),
    }  # fmt: skip
    header = json.dumps(document, allow_nan=False).encode()
    header += b" " * (-(_PREFIX.size + len(header)) % _ALIGNMENT)
    version = VERSION if graph.ranges else 2 if precision in _PRECISIONS_OF_2 else 3
    prefix = _PREFIX.pack(MAGIC, version, 0, len(header), hashlib.sha256(header).digest())
    target = Path(path)
    aside = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with open(aside, "wb") as file:
            file.writelines([prefix, header, *blobs])
        os.replace(aside, target)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise disk_error(error, target) from error


def open_artifact(path: str | os.PathLike[str]) -> Artifact:
    """What a file holds. Raises ArtifactError when it is missing, damaged or of another version."""
    try:
        data = read_file(path)
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path}: cannot be read: {getattr(error, 'strerror', error)}.") from error
    try:
        return _parse(data)
    except (ArtifactError, GraphError) as error:
        raise ArtifactError(f"{path}: {error}") from error


def _parse(data: bytes) -> Artifact:
    if len(data) < _PREFIX.size or data[:8] != MAGIC:
        raise ArtifactError("this is no .tsk file, or its beginning is damaged.")
    _, version, zero, size, digest = _PREFIX.unpack_from(data)
    if not 1 <= version <= VERSION or zero:
        raise ArtifactError(
            f"it has version {version} of the format; this TicketSmith reads 1 to {VERSION}. Export it again."
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
    places = _field(document, "tensors", dict)
    if sum(_field(place, "size", int) for place in places.values()) > len(body):
        raise ArtifactError("its tensors overlap.")  # a small file could ask for any amount of memory
    _check_memory(places)
    tensors = {name: _tensor(name, place, body) for name, place in places.items()}
    graph = replace(_graph(_field(document, "graph", dict), tensors), ranges=_ranges(document.get("ranges", {})))
    graph.shapes()
    precision = document.get("precision") if version > 1 else "float32"
    kinds = list(precision.values()) if type(precision) is dict else [precision]
    if not all(type(kind) is str and kind in PRECISIONS for kind in kinds):
        raise ArtifactError(f"its precision {precision!r} is not known.")
    return Artifact(graph, _choices(_field(document, "choices", dict)), precision)


def _check_memory(places: Mapping[str, Any]) -> None:
    """A bitmap stores a weight in a bit: a file may ask for 32 times its size, and more while it is read."""
    counts = [
        math.prod(size for size in _field(place, "shape", list) if type(size) is int and size > 0)
        for place in places.values()
    ]
    needed = 4 * sum(counts) + 5 * max(counts, default=0)
    require(needed, "its tensors", "Take a machine with more memory.", ArtifactError)


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
    if "inputs" not in document:  # version 1
        value, dtype, output = (_field(document, name, str) for name in ("input", "dtype", "output"))
        return Graph(value, tuple(_field(document, "shape", list)), dtype, tuple(nodes), output, tensors)
    ports = [
        Port(_field(one, "name", str), tuple(_field(one, "shape", list)), _field(one, "dtype", str))
        for one in _field(document, "inputs", list)
    ]
    outputs = _strings(_field(document, "outputs", list), "outputs")
    if not ports or not outputs:
        raise ArtifactError("its graph has no inputs or no outputs.")
    scalars = tuple(_field(document, "scalars", list)) if "scalars" in document else ()
    if not all(type(place) is int for place in scalars):
        raise ArtifactError("its header has no valid 'scalars'.")
    first = ports[0]
    return Graph(
        first.name, first.shape, first.dtype, tuple(nodes), outputs[0], tensors, tuple(ports[1:]), outputs[1:],
        scalars=scalars,
    )  # fmt: skip


def _ranges(document: Any) -> dict[str, tuple[float, float]]:
    ends = list(document.values()) if type(document) is dict else [None]
    if not all(
        type(pair) is list and [type(end) for end in pair] == [float, float] and -_MOST <= pair[0] <= pair[1] <= _MOST
        for pair in ends
    ):
        raise ArtifactError("its header has no valid 'ranges'.")
    return {name: (low, high) for name, (low, high) in document.items()}


def _choices(document: dict[str, Any]) -> dict[str, dict[str, str]]:
    for formats in document.values():
        _strings(formats.values() if type(formats) is dict else [None], "choices")
    return {
        machine: {product: FORMER_NAMES.get(name, name) for product, name in formats.items()}
        for machine, formats in document.items()
    }


def _encode(tensor: NDArray[np.float32], values: str) -> tuple[str, bytes]:
    """[a bit for each][a scale for each row][the values], without the bits where they would save nothing."""
    array = np.ascontiguousarray(tensor, np.float32)
    scales = b""
    if values in LEVELS:
        flat, steps = to_whole(array, values)
        scales = steps.astype("<f4").tobytes()
        numbers: NDArray[Any] = flat.ravel()
    elif values == "bfloat16":
        numbers = to_bfloat16(array).ravel().astype("<u2")
        numbers[numbers == 0x8000] = 0  # of two zeros one is enough
    else:
        numbers = array.ravel().astype("<f4")
    mask = numbers != 0
    bits, count = _BITS[values], int(np.count_nonzero(mask))
    if bits * count + numbers.size >= bits * numbers.size:
        return "dense", scales + _bytes(numbers, values)
    return "bitmap", np.packbits(mask).tobytes() + scales + _bytes(numbers[mask], values)


def _bytes(numbers: NDArray[Any], values: str) -> bytes:
    return (
        pairs(np.append(numbers, np.int8(0))[: len(numbers) + len(numbers) % 2]).tobytes()
        if values == "int4"
        else numbers.tobytes()
    )


_BITS = {"float32": 32, "bfloat16": 16, "int8": 8, "int4": 4}
_STORED = {"float32": "<f4", "bfloat16": "<u2", "int8": "i1", "int4": "u1"}


def _tensor(name: str, place: Any, body: memoryview) -> NDArray[np.float32]:
    shape = _field(place, "shape", list)
    offset, size = _field(place, "offset", int), _field(place, "size", int)
    encoding, digest = _field(place, "encoding", str), _field(place, "sha256", str)
    kind = place.get("values", "float32")
    if not 1 <= len(shape) <= MOST_AXES or any(type(n) is not int or n < 1 for n in shape) or offset < 0 or size < 0:
        raise ArtifactError(f"tensor {name!r} has no valid place or shape.")
    if kind not in tuple(_STORED) or encoding not in ("dense", "bitmap"):
        raise ArtifactError(f"tensor {name!r} is stored in a way that is not known.")
    blob = body[offset : offset + size]
    if len(blob) != size:
        raise ArtifactError(f"tensor {name!r} lies outside of the file.")
    if hashlib.sha256(blob).hexdigest() != digest:
        raise ArtifactError(f"tensor {name!r} is damaged.")
    count, dtype = math.prod(shape), np.dtype(_STORED[kind])
    bits = -(-count // 8) if encoding == "bitmap" else 0
    scales = 4 * shape[0] if kind in LEVELS else 0
    rest = size - bits - scales
    whole = -(-count * _BITS[kind] // 8)
    if rest < 0 or rest % dtype.itemsize or (not bits and rest != whole):
        raise ArtifactError(f"tensor {name!r} does not have the bytes of its shape.")
    values = np.frombuffer(blob[bits + scales :], dtype)
    mask = np.unpackbits(np.frombuffer(blob[:bits], np.uint8), count=count).view(bool) if bits else None
    there = count if mask is None else int(np.count_nonzero(mask))
    if kind == "int4":
        values = from_pairs(values)[: there if len(values) == -(-there // 2) else None]
    if there != len(values):
        raise ArtifactError(f"tensor {name!r} does not have as many values as its mask says.")
    if mask is not None:
        full = np.zeros(count, values.dtype)
        full[mask] = values
        values = full
    if kind == "bfloat16":
        return from_bfloat16(values).reshape(shape)
    if kind in LEVELS:
        steps = np.frombuffer(blob[bits : bits + scales], "<f4")
        return from_whole(values.reshape(shape), steps)
    return values.astype(np.float32, copy=False).reshape(shape)
