"""Sparse files of few bits against dense ones of any precision: same machine, one process and thread, turn by turn.

    pip install onnx onnxruntime openvino nncf     # the rivals; each is left out when it is not there
    python -m benchmarks.low_bits
    python -m benchmarks.low_bits --models gpt --sparsities 0.8 0.9 0.95
    python -m benchmarks.low_bits --models resnet20 --masks block --batches 32 --rounds 40

Ours are tuned, in each of ``--precisions``, with random masks, or with random blocks of four inputs (``--masks block``) or of
four outputs (``block_outputs``).
Rivals are what one would serve instead: the dense network in float32, in int8 (static in QDQ form or by NNCF, calibrated;
dynamic; weights alone), and in int4 (weights alone, products in whole numbers), in ONNX Runtime and OpenVINO. A ratio is that of
one round: the time of the rival that is usually fastest over ours; given are its median and, in brackets, its 10th and 90th
percentile. Beside it stands how far our outputs are from float32, of the largest one: of random weights, which are harder on
few bits than trained ones are. The last line is the same as JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks.sparse_runtime import CLOCKS, MODELS, SAMPLE_SECONDS, Call, sparse_model
from ticketsmith.engines import CannotRunError, installed, onnx_runtime, openvino
from ticketsmith.inference.onnx_file import write_to_serve
from ticketsmith.machine import cpu_name
from ticketsmith.native import best_isa
from ticketsmith.race import Runner, Stopwatch, race
from ticketsmith.runtime.calibrate import STATIC, WHOLE, calibrated
from ticketsmith.runtime.from_torch import from_torch
from ticketsmith.runtime.model import PRECISIONS, Model
from ticketsmith.runtime.tune import choices, tune

MASKS = {"random": (1, 1), "block": (1, 4), "block_outputs": (4, 1)}
WHOLE_NUMBERS = 4
"""What ONNX Runtime calls products of ``MatMulNBits`` in int8 (accuracy_level): twice as fast as its default."""


def block_model(name: str, sparsity: float, block: tuple[int, int]) -> nn.Module:
    """``sparse_model`` with masks of whole blocks of outputs and inputs, in layers with a multiple of them."""
    torch.manual_seed(0)
    model = MODELS[name][0]().eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                high, wide = (one if size % one == 0 else 1 for one, size in zip(block, weight.shape, strict=False))
                mask = torch.rand(weight.shape[0] // high, weight.shape[1] // wide, *weight.shape[2:]) >= sparsity
                weight.mul_(mask.repeat_interleave(high, 0).repeat_interleave(wide, 1)).div_((1 - sparsity) ** 0.5)
    return model


def examples_of(inputs: np.ndarray) -> list[np.ndarray]:
    """Batches like ``inputs``, to calibrate with."""
    generator = np.random.default_rng(2)
    return [generator.standard_normal(inputs.shape, dtype=np.float32) for _ in range(8)]


def dense_rivals(name: str, inputs: np.ndarray, folder: Path) -> dict[str, Call]:
    """By name, what is installed and knows this model."""
    path, example = folder / "model.onnx", torch.from_numpy(inputs)
    batch = write_to_serve(sparse_model(name, 0.0), example, path)
    rivals: dict[str, Call] = {}

    def add(rival: str, make: Callable[[], Call]) -> None:
        with contextlib.suppress(CannotRunError):
            rivals[rival] = make()

    examples = examples_of(inputs)

    def static() -> Path:
        target = folder / "static.onnx"
        if not target.exists():
            onnx_runtime.quantise_static(path, target, examples, "minmax")
        return target

    def nncf() -> Path:
        target = folder / "nncf.xml"
        openvino.quantise(path, target, examples)
        return target

    def int4() -> Path:
        import onnx

        target = folder / "int4.onnx"
        onnx_runtime.quantise_weights(path, target)
        model = onnx.load(str(target))
        for node in model.graph.node:
            if node.op_type == "MatMulNBits":
                kept = [attribute for attribute in node.attribute if attribute.name != "accuracy_level"]
                del node.attribute[:]
                node.attribute.extend([*kept, onnx.helper.make_attribute("accuracy_level", WHOLE_NUMBERS)])
        onnx.save(model, str(target))
        return target

    def compressed(bits: int) -> Path:
        target = folder / f"weights{bits}.xml"
        openvino.compress(path, target, bits)
        return target

    def dynamic() -> Path:
        return onnx_runtime.convert(path, "int8", folder, per_channel=True)

    if "onnxruntime" in installed():
        add("onnxruntime", lambda: onnx_runtime.load(path, 1, "float32", batch))
        add("onnxruntime int8 static", lambda: onnx_runtime.load(static(), 1, "float32", batch))
        add("onnxruntime int8 dynamic", lambda: onnx_runtime.load(dynamic(), 1, "float32", batch))
        add("onnxruntime int4", lambda: onnx_runtime.load(int4(), 1, "float32", batch))
    if "openvino" in installed():
        add("openvino", lambda: openvino.load(path, 1, "float32", batch))
        add("openvino bfloat16", lambda: openvino.load(path, 1, "bfloat16", batch))
        add("openvino int8 static", lambda: openvino.load(static(), 1, "float32", batch))
        add("openvino int8 nncf", lambda: openvino.load(nncf(), 1, "float32", batch))
        for bits in (8, 4):
            add(f"openvino int{bits} weights", lambda bits=bits: openvino.load(compressed(bits), 1, "float32", batch))
    return rivals


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["lenet", "cnn", "resnet20", "gpt"], choices=MODELS)
    parser.add_argument("--masks", nargs="+", default=list(MASKS), choices=MASKS)
    parser.add_argument("--sparsities", nargs="+", type=float, default=[0.8, 0.9, 0.95])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 32])
    parser.add_argument(
        "--precisions", nargs="+", default=["float32", WHOLE, STATIC, "int4_dot"], choices=(*PRECISIONS, STATIC)
    )
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--clock", default="wall", choices=CLOCKS, help="cpu: time of this process alone")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    clock = CLOCKS[options.clock]
    print(f"{cpu_name()}, {os.cpu_count()} cores, {best_isa().name}; one thread, {options.clock} clock")
    results = []
    for name, batch in itertools.product(options.models, options.batches):
        if name == "gpt" and batch > 1:
            continue
        inputs = np.random.default_rng(1).standard_normal((batch, *MODELS[name][1]), dtype=np.float32)
        with tempfile.TemporaryDirectory() as folder:
            dense = dense_rivals(name, inputs, Path(folder))
            for mask, sparsity in itertools.product(options.masks, options.sparsities):
                graph = from_torch(block_model(name, sparsity, MASKS[mask]), torch.from_numpy(inputs))
                exact = Model(graph, handover=False)(inputs)
                ours: dict[str, Call] = {}
                errors = {}
                for precision in options.precisions:
                    served, stored = (
                        (calibrated(graph, examples_of(inputs)), WHOLE) if precision == STATIC else (graph, precision)
                    )
                    tuned = choices(tune(served, precision=stored, rounds=3, batches=(), clock=clock))
                    ours[precision] = Model(served, tuned, precision=stored, handover=False)
                    errors[precision] = float(np.abs(ours[precision](inputs) - exact).max() / np.abs(exact).max())
                calls = dense | ours
                stopwatch, runners = Stopwatch(clock), [Runner(call, inputs) for call in calls.values()]
                counts = [
                    [stopwatch.calls(runner, SAMPLE_SECONDS, most=10**6) for _ in range(3)][-1] for runner in runners
                ]
                rounds = dict(zip(calls, race(runners, counts, stopwatch, rounds=options.rounds).T, strict=True))
                best = min(dense, key=lambda rival: np.median(rounds[rival]), default="")
                for precision in ours:
                    micro = 1e6 * float(np.median(rounds[precision]))
                    row = {
                        "model": name, "batch": batch, "mask": mask, "sparsity": sparsity, "precision": precision,
                        "microseconds": round(micro, 2), "error": errors[precision], "rival": best,
                    }  # fmt: skip
                    told = "no dense rival"
                    if best:
                        low, ratio, high = np.quantile(rounds[best] / rounds[precision], (0.1, 0.5, 0.9))
                        row |= {
                            "speedup": round(float(ratio), 3),
                            "low": round(float(low), 3),
                            "high": round(float(high), 3),
                        }
                        told = f"{ratio:5.2f}x [{low:.2f}, {high:.2f}] of {best}"
                    results.append(row)
                    print(
                        f"{name:10s} batch {batch:2d} {mask:13s} {sparsity:4.0%} {precision:8s} {micro:9.1f} us  {told}  "
                        f"error {errors[precision]:.3f}",
                        flush=True,
                    )
                times = "  ".join(f"{rival} {1e6 * np.median(rounds[rival]):.1f}" for rival in dense)
                print(f"{'':10s} dense, us: {times}", flush=True)
    print(json.dumps({"machine": cpu_name(), "clock": options.clock, "results": results}))


if __name__ == "__main__":
    main()
