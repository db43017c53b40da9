"""The command that measures inference speed."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from ticketsmith.cli import options
from ticketsmith.errors import RecipeError
from ticketsmith.inference.settings import ALL, FILE_PRECISIONS, RUNTIMES

if TYPE_CHECKING:
    from ticketsmith.api import Experiment
    from ticketsmith.evidence.findings import Findings
    from ticketsmith.evidence.serving import Benchmark
    from ticketsmith.inference.measuring.lineup import Candidate
    from ticketsmith.inference.settings import BenchmarkSettings

Text = str | None


@click.command()
@click.option(
    "--checkpoint",
    type=options.file,
    metavar="FOLDER",
    help="One sealed run: measured against the dense run of its replicate.",
)
@options.runs_prefix
@options.experiment
@click.option("--onnx", type=options.file, metavar="FILE", help="An ONNX file of one input and one output.")
@click.option(
    "--against", type=options.file, metavar="FILE", help="With --onnx: the dense model that it is compared with."
)
@click.option("--model", metavar="MODULE:NET", help="A PyTorch model by its dotted name: a class or a function.")
@click.option("--weights", type=options.file, metavar="FILE", help="With --model: its weights, as safetensors.")
@click.option("--shape", metavar="SIZES", help="With --model or --onnx: one input without the batch, e.g. 1,28,28.")
@click.option(
    "--batch-size",
    "batch_sizes",
    type=click.IntRange(1, 65536),
    multiple=True,
    help="Inputs a call; repeatable. By default 1, 8, 32 and 64.",
)
@click.option("--threads", type=click.IntRange(1, 1024), multiple=True, help="Cores a call may use; repeatable. [1]")
@click.option(
    "--dtype",
    "precisions",
    multiple=True,
    help="Of the weights: float32, bfloat16, int8, for --candidates int4 and mixed; repeatable. [float32; all]",
)
@click.option(
    "--runtime",
    "runtimes",
    multiple=True,
    metavar="NAME[,OPTION=VALUE]",
    help=f"{', '.join(RUNTIMES)}, {ALL}, or package.module:Runtime; repeatable. By default what is installed and can be "
    "fast.",
)
@click.option("--rounds", type=click.IntRange(10, 100_000), help="Interleaved rounds at least. [100]")
@click.option("--seconds", type=click.FloatRange(0.0), help="Seconds at least for each race.")
@click.option("--budget", type=float, help="Seconds at most for all races: rounds, then models, are left out.")
@click.option(
    "--memory/--no-memory", default=True, help="Load times, memory, file sizes, each in a process of its own."
)
@click.option(
    "--candidates",
    is_flag=True,
    help="Prune, quantise, both or neither: write each candidate as the file that would be served, judge it by the gates, "
    "and time that file; --runtime and --dtype limit them.",
)
@click.option(
    "--level",
    "levels",
    multiple=True,
    type=click.IntRange(1),
    help="With --candidates: of sparse networks this level; repeatable. By default all.",
)
@click.option("--data", metavar="NAME|FILE.npz", help="With --candidates --onnx: labelled data to judge by.")
@click.option("--max-drop", type=click.FloatRange(0.0), help="With --data: points of accuracy that may be lost. [1]")
@click.option("--folder", metavar="FOLDER", help="With --data: where the files are kept. [candidates]")
@click.option("--layers", is_flag=True, help="From which sparsity on each kind of layer is faster than dense.")
@click.option("--load", is_flag=True, help="An open-loop load test: the highest rate within a latency target.")
@click.option(
    "--target-ms", type=float, help="With --load: the target. By default 10 times the dense latency, at least 1."
)
@click.option("--percentile", type=float, help="With --load: of the requests, so many per cent within it. [99]")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1.")
@click.option("--base", default=".", show_default=True, help="Folder with the recipe's own modules and data.")
@options.machine
@options.as_json
def benchmark(
    checkpoint: str | None,
    runs_prefix: str,
    experiment: str | None,
    base: str,
    machine: str | None,
    candidates: bool,
    levels: tuple[int, ...],
    as_json: bool,
    **how: Any,
) -> None:
    """Measure inference, dense against pruned, side by side on this machine: wall-clock, never theory.

    With --checkpoint: one run against the dense run of its replicate. With --onnx or --model: that model. Else every run
    of the first replicate of the experiments below --runs-prefix; that benchmark is kept in the store and shown by the
    report. The last line of the output is JSON, for programs; with --json it is the only one.
    """
    from ticketsmith.cli.progress import rounds
    from ticketsmith.prices import lookup

    source = {name: how.pop(name) for name in ("onnx", "model", "against", "weights", "shape")}
    _check_sources(checkpoint, **source)
    labelled = {name: how.pop(name) for name in ("data", "max_drop", "folder")}
    if labelled["data"] is None and (labelled["max_drop"] is not None or labelled["folder"] is not None):
        raise RecipeError("--max-drop and --folder are those of --data.")
    if labelled["data"] is not None and not (candidates and source["onnx"]):
        raise RecipeError("--data is for --candidates --onnx: what else is measured has data of its own.")
    if levels and (not candidates or source["onnx"]):
        raise RecipeError("--level is for --candidates of an experiment; one run is measured by --checkpoint.")
    if candidates:
        _check_candidates(checkpoint, source, labelled, how)
        answers = _measure_candidates(
            _settings(how, FILE_PRECISIONS), runs_prefix, experiment, base, machine, source, labelled, levels
        )
        _show_candidates(answers, as_json)
        return
    settings = _settings(how)
    name = source["model"] if source["onnx"] is None else source["onnx"]
    rate = None if machine is None else lookup(machine)  # before minutes of measuring
    benchmarks: list[tuple[str, str | None, Benchmark]] = []
    with rounds() as progress:
        if name is not None:
            measured = _of_model(settings, base, progress, **source)
            benchmarks.append((name, None, replace(measured, machine_rate=rate)))
        elif checkpoint is not None:
            one, key = _of_checkpoint(checkpoint, base)
            measured = one.compare_with_dense(key, settings, machine=rate, progress=progress)
            benchmarks.append((checkpoint, None, measured))
        else:
            from ticketsmith.cli.opened import experiments

            for one in experiments(runs_prefix, experiment, base):
                measured = one.time_inference(settings, force=True, machine=rate, progress=progress)
                benchmarks.append((one.name, f"{one.store.url}/{one.name}/benchmark.json", measured))
    _show(benchmarks, as_json)


def _show(benchmarks: list[tuple[str, str | None, Benchmark]], as_json: bool) -> None:
    from ticketsmith.evidence.serving import to_json
    from ticketsmith.inference.tables.table import summary

    if as_json:
        documents = [{"name": name, "kept": place, **to_json(one)} for name, place, one in benchmarks]
        click.echo(json.dumps({"benchmarks": documents}, allow_nan=False))
        return
    for name, _, one in benchmarks:
        if len(benchmarks) > 1:
            click.echo(f"\n{name}")
        _show_one(one)
    summaries = [{"name": name, "kept": place, **summary(one)} for name, place, one in benchmarks]
    click.echo(json.dumps({"benchmarks": summaries}, allow_nan=False))


def _show_one(measured: Benchmark) -> None:
    from ticketsmith.inference.tables import table

    for field, value in measured.machine.items():
        click.echo(f"{field}: {value}")
    for line in table.peak_lines(measured.peaks):
        click.echo(f"peaks: {line}")
    for title, timings in table.cells(measured).items():
        columns = [f"{measured.unit}s/s" if name == "per second" else name for name in table.COLUMNS]
        rival = next((timing.against for timing in timings if timing.against), "")
        title += {"prefill": "; p50 is the time to the first token", "decode": "; p50 is the time of a token"}.get(
            timings[0].phase, ""
        )
        heading = title if not rival else f"{title}; speed-up against dense on {rival}"
        plain = table.strongest(measured, timings[0])
        if plain is not None and timings[0].precision != "float32":
            heading += f" ({plain.median_ms:.3g} ms is dense in float32 on {plain.runtime})"
        options.print_columns(columns, table.rows(timings), heading)
        references = " and ".join(dict.fromkeys(timing.compared_with for timing in timings if timing.compared_with))
        if references:
            click.echo(f"outputs differ by: the largest difference from {references}")
    options.print_columns(table.MEMORY_COLUMNS, table.memory_rows(measured), "in a process of its own")
    loads = table.load_rows(measured.loads)
    options.print_columns(table.LOAD_COLUMNS, loads, "open-loop load test: requests of one input")
    layers = table.layer_rows(measured.layers)
    if layers:
        options.print_table(layers, "each layer alone: the sparse runtime against the best dense one; ~ is not sure")
    for line in table.refusal_lines(measured):
        click.echo(f"not run: {line}")


def _check_sources(checkpoint: Text, onnx: Text, model: Text, against: Text, weights: Text, shape: Text) -> None:
    named = {"--checkpoint": checkpoint, "--onnx": onnx, "--model": model}
    sources = [name for name, value in named.items() if value is not None]
    if len(sources) > 1:
        raise RecipeError(f"{' and '.join(sources)}: one model at a time.")
    if against is not None and onnx is None:
        raise RecipeError("--against names the dense model beside --onnx.")
    if weights is not None and model is None:
        raise RecipeError("--weights are those of --model.")
    if shape is not None and onnx is None and model is None:
        raise RecipeError("--shape is for --onnx and --model; experiments know their inputs.")


def _check_candidates(checkpoint: Text, source: dict[str, Text], labelled: dict[str, Any], how: dict[str, Any]) -> None:
    if checkpoint is not None or source["model"] is not None:
        raise RecipeError("--candidates are those of an experiment (--runs-prefix), or of an ONNX file (--onnx).")
    if source["onnx"] is not None and labelled["data"] is None:
        raise RecipeError(
            "--candidates --onnx: say by which labelled data files are judged, --data labelled.npz or --data mnist."
        )
    if how["layers"] or how["load"]:
        raise RecipeError(
            "--candidates are judged and timed as files: --layers and --load are for the benchmark without."
        )


def _measure_candidates(
    settings: BenchmarkSettings,
    prefix: str,
    name: Text,
    base: str,
    machine: Text,
    source: dict[str, Text],
    labelled: dict[str, Any],
    levels: tuple[int, ...],
) -> list[Findings]:
    from pathlib import Path

    from ticketsmith.cli.opened import experiments
    from ticketsmith.cli.progress import rounds
    from ticketsmith.prices import lookup

    rate = None if machine is None else lookup(machine)  # before minutes of measuring
    if (onnx := source["onnx"]) is not None:
        from ticketsmith.candidates.of_onnx import measure_onnx
        from ticketsmith.inference.sources import shape_of

        size = None if source["shape"] is None else shape_of(source["shape"])
        drop = 1.0 if labelled["max_drop"] is None else labelled["max_drop"]
        place = Path(labelled["folder"] or "candidates")
        with rounds() as progress:
            findings = measure_onnx(
                onnx, source["against"], labelled["data"], settings, place, shape=size, max_drop=drop, base=Path(base),
                rate=rate, progress=progress,
            )  # fmt: skip
        return [findings]
    opened = experiments(prefix, name, base)
    with rounds() as progress:
        for one in opened:
            one.measure_candidates(settings, levels=levels, machine=rate, progress=progress)
    return [one.findings for one in opened]


def _show_candidates(measured: list[Findings], as_json: bool) -> None:
    from ticketsmith.cli.scorecard import say_choice
    from ticketsmith.report.candidates import document

    documents = [{"name": one.name, **(document(one) or {})} for one in measured]
    if as_json:
        click.echo(json.dumps({"candidates": documents}, allow_nan=False))
        return
    for one in measured:
        say_choice(one)
    short = ("name", "verdict", "sentence")
    click.echo(json.dumps({"candidates": [{key: one[key] for key in short} for one in documents]}, allow_nan=False))


def _settings(how: dict[str, Any], precisions: tuple[str, ...] = ("float32",)) -> BenchmarkSettings:
    """The command's options, of which those that say nothing take their defaults."""
    from ticketsmith.inference.settings import BATCH_SIZES, ROUNDS, BenchmarkSettings, LoadSettings

    load, target_ms, percentile = (how.pop(name) for name in ("load", "target_ms", "percentile"))
    if not load and (target_ms is not None or percentile is not None):
        raise RecipeError("--target-ms and --percentile are those of --load.")
    defaults = {"batch_sizes": BATCH_SIZES, "threads": (1,), "precisions": precisions, "runtimes": ()}
    for name, default in defaults.items():
        how[name] = tuple(dict.fromkeys(how[name])) or default
    how |= {"rounds": how["rounds"] or ROUNDS, "seconds": how["seconds"] or 0.0}
    share = 0.99 if percentile is None else percentile / 100
    return BenchmarkSettings(**how, load=LoadSettings(target_ms, share) if load else None)


def _of_model(
    settings: BenchmarkSettings,
    base: str,
    progress: Any,
    *,
    onnx: Text,
    model: Text,
    against: Text,
    weights: Text,
    shape: Text,
) -> Benchmark:
    """A model that no experiment made."""
    from pathlib import Path

    from ticketsmith.inference import sources, suite
    from ticketsmith.inference.measuring.measure import Contest
    from ticketsmith.plugins import make_importable
    from ticketsmith.training.device import check_device

    check_device(settings.device)
    size = None if shape is None else sources.shape_of(shape)
    make_importable(Path(base))
    candidates: list[Candidate] = []
    if model is not None:
        reference, inputs = sources.of_module(model, size, weights)
    else:
        assert onnx is not None
        reference, inputs = sources.of_onnx(onnx, size)
        if against is not None:
            candidates = [replace(reference, level=1)]
            reference, dense_inputs = sources.of_onnx(against, size)
            if dense_inputs(1).shape != inputs(1).shape:
                raise RecipeError(f"{onnx} and {against} take inputs of different shapes: they are not the same model.")
    return suite.run(Contest(reference, candidates, inputs), settings, progress=progress)


def _of_checkpoint(checkpoint: str, base: str) -> tuple[Experiment, str]:
    """The experiment and the key of a run's folder (or of a file in it)."""
    from ticketsmith.api import open_experiment
    from ticketsmith.store.contract import SealedRun
    from ticketsmith.store.locate import run_at

    place, folder = run_at(checkpoint)
    experiment = open_experiment(folder.experiment, place, base)
    return experiment, SealedRun(experiment.store, folder).key
