"""Small networks on digits whose large weights are not those of linear layers or plain convolutions."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import utils
from torch.nn.utils import parametrizations, parametrize


class Recurrent(nn.Module):
    """Reads an image row by row."""

    def __init__(self, kind: str = "LSTM", layers: int = 2, width: int = 16, proj: int = 0) -> None:
        super().__init__()
        more: dict[str, Any] = {"proj_size": proj} if proj else {}
        self.rnn = getattr(nn, kind)(8, width, layers, batch_first=True, **more)
        self.out = nn.Linear(proj or width, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.rnn(x[:, 0])[0][:, -1])  # type: ignore[no-any-return]


class Decoder(nn.Module):
    """Transposed convolutions of one, two and three dimensions, one of them in groups."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(64, 32)
        self.up2 = nn.ConvTranspose2d(8, 16, 2, 2, groups=2)
        self.up3 = nn.ConvTranspose3d(16, 8, (1, 2, 2), (1, 2, 2))
        self.up1 = nn.ConvTranspose1d(8, 4, 2, 2)
        self.out = nn.Linear(4 * 128, 10)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.fc(x.flatten(1))).view(-1, 8, 2, 2)
        hidden = torch.relu(self.up2(hidden)).unsqueeze(2)
        hidden = torch.relu(self.up3(hidden)).flatten(2)
        return self.out(torch.relu(self.up1(hidden)).flatten(1))  # type: ignore[no-any-return]


class Encoder(nn.Module):
    """A transformer over the rows of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 16)
        layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
        self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.out = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.body(self.embed(x[:, 0])).mean(1))  # type: ignore[no-any-return]


class Double(nn.Module):
    """A parametrization of the user's own that keeps zeros."""

    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


class Symmetric(nn.Module):
    """One that does not: what lies below the diagonal is what lies above it."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight.triu() + weight.triu(1).T


def _symmetric(layer: nn.Module) -> nn.Module:
    return parametrize.register_parametrization(layer, "weight", Symmetric())


def _double(layer: nn.Module) -> nn.Module:
    return parametrize.register_parametrization(layer, "weight", Double())


def _older(norm: Any) -> Any:
    def apply(layer: nn.Module) -> nn.Module:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they are deprecated, and in use
            return norm(layer)  # type: ignore[no-any-return]

    return apply


NORMS: dict[str, Any] = {
    "weight": parametrizations.weight_norm,
    "spectral": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "older weight": _older(utils.weight_norm),
    "older spectral": _older(utils.spectral_norm),
    "double": _double,
    "symmetric": _symmetric,
}


class Normed(nn.Module):
    """A convolution and a linear layer under a norm or another parametrization."""

    def __init__(self, norm: str = "weight") -> None:
        super().__init__()
        self.conv = NORMS[norm](nn.Conv2d(1, 4, 3, stride=2)) if "weight" in norm else nn.Conv2d(1, 4, 3, stride=2)
        self.fc = NORMS[norm](nn.Linear(36, 36))
        self.out = nn.Linear(36, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.relu(self.fc(torch.relu(self.conv(x)).flatten(1))))  # type: ignore[no-any-return]


class Tied(nn.Module):
    """Grey levels as tokens; the embedding is the head, whichever is registered first."""

    def __init__(self, reverse: bool = False) -> None:
        super().__init__()
        if reverse:
            self.head = nn.Linear(32, 17, bias=False)
        self.embedding = nn.Embedding(17, 32)
        if not reverse:
            self.head = nn.Linear(32, 17, bias=False)
        self.head.weight = self.embedding.weight
        self.body = nn.Linear(32, 32)
        self.pick = nn.Linear(17, 10)

    def forward(self, x: Tensor) -> Tensor:
        tokens = (x.flatten(1) * 16).round().long().clamp(0, 16)
        return self.pick(self.head(torch.relu(self.body(self.embedding(tokens).mean(1)))))  # type: ignore[no-any-return]
