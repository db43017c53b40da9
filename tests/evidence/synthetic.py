"""Results of an experiment that was never run: the shapes of the literature, drawn from a seeded generator.

Dense is about 99 %; the ticket is slightly better at first, learns faster, and loses its quality beyond ``cliff``; the
controls lose theirs earlier. Good enough to test statistics and to look at a report with.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ticketsmith.evidence.billing import Pod
from ticketsmith.evidence.results import Bill, CurvePoint, LayerDensity, Measured, Metric, Result
from ticketsmith.evidence.serving import Benchmark, Timing

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
) -> Result:
    """One run; ``accuracy`` None means that it diverged. Test equals validation unless it is given."""
    density = 0.8**level if density is None else density
    layers = {name: LayerDensity(total, max(1, round(total * density))) for name, total in LAYERS.items()}
    kept = sum(layer.kept for layer in layers.values())
    key = hashlib.sha256(f"{variant}/{level}/{seed}/{draw}".encode()).hexdigest()

    def state(step: int) -> Measured | None:
        if accuracy is None:
            return None
        on_test = accuracy if test is None else test
        return Measured(step, {"accuracy": accuracy, "loss": loss}, {"accuracy": on_test, "loss": loss * 1.03})

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
