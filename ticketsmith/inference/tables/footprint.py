"""Load time, first call, memory and size of one model on one runtime, in a process that does nothing else.

``python -m ticketsmith.inference.tables.footprint`` is that process: it reads what to load as JSON from standard input, and
writes what it found as JSON. Only the runtime's own library is imported in it.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ticketsmith.inference.runtimes import Deployment

_SECONDS = 300.0


@dataclass(frozen=True)
class Footprint:
    """Milliseconds, and bytes of the whole process; ``file_bytes`` of the file that was loaded. ``private_bytes``: at its peak,
    without the libraries, which processes share; ``added_bytes``: what of them came after Python and NumPy, by the runtime's
    import, the file and the call. None where the system does not tell."""

    load_ms: float
    first_call_ms: float
    resident_bytes: int
    peak_bytes: int
    file_bytes: int
    private_bytes: int | None = None
    added_bytes: int | None = None


def footprint(deployment: Deployment, inputs: NDArray[Any], threads: int, folder: Path) -> Footprint | None:
    """Measures in a fresh process; ``folder`` is for the inputs. None when the process fails or takes too long."""
    place = folder / "inputs.npy"
    np.save(place, inputs, allow_pickle=False)
    order = vars(deployment) | {"path": str(deployment.path), "inputs": str(place), "threads": threads}
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "OMP_NUM_THREADS": str(threads),
        "PYTHONWARNINGS": "ignore",
    }
    try:
        process = subprocess.run(
            [sys.executable, "-m", "ticketsmith.inference.tables.footprint"],
            input=json.dumps(order),
            capture_output=True,
            text=True,
            env=environment,
            timeout=_SECONDS,
            check=True,
        )
        return Footprint(**json.loads(process.stdout.splitlines()[-1]), file_bytes=deployment.path.stat().st_size)
    except (subprocess.SubprocessError, OSError, ValueError, IndexError, TypeError):
        return None


def main() -> None:
    """The process of its own."""
    order = json.load(sys.stdin)
    inputs = np.load(order["inputs"], allow_pickle=False)
    folder = Path(order["path"]).parent
    before = _private(folder)
    module, _, name = order["loader"].partition(":")
    load = getattr(importlib.import_module(module), name)
    for library in order["libraries"]:
        importlib.import_module(library)
    start = time.perf_counter()
    call = load(Path(order["path"]), order["threads"], **order["options"])
    loaded = time.perf_counter()
    call(inputs)
    called = time.perf_counter()
    after = _private(folder)
    measured = {
        "load_ms": 1e3 * (loaded - start),
        "first_call_ms": 1e3 * (called - loaded),
        "resident_bytes": _memory("VmRSS"),
        "peak_bytes": _memory("VmHWM"),
        "private_bytes": after,
        "added_bytes": None if before is None or after is None else max(0, after - before),
    }
    print(json.dumps(measured))


def _memory(field: str) -> int:
    """``VmRSS`` or ``VmHWM`` in bytes. ``getrusage`` would give the peak of the process that started this one, too."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith(field))
    except (OSError, ValueError, IndexError, StopIteration):
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _private(folder: Path) -> int | None:
    """The peak in bytes less the pages of files that are mapped, but for those in ``folder``: weights are no library's."""
    try:
        status = Path("/proc/self/status").read_text()
        pages = Path("/proc/self/smaps").read_text().splitlines()
    except OSError:
        return None
    if "RssFile" not in status:
        return None
    served, is_served = 0, False
    for line in pages:
        first = line.split(maxsplit=1)[0]
        if not first.endswith(":"):
            is_served = str(folder) in line
        elif is_served and first == "Rss:":
            served += 1024 * int(line.split()[1])
    return max(0, _memory("VmHWM") - _memory("RssFile")) + served


if __name__ == "__main__":
    main()
