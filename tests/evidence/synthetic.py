"""Results of an experiment that was never run: the shapes of the literature, drawn from a seeded generator.

Dense is about 99 %; the ticket is slightly better at first, learns faster, and loses its quality beyond ``cliff``; the
controls lose theirs earlier. Good enough to test statistics and to look at a report with.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ticketsmith.evidence.billing import Pod
from ticketsmith.evidence.candidates import Entry, FileFacts, Judgement, Lack, Race, RaceCell, Served
from ticketsmith.evidence.results import Bill, CurvePoint, LayerDensity, Metric, Result, Scores
from ticketsmith.evidence.serving import Benchmark, LayerSpeed, LoadStep, LoadTest, Peaks, Timing

ACCURACY = Metric("accuracy", higher_is_better=True, unit="%")
LOSS = Metric("loss", higher_is_better=False, decimals=4)
METRICS = {"accuracy": ACCURACY, "loss": LOSS}
LAYERS = {"conv1": 288, "conv2": 18432, "fc1": 200704, "fc2": 1280}
STEPS = 2000


def result(
    variant: str,
    level: int,
    seed: int,
    accuracy: float | None,
    *,
    draw: int = 0,
    test: float | None = None,
    loss: float = 0.05,
    density: float | None = None,
    early: int = 1000,
    seconds: float | None = 3.0,
    curve: Sequence[CurvePoint] = (),
    weights: str | None = None,
    **more: Any,
) -> Result:
    """One run; ``accuracy`` None means that it diverged. Test equals validation unless it is given.

    Runs have weights of their own unless ``weights`` names them.
    """
    density = 0.8**level if density is None else density
    layers = {name: LayerDensity(total, max(1, round(total * density))) for name, total in LAYERS.items()}
    kept = sum(layer.kept for layer in layers.values())
    key = hashlib.sha256(f"{variant}/{level}/{seed}/{draw}".encode()).hexdigest()

    def state(step: int) -> Scores | None:
        if accuracy is None:
            return None
        on_test = accuracy if test is None else test
        return Scores(step, {"accuracy": accuracy, "loss": loss}, {"accuracy": on_test, "loss": loss * 1.03})

    return Result(
        variant=variant,
        seed=seed,
        level=level,
        draw=draw,
        key=key,
        path=f"runs/synthetic/{variant}/seed-{seed}/level-{level:02d}-{key[:8]}",
        diverged=accuracy is None,
        total=sum(LAYERS.values()),
        kept=kept,
        steps=STEPS,
        metrics=METRICS,
        layers=layers,
        final=state(STEPS),
        early_stop=state(early),
        diverged_at=412 if accuracy is None else None,
        training_flops=6.2e12,
        seconds=seconds,
        curve=tuple(curve),
        weights="" if accuracy is None else key if weights is None else weights,
        **more,
    )


def experiment(
    seeds: int = 5,
    levels: int = 12,
    variants: Sequence[str] = ("dense", "ticket", "random_reinit", "random_ticket"),
    *,
    cliff: float = 0.09,
    draws: int = 1,
    diverge: tuple[str, int, int] | None = None,
    points: int = 41,
) -> list[Result]:
    """A whole experiment; ``cliff`` is the density at which the ticket breaks, ``diverge`` a (variant, level, seed)."""
    random = np.random.default_rng(7)
    cliffs = {"ticket": cliff, "random_reinit": cliff * 3.2, "random_ticket": cliff * 4.5}
    speeds = {"ticket": 1.0, "random_reinit": -0.9, "random_ticket": -1.1}
    runs = []
    for seed in range(seeds):
        base = 98.9 + 0.12 * random.standard_normal()
        for variant in variants:
            for level in [0] if variant == "dense" else range(1, levels + 1):
                for draw in range(draws if variant.startswith("random") else 1):
                    density = 0.8 ** (1.6 * level)
                    edge = cliffs.get(variant, cliff * 1.5)
                    fall = 0.0 if variant == "dense" else 9.0 * math.log1p((edge / density) ** 2.2)
                    bump = 0.25 * math.exp(-((level - 4) ** 2) / 8) if variant == "ticket" else 0.0
                    accuracy = max(10.0, base + bump - fall + 0.1 * random.standard_normal())
                    test = accuracy - 0.1 + 0.08 * random.standard_normal()
                    speed = speeds.get(variant, 0.0) * math.exp(-((level - 5) ** 2) / 16)
                    early = int(np.clip(round(900 / (1 + 0.6 * speed) / 50 + random.integers(-1, 2)) * 50, 50, STEPS))
                    loss = 0.035 + (99.2 - accuracy) * 0.022
                    failed = diverge == (variant, level, seed)
                    curve = _curve(points, early, loss, 412 if failed else STEPS)
                    runs.append(
                        result(
                            variant,
                            level,
                            seed,
                            None if failed else float(accuracy),
                            draw=draw,
                            test=float(test),
                            loss=float(loss),
                            density=density,
                            early=early,
                            seconds=3.0 + 0.2 * float(random.random()),
                            curve=curve,
                        )
                    )
    return runs


def benchmark(results: Sequence[Result]) -> Benchmark:
    """Timings of dense and ticket on two runtimes: the sparse one loses until the weights are few."""
    timings = []
    for run in results:
        if run.seed != 0 or run.variant not in ("dense", "ticket"):
            continue
        for runtime, speedup in (("pytorch-dense", 1.0), ("csr-cpu", 0.35 / run.density**0.7)):
            for batch in (1, 64):
                ratio = speedup if batch == 1 else speedup**0.6
                timings.append(
                    Timing(
                        variant=run.variant,
                        level=run.level,
                        seed=run.seed,
                        key=run.key,
                        sparsity=run.sparsity,
                        runtime=runtime,
                        batch_size=batch,
                        threads=1,
                        rounds=30,
                        median_ms=0.4 * batch / ratio,
                        p10_ms=0.38 * batch / ratio,
                        p90_ms=0.45 * batch / ratio,
                        throughput=1000 * ratio / 0.4,
                        speedup=ratio,
                        speedup_low=ratio * 0.96,
                        speedup_high=ratio * 1.05,
                        max_error=1e-6,
                    )
                )
    machine = {"CPU": "2 cores, x86-64 with AVX2", "PyTorch": "2.9.0"}
    return Benchmark(machine, "pytorch-dense", "cpu", 0.95, tuple(timings))


def served(
    results: Sequence[Result], unit: str = "image", phases: Sequence[str] = ("",), gain: float = 0.42
) -> Benchmark:
    """A benchmark of format 2: three dense runtimes and a sparse one, in cells of phase, precision, batch size and threads.

    ``gain`` over the density to the power 0.8 is how many times as fast as the best dense, ONNX Runtime, the sparse runtime
    is at batch size 1; larger batches gain less.
    """
    dense = {"torch": 2.6, "onnxruntime": 1.0, "openvino": 1.3}
    cells = [(phase, "float32", batch, 1) for phase in phases for batch in (1, 8, 32)]
    cells += [(phases[0], "float32", 1, 2), (phases[0], "bfloat16", 1, 1)]
    timings = []
    for run in results:
        if run.seed != 0 or run.variant not in ("dense", "ticket"):
            continue
        for phase, precision, batch, threads in cells:
            whole = 0.2 * batch**0.9 / threads**0.6 / (1.7 if precision == "bfloat16" else 1.0)
            sparse = gain / run.density**0.8 / batch**0.15
            for runtime, slower in {**dense, "sparse": 1 / sparse}.items():
                ratio = 1 / slower
                bounds = (1.0, 1.0) if run.variant == "dense" and runtime == "onnxruntime" else (0.96, 1.04)
                tokens = 64 if phase == "prefill" else 1
                median = whole / ratio
                timings.append(
                    Timing(
                        variant=run.variant, level=run.level, seed=run.seed, key=run.key, sparsity=run.sparsity,
                        runtime=runtime, batch_size=batch, threads=threads, rounds=50, median_ms=median,
                        p10_ms=0.96 * median, p90_ms=1.12 * median, p99_ms=1.6 * median,
                        throughput=1000 * batch * tokens / median, speedup=ratio, speedup_low=ratio * bounds[0],
                        speedup_high=ratio * bounds[1], max_error=1e-6, tolerance=1e-4, precision=precision,
                        dense=runtime in dense, phase=phase, against="onnxruntime", flops=2.0 * run.kept * batch,
                        bytes=4.0 * run.kept, roofline=0.35 if runtime == "sparse" else 0.6, load_ms=3.0,
                        first_call_ms=1.0, resident_bytes=3_000_000,
                        peak_bytes=4_000_000 + (8 if runtime in dense else 6) * run.kept,
                        file_bytes=4 * run.total if runtime in dense else 5 * run.kept + 2000,
                    )
                )  # fmt: skip
    layers = []
    shapes = (
        ("linear", "300x784", 1.9),
        ("convolution", "3x3 64->64 at 32x32", 0.9),
        ("depthwise convolution", "3x3 64", 0.01),
    )
    for kind, shape, factor in shapes:
        for sparsity in (0.5, 0.8, 0.9, 0.95):
            ratio = gain / (1 - sparsity) * factor
            layers.append(LayerSpeed(kind, shape, 1, sparsity, ratio, 0.95 * ratio, 1.05 * ratio))
    ticket = max((run for run in results if run.variant == "ticket"), key=lambda run: (run.level == 5, -run.level))
    loads = (
        _load(next(run for run in results if run.variant == "dense"), "onnxruntime", 4500.0),
        _load(ticket, "sparse", 11000.0),
    )
    machine = {"CPU": "2 cores, x86-64 with AVX-512", "cores": "2", "ONNX Runtime": "1.23"}
    peaks = (Peaks(1, 240e9, 35e9), Peaks(2, 471e9, 37e9))
    return Benchmark(
        machine, "onnxruntime", "cpu", 0.95, tuple(timings), unit=unit, peaks=peaks, loads=loads, layers=tuple(layers)
    )


def _load(run: Result, runtime: str, capacity: float) -> LoadTest:
    """An M/M/1 queue: latency grows without end as arrivals come near what can be answered."""
    steps = []
    for rate in (500.0, 1000.0, 2000.0, 4000.0, 8000.0, 16000.0):
        idle = max(1 - rate / capacity, 0.004)
        tail = 4.6 * 1000 / capacity / idle
        steps.append(LoadStep(rate, min(rate, capacity), 2000, tail / 6, tail, tail <= 10.0))
        if tail > 10.0:
            break
    highest = max((step.rate for step in steps if step.kept), default=0.0)
    place = (run.variant, run.level, run.seed, run.key, run.sparsity)
    return LoadTest(*place, runtime, "float32", 1, run.variant == "dense", 10.0, 0.99, highest, tuple(steps))


def priced(results: Sequence[Result], per_hour: float = 3.6, device: str = "cpu", **changes: Any) -> list[Result]:
    """The same runs with a bill: at 3.6 an hour, a second costs 0.001."""
    return [
        replace(
            run,
            bill=Bill(
                seconds=run.seconds,
                **{
                    "device": device,
                    "gpu_seconds": run.seconds if device == "cuda" else 0.0,
                    "machine": "Standard_NC4as_T4_v3",
                    "price_per_hour": per_hour,
                    "currency": "USD",
                    "price": run.seconds * per_hour / 3600,
                    "source": "a price list",
                    "dated": "2026-08-20",
                    **changes,
                },
            ),
        )
        for run in results
        if run.seconds is not None
    ]


def pod(name: str, variant: str, seconds: float, index: int = 0, **changes: Any) -> Pod:
    """A pod on a T4 at 3.6 an hour, after which its node idled for ten minutes."""
    record = {
        "pod": name,
        "job": f"ts-{variant}",
        "variant": variant,
        "index": index,
        "seconds": seconds,
        "gpu_seconds": seconds,
        "gpu_utilisation": 0.5,
        "machine": "Standard_NC4as_T4_v3",
        "price_per_hour": 3.6,
        "currency": "USD",
        "gpus": 1,
        "idle_tail_seconds": 600.0,
        "exit": 0,
    }
    return Pod(**{**record, **changes})


def _curve(points: int, early: int, loss: float, until: int) -> list[CurvePoint]:
    rows = []
    for step in np.linspace(0, STEPS, points).astype(int):
        if step > until:
            break
        train = 2.3 * math.exp(-step / 140) + 0.02 * (1 - step / STEPS) + 0.001
        validation = 2.3 * math.exp(-step / 140) + loss + 0.00001 * max(0, int(step) - early)
        measured = {"loss": validation, "accuracy": max(10.0, 99 - 25 * validation)}
        rows.append(CurvePoint(int(step), train, measured))
    return rows


SPEED = {"onnxruntime": 1.0, "onnxruntime-int8-dynamic": 2.0, "sparse": 0.5, "sparse-int8": 0.6}
"""How many times as fast as dense in float32 on ONNX Runtime each form is with all weights."""


def candidates(
    results: Sequence[Result],
    speed: Mapping[str, float] = SPEED,
    losses: Mapping[tuple[str, str], float] | None = None,
    batches: Sequence[int] = (1, 32),
) -> Served:
    """Dense and the ticket as files in the forms of ``speed``: dense runtimes take the first level alone, the sparse one all.

    ``losses`` are points of accuracy by variant and form. The sparse forms are faster by the density to the power -0.8.
    """
    judgements, entries = [], []
    for run in results:
        if run.variant not in ("dense", "ticket") or run.final is None:
            continue
        for form, factor in speed.items():
            runtime, _, rest = form.partition("-")
            if runtime != "sparse" and run.level > 1:
                continue
            lost = (losses or {}).get((run.variant, form), 0.0)
            sha256 = hashlib.sha256(f"{run.key} {form}".encode()).hexdigest()
            validation, test = (
                {**split, "accuracy": split["accuracy"] - lost} for split in (run.final.validation, run.final.test)
            )
            low = rest.partition("-")[0] or "float32"
            size = round((run.total if runtime != "sparse" else 1.1 * run.kept) * (1 if low == "int8" else 4))
            judgements.append(
                Judgement(
                    run.variant, run.level, run.seed, run.key, run.sparsity, form, runtime, low, runtime != "sparse",
                    sha256, (FileFacts("model.onnx", size, sha256),), "here", 0, validation, test, 0.5, 1.5,
                )
            )  # fmt: skip
            if run.seed == 0:
                gain = factor * (run.density**-0.8 if runtime == "sparse" else 1.0)
                entries.append((run, form, sha256, gain))
    cells = []
    for batch in batches:
        random = np.random.default_rng(batch)
        noise = 1 + 0.02 * random.random((len(entries), 40))
        rows = tuple(
            Entry(run.variant, run.level, run.seed, form, sha256, tuple(0.2 * batch**0.9 / gain * noise[index]))
            for index, (run, form, sha256, gain) in enumerate(entries)
        )
        cells.append(RaceCell(batch, 1, float(batch), 1.01, rows))
    machine = {"CPU": "2 cores, x86-64 with AVX-512", "cores": "2"}
    lack = Lack("dense", 0, 0, "openvino-int8-nncf", "NNCF cannot quantise it (no such operator).")
    names = tuple(one.sha256 for one in judgements)
    return Served(tuple(judgements), Race(machine, 0.95, "image", names, tuple(cells), (lack,)))
