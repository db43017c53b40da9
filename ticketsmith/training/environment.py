"""Where a run was made: versions, hardware, threads, commit. No times and no names of people or hosts."""

from __future__ import annotations

import os
import platform
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import numpy
import torch

from ticketsmith.machine import cpu_name
from ticketsmith.version import COMMIT, __version__


def describe(device: torch.device, recipe_hash: str, kernels: str = "torch") -> dict[str, Any]:
    """The contents of ``environment.json``; the same on the same machine with the same software.

    ``kernels``: the instruction set of native ones, or ``torch``.
    """
    return {
        "ticketsmith": __version__,
        "git_commit": git_commit(),
        "recipe_sha256": recipe_hash,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": cpu_name(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        **({} if kernels == "torch" else {"kernels": kernels}),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "deterministic": torch.are_deterministic_algorithms_enabled()
        and ("where possible" if torch.is_deterministic_algorithms_warn_only_enabled() else True),
    }


@cache
def git_commit() -> str | None:
    """TicketSmith's own commit, with ``+changes`` when files differ from it; None when its build did not tell."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return COMMIT
    try:
        commit = _git(root, "rev-parse", "HEAD")
        changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{commit}+changes" if changed else commit


def _git(root: Path, *arguments: str) -> str:
    # in a session of its own: a signal that ends this process group must not make the commit unknown
    return subprocess.run(
        ["git", "-C", str(root), *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=10,
        start_new_session=True,
    ).stdout.strip()
