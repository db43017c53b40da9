"""Samples of generative models, to be looked at: text or a picture from each level, and what a file of them may hold."""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass

TEXT, PICTURE = "samples.txt", "samples.png"
"""The two files of samples that a run may hold."""

LARGEST = 4_000_000
"""Bytes that a file of samples may have."""

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADING = re.compile(r"^=== (.*) ===$", re.MULTILINE)


@dataclass(frozen=True)
class Sample:
    """What one run generated: ``text``, ``picture`` (the bytes of a PNG), either empty where there is none."""

    variant: str
    level: int
    seed: int
    sparsity: float
    text: str = ""
    picture: bytes = b""

    @property
    def passages(self) -> list[tuple[str, str]]:
        """The text in parts with headings: a line ``=== heading ===`` begins one. All of it when there is none."""
        pieces = _HEADING.split(self.text)
        headed = [(pieces[i], pieces[i + 1].strip("\n")) for i in range(1, len(pieces), 2)]
        begin = pieces[0].strip("\n")
        return [("", begin), *headed] if begin else headed


def fault(name: str, content: object) -> str:
    """Why a file of samples cannot be kept, to follow its name in a sentence; empty when nothing is wrong with it."""
    if name not in (TEXT, PICTURE):
        return f"is not one of {TEXT}, {PICTURE}"
    if not isinstance(content, bytes):
        return f"is {type(content).__name__}, not bytes"
    if not 0 < len(content) <= LARGEST:
        return f"has {len(content):,} bytes; it may have 1 to {LARGEST:,}"
    if name == PICTURE:
        return "" if is_png(content) else "is not a PNG"
    try:
        content.decode()
    except UnicodeDecodeError as error:
        return f"is not UTF-8 (byte {error.start})"
    return ""


def is_png(content: bytes) -> bool:
    """Whether these bytes are a whole PNG: its signature, chunks with right checksums from IHDR to IEND, no more."""
    if not content.startswith(_SIGNATURE):
        return False
    place, names = len(_SIGNATURE), []
    while place + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, place)
        end = place + 8 + length
        if end + 4 > len(content) or struct.unpack_from(">I", content, end)[0] != zlib.crc32(content[place + 4 : end]):
            return False
        names.append(content[place + 4 : place + 8])
        place = end + 4
        if names[-1] == b"IEND":
            break
    return place == len(content) and names[:1] == [b"IHDR"] and names[-1:] == [b"IEND"] and b"IDAT" in names
