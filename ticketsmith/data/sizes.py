"""What a user's files say of their size, asked before it is allocated: a small file may unpack to any amount."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ticketsmith.data.extras import need
from ticketsmith.errors import DataError
from ticketsmith.memory import require

_MEND = "Take a smaller part of it, or a machine with more memory."
_CHUNK = 16 * 2**20
_ROWS = 256


def check_picture(width: int, height: int, name: str) -> None:
    """Raises DataError for a picture beyond Pillow's limit of pixels, or beyond memory; called when only its header is read."""
    limit = need("PIL.Image", "reading images").MAX_IMAGE_PIXELS
    if limit is not None and width * height > limit:
        raise DataError(
            f"{name} is a picture of {width:,} x {height:,} pixels; {limit:,} pixels are read at most, since a small file may "
            "unpack to any size. Make it smaller, or remove it."
        )
    require(8 * width * height, f"{name}: a picture of {width:,} x {height:,} pixels", _MEND, DataError)


def check_arrays(archive: Any, names: Iterable[str], file: Path) -> None:
    """Whether arrays of an opened ``.npz`` have the bytes that their headers promise, and fit. Raises DataError."""
    total = 0
    for name in names:
        entry = f"{name}.npy" if f"{name}.npy" in archive.zip.namelist() else name
        with archive.zip.open(entry) as opened:
            version = np.lib.format.read_magic(opened)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(opened)
            held = archive.zip.getinfo(entry).file_size - opened.tell()
        needed = math.prod(shape) * dtype.itemsize
        if needed != held and not dtype.hasobject:
            raise DataError(
                f"{file}: {name} has {held:,} bytes for an array of shape {shape} and type {dtype}, which are {needed:,}; save "
                "it again with numpy.savez."
            )
        total += needed
    require(2 * total, f"{file}: its arrays", _MEND, DataError)


def read_table(path: Path) -> Any:
    """The table of a Parquet file. Raises DataError when its rows do not fit: values that repeat are stored once."""
    arrow, reader = need("pyarrow", "a Parquet file"), need("pyarrow.parquet", "a Parquet file")
    with reader.ParquetFile(path, pre_buffer=False) as file:  # no threads: workers are forked after this
        groups = [file.metadata.row_group(index).total_byte_size for index in range(file.metadata.num_row_groups)]
        require(sum(groups), f"{path}: its rows", _MEND, DataError)
        batches, size = [], 0
        for batch in file.iter_batches(_ROWS, use_threads=False):
            size += batch.nbytes
            require(batch.nbytes, f"{path}: more than {size:,} bytes of rows", _MEND, DataError)
            batches.append(batch)
        return arrow.Table.from_batches(batches, file.schema_arrow).unify_dictionaries()


def gunzip(content: bytes, name: str) -> bytes:
    """The content of a gzip file. Raises DataError when it does not fit, EOFError or zlib.error when it is damaged."""
    unpacked = bytearray()
    rest = content
    while rest:
        stream = zlib.decompressobj(wbits=31)
        while not stream.eof:
            part = stream.decompress(rest, _CHUNK)
            rest = stream.unconsumed_tail
            if not part and not rest and not stream.eof:
                raise EOFError("it is cut off")
            require(len(unpacked) + _CHUNK, f"{name}: more than {len(unpacked):,} bytes", _MEND, DataError)
            unpacked += part
        rest = stream.unused_data.lstrip(b"\0")
    return bytes(unpacked)


def check_member(size: int, name: str) -> None:
    """Raises DataError when a member of an archive does not fit into memory."""
    require(size, name, _MEND, DataError)
