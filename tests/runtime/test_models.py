"""Whole networks: those of the papers, with trained and with random masks; calls from many threads; what is refused."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.runtime.networks import ISAS, Gpt, assert_same, sparse
from ticketsmith.errors import RecipeError
from ticketsmith.inference.runtimes import CannotRunError, create
from ticketsmith.models import create as create_model
from ticketsmith.native import Isa, best_isa
from ticketsmith.pruning import masks
from ticketsmith.runtime import formats
from ticketsmith.runtime.artifact import save
from ticketsmith.runtime.calibrate import calibrated
from ticketsmith.runtime.from_torch import UnsupportedError, from_torch
from ticketsmith.runtime.model import PRECISIONS, Model
from ticketsmith.runtime.program import InputError
from ticketsmith.runtime.tune import choices, tune
from ticketsmith.sparse.pattern import Pattern
from ticketsmith.sparse.sell import Sell
from ticketsmith.spec import PruneRule

pytestmark = pytest.mark.skipif(not ISAS, reason="the kernels are not built")
NETWORKS = [(name, (1, 28, 28)) for name in ("lenet_300_100", "mlp", "mnist_cnn")] + [
    (name, (3, 32, 32)) for name in ("conv2", "conv4", "conv6", "resnet20", "vgg16")
]


@pytest.mark.parametrize(("name", "shape"), NETWORKS)
def test_the_networks_of_the_papers(name: str, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    model = sparse(create_model(name, {}, shape, 10), 0.1)
    for batch in (1, 2, 9) if name != "vgg16" else (1, 2):
        assert_same(model, torch.randn(batch, *shape), threads=(1, 2))


@pytest.mark.parametrize("isa", ISAS)
def test_a_language_model(isa: Isa) -> None:
    torch.manual_seed(0)
    model, tokens = sparse(Gpt(), 0.3), torch.randint(0, 40, (3, 21))
    ready = assert_same(model, tokens, [isa])
    with pytest.raises(InputError, match="vocabulary"):
        ready(np.full((1, 21), 40))
    with pytest.raises(InputError, match="vocabulary"):
        ready(np.full((2, 21), -1))


def test_the_masks_of_iterative_magnitude_pruning() -> None:
    torch.manual_seed(0)
    model = create_model("lenet_300_100", {}, (1, 28, 28), 10)
    inputs, labels = torch.randn(256, 1, 28, 28), torch.randint(0, 10, (256,))
    weights = {name: value for name, value in model.named_parameters() if value.dim() > 1}
    kept = masks.full(weights)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(5):
        for _ in range(4):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs), labels).backward()
            optimizer.step()
        scores = {name: value.detach().abs() for name, value in weights.items()}
        rule = PruneRule.model_validate({"criterion": "magnitude", "fraction": 0.4})
        kept = masks.prune(kept, scores, rule)
        with torch.no_grad():
            for name, mask in kept.items():
                weights[name].mul_(mask)
    for batch in (1, 32):
        assert_same(model.eval(), inputs[:batch])


def test_layers_are_measured_and_the_choice_is_kept() -> None:
    torch.manual_seed(0)
    network = sparse(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 16)), 0.2)
    inputs = torch.randn(1, 3, 8, 8)
    measured = tune(from_torch(network, inputs), rounds=2, batches=())
    assert {one.key.partition(":")[0] for one in measured} == {"planes", "vector", "lanes"}
    for one in measured:
        assert one.choice in one.seconds
        assert min(one.seconds.values()) > 0
    assert_same(network, inputs, choices=[choices(measured)])


@pytest.mark.parametrize("threads", [1, 2])
def test_many_threads_may_call_one_model(threads: int) -> None:
    torch.manual_seed(0)
    network = sparse(create_model("resnet20", {}, (3, 32, 32), 10), 0.1)
    batches = [torch.randn(1 + index % 3, 3, 32, 32) for index in range(8)]
    model = Model(from_torch(network, batches[0]), threads=threads)
    with torch.inference_mode():
        expected = [network(batch).numpy() for batch in batches]
    wrong: list[int] = []

    def caller(index: int) -> None:
        for _ in range(10):
            if not np.allclose(model(batches[index].numpy()), expected[index], atol=1e-4):
                wrong.append(index)

    callers = [threading.Thread(target=caller, args=(index,)) for index in range(len(batches))]
    for one in callers:
        one.start()
    for one in callers:
        one.join()
    assert not wrong


def test_inputs_of_other_kinds_are_taken_or_refused() -> None:
    model = Model(from_torch(nn.Linear(6, 4).eval(), torch.zeros(1, 6)))
    inputs = torch.randn(5, 6)
    outputs = model(inputs.numpy())
    np.testing.assert_array_equal(model(inputs), outputs)  # DLPack
    np.testing.assert_allclose(model(inputs.double().numpy()), outputs, atol=1e-6)
    np.testing.assert_allclose(model(np.asfortranarray(inputs.numpy())), outputs, atol=1e-6)
    np.testing.assert_allclose(model(inputs.repeat_interleave(2, 1).numpy()[:, ::2]), outputs, atol=1e-6)
    assert model(np.zeros((0, 6), np.float32)).shape == (0, 4)
    numbers = (np.array(1.0, np.float32), np.float32(1))
    shapes = (np.zeros((1, 7), np.float32), np.zeros(6, np.float32))
    for bad in (*shapes, *numbers, np.zeros((1, 6), np.int64), [[0.0] * 6]):
        for _ in range(2):  # also once the fast way is there
            with pytest.raises(InputError):
                model(bad)
            model(np.zeros((1, 6), np.float32))


class Strangest(nn.Module):
    """Sorts."""

    def forward(self, x: Tensor) -> Tensor:
        return x.sort(1)[0]


class Strange(nn.Module):
    """Uses what the runtime does not know."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(6, 6), nn.Softsign(), Strangest())

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


def test_an_unknown_operator_is_named_with_its_place_and_a_way_out() -> None:
    with pytest.raises(UnsupportedError, match=r"sort.*inner\.2.*dense runtime"):
        from_torch(Strange(), torch.zeros(1, 6))
    with pytest.raises(CannotRunError, match="sort"):
        create("sparse").prepare(Strange(), torch.zeros(1, 6))


@pytest.mark.parametrize(
    "module",
    [
        nn.ConvTranspose2d(3, 4, 3, padding=3),
        nn.MaxPool2d(2, dilation=2),
        nn.AvgPool2d(2, divisor_override=3),
        nn.AdaptiveMaxPool2d(2),
        nn.Softmax(0),
        nn.BatchNorm2d(3, track_running_stats=False),
    ],
    ids=str,
)
def test_what_is_used_in_another_way_is_refused_rather_than_computed_wrong(module: nn.Module) -> None:
    with pytest.raises(UnsupportedError):
        from_torch(module, torch.zeros(1, 3, 5, 5))


def test_the_runtime_of_the_benchmark_gives_the_models_outputs() -> None:
    torch.manual_seed(0)
    network = sparse(create_model("mnist_cnn", {}, (1, 28, 28), 10), 0.2)
    for batch in (1, 32):
        inputs = torch.randn(batch, 1, 28, 28)
        with torch.inference_mode():
            torch.testing.assert_close(create("sparse").prepare(network, inputs)(inputs), network(inputs))


@pytest.mark.parametrize("options", [{"threads": 0}, {"precision": "fp8"}])
def test_senseless_settings_are_told(options: dict[str, object]) -> None:
    with pytest.raises(RecipeError):
        Model(from_torch(nn.Linear(2, 2), torch.zeros(1, 2)), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("outputs", [37, 64, 130])
def test_rows_of_very_different_numbers_of_weights(outputs: int) -> None:
    """As iterative pruning leaves them: those of about as many are put together, and their outputs go back."""

    class Uneven(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(300, outputs), nn.Linear(outputs, outputs)
            with torch.no_grad():
                for layer in (self.first, self.second):
                    density = torch.linspace(0, 1, outputs)[torch.randperm(outputs)] ** 3
                    layer.weight.mul_(torch.rand_like(layer.weight) < density[:, None])

        def forward(self, x: Tensor) -> Tensor:
            x = F.gelu(self.first(x))
            return x + self.second(x)

    torch.manual_seed(0)
    network, inputs = Uneven().eval(), torch.randn(1, 300)
    assert Sell.of(Pattern.of(network.first.weight.detach().numpy())).order is not None
    graph = from_torch(network, inputs)
    named = [{f"vector:{node.output}": name for node in graph.nodes} for name in ("sell", "sell_wide")]
    tolerances = {"float32": 1e-5, "bfloat16": 0.01, "int8": 0.03, "int4": 0.2, "int8_dot": 0.04, "int4_dot": 0.2}
    for precision in PRECISIONS:
        assert_same(network, inputs, ISAS, named, (1, 2), tolerances[precision], precision, graph)


_SUMS = """
import sys
import numpy as np
from ticketsmith import runtime

folder, name, *files = sys.argv[1:]
for file in files:
    model = runtime.load(f"{folder}/{file}.tsk")
    for batch in (1, 32):
        np.save(f"{folder}/{name}-{file}-{batch}.npy", model(np.load(f"{folder}/{batch}.npy")))
"""


def test_whole_numbers_are_the_same_with_and_without_instructions_for_them(tmp_path: Path) -> None:
    torch.manual_seed(0)
    layers = sparse(nn.Sequential(nn.Linear(300, 140), nn.ReLU(), nn.Linear(140, 40)), 0.3)
    graph, files = from_torch(layers, torch.zeros(1, 300)), ("int8_dot", "int4_dot", "static")
    assert formats.dot_pays(graph.parameter(graph.nodes[0], "weight"))  # in a batch, too
    for precision in files[:2]:
        save(tmp_path / f"{precision}.tsk", graph, precision=precision)
    for batch in (1, 32):
        np.save(tmp_path / f"{batch}.npy", np.random.default_rng(batch).standard_normal((batch, 300), np.float32))
    known = calibrated(graph, [np.load(tmp_path / "32.npy") / 3])  # what is beyond is cut off alike
    save(tmp_path / "static.tsk", known, precision="int8_dot")
    machines = [*((isa.name, "1") for isa in ISAS), (best_isa().name, "0")]
    for isa, vnni in machines:
        environment = {**os.environ, "TICKETSMITH_ISA": isa.lower(), "TICKETSMITH_VNNI": vnni}
        subprocess.run([sys.executable, "-c", _SUMS, str(tmp_path), isa + vnni, *files], env=environment, check=True)
    for file, batch in itertools.product(files, (1, 32)):
        first, *others = (np.load(tmp_path / f"{isa}{vnni}-{file}-{batch}.npy") for isa, vnni in machines)
        for other in others:  # the sums are whole; what follows them rounds
            np.testing.assert_allclose(other, first, rtol=0, atol=1e-6 * np.abs(first).max(), err_msg=file)


@pytest.mark.parametrize("isa", ISAS, ids=str)
def test_known_ranges_cut_off_what_is_beyond(isa: Isa) -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU(), nn.Conv2d(8, 4, 1)).eval()
    example = torch.rand(1, 8, 20, 20)
    graph = calibrated(from_torch(layers, example), [example.numpy()])
    assert graph.ranges[graph.input] == (0.0, float(example.max()))
    for name in formats.WHOLE_FORMATS:
        formats_of_all = {f"planes:{node.output}": name for node in graph.nodes}
        model = Model(graph, formats_of_all, precision="int8_dot", isa=isa)
        beyond = torch.cat([example, torch.where(example > 0.5, 1e9, -1e9)]).numpy()
        ends = np.clip(beyond, *graph.ranges[graph.input]).astype(np.float32)
        np.testing.assert_array_equal(model(beyond), model(ends))


def test_an_input_that_is_not_finite_is_not_hidden_by_rounding() -> None:
    model = Model(from_torch(nn.Linear(20, 3), torch.zeros(1, 20)), precision="int8_dot")
    inputs = np.ones((1, 20), np.float32)
    inputs[0, 7] = np.inf
    assert np.isnan(model(inputs)).all()
    inputs[0, 7] = 1
    assert np.isfinite(model(inputs)).all()
