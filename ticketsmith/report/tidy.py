"""``results.csv``: one row a run, every number that was measured, for whoever wants to ask their own questions."""

from __future__ import annotations

import csv
import io

from ticketsmith.evidence.findings import Findings
from ticketsmith.evidence.results import At, Split
from ticketsmith.evidence.size import size_of
from ticketsmith.evidence.summarise import measured_value

_MOMENTS: tuple[At, ...] = ("final", "early_stop")
_TIMES = ("gpu_seconds", "side_by_side")
_BILL = (*_TIMES, "price", "currency", "machine", "price_per_hour", "spot", "idle_seconds", "idle_price")
_SPLITS: tuple[Split, ...] = ("validation", "test")


def results_csv(findings: Findings) -> bytes:
    """UTF-8 with a header. Metrics are columns ``<split>_<metric>_<final | early_stop>``; empty where not measured."""
    measures = [(split, name, at) for at in _MOMENTS for split in _SPLITS for name in findings.metrics]
    fields = [
        "variant",
        "level",
        "seed",
        "draw",
        "sparsity",
        "density",
        "kept",
        "total",
        "parameters",
        "network_sparsity",
    ]
    fields += ["steps", "early_stop_step"]
    fields += [f"{split}_{name}_{at}" for split, name, at in measures]
    fields += ["seconds", *_BILL, "training_flops", "diverged", "diverged_at", "key", "path"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(fields)
    for run in findings.results:
        row: dict[str, object] = {
            "variant": run.variant,
            "level": run.level,
            "seed": run.seed,
            "draw": run.draw,
            "sparsity": run.sparsity,
            "density": run.density,
            "kept": run.kept,
            "total": run.total,
            "parameters": run.parameters,
            "network_sparsity": size_of([run]).network_sparsity,
            "steps": run.steps,
            "early_stop_step": run.early_stop.step if run.early_stop else None,
            "seconds": run.seconds,
            "training_flops": run.training_flops,
            "diverged": str(run.diverged).lower(),
            "diverged_at": run.diverged_at,
            "key": run.key,
            "path": run.path,
        }
        for field in _BILL:
            row[field] = (
                getattr(run.bill, field) if run.bill and (run.bill.price is not None or field in _TIMES) else None
            )
        for split, name, at in measures:
            row[f"{split}_{name}_{at}"] = measured_value(run, name, split, at)
        writer.writerow([row[field] for field in fields])
    return text.getvalue().encode()
