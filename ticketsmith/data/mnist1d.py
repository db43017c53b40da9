"""MNIST-1D: digit-like curves from a seeded generator, after Greydanus and Kobak (arXiv:2011.14439).

A curve starts as one of ten templates of 12 points. It is padded with zeros to a random length, resampled to 72 points,
scaled, shifted around in a circle, laid over smooth noise where it is zero, roughened by white noise, sheared, and
resampled to 40 points. The order of the random draws is the published one, so that the default seed gives the published
data set. The whole set is then standardised, as published, so mean and deviation are 0 and 1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ticketsmith.data.arrays import make_dataset
from ticketsmith.data.dataset import Dataset

Curve = NDArray[np.float64]

SAMPLES, TRAIN = 5_000, 4_000
PADDING = (36, 60)  # least and most zeros after the template
LENGTH = 72  # template and most padding
POINTS = 40
SCALE, SHEAR = 0.4, 0.75
MOST_SHIFT = 48
SMOOTH_NOISE, WHITE_NOISE = 0.25, 0.02
BLUR_RADIUS, BLUR_SIGMA = 8, 2.0
OFFSET = 1e-8  # tells a template's own zeros from the padding

# The published templates, one digit a row.
TEMPLATES = (
    (5, 6, 6.5, 6.75, 7, 7, 7, 7, 6.75, 6.5, 6, 5),
    (5, 3, 3, 3.4, 3.8, 4.2, 4.6, 5, 5.4, 5.8, 5, 5),
    (5, 6, 6.5, 6.5, 6, 5.25, 4.75, 4, 3.5, 3.5, 4, 5),
    (5, 6, 6.5, 6.5, 6, 5, 5, 6, 6.5, 6.5, 6, 5),
    (5, 4.4, 3.8, 3.2, 2.6, 2.6, 5, 5, 5, 5, 5, 5),
    (5, 3, 3, 3, 3, 5, 6, 6.5, 6.5, 6, 4.5, 5),
    (5, 4, 3.5, 3.25, 3, 3, 3, 3, 3.25, 3.5, 4, 5),
    (5, 7, 7, 6.6, 6.2, 5.8, 5.4, 5, 4.6, 4.2, 5, 5),
    (5, 4, 3.5, 3.5, 4, 5, 5, 4, 3.5, 3.5, 4, 5),
    (5, 4, 3.5, 3.5, 4, 5, 5, 5, 5, 4.7, 4.3, 5),
)


def load(seed: int = 42) -> Dataset:
    """4,000 + 1,000 signals ``[1, 40]``, ``float32``, of ten classes; the same ``seed`` gives the same data."""
    stream = np.random.RandomState(seed)
    labels = np.repeat(np.arange(10), SAMPLES // 10)
    shapes = templates()
    curves = np.stack([curve(shapes[label], stream) for label in labels])
    order = stream.permutation(SAMPLES)
    curves, labels = curves[order], labels[order]
    inputs = ((curves - curves.mean()) / curves.std()).astype(np.float32)[:, None]
    return make_dataset(
        "mnist1d",
        (inputs[:TRAIN], labels[:TRAIN]),
        (inputs[TRAIN:], labels[TRAIN:]),
        layout="CL",
        mean=(0.0,),
        std=(1.0,),
        class_names=[str(digit) for digit in range(10)],
    )


def templates() -> Curve:
    """The ten templates ``[10, 12]``, each of unit deviation over 6 and starting at 0."""
    rows: Curve = np.array(TEMPLATES, dtype=np.float64)
    rows -= rows.mean(axis=1, keepdims=True)
    rows /= rows.std(axis=1, keepdims=True)
    rows -= rows[:, :1].copy()
    return rows / 6


def curve(template: Curve, stream: np.random.RandomState) -> Curve:
    """One example ``[40]`` of ``template``; draws from ``stream``."""
    least, most = PADDING
    padded = np.append(template + OFFSET, np.zeros(least + int(stream.rand() * (most - least + 1))))
    signal = _resample(padded, LENGTH) * (1 + SCALE * (stream.rand() - 0.5))
    signal = np.roll(signal, stream.choice(MOST_SHIFT))
    background = _blur(SMOOTH_NOISE * stream.randn(LENGTH))
    signal = np.where(signal != 0, signal, background) + WHITE_NOISE * stream.randn(LENGTH)
    signal = signal - SHEAR * (stream.rand() - 0.5) * np.linspace(-0.5, 0.5, LENGTH)
    return _resample(signal, POINTS)


def _resample(signal: Curve, points: int) -> Curve:
    return np.interp(np.linspace(0, 1, points), np.linspace(0, 1, len(signal)), signal)


def _blur(noise: Curve) -> Curve:
    """Gaussian blur, mirrored at the ends. Summed in a fixed order, so that every machine gets the same bits."""
    offsets = np.arange(-BLUR_RADIUS, BLUR_RADIUS + 1)
    weights = np.exp(-0.5 * (offsets / BLUR_SIGMA) ** 2)
    weights /= weights.sum()
    mirrored = np.pad(noise, BLUR_RADIUS, mode="symmetric")
    blurred = np.zeros_like(noise)
    for start, weight in enumerate(weights):
        blurred += weight * mirrored[start : start + len(noise)]
    return blurred
