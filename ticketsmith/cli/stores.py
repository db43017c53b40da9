"""Commands that move experiments between stores, and list what is in one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from ticketsmith.cli import options
from ticketsmith.errors import Exit, TicketSmithError
from ticketsmith.units import size

if TYPE_CHECKING:
    from ticketsmith.store.contract import StoredFile


@click.command()
@click.argument("source", type=options.file)
@click.argument("folder", type=options.file, default="runs")
def pull(source: str, folder: str) -> int:
    """Bring an experiment, or all of a store, to FOLDER (runs).

    SOURCE is az://<container>/<prefix>/<experiment>, or the store without an experiment. Only what is missing moves, and
    every byte is checked. Sealed runs here stay as they are; loose files (recipe, plan, gates, report) become those of
    SOURCE.
    """
    return _move(source, folder)


@click.command()
@click.argument("source", type=options.file)
@click.argument("target")
def push(source: str, target: str) -> int:
    """Bring an experiment, such as runs/imp_mnist, to the store TARGET, such as az://<container>/<prefix>.

    Only what is missing moves, and every byte is checked. Sealed runs there stay as they are; loose files (recipe, plan,
    gates, report) become those of SOURCE.
    """
    return _move(source, target)


@click.command()
@click.argument("address", default="runs")
@options.as_json
def ls(address: str, as_json: bool) -> None:
    """List the experiments of a store, or the runs of one experiment. ADDRESS is a folder (runs) or az://..."""
    from ticketsmith.store import open_store
    from ticketsmith.store.locate import experiments_at
    from ticketsmith.store.parallel import each

    place, names = experiments_at(address)
    store = open_store(place)
    listed = dict(zip(names, each(store.files, names), strict=True))
    if place != address:  # it is an experiment
        listed = _by_run(listed[names[0]])
    rows: list[dict[str, Any]] = [
        {"name": name, "sealed_runs": _sealed(files), "files": len(files), "bytes": sum(file.bytes for file in files)}
        for name, files in listed.items()
    ]
    total = {key: sum(row[key] for row in rows) for key in ("sealed_runs", "files", "bytes")}
    if as_json:
        kind = "experiments" if place == address else "runs"
        options.print_json({"store": store.url, kind: rows, "total": total})
        return
    shown = [
        {
            "name": str(row["name"]),
            "sealed runs": str(row["sealed_runs"]),
            "files": str(row["files"]),
            "size": size(row["bytes"]),
        }
        for row in rows
    ]
    if not shown:
        click.echo(f"{address}: no experiments")
        return
    options.print_table(shown, store.url if place == address else f"{store.url}/{names[0]}")
    click.echo(f"total: {total['sealed_runs']} sealed runs, {total['files']} files, {size(total['bytes'])}")


def _sealed(files: Sequence[StoredFile]) -> int:
    from ticketsmith.store.contract import MANIFEST

    return sum(file.path.endswith(f"/{MANIFEST}") for file in files)


def _by_run(files: Sequence[StoredFile]) -> dict[str, list[StoredFile]]:
    """The files of each run, and the loose ones together, under names within the experiment."""
    from ticketsmith.store.contract import RunFolder

    by_run: dict[str, list[StoredFile]] = {}
    loose = []
    for file in files:
        parts = file.path.split("/")
        if RunFolder.parse("/".join(parts[:4])) is None:
            loose.append(file)
        else:
            by_run.setdefault("/".join(parts[1:4]), []).append(file)
    return by_run | {"(loose files)": loose}


def _move(source_address: str, target_address: str) -> int:
    from ticketsmith.cli.progress import moved
    from ticketsmith.store import open_store
    from ticketsmith.store.locate import experiments_at
    from ticketsmith.store.transfer import move, what_to_move

    place, names = experiments_at(source_address)
    if not names:
        raise TicketSmithError(f"{source_address}: no experiment is here.")
    source, target = open_store(place), open_store(target_address)
    damaged = 0
    for name in names:
        todo = what_to_move(source, target, name)
        with moved(name, todo.bytes) as on_bytes:
            moves = move(source, target, todo, on_bytes)
        click.echo(
            f"{target.url}/{name}: {moves.runs} runs moved, {todo.there} were there; {moves.loose} loose files moved "
            f"({size(todo.bytes)})"
        )
        if todo.replaced:
            shown = ", ".join(path.removeprefix(f"{name}/") for path in todo.replaced[:5])
            more = f" and {len(todo.replaced) - 5} more" if len(todo.replaced) > 5 else ""
            click.echo(f"replaced by those of {source.url}: {shown}{more}")
        for run, message in sorted(moves.damaged.items(), key=str):
            click.echo(f"not moved: {run}: {message}", err=True)
        damaged += len(moves.damaged)
    return int(Exit.INCOMPLETE if damaged else Exit.OK)
