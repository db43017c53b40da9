"""From text to tokens and back: characters, bytes, or the file of a tokenizer that was trained elsewhere."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ticketsmith.data.extras import need
from ticketsmith.data.userfiles import existing, settle
from ticketsmith.errors import DataError
from ticketsmith.plugins import nearest

Tokens = NDArray[np.int32]

_WHAT = "task.tokenizer"
_BUILT_IN = ("characters", "bytes")


class Tokenizer(Protocol):
    """Text to whole numbers below ``size``, and back."""

    size: int

    def encode(self, text: str) -> Tokens:
        """The tokens of a text, ``[n]``. Raises DataError for what it does not know."""
        ...

    def decode(self, tokens: list[int]) -> str:
        """The text that tokens stand for."""
        ...


class Characters:
    """A token for each different character of a text, in the order of Unicode."""

    def __init__(self, text: str) -> None:
        self._codes = np.unique(_codes(text))
        self.size = len(self._codes)

    def encode(self, text: str) -> Tokens:
        codes = _codes(text)
        places = np.searchsorted(self._codes, codes).clip(max=self.size - 1)
        strange = codes[self._codes[places] != codes]
        if len(strange):
            raise DataError(f"{_WHAT}: characters: the text of the task has no {chr(strange[0])!r}.")
        return places.astype(np.int32)

    def decode(self, tokens: list[int]) -> str:
        return "".join(chr(code) for code in self._codes[tokens].tolist()) if tokens else ""


class Bytes:
    """The 256 values of a byte, of the text in UTF-8; bytes that are no text are shown as U+FFFD."""

    size = 256

    def encode(self, text: str) -> Tokens:
        return np.frombuffer(text.encode(), np.uint8).astype(np.int32)

    def decode(self, tokens: list[int]) -> str:
        return bytes(tokens).decode(errors="replace")


class File:
    """A ``tokenizer.json``, as Hugging Face's ``tokenizers`` and ``transformers`` write it."""

    def __init__(self, path: Path) -> None:
        library: Any = need("tokenizers", f"{_WHAT}: {path}", extra="text")
        try:
            self._tokenizer = library.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises no class of its own
            raise DataError(
                f"{_WHAT}: {path} is not the file of a tokenizer ({error}). Name a tokenizer.json that `tokenizers` or "
                "`transformers` wrote, or take `characters` or `bytes`."
            ) from error
        self.size = 1 + max(self._tokenizer.get_vocab().values(), default=-1)
        if not self.size:
            raise DataError(f"{_WHAT}: {path} has no tokens.")

    def encode(self, text: str) -> Tokens:
        return np.array(self._tokenizer.encode(text, add_special_tokens=False).ids, np.int32)

    def decode(self, tokens: list[int]) -> str:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=False))


def create(name: str, text: str, base: Path | None) -> Tokenizer:
    """The tokenizer that a recipe names: ``characters`` (those of ``text``), ``bytes``, or the path of a file.

    Raises DataError for anything else.
    """
    if name == "characters":
        return Characters(text)
    return Bytes() if name == "bytes" else File(_file(name, base))


def identity(name: str, base: Path | None) -> str:
    """What of a tokenizer enters a run's key: its name, or the content of its file."""
    if name in _BUILT_IN:
        return name
    return f"sha256:{hashlib.sha256(_file(name, base).read_bytes()).hexdigest()}"


def _file(name: str, base: Path | None) -> Path:
    if not name.endswith(".json"):
        raise DataError(f"{_WHAT}: unknown {name!r}.{nearest(name, list(_BUILT_IN))} A file ends in .json.")
    return existing(settle(name, base), _WHAT)


def _codes(text: str) -> NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", errors="surrogatepass"), np.uint32)
