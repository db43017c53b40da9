"""Arrays that stay in their files: the same training as in memory, from little memory of one's own."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests import warm
from ticketsmith import data
from ticketsmith.data.loading import read
from ticketsmith.errors import DataError
from ticketsmith.spec import Training
from ticketsmith.tasks.task import Task, create
from ticketsmith.training.device import prepare
from ticketsmith.training.learner import Learner
from ticketsmith.training.loop import Progress, measure, train

ROOT = Path(__file__).resolve().parents[2]
STREAM = np.random.RandomState(3)


def arrays(kind: Any = np.uint8, shape: tuple[int, ...] = (6, 5)) -> dict[str, Any]:
    return {
        "x_train": STREAM.randint(0, 256, (90, *shape)).astype(kind),
        "y_train": np.arange(90) % 3,
        "x_test": STREAM.randint(0, 256, (30, *shape)).astype(kind),
        "y_test": np.arange(30) % 3,
    }


def saved(folder: Path, whole: dict[str, Any]) -> str:
    folder.mkdir(exist_ok=True)
    for name, array in whole.items():
        np.save(folder / f"{name}.npy", array)
    return str(folder)


def task(component: dict[str, Any]) -> Task:
    model = {"name": "mlp", "widths": [8]}
    return create({"name": "classification", "data": component, "model": model, "validation": 20}, Path())


@pytest.mark.parametrize(("kind", "shape"), [(np.uint8, (6, 5)), (np.uint8, (6, 5, 3)), (np.float32, (6, 5))])
def test_mapped_arrays_train_like_the_same_in_memory(tmp_path: Path, kind: Any, shape: tuple[int, ...]) -> None:
    prepare("cpu")
    whole = arrays(kind, shape)
    np.savez(tmp_path / "mine.npz", **whole)
    components = (
        {"name": "npz", "path": str(tmp_path / "mine.npz")},
        {"name": "npy", "path": saved(tmp_path / "a", whole)},
    )
    states, metrics = [], []
    for work in map(task, components):
        training = Training(optimizer="adam", lr=0.01, batch_size=16, duration="12it", evaluate_every="4it")
        torch.manual_seed(0)
        learner = Learner(work, work.build_model(), {}, training)
        train(learner, training, 0, Progress(), 12, lambda *_: None)
        states.append({name: value.tolist() for name, value in learner.state().items()})
        metrics.append(dict(measure(work, learner.result, "test", torch.device("cpu"))))
    assert states[0] == states[1]
    assert metrics[0] == metrics[1]


def test_what_counts_is_the_content(tmp_path: Path) -> None:
    whole = arrays()
    one, other = saved(tmp_path / "one", whole), saved(tmp_path / "other", whole)
    identity = data.identity("npy", {"path": one})
    assert identity == data.identity("npy", {"path": other})
    np.save(Path(other) / "y_test.npy", 2 - whole["y_test"])
    assert identity != data.identity("npy", {"path": other})


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("x_test", None, "there is no file .*x_test.npy"),
        ("x_train", b"\x93NUMPY\x01\x00", "cannot be read as .npy"),
        ("x_train", np.zeros((90, 6, 5)), "float64, and stays in its file: store what needs no conversion"),
        ("x_train", np.full((90, 6, 5), np.nan, np.float32), r"NaN or infinity \(first at index \(0, 0, 0\)\)"),
        ("x_train", np.asfortranarray(arrays()["x_train"]), "Fortran's order"),
        ("x_train", np.array([{}] * 90), "Python objects"),
        ("y_train", np.arange(89) % 3, "90 examples, .* 89 labels"),
    ],
)
def test_refusals(tmp_path: Path, name: str, content: Any, words: str) -> None:
    path = Path(saved(tmp_path / "mine", arrays())) / f"{name}.npy"
    path.unlink()
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.save(path, content, allow_pickle=True)
    with pytest.raises(DataError, match=words):
        read("npy", {"path": str(path.parent)})


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux what memory is the process's own")
def test_a_worker_keeps_no_copy(tmp_path: Path) -> None:
    """Of 100 MB it reads all, and has a few of its own."""
    labels = {"y_train": np.arange(25_000) % 10, "y_test": np.arange(90) % 10}
    saved(tmp_path / "large", {**labels, "x_test": STREAM.randint(0, 256, (90, 64, 64)).astype(np.uint8)})
    large = np.lib.format.open_memmap(tmp_path / "large" / "x_train.npy", "w+", np.uint8, (25_000, 64, 64))
    large[:] = np.arange(25_000, dtype=np.uint8)[:, None, None]
    large.flush()
    command = ["-m", "tests.data.test_npy", str(tmp_path / "large")]
    told = warm.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=200)
    assert told.returncode == 0, told.stderr
    own, of_files = map(int, told.stdout.split())
    assert of_files > 90e6, "the data are in no shared memory"
    assert own < 25e6


def _memory(kind: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"Rss{kind}:"))


def _train_on(path: str) -> None:
    """Prints what an epoch adds to this process's own memory, and to that which it shares with others."""
    prepare("cpu")
    before = _memory("Anon"), _memory("File")
    work = task({"name": "npy", "path": path})
    training = Training(optimizer="sgd", lr=0.01, batch_size=250, duration="1ep", evaluate_every="1ep")
    learner, progress, most = Learner(work, work.build_model(), {}, training), Progress(), 0

    def after_step(*_: object) -> None:
        nonlocal most
        most = max(most, _memory("Anon"))

    train(learner, training, 0, progress, 100, after_step)
    print(most - before[0], _memory("File") - before[1])


if __name__ == "__main__":
    _train_on(sys.argv[1])
