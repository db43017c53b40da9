"""CIFAR-10, the official pixels: the binary archive or folder, or the folder that torchvision leaves (pickles)."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ticketsmith.data import places
from ticketsmith.data.arrays import make_dataset
from ticketsmith.data.dataset import Dataset
from ticketsmith.data.download import Progress, RemoteFile, download, not_here
from ticketsmith.errors import DataError

BINARY = {
    "data_batch_1.bin": "5dd7e06a14cb22eb9f671a540d1b7c25",
    "data_batch_2.bin": "5ea93a67294ea407fff1d09f752e9692",
    "data_batch_3.bin": "942cd6a4bcdd0dd3c604fbe906cb4421",
    "data_batch_4.bin": "ae636b3ba5c66a11e91e8cb52e771fcb",
    "data_batch_5.bin": "53f37980c15c3d472c316c40844f3f0d",
    "test_batch.bin": "803d5f7f4d78ea53de84dbe85f74fb6d",
}
PICKLED = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
BINARY_FOLDER = "cifar-10-batches-bin"
REMOTE = RemoteFile(
    "cifar-10-binary.tar.gz",
    "c32a1d4ab5d03f1284b67883e8d87530",
    170_052_171,
    ("https://www.cs.toronto.edu/~kriz/", "https://cave.cs.toronto.edu/kriz/"),
)
BY_HAND = (
    f"put {REMOTE.name} (or the unpacked folder {BINARY_FOLDER}, or torchvision's cifar-10-batches-py) into {{cache}} "
    "or into a folder named in $TICKETSMITH_DATA"
)
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_ROW = 1 + 3 * 32 * 32  # a label, then red, green and blue, row by row


def find(root: str | None = None) -> places.Holding | None:
    """Where the six batches lie, if they are here: in a binary folder, torchvision's folder, or an archive."""
    binary, pickled = tuple(BINARY), tuple(PICKLED)
    return (
        places.find_folder(root, (BINARY_FOLDER,), binary)
        or places.find_folder(root, ("cifar-10-batches-py",), pickled)
        or places.find_archive(root, REMOTE.name, binary)
        or places.find_archive(root, "cifar-10-python.tar.gz", pickled)
    )


def fetch(progress: Progress | None = None) -> Path:
    """The binary archive in the cache, fetched from its authors; it is read as it is. Raises DataError."""
    return download(REMOTE, places.cache(), "cifar10", progress)


def load(root: str | None = None) -> Dataset:
    """50,000 + 10,000 images ``[3, 32, 32]``, ``uint8``; the same bytes from either form. ``root`` is looked in first.

    Raises DataError when the files are not here or are not the published ones.
    """
    holding = find(root)
    if holding is None:
        raise not_here("cifar10", BY_HAND)
    contents = places.read_verified(holding, BINARY | PICKLED)
    # Sorted by name they are batches 1 to 5, then test; an archive may list them in any order.
    *train, test = [_batch(name, contents[name]) for name in sorted(contents)]
    return make_dataset(
        "cifar10",
        (np.concatenate([images for images, _ in train]), np.concatenate([labels for _, labels in train])),
        test,
        layout="CHW",
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
        class_names=CLASSES,
    )


def _batch(name: str, content: bytes) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    return from_binary(content) if name in BINARY else from_pickle(content, name)


def from_binary(content: bytes) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images ``[n, 3, 32, 32]`` and labels of one batch of the binary version."""
    rows = np.frombuffer(content, np.uint8).reshape(-1, _ROW)
    return rows[:, 1:].reshape(-1, 3, 32, 32), rows[:, 0].astype(np.int64)


def from_pickle(content: bytes, name: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images and labels of one batch of the Python version, by an unpickler that knows arrays and nothing else."""
    try:
        batch = _ArraysOnly(io.BytesIO(content), encoding="bytes").load()
        images = np.asarray(batch[b"data"], np.uint8).reshape(-1, 3, 32, 32)
        return images, np.asarray(batch[b"labels"], np.int64)
    except (pickle.UnpicklingError, KeyError, ValueError, TypeError, EOFError) as error:
        raise DataError(f"{name} is not a batch of CIFAR-10: {error}; fetch the set again.") from error


class _ArraysOnly(pickle.Unpickler):
    """Numbers, strings, lists and dicts need no import; beside them it admits what a NumPy array is rebuilt from."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in {("numpy", "ndarray"), ("numpy", "dtype")}:
            return getattr(np, name)
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return np.empty(0).__reduce__()[0]  # that very function, wherever this NumPy keeps it
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not part of an array")
