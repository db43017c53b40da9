"""The sparse runtime's own file: formats chosen on this machine, dense libraries raced, rounding judged by the gates."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ticketsmith import runtime
from ticketsmith.evidence.verdicts import TOLERANCE
from ticketsmith.export.subject import ExportError, ExportSettings, QualityLostError, Subject, Written
from ticketsmith.inference.calibration import calibration
from ticketsmith.inference.runtimes.decoding import by_token
from ticketsmith.machine import usable_cores
from ticketsmith.runtime import handover
from ticketsmith.runtime.artifact import machine_key
from ticketsmith.runtime.calibrate import STATIC, WHOLE, calibrated
from ticketsmith.runtime.from_torch import from_torch
from ticketsmith.runtime.graph import Graph
from ticketsmith.runtime.model import Model
from ticketsmith.runtime.steps import SessionError, step_graph
from ticketsmith.runtime.tune import choices, tune, tune_network
from ticketsmith.tasks.build import single_example


def write(subject: Subject, path: Path, settings: ExportSettings) -> Written:
    """Raises UnsupportedError for an operator that the sparse runtime does not know; QualityLostError."""
    precision = settings.precision
    load = ("from ticketsmith import runtime", 'model = runtime.load("{name}")')
    if settings.ready is not None:
        path.write_bytes(settings.ready.content)
        return Written(
            "this very file run on validation and test, one input a call, and judged by its gates", load, None,
            settings.ready.facts,
        )  # fmt: skip
    graph, stored = from_torch(subject.model, single_example(subject.task, 1)), precision
    if precision == STATIC:
        graph, stored = calibrated(graph, calibration(subject.task)), WHOLE
    tuned = tuned_choices(graph, stored) if settings.tuned else {}
    runtime.save(path, graph, {machine_key(): tuned} if tuned else None, stored)
    served = runtime.load(path)
    if precision == "float32":
        error = subject.check("the .tsk file", lambda inputs: _answers(served, inputs))
        more = {"precision": precision, "handed_over": _handed_over(tuned)}
        return Written("outputs of the sparse runtime compared with PyTorch's", load, error, more)
    test = _compared(subject, _Served(served, by_tokens=step_of(graph) is not None), precision, settings.force)
    return Written(
        f"the task's metrics on the test split with {precision} weights compared with those of float32",
        load,
        None,
        {"precision": precision, "test": test},
    )


def tuned_choices(graph: Graph, precision: str) -> dict[str, str]:
    """Formats, those of single tokens too where it decodes, and dense libraries for calls on one thread and on all cores."""
    tuned = choices(tune(graph, precision=precision, batches=()))
    if (step := step_of(graph)) is not None:
        tuned |= choices(tune(step, precision=precision))
    return tuned | network_choices(graph, tuned) if precision == "float32" else tuned


def network_choices(graph: Graph, formats: Mapping[str, str]) -> dict[str, str]:
    """Which dense libraries are faster than our kernels with ``formats``, on one thread and on all cores; in float32."""
    threads = sorted({1, usable_cores()})
    return {
        key: name for count in threads for key, name in choices(tune_network(graph, formats, threads=count)).items()
    }


def step_of(graph: Graph) -> Graph | None:
    """What a session computes for one token; None for what is no decoder."""
    if any(port.dtype == "float32" for port in graph.inputs):
        return None
    try:
        return step_graph(graph)
    except SessionError:
        return None


def _handed_over(tuned: Mapping[str, str]) -> list[dict[str, object]]:
    """For which calls a dense library was faster than the sparse runtime's own kernels."""
    return [
        {"threads": threads, "batch_size": batch, "to": library}
        for threads in sorted({1, usable_cores()})
        for batch, library in handover.chosen(tuned, threads).items()
        if library != handover.OWN
    ]


def _answers(served: Model, inputs: Tensor) -> list[Tensor]:
    """All outputs."""
    outputs = served(inputs.numpy())
    return [torch.from_numpy(one) for one in (outputs if isinstance(outputs, tuple) else (outputs,))]


class _Served(nn.Module):
    """The sparse runtime where a task expects a model.

    One sample after the other, and ``by_tokens`` one token after the other: more at once is multiplied in other ways, which need
    not round as much.
    """

    def __init__(self, model: Model, by_tokens: bool) -> None:
        super().__init__()
        self._call = by_token(model) if by_tokens else model

    def forward(self, inputs: Tensor) -> Tensor:
        samples = inputs.detach().numpy()
        return torch.from_numpy(np.concatenate([self._call(samples[i : i + 1]) for i in range(len(samples))]))


def _compared(subject: Subject, served: _Served, precision: str, force: bool) -> dict[str, float]:
    """The task's metrics through the runtime. Raises QualityLostError when they break a gate against float32's."""
    cpu = torch.device("cpu")
    try:
        with torch.inference_mode():
            before = dict(subject.task.evaluate(subject.model, "test", cpu))
            after = {k: float(v) for k, v in subject.task.evaluate(served.eval(), "test", cpu).items()}
    except Exception as error:  # a task may ask more of a model than to be called
        raise ExportError(
            f"--precision {precision}: this task's metrics cannot be measured on the sparse runtime "
            f"({type(error).__name__}: {error}). Export float32."
        ) from error
    broken = _broken(subject, before, after)
    if broken and not force:
        raise QualityLostError(
            f"--precision {precision}: the gates do not tolerate what rounding costs: {'; '.join(broken)}. "
            "Export float32, or keep it all the same with --force."
        )
    return after


def _broken(subject: Subject, before: Mapping[str, float], after: Mapping[str, float]) -> list[str]:
    broken = []
    for gate in subject.policy.gates:
        sign = -1.0 if subject.result.metrics[gate.metric].higher_is_better else 1.0
        worse = sign * (after[gate.metric] - before[gate.metric])
        limit = gate.margin * abs(before[gate.metric]) if gate.relative else gate.margin
        if not worse <= limit + TOLERANCE:  # also NaN
            broken.append(
                f"{gate.metric} is {after[gate.metric]:.4g} instead of {before[gate.metric]:.4g}, {limit:.4g} may be lost"
            )
    return broken
