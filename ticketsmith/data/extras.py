"""Optional libraries, imported when a data set or a task needs them, with the mend when they are not there."""

from __future__ import annotations

import importlib
from typing import Any

from ticketsmith.errors import DataError


def need(module: str, purpose: str, extra: str = "data") -> Any:
    """The optional ``module``; DataError that says what it is needed for and how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise DataError(f"{purpose} needs {module.partition('.')[0]}: pip install 'ticketsmith[{extra}]'") from error
