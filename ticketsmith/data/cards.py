"""What a reader should know of each built-in data set: origin, licence, citation, size. Plain facts, nothing to run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Card:
    """The facts of one data set. ``size`` is in words; ``download_bytes`` is 0 where nothing is downloaded."""

    name: str
    about: str
    licence: str
    citation: str
    size: str
    download_bytes: int = 0


MNIST = Card(
    name="mnist",
    about="Handwritten digits, 28x28 grey, 10 classes",
    licence="CC BY-SA 3.0 (as commonly given)",
    citation=(
        "Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, Gradient-based learning applied to document recognition, "
        "Proceedings of the IEEE 86(11), 1998"
    ),
    size="60,000 + 10,000 images of 1x28x28",
)
FASHION_MNIST = Card(
    name="fashion_mnist",
    about="Zalando's article images, 28x28 grey, 10 classes: a harder set in MNIST's form",
    licence="MIT",
    citation=(
        "H. Xiao, K. Rasul and R. Vollgraf, Fashion-MNIST: a novel image dataset for benchmarking machine learning "
        "algorithms, arXiv:1708.07747, 2017"
    ),
    size="60,000 + 10,000 images of 1x28x28",
    download_bytes=30_878_645,
)
CIFAR10 = Card(
    name="cifar10",
    about="Small photographs, 32x32 colour, 10 classes",
    licence="none stated by its authors; free for research with the citation",
    citation="A. Krizhevsky, Learning multiple layers of features from tiny images, technical report, 2009",
    size="50,000 + 10,000 images of 3x32x32",
    download_bytes=170_052_171,
)
DIGITS = Card(
    name="digits",
    about="Optical digits, 8x8 grey, 10 classes, as shipped with scikit-learn",
    licence="CC BY 4.0 (UCI); shipped by scikit-learn under BSD-3-Clause",
    citation="E. Alpaydin and C. Kaynak, Optical recognition of handwritten digits, UCI Repository, 1998",
    size="1,437 + 360 images of 1x8x8",
)
MNIST1D = Card(
    name="mnist1d",
    about="Ten one-dimensional digit shapes, made by a seeded generator: small, and hard for its size",
    licence="Apache-2.0 (the published generator and its templates)",
    citation="S. Greydanus and D. Kobak, Scaling down deep learning with MNIST-1D, arXiv:2011.14439, 2020",
    size="4,000 + 1,000 signals of 1x40",
)
PYDOCS = Card(
    name="pydocs",
    about="English text: chapters of the Python reference, as help() shows them; for language models",
    licence="PSF-2.0",
    citation="Python Software Foundation, The Python Language Reference, the version of this Python",
    size="about 460,000 characters (other versions of Python, other text)",
)
CARDS = {card.name: card for card in (MNIST, FASHION_MNIST, CIFAR10, DIGITS, MNIST1D, PYDOCS)}
