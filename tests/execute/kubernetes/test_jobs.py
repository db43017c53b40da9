"""Which Jobs begin when: each variant once, after what it needs, whatever was lost or killed meanwhile."""

from __future__ import annotations

import re

import pytest

from tests.execute.kubernetes.experiments import RECIPE, keys, plan_of
from ticketsmith.errors import DamagedRunError
from ticketsmith.execute.kubernetes.jobs import Assignment, Known, expected, read_assignment, ready, unsettled

STORE = "az://experiments/runs"
DENSE = ("dense", "rewind_point")


def begun(plan, known: Known) -> dict[str, list[int]]:  # type: ignore[no-untyped-def]
    return {a.variant: [share.seed for share in a.shares] for a in ready(plan, known)}


def test_variants_follow_what_they_need() -> None:
    plan = plan_of()
    dense = keys(plan, DENSE)
    ticket = keys(plan, ["ticket"])
    assert begun(plan, Known(())) == {"dense": [0, 1, 2]}
    assert begun(plan, Known(dense)) == {"ticket": [0, 1, 2]}
    assert begun(plan, Known(dense | ticket)) == {"random_reinit": [0, 1, 2], "random_ticket": [0, 1, 2]}
    assert begun(plan, Known(plan.by_key)) == {}


def test_a_variant_waits_until_none_of_its_replicates_has_to_wait() -> None:
    plan = plan_of()
    part = keys(plan, DENSE, seeds=[0, 1])
    assert begun(plan, Known(part, active={("dense", 0), ("dense", 1), ("dense", 2)})) == {}


def test_a_job_that_is_at_work_is_not_begun_again() -> None:
    plan = plan_of()
    active = {("dense", seed) for seed in range(3)}
    assert begun(plan, Known((), active=active)) == {}
    assert unsettled(plan, Known((), active=active))


def test_a_lost_replicate_takes_only_its_own_followers_with_it() -> None:
    plan = plan_of()
    known = Known(keys(plan, DENSE, seeds=[0, 2]), settled={("dense", seed) for seed in range(3)})
    assert begun(plan, known) == {"ticket": [0, 2]}
    known = Known(
        keys(plan, [*DENSE, "ticket"], seeds=[0, 2]), settled={(v, s) for v in ("dense", "ticket") for s in range(3)}
    )
    assert begun(plan, known) == {"random_reinit": [0, 2], "random_ticket": [0, 2]}


def test_controls_of_the_levels_that_a_lost_ticket_reached_are_made() -> None:
    plan = plan_of()
    settled = {(variant, seed) for variant in ("dense", "ticket") for seed in range(3)}
    sealed = keys(plan, DENSE) | keys(plan, ["ticket"], seeds=[0, 1]) | keys(plan, ["ticket"], seeds=[2], levels=[1])
    assignment = next(a for a in ready(plan, Known(sealed, settled=settled)) if a.variant == "random_reinit")
    assert [len(share.keys) for share in assignment.shares] == [2, 2, 1]


def test_nothing_restarts_by_itself_and_trying_again_is_a_new_job() -> None:
    plan = plan_of()
    settled = {("dense", seed) for seed in range(3)}
    assert begun(plan, Known((), settled=settled)) == {}
    assert not unsettled(plan, Known((), settled=settled))
    (first,) = ready(plan, Known(()))
    (again,) = ready(plan, Known((), attempts=dict.fromkeys(settled, 1)))
    assert again.shares == first.shares
    assert again.name(STORE) != first.name(STORE)


def test_names_derive_from_the_work_and_are_dns_labels_with_room_for_an_index() -> None:
    plan = plan_of()
    (dense,) = ready(plan, Known(()))
    (same,) = ready(plan_of(), Known(keys(plan, DENSE, seeds=[0], levels=[1])))
    assert dense.name(STORE) == same.name(STORE)
    assert dense.name("az://other/runs") != dense.name(STORE)
    (more,) = ready(plan_of(RECIPE.replace("120it", "121it")), Known(()))
    assert more.name(STORE) != dense.name(STORE)
    for experiment in ("digits", "A.very_long-Name_" + "x" * 80, "9", "Ünïcode"):
        name = Assignment(experiment, "random_reinit", dense.shares).name(STORE)
        assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name), name
        assert len(f"{name}-99999") <= 63


def test_what_is_sealed_before_is_part_of_the_name_and_not_made_again() -> None:
    plan = plan_of()
    half = keys(plan, [*DENSE, "ticket"], levels=[0, 1])
    (ticket,) = (a for a in ready(plan, Known(half)) if a.variant == "ticket")
    (whole,) = ready(plan, Known(keys(plan, DENSE)))
    assert ticket.name(STORE) == whole.name(STORE)


def test_expected_lists_every_job_once_in_order() -> None:
    plan = plan_of()
    jobs = expected(plan, Known(()))
    assert [job.variant for job in jobs] == ["dense", "ticket", "random_reinit", "random_ticket"]
    everything = [key for job in jobs for share in job.shares for key in share.keys]
    assert sorted(everything) == sorted(plan.by_key)


def test_a_jobs_file_holds_all_that_its_pods_need() -> None:
    plan = plan_of()
    (ticket,) = ready(plan, Known(keys(plan, DENSE)))
    content = ticket.to_bytes(plan, {"task": "t", "recipe_sha256": "r", "target": "{}"})
    back, part, more = read_assignment(content)
    assert back == ticket
    assert more["task"] == "t"
    expected_keys = {key for share in ticket.shares for key in share.keys}
    assert expected_keys <= set(part.by_key)
    assert all(parent in part.by_key for node in part.nodes for parent in node.spec.parents)


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"format": 99}', b"\xff"])
def test_a_damaged_jobs_file_is_told(content: bytes) -> None:
    with pytest.raises(DamagedRunError, match="submit the experiment again"):
        read_assignment(content)
