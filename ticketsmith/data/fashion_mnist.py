"""Fashion-MNIST: four idx files, found on this machine or fetched from their authors."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ticketsmith.data import idx, places
from ticketsmith.data.arrays import make_dataset
from ticketsmith.data.dataset import Dataset
from ticketsmith.data.download import Progress, RemoteFile, download, not_here

FOLDERS = ("fashion_mnist", "fashion-mnist", "FashionMNIST/raw")
MD5 = {
    "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
    "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
    "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
}
MIRRORS = (
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
)
REMOTE = (
    RemoteFile("train-images-idx3-ubyte.gz", "8d4fb7e6c68d591d4c3dfef9ec88bf0d", 26_421_880, MIRRORS),
    RemoteFile("train-labels-idx1-ubyte.gz", "25c81989df183df01b3e8a0aad5dffbe", 29_515, MIRRORS),
    RemoteFile("t10k-images-idx3-ubyte.gz", "bef4ecab320f06d8554ea6380940ec79", 4_422_102, MIRRORS),
    RemoteFile("t10k-labels-idx1-ubyte.gz", "bb300cfdad3c16e7a12a480ee83cd310", 5_148, MIRRORS),
)
BY_HAND = (
    f"put {', '.join(file.name for file in REMOTE)} into a folder 'fashion_mnist' below {{cache}} or below a folder "
    "named in $TICKETSMITH_DATA; on Debian and Ubuntu `apt-get install dataset-fashion-mnist` is enough"
)
CLASSES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")


def find(root: str | None = None) -> places.Holding | None:
    """Where the four files lie, if they are here."""
    return places.find_folder(root, FOLDERS, idx.FILES)


def fetch(progress: Progress | None = None) -> Path:
    """The folder in the cache with the four files, fetched from their authors. Raises DataError."""
    folder = places.cache() / FOLDERS[0]
    for remote in REMOTE:
        download(remote, folder, "fashion_mnist", progress)
    return folder


def load(root: str | None = None) -> Dataset:
    """60,000 + 10,000 images ``[1, 28, 28]``, ``uint8``. ``root`` is looked in first.

    Raises DataError when the files are not here or are not the published ones.
    """
    holding = find(root)
    if holding is None:
        raise not_here("fashion_mnist", BY_HAND)
    contents = places.read_verified(holding, MD5)
    train_x, train_y, test_x, test_y = (idx.read(contents[name], name) for name in idx.FILES)
    return make_dataset(
        "fashion_mnist",
        (train_x, train_y.astype(np.int64)),
        (test_x, test_y.astype(np.int64)),
        mean=(0.2860,),
        std=(0.3530,),
        class_names=CLASSES,
    )
