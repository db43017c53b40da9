"""Compaction: what nothing depends on is gone, and the outputs are what they were."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ticketsmith.inference.compact import NothingToRemoveError, compact
from ticketsmith.models import create


def _settled(model: nn.Module, seed: int = 0) -> nn.Module:
    """In evaluation mode, with biases and running statistics as training leaves them: none is zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith("running_var"):
                tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
            elif tensor.dim() == 1:
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.5)
    return model.eval()


def _pruned(model: nn.Module, share: float, seed: int = 0) -> nn.Module:
    """``share`` of the rows of each layer, and of its columns, are zeros, and 60 % of the other weights."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in (tensor for tensor in model.parameters() if tensor.dim() > 1):
            weight.mul_(torch.rand(weight.shape, generator=generator) > 0.6)
            weight[torch.rand(len(weight), generator=generator) < share] = 0
            weight[:, torch.rand(weight.shape[1], generator=generator) < share] = 0
    return model


def _size(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _check(model: nn.Module, shape: tuple[int, ...]) -> nn.Module:
    """Compacts, and compares the outputs at another batch size than the example's."""
    before = copy.deepcopy(model.state_dict())
    smaller = compact(model, torch.zeros(2, *shape))
    inputs = torch.randn(5, *shape, generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        torch.testing.assert_close(smaller(inputs), model(inputs), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert _size(smaller) < _size(model)
    return smaller


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("lenet_300_100", (1, 12, 12)),
        ("mnist_cnn", (1, 28, 28)),
        ("conv4", (3, 16, 16)),
        ("resnet20", (3, 16, 16)),
        ("vgg16", (3, 32, 32)),
    ],
)
def test_the_built_in_models_keep_their_outputs(name: str, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    model = _pruned(_settled(create(name, {}, shape, 10)), 0.3)
    smaller = _check(model, shape)
    assert _size(smaller) < 0.8 * _size(model)


@pytest.mark.parametrize("seed", range(12))
def test_any_pattern_of_zeros_keeps_the_outputs(seed: int) -> None:
    torch.manual_seed(seed)
    model = _pruned(_settled(create("resnet20", {"width": 4}, (2, 9, 7), 5), seed), 0.1 + 0.07 * seed, seed)
    _check(model, (2, 9, 7))


def test_what_is_removed_is_what_is_dead() -> None:
    model = _settled(nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)))
    with torch.no_grad():
        model[2].weight[:, 1] = 0  # unit 1 is not read
        model[0].weight[3] = 0  # unit 3 is a constant
        model[4].weight[:, 2] = 0  # so the second layer's unit 2 goes,
        model[2].weight[:, 0] = 0
        model[2].weight[2, 0] = 1.0  # and with it unit 0, which only it read
    smaller = _check(model, (6,))
    shapes = [tuple(one.weight.shape) for one in smaller.modules() if isinstance(one, nn.Linear)]
    assert shapes == [(2, 6), (3, 2), (3, 3)]


def test_a_constant_channel_before_a_border_stays() -> None:
    """With zeros around the image a constant adds less at the border: no bias can take that over."""
    model = _settled(nn.Sequential(nn.Conv2d(2, 4, 3), nn.Conv2d(4, 3, 3, padding=1)))
    with torch.no_grad():
        model[0].weight[1] = 0
        model[0].bias[1] = 0.7
    with pytest.raises(NothingToRemoveError, match="every unit and channel is needed"):
        compact(model, torch.zeros(1, 2, 8, 8))
    without_border = nn.Sequential(model[0], nn.Conv2d(4, 3, 3))
    assert _check(without_border, (2, 8, 8)).get_submodule("0").weight.shape[0] == 3
    with torch.no_grad():
        model[0].bias[1] = -0.7  # behind a ReLU that is zero
    assert _check(nn.Sequential(model[0], nn.ReLU(), model[1]), (2, 8, 8)).get_submodule("0").weight.shape[0] == 3


class _Depthwise(nn.Module):
    """Depthwise and pointwise convolutions, a mean over the image, a view by the batch's size."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.deep, self.point = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 6, 1)
        self.hidden, self.output = nn.Linear(6 * 16, 10), nn.Linear(10, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        features = F.relu6(self.norm(self.stem(inputs)))
        features = F.avg_pool2d(F.silu(self.point(self.deep(features))), 2)
        return self.output(torch.tanh(self.hidden(features.view(features.size(0), -1))))


def test_depthwise_convolutions_and_views() -> None:
    torch.manual_seed(3)
    smaller = _check(_pruned(_settled(_Depthwise()), 0.3, seed=3), (3, 8, 8))
    deep = smaller.get_submodule("deep")
    assert isinstance(deep, nn.Conv2d)
    assert deep.groups == deep.in_channels == deep.out_channels < 8


def test_around_what_is_not_understood_everything_stays() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 2)

        def forward(self, inputs: Tensor) -> Tensor:
            return self.c(torch.relu(self.b(torch.softmax(self.a(inputs), 1))))

    model = _settled(Odd())
    with torch.no_grad():
        model.a.weight[2] = 0
        model.b.weight[:, 3] = 0  # not read, but the softmax over it is
        model.b.weight[4] = 0
    smaller = _check(model, (4,))
    assert (smaller.a.out_features, smaller.b.out_features, smaller.c.in_features) == (6, 5, 5)  # type: ignore[union-attr]


def test_tokens_and_shared_layers() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down, self.twice = nn.Linear(6, 12), nn.Linear(12, 6), nn.Linear(6, 6)

        def forward(self, inputs: Tensor) -> Tensor:
            return self.twice(torch.relu(self.twice(inputs + self.down(F.gelu(self.up(inputs))))))

    model = _settled(Tokens())
    with torch.no_grad():
        model.up.weight[:4] = 0
        model.twice.weight[:, 1] = 0
    smaller = _check(model, (3, 6))
    assert (smaller.up.out_features, smaller.down.out_features) == (8, 6)  # type: ignore[union-attr]


def test_a_network_that_is_all_dead_still_runs() -> None:
    model = _settled(nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)))
    with torch.no_grad():
        model[2].weight.zero_()
    assert _check(model, (4,)).get_submodule("0").weight.shape == (1, 4)


def test_what_cannot_be_made_smaller_says_why() -> None:
    with pytest.raises(NothingToRemoveError, match="every unit"):
        compact(_settled(nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))), torch.zeros(1, 4))

    class Branching(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            return inputs if inputs.sum() > 0 else -inputs

    with pytest.raises(NothingToRemoveError, match=r"torch\.fx cannot trace this model"):
        compact(Branching(), torch.zeros(1, 4))


def test_a_weight_that_is_taken_by_itself_stays_as_it_is() -> None:
    class Taken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.other = nn.Linear(8, 8, bias=False), nn.Linear(8, 4), nn.Linear(4, 4)

        def forward(self, inputs: Tensor) -> Tensor:
            return self.other(self.second(torch.relu(self.first(inputs)))) + F.linear(inputs, self.first.weight)[:, :4]

    model = Taken().eval()
    with torch.no_grad():
        model.first.weight[:4] = 0
        model.other.weight[:, 1] = 0
    smaller = _check(model, (8,))
    assert smaller.get_parameter("first.weight").shape == (8, 8)
