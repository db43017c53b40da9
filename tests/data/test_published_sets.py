"""The published sets besides MNIST: found where they may lie, and refused when they are not what was published."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import pickle
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest

from ticketsmith import data
from ticketsmith.data import cifar10, fashion_mnist, mnist1d
from ticketsmith.data.loading import read
from ticketsmith.errors import DataError

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
needs_fashion = pytest.mark.skipif(not DEBIAN.is_dir(), reason="the Debian package dataset-fashion-mnist is absent")


@pytest.fixture(autouse=True)
def bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No data in the home, the cache, the variable or the current directory."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("TICKETSMITH_DATA", raising=False)
    monkeypatch.setattr("ticketsmith.data.places.SYSTEM", tmp_path / "system")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


def test_digits_are_cut_in_proportion_and_always_alike() -> None:
    pytest.importorskip("sklearn")
    first, again = read("digits", {}), read("digits", {})
    assert first.train.inputs.shape == (1437, 1, 8, 8)
    assert first.test.inputs.shape == (360, 1, 8, 8)
    assert first.train.inputs.dtype == np.uint8
    assert first.train.inputs.max() == 255
    assert np.bincount(first.test.labels).min() >= 34
    assert np.bincount(first.test.labels).max() <= 37
    assert np.array_equal(first.test.inputs, again.test.inputs)
    assert hashlib.sha256(first.test.labels.tobytes()).hexdigest()[:16] == "06e99a9a9bc21a29"


def test_mnist1d_is_the_published_set_and_follows_its_seed() -> None:
    loaded = read("mnist1d", {})
    assert loaded.train.inputs.shape == (4000, 1, 40)
    assert loaded.test.inputs.shape == (1000, 1, 40)
    assert loaded.train.inputs.dtype == np.float32
    everything = np.concatenate([loaded.train.inputs, loaded.test.inputs]).astype(np.float64)
    assert abs(everything.mean()) < 1e-6
    assert abs(everything.std() - 1) < 1e-6
    assert np.array_equal(np.bincount(np.concatenate([loaded.train.labels, loaded.test.labels])), [500] * 10)
    # The first values and labels of the file that its authors publish (seed 42).
    assert loaded.train.inputs[0, 0, :3] == pytest.approx([-0.332006, -0.47191, -0.778697], abs=1e-5)
    assert loaded.train.labels[:10].tolist() == [2, 6, 4, 5, 6, 6, 6, 0, 3, 1]
    rounded = np.round(loaded.train.inputs, 3) + 0.0  # hashed to three digits: libm may differ in the last one
    assert hashlib.sha256(rounded.tobytes()).hexdigest()[:16] == "3149b9e52f848674"
    assert not np.array_equal(read("mnist1d", {"seed": 7}).train.inputs, loaded.train.inputs)


def test_mnist1d_classes_can_be_told_apart_but_not_by_a_line() -> None:
    """Roughly the published picture: linear models are poor (about 32 %), nearest shapes better than chance."""
    linear = pytest.importorskip("sklearn.linear_model")
    loaded = read("mnist1d", {})
    model = linear.LogisticRegression(max_iter=200)
    model.fit(loaded.train.inputs[:, 0], loaded.train.labels)
    assert 0.25 < model.score(loaded.test.inputs[:, 0], loaded.test.labels) < 0.45


def test_mnist1d_templates_begin_at_zero() -> None:
    assert np.array_equal(mnist1d.templates()[:, 0], np.zeros(10))


@needs_fashion
@pytest.mark.parametrize("form", ["root", "torchvision", "raw", "variable"])
def test_fashion_mnist_is_found_in_every_place(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {}
    if form == "root":
        options = {"root": str(DEBIAN)}
    elif form == "torchvision":
        shutil.copytree(DEBIAN, tmp_path / "work" / "data" / "FashionMNIST" / "raw")
    elif form == "variable":
        shutil.copytree(DEBIAN, tmp_path / "mine" / "fashion_mnist")
        monkeypatch.setenv("TICKETSMITH_DATA", os.pathsep.join([str(tmp_path / "none"), str(tmp_path / "mine")]))
    else:
        folder = tmp_path / "cache" / "ticketsmith" / "data" / "fashion_mnist"
        folder.mkdir(parents=True)
        for file in DEBIAN.glob("*.gz"):
            (folder / file.stem).write_bytes(gzip.decompress(file.read_bytes()))
    loaded = read("fashion_mnist", options)
    assert loaded.train.inputs.shape == (60_000, 1, 28, 28)
    assert loaded.test.inputs.shape == (10_000, 1, 28, 28)
    assert loaded.class_names[loaded.train.labels[0]] == "ankle boot"
    assert loaded.train.inputs.mean() / 255 == pytest.approx(loaded.mean[0], abs=1e-4)
    assert loaded.train.inputs.std() / 255 == pytest.approx(loaded.std[0], abs=1e-4)


@needs_fashion
@pytest.mark.parametrize("harm", ["other labels", "cut gz"])
def test_fashion_mnist_with_a_damaged_file_is_refused_by_name(harm: str, tmp_path: Path) -> None:
    shutil.copytree(DEBIAN, tmp_path / "set")
    victim = tmp_path / "set" / "t10k-labels-idx1-ubyte.gz"
    content = bytearray(gzip.decompress(victim.read_bytes()))
    content[-1] ^= 1
    victim.write_bytes(gzip.compress(bytes(content)) if harm == "other labels" else victim.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte.*delete it, and fetch"):
        read("fashion_mnist", {"root": str(tmp_path / "set")})


@pytest.mark.parametrize("name", ["fashion_mnist", "cifar10"])
def test_an_absent_set_says_how_to_get_it(name: str) -> None:
    with pytest.raises(DataError) as caught:
        data.load(name, {})
    message = str(caught.value)
    assert f"ticketsmith data fetch {name}" in message
    assert "TICKETSMITH_DATA" in message
    assert ("dataset-fashion-mnist" in message) == (name == "fashion_mnist")


def test_mnist_in_the_data_folder_is_not_taken_for_fashion(tmp_path: Path) -> None:
    """Both sets use the same file names, so only a folder that is plainly Fashion's is looked into."""
    raw = tmp_path / "work" / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in fashion_mnist.MD5:
        (raw / name).write_bytes(b"")
        (tmp_path / "work" / "data" / name).write_bytes(b"")
    assert fashion_mnist.find() is None


class Cifar:
    """A tiny CIFAR-10 of two images a batch, in both published forms, with its own checksums."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        stream = np.random.RandomState(1)
        self.binary: dict[str, bytes] = {}
        self.pickled: dict[str, bytes] = {}
        self.images, self.labels = [], []
        for number, name in enumerate(sorted(cifar10.BINARY)):
            images = stream.randint(0, 256, (2, 3072)).astype(np.uint8)
            labels = [number % 2, 1 - number % 2]
            self.images.append(images.reshape(2, 3, 32, 32))
            self.labels.append(labels)
            rows = np.concatenate([np.array(labels, np.uint8)[:, None], images], axis=1)
            self.binary[name] = rows.tobytes()
            self.pickled[name.removesuffix(".bin")] = pickle.dumps({b"data": images, b"labels": labels}, protocol=4)
        for table, contents in ((cifar10.BINARY, self.binary), (cifar10.PICKLED, self.pickled)):
            for name, content in contents.items():
                monkeypatch.setitem(table, name, hashlib.md5(content).hexdigest())

    def write_tar(self, path: Path, contents: dict[str, bytes]) -> None:
        with tarfile.open(path, "w:gz") as tar:
            for name, content in reversed(contents.items()):
                member = tarfile.TarInfo(f"cifar-10-batches/{name}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


@pytest.fixture
def cifar(monkeypatch: pytest.MonkeyPatch) -> Cifar:
    return Cifar(monkeypatch)


@pytest.mark.parametrize("form", ["cifar-10-batches-bin", "cifar-10-batches-py", "binary.tar.gz", "python.tar.gz"])
def test_cifar10_is_the_same_from_every_form(form: str, cifar: Cifar, tmp_path: Path) -> None:
    contents = cifar.binary if "bin" in form else cifar.pickled
    if form.endswith(".tar.gz"):
        cifar.write_tar(tmp_path / f"cifar-10-{form}", contents)
    else:
        (tmp_path / form).mkdir()
        for name, content in contents.items():
            (tmp_path / form / name).write_bytes(content)
    loaded = read("cifar10", {"root": str(tmp_path)})
    assert np.array_equal(loaded.train.inputs, np.concatenate(cifar.images[:5]))
    assert loaded.train.labels.tolist() == [label for batch in cifar.labels[:5] for label in batch]
    assert np.array_equal(loaded.test.inputs, cifar.images[5])
    assert loaded.test.labels.tolist() == cifar.labels[5]
    assert loaded.classes == 10


def test_cifar10_with_a_changed_pixel_is_refused(cifar: Cifar, tmp_path: Path) -> None:
    changed = bytearray(cifar.binary["data_batch_3.bin"])
    changed[100] ^= 1
    cifar.write_tar(tmp_path / "cifar-10-binary.tar.gz", cifar.binary | {"data_batch_3.bin": bytes(changed)})
    with pytest.raises(DataError, match=r"data_batch_3\.bin is not the published file"):
        read("cifar10", {"root": str(tmp_path)})


def test_an_archive_cannot_smuggle_links_or_miss_members(cifar: Cifar, tmp_path: Path) -> None:
    path = tmp_path / "cifar-10-binary.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        link = tarfile.TarInfo("test_batch.bin")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        tar.addfile(link)
    with pytest.raises(DataError, match=r"lacks .*test_batch\.bin"):
        read("cifar10", {"root": str(tmp_path)})


def test_a_pickle_that_wants_more_than_arrays_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(tmp_path / "owned"),)

    with pytest.raises(DataError, match=r"asks for \w+\.mkdir"):
        cifar10.from_pickle(pickle.dumps({b"data": Evil(), b"labels": []}), "data_batch_1")
    assert not (tmp_path / "owned").exists()
