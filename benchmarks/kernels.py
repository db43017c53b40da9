"""Every kernel by itself, and instruction sets side by side: one thread, one process, turn by turn.

    python -m benchmarks.kernels
    python -m benchmarks.kernels --kernels Sell Bitmask Gemv --sizes 256 1024 --rounds 40

The cases are those that tests compare with NumPy (`benchmarks/kernel_cases.py`). A time is the median of the rounds, with the
10th and 90th percentile in brackets, in microseconds; a ratio is the median over rounds
of another instruction set's time over the first one's. Rates are of multiply-adds that are not with zeros.
"""

from __future__ import annotations

import argparse
import platform
import random
import sys
import time

import numpy as np

from benchmarks.kernel_cases import CASES, Case
from ticketsmith.machine import cpu_name
from ticketsmith.native import Isa, abi, best_isa, has_isa

SAMPLE_SECONDS = 1e-3
NAMES = {operation.__name__: operation for operation in CASES}


def seconds(case: Case, isa: Isa, repeats: int) -> float:
    """Of a call, Python's part in it included."""
    start = time.perf_counter()
    for _ in range(repeats):
        case.run(isa)
    return (time.perf_counter() - start) / repeats


def race(case: Case, isas: list[Isa], rounds: int) -> dict[Isa, np.ndarray]:
    repeats = {
        isa: max(1, int(SAMPLE_SECONDS / max(1e-7, min(seconds(case, isa, 1) for _ in range(3))))) for isa in isas
    }
    times: dict[Isa, list[float]] = {isa: [] for isa in isas}
    for _ in range(rounds):
        for isa in random.sample(isas, len(isas)):
            times[isa].append(seconds(case, isa, repeats[isa]))
    return {isa: np.array(values) for isa, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kernels", nargs="+", default=list(NAMES), choices=NAMES)
    parser.add_argument("--sizes", nargs="+", type=int, default=[300])
    parser.add_argument("--isas", nargs="+", help="the first is compared with each; all that there are, the best first")
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    isas = [Isa[name.upper()] for name in options.isas or ()]
    isas = isas or sorted((isa for isa in Isa if has_isa(isa)), reverse=True)
    print(
        f"{cpu_name()}, {best_isa().name}; python {platform.python_version()}, numpy {np.__version__}, table {abi.FINGERPRINT}"
    )
    print("python -m benchmarks.kernels " + " ".join(sys.argv[1:]))
    for name in options.kernels:
        for size in options.sizes:
            for case in CASES[NAMES[name]](size):
                times = race(case, isas, options.rounds)
                columns = []
                for isa, values in times.items():
                    low, median, high = 1e6 * np.quantile(values, (0.1, 0.5, 0.9))
                    columns.append(f"{isa.name} {median:8.2f} [{low:.2f}, {high:.2f}]")
                ratios = (f"{np.median(times[isa] / times[isas[0]]):.2f}x" for isa in isas[1:])
                rate = case.work / float(np.median(times[isas[0]])) / 1e9
                print(
                    f"{name:10s} {case.name:22s} {size:5d}  {'  '.join(columns)}  {' '.join(ratios)}  {rate:.2f} G/s",
                    flush=True,
                )


if __name__ == "__main__":
    main()
