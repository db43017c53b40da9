"""Small Jobs for tests: a line of Python in a pod."""

from __future__ import annotations

import os
from typing import Any

from tests.cluster.real import IMAGE, is_offered

PYTHON = os.environ.get(IMAGE, "python:3.12-slim") if is_offered() else "registry.example/ticketsmith:test"
"""An image with Python in it."""

Manifest = dict[str, Any]


def job(name: str, script: str = "print('done')", grace: int = 5, **spec: Any) -> Manifest:
    """A Job whose pods run a Python script; ``spec`` are fields of the Job's."""
    container = {"name": "main", "image": PYTHON, "command": ["python3", "-c", script]}
    pod = {"restartPolicy": "Never", "terminationGracePeriodSeconds": grace, "containers": [container]}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"template": {"spec": pod}, **spec},
    }


def container_of(manifest: Manifest) -> Manifest:
    return manifest["spec"]["template"]["spec"]["containers"][0]  # type: ignore[no-any-return]


INDEXED: Manifest = {"completionMode": "Indexed", "completions": 2, "parallelism": 2}

SLEEP = "import time; print('up', flush=True); time.sleep(600)"
"""Does not listen to SIGTERM: number 1 of a container is only ended by SIGKILL then."""

STOPS_WITH_130 = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (print('saved', flush=True), sys.exit(130)))
print('up', flush=True)
time.sleep(600)
"""
"""Saves and ends with a status that is not 0 when it is asked to end."""


def rule(action: str, *values: int) -> Manifest:
    return {"action": action, "onExitCodes": {"operator": "In", "values": list(values)}}


DISRUPTED: Manifest = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}


def condition(thing: Manifest, type_: str) -> Manifest:
    """The condition when it is true, else {}."""
    conditions = (thing.get("status") or {}).get("conditions") or []
    return next((c for c in conditions if c["type"] == type_ and c["status"] == "True"), {})


def failed(thing: Manifest) -> str:
    """The reason for which a Job has failed, empty when it has not."""
    return str(condition(thing, "Failed").get("reason", ""))
