"""Names, identities and the catalogue: what a recipe, a run's key and ``ticketsmith data`` rely on."""

from __future__ import annotations

import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ticketsmith import data
from ticketsmith.data.dataset import Dataset
from ticketsmith.errors import DataError, RecipeError


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    save(tmp_path / "mine.npz", 0)
    return tmp_path / "mine.npz"


def save(path: Path, seed: int) -> None:
    inputs = np.random.RandomState(seed).rand(20, 9).astype(np.float32)
    np.savez(path, x_train=inputs, y_train=np.arange(20) % 2, x_test=inputs[:4], y_test=np.arange(4) % 2)


def test_published_sets_are_told_by_their_name_alone() -> None:
    assert data.identity("mnist", {}) == {"name": "mnist"}
    assert data.identity("cifar10", {"root": "/anywhere"}) == {"name": "cifar10"}
    assert data.fingerprint("fashion_mnist", {}) is None


def test_options_count_only_when_they_change_the_content() -> None:
    assert data.identity("mnist1d", {"seed": 42}) == data.identity("mnist1d", {}) == {"name": "mnist1d"}
    assert data.identity("mnist1d", {"seed": 7}) == {"name": "mnist1d", "options": {"seed": 7}}


def test_a_moved_file_is_the_same_data_and_a_changed_one_is_not(mine: Path, tmp_path: Path) -> None:
    before = data.identity("npz", {"path": str(mine)})
    moved = tmp_path / "elsewhere" / "renamed.npz"
    moved.parent.mkdir()
    shutil.move(mine, moved)
    assert data.identity("npz", {"path": str(moved)}) == before
    first = data.load("npz", {"path": str(moved)})
    save(moved, 1)
    assert data.identity("npz", {"path": str(moved)}) != before
    assert not np.array_equal(data.load("npz", {"path": str(moved)}).train.inputs, first.train.inputs)


def test_images_are_told_by_names_and_contents(tmp_path: Path) -> None:
    for label in "ab":
        (tmp_path / "set" / label).mkdir(parents=True)
        (tmp_path / "set" / label / "1.png").write_bytes(label.encode())
    before = data.fingerprint("images", {"path": str(tmp_path / "set")})
    shutil.copytree(tmp_path / "set", tmp_path / "copy")
    assert data.fingerprint("images", {"path": str(tmp_path / "copy")}) == before
    (tmp_path / "copy" / "a").rename(tmp_path / "copy" / "c")  # another class name, another order of classes
    assert data.fingerprint("images", {"path": str(tmp_path / "copy")}) != before


def test_parquet_paths_are_not_part_of_the_identity(tmp_path: Path) -> None:
    for name in ("train-0.parquet", "test-0.parquet"):
        (tmp_path / name).write_bytes(name.encode())
    by_folder = data.identity("parquet", {"path": str(tmp_path)})
    by_files = {"train": str(tmp_path / "train-*"), "test": [str(tmp_path / "test-0.parquet")]}
    assert data.identity("parquet", by_files) == by_folder
    assert set(by_folder) == {"name", "fingerprint"}


def test_relative_paths_are_looked_for_beside_the_recipe_first(
    mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipes, here = tmp_path / "recipes", tmp_path / "here"
    for number, folder in enumerate((recipes, here)):
        folder.mkdir()
        save(folder / "x.npz", number)
    save(here / "only_here.npz", 2)
    monkeypatch.chdir(here)
    beside = data.fingerprint("npz", {"path": str(recipes / "x.npz")})
    assert data.fingerprint("npz", {"path": "x.npz"}, base=recipes) == beside
    assert data.fingerprint("npz", {"path": "x.npz"}) != beside
    assert len(data.load("npz", {"path": "only_here.npz"}, base=recipes).train) == 20
    with pytest.raises(DataError, match="beside the recipe, then in the current directory"):
        data.load("npz", {"path": "nowhere.npz"}, base=recipes)


def test_a_set_is_loaded_once_and_cannot_be_spoilt(mine: Path) -> None:
    first = data.load("npz", {"path": str(mine)})
    assert data.load("npz", {"path": str(mine)}) is first
    with pytest.raises(ValueError, match="read-only"):
        first.train.inputs[0] = 0


def test_unknown_names_and_options_are_refused_with_the_nearest() -> None:
    with pytest.raises(RecipeError, match=r"unknown data set 'minst'.*'mnist'"):
        data.load("minst", {})
    with pytest.raises(RecipeError, match=r"no option 'sed'.*'seed'"):
        data.identity("mnist1d", {"sed": 1})
    with pytest.raises(RecipeError, match="'seed'"):
        data.load("mnist1d", {"seed": "one"})


USER_MODULE = """
import numpy as np
from ticketsmith.data.dataset import Dataset, Split

def arrays(n=12, form="tuple"):
    x = np.arange(n * 4, dtype=np.float32).reshape(n, 4)
    y = np.arange(n) % 3
    return (x, y, x[:3], y[:3]) if form == "tuple" else dict(x_train=x, y_train=y, x_test=x[:3], y_test=y[:3])

def dataset(classes=2, dtype="float32"):
    split = Split(np.arange(20).reshape(4, 1, 5).astype(dtype), np.array([0, 1, 0, 1]))
    return Dataset("own", split, split, classes, (0.0,), (1.0,))

def nothing():
    return None

def fails():
    raise FileNotFoundError("my.csv")
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "own_data_for_test.py").write_text(textwrap.dedent(USER_MODULE))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own_data_for_test", raising=False)
    return "own_data_for_test"


def test_a_users_own_function(module: str) -> None:
    for form in ("tuple", "dict"):
        loaded = data.load(f"{module}:arrays", {"n": 9, "form": form})
        assert loaded.train.inputs.shape == (9, 1, 4)
        assert loaded.classes == 3
    assert isinstance(data.load(f"{module}:dataset", {}), Dataset)
    told = data.identity(f"{module}:arrays", {"n": 9})
    assert told["options"] == {"n": 9}
    assert len(told["fingerprint"]) == 64


@pytest.mark.parametrize(
    ("function", "options", "message"),
    [
        ("nothing", {}, "returned NoneType; return a Dataset, or the four arrays"),
        ("fails", {}, r"failed: FileNotFoundError: my\.csv"),
        ("dataset", {"classes": 1}, r"whole numbers in 0 \.\. 0"),
        ("dataset", {"dtype": "float64"}, "inputs are float64"),
        ("arrays", {"n": 1}, "single class"),
    ],
)
def test_a_users_function_that_goes_wrong(module: str, function: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        data.load(f"{module}:{function}", options)


def test_the_catalogue_shows_every_published_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKETSMITH_DATA", str(tmp_path))
    entries = {entry.card.name: entry for entry in data.catalogue()}
    assert set(entries) == {"mnist", "fashion_mnist", "cifar10", "digits", "mnist1d", "pydocs"}
    assert entries["mnist"].where == "packaged"
    assert entries["mnist"].here
    assert all(entry.card.licence and entry.card.citation for entry in entries.values())
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(b"")
    (again,) = [entry for entry in data.catalogue() if entry.card.name == "cifar10"]
    assert again.here
    assert again.where == str(tmp_path / "cifar-10-binary.tar.gz")


def test_verify_tells_what_it_saw(mine: Path) -> None:
    lines = data.verify("npz", {"path": str(mine)})
    assert "20 + 4 inputs of 1x9, float32" in lines
    assert any(data.fingerprint("npz", {"path": str(mine)}) in line for line in lines)  # type: ignore[operator]
    assert "packaged; content as published (md5)" in data.verify("mnist", {})


def test_fetching_what_needs_no_fetching() -> None:
    with pytest.raises(DataError, match="packaged; there is nothing to fetch"):
        data.fetch("mnist")
    with pytest.raises(RecipeError, match="Did you mean 'cifar10'"):
        data.fetch("cifar")


def test_importing_the_room_is_cheap() -> None:
    code = "import sys, ticketsmith.data; print([m for m in ('numpy', 'torch', 'PIL', 'pyarrow') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment())
    assert done.stdout.strip() == "[]"


def environment() -> dict[str, str]:
    import os

    return os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
