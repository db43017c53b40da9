"""Optional libraries, imported when a data set or a task needs them, with the mend when they are not there."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any

from ticketsmith.errors import DataError


def need(module: str, purpose: str, extra: str = "data") -> Any:
    """The optional ``module``; DataError that says what it is needed for and how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise _missing(module.partition(".")[0], purpose, extra) from error


def folder_of(package: str, purpose: str, extra: str = "data") -> Path:
    """Where the optional ``package`` is installed, without importing it; DataError as of ``need``."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise _missing(package, purpose, extra)
    return Path(spec.submodule_search_locations[0])


def _missing(package: str, purpose: str, extra: str) -> DataError:
    return DataError(f"{purpose} needs {package}: pip install 'ticketsmith[{extra}]'")
