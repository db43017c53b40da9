"""Makes the environment that `make` works in: ``python scripts/install.py <folder> <requirements file>``.

One live line says what is done; all that pip and the compiler say goes to <folder>/install.log. The kernels are compiled
while pip fetches what the package needs.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import tomllib
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

ROOT = Path(__file__).resolve().parents[1]
NATIVE = ROOT / "ticketsmith" / "native"


class Line:
    """One line, written over itself on a terminal; elsewhere a line for each step."""

    def __init__(self, log: TextIO) -> None:
        self.log, self.began, self.live = log, time.monotonic(), sys.stderr.isatty()

    def tell(self, text: str, whole: bool = True) -> None:
        """``whole``: a new step, which is told elsewhere too."""
        if self.live:
            width = os.get_terminal_size(sys.stderr.fileno()).columns or 80
            line = f"[{time.monotonic() - self.began:5.1f} s] {text}"
            print(f"\r\x1b[2K{line[: width - 1]}", end="", file=sys.stderr, flush=True)
        elif whole:
            print(text, file=sys.stderr, flush=True)

    def end(self, text: str) -> None:
        """The last line, which stays."""
        print("\r\x1b[2K" if self.live else "", end="", file=sys.stderr)
        print(text, file=sys.stderr, flush=True)


def run(line: Line, step: str, command: Sequence[str | Path], **environment: str) -> None:
    """Runs a command, whose last line of output stands behind the step; ends the program where it fails."""
    line.tell(step)
    process = subprocess.Popen(
        list(map(str, command)),
        cwd=ROOT,
        env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    assert process.stdout is not None
    last: list[str] = []
    for text in process.stdout:
        line.log.write(text)
        line.log.flush()
        last = [*last[-14:], text.rstrip()]
        line.tell(f"{step}: {text.split('(')[0].strip()}", whole=False)
    if process.wait():
        line.end("\n".join([*last, f"{step} failed; all of it is in {line.log.name}"]))
        sys.exit(1)


def compile_kernels(python: Path, log: Path) -> threading.Thread:
    """Begins to compile the kernels, to where pip's build looks for them; what the compiler says goes to ``log``."""

    def compile_() -> None:
        with log.open("w") as file:
            subprocess.run(
                [python, "setup.py", "--quiet", "build_ext", "--inplace"], cwd=ROOT, stdout=file, stderr=file
            )

    thread = threading.Thread(target=compile_)
    thread.start()
    return thread


def needed(requirements: Path) -> list[str]:
    """What the package itself asks for, with the extras that ``requirements`` names."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    line = next(line for line in requirements.read_text().splitlines() if line.startswith("-e ."))
    extras = line.partition("[")[2].rstrip("] ").split(",")
    return [*project["dependencies"], *(one for extra in extras for one in project["optional-dependencies"][extra])]


def main() -> None:
    """Installs this clone, editable, into ``folder``."""
    folder, requirements = Path(sys.argv[1]), ROOT / sys.argv[2]
    python = folder.absolute() / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True, symlinks=True)
    with (folder / "install.log").open("w") as log:
        line = Line(log)
        pip = (python, "-m", "pip", "install")
        run(line, "preparing pip", [*pip, "-c", ROOT / "requirements-dev.lock", "--upgrade", "pip", "setuptools"])
        compiling = compile_kernels(python, folder / "kernels.log")
        lock = ["-c", ROOT / "requirements.lock"]
        run(line, "installing what TicketSmith needs", [*pip, *lock, *needed(requirements)])
        if compiling.is_alive():
            line.tell("compiling the kernels")
        while compiling.is_alive():
            compiling.join(0.5)
            line.tell("compiling the kernels", whole=False)
        run(line, "installing TicketSmith", [*pip, "--no-build-isolation", "-r", requirements])
        missing = "" if any(NATIVE.glob("_library*")) else f", without kernels: {folder}/kernels.log says why"
        line.end(f"installed in {time.monotonic() - line.began:.0f} s{missing} (log: {folder}/install.log)")


if __name__ == "__main__":
    main()
