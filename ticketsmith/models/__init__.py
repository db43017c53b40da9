"""Networks of the lottery-ticket papers, and the door for a user's own ``nn.Module``.

A model is a callable ``(input_shape, classes, **options) -> nn.Module``. A user's own class may leave out
``input_shape`` or ``classes`` if it does not need them.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import nn

from ticketsmith.errors import TaskError
from ticketsmith.memory import SMALL
from ticketsmith.models.size import Bounded
from ticketsmith.plugins import build, failure, foreign, resolve, signature, source_fingerprint, telling

BUILTINS = {
    "lenet_300_100": "ticketsmith.models.lenet:lenet_300_100",
    "mlp": "ticketsmith.models.lenet:LeNet",
    "mnist_cnn": "ticketsmith.models.cnn:MnistCnn",
    "conv2": "ticketsmith.models.conv:conv2",
    "conv4": "ticketsmith.models.conv:conv4",
    "conv6": "ticketsmith.models.conv:conv6",
    "resnet20": "ticketsmith.models.resnet:ResNet20",
    "vgg16": "ticketsmith.models.vgg:VGG16",
    "unet": "ticketsmith.models.unet:UNet",
    "gpt": "ticketsmith.models.gpt:GPT",
}


_small: set[str] = set()
"""Models that were built in this process, of small tensors only: nobody needs to ask for each of these again."""


def create(name: str, options: Mapping[str, Any], input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """A fresh model for inputs of ``input_shape`` (without the batch) and ``classes`` logits (of language: each token's).

    Raises RecipeError for an unknown name or option, TaskError when the model cannot be built.
    """
    accepted = signature(resolve("model", name, BUILTINS)).parameters
    facts = {"input_shape": input_shape, "classes": classes}
    facts = {key: value for key, value in facts.items() if key in accepted and key not in options}
    what = f"task.model {name!r} cannot be built for inputs of shape {input_shape}"
    which = repr((name, options, input_shape, classes))
    bounded = Bounded()
    within: AbstractContextManager[object] = nullcontext() if which in _small else bounded
    with foreign(lambda error: TaskError(f"{what}: {failure(error)}")), within:
        model = build("model", name, BUILTINS, options, **facts)
    if bounded.largest <= SMALL:
        _small.add(which)
    if not isinstance(model, nn.Module):
        raise TaskError(f"task.model {name!r} gives a {type(model).__name__}, not a torch.nn.Module.")
    return model


def identity(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """What of a model enters a run's key: name, options that are not at their default, the source of a user's own."""
    parameters = signature(resolve("model", name, BUILTINS)).parameters
    source = source_fingerprint(name)
    return {"name": name, **telling(parameters, options), **({"source": source} if source else {})}
