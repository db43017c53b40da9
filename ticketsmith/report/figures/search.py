"""How was the sweet spot searched? Every move in its order: which level, with how many seeds, and what came of it."""

from __future__ import annotations

import altair as alt

from ticketsmith import units
from ticketsmith.evidence.search import POINT, Path, Reason
from ticketsmith.evidence.variants import DENSE, TICKET
from ticketsmith.evidence.verdicts import Status
from ticketsmith.report.figures.parts import Figure, Row, colour, data, faded, finished, hover, shape
from ticketsmith.report.sentences.names import display
from ticketsmith.report.sentences.search import why
from ticketsmith.report.theme import GREEN, GREY, OLIVE, SOFT, VERMILLION, Series, Style

_LOOKS = {
    Status.PASS.value: Style(GREEN.colour, GREEN.ink, (), "circle"),
    Status.FAIL.value: Style(VERMILLION.colour, VERMILLION.ink, (), "square"),
    Status.INCONCLUSIVE.value: Style(OLIVE.colour, OLIVE.ink, (), "diamond"),
    "under way": Style(GREY.colour, GREY.ink, (), "cross"),
}
_CONTROL = "control"


def search_figures(path: Path) -> list[Figure]:
    """One figure; none before the first move."""
    rows = [_row(path, number) for number in range(len(path.moves))]
    if not rows:
        return []
    present = {row["series"] for row in rows}
    series = [Series(key, key, style) for key, style in _LOOKS.items() if key in present]
    x = alt.X("move:O", axis=alt.Axis(title="Moves, in their order", labelAngle=0, labelOverlap="greedy"))
    levels = path.terms.levels
    y = alt.Y(
        "level:Q",
        scale=alt.Scale(domain=[0, levels + 0.5], nice=False),
        axis=alt.Axis(title="Pruning level (sparser upwards)", values=_ticks(levels), format="d"),
    )
    base = alt.Chart(data(rows)).encode(x=x, y=y)
    ticket = alt.Chart(data([row for row in rows if row["kind"] == TICKET])).encode(x=x, y=y)
    line = ticket.mark_line(color=SOFT, strokeWidth=1.2, opacity=0.55)
    spot = alt.Chart(data([{"level": path.passes, "end": levels + 0.5}]))
    passed = spot.mark_rule(color=GREEN.colour, strokeWidth=1.5, strokeDash=[4, 3]).encode(y=y)
    points = [
        _marks([row for row in rows if row["kind"] == kind], kind == TICKET).encode(
            x=x, y=y, color=colour(series), shape=shape(series), opacity=faded()
        )
        for kind in dict.fromkeys(row["kind"] for row in rows)
    ]
    text = base.mark_text(dy=-16, fontSize=11, color=SOFT).encode(text="label:N", opacity=faded())
    layers = [line, *([passed] if path.passes else []), *points, text]
    layers.append(hover(base, ["Move", "Why", "Runs", "Result"]))
    return [
        Figure(
            name="search-path",
            section="search",
            title=_title(path),
            caption=(
                "From left to right in the order in which the moves were made. Filled: the ticket; hollow: a control. The "
                "number above a mark is that of its seeds. What came of a move decided the next; a mark that is gone back to "
                "is one that more seeds were asked for. The dashed line is the sweet spot."
            ),
            alt=f"The moves of the search in their order, by level. {_title(path)}. " + _in_words(path),
            spec=finished(alt.layer(*layers), height=60 + 22 * min(levels, 14)),
            legend=tuple(series),
        )
    ]


def _marks(rows: list[Row], solid: bool) -> alt.Chart:
    hollow = {"fill": "white", "size": 110, "strokeWidth": 2.2}
    marks: alt.Chart = alt.Chart(data(rows)).mark_point(**({"filled": True, "size": 170} if solid else hollow))
    return marks


def _row(path: Path, number: int) -> Row:
    move = path.moves[number]
    result = move.status.value if move.status else "under way"
    return {
        "series": result,
        "kind": _CONTROL if move.reason is Reason.CONTROL else TICKET,
        "move": number + 1,
        "level": move.level,
        "label": str(move.seeds),
        "Move": f"{display(move.variant)}, level {move.level}, {units.plural(move.seeds, 'seed')}",
        "Why": why(path, move),
        "Runs": runs_of(path, number),
        "Result": result,
    }


def runs_of(path: Path, number: int) -> str:
    """The runs that a move added, by variant: ``3 dense, 3 ticket``."""
    counts: dict[str, int] = {}
    for variant, *_ in path.moves[number].places:
        if variant != POINT:
            counts[variant] = counts.get(variant, 0) + 1
    return ", ".join(f"{count} {variant}" for variant, count in counts.items()) or "none"


def _title(path: Path) -> str:
    levels = {move.level for move in path.moves if move.variant == TICKET}
    seeds = len({place[2] for place in path.places if place[0] == DENSE})
    runs = f"{len(path.places)} runs instead of {path.terms.grid}"
    return (
        f"{runs}: {len(levels)} of {units.plural(path.terms.levels, 'level')}, with up to {units.plural(seeds, 'seed')}"
    )


def _in_words(path: Path) -> str:
    return (
        "; ".join(f"{_row(path, number)['Move']}: {_row(path, number)['Result']}" for number in range(len(path.moves)))
        + "."
    )


def _ticks(levels: int) -> list[int]:
    step = max(1, round(levels / 10))
    return list(range(0, levels + 1, step))
