"""The command that tells experiment trackers what is sealed. Nothing here trains."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ticketsmith.cli import options
from ticketsmith.errors import Exit, RecipeError, TicketSmithError, gravest

if TYPE_CHECKING:
    from ticketsmith.api import Experiment
    from ticketsmith.config.track import Track

_TRACKERS = ("mlflow", "wandb", "trackio", "tensorboard")  # those of config.track, which would import pydantic


@click.command()
@options.runs_prefix
@options.experiment
@click.option(
    "--to", "trackers", type=click.Choice(_TRACKERS), multiple=True, help="Which tracker; repeatable.  [the recipe's]"
)
@click.option("--project", help="The project there; of MLflow, the experiment.  [default: ticketsmith]")
@click.option("--uri", help="MLflow's address (or MLFLOW_TRACKING_URI); of tensorboard, the folder.")
@click.option(
    "--models",
    type=click.Choice(["sweet-spot", "all", "none"]),
    help="Whose weights go along.  [default: sweet-spot, and its dense network]",
)
@options.as_json
def track(
    runs_prefix: str,
    experiment: str | None,
    trackers: tuple[str, ...],
    project: str | None,
    uri: str | None,
    models: str | None,
    as_json: bool,
) -> int:
    """Send sealed experiments to a tracker: curves, metrics, specs, gates, the report, and links to the store.

    Works for experiments of any age. What is there is not sent twice; after an interruption the same command goes on.
    Secrets come from the environment (MLFLOW_TRACKING_TOKEN, WANDB_API_KEY) and are never printed.
    """
    from ticketsmith.cli.opened import experiments

    details = {
        name: value for name, value in (("project", project), ("uri", uri), ("models", models)) if value is not None
    }
    if details and not trackers:
        raise RecipeError("--project, --uri and --models are of a tracker: name it by --to.")
    statuses, documents = [], []
    for one in experiments(runs_prefix, experiment):
        settings = [_settings({"to": name, **details}) for name in trackers] or one.recipe.track
        if not settings:
            raise RecipeError(
                f"{one.name}: its recipe names no tracker (`track:`); name one by --to {'|'.join(_TRACKERS)}."
            )
        for tracker in settings:
            document: dict[str, Any] = {}
            statuses.append(tell(one, tracker, None if not as_json else document))
            documents.append(document)
    if as_json:
        options.print_json(documents)
    return int(gravest(statuses))


def tell(experiment: Experiment, tracker: Track, document: dict[str, Any] | None = None) -> Exit:
    """Sends one experiment and says what came of it, on standard output or, for JSON, into ``document``; a fault is told on
    standard error, and is the exit status."""
    from ticketsmith.cli.progress import note, rounds

    error: TicketSmithError | None = None
    try:
        with rounds() as progress:
            tally = experiment.track(tracker, progress)
    except TicketSmithError as fault:
        error = fault
        note(f"error: {experiment.name}: {fault}")
    if document is not None:
        document |= {"experiment": experiment.name, "to": tracker.to, "error": None if error is None else str(error)}
        if error is None:
            document |= {"place": tally.place, "new": tally.new, "renewed": tally.renewed, "there": tally.there}
    elif error is None:
        click.echo(
            f"{experiment.name}: {tally.place}: {tally.new} new, {tally.renewed} renewed, {tally.there} were there"
        )
    return Exit.OK if error is None else error.exit_status


def _settings(plain: dict[str, Any]) -> Track:
    from pydantic import ValidationError

    from ticketsmith.config.track import Track

    try:
        return Track.model_validate(plain)
    except ValidationError as error:
        first = error.errors()[0]
        raise RecipeError(f"--{first['loc'][0]}: {first['msg'].removeprefix('Value error, ')}.") from None
