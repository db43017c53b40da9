"""A benchmark on disk and in a terminal."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from ticketsmith.errors import TicketSmithError
from ticketsmith.evidence.serving import Benchmark, Refusal, Timing, from_json, to_json
from ticketsmith.inference.table import COLUMNS, rows

DENSE = Timing("dense", 0, 0, "k0", 0.0, "torch", 1, 1, 100, 0.0966, 0.094, 0.122, 10352.0, 1.0, 1.0, 1.0, 0.0)
TICKET = Timing("ticket", 9, 0, "k9", 0.8926, "torch_csr", 32, 1, 100, 12.0, 11.0, 13.25, 2667.0, 1.84, 1.79, 1.9, 1e-6)
BENCHMARK = Benchmark(
    {"CPU": "some"},
    "torch",
    "cpu",
    0.95,
    (DENSE, TICKET, replace(TICKET, speedup=1.01, speedup_low=0.98, speedup_high=1.02)),
    "k0",
    (Refusal("dense", 0, 0, "torch_csr", 1, "no zeros"),),
)


def test_what_is_written_is_read() -> None:
    assert from_json(json.loads(json.dumps(to_json(BENCHMARK)))) == BENCHMARK


def _document(**changes: Any) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(to_json(BENCHMARK)))
    return {**plain, **changes}


def _timing(**changes: Any) -> dict[str, Any]:
    return _document(timings=[{**_document()["timings"][0], **changes}])


@pytest.mark.parametrize(
    ("document", "named"),
    [
        ([], "object"),
        (None, "object"),
        ({}, "`format`"),
        (_document(format=2), "`format` is 2"),
        (_document(extra=1), "`extra`"),
        ({"format": 1}, "lacks the field `confidence`"),
        (_document(confidence=1.5), "`confidence`"),
        (_document(machine={"CPU": 3}), "`machine.CPU`"),
        (_document(machine=[]), "`machine`"),
        (_document(timings={}), "`timings`"),
        (_document(timings=["fast"]), r"`timings\[0\]`"),
        (_document(refusals=[{}]), r"`refusals\[0\]` lacks the field `batch_size`"),
        (_timing(median_ms="0.1"), r"`timings\[0\].median_ms` must be a float"),
        (_timing(median_ms=float("nan")), r"`timings\[0\].median_ms` must be a finite"),
        (_timing(median_ms=10**400), r"`timings\[0\].median_ms` must be a finite"),
        (_timing(p90_ms=-1.0), r"`timings\[0\].p90_ms`"),
        (_timing(rounds=2.5), r"`timings\[0\].rounds` must be a int"),
        (_timing(level=True), r"`timings\[0\].level`"),
        (_timing(note="?"), r"`timings\[0\]` has an unknown field `note`"),
    ],
)
def test_other_documents_are_refused_by_field(document: Any, named: str) -> None:
    with pytest.raises(TicketSmithError, match=named):
        from_json(document)


def test_whole_numbers_are_numbers() -> None:
    assert from_json(_timing(median_ms=2)).timings[0].median_ms == 2.0


def test_the_table_shows_what_was_measured_and_claims_no_more() -> None:
    table = rows(BENCHMARK)
    assert all(len(row) == len(COLUMNS) for row in table)
    assert table[0][5:] == ("0.0966", "0.0940–0.122", "10,352", "reference")
    assert table[1] == ("ticket", "9", "89.3 %", "torch_csr", "32", "12.0", "11.0–13.2", "2,667", "1.84x (1.79–1.90)")
    assert table[2][-1] == "not distinguishable from 1.0x (0.98–1.02)"


def test_reading_a_benchmark_needs_no_torch() -> None:
    program = "import sys, ticketsmith.evidence.serving, ticketsmith.inference.table; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
