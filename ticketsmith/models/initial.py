"""How weights begin. The seed is the caller's: all chance comes from torch's global generator."""

from __future__ import annotations

from torch import nn

_WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d)


def glorot_(model: nn.Module) -> None:
    """Gaussian Glorot weights and zero biases, as in Frankle & Carbin (Glorot & Bengio 2010)."""
    for module in model.modules():
        if isinstance(module, _WEIGHTED):
            nn.init.xavier_normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def he_(model: nn.Module) -> None:
    """Gaussian He weights and zero biases for ReLU networks (He et al. 2015)."""
    for module in model.modules():
        if isinstance(module, _WEIGHTED):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
