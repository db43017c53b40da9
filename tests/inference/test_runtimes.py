"""The runtimes: found by name, right in their outputs, harmless to the model."""

from __future__ import annotations

import copy
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.inference.rivals import Slow, images, lenet
from ticketsmith.errors import RecipeError
from ticketsmith.inference.runtimes import (
    BUILTINS,
    TOLERANCES,
    CannotRunError,
    Deployable,
    Deployment,
    Runtime,
    create,
    lined_up,
    precision_of,
)
from ticketsmith.inference.runtimes.csr import Csr
from ticketsmith.inference.runtimes.cuda import two_of_four
from ticketsmith.inference.runtimes.eager import Eager
from ticketsmith.inference.tables.footprint import footprint
from ticketsmith.models.lenet import lenet_300_100
from ticketsmith.pruning import masks
from ticketsmith.spec import PruneRule


@pytest.mark.parametrize("name", BUILTINS)
def test_the_built_in_runtimes_carry_their_names(name: str) -> None:
    runtime = create(name)
    assert isinstance(runtime, Runtime)
    assert runtime.name == name


def test_a_users_own_runtime_comes_by_its_dotted_name_with_options() -> None:
    runtime = create("tests.inference.rivals:Slow", {"times": 5})
    assert isinstance(runtime, Slow)
    assert runtime.times == 5


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("torch_crs", {}, "Did you mean 'torch_csr'"),
        ("torch_csr", {"sparsity": 0.5}, "no option 'sparsity'. Did you mean 'min_sparsity'"),
        ("torch_csr", {"min_sparsity": 90.0}, "between 0 and 1"),
        ("tests.inference.rivals:Nameless", {}, "no `name` and `prepare`"),
    ],
)
def test_wrong_names_and_options_are_told(name: str, options: dict[str, float], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        create(name, options)


CPU = ["torch", "torch_compile", "onnxruntime", "openvino", "sparse", "compact", "torch_csr"]


@pytest.mark.parametrize("name", [name for name in CPU if name != "torch_compile"])
def test_every_runtime_gives_the_outputs_of_a_pruned_network(name: str) -> None:
    model, inputs = lenet(0.9).eval(), images(3)
    with torch.no_grad():
        model.get_parameter("fc2.weight")[:, :7] = 0
    expected = Eager().prepare(model, inputs)(inputs)
    before = copy.deepcopy(model.state_dict())
    call = create(name).prepare(model, inputs)
    for _ in range(2):
        torch.testing.assert_close(call(inputs), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        ("torch", "bfloat16"),
        ("onnxruntime", "int8"),
        ("openvino", "bfloat16"),
        ("sparse", "bfloat16"),
        ("sparse", "int8"),
    ],
)
def test_low_precision_comes_close(name: str, precision: str) -> None:
    model, inputs = lenet(0.9).eval(), images(2)
    expected = Eager().prepare(model, inputs)(inputs)
    try:
        outputs = create(name, {"precision": precision}).prepare(model, inputs)(inputs)
    except CannotRunError as error:
        pytest.skip(str(error))  # a processor without bfloat16
    assert outputs.dtype == torch.float32
    error = float((outputs - expected).abs().max() / expected.abs().max())
    assert 0 < error < TOLERANCES[precision]


@pytest.mark.parametrize("name", ["torch", "onnxruntime", "openvino", "sparse"])
def test_a_deployed_file_serves_in_a_process_of_its_own(name: str, tmp_path: Path) -> None:
    model, inputs = lenet(0.9).eval(), images(2)
    runtime = create(name)
    assert isinstance(runtime, Deployable)
    deployment = runtime.deploy(model, inputs, tmp_path)
    served = deployment.load(1)(inputs.numpy())
    torch.testing.assert_close(torch.tensor(served), Eager().prepare(model, inputs)(inputs), rtol=1e-4, atol=1e-5)
    found = footprint(deployment, inputs.numpy(), 1, tmp_path)
    assert found is not None
    assert found.file_bytes == deployment.path.stat().st_size
    assert 10e6 < found.resident_bytes <= found.peak_bytes < 2e9
    assert found.load_ms > 0 < found.first_call_ms
    if name == "sparse":  # a bit for each weight, and a tenth of the values
        assert found.file_bytes < 0.2 * 4 * 266_610


def test_a_process_that_fails_gives_no_footprint(tmp_path: Path) -> None:
    missing = Deployment(tmp_path / "none.tsk", "ticketsmith.inference.loaders:sparse")
    assert footprint(missing, images(1).numpy(), 1, tmp_path) is None


def test_serving_the_sparse_file_imports_no_torch() -> None:
    modules = "ticketsmith.inference.tables.footprint, ticketsmith.inference.loaders, ticketsmith.engines.onnx_runtime"
    program = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_runtimes_are_named_with_options_and_taken_in_each_precision() -> None:
    found, notes = lined_up(("torch", "sparse,tuned=false", "torch_csr,min_sparsity=0.5"), ("float32", "int8"))
    assert [(runtime.name, getattr(runtime, "precision", "float32")) for runtime in found] == [
        ("torch", "float32"),
        ("sparse,tuned=false", "float32"),
        ("sparse,tuned=false", "int8"),
        ("torch_csr,min_sparsity=0.5", "float32"),
    ]
    assert notes == ["torch has no int8", "torch_csr has no int8"]
    assert lined_up(("sparse,precision=int8",), ("float32",))[0][0].precision == "int8"  # type: ignore[attr-defined]
    own, _ = lined_up(("tests.inference.rivals:Slow,times=4",), ("float32",))
    assert isinstance(own[0], Slow)
    assert own[0].times == 4


@pytest.mark.parametrize(
    ("texts", "precisions", "message"),
    [
        (("sparse,int8",), ("float32",), "NAME,OPTION=VALUE"),
        (("sparse,precision=int3",), ("float32",), "precision 'int3' is not one of float32, bfloat16, int8"),
        (("torch",), ("int8",), "no runtime is left to measure: torch has no int8"),
        (("spars",), ("float32",), "Did you mean 'sparse'"),
        (("compact,on=tpu",), ("float32",), "`on` is 'onnxruntime' or 'torch'"),
    ],
)
def test_wrong_runtimes_are_told(texts: tuple[str, ...], precisions: tuple[str, ...], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        lined_up(texts, precisions)


def test_what_a_runtime_lacks_is_said_with_the_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(CannotRunError, match=r'pip install "ticketsmith\[serve\]"'):
        create("onnxruntime").prepare(lenet(), images(1))
    with pytest.raises(CannotRunError, match="needs an NVIDIA GPU"):
        create("torch_24").prepare(lenet(), images(1))
    with pytest.raises(CannotRunError, match="needs an NVIDIA GPU"):
        create("cuda_graph").prepare(lenet(), images(1))


def test_an_operator_that_sparse_does_not_know_is_named() -> None:
    class Odd(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            return torch.sort(inputs, 1).values

    with pytest.raises(CannotRunError, match=r"the operator 'sort.* Serve this model with a dense runtime"):
        create("sparse").prepare(Odd(), torch.randn(2, 4))


def test_two_of_four_is_seen() -> None:
    weight = torch.ones(64, 64)
    assert not two_of_four(weight)
    weight[:, ::2] = 0
    assert two_of_four(weight)
    assert not two_of_four(weight[:32])  # too small for the tensor cores
    weight[3, 0] = 1.0
    assert not two_of_four(weight)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", ["torch", "cuda_graph", "torch_24", "torch_compile"])
def test_gpu_runtimes_give_the_outputs(name: str) -> None:
    model = nn.Sequential(nn.Linear(128, 256), nn.ReLU(), nn.Linear(256, 64)).cuda().eval()
    with torch.no_grad():
        model[0].weight[:, ::2] = 0
    inputs = torch.randn(64, 128, device="cuda")
    expected = Eager().prepare(model, inputs)(inputs)
    options = {"precision": "bfloat16"} if name == "cuda_graph" else {}
    runtime = create(name, options)
    call = runtime.prepare(model, inputs)
    for given in (inputs, -inputs):
        outputs = call(given).clone()
        close = TOLERANCES[precision_of(runtime)] * float(expected.abs().max())
        assert float((outputs - Eager().prepare(model, given)(given)).abs().max()) < close


@pytest.mark.parametrize("batch_size", [1, 7])
def test_csr_gives_the_outputs_of_a_pruned_lenet(batch_size: int) -> None:
    model = lenet_300_100((1, 28, 28), 10).eval()
    weights = {name: value for name, value in model.named_parameters() if value.dim() > 1}
    scores = {name: value.detach().abs() for name, value in weights.items()}
    kept = masks.prune(
        masks.full(weights), scores, PruneRule.model_validate({"criterion": "magnitude", "fraction": 0.9})
    )
    with torch.no_grad():
        for name, mask in kept.items():
            weights[name].mul_(mask)
    before = copy.deepcopy(model.state_dict())
    inputs = images(batch_size)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        call = Csr().prepare(model, inputs)
    torch.testing.assert_close(call(inputs), Eager().prepare(model, inputs)(inputs))
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert type(model.get_submodule("fc1")) is nn.Linear


def test_csr_leaves_convolutions_dense() -> None:
    output = nn.Linear(4 * 28 * 28, 10)
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Flatten(), output)
    with torch.no_grad():
        output.weight.mul_(torch.rand_like(output.weight) > 0.95)
    inputs = images(3)
    call = Csr().prepare(model, inputs)
    torch.testing.assert_close(call(inputs), Eager().prepare(model, inputs)(inputs))


def test_csr_takes_inputs_of_any_rank_shared_layers_and_layers_without_bias() -> None:
    layer = nn.Linear(128, 128, bias=False)
    with torch.no_grad():
        layer.weight.mul_(torch.rand_like(layer.weight) > 0.9)
    model = nn.Sequential(layer, nn.ReLU(), layer)
    inputs = torch.randn(2, 5, 128)
    call = Csr().prepare(model, inputs)
    torch.testing.assert_close(call(inputs), Eager().prepare(model, inputs)(inputs))


def test_csr_has_nothing_to_offer_a_dense_model() -> None:
    with pytest.raises(CannotRunError, match="no linear layer"):
        Csr().prepare(lenet(), images(1))


def test_csr_leaves_layers_alone_that_do_more_than_multiply() -> None:
    class Doubled(nn.Linear):
        def forward(self, inputs: Tensor) -> Tensor:
            return 2 * super().forward(inputs)

    layer = Doubled(128, 128)
    nn.init.zeros_(layer.weight)
    hooked = nn.Linear(128, 128)
    nn.init.zeros_(hooked.weight)
    hooked.register_forward_hook(lambda module, inputs, output: output + 1)
    with pytest.raises(CannotRunError):
        Csr().prepare(nn.Sequential(layer, hooked), torch.randn(1, 128))


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_a_model_that_takes_the_size_of_its_batch_for_a_constant_is_written_for_that_size(name: str) -> None:
    pytest.importorskip(name)

    class Folded(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            return inputs.reshape(len(inputs), -1) * len(inputs)

    inputs = torch.rand(5, 2, 3)
    torch.testing.assert_close(create(name).prepare(Folded(), inputs)(inputs), Folded()(inputs))
