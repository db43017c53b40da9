"""Whole networks are handed to a dense library where that was measured to be faster."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.runtime.networks import ISAS, instant, sparse
from ticketsmith import runtime
from ticketsmith.runtime import Graph, handover
from ticketsmith.runtime.from_torch import from_torch
from ticketsmith.runtime.model import Model
from ticketsmith.runtime.program import InputError
from ticketsmith.runtime.tune import choices, tune, tune_network

pytestmark = pytest.mark.skipif(not ISAS, reason="the kernels are not built")

LIBRARIES = ("onnxruntime", "openvino")


def graph(density: float = 1.0) -> Graph:
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(576, 10)
    )
    return from_torch(sparse(layers, density), torch.zeros(1, 3, 12, 12))


def wide() -> Graph:
    """Takes our kernels some tenths of a millisecond."""
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64 * 144, 10))
    return from_torch(layers, torch.zeros(1, 64, 12, 12))


def images(count: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, 3, 12, 12), dtype=np.float32)


@pytest.mark.parametrize("library", LIBRARIES)
def test_batches_near_those_that_were_measured_are_handed_over(library: str) -> None:
    own = Model(graph())
    model = Model(graph(), {handover.choice(1, 1): library, handover.choice(1, 32): "own"})
    assert [model.handed_to(size) for size in (1, 2, 5, 6, 32, 500)] == [library] * 3 + [""] * 3
    for size in (1, 2, 5, 6, 0):
        outputs = model(images(size))
        assert outputs.dtype == np.float32
        np.testing.assert_allclose(outputs, own(images(size)), atol=1e-5)


def test_a_file_says_what_is_handed_over_and_whoever_loads_it_whether(tmp_path: Path) -> None:
    measured = {handover.choice(1, 1): "onnxruntime"}
    runtime.save(tmp_path / "x.tsk", graph(), {runtime.machine_key(): measured})
    assert runtime.load(tmp_path / "x.tsk").handed_to() == "onnxruntime"
    assert runtime.load(tmp_path / "x.tsk", handover=False).handed_to() == ""
    assert runtime.load(tmp_path / "x.tsk", isa=ISAS[0]).handed_to() == ""
    assert runtime.load(tmp_path / "x.tsk", threads=2).handed_to() == ""  # measured for one
    assert runtime.load(tmp_path / "x.tsk", precision="int8").handed_to() == ""  # the library would not round


@pytest.mark.parametrize("name", ["own", "winrt", "", "onnx"])
def test_a_library_that_is_not_known_is_not_used(name: str) -> None:
    model = Model(graph(), {handover.choice(1, 1): name, "network:1:0": "openvino", "network:": "", "network:1:x": "y"})
    assert model.handed_to() == ""
    np.testing.assert_array_equal(model(images(1)), Model(graph())(images(1)))


SERVE = """
import sys
for name in ("onnx", "onnxruntime", "openvino", "torch"):
    sys.modules[name] = None  # as if it were not installed
import numpy as np
from ticketsmith import runtime
model = runtime.load(sys.argv[1])
np.save(sys.argv[2], model(np.load(sys.argv[2])))
print(repr(model.handed_to()))
"""


def test_where_no_library_is_installed_our_kernels_answer(tmp_path: Path) -> None:
    runtime.save(tmp_path / "x.tsk", graph(), {runtime.machine_key(): {handover.choice(1, 1): "onnxruntime"}})
    np.save(tmp_path / "x.npy", images(2))
    command = [sys.executable, "-c", SERVE, str(tmp_path / "x.tsk"), str(tmp_path / "x.npy")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "''"
    np.testing.assert_allclose(np.load(tmp_path / "x.npy"), Model(graph())(images(2)), atol=1e-5)


@pytest.mark.parametrize("library", LIBRARIES)
def test_any_number_of_threads_may_call_a_network_that_was_handed_over(library: str) -> None:
    model = Model(graph(), {handover.choice(1, 1): library})
    inputs = images(64)
    expected = Model(graph())(inputs)
    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(lambda start: model(inputs[start : start + 2]), range(0, 64, 2)))
    np.testing.assert_allclose(np.concatenate(parts), expected, atol=1e-5)


def test_a_library_that_fails_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(inputs: list[np.ndarray]) -> list[np.ndarray]:
        raise MemoryError

    monkeypatch.setattr(handover, "session", lambda *_: fails)
    model = Model(graph(), {handover.choice(1, 1): "onnxruntime"})
    for _ in range(2):
        np.testing.assert_array_equal(model(images(2)), Model(graph())(images(2)))
    assert model.handed_to() == ""
    assert tune_network(graph(), {}, rounds=1, batches=(2,))[0].choice == "own"


@pytest.mark.parametrize("token", [-1, 7])
def test_a_token_that_is_not_known_is_told_as_ever(token: int) -> None:
    torch.manual_seed(0)
    words = from_torch(nn.Sequential(nn.Embedding(7, 8), nn.Linear(8, 3)), torch.zeros(1, 4, dtype=torch.int64))
    model, tokens = Model(words, {handover.choice(1, 1): "onnxruntime"}), np.array([[0, 6, 3, 1]])
    np.testing.assert_allclose(model(tokens), Model(words)(tokens), atol=1e-5)
    tokens[0, 2] = token
    with pytest.raises(InputError, match="outside of the vocabulary"):
        model(tokens)
    assert model.handed_to() == "onnxruntime"


def test_tuning_hands_over_what_a_library_does_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handover, "session", instant)
    measured = choices(tune(wide(), rounds=2, batches=(1,)))
    model = Model(wide(), measured)
    assert model.handed_to() in LIBRARIES
    inputs = np.random.default_rng(0).standard_normal((1, 64, 12, 12), dtype=np.float32)
    np.testing.assert_allclose(model(inputs), Model(wide())(inputs), atol=1e-5)
    assert not handover.chosen(choices(tune(wide(), rounds=1, batches=())), 1)


def test_tuning_keeps_what_our_kernels_do_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(library: str, *given: object) -> handover.Call | None:
        call = instant(library, *given)  # type: ignore[arg-type]
        return call and (lambda inputs: (time.sleep(0.05), call(inputs))[1])

    monkeypatch.setattr(handover, "session", slow)
    (found,) = tune_network(wide(), {}, rounds=2, batches=(1,))
    assert found.choice == "own"
    assert found.seconds["own"] == min(found.seconds.values())


def test_what_is_faster_and_wrong_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handover, "session", lambda *_: lambda inputs: [np.zeros((len(inputs[0]), 10), np.float32)])
    (found,) = tune_network(graph(), {}, rounds=3, batches=(4,))
    assert found.choice == "own"
