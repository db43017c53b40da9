"""What a careful reader should know before acting on the headline, in plain words."""

from __future__ import annotations

from ticketsmith.evidence import words
from ticketsmith.evidence.controls import Regime
from ticketsmith.evidence.findings import Findings
from ticketsmith.evidence.variants import POST_TRAINING, display, in_sentence


def caveats(findings: Findings) -> list[str]:
    """One sentence or two for each reservation, the gravest first; empty when there is none."""
    return [
        *_selection(findings),
        *_diverged(findings),
        *_missing(findings),
        *_replicates(findings),
        *_partial(findings),
        *_controls(findings),
    ]


def _selection(findings: Findings) -> list[str]:
    spot = findings.sweet_spot
    return [spot.caveat] if spot and spot.caveat else []


def _diverged(findings: Findings) -> list[str]:
    if not findings.diverged:
        return []
    runs = [f"{display(run.variant)} level {run.level} seed {run.seed}" for run in findings.diverged]
    shown = words.listed(runs) if len(runs) <= 6 else f"{', '.join(runs[:6])} and {len(runs) - 6} more"
    return [
        f"{words.plural(len(runs), 'run')} diverged (the loss was no longer a finite number): {shown}. "
        "Such a level fails its gate; its means and curves are over the other seeds."
    ]


def _missing(findings: Findings) -> list[str]:
    gap = findings.planned - len(findings.results)
    if gap <= 0:
        return []
    verb = "is" if gap == 1 else "are"
    return [
        f"{gap} of {words.plural(findings.planned, 'planned run')} {verb} missing; these numbers rest on the others."
    ]


def _replicates(findings: Findings) -> list[str]:
    seeds = words.plural(findings.replicates, "seed")
    if findings.replicates == 1:
        return ["Only one seed was trained: another may give another answer, and nothing here says by how much."]
    if findings.policy.method == "point":
        return [f"The gate compares means of {seeds} without a test: it takes no account of their spread."]
    if findings.replicates < 5:
        return [
            f"{seeds} are few: the intervals take the seeds to scatter like a normal distribution, "
            "which so few cannot show."
        ]
    return []


def _partial(findings: Findings) -> list[str]:
    """Sparsity speaks of prunable weights; where much of the model is something else, the model shrinks less."""
    parameters = max((run.parameters or 0 for run in findings.results), default=0)
    total = max((run.total for run in findings.results), default=0)
    if total >= 0.9 * parameters:
        return []
    return [
        f"Only {total:,} of the model's {parameters:,} parameters are prunable here: sparsity and compression speak of those. "
        "Others are pruned by naming them under `pruning.include`."
    ]


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
    deepest = words.share(max(sparsity[level] for level in trivial))
    return [
        f"Up to {deepest} sparsity a control passes the gate as well: there, the task is so easy that passing "
        f"proves nothing about {in_sentence(findings.subject)}."
    ]
