"""What a careful reader should know before acting on the headline, in plain words."""

from __future__ import annotations

from ticketsmith import units
from ticketsmith.evidence.controls import Regime
from ticketsmith.evidence.findings import Findings
from ticketsmith.evidence.gates import own_worsening
from ticketsmith.evidence.results import Result
from ticketsmith.evidence.statistics import largest_share
from ticketsmith.evidence.sweet_spot import share_beyond
from ticketsmith.evidence.variants import DENSE, POST_TRAINING, is_control
from ticketsmith.report.sentences import measures
from ticketsmith.report.sentences.names import display, in_sentence
from ticketsmith.report.sentences.verdicts import reservations


def caveats(findings: Findings) -> list[str]:
    """One sentence or two for each reservation, the gravest first; empty when there is none."""
    return [
        *_agreed(findings),
        *_selection(findings),
        *_luck(findings),
        *_worst(findings),
        *_diverged(findings),
        *missing(findings),
        *_replicates(findings),
        *_equal(findings),
        *_resolution(findings),
        *_partial(findings),
        *_split(findings),
        *_controls(findings),
    ]


def against(findings: Findings, run: Result) -> list[str]:
    """What speaks against serving this very run, whatever is said of the mean of its level."""
    if run.variant == DENSE:
        return []
    dense = next((one for one in findings.results if (one.variant, one.seed) == (DENSE, run.seed)), None)
    sentences = []
    for gate in findings.policy.gates:
        worse = None if dense is None else own_worsening(run, dense, gate, findings.policy.at)
        if worse is None or gate.allows(worse):
            continue
        metric = findings.metrics[gate.metric]
        sentences.append(
            f"this run itself, seed {run.seed}, is {measures.worse(gate, metric, worse)} than dense in test "
            f"{metric.name.replace('_', ' ')}, beyond the margin of {measures.margin(gate, metric)}: gates judge the mean over "
            "seeds. Another --seed may be within it."
        )
    spot = findings.sweet_spot
    if spot and run.variant == spot.variant and run.level in {step.level for step in spot.beyond}:
        sentences.append(
            f"this level passes by itself, but lies beyond one that does not: the sweet spot is level {spot.level}, and "
            "nothing is claimed of this one."
        )
    return sentences


def _agreed(findings: Findings) -> list[str]:
    """Gates that were changed when their verdicts had been seen."""
    gates = [
        f"{gate.metric.replace('_', ' ')} at most {measures.margin(gate, findings.metrics[gate.metric])} worse"
        for gate in findings.policy.agreed
        if gate.metric in findings.metrics
    ]
    if not gates:
        return []
    return [
        f"The gates were changed after verdicts had been shown (they were: {units.listed(gates)}): of a margin that was chosen "
        "by results, the confidence is not what it says."
    ]


def _selection(findings: Findings) -> list[str]:
    spot = findings.sweet_spot
    return [text] if spot and (text := reservations(findings, spot)) else []


def _luck(findings: Findings) -> list[str]:
    """The tests ended at this level also because its seeds came out well; what bounds it knows of that, its mean does not."""
    spot = findings.sweet_spot
    if not spot or spot.end is None or findings.policy.method == "point":
        return []
    return [
        "The mean loss at the sweet spot is shown as measured, a little too good: the level is one that passed, and nothing "
        "takes that luck out. Its bound and its verdict hold."
    ]


def _worst(findings: Findings) -> list[str]:
    """A mean within the margin may hide a seed that is not: whoever serves a network serves one seed."""
    sentences = []
    for verdict in findings.sweet_spot.verdicts if findings.sweet_spot else ():
        if verdict.seeds < 2 or verdict.worst is None or verdict.gate.allows(verdict.worst):
            continue
        metric = findings.metrics[verdict.gate.metric]
        sentences.append(
            f"The answer is about the mean over seeds: at the sweet spot seed {verdict.worst_seed} alone is "
            f"{measures.worse(verdict.gate, metric, verdict.worst)} in {metric.name.replace('_', ' ')}, beyond the margin of "
            f"{measures.margin(verdict.gate, metric)}. Serve another seed."
        )
    return sentences


def _diverged(findings: Findings) -> list[str]:
    if not findings.diverged:
        return []
    runs = [f"{display(run.variant)} level {run.level} seed {run.seed}" for run in findings.diverged]
    shown = units.listed(runs) if len(runs) <= 6 else f"{', '.join(runs[:6])} and {len(runs) - 6} more"
    text = f"{units.plural(len(runs), 'run')} diverged (the loss was no longer a finite number): {shown}. "
    text += "Means and curves are over the other seeds."
    if any(not is_control(run.variant, findings.subject) and run.variant != DENSE for run in findings.diverged):
        text += " A method fails at such a level and at every sparser one."
    if any(is_control(run.variant, findings.subject) for run in findings.diverged):
        text += " A control that diverged does not fail its gate: nothing is known of its quality."
    return [text]


def missing(findings: Findings) -> list[str]:
    """How many planned runs are not there: those that can still be made, and those that cannot."""
    sentences, blocked = [], findings.blocked
    gap = findings.planned - len(findings.results) - blocked
    if gap > 0:
        sentences.append(
            f"{gap} of {units.plural(findings.planned, 'planned run')} {'is' if gap == 1 else 'are'} missing: a level that "
            "lacks one does not pass, and means rest on the others."
        )
    if blocked:
        sentences.append(
            f"{blocked} of {units.plural(findings.planned, 'planned run')} cannot be made, since one that "
            f"{'it needs' if blocked == 1 else 'they need'} diverged: a level that lacks one does not pass."
        )
    return sentences


def _replicates(findings: Findings) -> list[str]:
    seeds = units.plural(findings.replicates, "seed")
    if findings.policy.method == "examples":
        return [
            "One network was judged, by the test examples: the answer is about this very network on data like these, and not "
            "about the recipe. Another seed may give another answer, and nothing here says by how much."
        ]
    if findings.replicates == 1:
        return ["Only one seed was trained: another may give another answer, and nothing here says by how much."]
    if findings.policy.method == "point":
        return [f"The gate compares means of {seeds} without a test: it takes no account of their spread."]
    rare = _rare(findings)
    if findings.replicates < 5:
        few = f"{seeds} are few: the intervals take the seeds to scatter like a normal distribution, which so few cannot show."
        return [f"{few} {rare}"]
    return [rare]


def _rare(findings: Findings) -> str:
    """What holds of single seeds, whatever way they scatter: the mean is promised only where none fails now and then."""
    spot = findings.sweet_spot
    verdicts = [verdict for verdict in spot.verdicts if verdict.beyond[1] > 1] if spot else []
    if not verdicts:
        share = units.percent(round(largest_share(0, findings.replicates), 2))
        return f"A failure that strikes {share} of all seeds would be missed by {findings.replicates} in one experiment of 20."
    verdict = max(verdicts, key=lambda verdict: share_beyond(verdict, findings.policy))
    hits, count = verdict.beyond
    share = units.percent(round(share_beyond(verdict, findings.policy), 2))
    return (
        "The mean is promised for seeds that scatter like these; some that fail now and then may have been missed. By itself "
        f"{hits or 'none'} of {count} is beyond the margin at the sweet spot, which allows for up to {share} of all seeds "
        f"({units.percent(findings.policy.confidence)} confidence, whatever way they scatter)."
    )


def _equal(findings: Findings) -> list[str]:
    """Seeds that made the same network over again say nothing of how much seeds differ."""
    own = [summary for summary in findings.summaries if summary.variant in (DENSE, findings.subject)]
    if not any(summary.seeds > summary.replicates for summary in own):
        return []
    return [
        "Seeds whose networks are bit for bit equal (fixed weights that are not trained) count as one replicate: they say "
        "nothing of how much seeds differ."
    ]


def _resolution(findings: Findings) -> list[str]:
    """Where an interval is as narrow as the metric allows, rather than as the seeds made it."""
    at = ("test", findings.metric.name, findings.policy.at)
    own = {
        entry.metric: entry.floor
        for entry in findings.summaries
        if (entry.split, entry.metric, entry.at) == at and entry.floor
    }
    floors = own | {verdict.gate.metric: verdict.floor for verdict in findings.test if verdict.floor}
    return [
        f"Where seeds {measures.agreement(floor)} in {name.replace('_', ' ')}, their spread is taken as "
        f"{measures.resolution(floor)}."
        for name, floor in sorted(floors.items())
    ]


def _partial(findings: Findings) -> list[str]:
    """Sparsity speaks of prunable weights; where much of the model is something else, the model shrinks less."""
    size = findings.size
    if not size.partial:
        return []
    return [
        f"Only {size.prunable:,} of the network's {size.parameters:,} parameters are prunable here: sparsity and levels speak "
        "of those. Others are pruned by naming them under `pruning.include`."
    ]


def _split(findings: Findings) -> list[str]:
    """All seeds are measured on the same examples: only gates whose outcomes were kept hold the luck of having drawn those."""
    own = [verdict for verdict in findings.test if verdict.variant == findings.subject and verdict.replicates > 1]
    if findings.replicates < 2 or findings.policy.method == "point" or not own:
        return []
    alone = sorted({verdict.gate.metric.replace("_", " ") for verdict in own if verdict.split_error is None})
    both = len({verdict.gate.metric for verdict in own}) > len(alone)
    sentences = []
    if both:
        sentences.append(
            "Gates hold two sources of chance, which seeds were drawn and which test examples. Bands and other intervals are "
            "over seeds, on this one test split."
        )
    if alone:
        which = f"Gates on {units.listed(alone)}" if both else "Intervals and gates"
        sentences.append(
            f"{which} are over seeds, on this one test split: another draw of test examples may shift all seeds together, and "
            "no interval here tells by how much."
        )
    return [" ".join(sentences)]


def _controls(findings: Findings) -> list[str]:
    if not findings.comparisons and findings.subject == POST_TRAINING:
        return [
            "No other criterion was tried (`variants.post_training.rivals`, such as `random`): there is only dense to "
            "compare with."
        ]
    if not findings.comparisons and not findings.controls:
        return [
            "No control was trained (random re-initialisation, random ticket): there is only dense to compare with."
        ]
    trivial = [level for level, regime in findings.regimes.items() if regime is Regime.TRIVIAL]
    if not trivial:
        return []
    sparsity = {verdict.level: verdict.sparsity for verdict in findings.test if verdict.variant == findings.subject}
    deepest = measures.sparsity(findings.size_at(findings.subject, max(trivial, key=lambda level: sparsity[level])))
    return [
        f"Up to {deepest} a control passes the gate as well: there, the task is so easy that passing "
        f"proves nothing about {in_sentence(findings.subject)}."
    ]
