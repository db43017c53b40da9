"""Builds what is published, into dist/ (docs/internals/releasing.md), and checks it as an index would.

Two distributions come from this one tree. ``ticketsmith-runtime`` has the rooms that serve, and the kernels: a wheel for
each processor, one without kernels for any other, a source distribution. ``ticketsmith`` has all other rooms, and depends
on it. No file is in both.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
MANYLINUX = "manylinux_2_28"
"""What PyTorch's own wheels ask for. scripts/baseline.h keeps the kernels to it."""

PROCESSORS = ("x86_64", "aarch64")
RUNTIME = (
    *("__init__.py", "py.typed", "errors.py", "machine.py", "memory.py", "race.py", "telemetry.py", "version.py"),
    *("engines", "native", "runtime", "sparse"),
)
"""What serves, below ticketsmith/: it imports NumPy, the standard library, and nothing else of the package."""


class ReleaseError(Exception):
    """Something keeps a distribution from being built; the message says what, and the mend."""


def build(output: Path, platforms: Iterable[str] | None = None, cxxflags: str = "") -> list[Path]:
    """Builds both distributions into ``output``; gives the files.

    ``platforms``: processors and ``any``; by default all that this machine has a compiler for. Raises ReleaseError where one
    that was asked for cannot be built.
    """
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        runtime, lab = stage(Path(scratch))
        made = [_hook(runtime, output, "sdist"), _hook(lab, output, "sdist")]
        runtime, lab = (
            _unpacked(file, Path(scratch) / "unpacked") for file in made
        )  # so that these are known to build
        made.append(_hook(lab, output, "wheel", TICKETSMITH_KERNELS="none"))
        for name in _buildable() if platforms is None else platforms:
            shutil.rmtree(runtime / "build", ignore_errors=True)
            how = {"TICKETSMITH_KERNELS": "none"} if name == "any" else _compiling(name, cxxflags)
            made.append(_hook(runtime, output, "wheel", "" if name == "any" else f"{MANYLINUX}_{name}", **how))
    return made


def _buildable() -> Iterable[str]:
    for processor in PROCESSORS:
        if shutil.which(_compiler(processor)):
            yield processor
        else:
            print(
                f"no wheel for {processor}: there is no {_compiler(processor)} here (Debian: g++-{processor}-linux-gnu)"
            )
    yield "any"


def _compiler(processor: str) -> str:
    return "g++" if processor == platform.machine() else f"{processor}-linux-gnu-g++"


def _compiling(processor: str, cxxflags: str) -> dict[str, str]:
    compiler = _compiler(processor)
    if shutil.which(compiler) is None:
        raise ReleaseError(f"no wheel for {processor}: install {compiler} (Debian: g++-{processor}-linux-gnu).")
    return {
        "TICKETSMITH_KERNELS": "required",
        "_PYTHON_HOST_PLATFORM": f"linux-{processor}",
        "CC": compiler.removesuffix("g++") + "gcc",
        "CXX": compiler,
        "LDSHARED": f"{compiler} -shared",
        "LDCXXSHARED": f"{compiler} -shared",  # without what this Python was linked with
        "TICKETSMITH_CXXFLAGS": f"-include {ROOT}/scripts/baseline.h {cxxflags}",
        "TICKETSMITH_LDFLAGS": "-Wl,-s -Wl,--no-as-needed -l:libpthread.so.0",
    }


# Staging: two source trees, each with a pyproject.toml of its own, written from the one of this tree.


def stage(folder: Path) -> tuple[Path, Path]:
    """Writes the source trees of ``ticketsmith-runtime`` and ``ticketsmith`` into ``folder``; gives both."""
    runtime, lab = folder / "ticketsmith-runtime", folder / "ticketsmith"
    for file in _files("ticketsmith"):
        room = file.relative_to("ticketsmith").parts[0]
        _copy(file, runtime if room in RUNTIME else lab)
    for file in _files("setup.py", "MANIFEST.in", "LICENSE"):
        _copy(file, runtime)
    _copy(Path("LICENSE"), lab)
    with (runtime / "ticketsmith" / "version.py").open("a") as version:
        version.write(f"COMMIT = {json.dumps(commit())}\n")
    shutil.copyfile(ROOT / "packaging" / "runtime" / "README.md", runtime / "README.md")
    (lab / "README.md").write_text(for_index((ROOT / "README.md").read_text()))
    tables = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (runtime / "pyproject.toml").write_text(toml(_runtime_tables(tables)))
    (lab / "pyproject.toml").write_text(toml(_lab_tables(tables)))
    return runtime, lab


def _files(*paths: str) -> list[Path]:
    listed = _git("ls-files", "-z", "--cached", "--others", "--exclude-standard", *paths)
    return [Path(name) for name in listed.split("\0") if name and (ROOT / name).is_file()]


def _copy(file: Path, tree: Path) -> None:
    (tree / file).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / file, tree / file)


def commit() -> str:
    """The commit that is built, as an image names it."""
    return _git("rev-parse", "HEAD").strip() + ("+changes" if _git("status", "--porcelain", "-uno") else "")


def version() -> str:
    """The version of this tree."""
    match = re.search(r'^__version__ = "(.+)"$', (ROOT / "ticketsmith" / "version.py").read_text(), re.MULTILINE)
    assert match is not None
    return match[1]


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise ReleaseError(f"distributions are built from a clone, by what git knows of it: {done.stderr.strip()}")
    return done.stdout


def _runtime_tables(tables: Mapping[str, Any]) -> dict[str, Any]:
    project = _project(tables, "ticketsmith-runtime", "Serves pruned networks on CPUs, faster than dense ones.")
    project["dependencies"] = [one for one in project["dependencies"] if one.startswith("numpy")]
    project["license-files"] = ["LICENSE"]
    del project["optional-dependencies"], project["scripts"]
    data = {"ticketsmith": ["py.typed"]}
    return {
        "build-system": tables["build-system"],
        "project": project,
        "tool": {"setuptools": _setuptools(tables, data)},
    }


def _lab_tables(tables: Mapping[str, Any]) -> dict[str, Any]:
    project = _project(tables, "ticketsmith", tables["project"]["description"])
    project["dependencies"] = [f"ticketsmith-runtime=={version()}", *project["dependencies"]]
    data = dict(tables["tool"]["setuptools"]["package-data"])
    data["ticketsmith"] = [pattern for pattern in data["ticketsmith"] if pattern != "py.typed"]
    return {
        "build-system": tables["build-system"],
        "project": project,
        "tool": {"setuptools": _setuptools(tables, data)},
    }


def _project(tables: Mapping[str, Any], name: str, description: str) -> dict[str, Any]:
    own = {key: value for key, value in tables["project"].items() if key != "dynamic"}
    return own | {"name": name, "description": description, "version": version()}


def _setuptools(tables: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    shared = {key: value for key, value in tables["tool"]["setuptools"].items() if key != "dynamic"}
    return shared | {"package-data": data}


def toml(tables: Mapping[str, Any], path: tuple[str, ...] = ()) -> str:
    """Tables of texts, truths, and lists of texts as TOML."""
    rows = [f"{key} = {json.dumps(value)}" for key, value in tables.items() if not isinstance(value, Mapping)]
    inner = [toml(value, (*path, key)) for key, value in tables.items() if isinstance(value, Mapping)]
    heading = [f"[{'.'.join(path)}]"] if rows and path else []
    return "\n".join([*heading, *rows, "", *inner])


def for_index(readme: str) -> str:
    """A README whose links and pictures lead nowhere outside of a clone: their words stay, pictures go."""
    without_pictures = re.sub(r"^!\[[^\]]*\]\((?!https?:)[^)]*\)\n\n?", "", readme, flags=re.MULTILINE)
    return re.sub(r"\[([^\]]*)\]\((?!https?:|#)[^)]*\)", r"\1", without_pictures)


# Building, by the hooks that pip calls.


def _hook(tree: Path, output: Path, kind: str, tag: str = "", **environment: str) -> Path:
    """Builds the ``kind`` of distribution of a source tree: ``sdist`` or ``wheel``; gives the file."""
    settings = {"--build-option": ["--plat-name", tag]} if tag else {}
    program = (
        "import sys, setuptools.build_meta as backend\n"
        f"print(backend.build_{kind}(sys.argv[1], config_settings={settings!r}), file=sys.stderr)\n"
    )
    moment = _git("log", "-1", "--format=%ct").strip()  # the same commit gives the same bytes
    done = subprocess.run(
        [sys.executable, "-c", program, str(output.resolve())],
        cwd=tree,
        env={**os.environ, "SOURCE_DATE_EPOCH": moment, **environment},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise ReleaseError(
            f"{tree.name}: the {kind} {tag} cannot be built:\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
        )
    return output / done.stderr.strip().splitlines()[-1]


def _unpacked(sdist: Path, folder: Path) -> Path:
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    return folder / sdist.name.removesuffix(".tar.gz")


# Checks.


def check(files: Iterable[Path]) -> None:
    """Raises ReleaseError where an index, or a machine that a wheel is for, would not take one of these files."""
    files = list(files)
    _tool("twine", "check", "--strict", *files)
    for wheel in (file for file in files if MANYLINUX in file.name):
        processor = wheel.stem.partition(MANYLINUX)[2].strip("_")
        policy = _tool("auditwheel", "show", wheel)
        offered = re.findall(rf'"manylinux_2_(\d+)_{processor}"', policy)
        most = int(MANYLINUX.rpartition("_")[2])
        if not offered or int(offered[0]) > most:
            raise ReleaseError(
                f"{wheel.name} asks for newer systems than its name says (scripts/baseline.h):\n{policy}"
            )
        _tool("abi3audit", "--strict", "--assume-minimum-abi3", "3.11", wheel)
        if needed := _needed_of_python(wheel):
            raise ReleaseError(
                f"{wheel.name} is for any Python, and loads in none without {needed}: python.cpp says #pragma weak"
            )


def _needed_of_python(wheel: Path) -> list[str]:
    """Symbols of Python without which the libraries of a wheel do not load."""
    with zipfile.ZipFile(wheel) as archive, tempfile.TemporaryDirectory() as folder:
        libraries = [archive.extract(name, folder) for name in archive.namelist() if name.endswith(".so")]
        symbols = "".join(_tool("readelf", "--wide", "--dyn-syms", library) for library in libraries)
    return re.findall(r"GLOBAL +\S+ +UND +(_?Py\w+)", symbols)


def _tool(name: str, *arguments: str | Path) -> str:
    program = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if program is None:
        raise ReleaseError(f"{name} is missing: pip install -r requirements-dev.txt")
    done = subprocess.run([program, *arguments], capture_output=True, text=True)
    if done.returncode:
        raise ReleaseError(f"{name}: {done.stdout[-3000:]}{done.stderr[-3000:]}")
    return done.stdout


def main() -> None:
    """``python scripts/wheels.py [--output dist] [--platforms x86_64,aarch64,any]``."""
    parser = argparse.ArgumentParser(description="Builds and checks wheels and source distributions.")
    parser.add_argument("--output", type=Path, default=ROOT / "dist")
    parser.add_argument("--platforms", help="of x86_64, aarch64, any; by default all that this machine can build")
    options = parser.parse_args()
    try:
        files = build(options.output, options.platforms.split(",") if options.platforms else None)
        check(files)
    except ReleaseError as error:
        sys.exit(f"error: {error}")
    for file in files:
        print(f"{file.stat().st_size / 1e6:6.2f} MB  {file}")


if __name__ == "__main__":
    main()
