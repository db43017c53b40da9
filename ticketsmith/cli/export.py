"""Commands that write runs as files for others, and that take tickets back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ticketsmith.cli import options
from ticketsmith.errors import RecipeError, TicketSmithError

if TYPE_CHECKING:
    from ticketsmith.api import Experiment
    from ticketsmith.evidence.verdicts import Gate
    from ticketsmith.export.ticket import Ticket

_FORMATS = "ticket, safetensors, onnx, onnx-compact, tsk, hf, card, or all"


@click.command()
@click.argument("address", type=options.file, default="runs")
@click.option("--format", "formats", metavar="FORMAT", multiple=True, required=True, help=f"{_FORMATS}; repeatable.")
@click.option(
    "--output",
    type=options.file,
    metavar="PLACE",
    help="A folder, or a file for a single format. [default: exports/<run>]",
)
@options.experiment
@click.option(
    "--sparsity",
    type=click.FloatRange(0, 1),
    help="The first level at least so sparse (of its prunable weights), such as 0.9.",
)
@click.option("--variant", help="Which method's run.  [default: ticket]")
@click.option("--seed", type=click.IntRange(0), help="Which replicate's run.  [default: 0]")
@click.option(
    "--precision",
    default="float32",
    show_default=True,
    help="Of tsk: float32, bfloat16, int8, int4, int8_dot, int8_static, int4_dot; auto: for each layer what is "
    "fastest here within the gates.",
)
@click.option(
    "--gate",
    "gates",
    metavar="METRIC=LOSS",
    multiple=True,
    help="What may be lost in place of the recipe's gates: accuracy=0.5, or loss=2% of dense; repeatable.",
)
@click.option(
    "--budget", type=float, help="Seconds at most for the search of --precision auto: the best so far is taken."
)
@click.option("--no-tune", is_flag=True, help="Do not measure which formats of tsk are fastest on this machine.")
@click.option("--start-weights", is_flag=True, help="Put the weights that training began with into the ticket, too.")
@click.option("--license", "licence", default="unknown", help="The model's licence, for its card: apache-2.0.")
@click.option("--force", is_flag=True, help="Replace what is there; keep what the gates refuse.")
@click.option("--base", default=".", show_default=True, help="Folder with the recipe's own modules and data.")
@options.json_flag
def export(
    address: str,
    formats: tuple[str, ...],
    output: str | None,
    experiment: str | None,
    sparsity: float | None,
    variant: str | None,
    seed: int | None,
    precision: str,
    gates: tuple[str, ...],
    budget: float | None,
    no_tune: bool,
    start_weights: bool,
    licence: str,
    force: bool,
    base: str,
    as_json: bool,
) -> None:
    """Write one run as files: to keep, to serve, to hand on. Each is checked against PyTorch before it is there.

    ADDRESS is a run's folder, or an experiment, or a folder of one experiment (runs), here or at az://...; of an
    experiment, the sweet spot's ticket is taken unless --sparsity, --variant or --seed say another.
    """
    from ticketsmith.cli.progress import note

    opened, key = _run_at(address, experiment, base, one=(sparsity, variant, seed) != (None, None, None))
    result = opened.result(key) if key else opened.find(sparsity, seed=seed or 0, variant=variant or "ticket")
    place = output or f"exports/{result.path}"
    written = opened.export(
        place,
        formats,
        key=result.key,
        precision=precision,
        tuned=not no_tune,
        start_weights=start_weights,
        licence=licence,
        force=force,
        gates=[_gate(text) for text in gates],
        budget=budget,
        note=(lambda text: None) if as_json else note,
    )
    if as_json:
        options.print_json(written.document)
        return
    _show(written.document)
    click.echo(f"about them: {written.path}")


def _gate(text: str) -> Gate:
    """``accuracy=0.5``, or ``loss=2%``. Raises RecipeError."""
    from ticketsmith.evidence.verdicts import Gate

    name, _, loss = text.partition("=")
    try:
        value = float(loss.removesuffix("%"))
    except ValueError:
        value = 0.0
    if not (name.strip() and 0 < value < float("inf")):
        raise RecipeError(f"--gate {text}: expected METRIC=LOSS, such as accuracy=0.5, or loss=2% of what dense has.")
    relative = loss.endswith("%")
    return Gate(name.strip(), None if relative else value, value / 100 if relative else None)


def _run_at(address: str, name: str | None, base: str, one: bool) -> tuple[Experiment, str | None]:
    """The experiment that an address means, and the key when it means a run."""
    from ticketsmith.api import open_experiment
    from ticketsmith.store.contract import SealedRun
    from ticketsmith.store.locate import experiments_at, run_at

    if name is None:
        try:
            place, folder = run_at(address)
        except RecipeError:
            pass  # no run: an experiment, perhaps
        else:
            if one:
                raise RecipeError(
                    f"{address} is one run already: --sparsity, --variant and --seed choose among an experiment's."
                )
            experiment = open_experiment(folder.experiment, place, base)
            return experiment, SealedRun(experiment.store, folder).key
    place, names = experiments_at(address, name)
    if not names:
        raise TicketSmithError(f"{address}: no run and no experiment is here.")
    if len(names) > 1:
        raise RecipeError(f"{address}: there are several experiments: {', '.join(names)}. Name one by --experiment.")
    return open_experiment(names[0], place, base), None


def _show(document: dict[str, Any]) -> None:
    from ticketsmith.units import size

    dense = document["dense_bytes"]
    rows = [
        {
            "name": entry["name"],
            "size": size(entry["bytes"]),
            "of dense": f"{entry['share_of_dense']:.1%}",
            "smaller": f"{1 / entry['share_of_dense']:.1f}x",
            "outputs differ by": "" if entry["max_error"] is None else f"{entry['max_error']:.1g}",
        }
        for entry in document["files"]
    ]
    rows.append(
        {"name": "(dense weights)", "size": size(dense), "of dense": "", "smaller": "", "outputs differ by": ""}
    )
    run = f"{document['variant']} level {document['level']} seed {document['seed']}"
    options.print_table(rows, f"{document['experiment']}: {run}, {_removed(document)}")
    for name, metric in document["test"].items():
        means = {what: metric[what]["mean"] for what in ("all_seeds", "dense")}
        shown = ", ".join(f"{what.replace('_', ' ')} {value:.4g}" for what, value in means.items() if value is not None)
        click.echo(f"test {name}: {metric['this_run']:.4g} ({shown})")
    for entry in document["files"]:
        for name, value in entry.get("test", {}).items():
            click.echo(f"test {name} of {entry['name']}, {entry['precision']} weights: {value:.4g}")
        for call in entry.get("handed_over", ()):
            click.echo(
                f"{entry['name']}: batches of about {call['batch_size']} on {call['threads']} "
                f"thread{'s' if call['threads'] > 1 else ''} are computed by {call['to']} where that is installed: it was faster"
            )
    for entry in document["files"]:
        if entry.get("layers"):
            _show_layers(entry)
    if document["gate"]:
        click.echo(f"gate at this sparsity: {document['gate']}")
    for warning in document["warnings"]:
        click.echo(f"warning: {warning}", err=True)
    for entry in document["left_out"]:
        click.echo(f"left out: {entry['format']}: {entry['why']}")


def _show_layers(entry: dict[str, Any]) -> None:
    """Which precision each layer has, and why; beside float32 the fastest other one. ``--json`` has all."""
    rows = []
    for layer in entry["layers"]:
        times, losses = layer["microseconds"], layer["validation_loss"]
        low = min((name for name in times if name != "float32"), key=lambda name: times[name])
        other = low if layer["precision"] == "float32" else layer["precision"]
        row = {
            "layer": layer["layer"],
            "precision": layer["precision"],
            "in float32": f"{times['float32']:.3g} µs",
            "lower": f"{times[other]:.3g} µs, {other}",
            "lost on validation": f"{losses[other]:.3g}" if other in losses else "",
            "why": layer["why"],
        }
        rows.append(row)
    options.print_table(rows, f"{entry['name']}: precision by layer")
    for sentence in entry["said"]:
        click.echo(sentence)
    for gate in entry["gates"]:
        click.echo(f"gate on {gate['gate']}, this file: {gate['status']}: {gate['why']}")


def _removed(document: dict[str, Any]) -> str:
    """Nothing, or how much of what, and what that makes of the network's parameters."""
    if not document["sparsity"]:
        return "nothing removed"
    compression = document["compression"]["network"]
    smaller = f", {compression:.2f}x fewer in all" if compression else ""
    return f"{document['removed']} removed{smaller}"


@click.command(name="push-to-hub")
@click.argument("folder")
@click.option("--repo", metavar="NAME", required=True, help="The repository: <user or organisation>/<name>.")
@click.option("--private", is_flag=True, help="Make it private, if it is made now.")
@click.option("--revision", metavar="BRANCH", help="A branch that is there.  [default: main]")
@options.json_flag
def push_to_hub(folder: str, repo: str, private: bool, revision: str | None, as_json: bool) -> None:
    """Bring a FOLDER that `export` wrote to the Hugging Face Hub, with its model card, in one commit.

    Every file is compared with export.json first. What is there already is not sent again. The token comes from HF_TOKEN
    or from `hf auth login`, and is never printed.
    """
    from pathlib import Path

    from ticketsmith.export.hub import push

    pushed = push(Path(folder), repo, private=private, revision=revision)
    if as_json:
        options.print_json({"url": pushed.url, "commit": pushed.commit, "new": pushed.is_new})
        return
    click.echo(f"{pushed.url}" + ("" if pushed.is_new else " (was there already)"))


@click.group()
def ticket() -> None:
    """Look into a ticket file, put it back into a store, train it again."""


@ticket.command()
@click.argument("file", type=options.file)
@options.as_json
def show(file: str, as_json: bool) -> None:
    """Tell what a ticket FILE holds; every byte of it is checked."""
    from ticketsmith.evidence.size import Size
    from ticketsmith.export.ticket import read
    from ticketsmith.units import removed

    ticket_file = read(file)
    weights = ticket_file.metrics["weights"]
    final = ticket_file.metrics.get("final") or {}
    size = Size(weights["total"], weights["kept"], ticket_file.metrics.get("parameters"))
    facts = {
        "run": str(ticket_file.folder),
        "key": ticket_file.key,
        "sparsity": ticket_file.sparsity,
        "network sparsity": size.network_sparsity,
        "removed": removed(size),
        "weights": f"{weights['kept']} of {weights['total']} prunable",
        "test": final.get("test"),
        "start weights": _start_words(ticket_file),
        "task": ticket_file.spec.task,
        "files": {name: len(content) for name, content in sorted(ticket_file.files.items())},
    }
    if as_json:
        options.print_json(facts)
        return
    for name, value in facts.items():
        click.echo(f"{name}: {value:.4%}" if name.endswith("sparsity") and value is not None else f"{name}: {value}")


def _start_words(ticket_file: Ticket) -> str:
    if ticket_file.start_file is not None:
        return "in the file"
    return {
        "init": "from the seed",
        "rewind": "the seed's, trained to the rewind point",
        "continue": "not in the file",
    }[ticket_file.spec.weights.kind]


@ticket.command(name="import")
@click.argument("file", type=options.file)
@click.option(
    "--store", type=options.file, default="runs", show_default=True, metavar="STORE", help="A folder, or az://..."
)
@click.option("--experiment", metavar="NAME", help="Under another name than its own.")
def import_(file: str, store: str, experiment: str | None) -> None:
    """Put a ticket FILE back into a store: the sealed run, byte for byte, so that every command works on it."""
    from ticketsmith.export.bring_in import bring_in
    from ticketsmith.export.ticket import read
    from ticketsmith.store import open_store

    ticket_file = read(file)
    opened = open_store(store)
    folder, is_new = bring_in(ticket_file, opened, experiment)
    click.echo(f"{opened.url}/{folder}" + ("" if is_new else " (was there already)"))


@ticket.command()
@click.argument("file", type=options.file)
@click.option("--base", help="Folder with the recipe's own modules and data; naming it lets their code run.")
@click.option("--output", type=options.file, metavar="FILE", help="Write the new weights there, as safetensors.")
@options.json_flag
def retrain(file: str, base: str | None, output: str | None, as_json: bool) -> None:
    """Train a ticket FILE again from its start weights and its mask, and compare: the same bytes on the same machine."""
    from pathlib import Path

    from safetensors.torch import save_file

    from ticketsmith.errors import disk_error
    from ticketsmith.evidence.results import finite
    from ticketsmith.export import retrain as training
    from ticketsmith.export.ticket import read
    from ticketsmith.models.state import snapshot
    from ticketsmith.training.device import prepare

    ticket_file = read(file)
    prepare("cpu")
    task = training.task_of(ticket_file, None if base is None else Path(base))
    again = training.retrain(ticket_file, task, _Steps(file).tell)
    if output is not None:
        try:
            save_file(snapshot(again.model), output)
        except OSError as error:
            raise disk_error(error, output) from error
    before = (ticket_file.metrics.get("final") or {}).get("test") or {}
    if as_json:
        options.print_json(
            {
                "same": again.same,
                "max_difference": again.max_difference,
                "test": finite(again.test),
                "test_before": before,
            }
        )
        return
    said = "the same weights, bit for bit" if again.same else f"weights differ by up to {again.max_difference:.2g}"
    click.echo(f"{file}: {said}")
    for name, value in again.test.items():
        earlier = before.get(name)
        click.echo(f"test {name}: {value:.6g}" + ("" if earlier is None else f" (in the file {earlier:.6g})"))
    if not again.same:
        click.echo("Another machine, or other versions, round differently; data and code are those of the spec.")


class _Steps:
    """Where training is, on standard error, ten times at most."""

    def __init__(self, name: str) -> None:
        self.name, self.tenths = name, 0

    def tell(self, step: int, steps: int) -> None:
        from ticketsmith.cli.progress import note

        tenth = 10 * step // steps
        if tenth > self.tenths:
            self.tenths = tenth
            note(f"{self.name}: step {step} of {steps}")
