"""The command that measures inference speed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ticketsmith.cli import options

if TYPE_CHECKING:
    from ticketsmith.api import Experiment


@click.command()
@click.option("--checkpoint", metavar="FOLDER", help="One sealed run: measured against the dense run of its replicate.")
@options.runs_prefix
@options.experiment
@click.option(
    "--batch-size", "batch_sizes", type=click.IntRange(1, 65536), multiple=True, help="Inputs a call; repeatable."
)
@click.option("--rounds", type=click.IntRange(10, 100_000), help="Interleaved rounds; by default the recipe's.")
@click.option(
    "--runtime", "runtimes", multiple=True, help="torch, torch_csr, sparse, or package.module:Runtime; repeatable."
)
@click.option("--base", default=".", show_default=True, help="Folder with the recipe's own modules and data.")
@options.machine
@options.as_json
def benchmark(
    checkpoint: str | None,
    runs_prefix: str,
    experiment: str | None,
    batch_sizes: tuple[int, ...],
    rounds: int | None,
    runtimes: tuple[str, ...],
    base: str,
    machine: str | None,
    as_json: bool,
) -> None:
    """Measure inference, dense against pruned, side by side on this machine: wall-clock, never theory.

    With --checkpoint: one run against the dense run of its replicate. Else every run of the first replicate of the
    experiments below --runs-prefix; that benchmark is kept in the store and shown by the report.
    """
    from ticketsmith.cli.evidence import experiments
    from ticketsmith.evidence.serving import to_json
    from ticketsmith.inference.table import COLUMNS, rows

    documents = []
    if checkpoint is not None:
        found, key = _of_checkpoint(checkpoint, base)
        measured = [found.compare_with_dense(key, batch_sizes, rounds, runtimes, machine)]
    else:
        measured = [
            one.time_inference(batch_sizes=batch_sizes, rounds=rounds, runtimes=runtimes, force=True, machine=machine)
            for one in experiments(runs_prefix, experiment, base)
        ]
    for result in measured:
        documents.append(to_json(result))
        if not as_json:
            for field, value in result.machine.items():
                click.echo(f"{field}: {value}")
            options.print_table([dict(zip(COLUMNS, row, strict=True)) for row in rows(result)])
    if as_json:
        options.print_json(documents[0] if checkpoint is not None else documents)


def _of_checkpoint(checkpoint: str, base: str) -> tuple[Experiment, str]:
    """The experiment and the key of a run's folder (or of a file in it)."""
    from ticketsmith.api import open_experiment
    from ticketsmith.store.contract import SealedRun
    from ticketsmith.store.locate import run_at

    place, folder = run_at(checkpoint)
    found = open_experiment(folder.experiment, place, base)
    return found, SealedRun(found.store, folder).key
