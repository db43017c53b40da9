"""Options that several commands share, and how they print."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from contextvars import ContextVar
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
_FORM = "ticketsmith.form"


def _note_form(context: click.Context, _: click.Parameter, value: str | None) -> None:
    context.meta[_FORM] = value


def _is_document(context: click.Context, _: click.Parameter, value: bool) -> bool:
    return value or context.meta.get(_FORM) in ("json", "yaml")


json_flag = click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead.")
_document = click.option("--json", "as_json", is_flag=True, callback=_is_document, help="The same as -o json.")
_form = click.option(
    "-o",
    "--output",
    type=click.Choice(["json", "yaml", "wide"]),
    is_eager=True,
    expose_value=False,
    callback=_note_form,
    help="One document instead of tables; or tables as wide as they need to be, with all columns.",
)


def as_json(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of every command that prints tables: ``-o json|yaml|wide``, and ``--json``."""
    return _form(_document(command))


def _asked_form() -> str | None:
    context = click.get_current_context(silent=True)
    return None if context is None else context.meta.get(_FORM)


def is_wide() -> bool:
    """Whether tables are asked for with all of their columns."""
    return _asked_form() == "wide"


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
    """One document on standard output: JSON, or YAML where that was asked for."""
    if _asked_form() == "yaml":
        import yaml

        plain = json.loads(json.dumps(value, allow_nan=False))  # tuples are lists
        click.echo(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=120).rstrip())
    else:
        click.echo(json.dumps(value, indent=2, allow_nan=False))


_WORDS = (
    "",
    "part",
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


_FRAME: ContextVar[tuple[io.StringIO, Console] | None] = ContextVar("frame", default=None)
_EVERYWHERE = 200
"""Columns of text where there is no terminal."""


@contextmanager
def drawn_into(frame: io.StringIO, terminal: Console) -> Iterator[None]:
    """What commands print goes into ``frame``, as it would look on a terminal."""
    token = _FRAME.set((frame, terminal))
    try:
        with redirect_stdout(frame):
            yield
    finally:
        _FRAME.reset(token)


def height() -> int:
    """Lines of the terminal."""
    return _console().height


def _console() -> Console:
    """Colours on a terminal alone, and none where NO_COLOR is set; as wide as the terminal, or as tables need to be."""
    from rich.console import Console

    plain: dict[str, Any] = {"markup": False, "emoji": False, "highlight": False}
    if (inner := _FRAME.get()) is not None:
        frame, terminal = inner
        return Console(
            file=frame,
            width=terminal.width,
            height=terminal.height,
            force_terminal=True,
            color_system=terminal.color_system,  # type: ignore[arg-type]
            no_color=terminal.no_color,
            **plain,
        )
    if is_wide() or not sys.stdout.isatty():
        return Console(width=10_000 if is_wide() else _EVERYWHERE, **plain)
    return Console(**plain)


def name_of_run(row: Mapping[str, Any]) -> str:
    """``ticket level 3 seed 0``."""
    draw = f" draw {row['draw']}" if row["draw"] else ""
    return f"{row['variant']} level {row['level']} seed {row['seed']}{draw}"


def print_table(rows: Sequence[dict[str, str]], title: str = "") -> None:
    """A table as wide as the terminal, or as wide as it needs to be elsewhere.

    Where a terminal is narrow, cells wrap between words, then lines between columns go; numbers are never cut. Where that
    is not enough, each row becomes a few lines.
    """
    from rich.table import Table

    console = _console()
    frame, plain = {}, {"box": None, "padding": (0, 1, 0, 0), "pad_edge": False}
    widths = _widths(rows, console.width - 1, between=3)
    if widths is None:
        frame = plain
        widths = _widths(rows, console.width, between=1)
    if widths is None:
        _print_upright(console, rows, title)
        return
    table = Table(title=title or None, title_justify="left", header_style="bold", **frame)  # type: ignore[arg-type]
    for heading, width in widths.items():
        table.add_column(heading, justify="left" if heading in _WORDS else "right", overflow="fold", width=width)
    if not frame and len(rows) > _FEW and _print_long(console, table, rows):
        return
    for row in rows:
        table.add_row(*row.values())
    console.print(table)


_LEAST_WORD = 16
"""Characters that a column of words keeps at least: longer words go over several lines."""


def _widths(rows: Sequence[dict[str, str]], width: int, between: int) -> dict[str, int] | None:
    """Widths of the columns by heading, the widest made narrower first; None where not even their words fit."""
    from rich.cells import cell_len

    widths, least = {}, {}
    for heading in rows[0] if rows else ():
        cells = [heading, *(row[heading] for row in rows)]
        widths[heading] = max(cell_len(line) for cell in cells for line in cell.split("\n"))
        longest = max((cell_len(word) for cell in cells for word in cell.split()), default=0)
        least[heading] = min(longest, _LEAST_WORD) if heading in _WORDS else longest
    if sum(least.values()) + between * len(least) > width:
        return None
    while sum(widths.values()) + between * len(widths) > width:
        wide = max((one for one in widths if widths[one] > least[one]), key=widths.__getitem__)
        widths[wide] -= 1
    return widths


def _print_upright(console: Console, rows: Sequence[dict[str, str]], title: str) -> None:
    """Row by row, a line for each column that says something; long words wrap, numbers stand whole."""
    from rich.text import Text

    indent = "  "
    if title:
        console.print(Text(title, style="italic"))
    for row in rows:
        first, *rest = row.items()
        console.print(Text(f"{first[0]}: {first[1]}", style="bold"), soft_wrap=False)
        for heading, cell in rest:
            if cell:
                console.print(Text(f"{indent}{heading}: {cell}"), overflow="fold")


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
