"""The command that says where the time of a run goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from ticketsmith.cli import options
from ticketsmith.units import duration, latency, listed, percent, rate, share, times

if TYPE_CHECKING:
    from ticketsmith.training.profile import Profile

_MUCH = 0.1
"""Of a run: waiting that a person is told of."""


@click.command()
@options.config
@options.overrides
@click.option("--steps", type=click.IntRange(1), help="Training steps to measure. By default those of a few seconds.")
@click.option(
    "--sparsity",
    type=click.FloatRange(0.0, 1.0, max_open=True),
    default=0.9,
    show_default=True,
    help="Of each layer that is pruned, at random places; 0 is the dense network.",
)
@options.device
@options.as_json
def profile(
    config: str, overrides: Sequence[str], steps: int | None, sparsity: float, device: str, as_json: bool
) -> None:
    """Say where the time of a run goes, and what sparsity could save of it at most.

    A few steps, evaluations and files of one run are measured here, by its own training loop; nothing is kept.
    """
    from ticketsmith import api
    from ticketsmith.cli.progress import note

    recipe = options.read_recipe(config, overrides, None)
    note(f"{recipe.experiment}: reading data, checking the model ...")
    prepared = api.prepare(recipe)
    note("measuring a run ...")
    measured = api.profile(prepared, sparsity=sparsity, steps=steps, device=device)
    if as_json:
        options.print_json(document(recipe.experiment, measured))
        return
    for line in sentences(measured):
        click.echo(line)
    options.print_table(
        _rows(measured), f"{recipe.experiment}: one run, {percent(sparsity)} sparse, on {_place(measured)}"
    )
    click.echo(
        f"peak: {rate(measured.peak / 1e9)} GFLOP/s, a product of two {measured.side:,} x {measured.side:,} matrices in "
        f"{measured.dtype}; a step does the {rate(measured.flops / 1e6)} MFLOP of the dense network at "
        f"{share(measured.of_peak)} of it"
    )


def document(experiment: str, measured: Profile) -> dict[str, Any]:
    """For ``--json``; times in seconds."""
    bound = measured.bound
    return {
        "experiment": experiment,
        **asdict(measured),
        "parts": measured.parts,
        "seconds": measured.seconds,
        "of_peak": measured.of_peak,
        "bound": None
        if bound is None
        else {
            **asdict(bound),
            "share": bound.share,
            "speedup": bound.speedup(),
            "speedup_at_this_sparsity": bound.speedup(1.0 - measured.sparsity),
        },
    }


def sentences(measured: Profile) -> list[str]:
    """What the numbers say, the most important first."""
    work = {name: seconds for name, seconds in measured.parts.items() if name != "waiting"}
    busy = sum(work.values())
    most = sorted(work.items(), key=lambda part: part[1], reverse=True)[:3]
    shares = listed([f"{name} {share(seconds / busy)}" for name, seconds in most if seconds > 0.05 * busy])
    steps = "a step" if measured.steps == 1 else f"{measured.steps:,} steps"
    takes = f"A run of {steps} takes about {duration(measured.seconds)} on {_place(measured)}"
    waits = 1.0 - busy / measured.seconds
    if waits > _MUCH:
        lines = [
            f"{takes}, of which it waits {share(waits)}: other work has the processor, or a disk is slow.",
            f"It works for {duration(busy)}: {shares}.",
        ]
    else:
        lines = [f"{takes}: {shares}."]
    bound = measured.bound
    if bound is None:
        lines.append(
            "What sparsity could save is not known: no pruned layer is called as a module, or steps are compiled."
        )
    elif bound.share <= 0.0:
        lines.append("Sparsity could save nothing that can be measured: without its pruned layers a step is no faster.")
    else:
        at = (
            ""
            if measured.sparsity == 0
            else (
                f", and {times(bound.speedup(1.0 - measured.sparsity))} if they cost what their density costs at "
                f"{percent(measured.sparsity)} sparsity"
            )
        )
        lines.append(
            f"The layers that are pruned take {share(bound.share)} of a dense step: if they cost nothing, a step would be "
            f"{times(bound.speedup())} as fast at most{at}."
        )
    if measured.sparsity > 0:
        now = share(measured.step_seconds / measured.dense)
        lines.append(
            f"With the kernels of today ({measured.kernels}) a step of this sparsity takes {now} of a dense one."
        )
    if bound is not None and bound.uncounted:
        lines.append(
            f"Not counted among them, since no linear layer or convolution computes with it: {listed(bound.uncounted)}."
        )
    return [*lines, *measured.notes]


def _rows(measured: Profile) -> list[dict[str, str]]:
    whole = measured.seconds
    in_a_step = {**measured.step, "waiting": measured.waits}
    return [
        {
            "part": name,
            "a step": latency(in_a_step[name]) if in_a_step.get(name) else "",
            "a run": latency(seconds) if seconds else "0 s",
            "share": share(seconds / whole),
            "": _about(name, measured),
        }
        for name, seconds in measured.parts.items()
    ]


def _about(name: str, measured: Profile) -> str:
    once = latency(measured.evaluation[0])
    return {
        "loop": "order, seeds, rates",
        "steps": "one call: the learner tells no parts",
        "weights": "their gradients, with the optimizer's step in them",
        "optimizer": "with the average of weights, if any",
        "evaluation": f"{measured.evaluations} times {once}, and {latency(measured.end[0])} at the end",
        "start": "model, mask, optimizer",
        "writing": "into a local folder",
        "waiting": "for a processor or a disk",
    }.get(name, "")


def _place(measured: Profile) -> str:
    return "one GPU" if measured.device == "cuda" else "one core" if measured.device == "cpu" else measured.device
