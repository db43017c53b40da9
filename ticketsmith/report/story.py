"""What a report says, in order, free of any markup: the page and its Markdown twin are two ways to set this."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ticketsmith import units
from ticketsmith.evidence.choice import Choice
from ticketsmith.evidence.findings import Findings
from ticketsmith.evidence.sample_files import Sample
from ticketsmith.evidence.search import Path
from ticketsmith.evidence.size import Size
from ticketsmith.evidence.variants import DENSE, TICKET
from ticketsmith.evidence.verdicts import Status, Summary, SweetSpot
from ticketsmith.report import candidates, scorecard
from ticketsmith.report.figures import all_figures
from ticketsmith.report.figures.parts import Figure
from ticketsmith.report.figures.search import runs_of
from ticketsmith.report.gallery import Gallery, gallery
from ticketsmith.report.sentences import choice as choices
from ticketsmith.report.sentences import measures
from ticketsmith.report.sentences.bottom_line import amount, best_kind, bottom_line, cluster_line, notes
from ticketsmith.report.sentences.caveats import caveats
from ticketsmith.report.sentences.controls import special
from ticketsmith.report.sentences.deployment import answer, conditions, reasons
from ticketsmith.report.sentences.headline import headline
from ticketsmith.report.sentences.names import display, runtime_name
from ticketsmith.report.sentences.search import interval, savings, why
from ticketsmith.report.sentences.terms import definitions
from ticketsmith.report.tables import (
    NOT_MEASURED,
    Row,
    Table,
    cluster,
    headline_rows,
    mission_rows,
    pattern_costs,
    serving,
    spending,
)

SECTIONS = {
    "quality": "At what sparsity does quality drop?",
    "search": "How was it searched?",
    "candidates": "Prune, quantise, both or neither?",
    "speed": "Does it run faster?",
    "learning": "Do sparse networks learn faster?",
    "loss": "How did training go?",
    "layers": "Which layers keep their weights?",
    "cost": "What it cost",
}

SAMPLES = "What does each level make?"
"""The heading of what generative models made; there is none of it for other tasks."""


@dataclass(frozen=True)
class Card:
    """One key number: what it is, the number, and a line that puts it in place. ``status`` colours it."""

    label: str
    value: str
    note: str
    status: str = ""


@dataclass(frozen=True)
class Candidates:
    """What the candidates say: the verdict and what else to know of it, tables by title, and all of them for whoever looks."""

    verdict: str
    why: Sequence[str]
    tables: Sequence[tuple[str, Table]]
    together: Sequence[str]
    every: Sequence[tuple[str, Table]]
    machine: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Story:
    """Everything that a report shows."""

    name: str
    headline: str
    special: str
    interval: str
    facts: Sequence[tuple[str, str]]
    cards: Sequence[Card]
    metric: str
    shown: Sequence[Row]
    rows: Sequence[Row]
    table_note: str
    pattern_costs: Table
    samples: Gallery
    figures: Sequence[Figure]
    caveats: Sequence[str]
    savings: str
    moves: Table
    candidates: Candidates | None
    served: str
    served_why: Sequence[str]
    scorecard: Table
    scorecard_note: str
    settings: Table
    cells: Sequence[tuple[str, Table]]
    layers: Table
    loads: Table
    machine: Sequence[tuple[str, str]]
    refusals: Sequence[str]
    bottom_line: str
    spending: Table
    serving: Table
    cluster_line: str
    cluster: Table
    cost_notes: Sequence[str]
    command: str
    recipe: str
    environment: Sequence[tuple[str, str]]
    keys: Sequence[tuple[str, str]]
    definitions: Sequence[tuple[str, str]]
    footer: str

    def sections(self) -> list[tuple[str, str, list[Figure]]]:
        """Key, question and figures of every section that has any."""
        figures = {key: [figure for figure in self.figures if figure.section == key] for key in SECTIONS}
        return [(key, question, figures[key]) for key, question in SECTIONS.items() if figures[key]]


def tell(findings: Findings, samples: Sequence[Sample] = (), path: Path | None = None) -> Story:
    """The story of one experiment; ``samples`` is what its models made, in the order to show it, ``path`` that of its search."""
    rows = mission_rows(findings)
    benchmark, card = findings.benchmark, findings.scorecard
    noise = [str(benchmark.machine["noise"])] if benchmark and "noise" in benchmark.machine else []
    return Story(
        name=findings.name,
        headline=headline(findings),
        special=special(findings),
        interval=interval(findings, path) if path else "",
        facts=tuple(findings.facts.items()),
        cards=_cards(findings),
        metric=findings.metric.name.replace("_", " ").capitalize(),
        shown=headline_rows(findings, rows),
        rows=rows,
        table_note=_table_note(findings),
        pattern_costs=pattern_costs(findings),
        samples=gallery(findings, samples, rows),
        figures=all_figures(findings, path),
        caveats=[*caveats(findings), *noise],
        savings=savings(path, findings.results) if path else "",
        moves=_moves(path) if path else Table(),
        candidates=_candidates(findings),
        served=answer(findings) if benchmark else "",
        served_why=reasons(findings),
        scorecard=scorecard.shown(findings),
        scorecard_note=scorecard.note(card) if card else "",
        settings=scorecard.settings(card) if card and len(card.groups) > 1 else Table(),
        cells=[(conditions(group).capitalize(), scorecard.table(card, group)) for group in card.groups] if card else [],
        layers=scorecard.layers(card) if card else Table(),
        loads=scorecard.loads(card) if card and card.load_tests else Table(),
        machine=tuple(benchmark.machine.items()) if benchmark else (),
        refusals=_refusals(findings),
        bottom_line=bottom_line(findings),
        spending=spending(findings),
        serving=Table() if findings.choice else serving(findings),  # those that were judged as files say when
        cluster_line=cluster_line(findings),
        cluster=cluster(findings),
        cost_notes=notes(findings),
        command="python -m ticketsmith.prune --config recipe.yaml",
        recipe=findings.recipe_text,
        environment=tuple(findings.environment.items()),
        keys=_keys(findings),
        definitions=definitions(findings),
        footer=f"Made by TicketSmith from {units.plural(len(findings.results), 'sealed run')}.",
    )


def _candidates(findings: Findings) -> Candidates | None:
    choice = findings.choice
    if choice is None:
        return None
    telling = candidates.telling(choice, findings.squares)
    tables = (
        ("The candidates that decide", candidates.table(choice, choice.lead, candidates.shown(choice.lead))),
        ("By setting", candidates.settings(choice)),
        ("Prune \u00d7 quantise", candidates.squares(choice, telling)),
        ("What each costs to find, and when it pays", candidates.payoffs(choice, findings.payoffs)),
    )
    return Candidates(
        verdict=choices.verdict(findings, choice),
        why=choices.reasons(choice),
        tables=[(title, table) for title, table in tables if table.rows],
        together=[choices.interaction(choice, square) for square in telling],
        every=[
            *candidates.every(choice.settings, choice),
            ("Prune \u00d7 quantise, on every runtime", candidates.squares(choice, findings.squares)),
        ],
        machine=tuple(choice.machine.items()),
    )


def _moves(path: Path) -> Table:
    header = ("Move", "Variant", "Level", "Seeds", "Why", "Runs added", "Result")
    rows = [
        (
            str(number + 1),
            display(move.variant),
            str(move.level),
            str(move.seeds),
            why(path, move),
            runs_of(path, number),
            move.status.value if move.status else "under way",
        )
        for number, move in enumerate(path.moves)
    ]
    return Table(header, rows)


def _cards(findings: Findings) -> list[Card]:
    spot = findings.sweet_spot
    cards = [_spot_card(findings, spot), *([_compression_card(findings.size)] if spot else [])]
    dense = findings.summary(DENSE, 0)
    metric = f"test {findings.metric.name.replace('_', ' ')}"
    if dense:
        cards.append(Card(f"Dense {metric}", measures.value(findings.metric, dense.mean), _scatter(findings, dense)))
    ticket = findings.summary(spot.variant, spot.level) if spot else None
    if ticket and spot:
        name = "Ticket" if spot.variant == TICKET else display(spot.variant)
        cards.append(Card(f"{name} {metric}", measures.value(findings.metric, ticket.mean), _change(findings, spot)))
    cards.append(_speed_card(findings))
    cards.append(_cost_card(findings, spot))
    return cards


def _spot_card(findings: Findings, spot: SweetSpot | None) -> Card:
    if spot is None:
        undecided = any(v.status is Status.INCONCLUSIVE for v in findings.test if v.variant == findings.subject)
        return Card("Sweet spot", "none", "no level is shown to pass its gate", "INCONCLUSIVE" if undecided else "FAIL")
    size = findings.size
    at_least = "" if spot.cliff_reached else "at least "
    if size.network_sparsity is None:
        note = f"of the {size.prunable:,} prunable weights"
        return Card("Sweet spot: weights removed", f"{at_least}{units.share(size.sparsity)}", note, "PASS")
    note = f"of {size.parameters:,} parameters; {units.share(size.sparsity)} of the {size.prunable:,} prunable"
    label = "Sweet spot: removed of the network"
    return Card(label, f"{at_least}{units.share(size.network_sparsity)}", note, "PASS")


def _compression_card(size: Size) -> Card:
    """Parameters before over parameters after, of the whole network; of its prunable part beside it."""
    part = f"{size.kept:,.0f} of {size.prunable:,} prunable weights stay"
    if size.network_compression is None or size.parameters is None:
        return Card("Compression of the prunable weights", units.times(size.compression), part)
    left = size.parameters - size.prunable + size.kept
    note = f"{left:,.0f} of {size.parameters:,} parameters stay; prunable weights alone {units.times(size.compression)}"
    return Card("Compression of the network", units.times(size.network_compression), note)


def _scatter(findings: Findings, summary: Summary) -> str:
    seeds = units.replicates(summary.seeds, summary.replicates)
    return seeds if summary.high is None else f"{measures.quality(findings.metric, summary)}, {seeds}"


def _change(findings: Findings, spot: SweetSpot) -> str:
    at = "at the sweet spot"
    own = [verdict for verdict in spot.verdicts if verdict.gate.metric == findings.metric.name]
    if not own or own[0].estimate is None:
        return at
    worst = ""
    if own[0].seeds > 1 and own[0].worst is not None:
        worst = f" (worst seed: {measures.worse(own[0].gate, findings.metric, own[0].worst)})"
    return f"{measures.worse(own[0].gate, findings.metric, own[0].estimate)} than dense{worst}, {at}"


def _speed_card(findings: Findings) -> Card:
    """The best choice that passes its gates, in the cell that leads; the dense runtime it is measured against."""
    if findings.choice is not None:
        return _choice_card(findings.choice)
    lead = findings.scorecard.lead if findings.scorecard else None
    point = lead.candidate if lead else None
    if lead is None or point is None:
        return Card("Measured speed-up", NOT_MEASURED, _why_no_speed(findings))
    rival = f"dense on {runtime_name(point.against)}, {conditions(lead)}"
    if lead.choice is None:
        return Card("Measured speed-up", "none", f"nothing that passes is surely faster than {rival}")
    doubt = "" if lead.judged else "; its quality was not judged"
    return Card(
        "Measured speed-up", units.times(point.speedup), f"{runtime_name(point.runtime)} against {rival}{doubt}"
    )


def _choice_card(choice: Choice) -> Card:
    """What to deploy, against the fastest dense candidate of any precision."""
    best, rival = choice.lead.choice, choice.lead.rival
    if best is None:
        return Card("To deploy", "nothing yet", "no candidate passes its gates as it is served")
    value = choice.verdict or ""
    if rival is None or best is rival:
        return Card("To deploy", value, f"{choices.named(best.candidate)}, {choices.setting(choice.lead)}")
    speed = units.times(choice.lead.ratio(rival, best).median)
    return Card(
        "To deploy", value, f"{choices.named(best.candidate)}: {speed} as fast as {choices.named(rival.candidate)}"
    )


def _why_no_speed(findings: Findings) -> str:
    card = findings.scorecard
    if card is None or card.lead is None:
        measured = findings.benchmark is not None and findings.benchmark.timings
        return "no dense runtime to compare with was measured" if measured else "not measured"
    if not findings.policy.gates:
        return "no gate was set, so that nothing is deployable"
    return "nothing that passes its gates was measured" if card.deployable else "nothing passes its gates"


def _cost_card(findings: Findings, spot: SweetSpot | None) -> Card:
    cost = findings.cost
    label = "Cost of finding it" if spot else "Cost of the search"
    kind = best_kind(cost.finding, cost.dense)
    spent = amount(cost.finding, kind)
    seeds = units.plural(findings.replicates, "seed")
    if kind == "money":
        return Card(label, spent, f"dense alone {amount(cost.dense, kind)}; {_payback(findings) or seeds}")
    if cost.ratio is None:
        return Card(label, spent, _payback(findings) or seeds)
    return Card(label, f"{cost.ratio:.1f}\u00d7 dense", f"{spent} of training; {_payback(findings) or seeds}")


def _payback(findings: Findings) -> str:
    """When the smallest batch size pays, in a few words; empty when it was not measured."""
    if findings.choice is not None:
        own = next((one for one in findings.payoffs if one.time is findings.choice.lead.choice), None)
        if own is None or own.kind == "quantise":
            return ""
        return (
            f"earned back after {units.count(max(0.0, own.units.middle))} {findings.choice.unit}s" if own.units else ""
        )
    if not findings.paybacks:
        return ""
    payback = findings.paybacks[0]
    if payback.outcome != "pays":
        earned = "never" if payback.outcome == "never" else "not shown to be"
        return f"{earned} earned back at batch size {payback.batch_size}"
    if payback.requests is None:
        return ""
    return f"earned back after {units.count(max(0.0, payback.requests.middle))} {payback.unit}"


def _table_note(findings: Findings) -> str:
    level = units.percent(findings.policy.confidence)
    at = "after the last iteration" if findings.policy.at == "final" else "at the early-stop iteration"
    parts = [f"{findings.metric.name.replace('_', ' ').capitalize()}: mean on the test split {at}"]
    parts[0] += (
        f", \u00b1 {level} confidence interval over seeds (not over the draw of test examples)."
        if findings.replicates > 1
        else ", one seed, no interval."
    )
    size = findings.size
    whole = f" of the network's {size.parameters:,} parameters" if size.parameters else ""
    parts.append(f"Sparsity: removed share of the {size.prunable:,} prunable weights{whole}.")
    if findings.policy.gates:
        gates = [
            f"{gate.metric.replace('_', ' ')} at most {measures.margin(gate, findings.metrics[gate.metric])} worse"
            for gate in findings.policy.gates
        ]
        beside = " and test examples" if any(verdict.split_error is not None for verdict in findings.test) else ""
        how = {
            "non-inferiority": f"one-sided paired test over seeds{beside} at {level} confidence",
            "examples": f"one-sided paired test of one network over test examples at {level} confidence",
            "point": "comparison of means, without confidence",
        }[findings.policy.method]
        parts.append(f"Gate: {units.listed(gates)} than dense ({how}).")
    if findings.benchmark:
        parts.append(
            "Speedup: measured at batch size 1 against the dense network on the dense runtime that is fastest for it, each "
            "network on the fastest of those tried."
        )
    else:
        parts.append("Speedup: not measured in this experiment.")
    return " ".join(parts)


def _refusals(findings: Findings) -> list[str]:
    if findings.benchmark is None:
        return []
    refused = (f"{r.runtime}, batch size {r.batch_size}: {r.reason}" for r in findings.benchmark.refusals)
    return list(dict.fromkeys(refused))


def _keys(findings: Findings) -> list[tuple[str, str]]:
    """The runs behind the headline: dense and the method at its sweet spot (or at its sparsest)."""
    levels = [run.level for run in findings.results if run.variant == findings.subject]
    level = findings.sweet_spot.level if findings.sweet_spot else max(levels, default=0)
    places = ((DENSE, 0), (findings.subject, level))
    return [(run.path, run.key) for run in findings.results if (run.variant, run.level) in places]
