"""Options that several commands share, and how they print."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem
    from rich.console import Console
    from rich.table import Table

    from ticketsmith.config import Recipe


class _File(click.types.StringParamType):
    """Text that a shell completes as a path: what is wrong with it is told by whoever reads it."""

    name = "file"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        return [CompletionItem(incomplete, type="file")]


file = _File()

config = click.option("--config", "config", type=file, metavar="FILE", required=True, help="The recipe.")
overrides = click.option(
    "--set", "overrides", metavar="FIELD=VALUE", multiple=True, help="Override a field, e.g. --set training.lr=0.05."
)
store = click.option(
    "--store",
    type=file,
    metavar="STORE",
    help="Where experiments live, instead of the recipe's `store`: a folder, or az://<container>/<prefix>.",
)
workers = click.option("--workers", type=click.IntRange(1, 1024), help="Runs side by side; by default one a core.")
device = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1.")
checkpoint_every = click.option(
    "--checkpoint-every", default=30.0, show_default=True, help="Seconds between checkpoints within a run."
)
executor = click.option(
    "--executor",
    type=click.Choice(["local", "debug"]),
    default="local",
    show_default=True,
    help="debug: one run after the other in this process, where breakpoints work.",
)
machine = click.option(
    "--machine",
    metavar="NAME|NAME=PRICE",
    help="What an hour of this machine costs: Standard_NC4as_T4_v3@westeurope, my-laptop=0.10.",
)
runs_prefix = click.option(
    "--runs-prefix",
    type=file,
    default="runs",
    show_default=True,
    metavar="STORE",
    help="A folder of experiments, or az://<container>/<prefix>; or one experiment in it.",
)
experiment = click.option("--experiment", metavar="NAME", help="One experiment of the folder.")
as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead.")


search = click.option(
    "--search", is_flag=True, help="Search for the sweet spot instead of training the full grid (`search: sweet_spot`)."
)


def training(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of every command that trains."""
    for option in (machine, executor, checkpoint_every, device, workers, search, store, overrides, config):
        command = option(command)
    return command


def read_recipe(config: str, overrides: Sequence[str], store: str | None, search: bool = False) -> Recipe:
    """The recipe with its overrides; ``--store`` is one of them, and ``--search`` where the recipe has none."""
    from ticketsmith.config import load_recipe

    more = [*overrides, *([] if store is None else [f"store={json.dumps(store)}"])]
    recipe = load_recipe(config, more)
    return load_recipe(config, [*more, "search=sweet_spot"]) if search and recipe.search is None else recipe


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    click.echo(json.dumps(value, indent=2, allow_nan=False))


_WORDS = (
    "variant",
    "run",
    "name",
    "job",
    "state",
    "why",
    "machine",
    "matrix",
    "pruning.include",
    "Network",
    "Setting",
    "Layer alone",
)
"""Headings of columns that are read, not compared."""


def print_columns(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> None:
    """A table of finished text with its headings; nothing at all when it has no rows."""
    if rows:
        print_table([dict(zip(columns, row, strict=True)) for row in rows], title)


def print_table(rows: Sequence[dict[str, str]], title: str = "") -> None:
    """A table as wide as the terminal, or as wide as it needs to be elsewhere."""
    import sys

    from rich.console import Console
    from rich.table import Table

    console = (
        Console(markup=False, emoji=False) if sys.stdout.isatty() else Console(width=200, markup=False, emoji=False)
    )
    table = Table(title=title or None, title_justify="left", header_style="bold")
    for heading in rows[0] if rows else ():
        table.add_column(heading, justify="left" if heading in _WORDS else "right", overflow="fold")
    if len(rows) > _FEW and _print_long(console, table, rows):
        return
    for row in rows:
        table.add_row(*row.values())
    console.print(table)


_FEW = 200
"""Rows up to which Rich lays out a table; it takes a millisecond for each."""


def _print_long(console: Console, table: Table, rows: Sequence[dict[str, str]]) -> bool:
    """Prints what Rich would where no cell needs to be folded; False, and nothing printed, where one does."""
    from rich.cells import cell_len

    headings = [str(column.header) for column in table.columns]
    widths = [max(map(cell_len, {heading, *(row[heading] for row in rows)})) for heading in headings]
    if sum(widths) + 3 * len(widths) + 1 > console.width or any("\n" in cell for row in rows for cell in row.values()):
        return False
    for column, width in zip(table.columns, widths, strict=True):
        column.min_width = column.max_width = width
    table.add_row(*[""] * len(widths))
    with console.capture() as frame:
        console.print(table)
    *head, body, foot = frame.get().splitlines(keepends=True)
    bar = body[0]  # another one where a terminal cannot show it
    left = [heading in _WORDS for heading in headings]
    lines = []
    for row in rows:
        gaps = [" " * (width - cell_len(cell)) for width, cell in zip(widths, row.values(), strict=True)]
        cells = (f" {c}{gap} " if at else f" {gap}{c} " for c, gap, at in zip(row.values(), gaps, left, strict=True))
        lines.append(f"{bar}{bar.join(cells)}{bar}\n")
    click.echo("".join([*head, *lines, foot]), nl=False)
    return True
