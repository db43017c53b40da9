"""A user's own folders of images: ``train/<class>/*.png`` and ``test/<class>/*.png``, or one ``<class>/*`` tree."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ticketsmith.data.arrays import make_dataset
from ticketsmith.data.dataset import Dataset
from ticketsmith.data.extras import need
from ticketsmith.data.holdout import fraction_count, holdout
from ticketsmith.data.sizes import check_member, check_picture
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
) -> Dataset:
    """The images below ``path``, ``uint8`` ``[1 or 3, height, width]``; the folders' names, sorted, are the classes.

    ``size``: height and width to resize to (bilinear); without it all images must have one size. ``mode``: grey or
    colour. A tree without ``test`` needs ``test_fraction`` (0..1), drawn with ``split_seed``. Raises DataError that
    names the file.
    """
    root = existing(path, "data set 'images'", folder=True)
    trees = _trees(root)
    if len(trees) == 2 and test_fraction is not None:
        raise DataError(f"{root} holds a folder 'test'; leave out `test_fraction`.")
    if len(trees) == 1 and test_fraction is None:
        raise DataError(f"{root} holds no folder 'test'; add test/<class>/, or say `test_fraction: 0.2`.")
    labels, images = zip(*(_read(tree, size, mode) for tree in trees), strict=True)
    if test_fraction is None:
        train, test = (images[0], labels[0]), (images[1], labels[1])
    else:
        kept, held = holdout(labels[0], fraction_count(len(labels[0]), test_fraction), split_seed)
        train, test = (images[0][kept], labels[0][kept]), (images[0][held], labels[0][held])
    first, last = str(trees[0]), str(trees[-1])
    names = (first, f"labels of {first}", last, f"labels of {last}")
    return make_dataset(root.name, train, test, layout="CHW", names=names)


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


def _read(tree: Path, size: int | None, mode: str) -> tuple[NDArray[np.str_], NDArray[np.uint8]]:
    """Labels ``[n]`` and images ``[n, channels, height, width]`` of one tree."""
    listed = _list(tree)
    images: list[NDArray[np.uint8]] = []
    for _, path in listed:
        image = decode(path, str(path), size, mode)
        if images and image.shape != images[0].shape:
            raise DataError(
                f"{path} is {image.shape[2]}x{image.shape[1]} pixels, {listed[0][1]} is {images[0].shape[2]}x"
                f"{images[0].shape[1]}; make them equal, or say `size: {images[0].shape[1]}` to resize all."
            )
        if not images:
            check_member(2 * len(listed) * image.nbytes, f"{tree}: its {len(listed):,} pictures")
        images.append(image)
    return np.array([label for label, _ in listed]), np.stack(images)


def decode(source: Any, name: str, size: int | None = None, mode: str | None = None) -> NDArray[np.uint8]:
    """The image in a path or file object as ``[channels, height, width]``; its own mode (grey or colour) without one.

    Raises DataError, calling it ``name``.
    """
    pillow = need("PIL.Image", "reading images")
    try:
        with pillow.open(source) as opened:
            check_picture(opened.width, opened.height, name)
            image = opened.convert(mode or ("L" if opened.mode in ("1", "L", "LA", "I", "I;16", "F") else "RGB"))
    except (OSError, ValueError, SyntaxError, pillow.DecompressionBombError) as error:
        raise DataError(f"{name} cannot be read as an image: {error}; replace or remove it.") from error
    if size is not None:
        check_picture(size, size, f"{name}, resized,")
        image = image.resize((size, size), pillow.Resampling.BILINEAR)
    array = np.asarray(image, np.uint8)
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
