"""Where the time of a run goes, and what sparsity could save of it: measured on the run's own loop, from outside.

Parts are seconds that the processor works (on a GPU: that pass until it has ended), so that other work on the machine changes
them little. What passes beyond that is *waiting*: for a processor that others have, or for a disk. A stretch of steps adds up
to itself: what no part accounts for is the loop's own.

What sparsity could save at most is what a dense step takes less when the layers that are pruned compute nothing and give zeros
of the same shapes: their products, the gradients of their weights, and their share of the optimizer. Of native kernels, it is
what a step takes less when these layers keep a thousandth of their weights.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Variable

from ticketsmith import uncompiled
from ticketsmith.errors import PruningError, RecipeError, TaskError
from ticketsmith.pruning.masks import Masks, full, prune
from ticketsmith.pruning.weights import copied, is_linear_or_convolution, layouts, prunable, weights
from ticketsmith.spec import PruneRule, RunSpec, Training, in_steps
from ticketsmith.store.contract import MANIFEST, RunFolder, manifest_of, to_json
from ticketsmith.store.directory import DirectoryStore
from ticketsmith.tasks.build import build_model
from ticketsmith.tasks.flops import forward_flops, step_flops
from ticketsmith.tasks.task import Task
from ticketsmith.training.device import prepared
from ticketsmith.training.environment import describe
from ticketsmith.training.kernels import make_learner
from ticketsmith.training.learner import Learner, TorchLearner
from ticketsmith.training.loop import Progress, evaluate, train
from ticketsmith.training.native.learner import NativeLearner
from ticketsmith.training.record import measured_files
from ticketsmith.training.samples import sample_files
from ticketsmith.training.tensors import masks_to_bytes, to_bytes

STEP = ("data", "forward", "backward", "weights", "masks", "optimizer", "loop")
"""Parts of a step of PyTorch's, in the order in which they come. A learner whose steps are one call has its own, or ``steps``."""

_REPEATS = 5
_SECONDS = 1.5
"""Of steps that a repeat takes, where nobody says how many."""
_NEVER = 10**9
"""A step that none reaches."""
_FEW = 0.001
"""Of weights: so few that kernels whose steps cost what their density costs take next to nothing for them."""
_SIDE = {"cpu": 1024, "cuda": 8192}
"""Of the square matrices whose product is the peak."""
_ONE_FOR_ALL = (
    "training.ranks is {ranks}, and one process did the work of all of them here, one part of each batch after another: "
    "{ranks} ranks share it, and what they tell each other comes on top."
)


@dataclass(frozen=True)
class Bound:
    """What sparsity could save of a step at most.

    ``step``: seconds that a dense step takes, ``rest``: without the ``layers`` that are pruned. ``uncounted``: pruned weights
    that no linear layer or convolution computes with, whose time is in the rest.
    """

    step: float
    rest: float
    layers: tuple[str, ...]
    uncounted: tuple[str, ...]

    @property
    def share(self) -> float:
        """Of a step: what the pruned layers take."""
        return 1.0 - self.rest / self.step

    def speedup(self, density: float = 0.0) -> float:
        """How many times as fast a step is when these layers cost what their density costs."""
        return self.step / (self.rest + density * (self.step - self.rest))


@dataclass(frozen=True)
class Profile:
    """Where the time of one run goes. Times are medians, in seconds.

    ``step``: by part, without waiting; ``waits``: while a step passes. ``steps`` and ``evaluations``: of a run. Of work and of
    waiting: ``start``: model, mask and optimizer; ``evaluation``: one on validation; ``end``: the last ones, on validation and
    test; ``writing``: the files of a run, into a local folder. ``flops``: arithmetic of a dense step, forward and backward.
    ``peak``: FLOP/s of the product of two square matrices of ``side`` in the recipe's ``dtype``. ``dense``: seconds of a dense
    step, by the same ``kernels``; ``notes``: what a run would tell.
    """

    device: str
    kernels: str
    dtype: str
    batch_size: int
    sparsity: float
    step: Mapping[str, float]
    waits: float
    steps: int
    evaluations: int
    start: tuple[float, float]
    evaluation: tuple[float, float]
    end: tuple[float, float]
    writing: tuple[float, float]
    flops: int
    peak: float
    side: int
    dense: float
    bound: Bound | None
    notes: tuple[str, ...]

    @property
    def parts(self) -> dict[str, float]:
        """Seconds of a run by part; they add up to it."""
        waiting = self.steps * self.waits + self.evaluations * self.evaluation[1]
        return {
            **{name: self.steps * seconds for name, seconds in self.step.items()},
            "evaluation": self.evaluations * self.evaluation[0] + self.end[0],
            "start": self.start[0],
            "writing": self.writing[0],
            "waiting": waiting + sum(one[1] for one in (self.start, self.end, self.writing)),
        }

    @property
    def seconds(self) -> float:
        """Of a run."""
        return sum(self.parts.values())

    @property
    def step_seconds(self) -> float:
        """Of a step, without waiting."""
        return sum(self.step.values())

    @property
    def of_peak(self) -> float:
        """Dense arithmetic of a step over what the peak would do in its time."""
        return self.flops / (self.peak * self.step_seconds)


def profile(
    task: Task, spec: RunSpec, rule: PruneRule, sparsity: float, device: str = "cpu", steps: int | None = None
) -> Profile:
    """Profiles a run of ``spec`` whose layers, those that ``rule`` prunes, have lost ``sparsity`` of their weights at random.

    ``steps`` are measured, in five repeats; by default as many as take a few seconds. Raises RecipeError where there is nothing
    to measure or a layer would be left empty, and the errors of the task.
    """
    ranks = spec.training.ranks
    alone = spec.training.model_copy(update={"ranks": 1, "accumulate": spec.training.parts})
    spec = spec.model_copy(update={"training": alone})  # the work of all ranks, by this process
    total = spec.end(task.train_size) - spec.begin
    if total < 1:
        raise RecipeError("training.duration: nothing is trained, so there is no step to profile.")
    with prepared(device) as place:
        watch = _Watch(place)
        notes = [_ONE_FOR_ALL.format(ranks=ranks)] if ranks > 1 else []
        model, masks, learner = _start(task, spec, rule, sparsity, place, notes.append)
        start = watch.since_start()
        stretch = _Stretch(task, spec)
        if isinstance(learner, NativeLearner):
            learner.measure()
        count = _count(stretch, learner, place, total, steps)
        native = learner.kernels != "torch"
        others = {}
        if sparsity > 0:
            whole = {name: torch.ones_like(mask) for name, mask in masks.items()}
            others["dense"] = make_learner(task, copied(model), whole, spec.training, place)
        free = (_nearly_without if native else _without)(task, model, masks, spec.training, place)
        if free is not None:
            others["rest"] = free.learner
        for other in others.values():
            stretch(other, place, count)  # what is made only once
        repeats: list[tuple[dict[str, float], float]] = []
        beside: dict[str, list[float]] = {name: [] for name in others}
        for _ in range(_REPEATS):
            repeats.append(stretch(learner, place, count))
            for name, other in others.items():
                beside[name].append(sum(stretch(other, place, count)[0].values()))
        step = {
            name: statistics.median(parts.get(name, 0.0) for parts, _ in repeats)
            for name in dict.fromkeys(name for parts, _ in repeats for name in parts)
        }
        evaluation, progress = _evaluations(learner, watch)
        end, writing = _end(task, spec, learner, progress, masks, watch)
        side = _SIDE["cuda" if place.type == "cuda" else "cpu"]
        dense = statistics.median(beside["dense"]) if "dense" in beside else sum(step.values())
        bound = None
        if free is not None:
            bound = Bound(dense, statistics.median(beside["rest"]), free.layers, free.uncounted)
        every = in_steps(spec.training.evaluate_every, task.train_size, spec.training.batch_size)
        return Profile(
            device=place.type,
            kernels="native" if native else "torch",
            dtype=spec.training.dtype,
            batch_size=spec.training.batch_size,
            sparsity=sparsity,
            step=step,
            waits=statistics.median(waits for _, waits in repeats),
            steps=total,
            evaluations=len({*range(every, total + 1, every), total}),
            start=start,
            evaluation=evaluation,
            end=end,
            writing=writing,
            flops=step_flops(task, spec.training.batch_size),
            peak=_peak(place, spec.training.dtype, side, watch),
            side=side,
            dense=dense,
            bound=bound,
            notes=tuple(notes),
        )


class _Watch:
    """Two clocks: of work, and of the wall."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.restart()

    def restart(self) -> None:
        self._began = self._work(), time.perf_counter()
        self._last, self.parts = self._began[0], dict[str, float]()

    def mark(self, part: str) -> None:
        """What was worked since the last mark belongs to ``part``."""
        now = self._work()
        self.parts[part] = self.parts.get(part, 0.0) + now - self._last
        self._last = now

    def since_start(self) -> tuple[float, float]:
        """Seconds of work, and of waiting; then it begins anew."""
        work, wall = self._work() - self._began[0], time.perf_counter() - self._began[1]
        self.restart()
        return work, max(0.0, wall - work)

    def _work(self) -> float:
        if self._device.type == "cpu":
            return time.process_time()
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


class _StretchEnd(Exception):
    """Enough steps were made."""


@dataclass(frozen=True)
class _Stretch:
    """The first steps of a run, by the run's own loop, without evaluations."""

    task: Task
    spec: RunSpec

    def __call__(self, learner: Learner, device: torch.device, count: int) -> tuple[dict[str, float], float]:
        """Seconds by part of a step, and those of waiting: the mean over ``count`` steps or a few more."""
        watch, spec = _Watch(device), self.spec
        training = spec.training.model_copy(update={"evaluate_every": f"{_NEVER}it"})
        progress = Progress(step=spec.begin, interval_start=spec.begin)
        reported: Mapping[str, float] = dict(getattr(learner, "parts", {}))

        def after(progress: Progress, loss: Any) -> None:
            if progress.step - spec.begin >= count:
                raise _StretchEnd

        with _marked(self.task, learner, watch), suppress(_StretchEnd):
            watch.restart()
            train(learner, training, spec.seed, progress, _NEVER, after)
        watch.mark("loop")
        parts = watch.parts
        _, waits = watch.since_start()
        if "forward" not in parts:  # steps that are not PyTorch's: what the learner tells of them, if it does
            own = {name: seconds - reported.get(name, 0.0) for name, seconds in getattr(learner, "parts", {}).items()}
            rest = max(0.0, parts.pop("loop") - sum(own.values()))
            parts = {**own, "loop" if own else "steps": rest, **parts}
        if progress.diverged:
            raise TaskError(f"{progress.notes[-1]}: while it was profiled.")
        made = progress.step - spec.begin
        return {name: parts[name] / made for name in dict.fromkeys((*STEP, *parts)) if name in parts}, waits / made


@contextmanager
def _marked(task: Task, learner: Learner, watch: _Watch) -> Iterator[None]:
    """The parts of a step are marked as they pass, whatever the learner does between them."""

    def between(before: str, call: Callable[..., Any], after: str) -> Callable[..., Any]:
        def marking(*args: Any, **kwargs: Any) -> Any:
            watch.mark(before)
            result = call(*args, **kwargs)
            watch.mark(after)
            return result

        return marking

    def loss(*args: Any, **kwargs: Any) -> Tensor:
        watch.mark("loop")
        value: Tensor = plain_loss(*args, **kwargs)
        if value.requires_grad:  # and so is given a gradient, after which the engine calls back
            value.register_hook(_at_end_of_backward(lambda: watch.mark("backward")))  # type: ignore[no-untyped-call]
        watch.mark("forward")
        return value

    plain_loss = task.loss
    with ExitStack() as changes:
        changes.enter_context(_instead(task, "batch", between("loop", task.batch, "data")))
        changes.enter_context(_instead(task, "loss", loss))
        changes.enter_context(_instead(uncompiled, "step", between("masks", uncompiled.step, "optimizer")))
        if hasattr(learner, "step"):
            changes.enter_context(_instead(learner, "step", between("loop", learner.step, "optimizer")))
        yield


def _at_end_of_backward(call: Callable[[], None]) -> Callable[[Tensor], None]:
    def begun(gradient: Tensor) -> None:
        Variable._execution_engine.queue_callback(call)

    return begun


@contextmanager
def _instead(owner: Any, name: str, call: Callable[..., Any]) -> Iterator[None]:
    """Within it, ``owner.name`` is ``call``. Raises TaskError for an object of a user's own that lets nothing be set."""
    place, missing = vars(owner) if hasattr(owner, "__dict__") else None, object()
    if place is None:
        raise TaskError(f"task {type(owner).__name__} has `__slots__`: without them its parts can be timed.")
    before = place.get(name, missing)
    place[name] = call
    try:
        yield
    finally:
        if before is missing:
            del place[name]
        else:
            place[name] = before


def _count(stretch: _Stretch, learner: Learner, device: torch.device, total: int, steps: int | None) -> int:
    """Steps of a repeat. What is made only once is made here, and not measured."""
    stretch(learner, device, min(2, total))
    if steps is not None:
        return min(total, -(-steps // _REPEATS))
    parts, _ = stretch(learner, device, min(3, total))
    return max(1, min(total, int(_SECONDS / max(1e-9, sum(parts.values())))))


def _start(
    task: Task, spec: RunSpec, rule: PruneRule, sparsity: float, device: torch.device, note: Callable[[str], None]
) -> tuple[nn.Module, Masks, Learner]:
    """A model, its masks, and the learner of another one with the same weights."""
    torch.manual_seed(0)
    model = build_model(task)
    masks = full(prunable(model, rule.include))
    if sparsity > 0:
        chance = {name: torch.rand(mask.shape) for name, mask in masks.items()}
        at_once = rule.model_copy(
            update={"fraction": sparsity, "rounds": 1, "rates": (), "pattern": None, "scope": "layer"}
        )
        try:
            masks = prune(masks, chance, at_once, layouts(model))
        except PruningError as error:
            why = str(error).partition(". ")[0]
            raise RecipeError(
                f"--sparsity {sparsity:g}: {why}. Choose less, or keep the layer dense by `pruning.exclude`."
            ) from error
    return model, masks, make_learner(task, copied(model), masks, spec.training, device, note)


@dataclass(frozen=True)
class _Free:
    """A learner whose pruned layers compute nothing."""

    learner: Learner
    layers: tuple[str, ...]
    uncounted: tuple[str, ...]


def _without(task: Task, model: nn.Module, masks: Masks, training: Training, device: torch.device) -> _Free | None:
    """A learner of the same model, of which the layers that ``masks`` prune (all, of a dense one) give zeros.

    None where none of them is called as a module in a step, or a step cannot be taken apart.
    """
    if training.compile:
        return None
    pruned = _pruned(masks)
    model = copied(model).to(device)
    mine = {
        holder.module: weight.name
        for weight in weights(model)
        if weight.name in pruned
        for holder in weight.holders
        if is_linear_or_convolution(holder)
    }
    shapes: dict[tuple[nn.Module, torch.Size], tuple[torch.Size, torch.dtype]] = {}

    def note(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        shapes[module, inputs[0].shape] = output.shape, output.dtype

    handles = [module.register_forward_hook(note) for module in mine]
    generator = torch.Generator().manual_seed(0)
    batch = task.batch(torch.arange(training.batch_size) % task.train_size, device, generator)
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=training.dtype == "bfloat16"):
        task.loss(model.train(), batch, generator)
    for handle in handles:
        handle.remove()
    called = {module for module, _ in shapes}
    if not called:
        return None
    for module in called:
        module.forward = _zeros_of(module, shapes)
    everything = {name: torch.ones_like(mask) for name, mask in masks.items()}
    layers = tuple(name for module, name in mine.items() if module in called)
    uncounted = tuple(sorted(pruned - set(layers)))
    return _Free(TorchLearner(task, model, everything, training), layers, uncounted)


def _nearly_without(task: Task, model: nn.Module, masks: Masks, training: Training, device: torch.device) -> _Free:
    """A learner of native kernels whose pruned layers keep a thousandth of their weights, and one at least."""
    pruned, few = _pruned(masks), {name: torch.ones_like(mask) for name, mask in masks.items()}
    for name in pruned:
        few[name] = torch.rand(few[name].shape) < _FEW
        few[name].view(-1)[0] = True
    return _Free(make_learner(task, copied(model), few, training, device), tuple(few), ())


def _pruned(masks: Masks) -> set[str]:
    """The weights that ``masks`` prune; all, of a dense network."""
    return {name for name, mask in masks.items() if not bool(mask.all())} or set(masks)


def _zeros_of(
    module: nn.Module, shapes: Mapping[tuple[nn.Module, torch.Size], tuple[torch.Size, torch.dtype]]
) -> Callable[[Tensor], Tensor]:
    """What a layer gives without its products: its bias."""
    weight: Any = module.weight
    bias: Any = getattr(module, "bias", None)

    def forward(inputs: Tensor) -> Tensor:
        shape, dtype = shapes.get((module, inputs.shape), (None, None))
        if shape is None:  # a shape that the first batch did not have
            return type(module).forward(module, inputs)  # type: ignore[no-any-return]
        zeros: Tensor = _Zeros.apply(inputs, weight, shape, dtype)  # type: ignore[no-untyped-call]
        if bias is None:
            return zeros
        along = -1 if shape[-1] == len(bias) and not isinstance(module, nn.modules.conv._ConvNd) else 1
        places = [1] * len(shape)
        places[along] = -1
        result: Tensor = zeros + bias.view(places).to(dtype)
        return result

    return forward


class _Zeros(torch.autograd.Function):
    """Zeros in place of products with a weight, which gets no gradient."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, shape: torch.Size, dtype: torch.dtype) -> Tensor:
        ctx.shape, ctx.dtype = inputs.shape, inputs.dtype
        return inputs.new_zeros(shape, dtype=dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None, None, None]:
        wanted = ctx.needs_input_grad[0]
        return gradient.new_zeros(ctx.shape, dtype=ctx.dtype) if wanted else None, None, None, None


def _evaluations(learner: Learner, watch: _Watch) -> tuple[tuple[float, float], Progress]:
    """One evaluation on validation, and a progress of two, the first of which was the best."""
    measured, began = list[tuple[float, float]](), time.monotonic()
    progress = Progress()
    while len(measured) < 2 or (len(measured) < 3 and time.monotonic() - began < _SECONDS):
        progress.step, progress.interval_loss, progress.best_loss = len(measured) + 1, 1.0, float("inf")
        watch.restart()
        evaluate(learner, progress)
        measured.append(watch.since_start())
        if progress.diverged:
            raise TaskError(f"{progress.notes[-1]}: after a few steps of training. Is training.lr too high?")
    progress.best_step = 1
    work, waits = (statistics.median(one) for one in zip(*measured, strict=True))
    return (work, waits), progress


def _end(
    task: Task, spec: RunSpec, learner: Learner, progress: Progress, masks: Masks, watch: _Watch
) -> tuple[tuple[float, float], tuple[float, float]]:
    """The last evaluations of a run; and its files, written."""
    flops = forward_flops(task)
    watch.restart()
    samples = sample_files(task, learner.result, learner.device)
    files = measured_files(spec, learner, progress, masks, flops) | samples
    end = watch.since_start()
    with tempfile.TemporaryDirectory(prefix="ticketsmith-") as folder:
        store = DirectoryStore(Path(folder))
        watch.restart()
        files["mask.safetensors"] = masks_to_bytes(masks)
        files["model.safetensors"] = to_bytes(learner.state())
        files["environment.json"] = to_json(describe(learner.device, "", learner.kernels))
        place = RunFolder("profile", "dense", 0, 0, spec.key[:8])
        store.publish(place, {**files, MANIFEST: manifest_of(spec.key, "trained", files)})
        return end, watch.since_start()


def _peak(device: torch.device, dtype: str, side: int, watch: _Watch) -> float:
    """FLOP/s of the product of two square matrices: the best of ten."""
    left, right = (torch.rand(side, side, device=device, dtype=getattr(torch, dtype)) for _ in range(2))
    best = float("inf")
    for _ in range(10):
        watch.restart()
        left @ right
        best = min(best, watch.since_start()[0])
    return 2.0 * side**3 / best
