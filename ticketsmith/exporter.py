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
    from ticketsmith.evidence.caveats import against
    from ticketsmith.evidence.gates import level_status
    from ticketsmith.export.recipe import portable
    from ticketsmith.export.subject import Subject
    from ticketsmith.export.ticket import Ticket

    run = experiment.sealed(result)
    model = experiment.model(result)
    ancestry = Plan(experiment.name, tuple(experiment.plan.needed_for([result.key]).by_key.values()))
    chain = json.loads(ancestry.to_bytes())["nodes"]
    files = {name: run.read(name) for name in run.files} | {MANIFEST: run.manifest}
    sealed = experiment.index.runs(ancestry.by_key, experiment.name)

    try:
        verdicts = experiment.findings.verdicts(result.variant, result.level)
        warnings = against(experiment.findings, result)
    except TicketSmithError:  # what cannot be judged can be exported
        verdicts, warnings = [], []
    return Subject(
        Ticket(run.folder, files, portable(experiment.recipe.source), chain),
        result,
        experiment.results,
        model,
        experiment.task,
        experiment.recipe.policy,
        level_status(verdicts).value if verdicts else None,
        sealed.get,
        warnings,
    )
