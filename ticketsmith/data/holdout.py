"""Cutting a test split from examples that came without one: seeded, and with every class in proportion."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ticketsmith.errors import DataError


def holdout(
    labels: Any, count: int, seed: int, field: str = "test_fraction"
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of train and test, each ascending; test holds ``count`` examples, as many of each class as is its share.

    The same labels, count and seed always give the same cut. Every class keeps an example in train. ``field`` is what a
    user changes when that is not possible: it raises DataError.
    """
    classes, members = np.unique(np.asarray(labels), return_inverse=True)
    sizes = np.bincount(members, minlength=len(classes))
    if not 0 < count <= len(members) - len(classes):
        raise DataError(
            f"cannot hold out {count} of {len(members)} examples in {len(classes)} classes: at least one must be "
            f"held out, and one of every class stay. Change `{field}`."
        )
    # RandomState: its streams are frozen, so the cut is the same with every version of NumPy.
    stream = np.random.RandomState(seed)
    test = [stream.permutation(np.flatnonzero(members == c))[:n] for c, n in enumerate(_quotas(sizes, count))]
    is_test = np.zeros(len(members), dtype=bool)
    is_test[np.concatenate(test)] = True
    return np.flatnonzero(~is_test), np.flatnonzero(is_test)


def cut(inputs: Any, labels: Any, fraction: float, seed: int) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """Inputs and labels of train and test, of which ``fraction`` of all becomes test. Raises DataError."""
    rest, held = holdout(labels, fraction_count(len(labels), fraction), seed)
    return (inputs[rest], labels[rest]), (inputs[held], labels[held])


def _quotas(sizes: NDArray[Any], count: int) -> NDArray[np.int64]:
    """How many of each class: its exact share rounded down, and the rest to the largest remainders."""
    exact = sizes * count / sizes.sum()
    quotas: NDArray[np.int64] = np.minimum(exact.astype(np.int64), sizes - 1)
    while quotas.sum() < count:
        quotas[np.argmax(np.where(quotas < sizes - 1, exact - quotas, -np.inf))] += 1
    return quotas


def fraction_count(total: int, fraction: float, field: str = "test_fraction") -> int:
    """``fraction`` of ``total``, as a number of examples; DataError unless it lies between 0 and 1."""
    if not 0 < fraction < 1:
        raise DataError(f"{field} is {fraction}; it must lie between 0 and 1, for example 0.2.")
    return max(1, round(total * fraction))
