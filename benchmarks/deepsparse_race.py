"""The sparse runtime against DeepSparse 1.8, the last sparse engine for CPUs: one process, turn by turn, whole calls.

DeepSparse needs older libraries than this project, so that two environments take part. The first writes the networks, the
second races them; NumPy is all that the sparse runtime needs there.

    python -m benchmarks.deepsparse_race write nets       # here: ONNX files and .tsk files, random masks
    python3.11 -m venv old && old/bin/pip install deepsparse==1.8.0
    PYTHONPATH=. old/bin/python -m benchmarks.deepsparse_race race nets

Outputs are compared with ONNX Runtime's, which DeepSparse brings along. A ratio is that of one round: DeepSparse's time
over ours (above 1: ours is faster); median, 10th and 90th percentile. The last line is the same as JSON.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from ticketsmith import runtime
from ticketsmith.engines import onnx_runtime
from ticketsmith.machine import cpu_name
from ticketsmith.race import Runner, Stopwatch, race

SAMPLE_SECONDS = 3e-3
TOLERANCE = 1e-4


def write(folder: Path, models: list[str], sparsities: list[float], batches: list[int]) -> None:
    """One pair of files for each cell, and its inputs."""
    import torch

    from benchmarks.sparse_runtime import MODELS, sparse_model
    from ticketsmith.inference.onnx_file import write_to_serve
    from ticketsmith.runtime.from_torch import from_torch
    from ticketsmith.runtime.tune import choices, tune

    for name, sparsity, batch in itertools.product(models, sparsities, batches):
        cell = folder / f"{name}-{sparsity:g}-{batch}"
        cell.mkdir(parents=True, exist_ok=True)
        model = sparse_model(name, sparsity)
        inputs = np.random.default_rng(1).standard_normal((batch, *MODELS[name][1]), dtype=np.float32)
        write_to_serve(model, torch.from_numpy(inputs), cell / "model.onnx")
        graph = from_torch(model, torch.from_numpy(inputs[:1]))
        runtime.save(cell / "model.tsk", graph, {runtime.machine_key(): choices(tune(graph, batches=()))})
        np.save(cell / "inputs.npy", inputs)
        print(cell, flush=True)


def race_all(folder: Path, rounds: int, threads: int) -> None:
    """Every cell that was written."""
    from deepsparse import compile_model

    version = metadata.version("deepsparse")
    print(f"{cpu_name()}, threads of each: {threads}; deepsparse {version}, numpy {np.__version__}")
    results = []
    for cell in sorted(folder.iterdir()):
        inputs = np.load(cell / "inputs.npy")
        ours = runtime.load(cell / "model.tsk", threads=threads, handover=False)
        ours.prepare(len(inputs))
        engine = compile_model(str(cell / "model.onnx"), batch_size=len(inputs), num_cores=threads)
        calls: dict[str, Callable[[np.ndarray], Any]] = {
            "ours": ours,
            "deepsparse": lambda x, engine=engine: engine.run([x])[0],
        }
        expected = onnx_runtime.load(cell / "model.onnx", threads)(inputs)
        errors = {
            name: float(np.abs(call(inputs) - expected).max() / np.abs(expected).max()) for name, call in calls.items()
        }
        if not errors["ours"] <= TOLERANCE:
            raise SystemExit(f"{cell}: our outputs differ from ONNX Runtime's by {errors['ours']:.1e}.")
        runners, stopwatch = [Runner(call, inputs) for call in calls.values()], Stopwatch()
        counts = [[stopwatch.calls(one, SAMPLE_SECONDS, most=10**6) for _ in range(5)][-1] for one in runners]
        seconds = dict(zip(calls, race(runners, counts, stopwatch, rounds=rounds).T, strict=True))
        ratios = seconds["deepsparse"] / seconds["ours"]
        low, middle, high = np.quantile(ratios, (0.1, 0.5, 0.9))
        times = {name: float(1e6 * np.median(values)) for name, values in seconds.items()}
        print(
            f"{cell.name:20s} {middle:5.2f}x [{low:.2f}, {high:.2f}]  us: ours {times['ours']:9.1f}  "
            f"deepsparse {times['deepsparse']:9.1f}"
            + ("" if errors["deepsparse"] <= TOLERANCE else f"  its outputs are off by {errors['deepsparse']:.0%}"),
            flush=True,
        )
        results.append({"cell": cell.name, "ratio": round(float(middle), 3), "microseconds": times, "errors": errors})
    print(json.dumps({"machine": cpu_name(), "deepsparse": version, "results": results}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=("write", "race"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", nargs="+", default=["lenet", "cnn", "resnet20", "vgg"])
    parser.add_argument("--sparsities", nargs="+", type=float, default=[0.5, 0.8, 0.9, 0.95])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 32])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    if options.verb == "write":
        write(options.folder, options.models, options.sparsities, options.batches)
    else:
        race_all(options.folder, options.rounds, options.threads)


if __name__ == "__main__":
    main()
