"""Commands on data sets."""

from __future__ import annotations

import click

from ticketsmith.cli import options


@click.group()
def data() -> None:
    """List, fetch and check data sets."""


@data.command("list")
@options.as_json
def list_(as_json: bool) -> None:
    """Every built-in data set, and where it lies."""
    from ticketsmith.data import catalogue

    entries = catalogue()
    if as_json:
        options.print_json(
            [
                {
                    "name": entry.card.name,
                    "about": entry.card.about,
                    "size": entry.card.size,
                    "licence": entry.card.licence,
                    "citation": entry.card.citation,
                    "where": entry.where,
                    "here": entry.here,
                }
                for entry in entries
            ]
        )
        return
    options.print_table(
        [{"name": e.card.name, "about": e.card.about, "licence": e.card.licence, "where": e.where} for e in entries]
    )
    click.echo("Your own: npz, npy, images, parquet, text, or package.module:function; see docs/data.md.")


@data.command()
@click.argument("name")
def fetch(name: str) -> None:
    """Download a data set into the cache, unless it is here."""
    import sys

    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    from ticketsmith.data import fetch as fetch_

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as bars:
        tasks: dict[str, object] = {}

        def progress(file: str, here: int, total: int | None) -> None:
            if file not in tasks:
                tasks[file] = bars.add_task(file, total=total)
            bars.update(tasks[file], completed=here)  # type: ignore[arg-type]

        place = fetch_(name, progress)
    click.echo(f"{name}: {place}")


@data.command()
@click.argument("name")
@click.option("--path", help="File or folder, for npz, npy, images, parquet and text.")
def verify(name: str, path: str | None) -> None:
    """Read a whole data set and check its content."""
    from pathlib import Path

    from ticketsmith.data import verify as verify_

    for line in verify_(name, {"path": path} if path else {}, Path.cwd()):
        click.echo(f"{name}: {line}")
