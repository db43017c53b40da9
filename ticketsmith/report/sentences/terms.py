"""The words of the field in plain language, for a reader who decides and does not read code."""

from __future__ import annotations

from ticketsmith import units
from ticketsmith.evidence.findings import Findings
from ticketsmith.evidence.variants import POST_RANDOM, POST_TRAINING
from ticketsmith.report.sentences.names import display

_VARIANTS = {
    "dense": "The network as it is usually trained, with all its weights: what everything is compared with.",
    "ticket": (
        "A sparse network found by iterative magnitude pruning: train, remove the smallest weights, set the others "
        "back to where they started, train again, and so on. It is then trained alone, from those early weights."
    ),
    "random_reinit": (
        "A control: the ticket's sparsity pattern with fresh random initial weights. If it does as well, the initial "
        "weights do not matter."
    ),
    "random_ticket": (
        "A control: as many weights in each layer as the ticket, but in random places. If it does as well, it does not "
        "matter which weights are kept."
    ),
    "random_pruning": "A control: weights removed at random before training.",
    "unstructured": (
        "A ticket of the same sparsity without the recipe's pattern: single weights stay or go, wherever they are. What it is "
        "better by is what the pattern costs."
    ),
    "one_shot": "Pruned once to its final sparsity instead of step by step.",
    "finetune": "Pruned step by step; the remaining weights are kept as they are and trained on briefly.",
    "post_training": "Weights of the trained dense network are removed by the recipe's criterion; nothing is trained again.",
    "lr_rewind": "Pruned step by step; the remaining weights are kept and the learning-rate schedule is run again.",
}


def _meaning(variant: str) -> str:
    if variant == POST_RANDOM:
        return (
            "The same with weights chosen at random. If it does as well, it does not matter which weights are removed."
        )
    if variant.startswith("post_") and variant != POST_TRAINING:
        return f"The same by another criterion, {variant.removeprefix('post_')}."
    return _VARIANTS.get(variant, "")


def definitions(findings: Findings) -> list[tuple[str, str]]:
    """Every term that this report uses, explained."""
    confidence = units.percent(findings.policy.confidence)
    terms = [(display(variant), meaning) for variant in findings.variants if (meaning := _meaning(variant))]
    terms += [
        (
            "Sparsity",
            "The share of the prunable weights that was removed: 90 % sparsity leaves one in ten of those. What is not "
            "prunable (biases, norms, and layers that were left out) stays, and counts among the network's parameters.",
        ),
        (
            "Compression",
            "Parameters of the network before over parameters after pruning. A file or a runtime may save less.",
        ),
        ("Level", "How many times weights were removed. Level 0 is the dense network."),
        ("Seed", "One complete repetition of the experiment, with other random initial weights and data order."),
        (
            "Quality gate",
            "The largest loss of quality against the dense network that was agreed on before the experiment. A level "
            "passes only when every gate passes.",
        ),
    ]
    if findings.policy.method == "examples":
        terms.append(
            (
                "PASS, FAIL, INCONCLUSIVE",
                f"PASS: with {confidence} confidence this network loses no more on data like the test examples than the gate "
                "allows. FAIL: with the same confidence it loses more. INCONCLUSIVE: the test examples on which it differs from "
                "dense are too many, or there are too few of all, to say either. Other seeds are left out of account.",
            )
        )
    elif findings.policy.method == "non-inferiority":
        terms.append(
            (
                "PASS, FAIL, INCONCLUSIVE",
                f"PASS: with {confidence} confidence quality loses no more than the gate allows, on average over seeds. FAIL: "
                "with the same confidence it loses more. INCONCLUSIVE: the seeds, or the test examples, differ too much, or "
                "are too few, to say either.",
            )
        )
    else:
        terms.append(
            (
                "PASS, FAIL",
                "Whether the mean loss of quality is within what the gate allows. Chance is left out of account.",
            )
        )
    return [
        *terms,
        *(
            (name.replace("_", " ").capitalize(), metric.about)
            for name, metric in findings.metrics.items()
            if metric.about
        ),
        (
            "Sweet spot",
            "Levels are tested from the mildest on, on the test data, and the first that does not pass ends the search: the "
            "sweet spot is the last that passed. Nothing is claimed beyond it.",
        ),
        (
            f"{confidence} confidence interval",
            f"From the scatter between seeds: in {confidence} of such experiments it holds the mean over all seeds, on this "
            "very test split. What another draw of test examples would change is not in it, but in the bounds of gates, where "
            "runs kept the outcome of each example. No scatter is taken to be smaller than the metric can tell apart.",
        ),
        (
            "Early stop",
            "The training iteration with the lowest validation loss. The earlier, the faster it learns. Where it is the last "
            "iteration, longer training might have found a later one: it is then a lower bound (censored).",
        ),
        ("Knee", "The level after which the quality curve bends down most sharply."),
        (
            "Measured speed-up",
            "Time of one call of the dense network over the time of one call of the pruned one, measured side by side. "
            "Dense is on the dense runtime that is fastest for it; the pruned network is on whichever runtime is fastest. "
            "Fewer weights are faster only with software that uses it: below 1\u00d7 the pruned network is slower.",
        ),
        *_served(findings),
        ("FLOP", "One floating-point operation. Training is counted as if no weight had been removed."),
    ]


def _served(findings: Findings) -> list[tuple[str, str]]:
    terms = []
    if findings.scorecard:
        terms += [
            ("Runtime", "The software that runs a trained network. The same network differs in speed between them."),
            (
                "Break-even sparsity",
                "From this sparsity on, software that skips zeros is surely faster than the best that multiplies them.",
            ),
            ("p50, p99", "The latency that half of the calls, or 99 of 100, had at most."),
        ]
    if findings.paybacks:
        terms.append(
            (
                "Pays for itself",
                "Every answer that the pruned network gives faster than the dense one saves machine time. It has paid for "
                "itself when that adds up to what finding it took beyond training the dense network alone.",
            )
        )
    return terms
