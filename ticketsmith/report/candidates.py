"""Candidates as tables of finished text, as CSV and as JSON: the page, its twin and the command show these."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from ticketsmith import units
from ticketsmith.evidence.break_even import BreakEven
from ticketsmith.evidence.candidates import Memory
from ticketsmith.evidence.choice import KINDS, Candidate, Choice, Setting, Time
from ticketsmith.evidence.findings import Findings
from ticketsmith.evidence.interaction import Square
from ticketsmith.evidence.payoff import Payoff
from ticketsmith.evidence.rounds import Ratio
from ticketsmith.evidence.variants import DENSE
from ticketsmith.report.sentences import choice as words
from ticketsmith.report.sentences import measures
from ticketsmith.report.sentences.deployment import break_even
from ticketsmith.report.sentences.names import display, runtime_name
from ticketsmith.report.tables import Table

NONE = "\u2014"

_KIND = {"neither": "Dense, float32", "quantise": "Quantised", "prune": "Pruned", "both": "Pruned and quantised"}


def table(choice: Choice, setting: Setting, times: Sequence[Time] | None = None) -> Table:
    """Candidates of one setting, the fastest first; by default all. Columns that nobody measured are left out."""
    rows = setting.times if times is None else times
    rival = setting.rival
    against = f"Against {words.way(rival.candidate)}" if rival else "Against dense"
    columns = {
        "Network": [_network(time, setting) for time in rows],
        "Latency p50": [_latency(time, setting) for time in rows],
        against: [_ratio(setting, rival, time) for time in rows],
        "Within its precision": [_ratio(setting, setting.within(time), time) for time in rows],
        choice.metric.name.replace("_", " ").capitalize(): [_quality(choice, time.candidate) for time in rows],
        "On disk": [f"{units.size(time.candidate.bytes)}{_memory(time)}" for time in rows],
        "Per million": [_price(choice, setting, time) for time in rows],
        "Gates": [str(time.candidate.status) for time in rows],
        "File": [time.entry.sha256[:12] for time in rows],
    }
    columns = {name: cells for name, cells in columns.items() if set(cells) != {NONE}}
    return Table(tuple(columns), [tuple(row) for row in zip(*columns.values(), strict=True)])


def shown(setting: Setting) -> list[Time]:
    """Those that decide: the fastest of each kind that passes, those that nothing beats, and what lost its gate while faster."""
    best = [setting.best[kind] for kind in KINDS if kind in setting.best]
    fast = setting.choice.median_ms if setting.choice else float("inf")
    lost = [time for time in setting.times if not time.candidate.passes and time.median_ms < fast]
    lost = [next(iter(one for one in lost if one.candidate.kind == kind), None) for kind in KINDS]  # type: ignore[misc]
    rows = {id(time): time for time in (*best, *(one for one in lost if one is not None))}
    return sorted(rows.values(), key=lambda time: time.median_ms)


def settings(choice: Choice) -> Table:
    """One row a setting: the verdict, the rival, what to deploy, and from where on sparsity pays against that rival."""
    rows = []
    for one in choice.settings:
        rival, best = one.rival, one.choice
        rows.append(
            (
                words.setting(one).capitalize(),
                best.candidate.kind if best else NONE,
                f"{words.took(rival)}\n{words.way(rival.candidate)}" if rival else NONE,
                f"{words.took(best)}\n{words.named(best.candidate)}" if best else NONE,
                _interval(one.ratio(rival, best)) if rival and best else NONE,
                "\n".join(f"{_even(even)}, {form}" for form, even in one.break_even.items()) or NONE,
            )
        )
    return Table(("Setting", "Verdict", "Best dense that passes", "To deploy", "Speed-up", "Break-even sparsity"), rows)


def telling(choice: Choice, squares: Sequence[Square]) -> list[Square]:
    """Those whose rounded corners are the fastest of their kind that pass, in the setting that leads; else the first."""
    best = [choice.lead.best[kind].candidate for kind in ("quantise", "both") if kind in choice.lead.best]
    mine = [one for one in squares if any(low in one.corners.values() for low in best)]
    return mine or list(squares[:1])


def squares(choice: Choice, all_squares: Sequence[Square]) -> Table:
    """Two rows a form: dense and a level, each in float32 and in low precision, and what that loses against dense in float32."""
    rows = []
    for square in all_squares:
        low = square.corners["both"]
        for kinds in (("neither", "quantise"), ("prune", "both")):
            one = square.corners[kinds[0]]
            name = "Dense" if one.variant == DENSE else f"{display(one.variant)}, {units.share(one.sparsity)}"
            rows.append((f"{name}\n{words.way(low)}", *(_corner(choice, square, kind) for kind in kinds)))
    return Table(("Network", "In float32", "Quantised"), rows)


def payoffs(choice: Choice, every: Sequence[Payoff]) -> Table:
    """One row a kind: what finding it cost, what serving it costs, and when it has paid for itself."""
    rows = []
    for one in every:
        spent = NONE
        if one.cost is not None:
            spent = (
                units.money(one.cost, one.currency) if one.currency else f"{units.duration(one.cost)} of the machine"
            )
        price = choice.per_million(choice.lead, one.time.median_ms)
        rows.append(
            (
                f"{_KIND[one.kind]}\n{words.named(one.time.candidate)}",
                f"{words.ratio(one.speedup)}\n{words.named(one.base.candidate)}",
                spent,
                NONE if price is None or choice.rate is None else units.money(price, choice.rate.currency),
                _after(one, choice),
            )
        )
    return Table(
        ("Network", "Speed-up, and against what", "Cost of finding it", "Per million", "Paid for itself after"), rows
    )


def document(findings: Findings) -> dict[str, Any] | None:
    """All of it as plain data for ``json.dumps``; None without candidates."""
    choice = findings.choice
    if choice is None:
        return None
    return {
        "verdict": choice.verdict,
        "sentence": words.verdict(findings, choice),
        "reasons": words.reasons(choice),
        "unit": choice.unit,
        "confidence": choice.confidence,
        "machine": dict(choice.machine),
        "rate": asdict(choice.rate) if choice.rate else None,
        "settings": [_setting(choice, one) for one in choice.settings],
        "squares": [_square(choice, one) for one in findings.squares],
        "payoffs": [
            {
                "kind": one.kind, "speedup": asdict(one.speedup), "trying_seconds": one.trying_seconds,
                "training_seconds": one.training_seconds, "cost": one.cost, "currency": one.currency,
                "units": asdict(one.units) if one.units else None,
            }
            for one in findings.payoffs
        ],
        "lacking": [asdict(one) for one in choice.lacks],
    }  # fmt: skip


def _setting(choice: Choice, one: Setting) -> dict[str, Any]:
    return {
        "phase": one.phase,
        "batch_size": one.batch_size,
        "threads": one.threads,
        "verdict": one.choice.candidate.kind if one.choice else None,
        "choice": _row(choice, one, one.choice) if one.choice else None,
        "rival": _row(choice, one, one.rival) if one.rival else None,
        "break_even": {form: {**asdict(even), "text": _even(even)} for form, even in one.break_even.items()},
        "candidates": [_row(choice, one, time) for time in one.times],
    }


def _row(choice: Choice, setting: Setting, time: Time) -> dict[str, Any]:
    one, within = time.candidate, setting.within(time)
    timed = next(judgement for judgement in one.judgements if judgement.sha256 == time.entry.sha256)
    latency = setting.latency(time)
    return {
        "variant": one.variant, "level": one.level, "sparsity": one.sparsity, "form": one.form, "runtime": one.runtime,
        "precision": one.precision, "kind": one.kind, "gate": str(one.status), "passes": one.passes,
        "handed_to": time.entry.handed_to, "median_ms": time.median_ms, "latency_low_ms": latency.low,
        "latency_high_ms": latency.high, "p90_ms": time.percentile(90), "p99_ms": time.percentile(99),
        "speedup": _plain(setting, setting.rival, time), "speedup_within_precision": _plain(setting, within, time),
        "per_million": choice.per_million(setting, time.median_ms), "metric": choice.metric.name,
        "quality": one.quality.mean if one.quality else None, "quality_low": one.quality.low if one.quality else None,
        "quality_high": one.quality.high if one.quality else None,
        "by_seed": {str(seed): value for seed, value in one.values(choice.metric.name).items()}, "bytes": timed.bytes,
        "files": [{**asdict(file), "path": f"candidates/{timed.sha256[:16]}/{file.name}"} for file in timed.files],
        **_weight(time.memory), "sha256": timed.sha256, "judged_in_calls_of": one.calls or None,
    }  # fmt: skip


def _weight(memory: Memory | None) -> dict[str, float | None]:
    names = ("private_bytes", "added_bytes", "load_ms", "first_call_ms")
    return {name: None if memory is None else getattr(memory, name) for name in names}


def _plain(setting: Setting, rival: Time | None, time: Time) -> dict[str, float] | None:
    return None if rival is None else asdict(setting.ratio(rival, time))


def _square(choice: Choice, square: Square) -> dict[str, Any]:
    return {
        "forms": {kind: one.form for kind, one in square.corners.items()},
        "level": square.corners["both"].level,
        "losses": {kind: asdict(one) for kind, one in square.losses.items()},
        "excess": asdict(square.excess),
        "ratio": asdict(square.ratio) if square.ratio else None,
        "speed": asdict(square.speed) if square.speed else None,
        "over": "examples" if square.examples else "replicates",
        "sentence": words.interaction(choice, square),
    }


def _network(time: Time, setting: Setting) -> str:
    one = time.candidate
    name = "Dense" if one.variant == DENSE else f"{display(one.variant)}, {units.share(one.sparsity)}"
    handed = f" (by {runtime_name(time.entry.handed_to)})" if time.entry.handed_to else ""
    mark = " \u2190 to deploy" if time is setting.choice else ""
    return f"{name}{mark}\n{words.way(one)}{handed}"


def _latency(time: Time, setting: Setting) -> str:
    interval = setting.latency(time)
    low, high = (
        f"{100 * (bound / interval.median - 1):+.1f}".replace("-", units.MINUS)
        for bound in (interval.low, interval.high)
    )
    return f"{words.took(time)}\n{low} % to {high} %"


def _ratio(setting: Setting, rival: Time | None, time: Time) -> str:
    if rival is None:
        return NONE
    if rival is time:
        return units.times(1.0)
    value: Ratio = setting.ratio(rival, time)
    doubt = "\nno clear difference" if value.low <= 1.0 <= value.high else ""
    return f"{_interval(value)}{doubt}"


def _quality(choice: Choice, one: Candidate) -> str:
    return measures.quality(choice.metric, one.quality) if one.quality else NONE


def _interval(value: Ratio) -> str:
    return f"{units.times(value.median)}\n{units.times(value.low)} to {units.times(value.high)}"


def _memory(time: Time) -> str:
    """What serving takes, and loading, beneath the size of the file."""
    if (memory := time.memory) is None:
        return ""
    added = "" if memory.added_bytes is None else f", {units.size(memory.added_bytes)} of it its own"
    return f"\n{units.size(memory.private_bytes)} in memory{added}\nloads in {units.latency(memory.load_ms / 1e3)}"


def _price(choice: Choice, setting: Setting, time: Time) -> str:
    price = choice.per_million(setting, time.median_ms)
    return NONE if price is None or choice.rate is None else units.money(price, choice.rate.currency)


def _corner(choice: Choice, square: Square, kind: Any) -> str:
    one, loss = square.corners[kind], square.losses[kind]
    lines = [_quality(choice, one)]
    if kind != "neither":
        span = (
            f" ({measures.span(choice.metric, loss.low, loss.high)})"
            if loss.low is not None and loss.high is not None
            else ""
        )
        lines.append(f"loses {measures.difference(choice.metric, loss.mean)}{span}")
    if kind in square.times:
        lines.append(words.took(square.times[kind]))
    return "\n".join([*lines, units.size(one.bytes)])


def _after(one: Payoff, choice: Choice) -> str:
    if one.units is None:
        return NONE if one.speedup.low > 1.0 else "not surely faster"
    low, middle, high = (units.count(max(0.0, bound)) for bound in (one.units.low, one.units.middle, one.units.high))
    return f"{middle} {choice.unit}s\n{low} to {high}"


def _even(even: BreakEven) -> str:
    return break_even(even)


def every(settings: Iterable[Setting], choice: Choice) -> list[tuple[str, Table]]:
    """All candidates in every setting, each table with its title."""
    return [(words.setting(one).capitalize(), table(choice, one)) for one in settings]
