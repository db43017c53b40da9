"""A user's own arrays in four ``.npy`` files of a folder, which stay there: memory-mapped, and so shared by all processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ticketsmith.data.arrays import Layout, make_dataset
from ticketsmith.data.dataset import Dataset
from ticketsmith.data.userfiles import existing
from ticketsmith.errors import DataError

_NAMES = ("x_train", "y_train", "x_test", "y_test")
_WHAT = "data set 'npy'"


def files(path: str, **_: Any) -> list[tuple[str, Path]]:
    """The files that make the content, each with its role."""
    folder = existing(path, _WHAT, folder=True)
    return [(name, existing(str(folder / f"{name}.npy"), _WHAT)) for name in _NAMES]


def load(path: str, layout: Layout = "auto") -> Dataset:
    """``x_train.npy``, ``y_train.npy``, ``x_test.npy`` and ``y_test.npy`` in the folder ``path``; see
    ``ticketsmith.data.arrays`` for shapes and ``layout``. Inputs are ``uint8`` or ``float32``, and are not read as a whole into
    memory.
    """
    places = dict(files(path))
    x_train, y_train, x_test, y_test = (_read(places[name], name.startswith("x")) for name in _NAMES)
    names = tuple(str(places[name]) for name in _NAMES)
    return make_dataset(Path(path).name, (x_train, y_train), (x_test, y_test), layout=layout, names=names)  # type: ignore[arg-type]


def _read(file: Path, mapped: bool) -> Any:
    try:
        # Read only: of what may be written to, the system would want memory for all.
        array = np.load(file, mmap_mode="r" if mapped else None, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        if "Python objects" in str(error) or "allow_pickle" in str(error):
            raise DataError(f"{file} holds Python objects, which are never loaded; store a plain array.") from error
        raise DataError(f"{file} cannot be read as .npy: {error}; save it again with numpy.save.") from error
    if not isinstance(array, np.ndarray):
        raise DataError(f"{file} is no .npy file; make it with numpy.save, or numpy.lib.format.open_memmap.")
    if mapped and not array.flags.c_contiguous:
        raise DataError(f"{file} is in Fortran's order; save numpy.ascontiguousarray of it, with examples one by one.")
    return array
