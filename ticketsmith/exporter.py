"""One run of an experiment as files for others: what is exported, and what is known of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ticketsmith.errors import TicketSmithError
from ticketsmith.evidence.results import Result
from ticketsmith.experiment import ExperimentReader
from ticketsmith.plan import Plan
from ticketsmith.store.contract import MANIFEST

if TYPE_CHECKING:
    from ticketsmith.export.subject import Subject


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
    )
