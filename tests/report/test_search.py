"""What a report says of a search: the interval below the headline, every move, and what was spared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from tests.evidence.synthetic import experiment
from ticketsmith.evidence.findings import conclude
from ticketsmith.evidence.results import Result
from ticketsmith.evidence.search import POINT, Ending, Limit, Path, Terms, search
from ticketsmith.evidence.verdicts import Gate, GatePolicy
from ticketsmith.report.gates import document
from ticketsmith.report.markdown import report_markdown
from ticketsmith.report.sentences.search import interval
from ticketsmith.report.story import tell

POLICY = GatePolicy((Gate("accuracy", max_drop=1.0),), coarse=3)
TERMS = Terms(12, 3, (5,), {"random_reinit": 1, "random_ticket": 1})
GRID = experiment(5, 12)


def story_of(terms: Terms, there: int = 10**6, policy: GatePolicy = POLICY) -> tuple[Path, str, Mapping[str, object]]:
    """The path, the Markdown of its report, and gates.json, when the first ``there`` runs that were asked for are sealed."""
    by_place = {run.place: run for run in GRID}
    sealed: list[Result] = []
    while True:
        path = search(terms, sealed, policy)
        asked = [place for place in path.places if place[0] != POINT][:there]
        if len(asked) == len(sealed):
            break
        sealed = [by_place[place] for place in asked]
    findings = conclude("synthetic", sealed, policy, places=asked)
    text = report_markdown(tell(findings, path=path)).decode().replace("\\", "")
    return path, text, document(findings, path)


def test_a_report_of_a_search_tells_interval_path_and_saving() -> None:
    path, text, gates = story_of(TERMS)
    head = text.partition("## The result")[0]
    assert f"surely up to level {path.passes} (" in head
    assert f"fails surely at level {path.fails} (" in head
    assert f"The search took {len(path.places)} of the {5 * (2 + 12 * 3)} runs of the full grid" in text
    assert "of core time" in text
    assert "figures/search-path.png" in text
    assert text.count("a control at the") == len([move for move in path.moves if move.variant != "ticket"])
    told = gates["search"]
    assert isinstance(told, dict)
    assert (told["passes"], told["fails"], told["over"]) == (path.passes, path.fails, True)
    assert len(told["moves"]) == len(path.moves)
    spot = gates["sweet_spot"]
    assert isinstance(spot, dict)
    assert spot["level"] == path.passes, "the headline and the path agree"


@pytest.mark.parametrize(
    ("terms", "there", "words"),
    [
        (replace(TERMS, limit=Limit(runs=22)), 10**6, "since its budget of 22 runs cannot pay more"),
        (replace(TERMS, limit=Limit(runs=15)), 10**6, "no level that was made surely fails"),
        (TERMS, 12, "The search goes on: more runs are to be made."),
        (replace(TERMS, levels=3), 10**6, "no sparser level was asked for"),
    ],
)
def test_how_a_search_ended_is_said_below_the_headline(terms: Terms, there: int, words: str) -> None:
    _, text, _ = story_of(terms, there)
    assert words in text.partition("## The result")[0]


def test_what_the_seeds_cannot_tell_lies_between_or_ends_the_interval() -> None:
    path = replace(search(TERMS, GRID, POLICY), passes=4, frontier=5, ending=Ending.UNDECIDED)
    findings = conclude("synthetic", GRID, POLICY)
    assert "In between, at level 5 (" in interval(findings, replace(path, fails=6))
    alone = interval(findings, replace(path, fails=None))
    assert "no level that was made surely fails. At level 5 (" in alone
    assert "what 5 seeds, the most it may train, can tell" in alone


def test_an_interval_by_means_alone_is_not_called_sure() -> None:
    policy = replace(POLICY, method="point")
    path = search(TERMS, GRID, policy)
    words = interval(conclude("synthetic", GRID, policy), path)
    assert "surely" not in words
    assert "by the mean" in words
