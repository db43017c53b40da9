"""A user's own data: what is accepted, and what is refused with a word on the mend."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ticketsmith.data.holdout import holdout
from ticketsmith.data.loading import read
from ticketsmith.errors import DataError, RecipeError

STREAM = np.random.RandomState(5)
JPEG75 = Path(__file__).parents[2].parent / "shared" / "data" / "cifar10-jpeg75"


def grey(n: int = 20, side: int = 6) -> Any:
    return STREAM.randint(0, 256, (n, side, side)).astype(np.uint8)


def arrays(**changed: Any) -> dict[str, Any]:
    whole = {"x_train": grey(20), "y_train": np.arange(20) % 4, "x_test": grey(8), "y_test": np.arange(8) % 4}
    return {key: value for key, value in (whole | changed).items() if value is not None}


@pytest.fixture
def npz(tmp_path: Path) -> Callable[..., str]:
    def save(**changed: Any) -> str:
        np.savez(tmp_path / "mine.npz", **arrays(**changed))
        return str(tmp_path / "mine.npz")

    return save


def test_npz_with_four_arrays(npz: Callable[..., str]) -> None:
    x = grey(20)
    loaded = read("npz", {"path": npz(x_train=x)})
    assert loaded.train.inputs.shape == (20, 1, 6, 6)
    assert loaded.test.inputs.shape == (8, 1, 6, 6)
    assert np.array_equal(loaded.train.inputs[:, 0], x)
    assert loaded.classes == 4
    assert loaded.train.labels.dtype == np.int64
    assert loaded.mean[0] == pytest.approx((x / 255).mean(), rel=1e-5)
    assert loaded.std[0] == pytest.approx((x / 255).std(), rel=1e-5)


@pytest.mark.parametrize(
    ("shape", "layout", "seen"),
    [
        ((20, 30), None, (1, 30)),
        ((20, 1, 30), None, (1, 30)),
        ((20, 5, 7), None, (1, 5, 7)),
        ((20, 5, 7, 3), None, (3, 5, 7)),
        ((20, 3, 5, 7), None, (3, 5, 7)),
        ((20, 3, 7, 3), None, (3, 7, 3)),
        ((20, 3, 7, 3), "HWC", (3, 3, 7)),
        ((20, 2, 30), "CL", (2, 30)),
        ((20, 8, 5, 5), "CHW", (8, 5, 5)),
    ],
)
def test_layouts(npz: Callable[..., str], shape: tuple[int, ...], layout: str | None, seen: tuple[int, ...]) -> None:
    values = STREAM.rand(*shape)
    loaded = read("npz", {"path": npz(x_train=values, x_test=values[:8])} | ({"layout": layout} if layout else {}))
    assert loaded.input_shape == seen
    assert loaded.train.inputs.dtype == np.float32
    assert loaded.train.inputs.flags.c_contiguous
    assert len(loaded.mean) == len(loaded.std) == seen[0]


def test_whole_numbers_are_pixels_in_both_splits_or_in_none(npz: Callable[..., str]) -> None:
    counts = np.arange(20 * 36).reshape(20, 6, 6)
    loaded = read("npz", {"path": npz(x_train=counts % 256, x_test=counts[:8] + 1)})
    assert loaded.train.inputs.dtype == loaded.test.inputs.dtype == np.float32
    assert loaded.test.inputs[7, 0, 5, 5] == 8 * 36
    assert loaded.train.inputs[0, 0, 0, 5] == 5


def test_channels_last_keeps_every_pixel_in_place(npz: Callable[..., str]) -> None:
    values = STREAM.rand(20, 5, 7, 3).astype(np.float32)
    loaded = read("npz", {"path": npz(x_train=values, x_test=values[:8])})
    assert loaded.train.inputs[3, 2, 4, 6] == values[3, 4, 6, 2]


def test_names_and_other_numbers_become_classes_in_sorted_order(npz: Callable[..., str]) -> None:
    loaded = read("npz", {"path": npz(y_train=np.array(["cat", "ant"] * 10), y_test=np.array(["cat"] * 8))})
    assert loaded.class_names == ("ant", "cat")
    assert loaded.train.labels[:2].tolist() == [1, 0]
    assert loaded.test.labels.tolist() == [1] * 8
    loaded = read("npz", {"path": npz(y_train=np.array([7, -1] * 10), y_test=np.array([[7]] * 8))})
    assert loaded.class_names == ("-1", "7")
    assert loaded.test.labels.tolist() == [1] * 8


def test_large_numbers_stay_apart_whatever_their_type(npz: Callable[..., str]) -> None:
    large = 2**53
    train, test = np.array([large, large + 1] * 10, np.uint64), np.array([large + 1] * 8, np.int64)
    loaded = read("npz", {"path": npz(y_train=train, y_test=test)})
    assert loaded.class_names == (str(large), str(large + 1))
    assert loaded.test.labels.tolist() == [1] * 8
    with pytest.raises(DataError, match=r"2\^63 and above"):
        read("npz", {"path": npz(y_train=train + np.uint64(2**63))})


def test_renamed_arrays_and_a_seeded_test_fraction(npz: Callable[..., str]) -> None:
    path = npz(x_test=None, y_test=None, data=grey(40), target=np.repeat([0, 1], [30, 10]))
    options = {"path": path, "x_train": "data", "y_train": "target", "test_fraction": 0.2}
    first, again = read("npz", options), read("npz", options)
    assert np.bincount(first.test.labels).tolist() == [6, 2]
    assert len(first.train) == 32
    assert np.array_equal(first.test.inputs, again.test.inputs)
    assert not np.array_equal(read("npz", options | {"split_seed": 1}).test.inputs, first.test.inputs)
    together = np.concatenate([first.train.inputs, first.test.inputs]).reshape(40, -1)
    with np.load(path) as saved:  # nothing is lost or doubled
        assert sorted(map(bytes, together)) == sorted(map(bytes, saved["data"].reshape(40, -1)))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"x_train": np.full((20, 6, 6), np.nan)}, r"x_train holds NaN or infinity \(first at index \(0, 0, 0\)\)"),
        ({"x_train": np.full((20, 6, 6), 1e300)}, "x_train holds NaN or infinity"),
        ({"x_test": grey(0)}, "x_test is empty"),
        ({"y_train": np.arange(19) % 4}, "x_train holds 20 examples, .*y_train 19 labels"),
        ({"y_train": np.eye(4)[np.arange(20) % 4]}, "argmax"),
        ({"y_train": np.arange(20) % 4 + 0.0}, "float64; labels are whole numbers or strings"),
        ({"y_train": np.zeros(20, int), "y_test": np.zeros(8, int)}, "a single class, 0"),
        ({"y_test": np.full(8, 9)}, "y_test holds the label 9, which .*y_train never shows"),
        ({"y_test": np.array(["a"] * 8)}, "one holds strings"),
        ({"x_test": grey(8, 7)}, r"inputs of shape \(1, 6, 6\), .*x_test of \(1, 7, 7\)"),
        ({"x_train": np.ones((20, 6, 6), np.uint8)}, "mine: .*x_train: all 20 inputs are the same"),
        ({"x_test": np.zeros((8, 6, 6), np.uint8)}, "mine: .*x_test: all 8 inputs are the same"),
        ({"x_test": grey(8) / 255}, "x_train is uint8, .*x_test is float32"),
        ({"x_train": STREAM.rand(20, 8, 5, 5)}, "layout: CHW"),
        ({"x_train": np.array([["a"]] * 20)}, "store numbers"),
        ({"x_train": np.array([None] * 20, object)}, "Python objects, which are never loaded"),
        ({"y_test": None}, "only x_test of x_test and y_test"),
        ({"x_test": None, "y_test": None}, "test_fraction: 0.2"),
        ({"x_train": None}, "no array 'x_train', but y_train, x_test, y_test"),
    ],
)
def test_npz_refusals(npz: Callable[..., str], changed: dict[str, Any], message: str) -> None:
    path = npz(**changed)
    with pytest.raises(DataError, match=message) as caught:
        read("npz", {"path": path})
    assert "x_" not in message or path in str(caught.value)


def test_npz_files_that_are_not(tmp_path: Path, npz: Callable[..., str]) -> None:
    whole = Path(npz())
    (tmp_path / "cut.npz").write_bytes(whole.read_bytes()[:300])
    np.save(tmp_path / "one.npy", grey())
    (tmp_path / "text.npz").write_text("hello")
    for name in ("cut.npz", "one.npy", "text.npz", "absent.npz"):
        with pytest.raises(DataError, match=name):
            read("npz", {"path": str(tmp_path / name)})
    with pytest.raises(DataError, match="leave out `test_fraction`"):
        read("npz", {"path": str(whole), "test_fraction": 0.2})


def test_options_are_checked_by_name_and_type(npz: Callable[..., str]) -> None:
    with pytest.raises(RecipeError, match=r"no option 'layuot'.*Did you mean 'layout'"):
        read("npz", {"path": npz(), "layuot": "HW"})
    with pytest.raises(RecipeError, match="layout"):
        read("npz", {"path": npz(), "layout": "WH"})
    with pytest.raises(RecipeError, match="needs the option 'path'"):
        read("npz", {})
    with pytest.raises(RecipeError, match="'path'"):
        read("npz", {"path": 3})


@pytest.mark.parametrize("count", [0, 9, 10])
def test_a_holdout_that_leaves_a_class_without_examples_is_refused(count: int) -> None:
    with pytest.raises(DataError, match="cannot hold out"):
        holdout([0, 0, 0, 0, 0, 0, 0, 0, 1, 1], count, 0)
    train, test = holdout([0, 0, 0, 0, 0, 0, 0, 0, 1, 1], 8, 0)
    assert len(test) == 8
    assert {int(i) < 8 for i in train} == {True, False}


def picture(path: Path, side: int = 8, mode: str = "RGB", **options: Any) -> None:
    image = pytest.importorskip("PIL.Image")
    path.parent.mkdir(parents=True, exist_ok=True)
    channels = () if mode == "L" else (3,)
    image.fromarray(STREAM.randint(0, 256, (side, side, *channels)).astype(np.uint8)).save(path, **options)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for split, count in (("train", 6), ("test", 2)):
        for name in ("dog", "ant"):
            for number in range(count):
                picture(tmp_path / "pets" / split / name / f"{number}.png")
    return tmp_path / "pets"


def test_image_folders(tree: Path) -> None:
    from PIL import Image

    loaded = read("images", {"path": str(tree)})
    assert loaded.train.inputs.shape == (12, 3, 8, 8)
    assert loaded.test.inputs.shape == (4, 3, 8, 8)
    assert loaded.class_names == ("ant", "dog")
    assert loaded.train.labels.tolist() == [0] * 6 + [1] * 6
    assert np.array_equal(loaded.train.inputs[7].transpose(1, 2, 0), np.asarray(Image.open(tree / "train/dog/1.png")))
    small = read("images", {"path": str(tree), "size": 4, "mode": "L"})
    assert small.input_shape == (1, 4, 4)


def test_one_tree_of_classes_is_cut_with_a_fraction(tree: Path) -> None:
    one = str(tree / "train")
    with pytest.raises(DataError, match=r"test_fraction: 0\.2"):
        read("images", {"path": one})
    loaded = read("images", {"path": one, "test_fraction": 1 / 3})
    assert np.bincount(loaded.train.labels).tolist() == [4, 4]
    assert np.bincount(loaded.test.labels).tolist() == [2, 2]


def test_bad_images_are_named(tree: Path) -> None:
    picture(tree / "train" / "dog" / "9.png", side=10)
    with pytest.raises(DataError, match=r"dog/9\.png is 10x10 pixels.*`size: 8`"):
        read("images", {"path": str(tree)})
    assert read("images", {"path": str(tree), "size": 8}).input_shape == (3, 8, 8)
    (tree / "train" / "dog" / "9.png").write_bytes((tree / "train" / "dog" / "1.png").read_bytes()[:60])
    with pytest.raises(DataError, match=r"dog/9\.png cannot be read as an image"):
        read("images", {"path": str(tree)})


def test_folders_that_are_not_as_told(tree: Path, tmp_path: Path) -> None:
    (tree / "test" / "cat").mkdir()
    with pytest.raises(DataError, match="cat holds no images"):
        read("images", {"path": str(tree)})
    picture(tree / "test" / "cat" / "1.png")
    with pytest.raises(DataError, match=r"'cat', which labels of .*train never shows"):
        read("images", {"path": str(tree)})
    (tmp_path / "flat").mkdir()
    with pytest.raises(DataError, match="holds no folders"):
        read("images", {"path": str(tmp_path / "flat"), "test_fraction": 0.2})
    with pytest.raises(DataError, match="there is no folder"):
        read("images", {"path": str(tmp_path / "absent")})


def encoded(side: int = 8, mode: str = "RGB") -> bytes:
    image = pytest.importorskip("PIL.Image")
    buffer = io.BytesIO()
    shape = (side, side) if mode == "L" else (side, side, 3)
    image.fromarray(STREAM.randint(0, 256, shape).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def table(path: Path, columns: dict[str, Any], metadata: dict[str, str] | None = None) -> str:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.table(columns).replace_schema_metadata(metadata), path)
    return str(path)


def rows(count: int, image: str = "image", label: str = "label", struct: bool = True) -> dict[str, Any]:
    cells = [encoded() for _ in range(count)]
    return {
        image: [{"bytes": cell, "path": None} for cell in cells] if struct else cells,
        label: [number % 2 for number in range(count)],
    }


def test_parquet_by_folder_by_files_and_by_pattern(tmp_path: Path) -> None:
    names = '{"info": {"features": {"label": {"names": ["ant", "bee", "cow"], "_type": "ClassLabel"}}}}'
    first = table(tmp_path / "train-0.parquet", rows(6), {"huggingface": names})
    second = table(tmp_path / "train-1.parquet", rows(4), {"huggingface": names})
    test = table(tmp_path / "test-0.parquet", rows(2), {"huggingface": names})
    whole = read("parquet", {"path": str(tmp_path)})
    assert whole.train.inputs.shape == (10, 3, 8, 8)
    assert len(whole.test) == 2
    assert whole.class_names == ("ant", "bee", "cow")
    assert whole.classes == 3
    for train in ([first, second], str(tmp_path / "train-*.parquet")):
        same = read("parquet", {"train": train, "test": test})
        assert np.array_equal(same.train.inputs, whole.train.inputs)
    cut = read("parquet", {"train": first, "test_fraction": 0.5})
    assert len(cut.train) == len(cut.test) == 3


def test_parquet_columns_are_found_or_named(tmp_path: Path) -> None:
    odd = rows(6, "photo", "kind", struct=False) | {"id": list(range(6))}
    path = table(tmp_path / "odd.parquet", odd)
    with pytest.raises(DataError, match=r"more than one column may be the label.*`label: ...`.*photo, kind, id"):
        read("parquet", {"train": path, "test_fraction": 0.5})
    loaded = read("parquet", {"train": path, "label": "kind", "test_fraction": 0.5})
    assert loaded.input_shape == (3, 8, 8)
    with pytest.raises(DataError, match="has no column 'species', but photo, kind, id"):
        read("parquet", {"train": path, "label": "species", "test_fraction": 0.5})


def test_parquet_refusals(tmp_path: Path) -> None:
    mixed = rows(4)
    mixed["image"][2]["bytes"] = encoded(9)
    with pytest.raises(DataError, match=r"row 2 is 9x9 pixels, .*row 0 is 8x8; .*`size: 8`"):
        read("parquet", {"train": table(tmp_path / "a.parquet", mixed), "test_fraction": 0.5})
    mixed["image"][2]["bytes"] = b"not an image"
    with pytest.raises(DataError, match=r"b\.parquet, row 2 cannot be read as an image"):
        read("parquet", {"train": table(tmp_path / "b.parquet", mixed), "test_fraction": 0.5})
    mixed["image"][2] = None
    with pytest.raises(DataError, match="empty cells"):
        read("parquet", {"train": table(tmp_path / "c.parquet", mixed), "test_fraction": 0.5})
    (tmp_path / "d.parquet").write_bytes(b"PAR1 and so on")
    with pytest.raises(DataError, match=r"d\.parquet cannot be read as Parquet"):
        read("parquet", {"train": str(tmp_path / "d.parquet"), "test_fraction": 0.5})
    with pytest.raises(DataError, match="either `path`"):
        read("parquet", {})
    with pytest.raises(DataError, match="there is no file"):
        read("parquet", {"train": str(tmp_path / "none-*.parquet"), "test_fraction": 0.5})


@pytest.mark.skipif(not JPEG75.is_dir(), reason="cifar10-jpeg75 is not beside the repository")
def test_a_real_hugging_face_file() -> None:
    pytest.importorskip("pyarrow")
    loaded = read("parquet", {"train": str(JPEG75 / "test-*.parquet"), "test_fraction": 0.1})
    assert len(loaded.train) == 9_000
    assert len(loaded.test) == 1_000
    assert loaded.input_shape == (3, 32, 32)
    assert loaded.classes == 10
    assert loaded.mean == pytest.approx((0.494, 0.485, 0.450), abs=0.005)
    assert loaded.class_names[0] == "airplane"


@pytest.mark.parametrize(("library", "name"), [("PIL", "images"), ("pyarrow", "parquet"), ("sklearn", "digits")])
def test_a_missing_library_is_told_with_the_extra(
    library: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    options: dict[str, Any] = {}
    if name == "images":
        for label in "ab":
            picture(tmp_path / label / "1.png")
        options = {"path": str(tmp_path), "test_fraction": 0.5}
    elif name == "parquet":
        (tmp_path / "x.parquet").write_bytes(b"")
        options = {"train": str(tmp_path / "x.parquet"), "test_fraction": 0.5}
    for module in [module for module in sys.modules if module.partition(".")[0] == library]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, library, None)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"pip install 'ticketsmith\[data\]'"):
        read(name, options)
