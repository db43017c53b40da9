"""A user's own folders of images: ``train/<class>/*.png`` and ``test/<class>/*.png``, or one ``<class>/*`` tree."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ticketsmith.data import pictures
from ticketsmith.data.arrays import make_dataset
from ticketsmith.data.dataset import Dataset
from ticketsmith.data.holdout import cut
from ticketsmith.data.userfiles import existing
from ticketsmith.errors import DataError

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp"}


def files(path: str, **_: Any) -> list[tuple[str, Path]]:
    """The files that make the content, each with its role: its place below ``path``."""
    root = existing(path, "data set 'images'", folder=True)
    return [(image.relative_to(root).as_posix(), image) for tree in _trees(root) for _, image in _list(tree)]


def load(
    path: str,
    size: int | None = None,
    mode: Literal["L", "RGB"] = "RGB",
    test_fraction: float | None = None,
    split_seed: int = 0,
    background: str | None = None,
) -> Dataset:
    """The images below ``path``, ``[1 or 3, height, width]`` of ``uint8``, or of ``float32`` where they are deeper.

    The folders' names, sorted, are the classes.

    ``size``: height and width to resize to (bilinear); without it all images must have one size. ``mode``: grey or
    colour. A tree without ``test`` needs ``test_fraction`` (0..1), drawn with ``split_seed``. ``background``: the colour
    behind what is transparent. Raises DataError that names the file.
    """
    root = existing(path, "data set 'images'", folder=True)
    trees = _trees(root)
    if len(trees) == 2 and test_fraction is not None:
        raise DataError(f"{root} holds a folder 'test'; leave out `test_fraction`.")
    if len(trees) == 1 and test_fraction is None:
        raise DataError(f"{root} holds no folder 'test'; add test/<class>/, or say `test_fraction: 0.2`.")
    labels, images = zip(*(_read(tree, size, mode, background) for tree in trees), strict=True)
    pixels = [stack.pixels for stack in images]
    if test_fraction is None:
        pictures.check_scale(images[1].first, images[0].first)
        train, test = (pixels[0], labels[0]), (pixels[1], labels[1])
    else:
        train, test = cut(pixels[0], labels[0], test_fraction, split_seed)
    first, last = str(trees[0]), str(trees[-1])
    names = (first, f"labels of {first}", last, f"labels of {last}")
    return make_dataset(root.name, train, test, layout="CHW", names=names, rules=max(stack.rules for stack in images))


def _trees(root: Path) -> list[Path]:
    """The folders that hold class folders: train (and test), or the root itself."""
    train, test = root / "train", root / "test"
    if test.is_dir() and not train.is_dir():
        raise DataError(f"{root} holds 'test' but no 'train'; name the folder of the training images 'train'.")
    return [tree for tree in (train, test) if tree.is_dir()] or [root]


def _list(tree: Path) -> list[tuple[str, Path]]:
    """Class and path of every image below the class folders of ``tree``, sorted."""
    folders = sorted(f for f in tree.iterdir() if f.is_dir() and not f.name.startswith("."))
    if not folders:
        raise DataError(f"{tree} holds no folders; put the images of each class into a folder of its name.")
    listed = []
    for folder in folders:
        images = sorted(f for f in folder.rglob("*") if f.suffix.lower() in SUFFIXES and not f.name.startswith("."))
        if not images:
            raise DataError(f"{folder} holds no images ({', '.join(sorted(SUFFIXES))}); add some or remove the folder.")
        listed += [(folder.name, image) for image in images]
    return listed


def _read(tree: Path, size: int | None, mode: str, background: str | None) -> tuple[NDArray[np.str_], pictures.Stack]:
    """Labels ``[n]`` and images of one tree."""
    listed = _list(tree)
    images = pictures.stack(
        (pictures.decode(path, str(path), size, mode, background) for _, path in listed), len(listed)
    )
    return np.array([label for label, _ in listed]), images
