"""What this machine can do at most: arithmetic and reading, measured by the best of what is installed.

The peaks are those that libraries reach, not those of a data sheet: the highest rate of several well-tuned kernels.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch.nn import functional as F

from ticketsmith.engines import installed, onnx_runtime
from ticketsmith.evidence.serving import Peaks

_SECONDS = 0.05
_SIZE = 384
_BUFFERS = (2**17, 2**19, 2**21, 2**23, 2**25, 2**27)
"""Bytes that are read again and again: from the first cache to memory."""


def measure(threads: int, clock: Callable[[], float] = time.perf_counter) -> Peaks:
    """The peaks of the CPU on ``threads`` threads; PyTorch must be set to them. Takes about a second."""
    reads = tuple((size, _reading(size, clock)) for size in _BUFFERS)
    flops = max(2.0 * _SIZE**3 / _best(call, clock) for call in _products(threads))
    return Peaks(threads, flops, reads[-1][1], reads)


def bound(peaks: Peaks, flops: float, bytes_: float) -> float:
    """Seconds that a call takes at least (Williams et al. 2009): its arithmetic, or its reading, at the machine's peak.

    Reading goes at the rate of the smallest buffer that holds all of it, since a model that is called again and again
    stays in the caches that it fits.
    """
    return max(flops / peaks.flops, bytes_ / bandwidth(peaks.reads, bytes_))


def bandwidth(reads: Sequence[tuple[int, float]], bytes_: float) -> float:
    """Bytes a second when ``bytes_`` are read again and again, between the measured sizes by interpolation."""
    if bytes_ <= reads[0][0]:
        return reads[0][1]
    for (small, fast), (large, slow) in pairwise(reads):
        if bytes_ <= large:
            share = (np.log(bytes_) - np.log(small)) / (np.log(large) - np.log(small))
            return float(np.exp((1 - share) * np.log(fast) + share * np.log(slow)))
    return reads[-1][1]


def _best(call: Callable[[], object], clock: Callable[[], float]) -> float:
    """The least seconds that a call took, of as many as fit the time, three at least."""
    call()
    begin, best, calls = clock(), np.inf, 0
    while calls < 3 or (clock() - begin < _SECONDS and calls < 1000):
        start = clock()
        call()
        best, calls = min(best, max(clock() - start, 1e-9)), calls + 1
    return float(best)


def _reading(size: int, clock: Callable[[], float]) -> float:
    """Bytes a second, by the fastest of three ways to read a buffer of ``size`` bytes."""
    matrix = torch.ones(max(1, size // 2**13), min(size, 2**13) // 4)
    vector, flat = torch.ones(matrix.shape[1]), matrix.flatten()
    repeats = max(1, 2**20 // size)  # small buffers several times between two looks at the clock

    def repeated(read: Callable[[], object]) -> Callable[[], object]:
        return lambda: [read() for _ in range(repeats)]

    ways = (lambda: matrix.mv(vector), flat.sum, lambda: flat.dot(flat))
    return repeats * size / min(_best(repeated(way), clock) for way in ways)


def _products(threads: int) -> list[Callable[[], object]]:
    left, right = torch.rand(_SIZE, _SIZE), torch.rand(_SIZE, _SIZE)
    image, kernel = left.reshape(1, _SIZE, -1, 1), right.reshape(_SIZE, _SIZE, 1, 1)
    products: list[Callable[[], object]] = [lambda: left @ right, lambda: F.conv2d(image, kernel)]
    if "onnxruntime" in installed():
        products.append(_onnx_product(threads))
    return products


def _onnx_product(threads: int) -> Callable[[], object]:
    import onnx

    shape = [_SIZE, _SIZE]
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in ("x", "y")]
    weight = onnx.numpy_helper.from_array(np.ones(shape, np.float32), "w")
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = onnx.helper.make_graph([node], "product", values[:1], values[1:], [weight])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    product, inputs = onnx_runtime.call(model.SerializeToString(), threads), [np.ones(shape, np.float32)]
    return lambda: product(inputs)
