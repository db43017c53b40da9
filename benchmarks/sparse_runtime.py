"""The sparse runtime against dense ones: same machine, one process, turn by turn, whole calls from Python.

    pip install onnx onnxruntime openvino      # the rivals; each is left out when it is not there
    python -m benchmarks.sparse_runtime
    python -m benchmarks.sparse_runtime --models lenet resnet20 --sparsities 0.9 --batches 1 32 --rounds 40

Every rival computes in float32 on one thread, on the same weights with the same zeros, and its outputs are compared with
PyTorch's before anything is timed. A ratio is that of one round: the strongest dense runtime's time over ours; the table
gives its median and, in brackets, its 10th and 90th percentile. The last line is the same as JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import os
import platform
import random
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ticketsmith.machine import cpu_name
from ticketsmith.models import create
from ticketsmith.native import best_isa
from ticketsmith.runtime.from_torch import from_torch
from ticketsmith.runtime.model import Model
from ticketsmith.runtime.tune import choices, tune

Call = Callable[[np.ndarray], np.ndarray]
SAMPLE_SECONDS = 3e-3
TOLERANCE = 1e-4
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


class Cnn(nn.Module):
    """32 and 64 channels, one pool, 12,544-128-10."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 32, 3, padding=1), nn.Conv2d(32, 64, 3, padding=1)
        self.fc, self.output = nn.Linear(64 * 14 * 14, 128), nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(torch.relu(self.conv2(torch.relu(self.conv1(x)))), 2)
        return self.output(torch.relu(self.fc(x.flatten(1))))


class Vgg(nn.Module):
    """Five 3x3 convolutions of 128 and 256 channels on 32x32 images."""

    def __init__(self) -> None:
        super().__init__()
        sizes = ((3, 128), (128, 128), (128, 256), (256, 256), (256, 256))
        self.convolutions = nn.ModuleList(nn.Conv2d(i, o, 3, padding=1) for i, o in sizes)
        self.output = nn.Linear(256, 10)

    def forward(self, x: Tensor) -> Tensor:
        for index, convolution in enumerate(self.convolutions):
            x = torch.relu(convolution(x))
            if index in (1, 3):
                x = F.max_pool2d(x, 2)
        return self.output(F.adaptive_avg_pool2d(x, 1).flatten(1))


class Block(nn.Module):
    """A transformer block that decodes one token: attention over itself, so that the products are what is timed."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        split = self.qkv(self.norm1(x)).split(width, 2)
        query, key, value = (one.view(batch, tokens, self.heads, -1).transpose(1, 2) for one in split)
        mixed = F.scaled_dot_product_attention(query, key, value)
        x = x + self.proj(mixed.transpose(1, 2).reshape(batch, tokens, width))
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "lenet": (lambda: create("lenet_300_100", {}, (1, 28, 28), 10), (1, 28, 28)),
    "cnn": (Cnn, (1, 28, 28)),
    "resnet20": (lambda: create("resnet20", {}, (3, 32, 32), 10), (3, 32, 32)),
    "vgg": (Vgg, (3, 32, 32)),
    "gpt": (lambda: nn.Sequential(*(Block(768, 12) for _ in range(12))), (1, 768)),
}


def sparse_model(name: str, sparsity: float) -> nn.Module:
    """A network with random masks on its weights, scaled so that activations keep their size."""
    torch.manual_seed(0)
    model = MODELS[name][0]().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(torch.rand_like(parameter) >= sparsity).div_((1 - sparsity) ** 0.5)
    return model


def onnx_file(model: nn.Module, inputs: Tensor, folder: Path) -> Path | None:
    path = folder / "model.onnx"
    try:
        import onnx  # noqa: F401
    except ImportError:
        return None
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (inputs,), str(path), dynamo=False, opset_version=17)
    return path


def onnx_runtime(path: Path) -> Call | None:
    try:
        import onnxruntime
    except ImportError:
        return None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: session.run(None, {name: x})[0]


def openvino(path: Path) -> Call | None:
    try:
        import openvino as ov
    except ImportError:
        return None
    options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
    compiled = ov.Core().compile_model(str(path), "CPU", options | {"INFERENCE_PRECISION_HINT": "f32"})
    request = compiled.create_infer_request()
    return lambda x: request.infer([x], share_inputs=True, share_outputs=True)[0]


def eager(model: nn.Module) -> Call:
    @torch.inference_mode()
    def call(x: np.ndarray) -> np.ndarray:
        return model(torch.from_numpy(x)).numpy()

    return call


def rivals(model: nn.Module, inputs: np.ndarray, folder: Path) -> dict[str, Call]:
    example = torch.from_numpy(inputs)
    graph = from_torch(model, example)
    ours = Model(graph, choices(tune(graph)))
    ours.prepare(len(inputs))
    found: dict[str, Call | None] = {"ours": ours, "torch": eager(model)}
    path = onnx_file(model, example, folder)
    if path is not None:
        found |= {"onnxruntime": onnx_runtime(path), "openvino": openvino(path)}
    return {name: call for name, call in found.items() if call is not None}


def race(calls: dict[str, Call], inputs: np.ndarray, rounds: int, clock: Callable[[], float]) -> dict[str, np.ndarray]:
    """Seconds a call, by rival, one number a round."""
    expected = np.array(calls["torch"](inputs))
    repeats = {}
    for name, call in calls.items():
        error = float(np.abs(call(inputs) - expected).max()) / max(1.0, float(np.abs(expected).max()))
        if not error <= TOLERANCE:
            raise SystemExit(f"{name} gives other outputs than torch: they differ by {error:.1e}.")
        for _ in range(3):
            start = clock()
            call(inputs)
            took = clock() - start
        repeats[name] = max(1, int(SAMPLE_SECONDS / took))
    order = list(calls)
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        random.shuffle(order)
        for name in order:
            call = calls[name]
            call(inputs)
            start = clock()
            for _ in range(repeats[name]):
                call(inputs)
            seconds[name].append((clock() - start) / repeats[name])
    return {name: np.array(values) for name, values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--sparsities", nargs="+", type=float, default=[0.5, 0.8, 0.9, 0.95])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 32])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument(
        "--clock",
        default="wall",
        choices=CLOCKS,
        help="cpu: time of this process alone, for a machine that others use too",
    )
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    versions = {"python": platform.python_version(), "numpy": np.__version__, "torch": torch.__version__}
    for package in ("onnxruntime", "openvino"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    print(f"{cpu_name()}, {os.cpu_count()} cores, {best_isa().name}; 1 thread each")
    print(", ".join(f"{name} {version}" for name, version in versions.items()))
    print("python -m benchmarks.sparse_runtime " + " ".join(sys.argv[1:]))
    results = []
    for name in options.models:
        for batch in options.batches:
            if name == "gpt" and batch > 1:
                continue
            for sparsity in options.sparsities:
                model = sparse_model(name, sparsity)
                inputs = np.random.default_rng(1).standard_normal((batch, *MODELS[name][1]), dtype=np.float32)
                with tempfile.TemporaryDirectory() as folder:
                    calls = rivals(model, inputs, Path(folder))
                    seconds = race(calls, inputs, options.rounds, CLOCKS[options.clock])
                del calls
                medians = {rival: float(np.median(values)) for rival, values in seconds.items()}
                best = min((rival for rival in medians if rival != "ours"), key=lambda rival: medians[rival])
                ratio = np.quantile(seconds[best] / seconds["ours"], (0.1, 0.5, 0.9))
                times = "  ".join(f"{rival} {1e6 * median:9.1f}" for rival, median in medians.items())
                print(
                    f"{name:9s} batch {batch:2d} {sparsity:4.0%}  {ratio[1]:5.2f}x [{ratio[0]:.2f}, {ratio[2]:.2f}] "
                    f"of {best:11s}  us: {times}",
                    flush=True,
                )
                results.append(
                    {
                        "model": name,
                        "batch": batch,
                        "sparsity": sparsity,
                        "speedup": round(float(ratio[1]), 3),
                        "low": round(float(ratio[0]), 3),
                        "high": round(float(ratio[2]), 3),
                        "rival": best,
                        "microseconds": {rival: round(1e6 * median, 2) for rival, median in medians.items()},
                    }
                )
    print(json.dumps({"machine": cpu_name(), "versions": versions, "results": results}))


if __name__ == "__main__":
    main()
