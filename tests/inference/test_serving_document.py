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
from ticketsmith.inference.tables import table

DENSE = Timing(
    "dense", 0, 0, "k0", 0.0, "onnxruntime", 1, 1, 100, 0.0966, 0.094, 0.122, 10352.0, 1.0, 1.0, 1.0, 0.0,
    against="onnxruntime",
)  # fmt: skip
TICKET = Timing(
    "ticket", 9, 0, "k9", 0.8926, "torch_csr", 32, 1, 100, 12.0, 11.0, 13.25, 2667.0, 1.84, 1.79, 1.9, 1e-6,
    dense=False, against="onnxruntime", roofline=0.123,
)  # fmt: skip
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
        (_document(format=3), "`format` is 3; this version reads 1 to 2"),
        (_document(extra=1), "the field `extra` is unknown"),
        ({"format": 1}, "the field `machine` is missing"),
        (_document(confidence=1.5), "`confidence`"),
        (_document(machine={"CPU": 3}), "`machine.CPU`"),
        (_document(machine=[]), "`machine`"),
        (_document(timings={}), "`timings`"),
        (_document(timings=["fast"]), r"`timings\[0\]`"),
        (_document(refusals=[{}]), r"the field `refusals\[0\].variant` is missing"),
        (_timing(median_ms="0.1"), r"`timings\[0\].median_ms` should be a valid number"),
        (_timing(median_ms=float("nan")), r"`timings\[0\].median_ms` should be a finite number"),
        (_timing(median_ms=10**400), r"`timings\[0\].median_ms`"),
        (_timing(p90_ms=-1.0), r"`timings\[0\].p90_ms`"),
        (_timing(rounds=2.5), r"`timings\[0\].rounds` should be a valid integer"),
        (_timing(level=True), r"`timings\[0\].level`"),
        (_timing(note="?"), r"the field `timings\[0\].note` is unknown"),
    ],
)
def test_other_documents_are_refused_by_field(document: Any, named: str) -> None:
    with pytest.raises(TicketSmithError, match=named):
        from_json(document)


def test_whole_numbers_are_numbers() -> None:
    assert from_json(_timing(median_ms=2)).timings[0].median_ms == 2.0


def test_documents_of_format_1_are_read() -> None:
    old = _document(format=1)
    for name in ("unit", "peaks", "loads", "layers"):
        del old[name]
    for timing in old["timings"]:
        for name in [
            name
            for name, value in timing.items()
            if value is None or name in ("precision", "dense", "phase", "against")
        ]:
            del timing[name]
    assert from_json(old).timings[0] == replace(DENSE, against="")


def test_the_table_shows_what_was_measured_and_claims_no_more() -> None:
    titles = table.cells(BENCHMARK)
    assert list(titles) == ["batch size 1, 1 thread, float32", "batch size 32, 1 thread, float32"]
    lines = [table.rows(timings) for timings in titles.values()]
    assert all(len(row) == len(table.COLUMNS) for rows in lines for row in rows)
    assert lines[0][0][4:9] == ("0.0966", "0.122", "", "10,352", "1 (the one to beat)")
    first, second = lines[1]
    assert first[:4] == ("ticket", "9", "89.3 %", "torch_csr")
    assert first[8:] == ("1.84x (1.79\u20131.90)", "12 %", "1e-06")
    assert second[8] == "not distinguishable from 1.0x (0.98\u20131.02)"
    assert table.rows([replace(TICKET, precision="int8", max_error=0.021, agreement=0.984)])[0][-1] == (
        "0.02, 98.4 % same class"
    )
    assert table.rows([replace(TICKET, against="")])[0][8] == "nothing to compare with"


def test_dense_rivals_come_first_and_the_fastest_leads() -> None:
    slower = replace(DENSE, runtime="torch", median_ms=0.5, speedup=0.2, speedup_low=0.1, speedup_high=0.3)
    ticket = replace(TICKET, batch_size=1, median_ms=0.01)
    [rows] = table.cells(replace(BENCHMARK, timings=(ticket, slower, DENSE))).values()
    assert [(row.variant, row.runtime) for row in rows] == [
        ("dense", "onnxruntime"), ("dense", "torch"), ("ticket", "torch_csr")
    ]  # fmt: skip


def test_the_summary_names_the_fastest_and_whether_that_is_sure() -> None:
    best = table.summary(BENCHMARK)["best"]
    assert [(one["variant"], one["batch_size"], one["runtime"], one["claimed"]) for one in best] == [
        ("dense", 1, "onnxruntime", False),
        ("ticket", 32, "torch_csr", True),
    ]
    low = replace(TICKET, precision="int8", batch_size=1, median_ms=0.0483)
    [_, told] = table.summary(replace(BENCHMARK, timings=(DENSE, low)))["best"]
    assert told["over_float32_dense"] == 2.0
    json.dumps(table.summary(BENCHMARK), allow_nan=False)


def test_a_reason_is_told_once_for_all_models_that_it_holds_for() -> None:
    refusals = tuple(Refusal("ticket", level, 0, "compact", size, "nothing") for level in range(7) for size in (1, 8))
    lines = table.refusal_lines(replace(BENCHMARK, refusals=refusals))
    assert lines == ["compact: ticket 0, ticket 1, ticket 2, ticket 3 and 3 more: nothing"]


def test_reading_a_benchmark_needs_no_torch() -> None:
    program = (
        "import sys, ticketsmith.evidence.serving, ticketsmith.inference.tables.table; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
