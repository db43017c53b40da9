"""One run of an experiment as files for others: what is exported, and what is known of it."""

from __future__ import annotations

import dataclasses
import json
from functools import partial
from typing import TYPE_CHECKING, Any

from ticketsmith.data import pretrained
from ticketsmith.data.cards import CARDS
from ticketsmith.errors import TicketSmithError
from ticketsmith.evidence.results import Result
from ticketsmith.experiment import ExperimentReader
from ticketsmith.plan import Plan
from ticketsmith.store.contract import MANIFEST

if TYPE_CHECKING:
    from ticketsmith.export.subject import Evidence, Subject


def subject_of(experiment: ExperimentReader, result: Result) -> Subject:
    """A run with its model, the specs that it came from, its verdict, and what speaks against serving it."""
    from ticketsmith.export.recipe import portable
    from ticketsmith.export.subject import Subject
    from ticketsmith.export.ticket import Ticket
    from ticketsmith.report.sentences.caveats import against

    run = experiment.sealed(result)
    model = experiment.model(result)
    ancestry = Plan(experiment.name, tuple(experiment.plan.needed_for([result.key]).by_key.values()))
    chain = json.loads(ancestry.to_bytes())["nodes"]
    files = {name: run.read(name) for name in run.files} | {MANIFEST: run.manifest}
    sealed = experiment.index.runs(ancestry.by_key, experiment.name)

    try:
        status = experiment.findings.statuses.get((result.variant, result.level))
        gate, warnings = status and status.value, against(experiment.findings, result)
    except TicketSmithError:  # what cannot be judged can be exported
        gate, warnings = None, []
    return Subject(
        Ticket(run.folder, files, portable(experiment.recipe.source), chain),
        result,
        experiment.results,
        model,
        experiment.task,
        experiment.recipe.policy,
        gate,
        sealed.get,
        warnings,
        partial(_evidence, experiment, result),
    )


def _evidence(experiment: ExperimentReader, result: Result) -> Evidence:
    """What a model card tells of the experiment, in the report's own words."""
    from ticketsmith.export.subject import Evidence
    from ticketsmith.report.sentences.caveats import caveats
    from ticketsmith.report.sentences.controls import special
    from ticketsmith.report.sentences.headline import headline
    from ticketsmith.report.sentences.names import runtime_name
    from ticketsmith.report.sentences.verdicts import reason
    from ticketsmith.units import latency, times

    facts = Evidence(**_about_data(experiment))
    try:
        findings = experiment.findings
    except TicketSmithError:  # what cannot be judged can be exported
        return facts
    gates = [
        f"**{verdict.status.value}** at this level: {reason(verdict, findings.metrics[verdict.gate.metric], findings.policy)}."
        for verdict in findings.verdicts(result.variant, result.level)
    ]
    speeds = [
        (
            runtime_name(point.runtime),
            str(point.batch_size),
            str(point.threads),
            point.precision + (f", {point.phase}" if point.phase else ""),
            latency(point.median_ms / 1000),
            f"{times(point.speedup)} ({times(point.low)} to {times(point.high)})",
            runtime_name(point.against),
        )
        for point in findings.speeds
        if (point.variant, point.level) == (result.variant, result.level)
    ]
    machine = findings.benchmark.machine if findings.benchmark else {}
    return dataclasses.replace(
        facts,
        headline=f"The experiment that it is from: {headline(findings)}",
        gates=gates,
        controls=special(findings),
        limits=caveats(findings),
        speeds=speeds,
        machine=list(machine.items()),
        facts=list(findings.facts.items()),
    )


_PIPELINES = {"language": "text-generation", "denoising": "unconditional-image-generation"}
_HEADS = {"sequence_classification": "text-classification", "causal_lm": "text-generation"}


def _about_data(experiment: ExperimentReader) -> dict[str, Any]:
    """Data set and licence as far as they are known, and the Hub's names of task, base model and data."""
    task = experiment.recipe.task_component
    data = task.get("data", "")
    name = data if isinstance(data, str) else str(data.get("name", ""))
    card = CARDS.get(name)
    facts: dict[str, Any] = {"data": [("Data set", name or "of its own"), ("Licence of the data", "not known here")]}
    if card is not None:
        facts["data"] = [
            ("Data set", card.name),
            ("What it is", f"{card.about}; {card.size}"),
            ("Licence of the data", card.licence),
            ("Source", card.citation),
        ]
    if task["name"] == "huggingface":
        facts["pipeline"] = _HEADS[task.get("head", "sequence_classification")]
        if pretrained.is_hub_name(task["model"], experiment.recipe.base):
            facts["base_model"] = task["model"]
    elif task["name"] == "classification" and card is not None and "image" in card.size:
        facts["pipeline"] = "image-classification"
    else:
        facts["pipeline"] = _PIPELINES.get(task["name"], "")
    if name == "datasets" and isinstance(data, dict):
        facts["datasets"] = [data["dataset"]] if pretrained.is_hub_name(data["dataset"], experiment.recipe.base) else []
        facts["data"] = [("Data set", "/".join(str(data[k]) for k in ("dataset", "subset") if data.get(k)))]
        facts["data"] += [("Licence of the data", "see its own card on the Hub")]
    return facts
