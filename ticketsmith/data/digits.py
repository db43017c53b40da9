"""scikit-learn's digits: 1,797 images of 8x8, cut once and for all into train and test."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ticketsmith.data.arrays import make_dataset
from ticketsmith.data.dataset import Dataset
from ticketsmith.data.extras import folder_of
from ticketsmith.data.holdout import holdout
from ticketsmith.errors import DataError

TEST = 360
SEED = 0
LEVELS = 16  # the published grey values are 0..16
FILE = Path("datasets", "data", "digits.csv.gz")


def load() -> Dataset:
    """1,437 + 360 images ``[1, 8, 8]``, ``uint8`` over 0..255; stratified, always the same cut."""
    # The file itself: importing scikit-learn takes longer than training on it, in every worker process.
    path = folder_of("sklearn", "the data set 'digits'") / FILE
    if not path.is_file():
        raise DataError(
            f"the data set 'digits': {path} is not there. Install the scikit-learn that requirements.lock names."
        )
    table = np.loadtxt(path, delimiter=",")
    images = np.round(table[:, :-1].reshape(-1, 8, 8) * (255 / LEVELS)).astype(np.uint8)
    labels = table[:, -1].astype(np.int64)
    train, test = holdout(labels, TEST, SEED)
    return make_dataset(
        "digits",
        (images[train], labels[train]),
        (images[test], labels[test]),
        layout="HW",
        class_names=[str(digit) for digit in range(10)],
    )
