"""The runtimes: found by name, right in their outputs, harmless to the model."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import Tensor, nn

from tests.inference.rivals import Slow, images, lenet
from ticketsmith.errors import RecipeError
from ticketsmith.inference.csr import Csr
from ticketsmith.inference.eager import Eager
from ticketsmith.inference.runtimes import BUILTINS, CannotRunError, Runtime, create
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
