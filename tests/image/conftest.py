"""The image, built once for all tests here; they are skipped where nothing can build or run one."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.image.engine import Engine, checked, copy_checkout, fetch_torch, find_base, find_engine


@dataclass(frozen=True)
class Image:
    """A built image, and the checkout that it was built from."""

    engine: Engine
    name: str
    base: str
    context: Path


@pytest.fixture(scope="session")
def engine() -> Engine:
    answer = find_engine()
    if isinstance(answer, str):
        pytest.skip(answer)
    return answer


@pytest.fixture(scope="session")
def image(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    """Built from the checkout as it is, by the command that users give."""
    scratch = tmp_path_factory.mktemp("image")
    base, why = find_base(engine, scratch)
    if why:
        pytest.skip(why)
    context = scratch / "checkout"
    copy_checkout(context)
    if why := fetch_torch(context / "docker" / "wheels"):
        pytest.skip(why)
    name = "localhost/ticketsmith-test:latest"
    variables = {
        "BUILDER": engine.builder,
        "IMAGE": name,
        # Kernels compile ten times as fast without optimisation: nothing here times them.
        "BUILD_ARGS": shlex.join(
            f"--build-arg={name}" for name in (f"BASE_IMAGE={base}", "TORCH=cpu", "TICKETSMITH_CXXFLAGS=-O0")
        ),
    }
    checked("make", "-C", context, "image", *(f"{key}={value}" for key, value in variables.items()), timeout=1500)
    yield Image(engine, name, base, context)
    engine.do("rmi", "--force", name)
