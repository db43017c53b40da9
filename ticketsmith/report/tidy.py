"""``results.csv``: one row a run, every number that was measured, for whoever wants to ask their own questions."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence

from ticketsmith.evidence.findings import Findings
from ticketsmith.evidence.results import At, Result, Split
from ticketsmith.evidence.size import size_of
from ticketsmith.evidence.summarise import measured_value

_PLACE = ("variant", "level", "seed", "draw", "sparsity", "density", "kept", "total", "parameters")
_MOMENTS: tuple[At, ...] = ("final", "early_stop")
_TIMES = ("gpu_seconds", "side_by_side")
_BILL = (*_TIMES, "price", "currency", "machine", "price_per_hour", "spot", "idle_seconds", "idle_price")
_SPLITS: tuple[Split, ...] = ("validation", "test")


def results_csv(findings: Findings) -> bytes:
    """UTF-8 with a header. Metrics are columns ``<split>_<metric>_<final | early_stop>``; empty where not measured."""
    measures = [(split, name, at) for at in _MOMENTS for split in _SPLITS for name in findings.metrics]
    rows = [_row(run, measures) for run in findings.results]
    return as_csv(list(rows[0]), rows)


def as_csv(fields: Sequence[str], rows: Iterable[Mapping[str, object]]) -> bytes:
    """UTF-8 with a header."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fields, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _row(run: Result, measures: Sequence[tuple[Split, str, At]]) -> dict[str, object]:
    priced = run.bill is not None and run.bill.price is not None
    return {
        **{name: getattr(run, name) for name in _PLACE},
        "network_sparsity": size_of([run]).network_sparsity,
        "steps": run.steps,
        "early_stop_step": run.early_stop.step if run.early_stop else None,
        **{f"{split}_{name}_{at}": measured_value(run, name, split, at) for split, name, at in measures},
        "seconds": run.seconds,
        **{name: getattr(run.bill, name) if run.bill and (priced or name in _TIMES) else None for name in _BILL},
        "training_flops": run.training_flops,
        "diverged": str(run.diverged).lower(),
        **{name: getattr(run, name) for name in ("diverged_at", "key", "path")},
    }
