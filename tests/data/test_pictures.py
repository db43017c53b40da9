"""What pictures of every kind become: their depth is kept, and what would be lost is refused by name."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ticketsmith import data
from ticketsmith.data.pictures import decode
from ticketsmith.errors import DataError

Image = pytest.importorskip("PIL.Image")

RAMP = np.linspace(0, 1, 64).reshape(8, 8)
RGB = np.random.RandomState(3).randint(0, 256, (6, 4, 3)).astype(np.uint8)


def encoded(image: Any, kind: str = "PNG", **options: Any) -> io.BytesIO:
    content = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(content, kind, **options)
    content.seek(0)
    return content


def png(values: NDArray[Any], colour: int) -> io.BytesIO:
    """A PNG of 16 bits a sample, ``[height, width(, samples)]``, of a kind that Pillow cannot write."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return io.BytesIO(b"\x89PNG\r\n\x1a\n" + chunks)


def tiff(values: NDArray[Any], sample_format: int = 1, photometric: int = 1) -> io.BytesIO:
    """A TIFF with the sample format (1 unsigned, 2 signed, 3 float) and photometric tag, ``[height, width(, samples)]``."""
    samples = 1 if values.ndim == 2 else values.shape[2]
    height, width = values.shape[:2]
    bits = values.itemsize * 8
    many = struct.pack(f"<{samples}H", *[bits] * samples), struct.pack(f"<{samples}H", *[sample_format] * samples)
    end = 8 + 2 + 10 * 12 + 4
    of_bits, of_format = (bits, sample_format) if samples == 1 else (end, end + len(many[0]))
    begin = end + len(many[0]) + len(many[1])
    entries = [(256, width), (257, height), (258, of_bits), (259, 1), (262, photometric), (273, begin), (277, samples)]
    entries += [(278, height), (279, values.nbytes), (339, of_format)]
    kinds = {258: (3, samples), 339: (3, samples), 273: (4, 1), 279: (4, 1)}
    table = b"".join(struct.pack("<HHII", tag, *kinds.get(tag, (3, 1)), value) for tag, value in entries)
    whole = b"II" + struct.pack("<HIH", 42, 8, len(entries)) + table + struct.pack("<I", 0) + b"".join(many)
    return io.BytesIO(whole + values.tobytes())


def tiff12(values: NDArray[Any]) -> io.BytesIO:
    """A grey TIFF of 12 bits a sample, ``[height, an even width]``: two samples lie in three bytes."""
    first, second = values.ravel()[::2].astype(int), values.ravel()[1::2].astype(int)
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], 1).astype(np.uint8)
    whole = tiff(values.astype("<u2")).getvalue()
    entry = struct.pack("<HHII", 258, 3, 1, 12)
    return io.BytesIO(whole[: -values.size * 2].replace(entry[:8] + b"\x10\0\0\0", entry) + packed.tobytes())


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (encoded((65535 * RAMP).astype(np.uint16), "TIFF"), (65535 * RAMP).astype(np.uint16) / 65535),
        (encoded((300 + 3795 * RAMP).astype(np.uint16)), (300 + 3795 * RAMP).astype(np.uint16) / 65535),
        (tiff((65535 * RAMP).astype("<u2")), (65535 * RAMP).astype(np.uint16) / 65535),
        (tiff12(4095 * RAMP), (4095 * RAMP).astype(int) / 4095),
        (tiff((60000 * RAMP - 30000).astype("<i2"), 2), (60000 * RAMP - 30000).astype(np.int16)),
        (tiff((4e9 * RAMP).astype("<u4")), 4e9 * RAMP),
        (encoded((1e6 * RAMP).astype(np.int32), "TIFF", compression="tiff_lzw"), (1e6 * RAMP).astype(np.int32)),
        (encoded(RAMP.astype(np.float32) - 3, "TIFF"), RAMP - 3),
        (io.BytesIO(b"P5 8 8 4095\n" + (4095 * RAMP).astype(">u2").tobytes()), (4095 * RAMP).astype(int) / 4095),
    ],
    ids=[
        "16 bits",
        "12 above dark",
        "by hand",
        "12 bits",
        "signed",
        "unsigned 32",
        "signed 32, packed",
        "float",
        "PGM",
    ],
)
def test_deep_grey_keeps_every_level(content: io.BytesIO, expected: NDArray[Any]) -> None:
    grey, colour = decode(content, "deep.tif").pixels, decode(content, "deep.tif", mode="RGB").pixels
    assert grey.dtype == np.float32
    assert len(np.unique(grey)) == 64
    assert grey[0] == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert np.array_equal(colour, np.repeat(grey, 3, 0))
    assert decode(content, "deep.tif", size=4).pixels.shape == (1, 4, 4)


COLOUR16 = np.repeat((65535 * RAMP)[:, :, None], 3, 2)
FRAMES: dict[str, Any] = {"save_all": True, "append_images": [Image.fromarray(RGB[::-1].copy())]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (png(COLOUR16, 2), "16 bits a sample in mode RGB, of which 8 would be left"),
        (png(COLOUR16[:, :, :2], 4), "16 bits a sample"),
        (tiff(COLOUR16.astype("<u2"), photometric=2), "16 bits a sample in mode RGB"),
        (io.BytesIO(b"P6 8 8 65535\n" + COLOUR16.astype(">u2").tobytes()), "16 bits a sample"),
        (tiff((100 * RAMP - 50).astype("i1"), 2), "signed samples of 8 bits"),
        (tiff((65535 * RAMP).astype("<u2"), photometric=0), "white as 0"),
        (tiff(RAMP.astype("<f8"), 3), "floats of 16 or 64 bits"),
        (encoded(np.full((8, 8), np.nan, np.float32), "TIFF"), "NaN or infinity"),
        (encoded(RGB, "GIF", **FRAMES), "2 frames or pages"),
        (encoded(RGB, "PNG", **FRAMES), "2 frames or pages"),
        (encoded(RGB, "WEBP", **FRAMES), "2 frames or pages"),
        (encoded(RGB, "TIFF", **FRAMES), "2 frames or pages"),
        (io.BytesIO(encoded(RGB).getvalue()[:100]), "truncated"),
        (io.BytesIO(b""), "cannot be read as an image"),
    ],
)
def test_what_would_be_cut_or_dropped_is_refused_by_name(content: io.BytesIO, message: str) -> None:
    with pytest.raises(DataError, match=f"photo 7.*{message}"):
        decode(content, "photo 7")


def palette(**options: Any) -> io.BytesIO:
    return encoded(Image.fromarray(RGB).quantize(8), **options)


@pytest.mark.parametrize("mode", ["L", "RGB", None])
@pytest.mark.parametrize(
    "content",
    [
        encoded(np.dstack([RGB, np.where(RGB[:, :, 0] > 100, 0, 255).astype(np.uint8)])),
        encoded(np.dstack([RGB[:, :, 0], np.zeros((6, 4), np.uint8)])),
        palette(transparency=bytes([0] * 8)),
        palette(kind="GIF", transparency=int(np.asarray(Image.fromarray(RGB).quantize(8))[0, 0])),
        encoded(RGB, transparency=tuple(map(int, RGB[0, 0]))),
    ],
    ids=["RGBA", "LA", "palette", "GIF", "one colour"],
)
def test_transparency_needs_a_background_and_lies_on_it(content: io.BytesIO, mode: str | None) -> None:
    with pytest.raises(DataError, match=r"photo 7 is transparent in places.*`background: white`"):
        decode(content, "photo 7", mode=mode)
    clear = np.asarray(Image.open(content).convert("RGBA"))[:, :, 3] == 0
    assert clear.any()
    for background, level in (("white", 255), ("#101010", 16)):
        laid = decode(content, "photo 7", mode=mode, background=background).pixels
        assert laid.dtype == np.uint8
        assert (laid[:, clear] == level).all()
    with pytest.raises(DataError, match="'whait' is no colour"):
        decode(content, "photo 7", background="whait")


def test_opaque_pictures_of_8_bits_are_what_they_always_were() -> None:
    opaque = encoded(np.dstack([RGB, np.full((6, 4), 255, np.uint8)]))
    assert np.array_equal(decode(opaque, "x").pixels, RGB.transpose(2, 0, 1))
    assert decode(opaque, "x").rules == 1
    for content in (
        palette(),
        palette(transparency=bytes([255] * 8)),
        encoded(Image.fromarray(RGB).convert("CMYK"), "TIFF"),
    ):
        picture = Image.open(content)
        picture.info.pop("transparency", None)
        assert np.array_equal(decode(content, "x").pixels, np.asarray(picture.convert("RGB")).transpose(2, 0, 1))
        assert decode(content, "x").rules == 1
    assert np.unique(decode(encoded(RGB[:, :, 0] > 100), "x").pixels).tolist() == [0, 255]


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_pictures_are_turned_as_their_camera_says(kind: str) -> None:
    exif = Image.Exif()
    exif[0x112] = 6
    lossless = {"lossless": True} if kind == "WEBP" else {}
    turned = decode(encoded(RGB, kind, exif=exif, **lossless), "x").pixels
    assert np.array_equal(turned.transpose(1, 2, 0), np.rot90(RGB, -1))


def folder(root: Path, first: Any, **options: Any) -> dict[str, Any]:
    """A tree of two classes: ``first`` and 11 others, 8 bits deep."""
    for number in range(12):
        place = root / "ab"[number % 2] / f"{number:02}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(encoded(np.roll(RGB, number, 0) if number or first is None else first).getvalue())
    return folder_options(root) | options


def folder_options(root: Path) -> dict[str, Any]:
    return {"path": str(root), "test_fraction": 0.5}


def parquet(file: Path, first: Any, **options: Any) -> dict[str, Any]:
    """The same in a Parquet file."""
    pytest.importorskip("pyarrow")
    import pyarrow as arrow
    from pyarrow.parquet import write_table

    folder(file.parent / "tree", first)
    cells = [path.read_bytes() for path in sorted((file.parent / "tree").rglob("*.png"), key=lambda path: path.name)]
    write_table(arrow.table({"image": cells, "label": ["a", "b"] * 6}), file)
    return {"train": str(file), "test_fraction": 0.5} | options


def test_folders_and_parquet_read_alike(tmp_path: Path) -> None:
    deep = (65535 * RAMP[:6, :4]).astype(np.uint16)
    clear = np.dstack([RGB, RGB[:, :, 0]])
    for number, (first, options, message) in enumerate(
        [
            (
                deep,
                {"mode": "RGB"},
                r"8 bits a sample; .*(00.png|row 0) has unsigned samples of more than 8 bits.*Save all pictures in one depth",
            ),
            (clear, {}, r"(00\.png|row 0) is transparent"),
            (np.zeros((9, 4, 3), np.uint8), {}, "4x6 pixels, .* is 4x9"),
        ]
    ):
        place = tmp_path / str(number)
        for name, source in (
            ("images", folder(place / "f", first, **options)),
            ("parquet", parquet(place / "t.parquet", first, **options)),
        ):
            with pytest.raises(DataError, match=message):
                data.load(name, source)
    images = data.load("images", folder(tmp_path / "i", clear, background="red", size=5))
    table = data.load("parquet", parquet(tmp_path / "t.parquet", clear, background="red", size=5))
    assert np.array_equal(np.sort(images.train.inputs, 0), np.sort(table.train.inputs, 0))
    assert np.array_equal(images.train.labels.sum(), table.train.labels.sum())


@pytest.mark.parametrize("place", ["classes", "splits"])
@pytest.mark.parametrize("name", ["images", "parquet"])
def test_a_set_has_one_scale(name: str, place: str, tmp_path: Path) -> None:
    """Numbers of 32 bits stand as they are beside 16 bits as 0 to 1: the label would leak, or the test be on another scale."""
    arrow = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    rows: dict[str, list[dict[str, Any]]] = {"train": [], "test": []}
    for number in range(8):
        split, label = "train" if number < 4 else "test", "ab"[number % 2]
        raw = label == "b" if place == "classes" else split == "test"
        levels = np.roll(65535 * RAMP, number, 0)
        content = (encoded(levels.astype(np.int32), "TIFF") if raw else encoded(levels.astype(np.uint16))).getvalue()
        rows[split].append({"image": content, "label": label})
        image = tmp_path / "tree" / split / label / f"{number}.{'tif' if raw else 'png'}"
        image.parent.mkdir(parents=True, exist_ok=True)
        image.write_bytes(content)
    for split, cells in rows.items():
        write_table(arrow.Table.from_pylist(cells), tmp_path / f"{split}.parquet")
    files = {"images": (r"\d.tif", r"\d.png"), "parquet": (r"parquet, row \d", r"parquet, row \d")}[name]
    with pytest.raises(DataError, match="{} has .* read as they stand; .*{} has .* read as 0 to 1".format(*files)):
        data.load(name, {"path": str(tmp_path / "tree" if name == "images" else tmp_path)})


def test_only_what_was_read_otherwise_before_gets_another_key(tmp_path: Path) -> None:
    from ticketsmith.tasks.task import create, identity

    def key_of(source: dict[str, Any]) -> dict[str, Any]:
        component = {"name": "classification", "data": source, "model": "mlp", "validation": 1}
        return identity(component, tmp_path, create(component, tmp_path))["data"]  # type: ignore[no-any-return]

    for name, source in (
        ("images", folder(tmp_path / "plain", None)),
        ("parquet", parquet(tmp_path / "t.parquet", None)),
    ):
        assert set(key_of({"name": name, **source})) == {"name", "options", "fingerprint"}
    for rules, deepened in ((2, lambda levels: encoded(levels * 16)), (3, lambda levels: tiff12(levels))):
        for image in (tmp_path / "plain").rglob("*.png"):
            levels = np.asarray(Image.open(image)).reshape(6, 4, -1)[:, :, 0].astype(np.uint16)
            image.write_bytes(deepened(levels).getvalue())
        assert key_of({"name": "images", **folder_options(tmp_path / "plain")})["rules"] == rules


def test_labels_of_parquet_may_be_categories_and_booleans(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    options = parquet(tmp_path / "t.parquet", None)
    cells = [encoded(np.roll(RGB, number, 0)).getvalue() for number in range(12)]
    for labels, classes in (
        (arrow.array(["cat", "ant"] * 6).dictionary_encode(), ("ant", "cat")),
        (arrow.array([True, False] * 6), ("False", "True")),
        (arrow.array([3, 7] * 6, arrow.uint8()).dictionary_encode(), ("3", "7")),
    ):
        write_table(arrow.table({"image": cells, "label": labels}), tmp_path / "t.parquet")
        loaded = data.load("parquet", options)
        assert loaded.class_names == classes
        assert sorted(loaded.train.labels) == [0, 0, 0, 1, 1, 1]


def test_columns_of_parquet_of_one_name(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    options = parquet(tmp_path / "t.parquet", None)
    cells = [encoded(np.roll(RGB, number, 0)).getvalue() for number in range(12)]
    columns = [arrow.array(column) for column in (cells, ["a", "b"] * 6, ["x"] * 12, ["x"] * 12)]
    write_table(arrow.Table.from_arrays(columns, ["image", "label", "note", "note"]), tmp_path / "t.parquet")
    assert data.load("parquet", options).class_names == ("a", "b")
    write_table(arrow.Table.from_arrays(columns, ["image", "label", "note", "label"]), tmp_path / "t.parquet")
    for asked in ({}, {"label": "label"}):
        with pytest.raises(DataError, match=r"t.parquet has more than one column 'label' \(label\)"):
            data.load("parquet", options | asked)


def test_two_files_of_parquet_mean_the_same_by_a_label(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    cells = [encoded(np.roll(RGB, number, 0)).getvalue() for number in range(4)]

    def write(name: str, labels: list[Any], classes: str = "") -> str:
        told = (
            {"huggingface": f'{{"info": {{"features": {{"label": {{"names": [{classes}]}}}}}}}}'} if classes else None
        )
        write_table(arrow.table({"image": cells, "label": labels}).replace_schema_metadata(told), tmp_path / name)
        return str(tmp_path / name)

    train = write("train.parquet", [0, 1] * 2, '"ant", "bee"')
    with pytest.raises(DataError, match=r"test.parquet names its classes bee, ant, .*train.parquet ant, bee"):
        data.load("parquet", {"train": train, "test": write("test.parquet", [0, 1] * 2, '"bee", "ant"')})
    with pytest.raises(DataError, match=r"more.parquet: column 'label' holds strings, that of .*train.parquet numbers"):
        data.load("parquet", {"train": [train, write("more.parquet", ["0", "1"] * 2)], "test_fraction": 0.5})
