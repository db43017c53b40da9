"""Layers of SparseProp (Nikdan et al. 2023) and sparselab in place of a pruned network's own: rivals of ``benchmarks.train``.

    pip install --no-deps --target DIR sparselab
    pip install --target HEADERS pybind11
    CPLUS_INCLUDE_PATH=HEADERS/pybind11/include pip install --no-deps --target DIR sparseprop

PyTorch trains the rest. SparseProp takes layers with more than 80 % of zeros and strides of 1 and 2, and chooses between its
kernels and the dense layer by a measurement of its own. sparselab has linear layers alone, and draws their masks itself.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable

from torch import nn


def _sparseprop(model: nn.Module, inputs: tuple[int, ...]) -> nn.Module:
    from sparseprop.utils import swap_modules_with_sparse  # type: ignore[import-not-found]

    layers = [(path, layer) for path, layer in model.named_modules() if isinstance(layer, nn.Conv2d)]
    unknown = ",".join(path for path, layer in layers if layer.stride[0] > 2)
    with contextlib.redirect_stdout(io.StringIO()):  # it tells of each layer
        swapped: nn.Module = swap_modules_with_sparse(model, inputs, skip_modules=unknown)
    return swapped


def _sparselab(model: nn.Module, inputs: tuple[int, ...]) -> nn.Module:
    from sparselab import SparseLinear  # type: ignore[import-not-found]

    for path, layer in list(model.named_modules()):
        if isinstance(layer, nn.Linear) and (zeros := float((layer.weight == 0).float().mean())) > 0:
            sparse = SparseLinear(layer.in_features, layer.out_features, layer.bias is not None, zeros)
            model.set_submodule(path, sparse)
    return model


LIBRARIES: dict[str, Callable[[nn.Module, tuple[int, ...]], nn.Module]] = {
    "sparseprop": _sparseprop,
    "sparselab": _sparselab,
}
"""By the name of the package: a pruned network, and the shape of a batch of its inputs, to the network that is trained."""
