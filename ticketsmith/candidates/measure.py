"""All candidates of an experiment: what is on the shelf is taken from it, the rest is written and judged; then they race."""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ticketsmith.candidates import shelf
from ticketsmith.candidates.forms import Form, Network
from ticketsmith.candidates.judging import TIME_IS_OVER, TimeIsOverError, count, judge, without_nan
from ticketsmith.candidates.timing import Work, timed
from ticketsmith.engines import CannotRunError
from ticketsmith.errors import TicketSmithError
from ticketsmith.evidence.candidates import Judgement, Lack, Memory, Race, to_json
from ticketsmith.evidence.choice import FLOAT32
from ticketsmith.evidence.results import Result
from ticketsmith.evidence.variants import DENSE
from ticketsmith.inference.measuring.surroundings import Surroundings, signs
from ticketsmith.inference.runtimes.decoding import by_token
from ticketsmith.inference.settings import BenchmarkSettings
from ticketsmith.inference.tables.footprint import footprint
from ticketsmith.race import Stopwatch
from ticketsmith.store.contract import Store
from ticketsmith.store.contract import to_json as as_bytes
from ticketsmith.tasks.build import single_example
from ticketsmith.tasks.task import Task, serving

Progress = Callable[[str, int, int], None]

JUDGING = 0.75
"""The share of a budget that writing and judging may take."""


@dataclass(frozen=True, eq=False)
class Order:
    """What is asked for: each run of ``runs`` in each of ``forms`` that ``wants(run, form)``, in this order.

    ``network(run, folder)`` gives what is written, with ``folder`` for scratch. ``seed`` is the replicate that is timed.
    ``decodes``: phases of decoding are timed, too.
    """

    runs: Sequence[Result]
    forms: Sequence[Form]
    wants: Callable[[Result, Form], bool]
    network: Callable[[Result, Path], Network]
    seed: int
    decodes: bool = False


def measure(
    store: Store,
    experiment: str,
    task: Task,
    order: Order,
    settings: BenchmarkSettings,
    progress: Progress = lambda what, count, total: None,
    clock: Callable[[], float] = time.perf_counter,
) -> Race:
    """Writes, judges and times; gives the race, which is not put into the store yet.

    ``settings.budget``, in seconds, is for all of it: what is left when it is spent is listed as lacking, and comes the next
    time. What was judged before, on this machine with these versions, is not judged again. Raises CannotRunError when
    nothing could be judged.
    """
    end = None if settings.budget is None else clock() + settings.budget
    judging_end = None if settings.budget is None else clock() + JUDGING * settings.budget
    bench = _Bench(store, experiment, task, settings, progress, clock, judging_end)
    own, lacks = bench.judged(order)
    if not own:
        raise CannotRunError(f"no candidate could be judged: {lacks[0].form}: {lacks[0].reason}")
    around, kinds = Surroundings(), serving(task)
    before, cells, noises, pins = around.state(), [], [], {}
    with tempfile.TemporaryDirectory(prefix="ticketsmith-") as scratch:
        timely = [one for one in own if one.seed == order.seed and not _repeats(one, order.forms)]
        files = list(bench.copied(timely, Path(scratch)))
        memories = bench.weighed(files, order.forms)
        works = list(_works(task, settings, order.decodes))
        for index, work in enumerate(works):
            fitting = [(one, path) for one, path in files if one.calls in (0, len(work.inputs))]
            allowance = None if end is None else max(0.0, end - clock()) / (len(works) - index)
            tell = partial(_tell_rounds, progress, index * settings.rounds, len(works) * settings.rounds)
            raced = timed(fitting, work, settings, allowance, Stopwatch(clock), tell)
            cells.append(raced.cell)
            lacks += raced.lacks
            noises += raced.noises
            cores = ", ".join(map(str, raced.cores))
            pins[work.threads] = f"{work.threads}, on core{'s' if len(raced.cores) > 1 else ''} {cores}"
    machine = around.describe(torch.device("cpu")) | {"threads": "; ".join(pins.values())}
    machine["resolution"] = "Identical copies of a file differ by up to " + ", ".join(
        f"{100 * (cell.resolution - 1):.1f} % at {work}" for cell, work in zip(cells, works, strict=True)
    ) + "."  # fmt: skip
    machine["runtimes"] = "; ".join(dict.fromkeys(form.place for form in order.forms))
    if noises := noises + signs(before, around.state()):
        machine["noise"] = f"The machine was not quiet: {'; '.join(noises)}. Small differences may be its doing."
    names = tuple(shelf.name(one) for one in own)
    return Race(machine, settings.confidence, kinds.unit, names, tuple(cells), tuple(lacks), memories=memories)


def put(store: Store, experiment: str, race: Race) -> None:
    """Keeps a race in the store, in place of the last one."""
    store.put(f"{experiment}/{shelf.RACE}", as_bytes(to_json(race)))


@dataclass(frozen=True, eq=False)
class _Bench:
    store: Store
    experiment: str
    task: Task
    settings: BenchmarkSettings
    progress: Progress
    clock: Callable[[], float]
    end: float | None

    def judged(self, order: Order) -> tuple[list[Judgement], list[Lack]]:
        """Every judgement that is asked for, of the shelf or made now, and what is lacking."""
        on_shelf = {_place(one): one for one in shelf.judgements(self.store, self.experiment).values()}
        jobs = [
            (run, [form for form in order.forms if form.of_level is late and order.wants(run, form)])
            for late in (False, True)  # what takes longest, last
            for run in order.runs
        ]
        total, index = sum(len(forms) for _, forms in jobs), 0
        own: list[Judgement] = []
        lacks: list[Lack] = []
        for run, forms in jobs:
            with tempfile.TemporaryDirectory(prefix="ticketsmith-") as scratch:
                network: Network | None = None
                for form in forms:
                    index += 1
                    calls = self.settings.batch_sizes if form.by_call else (0,)
                    place = place_of(form, order.decodes)
                    ready = [on_shelf.get((run.key, form.name, place, size)) for size in calls]
                    own += [one for one in ready if one is not None]
                    missing = [size for size, one in zip(calls, ready, strict=True) if one is None]
                    if not missing:
                        continue
                    tell = partial(
                        self._tell, f"{run.variant} level {run.level} seed {run.seed} as {form.name}", index, total
                    )
                    try:
                        tell("writing", 0)
                        if network is None:
                            network = order.network(run, Path(scratch))
                        before = next((one for one in ready if one is not None), None)
                        own += self._made(run, form, place, network, missing, before, tell)
                    except TicketSmithError as error:
                        lacks.append(Lack(run.variant, run.level, run.seed, form.name, str(error)))
        return own, lacks

    def copied(self, own: Sequence[Judgement], scratch: Path) -> Iterator[tuple[Judgement, Path]]:
        """The files of judgements, each in a folder of its own."""
        for number, one in enumerate(own):
            target = scratch / str(number)
            target.mkdir()
            path = shelf.get_files(self.store, self.experiment, one, target)
            if path is not None:
                yield one, path

    def weighed(self, files: Sequence[tuple[Judgement, Path]], forms: Sequence[Form]) -> tuple[Memory, ...]:
        """What each file takes to load and to serve, in a process of its own, as long as there is time."""
        own, size = {form.name: form for form in forms}, min(self.settings.batch_sizes)
        inputs = _array(single_example(self.task, size))
        memories: dict[tuple[str, str], Memory] = {}
        for index, (one, path) in enumerate(files, start=1):
            deploy = own[one.form].deploy if one.form in own else None
            if deploy is None or (one.form, one.sha256) in memories:
                continue
            if self.end is not None and self.clock() > self.end:
                break
            self.progress(f"loading {one.form} of {one.variant} level {one.level} alone", index, len(files))
            found = footprint(deploy(path, size), inputs, 1, path.parent)
            if found is not None and found.private_bytes is not None:
                load, first = (float(f"{value:.3g}") for value in (found.load_ms, found.first_call_ms))
                memories[one.form, one.sha256] = Memory(
                    one.form, one.sha256, size, load, first, found.private_bytes, found.added_bytes
                )
        return tuple(memories.values())

    def _tell(self, what: str, index: int, total: int, doing: str, examples: int) -> None:
        if self.end is not None and self.clock() > self.end:
            raise TimeIsOverError(TIME_IS_OVER)
        whole = count(self.task)
        part = f", {examples:,} of {whole:,} examples" if examples and whole else ""
        self.progress(f"{doing} {what}{part}", index, total)

    def _made(
        self, run: Result, form: Form, place: str, network: Network, calls: Sequence[int], before: Judgement | None,
        tell: Callable[[str, int], None],
    ) -> Iterator[Judgement]:  # fmt: skip
        """Writes the file, unless it was judged in calls of another size ``before``, and judges it."""
        with tempfile.TemporaryDirectory(prefix="ticketsmith-", dir=network.folder) as folder:
            begin = time.perf_counter()
            path = None if before is None else shelf.get_files(self.store, self.experiment, before, Path(folder))
            if path is None:
                form.write(network, Path(folder))
                path = Path(folder) / form.files[0]
            seconds = time.perf_counter() - begin if before is None else before.making_seconds
            files = {name: (Path(folder) / name).read_bytes() for name in form.files}
            for size in calls:
                if form.decoder is not None and _reads_tokens(form, network.decodes):
                    arrays = by_token(form.decoder(path, 1))
                else:
                    arrays = form.load(path, 1, None)  # the last call of a split may be a smaller one
                scores = judge(self.task, without_nan(arrays), size, partial(tell, "judging"))
                sums = hashlib.sha256(scores.outcomes).hexdigest() if scores.outcomes else ""
                one = Judgement(
                    run.variant, run.level, run.seed, run.key, run.sparsity, form.name, form.runtime,
                    form.precision_of(path), form.dense, shelf.identity(files), shelf.facts(files), place, size,
                    scores.validation, scores.test, seconds, scores.seconds, sums,
                )  # fmt: skip
                shelf.put_files(self.store, self.experiment, files)
                shelf.put_judgement(self.store, self.experiment, one, scores.outcomes)
                yield one


def place_of(form: Form, decodes: bool) -> str:
    """Runtime and machine, and how a form of a model that ``decodes`` is judged there."""
    return form.place + (", token by token" if _reads_tokens(form, decodes) else "")


def _reads_tokens(form: Form, decodes: bool) -> bool:
    """Whether what is rounded by what else is in a call is judged by sessions, as decoding is served."""
    return decodes and form.by_call and form.decoder is not None


def _repeats(one: Judgement, forms: Sequence[Form]) -> bool:
    """Whether a search ended with the file that another form is always."""
    late = any(form.of_level and form.name == one.form for form in forms)
    plain = any(not form.of_level and (form.runtime, form.precision) == (one.runtime, FLOAT32) for form in forms)
    return late and plain and one.precision == FLOAT32


def _works(task: Task, settings: BenchmarkSettings, decodes: bool) -> Iterator[Work]:
    """One call as it is, and each phase of a model that generates, for each batch size and number of threads."""
    kinds = serving(task)
    for threads in settings.threads:
        for size in settings.batch_sizes:
            inputs = _array(single_example(task, size))
            yield from (Work(inputs, threads, float(size * part.new), part) for part in kinds.phases if decodes)
            yield Work(inputs, threads, kinds.units_per_input * size)


def _tell_rounds(progress: Progress, start: int, total: int, what: str, rounds: int) -> None:
    progress(what, min(start + rounds, total), total)


def _place(one: Judgement) -> tuple[str, str, str, int]:
    return one.key, one.form, one.place, one.calls


def _array(inputs: Tensor) -> NDArray[Any]:
    return np.ascontiguousarray(inputs.detach().cpu().numpy())


def wanted(levels: Sequence[tuple[str, int]], square: tuple[str, int] | None) -> Callable[[Result, Form], bool]:
    """Dense in every form; a level of ``levels`` where zeros are skipped, and that of ``square`` in every form.

    A dense runtime takes as long for zeros as for other numbers, so that a sparse network on it only says what quality is. A
    form that is looked for takes minutes a level.
    """

    def wants(run: Result, form: Form) -> bool:
        place = run.variant, run.level
        return run.variant == DENSE or place == square or (place in levels and not form.dense and not form.of_level)

    return wants
