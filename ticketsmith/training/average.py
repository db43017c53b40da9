"""An exponential moving average of the weights while they are trained."""

from __future__ import annotations

import torch
from torch import nn

from ticketsmith.pruning.weights import copied


class MovingAverage:
    """``model`` is a copy that follows the one in training; call ``update`` once after each of its steps.

    The decay grows with the number of updates n to its full value, ``min(decay, (1 + n) / (10 + n))``, so that the weights
    where training began are soon forgotten. Buffers (batch norm's, say) are the model's own. A weight that is always zero has
    an average of exactly zero, so masks hold.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copied(model)
        self.updates = 0
        self._decay = decay

    def update(self, model: nn.Module) -> None:
        decay = min(self._decay, (1 + self.updates) / (10 + self.updates))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.model.parameters()), list(model.parameters()), 1.0 - decay)
            for mine, theirs in zip(self.model.buffers(), model.buffers(), strict=True):
                mine.copy_(theirs)
        self.updates += 1
