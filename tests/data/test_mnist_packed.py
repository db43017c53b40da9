"""MNIST comes with the package, whole and checked."""

from __future__ import annotations

import hashlib
import lzma
from importlib import resources

import numpy as np
import pytest

from ticketsmith import data
from ticketsmith.data import idx, mnist, packing
from ticketsmith.errors import DataError


@pytest.fixture(scope="module")
def packed() -> bytes:
    return resources.files("ticketsmith.data").joinpath("assets", mnist.ASSET).read_bytes()


def test_the_four_original_files_come_out_bit_by_bit() -> None:
    loaded = data.load("mnist", {})
    assert loaded.train.inputs.shape == (60_000, 1, 28, 28)
    assert loaded.test.inputs.shape == (10_000, 1, 28, 28)
    assert loaded.classes == 10
    assert (loaded.mean, loaded.std) == ((0.1307,), (0.3081,))
    parts = [
        loaded.train.inputs[:, 0],
        loaded.train.labels.astype(np.uint8),
        loaded.test.inputs[:, 0],
        loaded.test.labels.astype(np.uint8),
    ]
    md5 = [hashlib.md5(idx.write(part)).hexdigest() for part in parts]
    assert md5 == [
        "6bbc9ace898e44ae57da46a324031adb",
        "a25bea736e30d166cdddb491f175f624",
        "2646ac647ad5339dbf082846283269ea",
        "27ae3e4e09519cfbb04c329615203637",
    ]


def test_a_truncated_file_is_refused(packed: bytes) -> None:
    with pytest.raises(DataError, match=r"mnist\.xz is damaged.*install ticketsmith again"):
        mnist.from_packed(packed[: len(packed) // 2])


@pytest.mark.parametrize("place", [10, 1_000_000, -200])
def test_a_flipped_bit_is_refused(packed: bytes, place: int) -> None:
    broken = bytearray(packed)
    broken[place] ^= 4
    with pytest.raises(DataError, match="damaged"):
        mnist.from_packed(bytes(broken))


def test_other_content_in_a_sound_container_is_refused_by_its_md5(packed: bytes) -> None:
    content = bytearray(lzma.decompress(packed))
    content[-1] ^= 1  # one pixel, a little lighter
    with pytest.raises(DataError, match="another md5"):
        mnist.from_packed(lzma.compress(bytes(content), preset=0))


def test_packing_is_lossless_for_any_images() -> None:
    stream = np.random.RandomState(0)
    images = (stream.randint(0, 256, (700, 8, 8)) * (stream.rand(700, 8, 8) < 0.4)).astype(np.uint8)
    labels = stream.randint(0, 10, 700).astype(np.uint8)
    again, again_labels = packing.unpack(packing.pack(images, labels), 700, 8, "it")
    assert np.array_equal(again, images)
    assert np.array_equal(again_labels, labels)


def test_idx_round_trip_and_refusals() -> None:
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    assert np.array_equal(idx.read(idx.write(array), "x"), array)
    with pytest.raises(DataError, match="cut short"):
        idx.read(idx.write(array)[:-1], "x")
    with pytest.raises(DataError, match="not an idx file"):
        idx.read(b"<html>Not found</html>", "x")
