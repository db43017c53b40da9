"""What commands on a cluster share: options, the target, the records in its store, the cluster itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from ticketsmith.errors import TicketSmithError

if TYPE_CHECKING:
    from ticketsmith.config.target import Target
    from ticketsmith.execute.kubernetes.cluster import Cluster
    from ticketsmith.execute.kubernetes.records import Records


target_option = click.option("--target", metavar="FILE", required=True, help="The cluster: configs/targets/aks.yaml.")
target_overrides = click.option(
    "--set-target", metavar="FIELD=VALUE", multiple=True, help="Override a field of the target; repeatable."
)


def opened(
    target: str, overrides: Sequence[str], experiment: str | None, patience: float = 60.0
) -> tuple[Target, Records, Cluster]:
    """The target of a file, what the store has of an experiment, and the cluster."""
    from ticketsmith.config.target import load_target
    from ticketsmith.execute.kubernetes.cluster import connect

    destination = load_target(target, overrides)
    records = records_of(destination, experiment)
    return destination, records, connect(destination.context, destination.namespace, patience)


def records_of(target: Target, experiment: str | None) -> Records:
    """What the target's store has of an experiment, by name or the only one there."""
    from ticketsmith.execute.kubernetes.records import Records
    from ticketsmith.store import open_store

    store = open_store(target.store)
    return Records(store, name_of(store, experiment))


def name_of(store: Any, experiment: str | None) -> str:
    """The experiment's name; the only one of a store needs none. Raises TicketSmithError."""
    if experiment is not None:
        return experiment
    names = store.experiments()
    if len(names) != 1:
        here = f"Here are: {', '.join(names)}." if names else "There are none."
        raise TicketSmithError(f"{store.url}: name an experiment by --experiment. {here}")
    return str(names[0])


def command_line(verb: str, target: str, records: Records) -> str:
    """A command as a user types it."""
    return f"`ticketsmith {verb} --target {target} --experiment {records.experiment}`"


def tell(text: str) -> None:
    """A line with the time."""
    from datetime import UTC, datetime

    click.echo(f"{datetime.now(UTC):%H:%M:%S} {text}")
