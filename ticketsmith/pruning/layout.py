"""How the weights of a parameter belong together: layers that are stacked in it, outputs and inputs, N:M neighbours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ticketsmith.pruning.schedule import check_inputs


@dataclass(frozen=True)
class Layout:
    """How the weights of a parameter belong together.

    ``inputs``: the axis along which its inputs lie, 1 in ``[out, in, ...]``, 0 in transposed convolutions and in the
    ``Conv1D`` of GPT-2 ``[in, out, ...]``, None where there is none (biases, embeddings). ``groups``: those of a transposed
    convolution ``[in, out / groups, ...]``. ``parts``: the names of equal layers that are stacked along axis 0, as in the
    ``in_proj_weight`` of attention. ``normed``: an axis; each of its slices keeps a weight, since its norm must not be zero
    (weight norm). ``names``: further names by which patterns may call the parameter.
    """

    inputs: int | None = None
    groups: int = 1
    parts: tuple[str, ...] = ()
    normed: int | None = None
    names: tuple[str, ...] = ()

    def ends(self, shape: torch.Size) -> tuple[int, int]:
        """The number of outputs, and that of the inputs that each has."""
        if self.inputs is None:
            return 1, 0
        if self.inputs == 1:
            return shape[0], shape[1]
        return shape[1] * self.groups, shape[0] // self.groups


PLAIN = Layout()
"""That of a parameter of which nothing is known: one group of weights."""

Layouts = Mapping[str, Layout]
"""By parameter name; what is not named is PLAIN."""


def rows(shape: torch.Size, layout: Layout) -> Tensor:
    """Flat indices of a parameter, ``[outputs, weights of an output]``; one row where there are no outputs."""
    if layout.inputs is None:
        return _indices(shape).view(1, -1)
    if layout.inputs == 1:
        return _indices(shape).flatten(1)
    return _by_input(shape, layout).movedim(1, 2).flatten(0, 1).flatten(1)


def columns(shape: torch.Size, layout: Layout) -> Tensor:
    """Flat indices of a parameter with inputs, ``[inputs of an output, weights that meet the input]``."""
    return _by_input(shape, layout).movedim(1, 0).flatten(1)


def neighbours(name: str, shape: torch.Size, layout: Layout, m: int) -> Tensor:
    """Flat indices of a parameter in groups that meet ``m`` consecutive inputs of an output, ``[groups, m]``.

    Raises PruningError when the inputs are no multiple of ``m``, or there are none.
    """
    check_inputs(name, layout.ends(shape)[1], m)
    return _by_input(shape, layout).movedim(1, -1).reshape(-1, m)


def blocks(shape: torch.Size, layout: Layout, block: tuple[int, int]) -> Tensor:
    """Flat indices of a parameter with inputs in blocks of ``(outputs, inputs)`` at one place of a kernel, row of blocks after
    row: ``[rows of blocks, blocks of a row, weights of a block]``. A block at the edge is what is left of it: -1 beyond."""
    height, width = block
    index = _by_input(shape, layout)
    index = index[None] if layout.inputs == 1 else index.movedim(1, 2)  # [groups, outputs, inputs, ...]
    index = index.reshape(*index.shape[:3], -1)
    index = F.pad(index, (0, 0, 0, -index.shape[2] % width, 0, -index.shape[1] % height), value=-1)
    groups, outputs, inputs, taps = index.shape
    index = index.view(groups, outputs // height, height, inputs // width, width, taps)
    return index.permute(0, 1, 3, 5, 2, 4).reshape(groups * outputs // height, inputs // width * taps, height * width)


def slices(shape: torch.Size, axis: int) -> Tensor:
    """Flat indices of a parameter, ``[size of the axis, weights]``."""
    return _indices(shape).movedim(axis, 0).flatten(1)


def _by_input(shape: torch.Size, layout: Layout) -> Tensor:
    """``[outputs, inputs, ...]``; where inputs come first, ``[groups, inputs of a group, outputs of a group, ...]``."""
    return _indices(shape) if layout.inputs == 1 else _indices(shape).view(layout.groups, -1, *shape[1:])


def _indices(shape: torch.Size) -> Tensor:
    return torch.arange(shape.numel()).view(shape)


def split(tensors: Mapping[str, Tensor], layouts: Layouts) -> dict[str, Tensor]:
    """Views of the layers that parameters consist of, by name: most are one layer."""
    layers: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        parts = layouts.get(name, PLAIN).parts
        layers |= dict(zip(parts, tensor.chunk(len(parts)), strict=True)) if parts else {name: tensor}
    return layers


def joined(layers: Mapping[str, Tensor], names: Mapping[str, object], layouts: Layouts) -> dict[str, Tensor]:
    """The inverse of ``split``, for the parameters ``names``."""
    return {
        name: torch.cat([layers[part] for part in parts]) if (parts := layouts.get(name, PLAIN).parts) else layers[name]
        for name in names
    }


def of_layers(names: Mapping[str, object], layouts: Layouts) -> dict[str, Layout]:
    """The layout of each layer that ``split`` gives; the name of the parameter is one of its names."""
    layers: dict[str, Layout] = {}
    for name in names:
        layout = layouts.get(name, PLAIN)
        for part in layout.parts or (name,):
            aliases = tuple(dict.fromkeys((part, name, *layout.names)))
            layers[part] = Layout(layout.inputs, layout.groups, (), layout.normed, aliases)
    return layers
