"""``ticketsmith <verb>``: all commands, and how errors end."""

from __future__ import annotations

import gc
import os
import signal
import sys
from types import FrameType
from typing import NoReturn

import click

from ticketsmith.cli.benchmark import benchmark
from ticketsmith.cli.cluster import COMMANDS as CLUSTER
from ticketsmith.cli.completion import completion
from ticketsmith.cli.data import data
from ticketsmith.cli.evidence import gate, report, verify
from ticketsmith.cli.export import export, push_to_hub, ticket
from ticketsmith.cli.prices import prices
from ticketsmith.cli.profile import profile
from ticketsmith.cli.recipe import init, plan, schema, validate
from ticketsmith.cli.scorecard import scorecard
from ticketsmith.cli.status import status
from ticketsmith.cli.stores import ls, pull, push
from ticketsmith.cli.track import track
from ticketsmith.cli.training import demo, prune, train
from ticketsmith.errors import Exit, TicketSmithError
from ticketsmith.version import __version__

_EPILOG = """\b
Exit status: 0 all well, 2 bad input, 3 the ticket at its target sparsity fails its gate, 4 training diverged,
5 runs are missing (store, cluster, a killed worker), 6 the gate at the target is inconclusive, 7 out of memory,
8 a GPU was idle, 9 over budget, 10 runs could not be made on a cluster, or nothing began there, 130 interrupted."""


class _InOrder(click.Group):
    def list_commands(self, context: click.Context) -> list[str]:
        return list(self.commands)


_WELCOME = f"""TicketSmith {__version__}: how sparse can a network be before its quality drops?

  ticketsmith demo                          an answer and a report, in a minute
  ticketsmith init recipe.yaml              a commented recipe of your own
  ticketsmith prune --config recipe.yaml    train, judge, measure, report
  ticketsmith --help                        all commands"""


@click.group(
    cls=_InOrder,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    invoke_without_command=True,
)
@click.version_option(__version__, prog_name="ticketsmith")
@click.pass_context
def group(context: click.Context) -> None:
    """At what sparsity does quality actually drop, and how much compute do we save?

    An experiment factory for the Lottery Ticket Hypothesis: a recipe (YAML) in, an executive report out.
    """
    if context.invoked_subcommand is None:
        click.echo(_WELCOME)


for _command in (demo, init, validate, plan, profile, prune, train, status, gate, report, benchmark, scorecard, verify):
    group.add_command(_command)
for _command in (data, prices, schema, completion):
    group.add_command(_command)
for _command in (export, push_to_hub, ticket, track, pull, push, ls, *CLUSTER):
    group.add_command(_command)


def main() -> NoReturn:
    """Entry point of ``ticketsmith``."""
    enter(group)


def enter(command: click.Command) -> NoReturn:
    """Runs a command and ends the process: a user's mistake is one message and an exit status, never a traceback."""
    asked_to_stop = False
    gc.set_threshold(
        100_000, 20, 100
    )  # what a command reads stays to its end: a fifth of its time went into looking it through

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal asked_to_stop
        asked_to_stop = True
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGTERM, stop)  # a polite kill is an interruption: it loses nothing
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, stop)
    try:
        status_ = command.main(standalone_mode=False)
        sys.stdout.flush()
        gc.freeze()  # nor is it looked through at the end
        sys.exit(status_ if isinstance(status_, int) else Exit.OK)
    except TicketSmithError as error:
        if asked_to_stop:  # a library's code turned the interruption into an error of its own
            _end_interrupted()
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_status)
    except click.ClickException as error:
        error.show()
        sys.exit(Exit.BAD_INPUT)
    except (click.exceptions.Abort, KeyboardInterrupt):
        _end_interrupted()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing more can be said there
        if isinstance(error, BrokenPipeError):
            sys.exit(Exit.OK)  # the reader of our output has gone, `| head` for example
        click.echo(f"error: cannot write: {error.strerror or error}", err=True)
        sys.exit(Exit.INCOMPLETE)


def _end_interrupted() -> NoReturn:
    click.echo("interrupted", err=True)
    # Not sys.exit: where the signal came while C code ran Python code, the interpreter would still end by the signal.
    os._exit(Exit.INTERRUPTED)
