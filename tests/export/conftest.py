"""One small finished experiment on real digits, for all tests of exports."""

from __future__ import annotations

from pathlib import Path

import pytest

import ticketsmith
from tests.conftest import DIGITS
from ticketsmith.api import prepare, train


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a store with the experiment ``digits``: late rewinding, a fine-tuned variant, two seeds."""
    folder = tmp_path_factory.mktemp("export")
    more = (
        "\nrewind: 10it\nvariants: {random_reinit: true, random_ticket: false, finetune: {lr: 0.001, duration: 30it}}\n"
    )
    (folder / "recipe.yaml").write_text(DIGITS + more)
    recipe = ticketsmith.load(folder / "recipe.yaml", [f"store={folder / 'runs'}"])
    train(prepare(recipe), executor="debug")
    return folder / "runs"


@pytest.fixture
def experiment(finished: Path) -> ticketsmith.Experiment:
    return ticketsmith.open_experiment("digits", finished)
