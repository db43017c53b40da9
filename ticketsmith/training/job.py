"""What an executor hands to a worker. It imports no torch: whoever only hands jobs out needs none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ticketsmith.spec import RunSpec
from ticketsmith.store.contract import RunFolder


@dataclass(frozen=True)
class Job:
    """One run to make. ``task`` and ``base`` say how to build the task here (paths); ``spec.task`` says what it is."""

    spec: RunSpec
    folder: RunFolder
    task: str | Mapping[str, Any]
    base: Path
    recipe_hash: str
