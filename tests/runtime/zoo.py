"""Networks as people write them, small, with zeros: what the runtime must be able to read."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.runtime.networks import sparse

Inputs = tuple[Tensor, ...]


class Dense(nn.Module):
    """DenseNet: every layer reads all before it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(8 + 4 * n), nn.ReLU(), nn.Conv2d(8 + 4 * n, 4, 3, padding=1)) for n in range(3)
        )
        self.head = nn.Linear(20, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return self.head(F.avg_pool2d(F.relu(x), 2).mean((2, 3)))


class Squeeze(nn.Module):
    """Squeeze and excitation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(channels, 4, 1), nn.Conv2d(4, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        scale = F.adaptive_avg_pool2d(x, 1)
        return x * F.hardsigmoid(self.up(F.relu(self.down(scale))))


class Inverted(nn.Module):
    """A block of MobileNetV3."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        wide = 3 * inputs
        self.same = stride == 1 and inputs == outputs
        self.body = nn.Sequential(
            nn.Conv2d(inputs, wide, 1, bias=False),
            nn.BatchNorm2d(wide),
            nn.Hardswish(),
            nn.Conv2d(wide, wide, 5, stride, padding=2, groups=wide, bias=False),
            nn.BatchNorm2d(wide),
            Squeeze(wide),
            nn.Hardswish(),
            nn.Conv2d(wide, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.same else self.body(x)


class Mobile(nn.Module):
    """MobileNetV2 and V3."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU6())
        self.body = nn.Sequential(Inverted(8, 8, 1), Inverted(8, 12, 2), Inverted(12, 12, 1))
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(12, 7))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.stem(x)))


class TimeBlock(nn.Module):
    """A residual block of a denoiser, told the time."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(4, inputs), nn.GroupNorm(4, outputs)
        self.conv1, self.conv2 = nn.Conv2d(inputs, outputs, 3, padding=1), nn.Conv2d(outputs, outputs, 3, padding=1)
        self.time = nn.Linear(16, outputs)
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = h + self.time(F.silu(time))[:, :, None, None]
        return self.skip(x) + self.conv2(F.silu(self.norm2(h)))


class UNet(nn.Module):
    """A denoiser for diffusion: an image and a time step, skip connections, attention in the middle."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.down1, self.down2 = TimeBlock(8, 8), TimeBlock(8, 12)
        self.shrink, self.middle = nn.Conv2d(8, 8, 3, 2, padding=1), TimeBlock(12, 12)
        self.norm, self.qkv, self.proj = nn.GroupNorm(4, 12), nn.Conv2d(12, 36, 1), nn.Conv2d(12, 12, 1)
        self.widen, self.up = nn.Conv2d(12, 8, 3, padding=1), TimeBlock(16, 8)
        self.time = nn.Sequential(nn.Linear(8, 16), nn.SiLU(), nn.Linear(16, 16))
        self.out = nn.Sequential(nn.GroupNorm(4, 8), nn.SiLU(), nn.Conv2d(8, 1, 3, padding=1))

    def attend(self, x: Tensor) -> Tensor:
        batch, channels, rows, cols = x.shape
        query, key, value = self.qkv(self.norm(x)).reshape(batch, 3, 2, channels // 2, rows * cols).unbind(1)
        mixed = F.scaled_dot_product_attention(*(one.transpose(-1, -2) for one in (query, key, value)))
        return x + self.proj(mixed.transpose(-1, -2).reshape(batch, channels, rows, cols))

    def forward(self, x: Tensor, step: Tensor) -> Tensor:
        frequencies = torch.exp(-math.log(1000) * torch.arange(4) / 4)
        angles = step[:, None] * frequencies[None]
        time = self.time(torch.cat([angles.sin(), angles.cos()], -1))
        x1 = self.down1(self.stem(x), time)
        x2 = self.attend(self.middle(self.down2(self.shrink(x1), time), time))
        wide = self.widen(F.interpolate(x2, scale_factor=2, mode="nearest"))
        return self.out(self.up(torch.cat([wide, x1], 1), time))


class Segmenter(nn.Module):
    """A U-Net with transposed convolutions, and two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.LeakyReLU(0.1))
        self.inner = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(6, 8, 3, padding=1), nn.ELU())
        self.up = nn.ConvTranspose2d(8, 6, 2, stride=2)
        self.head, self.aside = nn.Conv2d(12, 2, 1), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        high = self.down(x)
        low = self.inner(high)
        return self.head(torch.cat([high, self.up(low)], 1)).sigmoid(), self.aside(low.mean((2, 3)))


class Audio(nn.Module):
    """Convolutions over time."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(2, 8, 7, stride=2, padding=3),
            nn.BatchNorm1d(8),
            nn.ReLU(),
            nn.MaxPool1d(2),
            nn.Conv1d(8, 12, 3, padding="same", dilation=2),
            nn.GELU(),
        )
        self.gate, self.head = nn.Conv1d(12, 12, 1), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)
        x = x + F.glu(torch.cat([self.gate(x), x], 1), 1)
        return F.log_softmax(self.head(x.mean(-1)), -1)


class Vit(nn.Module):
    """A vision transformer with a class token, from PyTorch's own layers."""

    def __init__(self, norm_first: bool = True) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 24, 4, 4)
        self.token, self.position = nn.Parameter(torch.randn(1, 1, 24)), nn.Parameter(torch.randn(1, 17, 24) * 0.1)
        layer = nn.TransformerEncoderLayer(24, 3, 48, 0.1, "gelu", batch_first=True, norm_first=norm_first)
        self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.norm, self.head = nn.LayerNorm(24), nn.Linear(24, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position
        return self.head(self.norm(self.body(x))[:, 0])


class Encoder(nn.Module):
    """Like BERT: tokens, a mask of what is there, kinds of tokens; the first token is pooled."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places, self.kinds = nn.Embedding(30, 24), nn.Embedding(16, 24), nn.Embedding(2, 24)
        self.norm = nn.LayerNorm(24, 1e-12)
        self.q, self.k, self.v, self.o = (nn.Linear(24, 24) for _ in range(4))
        self.norm1, self.up, self.down, self.norm2 = (
            nn.LayerNorm(24),
            nn.Linear(24, 60),
            nn.Linear(60, 24),
            nn.LayerNorm(24),
        )
        self.pool = nn.Linear(24, 24)

    def forward(self, tokens: Tensor, mask: Tensor, kinds: Tensor) -> tuple[Tensor, Tensor]:
        batch, length = tokens.shape
        x = self.norm(self.words(tokens) + self.places(torch.arange(length)) + self.kinds(kinds))
        hidden = (1.0 - mask[:, None, None, :].float()) * torch.finfo(torch.float32).min
        heads = [layer(x).view(batch, length, 3, 8).transpose(1, 2) for layer in (self.q, self.k, self.v)]
        scores = heads[0] @ heads[1].transpose(-1, -2) / math.sqrt(8) + hidden
        mixed = (scores.softmax(-1) @ heads[2]).transpose(1, 2).reshape(batch, length, 24)
        x = self.norm1(x + self.o(mixed))
        x = self.norm2(x + self.down(F.gelu(self.up(x))))
        weight = mask[:, :, None].float()
        return torch.tanh(self.pool(x[:, 0])), (x * weight).sum(1) / weight.sum(1)


class RotaryBlock(nn.Module):
    """Like Llama: rotary positions, shared keys, RMS norm, a gated layer."""

    def __init__(self, width: int = 32, heads: int = 4, shared: int = 2) -> None:
        super().__init__()
        self.heads, self.shared, self.size = heads, shared, width // heads
        self.norm1, self.norm2 = nn.RMSNorm(width, 1e-6), nn.RMSNorm(width, 1e-6)
        self.q, self.o = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.k, self.v = (nn.Linear(width, shared * self.size, bias=False) for _ in range(2))
        self.gate, self.up, self.down = nn.Linear(width, 64), nn.Linear(width, 64), nn.Linear(64, width)

    def turned(self, x: Tensor) -> Tensor:
        angles = torch.arange(x.shape[2])[:, None] / 100 ** (torch.arange(0, self.size, 2) / self.size)
        cos, sin = (torch.cat([f(angles)] * 2, -1) for f in (torch.cos, torch.sin))
        first, second = x.chunk(2, -1)
        return x * cos + torch.cat([-second, first], -1) * sin

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        y = self.norm1(x)
        query = self.q(y).view(batch, length, self.heads, self.size).transpose(1, 2)
        key, value = (
            layer(y).view(batch, length, self.shared, self.size).transpose(1, 2) for layer in (self.k, self.v)
        )
        mixed = F.scaled_dot_product_attention(
            self.turned(query), self.turned(key), value, is_causal=True, enable_gqa=self.shared != self.heads
        )
        x = x + self.o(mixed.transpose(1, 2).reshape(batch, length, width))
        y = self.norm2(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class RotaryGpt(nn.Module):
    """A decoder with rotary positions and a head tied to the embedding."""

    def __init__(self, shared: int = 4, vocabulary: int = 40, width: int = 32) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.blocks = nn.Sequential(RotaryBlock(width, 4, shared), RotaryBlock(width, 4, shared))
        self.norm, self.head = nn.RMSNorm(width), nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.embed(tokens))))


class Mixer(nn.Module):
    """MLP-Mixer: products over tokens as well as over features."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 20, 4, 4)
        self.norm1, self.norm2 = nn.LayerNorm(20), nn.LayerNorm(20)
        self.tokens = nn.Sequential(nn.Linear(16, 24), nn.GELU(), nn.Linear(24, 16))
        self.features = nn.Sequential(nn.Linear(20, 40), nn.GELU("tanh"), nn.Linear(40, 20))
        self.head = nn.Linear(20, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = x + self.tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        x = x + self.features(self.norm2(x))
        return self.head(x.mean(1))


class Shuffle(nn.Module):
    """ShuffleNet's exchange of channels, Inception's branches, super-resolution's last step."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(4, 4, 3, padding=1, groups=2), nn.Conv2d(4, 4, (1, 5), padding=(0, 2))
        self.last, self.slope = nn.Conv2d(12, 8, 3, padding=1), nn.PReLU(8)

    def forward(self, x: Tensor) -> Tensor:
        batch, _, rows, cols = x.shape
        first, second = x.chunk(2, 1)
        joined = torch.cat([self.left(first), self.right(second), F.max_pool2d(first, 3, 1, 1)], 1)
        mixed = joined.view(batch, 3, 4, rows, cols).transpose(1, 2).reshape(batch, 12, rows, cols)
        return F.pixel_shuffle(self.slope(self.last(F.pad(mixed, (1, 0, 2, 1)))), 2)


class Classic(nn.Module):
    """Written with torch.nn.MultiheadAttention, in the old order of axes."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.cross = nn.MultiheadAttention(16, 2), nn.MultiheadAttention(16, 4, batch_first=True)
        self.memory, self.norm = nn.Parameter(torch.randn(1, 5, 16)), nn.LayerNorm(16)

    def forward(self, x: Tensor) -> Tensor:
        turned = x.transpose(0, 1)
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        x = x + self.inner(turned, turned, turned, need_weights=False, attn_mask=mask)[0].transpose(0, 1)
        memory = self.memory.expand(x.shape[0], -1, -1)
        return self.norm(x + self.cross(x, memory, memory, need_weights=False)[0])


def tokens(batch: int, length: int) -> Tensor:
    return torch.randint(0, 30, (batch, length), generator=torch.Generator().manual_seed(1))


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def bert_inputs(batch: int) -> Inputs:
    mask = torch.ones(batch, 9, dtype=torch.int64)
    mask[0, 6:] = 0
    return tokens(batch, 9), mask, tokens(batch, 9) % 2


ZOO: dict[str, tuple[Callable[[], nn.Module], Callable[[int], Inputs]]] = {
    "dense": (Dense, lambda batch: (noise(batch, 3, 12, 12),)),
    "mobile": (Mobile, lambda batch: (noise(batch, 3, 24, 24),)),
    "unet": (UNet, lambda batch: (noise(batch, 1, 12, 12), 100 * noise(batch).abs())),
    "segmenter": (Segmenter, lambda batch: (noise(batch, 3, 10, 14),)),
    "audio": (Audio, lambda batch: (noise(batch, 2, 64),)),
    "vit": (Vit, lambda batch: (noise(batch, 3, 16, 16),)),
    "vit_post_norm": (lambda: Vit(norm_first=False), lambda batch: (noise(batch, 3, 16, 16),)),
    "encoder": (Encoder, bert_inputs),
    "rotary": (RotaryGpt, lambda batch: (tokens(batch, 11),)),
    "rotary_shared": (lambda: RotaryGpt(shared=2), lambda batch: (tokens(batch, 11),)),
    "mixer": (Mixer, lambda batch: (noise(batch, 3, 16, 16),)),
    "shuffle": (Shuffle, lambda batch: (noise(batch, 8, 9, 11),)),
    "classic": (Classic, lambda batch: (noise(batch, 7, 16),)),
}


def network(name: str) -> nn.Module:
    """One of the zoo, with zeros and with batch norms that do something."""
    torch.manual_seed(0)
    return sparse(ZOO[name][0](), 0.4)
