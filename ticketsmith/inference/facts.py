"""The machine that a benchmark ran on, as its reader needs to know it."""

from __future__ import annotations

import os

import torch

from ticketsmith.machine import cpu_name


def describe(device: torch.device) -> dict[str, str]:
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
