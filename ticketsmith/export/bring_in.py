"""A ticket file back into a store, byte for byte, so that every command works on it."""

from __future__ import annotations

import dataclasses
import json

from ticketsmith.errors import DamagedRunError, RecipeError
from ticketsmith.export.ticket import Ticket
from ticketsmith.plan import Plan
from ticketsmith.store.contract import RunFolder, Store, check_name


def bring_in(ticket: Ticket, store: Store, experiment: str | None = None) -> tuple[RunFolder, bool]:
    """Publishes the run under its own experiment, or under another name; the folder, and False when it was there already.

    An experiment that is not there begins with the ticket's recipe, and with a plan of the runs that led to it. Raises
    RecipeError when there is one with other runs.
    """
    folder = ticket.folder
    if experiment is not None:
        folder = dataclasses.replace(folder, experiment=check_name(experiment, "experiment"))
    name = folder.experiment
    planned = store.get(f"{name}/plan.json")
    if planned is None:
        nodes = {"experiment": name, "nodes": list(ticket.chain)}
        store.put(f"{name}/recipe.yaml", ticket.recipe.encode())
        store.put(f"{name}/plan.json", Plan.from_bytes(json.dumps(nodes).encode()).to_bytes())
    elif ticket.key not in _keys(planned, f"{store.url}/{name}/plan.json"):
        raise RecipeError(
            f"{store.url}: the experiment {name!r} is there and has other runs. Name another with --experiment."
        )
    return folder, store.publish(folder, ticket.files)


def _keys(planned: bytes, place: str) -> set[str]:
    try:
        return set(Plan.from_bytes(planned).by_key)
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedRunError(f"{place} cannot be read; run the experiment again to renew it.") from error
