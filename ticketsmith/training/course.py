"""What each step of a run draws, from the replicate's seed and the step alone: examples, rate, and seeds of other chance."""

from __future__ import annotations

from ticketsmith.spec import Training
from ticketsmith.streams import derive
from ticketsmith.training.optimization import learning_rate
from ticketsmith.training.order import DataOrder


class Course:
    """It does not matter where training began, what ran before, or what runs beside it."""

    def __init__(self, training: Training, seed: int, train_size: int) -> None:
        self._seed = seed
        self.rate = learning_rate(training, train_size)
        self.order = DataOrder(seed, train_size, training.batch_size)

    def augmentation(self, step: int) -> int:
        """Seeds what a task draws for a batch and its loss."""
        return derive(self._seed, "augmentation", step)

    def dropout(self, step: int) -> int:
        """Seeds what the layers of a model draw."""
        return derive(self._seed, "dropout", step)
