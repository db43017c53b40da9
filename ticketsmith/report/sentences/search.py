"""A search in words: the interval that it reached, what each move was for, what it spared."""

from __future__ import annotations

from collections.abc import Sequence

from ticketsmith import units
from ticketsmith.evidence.findings import Findings
from ticketsmith.evidence.results import Result
from ticketsmith.evidence.search import Ending, Limit, Move, Path, Reason, Saving, level_before, saving
from ticketsmith.evidence.variants import TICKET
from ticketsmith.report.sentences import measures
from ticketsmith.report.sentences.names import in_sentence


def interval(findings: Findings, path: Path) -> str:
    """``It passes surely up to level 5 (83 % of the network removed), and fails surely at level 6 (...).``"""
    sure = "surely " if findings.policy.method == "non-inferiority" else "by the mean "

    def place(level: int) -> str:
        runs = findings.levels.get((TICKET, level))
        return f"level {level}" + (f" ({measures.removed_share(findings.size_at(TICKET, level))})" if runs else "")

    upper = f"it passes {sure}up to {place(path.passes)}" if path.passes else f"no level {sure}passes"
    if path.fails is not None:
        lower = f"fails {sure}at {place(path.fails)}"  # of sparser ones nothing is known
    elif path.ending is Ending.PASSED:
        lower = "no sparser level was asked for"
    else:
        lower = f"no level that was made {sure}fails"
    join = ", and " if path.passes and path.fails is not None else "; it " if path.fails is not None else "; "
    between = ""
    if path.frontier is not None and path.frontier != path.fails:
        where = "At" if path.fails is None else "In between, at"
        between = f" {where} {place(path.frontier)} the seeds cannot tell."
    return f"{upper[0].upper()}{upper[1:]}{join}{lower}.{between}{ending_words(path)}"


def ending_words(path: Path) -> str:
    """What ended the search, where that is no level that fails and no level that is the last; begins with a space."""
    terms = path.terms
    if path.ending is Ending.BUDGET:
        return f" The search ended there, since its budget of {_limit(terms.limit)} cannot pay more."
    if path.ending is None:
        return " The search goes on: more runs are to be made."
    cut = f" Its budget of {_limit(terms.limit)} could not pay every control." if path.cut else ""
    if path.ending is Ending.UNDECIDED:
        return f" The search ended with what {units.plural(terms.looks[-1], 'seed')}, the most it may train, can tell.{cut}"
    return cut


def savings(path: Path, results: Sequence[Result]) -> str:
    """``It took 27 of the 96 runs of the full grid (28 %), and 2 min of its 8 min of compute (25 %).``"""
    took = saving(path, results)
    time = ""
    if took.seconds is not None and took.grid_seconds:
        time = (
            f", and {units.duration(took.seconds)} of its {units.duration(took.grid_seconds)} of core time, by what runs took "
            f"({units.percent(round(took.seconds / took.grid_seconds, 2))})"
        )
    seeds = units.plural(path.terms.looks[-1], "seed")
    return f"The search took {share_of_grid(took)}, which is every level and control with {seeds}{time}."


def share_of_grid(took: Saving) -> str:
    """``27 of the 96 runs of the full grid (28 %)``."""
    return f"{took.runs} of the {took.grid_runs} runs of the full grid ({units.percent(round(took.runs / took.grid_runs, 2))})"


def what(move: Move) -> str:
    """``ticket level 6, 3 seeds``."""
    return f"{move.variant} level {move.level}, {units.plural(move.seeds, 'seed')}"


def why(path: Path, move: Move) -> str:
    """What a move was made for."""
    before, terms = level_before(move.level, path.terms.step, path.terms.levels), path.terms
    if move.reason is Reason.COARSE:
        rounds = move.level - before
        at_once = "one round" if rounds == 1 else f"{rounds} rounds at once"
        return f"the next coarse level, {at_once} after {_name(before)}"
    if move.reason is Reason.REFINED:
        return f"one round after {_name(before)}, before the coarse level that did not pass"
    if move.reason is Reason.SEEDS:
        return f"{terms.looks[move.look - 1]} seeds could not decide it"
    where = "at the sweet spot" if move.level == path.passes else "at the level after the sweet spot"
    if move.look:
        return f"a control {where}: {terms.looks[move.look - 1]} seeds could not decide it"
    return f"a control {where}: does {in_sentence(TICKET)} prove anything?"


def announcement(path: Path, move: Move) -> str:
    """A move as it begins or has been judged, for a log."""
    if move.status is None:
        return f"search: {what(move)}: {units.plural(len(move.places), 'run')} more, {why(path, move)}"
    return f"search: {what(move)}: {move.status.value}"


def progress(path: Path) -> list[str]:
    """How far a search has come, for somebody who waits: the last levels that were judged, and what is to be made."""
    up_to = f"passes up to level {path.passes}" if path.passes else "no level passes yet"
    fails = "" if path.fails is None else f", fails at level {path.fails}"
    state = "over" if path.over else f"under way, {units.plural(len(path.places), 'run')} asked for so far"
    return [f"search: {state}; {up_to}{fails}", *(announcement(path, move) for move in path.pending)]


def forecast(paths: Sequence[Path]) -> str:
    """Before anything is known: how many runs it takes, wherever the cliff is."""
    terms, counts = paths[0].terms, [len(path.places) for path in paths]
    grid = terms.grid

    def share(count: int) -> str:
        return f"{units.percent(round(count / grid, 2))}"

    most = f"at most {terms.ceiling:,} ({share(terms.ceiling)})"
    return (
        f"The search takes {min(counts):,} to {max(counts):,} runs where the first look decides every level, wherever the cliff "
        f"is ({share(min(counts))} to {share(max(counts))} of the {grid:,} of the full grid), {most} in any case."
    )


def _name(level: int) -> str:
    return f"level {level}" if level else "dense"


def _limit(limit: Limit) -> str:
    if limit.runs is not None:
        return units.plural(limit.runs, "run")
    if limit.hours is not None:
        return f"{units.number(limit.hours, 2)} core-hours"
    return f"{units.number(limit.money or 0.0, 2)} of money"
