"""Recipes that go to others tell nothing of where runs lie."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

import ticketsmith
from tests.conftest import DIGITS
from ticketsmith.config.load import parse_recipe
from ticketsmith.export import ticket
from ticketsmith.export.recipe import portable


@pytest.mark.parametrize(
    "store",
    [
        "store: /home/me/runs\n",
        "store: az://mine/runs  # ours\n\n",
        "store:\n  name: 'memory_store:MemoryStore'\n\n  secret_place: /home/me\n",
        "'store': /home/me/runs\n",
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_the_store_is_left_out_and_nothing_else(store: str, first: bool) -> None:
    text = store + DIGITS if first else DIGITS + store
    found = portable(text)
    assert "/home/me" not in found
    assert "mine" not in found
    assert yaml.safe_load(found) == yaml.safe_load(DIGITS)
    assert parse_recipe(found, "x", Path()).sha256 == parse_recipe(DIGITS, "x", Path()).sha256
    assert portable(DIGITS) == DIGITS


def test_a_ticket_does_not_tell_where_it_was_made(experiment: ticketsmith.Experiment, tmp_path: Path) -> None:
    assert experiment.store.url in experiment.recipe.source
    experiment.export(tmp_path / "x.ticket", sparsity=0.7)
    assert experiment.store.url.encode() not in (tmp_path / "x.ticket").read_bytes()
    assert "store" not in yaml.safe_load(ticket.read(tmp_path / "x.ticket").recipe)
