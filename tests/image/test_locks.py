"""The image's locks: what `requirements.lock` has, every file by its hash, for both builds of torch."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.image.engine import ROOT

LOCKS = sorted((ROOT / "docker").glob("*.lock"))


def pins(text: str) -> dict[tuple[str, str], str]:
    """Version by name and marker."""
    found = re.findall(r"^([\w.-]+)==([^\s;]+)(?: ; ([^\\\n]*))?", text, re.MULTILINE)
    return {(name, marker.strip()): version for name, version, marker in found}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_every_requirement_has_hashes(lock: Path) -> None:
    text = lock.read_text()
    entries = re.split(r"\n(?=\S)", text.strip())
    assert entries
    for entry in entries:
        assert re.fullmatch(r"[\w.-]+==[^\n]+(\n    --hash=sha256:[0-9a-f]{64}( \\)?)+", entry), entry.splitlines()[0]


def test_the_image_has_the_versions_that_are_tested() -> None:
    tested = pins((ROOT / "requirements.lock").read_text())
    libraries = pins((ROOT / "docker" / "libraries.lock").read_text())
    cuda, cpu = (pins((ROOT / "docker" / f"torch-{kind}.lock").read_text()) for kind in ("cuda", "cpu"))
    assert libraries | {("torch", ""): cuda["torch", ""]} == tested
    assert cpu == {("torch", ""): f"{tested['torch', '']}+cpu"}
    assert {name for name, _ in cuda} >= {"torch", "triton", "nvidia-cublas", "nvidia-cudnn-cu13"}


@pytest.mark.parametrize(
    "lock", [*LOCKS, ROOT / "requirements.lock", ROOT / "requirements-dev.lock"], ids=lambda path: path.name
)
def test_what_only_reports_on_its_use_is_in_no_lock(lock: Path) -> None:
    assert not {
        name for name, _ in pins(lock.read_text()) if "telemetry" in name and not name.startswith("opentelemetry")
    }


OPENVINO = "openvino 2026.0.0 requires openvino-telemetry, which is not installed."


@pytest.mark.parametrize(
    ("told", "status", "passes"),
    [
        ("No broken requirements found.", 0, True),
        (OPENVINO, 1, True),
        (f"{OPENVINO}\ntorch 2.9.0 requires sympy, which is not installed.", 1, False),
        ("", 1, False),  # it could not even look
    ],
)
def test_the_build_goes_on_only_when_packages_fit(told: str, status: int, passes: bool, tmp_path: Path) -> None:
    """The last line of the build stage, with a pip that says what is to be said."""
    command = re.search(r"^    (\{ PYTHONPATH=.*?; \})$", (ROOT / "Dockerfile").read_text(), re.MULTILINE | re.DOTALL)
    assert command is not None
    pip = tmp_path / "pip"
    pip.write_text(f"#!/bin/sh\nprintf '%s' '{told}'\nexit {status}\n")
    pip.chmod(0o755)
    script = command[1].replace("/opt/tools/bin/pip ", f"{pip} ")
    assert script != command[1]
    assert (subprocess.run(["sh", "-c", script], cwd=tmp_path, capture_output=True).returncode == 0) == passes
