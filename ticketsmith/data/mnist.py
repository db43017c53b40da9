"""MNIST, packaged: the four original files in one, checked against their published md5 whenever it is loaded."""

from __future__ import annotations

import hashlib
from importlib import resources

import numpy as np

from ticketsmith.data import idx, packing
from ticketsmith.data.arrays import make_dataset
from ticketsmith.data.dataset import Dataset
from ticketsmith.errors import DataError

ASSET = "mnist.xz"
MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
TRAIN, TEST, SIDE = 60_000, 10_000, 28


def load(train: int = TRAIN) -> Dataset:
    """``train`` (at most 60,000) + 10,000 images ``[1, 28, 28]``, ``uint8``; those to train on are the first ones.

    Raises DataError if the packaged file is damaged, or has not as many.
    """
    if not 1 <= train <= TRAIN:
        raise DataError(f"mnist has 60,000 images to train on: `train` lies between 1 and 60000, not {train}.")
    try:
        packed = resources.files("ticketsmith.data").joinpath("assets", ASSET).read_bytes()
    except OSError as error:
        raise DataError(f"the packaged file assets/{ASSET} is missing; install ticketsmith again.") from error
    return from_packed(packed, train)


def from_packed(packed: bytes, train: int = TRAIN) -> Dataset:
    """MNIST from the bytes of the packaged file, with the first ``train`` images to train on."""
    name = f"the packaged file assets/{ASSET}"
    images, labels = packing.unpack(packed, TRAIN + TEST, SIDE, name)
    parts = (images[:TRAIN], labels[:TRAIN], images[TRAIN:], labels[TRAIN:])
    for file, part in zip(idx.FILES, parts, strict=True):
        if hashlib.md5(idx.write(part), usedforsecurity=False).hexdigest() != MD5[file]:
            raise DataError(f"{name} is damaged: {file} has another md5; install ticketsmith again.")
    return make_dataset(
        "mnist",
        (images[:train], labels[:train].astype(np.int64)),
        (images[TRAIN:], labels[TRAIN:].astype(np.int64)),
        mean=(0.1307,),
        std=(0.3081,),
        class_names=[str(digit) for digit in range(10)],
    )
