"""What builds and runs images here: docker, or podman with buildah; base images; a context to build from."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
DEBIAN = {"3.11": "bookworm", "3.13": "trixie"}  # the release that has this Python
UID = 10001

Result = subprocess.CompletedProcess[str]


def call(*command: str | Path, timeout: float = 600) -> Result:
    """Runs a command; what it prints is kept, whatever its status."""
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout)


def checked(*command: str | Path, timeout: float = 600) -> str:
    """Runs a command that must succeed, and gives its output."""
    result = call(*command, timeout=timeout)
    assert result.returncode == 0, f"{command}\n{result.stdout[-3000:]}{result.stderr[-3000:]}"
    return result.stdout.strip()


@dataclass(frozen=True)
class Engine:
    """The commands of this machine that build, run and stop."""

    control: tuple[str, ...]
    """Comes before a verb: ``docker``, or ``podman`` with the options that also work inside of a container."""
    builder: str
    """Stands for ``docker build``."""
    limits: tuple[str, ...] = ()

    def do(self, *arguments: str | Path, timeout: float = 600) -> Result:
        """``docker <arguments>``."""
        return call(*self.control, *arguments, timeout=timeout)

    def run(self, image: str, *arguments: str, options: tuple[str, ...] = (), timeout: float = 300) -> Result:
        """Runs ``image`` to its end as a Job would: nothing writable but /tmp, no rights, no network."""
        return self.do("run", "--rm", *self.limits, *LOCKED_DOWN, *options, image, *arguments, timeout=timeout)

    def shell(self, image: str, script: str) -> Result:
        """Runs a shell script in ``image``."""
        return self.run(image, "-c", script, options=("--entrypoint", "sh"))


LOCKED_DOWN = (
    *("--read-only", "--tmpfs", "/tmp", "--network", "none"),
    *("--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
)


def find_engine() -> Engine | str:
    """The engine of this machine, or why there is none."""
    if shutil.which("docker") and call("docker", "info").returncode == 0:
        return Engine(("docker",), "docker build")
    missing = [tool for tool in ("podman", "buildah", "runc") if shutil.which(tool) is None]
    if missing:
        return f"no docker that answers, and no {', '.join(missing)}"
    certificates = os.environ.get("PIP_CERT")  # where pip needs a certificate of its own here, it does in a build
    mount = f" --volume {certificates}:/etc/ssl/certs/ca-certificates.crt:ro" if certificates else ""
    return Engine(
        # As they also work where this machine is itself a container, without systemd.
        ("podman", "--runtime", "runc", "--cgroup-manager", "cgroupfs"),
        f"buildah build --isolation chroot --network host --layers=false{mount}",
        ("--ulimit", "nofile=1024:2048", "--ulimit", "nproc=1000:2000"),
    )


def find_base(engine: Engine, scratch: Path) -> tuple[str, str]:
    """An image of a system that has this Python, and why there is none (one of both is empty)."""
    if engine.control[0] == "podman" and shutil.which("mmdebstrap") and PYTHON in DEBIAN:
        name = f"localhost/ticketsmith-test-base:{DEBIAN[PYTHON]}"
        if engine.do("image", "exists", name).returncode == 0:
            return name, ""
        archive = scratch / "base.tar"
        # Without Python, as the default base is: the build must bring it.
        # With the options of Debian's own slim images, which make it and what the build installs a matter of seconds.
        lean = ("force-unsafe-io", *(f"path-exclude=/usr/share/{part}/*" for part in ("doc", "info", "locale", "man")))
        options = ("--variant=minbase", "--include=ca-certificates", *(f"--dpkgopt={option}" for option in lean))
        result = call("mmdebstrap", *options, DEBIAN[PYTHON], archive)
        if result.returncode == 0 and engine.do("import", archive, name).returncode == 0:
            archive.unlink()
            return name, ""
        return "", f"mmdebstrap could not make a base image: {result.stderr[-500:]}"
    name = f"python:{PYTHON}-slim"
    result = engine.do("pull", name)
    return (name, "") if result.returncode == 0 else ("", f"{name} cannot be pulled: {result.stderr[-500:]}")


def fetch_torch(folder: Path) -> str:
    """Puts torch's CPU build into ``folder``, from where this machine's pip has it; why not, when it has none."""
    pin = re.search(r"^torch==\S+", (ROOT / "docker" / "torch-cpu.lock").read_text(), re.MULTILINE)
    assert pin is not None
    pip = (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:")
    result = call(*pip, "--dest", folder, pin[0])
    return "" if result.returncode == 0 else f"pip finds no {pin[0]} for Python {PYTHON} here: {result.stderr[-500:]}"


def copy_checkout(folder: Path) -> None:
    """A clone with the files as they are here, so that nobody changes it meanwhile, and with what stays out of images."""
    if (ROOT / ".git").exists():
        checked("git", "clone", "--quiet", "--no-checkout", "--shared", ROOT, folder)
        checked("git", "-C", folder, "reset", "--quiet")
    away = (
        ".git",
        ".venv",
        ".*_cache",
        "__pycache__",
        ".hypothesis",
        "node_modules",
        "runs",
        "wheels",
        "*.egg-info",
        "build",
        "dist",
    )
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*away), dirs_exist_ok=True)
    for secret in SECRETS:
        (folder / secret).parent.mkdir(parents=True, exist_ok=True)
        (folder / secret).write_text("a secret\n")


SECRETS = (
    ".env",
    ".azure/msal_token_cache.json",
    ".venv/bin/python",
    "kubeconfig",
    "runs/mnist/recipe.yaml",
    "ticketsmith/.env",
    "ticketsmith/__pycache__/version.cpython-311.pyc",
    "docker/.env",
    "deploy/terraform.tfstate",
    "deploy/prod.tfvars",
)
