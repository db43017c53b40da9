"""The shipped Kubernetes objects, built as `kubectl apply --kustomize` would build them."""

from __future__ import annotations

import functools
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
KUBERNETES = ROOT / "deploy" / "kubernetes"
TERRAFORM = ROOT / "deploy" / "terraform"
OVERLAYS = sorted(path.name for path in (KUBERNETES / "overlays").iterdir())

Object = dict[str, Any]


def build(folder: Path) -> list[Object]:
    """The objects of a kustomization; skips the test where there is no kubectl."""
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl here")
    done = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [one for one in yaml.safe_load_all(done.stdout) if one]


@functools.cache
def _overlay(name: str) -> tuple[Object, ...]:
    return tuple(build(KUBERNETES / "overlays" / name))


def overlay(name: str) -> list[Object]:
    """The objects of one of the shipped overlays."""
    return list(_overlay(name))


def of_kind(objects: list[Object], kind: str) -> dict[str, Object]:
    """Objects of one kind, by name."""
    return {one["metadata"]["name"]: one for one in objects if one["kind"] == kind}
