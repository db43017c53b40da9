"""Workers are forked from one process that has torch and the data; they share its memory and need no compiler."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest

import ticketsmith
from tests import warm
from tests.training.runs import ROOT, jobs, sealed_bytes
from ticketsmith.api import prepare, train
from ticketsmith.errors import Exit, gravest
from ticketsmith.execute.executor import Outcome
from ticketsmith.execute.processes import Starter
from ticketsmith.execute.worker import Ended, WorkerSettings
from ticketsmith.training.job import Job

Write = Callable[..., Path]


def ended(starter: Starter, job: Job) -> str:
    """The outcome of a run that a new worker makes."""
    process, pipe = starter.start()
    pipe.send(job)
    while not isinstance(event := pipe.recv(), Ended):
        pass
    pipe.send(None)
    process.join(30)
    return event.outcome + event.message


FORKS = pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux only")


@FORKS
def test_a_worker_costs_little_memory_and_no_import(tmp_path: Path, recipe_file: Write) -> None:
    job = next(iter(jobs(recipe_file(), "training.duration=2it").values()))
    starter = Starter(WorkerSettings(str(tmp_path / "runs"), "cpu", 30.0, ()), job)
    try:
        workers = [starter.start() for _ in range(2)]
        for process, pipe in workers:
            pipe.send(job)
            while not isinstance(event := pipe.recv(), Ended):
                pass
            assert event.outcome in ("trained", "reused")
            pid = process._pid  # type: ignore[attr-defined]
            told = Path(f"/proc/{pid}/smaps_rollup").read_text()
            private = sum(int(size) for size in re.findall(r"Private_\w+:\s+(\d+)", told)) / 1024
            assert private < 100, "it has data and libraries of its own"

            pipe.send(None)
            process.join(30)
            assert process.exitcode == 0
        process, pipe = starter.start()
        server = starter._server._process  # type: ignore[union-attr]
        for one in (server.pid, process._pid):  # type: ignore[attr-defined]
            os.kill(one, signal.SIGKILL)  # as the system does to all of them when memory runs out
        process.join(30)
        assert process.exitcode == -signal.SIGKILL
        assert not process.is_alive()
    finally:
        starter.close()


@FORKS
def test_pandas_and_parquet_begin_no_thread_that_would_forbid_a_fork(tmp_path: Path, recipe_file: Write) -> None:
    (tmp_path / "table.py").write_text(
        "from pathlib import Path\n\nimport numpy as np\nimport pandas as pd\nimport sklearn.metrics\n\n"
        "from ticketsmith.data.dataset import Dataset, Split\nfrom ticketsmith.data.sizes import read_table\n\n"
        "FILE = Path(__file__).with_suffix('.parquet')\n\n\n"
        "def data():\n"
        "    rows = read_table(FILE).to_pandas(use_threads=False)\n"
        "    split = Split(rows[['a', 'b']].to_numpy(np.float32)[:, None], rows['label'].to_numpy(np.int64))\n"
        "    return Dataset('table', split, split, 2, (0.0,), (1.0,))\n"
    )
    pandas = pytest.importorskip("pandas")
    pandas.DataFrame({"a": [0.0, 1.0] * 50, "b": [0.5] * 100, "label": [0, 1] * 50}).to_parquet(
        tmp_path / "table.parquet"
    )
    recipe = recipe_file(("data: digits", "data: 'table:data'"), ("validation: 200", "validation: 20"))
    job = next(iter(jobs(recipe, "training.duration=2it", "training.batch_size=8").values()))
    starter = Starter(WorkerSettings(str(tmp_path / "runs"), "cpu", 30.0, (str(tmp_path),)), job)
    try:
        assert ended(starter, job) == "trained"
        assert starter._server is not None, "its worker was spawned"
    finally:
        starter.close()


@FORKS
def test_what_may_not_be_forked_is_spawned(tmp_path: Path, recipe_file: Write) -> None:
    """A user's module with a thread of its own: the locks that it holds would stay locked. That is found out once."""
    (tmp_path / "busy.py").write_text(
        "import threading, time\n\nprint('loaded', file=open(__file__ + '.txt', 'a'))\n\n"
        "threading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n\n"
        "from ticketsmith.models.lenet import LeNet\n\n\n"
        "def net(input_shape, classes):\n    return LeNet(input_shape, classes, (8,))\n"
    )
    recipe = recipe_file(("model: {name: mlp, widths: [32, 16]}", "model: 'busy:net'"))
    job = next(iter(jobs(recipe, "training.duration=2it").values()))
    starter = Starter(WorkerSettings(str(tmp_path / "runs"), "cpu", 30.0, (str(tmp_path),)), job)
    loads = tmp_path / "busy.py.txt"
    loads.unlink(missing_ok=True)
    try:
        assert ended(starter, job) == "trained"
        assert starter._server is None
        assert loads.read_text().splitlines() == 2 * ["loaded"], "by what cannot be forked, and by the worker"
    finally:
        starter.close()


@FORKS
def test_a_command_reads_its_data_once(tmp_path: Path, recipe_file: Write) -> None:
    """Its workers are copies of it, of which the first is there at once."""
    (tmp_path / "own.py").write_text(
        "from ticketsmith.data import load\n\n\n"
        "def data():\n    print('read', file=open(__file__ + '.txt', 'a'))\n    return load('digits', {})\n"
    )
    recipe = recipe_file(("data: digits", "data: 'own:data'"))
    command = ["train", "--config", str(recipe), "--store", str(tmp_path / "runs"), "--set", "training.duration=2it"]
    done = warm.run(
        ["-m", "ticketsmith", *command], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=200
    )
    assert "2 trained" in done.stderr, done.stderr
    assert (tmp_path / "own.py.txt").read_text().split() == ["read"]


TRAINED = """
import sys
from pathlib import Path

from tests.training.runs import jobs
from ticketsmith.store.directory import DirectoryStore
from ticketsmith.training.device import prepare
from ticketsmith.training.produce import Hooks, produce

for optimizer in ("sgd", "adam", "adamw"):
    changes = ("training.duration=2it", f"training.optimizer={optimizer}")
    job = next(iter(jobs(Path(sys.argv[1]), *changes).values()))
    made = produce(job, DirectoryStore(Path(sys.argv[2])), prepare("cpu"), Hooks())
    print(optimizer, made, sorted({"torch._dynamo", "torch._inductor", "sympy"} & set(sys.modules)))
"""


def test_a_run_imports_no_compiler(tmp_path: Path, recipe_file: Write) -> None:
    """800 modules, a second and a hundred MiB in each process that trains."""
    command = [sys.executable, "-c", TRAINED, str(recipe_file()), str(tmp_path / "runs")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["sgd trained []", "adam trained []", "adamw trained []"]


def test_the_gravest_status_wins_in_whatever_order() -> None:
    order = (130, 1, 2, 7, 9, 8, 10, 5, 4, 3, 6, 0)
    assert set(order) == {int(status) for status in Exit}
    for first, second in product(order, repeat=2):
        outcome = Outcome()
        for status in (first, second):
            if status == Exit.INTERRUPTED:
                outcome.interrupted = True
            elif status == Exit.DIVERGED:
                outcome.diverged.append("a")
            elif status:
                outcome.fail("a", "why", status)
        expected = min(first, second, key=order.index)
        assert gravest((first, second)) == outcome.exit_status == expected, (first, second)
    assert gravest(()) == Exit.OK


def test_the_debug_executor_gives_the_same_bytes_in_this_process_and_lets_faults_through(
    recipe_file: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = ["training.duration=8it", "training.evaluate_every=4it", "replicates=1"]
    stores = {}
    for name, executor in {"processes": "local", "here": "debug"}.items():
        recipe = ticketsmith.load(recipe_file(), [*short, f"store={tmp_path / name}"])
        experiment = train(prepare(recipe), workers=2, device="cpu", executor=executor)  # type: ignore[arg-type]
        assert experiment.outcome.exit_status == Exit.OK
        stores[name] = {path: sha for path, sha in sealed_bytes(tmp_path / name).items() if "/seed-" in path}
    assert stores["here"] == stores["processes"]

    def broken(*_: object) -> None:
        raise ZeroDivisionError("in your own code")

    prepared = prepare(ticketsmith.load(recipe_file(), [*short, f"store={tmp_path / 'broken'}"]))
    monkeypatch.setattr("ticketsmith.tasks.classification.Classification.loss", broken)
    with pytest.raises(ZeroDivisionError, match="in your own code"):
        train(prepared, device="cpu", executor="debug")


INTERRUPTED = """
import signal, sys
from pathlib import Path

import ticketsmith
from ticketsmith.api import prepare, train
from ticketsmith.execute.executor import Stepped

recipe, store = sys.argv[1:]
overrides = ["training.duration=8it", "training.evaluate_every=4it", "replicates=1", f"store={store}"]
prepared, signals = prepare(ticketsmith.load(recipe, overrides)), [signal.SIGINT]

def interrupt(event):
    if isinstance(event, Stepped) and signals:
        signal.raise_signal(signals.pop())

signal.signal(signal.SIGINT, signal.default_int_handler)
first = train(prepared, variants=["dense"], device="cpu", executor="debug", on_event=interrupt).outcome
print(first.exit_status.name, first.trained, len(list(Path(store).glob(".work/*.checkpoint"))))
print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)
again = train(prepared, variants=["dense"], device="cpu", executor="debug").outcome
print(again.exit_status.name, again.trained)
"""


def test_the_debug_executor_keeps_a_checkpoint_when_it_is_interrupted(recipe_file: Write, tmp_path: Path) -> None:
    """In a process of its own, whose signals are nobody else's."""
    command = [sys.executable, "-c", INTERRUPTED, str(recipe_file()), str(tmp_path / "runs")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["INTERRUPTED 0 1", "True", "OK 1"], done.stderr
