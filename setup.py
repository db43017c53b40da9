"""Builds the kernel library; everything else about this package stands in pyproject.toml.

Each instruction set is compiled from a file of its own with its own flags, and chosen at run time, so that a build runs
on every processor of its kind. Without a compiler the package installs all the same, without the sparse runtime.
"""

from __future__ import annotations

import os
import platform
import runpy
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

SOURCES = Path("ticketsmith/native/src")
ABI = Path("ticketsmith/native/abi.py")
FLAGS = [
    "-std=c++17",
    "-O3",
    "-fvisibility=hidden",
    "-fno-math-errno",
    "-g0",
    "-Wall",
    "-Wextra",
    "-Wno-maybe-uninitialized",
]
X86 = {
    "avx2": ["-mavx2", "-mfma"],
    "avx512": ["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx2", "-mfma"],
}


class BuildNative(build_ext):
    """Compiles each source with its own flags."""

    def build_extension(self, ext: Extension) -> None:
        try:
            self._build(ext)
        except Exception as error:  # whatever a missing or strange compiler does; the extension is optional
            raise CompileError(
                f"{error}. TicketSmith works without its kernel library, except for the sparse runtime. For that, install a "
                "C++17 compiler (such as g++ or clang) and install TicketSmith again."
            ) from error

    def _build(self, ext: Extension) -> None:
        more_flags = os.environ.get("TICKETSMITH_CXXFLAGS", "").split()
        own_flags = X86 if platform.machine().lower() in ("x86_64", "amd64") else {}
        headers = Path(self.build_temp) / "headers"
        runpy.run_path(str(ABI))["write"](headers)
        objects: list[str] = []
        for source in ext.sources:
            objects += self.compiler.compile(
                [source],
                output_dir=self.build_temp,
                include_dirs=[*self.compiler.include_dirs, str(SOURCES), str(headers)],
                extra_postargs=[*FLAGS, *own_flags.get(Path(source).stem, []), *more_flags],
                depends=ext.depends,
            )
        target = self.get_ext_fullpath(ext.name)
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        self.compiler.link_shared_object(objects, target, extra_postargs=["-pthread"], target_lang="c++")


setup(
    ext_modules=[
        Extension(
            "ticketsmith.native._library",
            sorted(str(source) for source in SOURCES.glob("*/*.cpp")),
            depends=[str(ABI), *sorted(str(file) for file in SOURCES.glob("*/*"))],
            py_limited_api=True,
            optional=True,
        )
    ],
    cmdclass={"build_ext": BuildNative},
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
