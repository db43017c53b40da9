"""A user's own arrays in one ``.npz`` file."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from ticketsmith.data.arrays import Layout, make_dataset
from ticketsmith.data.dataset import Dataset
from ticketsmith.data.holdout import cut
from ticketsmith.data.sizes import check_arrays
from ticketsmith.data.userfiles import existing
from ticketsmith.errors import DataError


def files(path: str, **_: Any) -> list[tuple[str, Path]]:
    """The files that make the content, each with its role."""
    return [("npz", existing(path, "data set 'npz'"))]


def load(
    path: str,
    x_train: str = "x_train",
    y_train: str = "y_train",
    x_test: str = "x_test",
    y_test: str = "y_test",
    layout: Layout = "auto",
    test_fraction: float | None = None,
    split_seed: int = 0,
) -> Dataset:
    """The four arrays of that name in ``path``; see ``ticketsmith.data.arrays`` for shapes, types and ``layout``.

    A file without test arrays needs ``test_fraction`` (0..1): that part of train, drawn with ``split_seed`` and in
    proportion of the classes, becomes test.
    """
    file = existing(path, "data set 'npz'")
    called = {key: f"{file}: {key}" for key in (x_train, y_train, x_test, y_test)}
    arrays = _read(file, [x_train, y_train], [x_test, y_test])
    train = arrays[x_train], arrays[y_train]
    if x_test in arrays and test_fraction is None:
        names = (called[x_train], called[y_train], called[x_test], called[y_test])
        return make_dataset(file.stem, train, (arrays[x_test], arrays[y_test]), layout=layout, names=names)
    if x_test in arrays:
        raise DataError(f"{file} holds a test split ({x_test}); leave out `test_fraction`, or rename the test arrays.")
    if test_fraction is None:
        raise DataError(f"{file} holds no {x_test}; add {x_test} and {y_test}, or say `test_fraction: 0.2`.")
    inputs, labels = train
    if inputs.ndim == 0 or len(inputs) != labels.shape[0]:
        raise DataError(
            f"{called[x_train]} has shape {inputs.shape}, {called[y_train]} {labels.shape}; lengths must match."
        )
    names = (called[x_train], called[y_train], called[x_train], called[y_train])
    return make_dataset(file.stem, *cut(inputs, labels, test_fraction, split_seed), layout=layout, names=names)


def _read(file: Path, needed: list[str], optional: list[str]) -> dict[str, Any]:
    if not zipfile.is_zipfile(file):
        raise DataError(f"{file} is not a whole .npz archive; make it with numpy.savez(path, x_train=..., ...).")
    try:
        with np.load(file, allow_pickle=False) as archive:
            missing = [key for key in needed if key not in archive.files]
            if missing:
                raise DataError(
                    f"{file} holds no array {missing[0]!r}, but {', '.join(archive.files) or 'none'}; "
                    f"rename it, or say which array it is with an option."
                )
            here = [key for key in optional if key in archive.files]
            if len(here) == 1:
                raise DataError(f"{file} holds only {here[0]} of {' and '.join(optional)}; store both or none.")
            check_arrays(archive, [*needed, *here], file)
            return {key: archive[key] for key in [*needed, *here]}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        if "allow_pickle" in str(error):
            raise DataError(f"{file} holds Python objects, which are never loaded; store plain arrays.") from error
        raise DataError(f"{file} cannot be read as .npz: {error}; save it again with numpy.savez.") from error
