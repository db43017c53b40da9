"""Single layers of a network that the kernels do not follow as a whole: which may be swapped, and a learner that has swapped
them.

A layer may be swapped when nothing but its own ``forward`` looks at its weight, which a loss of two examples tells: all that
PyTorch computes of it passes by, whatever module or loss it came from.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from ticketsmith.models.state import load, snapshot
from ticketsmith.native import best_isa
from ticketsmith.pruning.weights import copied
from ticketsmith.spec import Training
from ticketsmith.tasks.task import Batch, Task
from ticketsmith.training.learner import TorchLearner
from ticketsmith.training.native.calls import set_threads
from ticketsmith.training.native.functions import Functions, name_of
from ticketsmith.training.native.quick_adam import hasten
from ticketsmith.training.native.recognise import has_hooks
from ticketsmith.training.native.rule import swapped
from ticketsmith.training.native.sparse_layer import layer_of, sparse

_EXAMPLES = 2
_PYTORCHS = ("ranks", "compile", "dtype")
"""Fields that leave nothing to swap where they are not at their default."""


@dataclass(frozen=True)
class Swap:
    """What of a network the kernels can compute: the weights of linear layers and convolutions, with the number of rows or
    pixels that such a layer gives in a step; and names of ``functions``."""

    rows: Mapping[str, int]
    functions: tuple[str, ...]

    def sparse(self, masks: Mapping[str, Tensor]) -> list[str]:
        """The weights that are sparse enough, by the rule."""
        return [name for name, count in self.rows.items() if swapped(masks[name].numpy(), count)]


_NOTHING = Swap({}, ())


def swappable(model: nn.Module, task: Task, training: Training, masks: Mapping[str, Tensor]) -> Swap:
    """Of the weights in ``masks``. It follows from the arguments alone, and not from how much is pruned. The model stays as it
    is."""
    if any(getattr(training, name) != Training.model_fields[name].default for name in _PYTORCHS):
        return _NOTHING
    names = [name for name, module in _layers(model).items() if name in masks and _is_plain(module)]
    every = [id(parameter) for _, parameter in model.named_parameters(remove_duplicate=False)]
    names = [name for name in names if every.count(id(model.get_parameter(name))) == 1]
    examples = min(_EXAMPLES, task.train_size)
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        try:
            twin = copied(model).train()
            uses = _Uses({name: module for name, module in _layers(twin).items() if name in names})
            batch = task.batch(torch.arange(examples), torch.device("cpu"), generator)
            with uses:
                task.loss(twin, batch, generator)
        except Exception:  # a task or a model of a user's own may not take so few examples, or not be copied
            return _NOTHING
    share = training.batch_size / training.accumulate / examples
    rows = {name: round(count * share) for name, count in uses.alone().items()}
    return Swap(rows, tuple(sorted(uses.functions)))


def _layers(model: nn.Module) -> dict[str, nn.Module]:
    return {
        f"{path}.weight" if path else "weight": module
        for path, module in model.named_modules()
        if layer_of(module) is not None
    }


def _is_plain(layer: nn.Module) -> bool:
    weight = layer.get_parameter("weight")
    own = "forward" in vars(layer) or has_hooks(layer)
    hooked = weight._backward_hooks or getattr(weight, "_post_accumulate_grad_hooks", None)
    return weight.requires_grad and weight.dtype is torch.float32 and not own and not hooked


class _Uses(TorchFunctionMode):
    """Who looks at the weights of layers, while it is on."""

    def __init__(self, layers: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self._names = {id(layer.weight): name for name, layer in layers.items()}
        self._calls = dict.fromkeys(layers, 0)
        self._uses = dict.fromkeys(layers, 0)
        self._rows = dict.fromkeys(layers, 0)
        self.functions: set[str] = set()
        for name, layer in layers.items():
            layer.register_forward_pre_hook(lambda *_, name=name: self._count(name))

    def _count(self, name: str) -> None:
        self._calls[name] += 1

    def alone(self) -> dict[str, int]:
        """Rows of those whose weight their own ``forward`` reads and nobody else does."""
        return {name: rows for name, rows in self._rows.items() if self._uses[name] == self._calls[name] > 0}

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if name := name_of(function):
            self.functions.add(name)
        mine = [name for leaf in tree_leaves((args, kwargs)) if (name := self._names.get(id(leaf)))]
        result = function(*args, **kwargs)
        for name in mine:
            alone = len(mine) == 1 and len(args) > 1 and self._names.get(id(args[1])) == name
            if alone and (function is F.linear or (function is torch.conv2d and args[0].dim() == 4)):
                self._uses[name] += 1
                self._rows[name] += result.numel() // len(args[1])
            else:
                self._uses[name] = -1_000_000
        return result


class SwapLearner(TorchLearner):
    """A learner by PyTorch, of whose layers kernels compute those whose weights ``names`` has, and ``functions`` that they know.

    The layers' parameters are surviving weights, and so is what the optimizer and the average remember of them; the model's
    state has the form that it had. A task that measures by means of its own is given a module of PyTorch with the weights in it.
    """

    def __init__(
        self,
        task: Task,
        model: nn.Module,
        masks: Mapping[str, Tensor],
        training: Training,
        names: Collection[str],
        functions: bool,
        threads: int = 1,
    ) -> None:
        self._functions = functions
        self._shown = None if _measured_here(task) else copied(model)
        for name in names:
            sparse(model.get_submodule(name.rpartition(".")[0]), masks[name])
        super().__init__(task, model, {name: mask for name, mask in masks.items() if name not in names}, training)
        hasten(self.optimizer)
        self.kernels, self.threads = best_isa().name.lower(), threads
        set_threads(threads)

    def _backward(self, batch: Batch, generator: torch.Generator) -> Tensor:
        with (
            Functions() if self._functions else nullcontext()
        ):  # backward too, for which activations may be computed anew
            return super()._backward(batch, generator)

    @property
    def _result(self) -> nn.Module:
        return self.model if self.average is None else self.average.model

    @property
    def result(self) -> nn.Module:
        if self._shown is None:
            return self._result
        load(self._shown, snapshot(self._result))
        return self._shown

    def state(self, raw: bool = False) -> dict[str, Tensor]:
        return snapshot(self.model if raw else self._result)

    def load(self, state: Mapping[str, Tensor]) -> None:
        load(self._result, state)


def _measured_here(task: Task) -> bool:
    """Whether all that measures a model is this package's, which looks at outputs alone."""
    measures = (getattr(task, name, None) for name in ("evaluate", "evaluate_final", "samples"))
    return all(one is None or str(getattr(one, "__module__", "")).startswith("ticketsmith.") for one in measures)
