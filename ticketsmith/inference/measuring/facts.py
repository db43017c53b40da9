"""The machine that a benchmark ran on, and how it was measured, as its reader needs to know it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from ticketsmith.evidence.serving import Timing
from ticketsmith.machine import cpu_name
from ticketsmith.units import percent

if TYPE_CHECKING:
    from ticketsmith.inference.measuring.cell import CellResult


def of_machine(device: torch.device) -> dict[str, str]:
    """Labels and facts, in the order to read them. No names of people or hosts."""
    facts = {
        "CPU": cpu_name(),
        "cores": str(os.cpu_count()),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "PyTorch": torch.__version__,
    }
    if device.type == "cuda":
        facts |= {"GPU": torch.cuda.get_device_name(device), "CUDA": str(torch.version.cuda)}
    return facts


def of_benchmark(cells: Sequence[CellResult], pins: Mapping[int, str]) -> dict[str, str]:
    """How it was measured, for a reader."""
    several = len({cell.threads for cell in cells}) > 1
    places = [
        f"{percent(round(cell.resolution - 1, 3))} at {cell.batch}" + (f" on {cell.threads} threads" if several else "")
        for cell in cells
    ]
    facts = {
        "threads": "; ".join(pins.values()),
        "resolution": f"Identical copies of a model differ by up to {', '.join(places)}.",
    }
    timed = [timing for cell in cells for timing in cell.timings]
    tolerances = dict.fromkeys((timing.precision, timing.tolerance) for timing in timed)
    references = " and ".join(dict.fromkeys(timing.compared_with for timing in timed))
    facts["outputs"] = f"Compared with {references} before timing: " + ", ".join(
        f"{precision} within {tolerance:g}" for precision, tolerance in tolerances
    )
    agreements = [timing.agreement for timing in timed if timing.agreement is not None]
    if agreements:
        facts["outputs"] += f"; at low precision the same class for at least {percent(min(agreements))} of the inputs"
    facts["outputs"] += "."
    if any(timing.handed_to for timing in timed):
        facts["handed over"] = _handed_over(timed)
    alone = [
        name for name in dict.fromkeys(timing.precision for timing in timed)
        if not any(timing.against for timing in timed if timing.precision == name)
    ]  # fmt: skip
    if alone:
        facts["not compared"] = (
            f"No dense runtime ran in {' or '.join(alone)}: there is nothing of the same precision to be faster than."
        )
    return facts


def _handed_over(timings: Sequence[Timing]) -> str:
    sizes: dict[tuple[str, str], set[int]] = {}
    for timing in timings:
        if timing.handed_to:
            sizes.setdefault((timing.runtime, timing.handed_to), set()).add(timing.batch_size)
    places = "; ".join(
        f"{runtime} gave whole models to {other} at batch size {', '.join(map(str, sorted(some)))}"
        for (runtime, other), some in sizes.items()
    )
    return f"{places}, since that was faster there."
