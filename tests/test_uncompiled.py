"""What a process that trains imports: seconds of start-up that every command, worker and pod would pay."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.conftest import DIGITS, ROOT

TRAIN = """
import sys
from ticketsmith.api import load, prepare
from ticketsmith.store import open_store
from ticketsmith.training.job import Job
from ticketsmith.training.device import prepare as prepare_device
from ticketsmith.training.produce import Hooks, produce
import torch

recipe = load("recipe.yaml")
node = next(node for node in prepare(recipe).plan.nodes if node.variant == "dense")
job = Job(node.spec, node.folder("digits"), recipe.task_component, recipe.base, recipe.sha256)
assert produce(job, open_store("runs"), prepare_device("cpu"), Hooks(checkpoint_every=0.0)) == "trained"
print(*(name for name in ("torch._dynamo", "sklearn", "pandas", "scipy.stats") if name in sys.modules))
compiled = torch.compile(torch.nn.Linear(2, 2), backend="eager")  # whoever wants the compiler has it
assert compiled(torch.ones(1, 2)).shape == (1, 2)
"""


def test_a_process_that_trains_imports_no_compiler_and_no_library_for_tables(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(DIGITS)
    done = subprocess.run(
        [sys.executable, "-c", TRAIN], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
