"""The command that says what serving costs, and which network to deploy. Nothing is measured here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ticketsmith.cli import options
from ticketsmith.cli.opened import experiments
from ticketsmith.errors import TicketSmithError

if TYPE_CHECKING:
    from ticketsmith.evidence.findings import Findings


@click.command()
@options.runs_prefix
@options.experiment
@options.machine
@options.as_json
@click.option(
    "--csv", "as_csv", is_flag=True, help="Print every number that was measured against dense as CSV instead."
)
def scorecard(runs_prefix: str, experiment: str | None, machine: str | None, as_json: bool, as_csv: bool) -> None:
    """Say whether to prune, to quantise, both or neither, and what serving costs: latency, memory, size, money.

    From what `ticketsmith benchmark --candidates` judged and timed as files, and what `ticketsmith benchmark` measured at
    every sparsity, always against dense on the best dense runtime. --machine prices it anew and writes nothing.
    """
    from ticketsmith.report.scorecard import document, scorecard_csv

    if as_json and as_csv:
        raise click.UsageError("--json and --csv exclude one another.")
    cards, missing = [], []
    for one in experiments(runs_prefix, experiment):
        try:
            cards.append(one.priced(machine))
        except TicketSmithError as error:  # the others are told all the same
            missing.append(error)
    if not cards:
        raise missing[0]
    for reason in missing:
        click.echo(str(reason), err=True)
    if as_json:
        options.print_json([document(findings) for findings in cards])
    elif as_csv:
        click.echo(scorecard_csv(cards).decode(), nl=False)
    else:
        for findings in cards:
            _say(findings)


def say_choice(findings: Findings) -> None:
    """The verdict on candidates, and the tables behind it."""
    from ticketsmith.report import candidates as tables
    from ticketsmith.report.sentences.choice import interaction, reasons, setting, verdict

    choice = findings.choice
    assert choice is not None
    click.echo(f"{findings.name}: {verdict(findings, choice)}")
    for line in reasons(choice):
        click.echo(f"  {line}")
    if "noise" in choice.machine:
        click.echo(f"  {choice.machine['noise']}")
    for title, table in (
        (
            f"Candidates that decide: {setting(choice.lead)}",
            tables.table(choice, choice.lead, tables.shown(choice.lead)),
        ),
        ("By setting", tables.settings(choice)),
        ("Prune \u00d7 quantise", tables.squares(choice, tables.telling(choice, findings.squares))),
        ("What each costs to find, and when it pays", tables.payoffs(choice, findings.payoffs)),
    ):
        options.print_columns(table.header, table.rows, title)
    for square in tables.telling(choice, findings.squares):
        click.echo(f"  {interaction(choice, square)}")
    click.echo(
        "Each candidate is a file in the store, under candidates/ and the digits in the last column: it was judged by running "
        "it on every replicate, and timed as it is. --json has all of them."
    )


def _say(findings: Findings) -> None:
    from ticketsmith.report import scorecard as tables
    from ticketsmith.report.sentences.deployment import answer, conditions, reasons

    card = findings.scorecard
    if findings.choice is not None:
        say_choice(findings)
    if card is None:
        return
    click.echo(f"{findings.name}: {answer(findings)}")
    for line in reasons(findings):
        click.echo(f"  {line}")
    if "noise" in card.machine:
        click.echo(f"  {card.machine['noise']}")
    if card.lead is not None:
        own = [row for row in card.lead.rows if row.variant == card.subject]
        shown = tables.table(card, card.lead, own)
        options.print_columns(shown.header, shown.rows, conditions(card.lead).capitalize())
        more = " --csv has all variants, runtimes and settings." if len(own) < len(card.lead.points) else ""
        click.echo(tables.note(card) + more)
    for title, table in (
        ("By setting", tables.settings(card)),
        ("By kind of layer, alone", tables.layers(card)),
        ("Under load", tables.loads(card)),
    ):
        options.print_columns(table.header, table.rows, title)
