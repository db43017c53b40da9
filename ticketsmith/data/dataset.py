"""What a data set is to everybody else: arrays or text in memory, with their origin."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Split:
    """Inputs and labels of one split.

    ``inputs``: ``[n, channels, height, width]`` (images) or ``[n, channels, length]`` (signals), ``uint8`` or
    ``float32``; ``labels``: ``[n]``, ``int64``, in ``0 .. classes - 1``.
    """

    inputs: NDArray[np.uint8] | NDArray[np.float32]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A labelled data set with its published test split; validation is held out of ``train`` by the task.

    ``mean`` and ``std`` are per channel, in the units of ``inputs`` scaled to 0..1 when they are ``uint8``. ``rules``: the
    version of the rules by which files were read, above 1 only where an older version read these files otherwise.
    """

    name: str
    train: Split
    test: Split
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...] = field(default=())
    rules: int = 1

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input, without the batch."""
        return tuple(self.train.inputs.shape[1:])


@dataclass(frozen=True)
class Text:
    """A text to learn language from, as one string; the task cuts it into parts."""

    name: str
    content: str = field(repr=False)

    def __len__(self) -> int:
        return len(self.content)
