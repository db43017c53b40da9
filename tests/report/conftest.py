"""Reports of synthetic experiments, each rendered once for all tests that read it."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import altair.utils.schemapi
import pytest
import vl_convert
from filelock import FileLock

from ticketsmith.evidence.findings import Findings, conclude
from ticketsmith.evidence.results import Result
from ticketsmith.evidence.serving import Benchmark
from ticketsmith.evidence.verdicts import Gate, GatePolicy
from ticketsmith.prices import Rate
from ticketsmith.report.render import render

from ..evidence.synthetic import benchmark, candidates, experiment, pod, priced, served

POLICY = GatePolicy((Gate("accuracy", max_drop=2.0),), target_sparsity=0.8)
RECIPE = "experiment: imp_mnist\ntask:\n  data: mnist\n# </script><script>alert('recipe')</script> ```` & |\n"
HOSTILE = "<img src=x onerror=alert(1)>|`*"

PARAMETERS = 222_000
"""Of the networks of "priced", 220,704 of which are prunable."""

PODS = (
    pod("a", "dense", 60.0),
    pod("b", "ticket", 40.0, exit=137, reason="Evicted"),
    pod("c", "ticket", 80.0, gpu_utilisation=0.8),
    pod("d", "random_reinit", 100.0, index=1),
    pod("e", "report", 30.0, machine="Standard_D2s_v5", price_per_hour=0.115, gpu_seconds=0.0, gpu_utilisation=None),
    pod("f", "random_ticket", 5.0, exit=None, ended=False),
)
CHECKED = ("full", "priced")
"""Every figure is in one of these: their specifications are checked against the schema of Vega-Lite, which takes long."""

UNDRAWN = ("diverged",)
"""Whose figures are drawn in a browser alone."""

CASES = ("full", "one seed", "diverged", "hostile", "priced")


@lru_cache
def findings_of(case: str) -> Findings:
    """``full``: 5 seeds, 12 levels, a benchmark of format 1. ``priced``: made by a cluster, a benchmark of format 2.
    The others lack or break something; ``diverged`` has candidates.
    """
    runs = {
        "full": lambda: experiment(cliff=0.083),
        "one seed": lambda: experiment(seeds=1, levels=4, variants=("dense", "ticket")),
        "diverged": lambda: experiment(seeds=3, diverge=("ticket", 3, 1)),
        "priced": lambda: [
            replace(run, parameters=PARAMETERS)
            for run in priced(
                experiment(seeds=3, levels=6, cliff=0.083), device="cuda", idle_seconds=6, idle_price=0.006
            )
        ],
        "hostile": lambda: experiment(seeds=2, levels=3, variants=("dense", "ticket", HOSTILE)),
    }[case]()
    return conclude(
        HOSTILE if case == "hostile" else "imp_mnist",
        runs,
        POLICY,
        recipe_text=RECIPE,
        benchmark=_benchmark(case, runs),
        facts={"Data": "mnist", "Model": HOSTILE if case == "hostile" else "mnist_cnn"},
        environment={"Python": "3.11", "Git commit": "0123456789abcdef"},
        pods=PODS if case == "priced" else (),
        served=candidates(runs) if case == "diverged" else None,
    )


def _benchmark(case: str, runs: list[Result]) -> Benchmark | None:
    if case not in ("full", "diverged", "priced"):
        return None
    if case != "priced":
        return benchmark(runs)
    return replace(served(runs), machine_rate=Rate("Standard_D2s_v5", 0.115, source="another list", dated="2026-08-20"))


@pytest.fixture(autouse=True)
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(altair.utils.schemapi, "DEBUG_MODE", False)


@pytest.fixture(scope="session")
def findings() -> Callable[[str], Findings]:
    return findings_of


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, bytes]]:
    """The rendered report of a case: by whichever process of this test run needs it first."""
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own

    @lru_cache
    def files_of(case: str) -> dict[str, bytes]:
        path = Path(shared, f"report {case}.pickle")
        with FileLock(f"{path}.lock"):
            if not path.exists():
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(altair.utils.schemapi, "DEBUG_MODE", case in CHECKED)
                    if case in UNDRAWN:
                        patch.setattr(vl_convert, "vegalite_to_svg", lambda *_, **__: "<svg/>")
                        patch.setattr(vl_convert, "svg_to_png", lambda *_, **__: b"\x89PNG")
                    path.write_bytes(pickle.dumps(render(findings_of(case))))
        content: dict[str, bytes] = pickle.loads(path.read_bytes())
        return content

    return files_of
