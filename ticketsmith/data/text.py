"""Text files of the user's own, one after another."""

from __future__ import annotations

from pathlib import Path

from ticketsmith.data.dataset import Text
from ticketsmith.data.userfiles import expand
from ticketsmith.errors import DataError
from ticketsmith.memory import read_file

_WHAT = "the data set 'text'"


def load(path: str | list[str] | None = None) -> Text:
    """The files that ``path`` stands for (a file, a pattern, or a list of these), each ended by a line break.

    Raises DataError when there are none, or one is empty or not UTF-8.
    """
    parts = [read(file) for _, file in files(path)]
    return Text("text", "".join(part if part.endswith("\n") else f"{part}\n" for part in parts))


def files(path: str | list[str] | None = None) -> list[tuple[str, Path]]:
    """The files in the order in which they are read, with their role."""
    if not path:
        raise DataError(
            f"{_WHAT} needs a file: write `data: {{name: text, path: my.txt}}` into the recipe, or add "
            "`--set task.data.path=my.txt` to the command."
        )
    return [("text", file) for file in expand(path, _WHAT)]


def read(path: Path, what: str = "") -> str:
    """The text of a file, its line breaks as they are.

    Raises DataError, which begins with ``what``, when it is empty, not UTF-8, or has NUL bytes.
    """
    what = what or f"{_WHAT}: {path}"
    try:
        content = read_file(path)
    except OSError as error:
        raise DataError(f"{what} cannot be read: {error.strerror or error}") from error
    if not content:
        raise DataError(f"{what} is empty.")
    if (place := content.find(b"\0")) >= 0:
        raise DataError(
            f"{what} is no text: it has a NUL byte at {place:,}. Name a text file; one in UTF-16 becomes UTF-8 by "
            "`iconv -f utf-16 -t utf-8`."
        )
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{what} is not UTF-8: byte 0x{content[error.start]:02x} at {error.start:,} (line {line:,}). Save it as "
            "UTF-8, e.g. by `iconv -f latin1 -t utf-8`."
        ) from error
