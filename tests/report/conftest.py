"""Reports of synthetic experiments, each rendered once for all tests that read it."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import pytest

from ticketsmith.evidence.findings import Findings, conclude
from ticketsmith.evidence.verdicts import Gate, GatePolicy
from ticketsmith.report.render import render

from ..evidence.synthetic import benchmark, experiment

POLICY = GatePolicy((Gate("accuracy", max_drop=2.0),), target_sparsity=0.8)
RECIPE = "experiment: imp_mnist\ntask:\n  data: mnist\n# </script><script>alert('recipe')</script> ```` & |\n"
HOSTILE = "<img src=x onerror=alert(1)>|`*"

CASES = ("full", "one seed", "diverged", "no controls", "hostile")


@lru_cache
def findings_of(case: str) -> Findings:
    """``full``: 5 seeds, 12 levels, a benchmark. The others lack something, or break something."""
    runs = {
        "full": lambda: experiment(cliff=0.083),
        "one seed": lambda: experiment(seeds=1),
        "diverged": lambda: experiment(seeds=3, diverge=("ticket", 3, 1)),
        "no controls": lambda: experiment(seeds=2, levels=4, variants=("dense", "ticket")),
        "hostile": lambda: experiment(seeds=2, levels=3, variants=("dense", "ticket", HOSTILE)),
    }[case]()
    return conclude(
        HOSTILE if case == "hostile" else "imp_mnist",
        runs,
        POLICY,
        recipe_text=RECIPE,
        benchmark=benchmark(runs) if case in ("full", "diverged") else None,
        facts={"Data": "mnist", "Model": HOSTILE if case == "hostile" else "mnist_cnn"},
        environment={"Python": "3.11", "Git commit": "0123456789abcdef"},
    )


@lru_cache
def files_of(case: str) -> dict[str, bytes]:
    """The rendered report of a case."""
    return render(findings_of(case))


@pytest.fixture(scope="session")
def findings() -> Callable[[str], Findings]:
    return findings_of


@pytest.fixture(scope="session")
def files() -> Callable[[str], dict[str, bytes]]:
    return files_of
