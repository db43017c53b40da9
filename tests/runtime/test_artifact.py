"""Files: what is saved comes back; damaged and malicious ones give an error, never a crash."""

from __future__ import annotations

import hashlib
import json
import os
import random
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.runtime import fuzz
from tests.runtime.networks import ISAS, sparse
from tests.runtime.zoo import ZOO
from tests.runtime.zoo import network as network_of
from ticketsmith import runtime
from ticketsmith.errors import RecipeError
from ticketsmith.native import NotBuiltError, abi
from ticketsmith.runtime.artifact import ArtifactError, machine_key, open_artifact
from ticketsmith.runtime.calibrate import calibrated
from ticketsmith.runtime.compiler import compile_graph
from ticketsmith.runtime.from_torch import from_torch
from ticketsmith.runtime.precision import rounded
from ticketsmith.runtime.program import InputError

pytestmark = pytest.mark.skipif(not ISAS, reason="the kernels are not built")


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(2, 6, 3, stride=2, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(24, 5),
    )
    return sparse(layers, 0.3)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "ticket.tsk"
    runtime.save(file, from_torch(network(), torch.zeros(1, 2, 8, 8)), {machine_key(): {"vector:linear": "gemv"}})
    return file


def test_what_is_saved_answers_as_before(path: Path) -> None:
    inputs = torch.randn(3, 2, 8, 8)
    model = runtime.load(path)
    assert model.choices == {"vector:linear": "gemv"}
    with torch.inference_mode():
        np.testing.assert_allclose(model(inputs), network()(inputs).numpy(), atol=1e-5)
    assert [file.name for file in path.parent.iterdir()] == ["ticket.tsk"]


@pytest.mark.parametrize(
    ("mode", "former", "name", "operation"),
    [
        ("vector", "slices", "sell", abi.Sell), ("vector", "slices_wide", "sell_wide", abi.Sell),
        ("vector", "bitmap", "bitmask", abi.Bitmask), ("vector", "rows", "gemv", abi.Gemv),
        ("planes", "taps", "sparse_conv", abi.SparseConv), ("planes", "taps_whole", "sparse_conv_whole", abi.SparseConv),
        ("planes", "pixels", "dense_px32", abi.DensePx32), ("planes", "tiles", "dense_hx16", abi.DenseHx16),
    ],
)  # fmt: skip
def test_former_names_of_formats_in_a_file_are_used(
    mode: str, former: str, name: str, operation: type, tmp_path: Path
) -> None:
    graph = from_torch(network(), torch.zeros(1, 2, 8, 8))
    product = next(node for node in graph.nodes if node.op == ("linear" if mode == "vector" else "conv2d"))
    runtime.save(tmp_path / "x.tsk", graph, {machine_key(): {f"{mode}:{product.output}": former}})
    model = runtime.load(tmp_path / "x.tsk")
    assert model.choices == {f"{mode}:{product.output}": name}
    assert operation in {type(one) for one in compile_graph(model.graph, choices=model.choices).operations}


def test_zeros_take_a_bit_each(tmp_path: Path) -> None:
    layer = sparse(nn.Linear(1000, 1000), 0.1)
    runtime.save(tmp_path / "x.tsk", from_torch(layer, torch.zeros(1, 1000)))
    assert (tmp_path / "x.tsk").stat().st_size < 0.14 * 4e6


def rewrite(path: Path, change: Any) -> None:
    """The file with another header, its sum made right: what an attacker would do."""
    data = path.read_bytes()
    size = struct.unpack_from("<Q", data, 16)[0]
    document = json.loads(data[56 : 56 + size])
    document = change(document) or document
    header = json.dumps(document).encode()
    prefix = data[:16] + struct.pack("<Q", len(header)) + hashlib.sha256(header).digest()
    path.write_bytes(prefix + header + data[56 + size :])


def test_every_damaged_byte_is_noticed(path: Path) -> None:
    whole = path.read_bytes()
    chance = random.Random(0)
    places = [*range(56), *(chance.randrange(len(whole)) for _ in range(300))]
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        try:
            graph = open_artifact(path).graph
        except ArtifactError:
            continue
        assert graph.tensors
        assert place > 56  # padding between tensors is nobody's
    for length in (0, 1, 40, 56, 60, 500, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ArtifactError):
            open_artifact(path)
    path.write_bytes(whole + b"more")
    with pytest.raises(ArtifactError, match="has grown"):
        open_artifact(path)


def test_another_version_and_another_kind_of_file_are_told(path: Path) -> None:
    data = path.read_bytes()
    for version in (0, 5, 2**32 - 1):
        path.write_bytes(data[:8] + struct.pack("<I", version) + data[12:])
        with pytest.raises(ArtifactError, match=rf"version {version} .*Export it again"):
            runtime.load(path)
    path.write_bytes(b"PK\x03\x04" + data)
    with pytest.raises(ArtifactError, match=r"no \.tsk file"):
        runtime.load(path)
    with pytest.raises(ArtifactError, match="cannot be read"):
        runtime.load(path.parent / "missing.tsk")


def test_files_of_the_first_version_are_read(path: Path) -> None:
    expected = runtime.load(path)(torch.ones(1, 2, 8, 8))

    def older(document: Any) -> None:
        graph = document["graph"]
        (port,), (output,) = graph.pop("inputs"), graph.pop("outputs")
        graph.update(input=port["name"], shape=port["shape"], dtype=port["dtype"], output=output)
        del document["precision"]
        for place in document["tensors"].values():
            del place["values"]

    rewrite(path, older)
    data = path.read_bytes()
    path.write_bytes(data[:8] + struct.pack("<I", 1) + data[12:])
    np.testing.assert_array_equal(runtime.load(path)(torch.ones(1, 2, 8, 8)), expected)


@pytest.mark.parametrize(
    ("precision", "size", "bound"),
    [
        ("float32", 4, 1e-9),
        ("bfloat16", 2, 0.01),
        ("int8", 1, 0.02),
        ("int4", 0.5, 0.2),
        ("int8_dot", 1, 0.03),
        ("int4_dot", 0.5, 0.2),
    ],
)
@pytest.mark.parametrize("density", [0.1, 1.0])
def test_low_precision_is_smaller_and_serves_what_it_holds(
    precision: str, size: float, bound: float, density: float, tmp_path: Path
) -> None:
    layers = nn.Sequential(nn.Linear(400, 500), nn.ReLU(), nn.Linear(500, 10))
    graph = from_torch(sparse(layers, density), torch.zeros(1, 400))
    runtime.save(tmp_path / "x.tsk", graph, precision=precision)
    weights = 205_000
    expected = weights * size if density == 1 else weights * (density * size + 1 / 8)
    assert (tmp_path / "x.tsk").stat().st_size < 1.02 * expected + 8000
    model = runtime.load(tmp_path / "x.tsk")
    assert model.precision == precision
    inputs = np.random.default_rng(0).standard_normal((4, 400), dtype=np.float32)
    found = runtime.low_precision_error(graph, inputs, precision)
    exact = runtime.Model(graph)(inputs)
    given = np.concatenate([model(inputs[n : n + 1]) for n in range(4)])
    assert np.abs(given - exact).max() <= 1.5 * found.max_error + 1e-5 * np.abs(exact).max()
    assert found.relative_error < bound
    assert found.top1_agreement == 1 or precision != "float32"
    again = runtime.load(tmp_path / "x.tsk", precision="float32")
    np.testing.assert_allclose(
        again(inputs[:1]), given[:1], atol=(0.03 if "dot" in precision else 0.01) * np.abs(exact).max()
    )


def test_known_ranges_are_kept_and_checked(tmp_path: Path) -> None:
    file, inputs = tmp_path / "x.tsk", np.random.default_rng(0).standard_normal((9, 2, 8, 8), np.float32)
    graph = from_torch(network(), torch.zeros(1, 2, 8, 8))
    known = calibrated(graph, [inputs[:4], inputs[4:]])
    runtime.save(file, known, precision="int8_dot")
    model = runtime.load(file)
    assert model.graph.ranges == known.ranges
    np.testing.assert_array_equal(
        model(inputs), runtime.Model(rounded(known, "int8_dot"), precision="int8_dot")(inputs)
    )
    for wrong in ([1.0, 0.0], [0, 1], [0.0, float("nan")], [-1e39, 1.0], [0.0], "all"):
        rewrite(file, lambda document, wrong=wrong: document["ranges"].update(x=wrong))
        with pytest.raises(ArtifactError, match="no valid 'ranges'"):
            runtime.load(file)
    with pytest.raises(RecipeError, match="one example or more, which give finite numbers"):
        calibrated(graph, [np.full((1, 2, 8, 8), np.inf, np.float32)])


def test_several_inputs_and_outputs_are_kept(tmp_path: Path) -> None:
    module, inputs = network_of("encoder"), ZOO["encoder"][1](2)
    runtime.save(tmp_path / "x.tsk", from_torch(module, inputs))
    model = runtime.load(str(tmp_path / "x.tsk"))
    with torch.inference_mode():
        expected = module(*inputs)
    for given, want in zip(model(*inputs), expected, strict=True):
        np.testing.assert_allclose(given, want.numpy(), atol=1e-4)
    with pytest.raises(InputError, match=r"3 inputs \(tokens, mask, kinds\), not 1"):
        model(inputs[0])
    with pytest.raises(InputError, match="different batch sizes"):
        model(inputs[0], inputs[1][:1], inputs[2])
    assert [one.shape for one in model(*(one[:0] for one in inputs))] == [(0, 24), (0, 24)]


SERVE = """
import sys
import numpy as np
from ticketsmith import runtime

model = runtime.load(sys.argv[1])
np.save(sys.argv[2], model(np.ones((1, *model.shape), model.dtype)))
print(model.isa.name, "torch" in sys.modules, "onnx" in sys.modules)
"""


@pytest.mark.parametrize("isa", ["", "portable"])
def test_serving_needs_numpy_alone_on_any_machine(path: Path, isa: str) -> None:
    answer = path.with_suffix(".npy")
    environment = {**os.environ, "TICKETSMITH_ISA": isa}
    command = [sys.executable, "-c", SERVE, str(path), str(answer)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    used, *imported = done.stdout.split()
    assert used == "PORTABLE" if isa else used in [one.name for one in ISAS]
    assert imported == ["False", "False"]
    np.testing.assert_allclose(np.load(answer), runtime.load(path)(np.ones((1, 2, 8, 8), np.float32)), atol=1e-5)


def test_instructions_that_are_not_there_are_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKETSMITH_ISA", "sse9")
    with pytest.raises(NotBuiltError, match=r"TICKETSMITH_ISA is 'sse9'; this machine and build have portable"):
        runtime.load(path)


def test_mutations_give_an_error_or_a_model_that_works(tmp_path: Path) -> None:
    """A few of those that ``python -m tests.runtime.fuzz`` makes by the hundred thousand."""
    mutators = [fuzz.Mutator(whole) for whole in fuzz.bases(tmp_path)]
    worked = sum(fuzz.meets(tmp_path / "x.bin", mutators[n % len(mutators)].mutated(n)) for n in range(700))
    assert 20 < worked < 300


def test_one_number_a_sample_stays_one(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(6, 1), nn.Flatten(0))
    inputs = torch.randn(5, 6)
    runtime.save(tmp_path / "x.tsk", from_torch(module, inputs))
    model = runtime.load(tmp_path / "x.tsk")
    for batch in (5, 1, 1):
        with torch.inference_mode():
            expected = module(inputs[:batch]).numpy()
        np.testing.assert_allclose(model(inputs[:batch]), expected, atol=1e-6, strict=True)


def test_tensors_that_share_bytes_are_refused(path: Path) -> None:
    """A small file could ask for any amount of memory."""

    def repeated(document: Any) -> None:
        place = next(iter(document["tensors"].values()))
        document["tensors"].update({f"more {n}": place for n in range(1000)})

    rewrite(path, repeated)
    with pytest.raises(ArtifactError, match="tensors overlap"):
        open_artifact(path)


def test_a_header_of_nested_lists_is_refused(path: Path) -> None:
    data = path.read_bytes()
    header = b"[" * 100_000
    path.write_bytes(data[:16] + struct.pack("<Q", len(header)) + hashlib.sha256(header).digest() + header)
    with pytest.raises(ArtifactError):
        open_artifact(path)
