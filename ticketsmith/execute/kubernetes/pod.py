"""What runs inside of a training pod: one index's share of a Job, by the local executor.

Beside it, a thread keeps the pod's log and what it took in the store, and watches for a GPU that is paid for and idle.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from ticketsmith.config.target import IdleGpu, Target
from ticketsmith.errors import ClusterError, Exit, StoreError, TicketSmithError
from ticketsmith.execute.executor import Event
from ticketsmith.execute.kubernetes.ceiling import rates
from ticketsmith.execute.kubernetes.diagnose import EXITS
from ticketsmith.execute.kubernetes.output import Output
from ticketsmith.execute.kubernetes.records import PodRecord, Records
from ticketsmith.execute.local import LocalExecutor
from ticketsmith.execute.worker import WorkerSettings
from ticketsmith.plan import Plan, PlannedRun
from ticketsmith.plugins import make_importable
from ticketsmith.store import open_store
from ticketsmith.store.index import Index
from ticketsmith.training.job import Job

BEAT = 10.0
"""Seconds between two looks at the GPU, and two copies of the log into the store."""

Watch = Callable[[], float | None]
"""Gives the GPUs' utilisation now, 0..1; None when it cannot be told."""


def work(
    store: str,
    experiment: str,
    job: str,
    digest: str,
    index: int,
    view: Callable[[Plan, Mapping[str, str]], Callable[[Event], None]],
    watch: Watch | None = None,
    beat: float = BEAT,
) -> Exit:
    """Makes one index's share of a Job; ``digest`` is the SHA-256 of its ``job.json``. The exit status is for Kubernetes.

    A diverged run is a result: it is sealed, and the status is OK. Raises TicketSmithError when the share cannot be begun.
    """
    records = Records(open_store(store), experiment)
    assignment, plan, more = records.assignment(job, digest)
    if not 0 <= index < len(assignment.shares):
        raise TicketSmithError(f"the Job {job} has no index {index}: it makes {len(assignment.shares)} replicates.")
    target = Target.model_validate_json(more["target"])
    share = assignment.shares[index]
    mine = plan.needed_for(share.keys)
    index_of_store = Index(records.store)
    sealed = index_of_store.statuses(mine.by_key, experiment)
    pool, rate = target.train, rates(target)["train"]
    record = PodRecord.of(pod_name(), job, assignment.variant, index, rate)
    device = "cuda" if pool.gpus else "cpu"
    watch = watch or (nvml_utilisation() if pool.gpus else None)
    with Attended(records, record, watch, target.idle_gpu or None, target.limits.grace, beat) as attended:
        base = Path(target.base)
        make_importable(base)

        def job_of(run: PlannedRun) -> Job:
            return Job(run.spec, run.folder(experiment), more["task"], base, more["recipe_sha256"])

        settings = WorkerSettings(
            store,
            device,
            float(target.limits.checkpoint_every),
            (str(base), str(Path.cwd())),
            rate,
        )
        executor = LocalExecutor(records.store, job_of, settings, view(mine, sealed), index_of_store, pool.processes)
        executor.submit(mine)
        status = executor.wait()
        for key, message in executor.outcome.failed.items():
            print(f"failed: {key[:8]}: {message}")
        status = Exit.OK if status == Exit.DIVERGED else status
        return attended.finish(Exit.IDLE_GPU if attended.idle else status)


class Attended:
    """Around the work of a pod: keeps its log and its record in the store, and ends it when its GPU is idle."""

    def __init__(
        self,
        records: Records,
        record: PodRecord,
        watch: Watch | None = None,
        limit: IdleGpu | None = None,
        grace: float = 30.0,
        beat: float = BEAT,
    ) -> None:
        self.records, self.record = records, replace(record, node=os.environ.get("TICKETSMITH_NODE", ""))
        self.watch, self.limit, self.grace, self.beat = watch, limit, grace, beat
        self.idle = False
        self._began = time.monotonic()
        self._seen = _Utilisation(limit.window if limit else 0)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._attend, daemon=True)
        self._output = Output()

    def __enter__(self) -> Attended:
        self._output.__enter__()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, TicketSmithError):
            print(f"error: {error}", flush=True)  # the log in the store shall have it too
            self._end(error.exit_status)
        elif isinstance(error, KeyboardInterrupt):
            self._end(Exit.INTERRUPTED)
        elif error is not None:
            import traceback

            traceback.print_exception(error)
            self._end(Exit.INTERNAL)
        self._stop.set()
        self._output.__exit__()

    def finish(self, status: Exit) -> Exit:
        """The last copy of log and record; gives the status back."""
        if self.idle and self.limit:
            print(
                f"stopped: the GPU's mean utilisation over {self.limit.window} s was under {self.limit.below:.0%} (`idle_gpu`)"
            )
        self._end(status)
        return status

    def _end(self, status: Exit) -> None:
        if self.record.ended:
            return
        if status == Exit.INTERRUPTED:
            print("stopped: asked to end, by SIGTERM or `ticketsmith cancel`. What was under way is saved", flush=True)
        reason = EXITS.get(int(status), "") if status else "all sealed"
        self._stop.set()
        self._thread.join(self.grace)  # a copy under way would come after the last one, and be the one that stays
        self.record = replace(self.record, exit=int(status), reason=reason, ended=True)
        self._output.flush()
        with suppress(StoreError):  # what was sealed is sealed; the conductor fills in what it can see
            self._keep()

    def _attend(self) -> None:
        while not self._stop.wait(self.beat):
            self._look()
            with suppress(StoreError):
                self._keep()

    def _keep(self) -> None:
        seconds = time.monotonic() - self._began
        utilisation = self._seen.mean_of_all
        record = replace(self.record, gpu_utilisation=utilisation).lasting(seconds)
        self.records.keep_pod(record)
        path = self.records.log_path(record.job, record.index, record.pod)
        self.records.store.put(path, self._output.text())

    def _look(self) -> None:
        if self.watch is None or self.idle:
            return
        utilisation = self.watch()
        if utilisation is None:
            return
        self._seen.add(time.monotonic(), utilisation)
        mean = self._seen.mean_of_window
        if self.limit is not None and mean is not None and mean < self.limit.below:
            self.idle = True
            os.kill(os.getpid(), signal.SIGTERM)  # as an eviction would: workers save their checkpoints
            threading.Timer(self.grace, os._exit, (int(Exit.IDLE_GPU),)).start()  # should it hang as well


@dataclass
class _Utilisation:
    """Samples of the last ``window`` seconds, and of all time."""

    window: float

    def __post_init__(self) -> None:
        self._samples: deque[tuple[float, float]] = deque()
        self._sum, self._count, self._first = 0.0, 0, 0.0

    def add(self, now: float, value: float) -> None:
        self._first = self._first or now
        self._sum, self._count = self._sum + value, self._count + 1
        self._samples.append((now, value))
        while self._samples[0][0] < now - self.window:
            self._samples.popleft()

    @property
    def mean_of_all(self) -> float | None:
        return round(self._sum / self._count, 4) if self._count else None

    @property
    def mean_of_window(self) -> float | None:
        """None until a whole window was seen."""
        if not self._samples or self._samples[-1][0] - self._first < self.window:
            return None
        return sum(value for _, value in self._samples) / len(self._samples)


def pod_name() -> str:
    """The name of the pod that this process is in."""
    return os.environ.get("TICKETSMITH_POD") or os.environ.get("HOSTNAME") or "pod"


def nvml_utilisation() -> Watch:
    """Reads the mean utilisation of this pod's GPUs by NVIDIA's own library.

    Raises ClusterError when a GPU was asked for and none can be seen: it would be paid for and not used.
    """
    import pynvml

    try:
        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError as error:
        raise ClusterError(
            f"this pod asked for a GPU and sees none ({error}). Is NVIDIA's device plugin installed, and the image a CUDA one?"
        ) from error

    def read() -> float | None:
        try:
            shares: list[float] = [pynvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100 for handle in handles]
        except pynvml.NVMLError:
            return None
        return sum(shares) / len(shares) if shares else None

    return read
