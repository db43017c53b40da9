"""From the bytes of a picture to its array: one decoder for folders and Parquet, the same whatever lies beside it.

Eight bits a sample stay ``uint8``. Deeper grey becomes ``float32``: unsigned samples of up to 16 bits as 0..1, anything else
as it stands. A set is of one of these scales: where two lie side by side, the scale could tell the label.
What Pillow would silently cut or drop (16 bits a colour, frames, transparency) is refused by name.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ticketsmith.data.extras import need
from ticketsmith.data.sizes import check_member, check_picture
from ticketsmith.errors import DataError

Pixels = NDArray[np.uint8] | NDArray[np.float32]

FIRST_RULES, DEPTH_AND_ORIENTATION, ODD_DEPTH = 1, 2, 3
_GREY = ("1", "L", "LA", "La")
_ORIENTATION = 0x0112  # the tag of EXIF
_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # tags of TIFF
_UNSIGNED, _SIGNED = 1, 2


class Scale(StrEnum):
    """What a number of a picture means, in the words of messages."""

    BYTES = "8 bits a sample"
    UNIT = "unsigned samples of more than 8 bits, read as 0 to 1"
    RAW = "signed samples, 32 bits or floats, read as they stand"


@dataclass(frozen=True, eq=False)
class Picture:
    """``pixels``: ``[1 or 3, height, width]``. ``rules``: the oldest version of these rules that reads the file so."""

    name: str
    pixels: Pixels
    rules: int = FIRST_RULES
    scale: Scale = Scale.BYTES


@dataclass(frozen=True, eq=False)
class Stack:
    """``pixels``: ``[n, 1 or 3, height, width]`` of pictures like the ``first``. ``rules``: those that they need."""

    pixels: Pixels
    rules: int
    first: Picture


def decode(
    source: Any, name: str, size: int | None = None, mode: str | None = None, background: str | None = None
) -> Picture:
    """The picture in a path or file object. Raises DataError, calling it ``name``.

    ``mode``: ``L`` (grey) or ``RGB``; the picture's own without one. ``size``: height and width to resize to (bilinear).
    ``background``: the colour that transparent pixels are laid on.
    """
    pillow = need("PIL.Image", "reading images")
    colour = None if background is None else _colour(background)
    if size is not None:
        check_picture(size, size, f"{name}, resized,")
    try:
        with warnings.catch_warnings(), pillow.open(source) as opened:
            warnings.simplefilter("ignore")  # what they tell of is looked at here
            check_picture(opened.width, opened.height, name)
            _check_whole(opened, name)
            opened.load()
            turned = opened.getexif().get(_ORIENTATION, 1) not in (0, 1)  # of a TIFF, Pillow has turned it by now
            if opened.mode[0] in "IF":
                return _deep(opened, name, size, mode)
            image = _composed(opened, name, mode or ("L" if opened.mode in _GREY else "RGB"), colour)
            if turned:
                image = need("PIL.ImageOps", "reading images").exif_transpose(image)
    except DataError:
        raise
    except pillow.UnidentifiedImageError as error:
        raise DataError(
            f"{name} cannot be read as an image: it is none, or of a kind that Pillow does not know (such as floats of 16 or "
            "64 bits). Save it as PNG, or as TIFF with whole numbers or floats of 32 bits."
        ) from error
    except Exception as error:  # a decoder may fail in any way on a damaged file
        raise DataError(f"{name} cannot be read as an image: {error}; replace or remove it.") from error
    if size is not None:
        image = image.resize((size, size), pillow.Resampling.BILINEAR)
    array = np.asarray(image, np.uint8)
    pixels = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
    return Picture(name, pixels, DEPTH_AND_ORIENTATION if turned else FIRST_RULES)


def stack(pictures: Iterable[Picture], count: int) -> Stack:
    """The pictures (at least one), which are of one shape and scale.

    Raises DataError, also when ``count`` pictures do not fit into memory, as soon as the first is there.
    """
    parts: list[NDArray[Any]] = []
    first, rules = None, FIRST_RULES
    for picture in pictures:
        if first is None:
            first = picture
            check_member(2 * count * picture.pixels.nbytes, f"{count:,} pictures like {picture.name}")
        one, other = picture.pixels, first.pixels
        if one.shape[1:] != other.shape[1:]:
            raise DataError(
                f"{picture.name} is {one.shape[2]}x{one.shape[1]} pixels, {first.name} is {other.shape[2]}x"
                f"{other.shape[1]}; make them equal, or say `size: {other.shape[1]}` to resize all."
            )
        if one.shape != other.shape:
            raise DataError(
                f"{picture.name} is {_kind(one)}, {first.name} is {_kind(other)}; say `mode: L` or `mode: RGB`."
            )
        check_scale(picture, first)
        parts.append(one)
        rules = max(rules, picture.rules)
    assert first is not None
    return Stack(np.stack(parts), rules, first)


def check_scale(picture: Picture, other: Picture) -> None:
    """Raises DataError where the same grey would be another number in one picture than in the other."""
    if picture.scale != other.scale:
        raise DataError(
            f"{picture.name} has {picture.scale}; {other.name} has {other.scale}. Save all pictures in one depth."
        )


def _kind(pixels: Pixels) -> str:
    return "grey" if len(pixels) == 1 else "colour"


def _colour(background: str) -> tuple[int, ...]:
    try:
        colour: tuple[int, ...] = need("PIL.ImageColor", "reading images").getrgb(background)
    except ValueError as error:
        raise DataError(
            f"background: {background!r} is no colour. Say a name, such as `white`, or `'#808080'`."
        ) from error
    return colour[:3]


def _check_whole(image: Any, name: str) -> None:
    """Refuses what would be cut or dropped: frames, bits, and samples whose sign is not looked at."""
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # a photograph with previews of itself
        raise DataError(
            f"{name} has {frames} frames or pages, and an example is one picture; save each as a file of its own."
        )
    bits = _bits(image)
    if bits > 8 and image.mode[0] not in "IF":
        raise DataError(
            f"{name} has {bits} bits a sample in mode {image.mode}, of which 8 would be left; save it with 8 bits a "
            "sample, as grey with 16, or as arrays (data set `npz`)."
        )
    if image.format != "TIFF":
        return
    tags = image.tag_v2
    if bits == 8 and _SIGNED in tags.get(_SAMPLE_FORMAT, ()):
        raise DataError(f"{name} has signed samples of 8 bits, which would be read unsigned; save it unsigned.")
    if image.mode[0] in "IF" and tags.get(_PHOTOMETRIC, 1) == 0:
        raise DataError(f"{name} is stored with white as 0 (photometric 0); save it with black as 0.")


def _bits(image: Any) -> int:
    """Bits of a sample as they are in the file; 8 where fewer, or where the kind of file knows no more."""
    if image.format == "PNG":
        return 16 if image.tile and ";16" in str(image.tile[0][3]) else 8
    if image.format == "TIFF":
        return max(8, *(int(bits) for bits in image.tag_v2.get(_BITS, (1,))))
    if image.format == "PPM":
        return 16 if image.tile and isinstance(image.tile[0][3], tuple) and image.tile[0][3][-1] > 255 else 8
    if image.format in ("JPEG2000", "AVIF"):
        return _bits_of_stream(image)
    return 8


def _bits_of_stream(image: Any) -> int:
    """Of the header of a JPEG 2000 stream (its SIZ marker) or of an AV1 picture (its av1C box)."""
    place = image.fp.tell()
    image.fp.seek(0)
    content = image.fp.read()
    image.fp.seek(place)
    if image.format == "AVIF":
        box = content.find(b"av1C")
        return 10 if box >= 0 and content[box + 6] & 0x40 else 8
    start = content.find(b"\xff\x4f\xff\x51")
    samples = content[start + 42 :: 3][: content[start + 41]] if start >= 0 else b""
    return max([8, *((sample & 0x7F) + 1 for sample in samples)])


def _deep(image: Any, name: str, size: int | None, mode: str | None) -> Picture:
    """Grey of 9 to 32 bits, or of floats, as ``float32`` ``[1 or 3, height, width]``."""
    pillow: Any = need("PIL.Image", "reading images")
    if "transparency" in image.info:
        raise DataError(f"{name} has more than 8 bits a sample and a transparent colour; save it without transparency.")
    orientation = image.getexif().get(_ORIENTATION, 1)
    values = np.asarray(image)
    if image.format == "TIFF" and _bits(image) == 32 and image.mode == "I":
        # Pillow reads unsigned numbers as signed ones.
        signs = image.tag_v2.get(_SAMPLE_FORMAT, (_UNSIGNED,))
        values = values.view(np.uint32) if signs[0] == _UNSIGNED else values
    # What Pillow calls I is of 16 bits too where the format (PGM, and PNG in older versions) has no more.
    sixteen = image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PPM", "PNG"))
    # Of a TIFF, Pillow leaves fewer bits as they are; of other formats it spreads them over sixteen.
    bits = _bits(image) if sixteen and image.format == "TIFF" else 16
    floats = (values / (2**bits - 1) if sixteen else values).astype(np.float32)
    if not np.isfinite(floats).all():
        raise DataError(f"{name} holds NaN or infinity; mend these pixels, or remove it.")
    if orientation not in (0, 1):
        turned = pillow.fromarray(floats)
        turned.getexif()[_ORIENTATION] = orientation
        floats = np.asarray(need("PIL.ImageOps", "reading images").exif_transpose(turned))
    if size is not None:
        floats = np.asarray(pillow.fromarray(floats).resize((size, size), pillow.Resampling.BILINEAR))
    pixels = np.repeat(floats[None], 3 if mode == "RGB" else 1, axis=0)
    rules = DEPTH_AND_ORIENTATION if bits == 16 else ODD_DEPTH
    return Picture(name, pixels, rules, Scale.UNIT if sixteen else Scale.RAW)


def _composed(image: Any, name: str, mode: str, background: tuple[int, ...] | None) -> Any:
    """The image in ``mode``, what is transparent laid on ``background``. Raises DataError when that is not said."""
    if not ("A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info):
        return image.convert(mode)
    pillow: Any = need("PIL.Image", "reading images")
    layered = image.convert("RGBA")
    if layered.getextrema()[3][0] == 255:
        return image.convert(mode)
    if background is None:
        raise DataError(
            f"{name} is transparent in places (mode {image.mode}); say the colour behind it, such as "
            "`background: white`, or save it without transparency."
        )
    ground = pillow.new("RGBA", image.size, (*background, 255))
    return pillow.alpha_composite(ground, layered).convert(mode)
