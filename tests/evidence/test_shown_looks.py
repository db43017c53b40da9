"""What a store remembers of verdicts that were shown, however somebody came to see them, and whatever became of its records."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from ticketsmith.api import Experiment
from ticketsmith.config.load import parse_recipe
from ticketsmith.errors import DamagedRunError
from ticketsmith.evidence.verdicts import Status, Verdict
from ticketsmith.plan import make_plan
from ticketsmith.report.sentences.caveats import caveats
from ticketsmith.store.directory import DirectoryStore

from .synthetic import result

RECIPE = """
experiment: exp
task: {data: digits, model: mlp}
training: {optimizer: adam, lr: 0.001, batch_size: 60, duration: 100it}
pruning: {levels: 1, fraction: 0.5}
variants: {random_reinit: false, random_ticket: false}
gates: {metrics: {accuracy: {max_drop: 2.0}}}
"""
DROPS = (0.1, 1.9, 0.3, 0.5, 0.4)
"""Of the ticket, by seed: three cannot tell, five can."""


def opened(
    folder: Path, planned: int, sealed: int = 5, drops: tuple[float, ...] = DROPS, margin: float = 2.0
) -> Experiment:
    """The experiment with so many planned replicates, of which so many are sealed."""
    text = RECIPE.replace("max_drop: 2.0", f"max_drop: {margin}")
    recipe = parse_recipe(f"{text}replicates: {planned}\n", "recipe.yaml", Path())
    plan, store = make_plan(recipe, {"name": "classification"}, 1000), DirectoryStore(folder)
    experiment = Experiment(store, "exp", recipe)
    runs = [
        replace(result(node.variant, node.level, node.seed, 99.0 - node.level * drops[node.seed]), key=node.key)
        for node in plan.results
        if node.seed < sealed
    ]
    experiment.__dict__.update(plan=plan, results=runs)
    return experiment


def verdict(experiment: Experiment) -> Verdict:
    (one,) = experiment.findings.test
    return one


def test_who_asks_in_python_has_looked(tmp_path: Path) -> None:
    assert verdict(opened(tmp_path / "fresh", 5)).status is Status.PASS, "at its first look"
    assert opened(tmp_path, 3).sweet_spot() is None
    late = verdict(opened(tmp_path, 5))
    assert (late.status, late.declared, late.error) == (Status.INCONCLUSIVE, False, pytest.approx(0.005))
    assert len(list((tmp_path / "exp/looks").iterdir())) == 2
    assert opened(tmp_path, 5).policy.shown == (3, 5)


def test_what_an_unfinished_experiment_shows_is_a_look_that_its_plan_declared_otherwise(tmp_path: Path) -> None:
    assert verdict(opened(tmp_path, 5, sealed=3)).status is Status.INCONCLUSIVE
    shrunk = verdict(opened(tmp_path, 3, drops=(0.1, 0.4, 0.7)))
    assert (shrunk.status, shrunk.declared) == (Status.INCONCLUSIVE, False), "to stop where it looks well is a look"
    whole = verdict(opened(tmp_path, 5))
    assert (whole.status, whole.declared, whole.error) == (Status.PASS, True, pytest.approx(0.05))


@pytest.mark.parametrize("old", [False, True])
def test_without_its_records_the_last_verdicts_that_were_written_are_a_look(tmp_path: Path, old: bool) -> None:
    opened(tmp_path, 3).judge()
    shutil.rmtree(tmp_path / "exp/looks")
    if old:  # of a version that knew no looks
        file = tmp_path / "exp/gates.json"
        document = json.loads(file.read_text())
        del document["policy"]["looks"], document["test"][0]["look"]
        file.write_text(json.dumps(document))
    elsewhere = opened(tmp_path, 5, drops=(0.25, 1.8, 0.3, 0.5, 0.4))
    assert elsewhere.policy.shown == (), "these are other networks"
    late = opened(tmp_path, 5)
    assert late.policy.shown == (3,)
    assert verdict(late).status is Status.INCONCLUSIVE
    late.judge()
    assert opened(tmp_path, 5).policy.shown == (3, 5), "and it is on record now"


def test_a_margin_that_was_changed_when_verdicts_were_known_is_told(tmp_path: Path) -> None:
    assert "changed" not in " ".join(caveats(opened(tmp_path, 3).findings))
    later = opened(tmp_path, 3, margin=4.0)
    assert verdict(later).status is Status.PASS
    assert caveats(later.findings)[0].startswith(
        "The gates were changed after verdicts had been shown (they were: accuracy at most 2 points worse)"
    )


def test_a_record_that_was_changed_or_removed_is_told(tmp_path: Path) -> None:
    for count in (3, 4, 5):
        opened(tmp_path, count).judge()
    first, second, _ = sorted((tmp_path / "exp/looks").iterdir())
    content = second.read_text()
    second.write_text(content.replace('"replicates": 4', '"replicates": 5'))
    with pytest.raises(DamagedRunError, match=r"0002-4-replicates-\w+.json was changed"):
        verdict(opened(tmp_path, 5))
    second.write_text(content)
    first.rename(tmp_path / "kept.json")
    with pytest.raises(DamagedRunError, match="comes after one that is missing, look 1"):
        verdict(opened(tmp_path, 5))
    (tmp_path / "kept.json").rename(first.with_name("0001-3-replicates.json"))  # as older versions named it
    assert opened(tmp_path, 5).policy.shown == (3, 4, 5)
