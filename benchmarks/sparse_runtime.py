"""The sparse runtime against dense ones: same machine, one process, turn by turn, whole calls from Python.

    pip install onnx onnxruntime openvino      # the rivals; each is left out when it is not there
    python -m benchmarks.sparse_runtime
    python -m benchmarks.sparse_runtime --models lenet resnet20 --sparsities 0.9 --batches 1 32 --rounds 40
    python -m benchmarks.sparse_runtime --models gpt --precisions bfloat16 int8 --batches 1
    python -m benchmarks.sparse_runtime --models mobilenet wide mlp --threads 2
    python -m benchmarks.sparse_runtime --models vgg --weights runs/vgg/ticket/seed-0/level-*/model.safetensors

Every rival computes on as many threads, in the same precision, on the same weights with the same zeros, and its outputs are
compared with PyTorch's float32 before anything is timed. A ratio is that of one round: the strongest dense runtime's time
over ours; the table gives its median and, in brackets, its 10th and 90th percentile. The last line is the same as JSON.

Where a dense library was faster when the runtime was tuned, ours is that library, and the row says so; with `--own` it is our
kernels all the same.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import logging
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ticketsmith.engines import installed, onnx_runtime, openvino
from ticketsmith.inference.onnx_file import write_to_serve
from ticketsmith.machine import cpu_name
from ticketsmith.models import create
from ticketsmith.native import best_isa
from ticketsmith.race import REST, Runner, Stopwatch, race
from ticketsmith.runtime.from_torch import from_torch
from ticketsmith.runtime.model import Model
from ticketsmith.runtime.tune import choices, tune

Call = Callable[[np.ndarray], np.ndarray]
SAMPLE_SECONDS = 3e-3
TOLERANCES = {"float32": 1e-4, "bfloat16": 5e-2, "int8": 2e-1}
"""Of the largest output. 72 chained layers of random weights are harder on low precision than a trained network is."""
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


class MobileNet(nn.Module):
    """Depthwise and pointwise convolutions in turn, as in MobileNet v1, for 32x32 images."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, 32, 3, padding=1), nn.ReLU6()]
        width = 32
        for out, stride in ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1)):
            layers += [
                nn.Conv2d(width, width, 3, stride, 1, groups=width),
                nn.ReLU6(),
                nn.Conv2d(width, out, 1),
                nn.ReLU6(),
            ]
            width = out
        self.layers, self.output = nn.Sequential(*layers), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(F.adaptive_avg_pool2d(self.layers(x), 1).flatten(1))


class Encoder(nn.Module):
    """A block of an encoder. Norms stand before attention and MLP, as in ViT, or behind their residuals, as in BERT
    (``post``)."""

    def __init__(self, width: int, heads: int, post: bool) -> None:
        super().__init__()
        self.heads, self.post = heads, post
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.proj = nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def attend(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        parts = (
            layer(x).view(batch, tokens, self.heads, -1).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        mixed = F.scaled_dot_product_attention(*parts)
        return self.proj(mixed.transpose(1, 2).reshape(batch, tokens, width))

    def expand(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x)))

    def forward(self, x: Tensor) -> Tensor:
        if self.post:
            x = self.norm1(x + self.attend(x))
            return self.norm2(x + self.expand(x))
        x = x + self.attend(self.norm1(x))
        return x + self.expand(self.norm2(x))


class Vit(nn.Module):
    """A vision transformer of the width of DeiT-Tiny: patches of 4x4 of images of 32x32 and a class token, 6 blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 192, 4, 4)
        self.token, self.positions = nn.Parameter(torch.zeros(192)), nn.Parameter(0.02 * torch.randn(65 * 192))
        self.blocks = nn.Sequential(*(Encoder(192, 3, post=False) for _ in range(6)))
        self.norm, self.output = nn.LayerNorm(192), nn.Linear(192, 10)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), 1, -1), patches], 1) + self.positions.view(65, 192)
        return self.output(self.norm(self.blocks(x))[:, 0])


def wide(kernel: int) -> nn.Module:
    """AlexNet-like: large kernels and strides on images of 64x64."""
    return nn.Sequential(
        nn.Conv2d(3, 64, 2 * kernel + 1, 2, kernel), nn.ReLU(), nn.Conv2d(64, 96, kernel, padding=kernel // 2), nn.ReLU(),
        nn.MaxPool2d(3, 2), nn.Conv2d(96, 128, kernel), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10),
    )  # fmt: skip


def mlp() -> nn.Module:
    """784-1024-1024-1024-512-10."""
    sizes = (784, 1024, 1024, 1024, 512, 10)
    layers = [layer for i, o in itertools.pairwise(sizes) for layer in (nn.Linear(i, o), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "lenet": (lambda: create("lenet_300_100", {}, (1, 28, 28), 10), (1, 28, 28)),
    "cnn": (Cnn, (1, 28, 28)),
    "resnet20": (lambda: create("resnet20", {}, (3, 32, 32), 10), (3, 32, 32)),
    "vgg": (Vgg, (3, 32, 32)),
    "mobilenet": (MobileNet, (3, 32, 32)),
    "wide": (lambda: wide(5), (3, 64, 64)),
    "mlp": (mlp, (784,)),
    "vit": (Vit, (3, 32, 32)),
    "minilm": (lambda: nn.Sequential(*(Encoder(384, 12, post=True) for _ in range(6))), (128, 384)),
    "gpt": (lambda: nn.Sequential(*(Block(768, 12) for _ in range(12))), (1, 768)),
}
TABLE = ["lenet", "cnn", "resnet20", "vgg", "vit", "minilm", "gpt"]


def sparse_model(name: str, sparsity: float) -> nn.Module:
    """A network with random masks on its weights, scaled so that activations keep their size."""
    torch.manual_seed(0)
    model = MODELS[name][0]().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(torch.rand_like(parameter) >= sparsity).div_((1 - sparsity) ** 0.5)
    return model


def trained_model(name: str, file: Path) -> tuple[nn.Module, float]:
    """A network with the weights of a run (its `model.safetensors`), and the share of them that are zero. Of a run of the
    task `language`, with a GPT of width 768 and depth 12, the blocks."""
    from safetensors.torch import load_file

    model, tensors = MODELS[name][0]().eval(), load_file(file)
    if name == "gpt":
        names = {"qkv": "attention.qkv", "proj": "attention.output", "up": "mlp.up", "down": "mlp.down"}
        names |= {"norm1": "attention_norm", "norm2": "mlp_norm"}
        tensors = {
            f"{index}.{own}.{kind}": tensors[f"blocks.{index}.{theirs}.{kind}"]
            for index in range(12)
            for own, theirs in names.items()
            for kind in ("weight", "bias")
        }
    model.load_state_dict(tensors)
    weights = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    return model, sum(int((weight == 0).sum()) for weight in weights) / sum(weight.numel() for weight in weights)


def dense_libraries(model: nn.Module, example: Tensor, folder: Path, threads: int, precision: str) -> dict[str, Call]:
    """The dense libraries that are installed and know the precision, on one ONNX file; int8 is ONNX Runtime's dynamic
    quantization, a scale for each output."""
    path, rivals = folder / "model.onnx", {}
    if installed():
        batch = write_to_serve(model, example, path)
    if "onnxruntime" in installed() and precision != "bfloat16":  # it has no such kernels for CPUs
        file = onnx_runtime.convert(path, precision, folder, per_channel=True)
        rivals["onnxruntime"] = onnx_runtime.load(file, threads, precision, batch)
    if "openvino" in installed() and precision != "int8":
        rivals["openvino"] = openvino.load(path, threads, precision, batch)
    return rivals


def eager(model: nn.Module) -> Call:
    @torch.inference_mode()
    def call(x: np.ndarray) -> np.ndarray:
        return model(torch.from_numpy(x)).numpy()

    return call


def rivals(
    model: nn.Module, inputs: np.ndarray, folder: Path, threads: int, precision: str, own: bool
) -> dict[str, Call]:
    """Ours, PyTorch's (always float32: the reference), and the dense runtimes that know the precision."""
    example = torch.from_numpy(inputs)
    graph = from_torch(model, example)
    batches = () if own else (len(inputs),)
    tuned = choices(tune(graph, threads=threads, precision=precision, batches=batches))
    ours = Model(graph, tuned, threads=threads, precision=precision)
    ours.prepare(len(inputs))
    return {"ours": ours, "torch": eager(model), **dense_libraries(model, example, folder, threads, precision)}


def timed(
    calls: dict[str, Call], inputs: np.ndarray, rounds: int, clock: Callable[[], float], tolerance: float, rest: float
) -> dict[str, np.ndarray]:
    """Seconds a call, by rival, one number a round; `rest` seconds before each turn, in which the last one's threads stop."""
    expected = np.array(calls["torch"](inputs))
    stopwatch = Stopwatch(clock, prepare=lambda: time.sleep(rest), first=1 + (rest > 0))
    runners, counts = [Runner(call, inputs) for call in calls.values()], []
    for name, runner in zip(calls, runners, strict=True):
        error = float(np.abs(runner.run(inputs) - expected).max()) / max(1.0, float(np.abs(expected).max()))
        if not error <= tolerance:
            raise SystemExit(f"{name} gives other outputs than torch: they differ by {error:.1e}.")
        counts.append([stopwatch.calls(runner, SAMPLE_SECONDS, most=10**6) for _ in range(3)][-1])
    return dict(zip(calls, race(runners, counts, stopwatch, rounds=rounds).T, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=TABLE, choices=MODELS)
    parser.add_argument("--sparsities", nargs="+", type=float, default=[0.5, 0.8, 0.9, 0.95])
    parser.add_argument(
        "--weights",
        nargs="+",
        type=Path,
        help="instead of random masks: model.safetensors of runs of one of the models",
    )
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 32])
    parser.add_argument("--precisions", nargs="+", default=["float32"], choices=TOLERANCES)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument(
        "--clock",
        default="wall",
        choices=CLOCKS,
        help="cpu: time of this process alone, for a machine that others use too",
    )
    parser.add_argument("--own", action="store_true", help="never hand a network over to a dense library")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    torch.set_num_threads(options.threads)
    versions = {"python": platform.python_version(), "numpy": np.__version__, "torch": torch.__version__}
    for package in ("onnxruntime", "openvino"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    print(f"{cpu_name()}, {os.cpu_count()} cores, {best_isa().name}; threads of each: {options.threads}")
    print(", ".join(f"{name} {version}" for name, version in versions.items()))
    print("python -m benchmarks.sparse_runtime " + " ".join(sys.argv[1:]))
    results = []
    sources: list[float | Path] = options.weights or options.sparsities
    cells = itertools.product(options.models, options.precisions, options.batches, sources)
    for name, precision, batch, source in cells:
        if name == "gpt" and batch > 1:
            continue
        if isinstance(source, Path):
            model, sparsity = trained_model(name, source)
        else:
            model, sparsity = sparse_model(name, source), source
        inputs = np.random.default_rng(1).standard_normal((batch, *MODELS[name][1]), dtype=np.float32)
        with tempfile.TemporaryDirectory() as folder:
            calls = rivals(model, inputs, Path(folder), options.threads, precision, options.own)
            ours = calls["ours"]
            handed_to = ours.handed_to(batch) if isinstance(ours, Model) else ""
            rest = REST if options.threads > 1 else 0.0
            seconds = timed(calls, inputs, options.rounds, CLOCKS[options.clock], TOLERANCES[precision], rest)
        del calls
        medians = {rival: float(np.median(values)) for rival, values in seconds.items()}
        dense = [rival for rival in medians if rival != "ours" and (rival != "torch" or precision == "float32")]
        times = "  ".join(f"{rival} {1e6 * median:9.1f}" for rival, median in medians.items())
        if not dense:
            print(
                f"{name:10s} {precision:8s} batch {batch:2d} {sparsity:4.0%}  no dense rival  us: {times}", flush=True
            )
            continue
        best = min(dense, key=lambda rival: medians[rival])
        ratio = np.quantile(seconds[best] / seconds["ours"], (0.1, 0.5, 0.9))
        print(
            f"{name:10s} {precision:8s} batch {batch:2d} {sparsity:4.0%}  {ratio[1]:5.2f}x [{ratio[0]:.2f}, {ratio[2]:.2f}] "
            f"of {best:11s}  us: {times}" + (f"  ours is {handed_to}" if handed_to else ""),
            flush=True,
        )
        results.append(
            {
                "model": name,
                "precision": precision,
                "threads": options.threads,
                "batch": batch,
                "sparsity": sparsity,
                "speedup": round(float(ratio[1]), 3),
                "low": round(float(ratio[0]), 3),
                "high": round(float(ratio[2]), 3),
                "rival": best,
                "handed_to": handed_to,
                "microseconds": {rival: round(1e6 * median, 2) for rival, median in medians.items()},
            }
        )
    print(json.dumps({"machine": cpu_name(), "versions": versions, "results": results}))


if __name__ == "__main__":
    main()
