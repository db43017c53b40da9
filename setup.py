"""Builds the kernel library; everything else about this package stands in pyproject.toml.

Each instruction set is compiled from a file of its own with its own flags, and chosen at run time, so that a build runs
on every processor of its kind. Without a compiler the package installs all the same, without the sparse runtime.

The environment may say more. ``TICKETSMITH_CXXFLAGS`` and ``TICKETSMITH_LDFLAGS``: flags besides. ``TICKETSMITH_KERNELS``:
``none`` for a package without kernels, ``required`` to fail where they cannot be built, or the path of a library that is
taken as it is. ``_PYTHON_HOST_PLATFORM``, ``CXX`` and ``LDCXXSHARED``: for another machine (scripts/wheels.py).
"""

from __future__ import annotations

import hashlib
import os
import platform
import runpy
import shutil
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
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
    "avx512": [
        *("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx2", "-mfma"),
        "-Wno-uninitialized",  # what GCC 12 says of its own header
    ],
}
CACHE = Path("build/kernels")
KERNELS = os.environ.get("TICKETSMITH_KERNELS", "")


def more_flags(name: str) -> list[str]:
    """Flags of the environment variable ``name``."""
    return os.environ.get(name, "").split()


class BuildNative(build_ext):
    """Compiles each source with its own flags, as many at a time as there are cores."""

    def build_extension(self, ext: Extension) -> None:
        target = Path(self.get_ext_fullpath(ext.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        if KERNELS not in ("", "required"):
            shutil.copyfile(KERNELS, target)
            return
        cache = CACHE / self._digest(ext) / target.name
        try:
            if not cache.exists():
                cache.parent.mkdir(parents=True, exist_ok=True)
                self._build(ext, cache.with_suffix(".part"))
                cache.with_suffix(".part").replace(cache)
            shutil.copyfile(cache, target)
        except Exception as error:  # whatever a missing or strange compiler does; the extension is optional
            raise CompileError(
                f"{error}. TicketSmith works without its kernel library, except for the sparse runtime. For that, install a "
                "C++17 compiler (such as g++ or clang) and install TicketSmith again."
            ) from error

    def _digest(self, ext: Extension) -> str:
        """Of all that decides the library: one that was built is not built again."""
        compiler = [*self.compiler.compiler_so_cxx, *self.compiler.linker_so_cxx]
        flags = [*FLAGS, str(X86), *more_flags("TICKETSMITH_CXXFLAGS"), *more_flags("TICKETSMITH_LDFLAGS")]
        digest = hashlib.sha256(
            repr([compiler, flags, sysconfig.get_platform(), sysconfig.get_path("include")]).encode()
        )
        for file in ext.depends:
            digest.update(f"{file}\n".encode() + Path(file).read_bytes())
        return digest.hexdigest()[:16]

    def _build(self, ext: Extension, target: Path) -> None:
        machine = os.environ.get("_PYTHON_HOST_PLATFORM", "").partition("-")[2] or platform.machine().lower()
        own_flags = X86 if machine in ("x86_64", "amd64") else {}
        headers = Path(self.build_temp) / "headers"
        runpy.run_path(str(ABI))["write"](headers)

        def compile_one(source: str) -> list[str]:
            return self.compiler.compile(
                [source],
                output_dir=self.build_temp,
                include_dirs=[*self.compiler.include_dirs, str(SOURCES), str(headers)],
                extra_postargs=[*FLAGS, *own_flags.get(Path(source).stem, []), *more_flags("TICKETSMITH_CXXFLAGS")],
                depends=ext.depends,
            )

        # The largest first: the instruction sets take most of the time, and one that began last would end alone.
        sources = sorted(ext.sources, key=lambda source: "/simd/" not in Path(source).as_posix())
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = [file for files in pool.map(compile_one, sources) for file in files]
        flags = ["-pthread", *more_flags("TICKETSMITH_LDFLAGS")]
        self.compiler.link_shared_object(sorted(objects), str(target), extra_postargs=flags, target_lang="c++")


class Wheel(bdist_wheel):
    """For any Python: the library is opened by ctypes, and what it has for Python besides is used where it fits."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


library = Extension(
    "ticketsmith.native._library",
    sorted(str(source) for source in SOURCES.glob("*/*.cpp")),
    depends=[str(ABI), *sorted(str(file) for file in SOURCES.glob("*/*"))],
    py_limited_api=True,
    optional=not KERNELS,
)
setup(
    ext_modules=[] if KERNELS == "none" or not library.sources else [library],
    cmdclass={"build_ext": BuildNative, "bdist_wheel": Wheel},
)
