"""English text that comes with Python: the chapters of its reference that ``help()`` shows."""

from __future__ import annotations

from ticketsmith.data.dataset import Text
from ticketsmith.errors import DataError


def load() -> Text:
    """The topics of ``pydoc_data``, in the order of their names. Another version of Python has another text."""
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise DataError(
            "the data set 'pydocs' is part of CPython, but this Python has no module pydoc_data; "
            "use a text file instead: `data: {name: text, path: my.txt}`."
        ) from error
    content = "\n\n".join(topics[name].strip("\n") for name in sorted(topics)) + "\n"
    return Text("pydocs", content)
