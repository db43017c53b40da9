"""The conductor, killed and hindered; pods are light, everything else is as it is in a cluster."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from tests.execute.kubernetes.conftest import SMALL, Lab
from tests.execute.kubernetes.experiments import keys
from tests.store.places import Counting
from ticketsmith.api import load, open_experiment, prepare
from ticketsmith.config.load import parse_recipe
from ticketsmith.config.target import load_target
from ticketsmith.errors import ClusterError, Exit
from ticketsmith.execute.kubernetes import ceiling
from ticketsmith.execute.kubernetes.cluster import Cluster
from ticketsmith.execute.kubernetes.conductor import Conductor
from ticketsmith.execute.kubernetes.executor import KubernetesExecutor
from ticketsmith.execute.kubernetes.records import PodRecord, Records
from ticketsmith.execute.kubernetes.submit import Proposal, propose, running, submit
from ticketsmith.plan import Plan
from ticketsmith.prices import Rate
from ticketsmith.pursuit import growth, growth_of
from ticketsmith.store.index import Index

Make = Callable[..., Lab]


@lru_cache
def plan_of(recipe: str) -> Plan:
    """The plan of a recipe's text; making one takes a second."""
    return prepare(parse_recipe(recipe, "recipe.yaml", Path())).plan


def begin(lab: Lab) -> Conductor:
    """Submits, and gives a conductor of this process."""
    conductor = lab.conductor()
    recipe = load(lab.recipe)
    proposal = propose(plan_of(lab.recipe.read_text()), load_target(lab.target), lab.records)
    submit(lab.records, conductor.cluster, proposal, recipe.source, recipe.task_component, recipe.sha256)
    return conductor


def proposal_of(lab: Lab) -> Proposal:
    """What submitting would begin now."""
    return propose(plan_of(lab.recipe.read_text()), load_target(lab.target), lab.records)


def jobs_created(lab: Lab) -> list[str]:
    """Names of Jobs that the API server was asked to make, dry runs aside."""
    names = [
        request.path.rsplit("/", 1)[-1]
        for request in lab.cluster.audit  # type: ignore[union-attr]
        if request.method == "PATCH" and "dryRun" not in str(request.query) and "fieldManager" in str(request.query)
    ]
    return [name for name in names if name.startswith("ts-")]


def outcomes(lab: Lab) -> dict[str, str]:
    return {o.groups[0][0] if o.groups else "report": o.status for o in lab.records.outcomes() if not o.set_aside}


class Killed(BaseException):
    """What SIGKILL is to a process, in the middle of a step."""


class Mortal:
    """Lets a number of calls of an object's effects through; then kills, before or after the next one."""

    def __init__(self, inner: Any, effects: tuple[str, ...], lives: list[int], after: bool) -> None:
        self._inner, self._effects, self._lives, self._after = inner, effects, lives, after

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        if name not in self._effects:
            return value

        def call(*args: Any, **more: Any) -> Any:
            if self._lives[0] == 0 and not self._after:
                raise Killed
            result = value(*args, **more)
            if self._lives[0] == 0:
                raise Killed
            self._lives[0] -= 1
            return result

        return call


def mortal(lab: Lab, effects: int, after: bool) -> Conductor:
    """A conductor that is killed at its next-but-``effects`` effect on the cluster or the store."""
    conductor, lives = lab.conductor(), [effects]
    cluster: Any = Mortal(conductor.cluster, ("apply", "keep_for", "delete"), lives, after)
    records: Any = Records(Mortal(lab.records.store, ("put",), lives, after), lab.experiment)  # type: ignore[arg-type]
    return Conductor(records, cluster, lab.notes.append)


@pytest.mark.parametrize(
    ("effects", "after"), [(0, True), (1, False), (2, True)], ids=["each", "before 2nd", "after 3rd"]
)
def test_killed_between_any_two_of_its_effects_it_goes_on_and_begins_nothing_twice(
    light_lab: Make, effects: int, after: bool
) -> None:
    lab = light_lab()
    begin(lab)
    kills, status = 0, None
    while status is None:
        conductor = mortal(lab, effects, after)
        try:
            while status is None:
                status = conductor.step()
        except Killed:
            kills += 1
            assert kills < 500
    assert status == Exit.OK
    assert kills >= 5
    plan = lab.records.plan(lab.records.submission())
    assert plan is not None
    assert conductor_sees(lab) == set(plan.by_key)
    jobs = {pod["metadata"]["labels"]["job-name"] for pod in lab.cluster.pods()}
    assert len(jobs) == 5  # dense, ticket, two controls, report
    assert len(lab.cluster.pods()) == 4 * 2 + 1
    assert set(outcomes(lab).values()) == {"complete"}
    asked_at_a_quiet_look(lab)


def asked_at_a_quiet_look(lab: Lab) -> None:
    """A look at which nothing is new reads what was submitted and lists the Jobs' files; a folder tells no versions."""
    store = Counting(lab.records.store)
    conductor = Conductor(Records(store, lab.experiment), lab.conductor().cluster, lab.notes.append)
    conductor.step()
    store.asked.clear()
    conductor.step()
    outcomes = [path for name, path in store.asked if name == "get" and path.endswith("/outcome.json")]
    assert len(outcomes) == 5
    assert [name for name, path in store.asked if path not in outcomes] == ["get", "files", "files"]


def conductor_sees(lab: Lab) -> set[str]:
    plan = lab.records.plan(lab.records.submission())
    assert plan is not None
    return set(Index(lab.records.store).runs(plan.by_key, plan.experiment))


def test_two_conductors_at_once_do_no_harm(light_lab: Make) -> None:
    lab = light_lab()
    one, two = begin(lab), lab.conductor()
    first = second = None
    while first is None or second is None:
        first, second = first if first is not None else one.step(), second if second is not None else two.step()
    assert (first, second) == (Exit.OK, Exit.OK)
    assert len(lab.cluster.pods()) == 9


@pytest.mark.parametrize("fault", ["slow", "refusing", "busy", "errors", "conflicts", "lost answers"])
def test_an_api_server_in_trouble_is_waited_for(light_lab: Make, fault: str) -> None:
    lab = light_lab(*SMALL)
    conductor = begin(lab)
    faults = lab.cluster.faults
    if fault == "slow":
        faults.delay(0.3)
    elif fault == "refusing":
        faults.refuse(3)
    elif fault == "busy":
        faults.fail(429, retry_after=1, count=4)
    elif fault == "errors":
        faults.fail(503, count=3)
        faults.fail(500, method="PATCH", count=3)
        faults.fail(504, count=2)
    elif fault == "conflicts":
        faults.fail(409, method="PATCH", count=2)
    else:
        faults.lose_answer(method="PATCH", count=3)
    assert conductor.run(poll=0.2) == Exit.OK
    assert len(lab.cluster.pods()) == 3  # dense, ticket, report


def test_a_cluster_that_stays_away_is_told(light_lab: Make) -> None:
    lab = light_lab()
    conductor = begin(lab)
    conductor.cluster.patience = 1.0
    with lab.cluster.faults.refused(), pytest.raises(ClusterError, match=r"cannot list Jobs: .*Jobs that run go on"):
        conductor.step()
    assert conductor.run(poll=0.2) == Exit.OK


def test_a_replicate_that_fails_leaves_the_others_alone_and_is_not_tried_again(light_lab: Make) -> None:
    lab = light_lab(LIGHT_FAIL="ticket:2")
    conductor = begin(lab)
    assert conductor.run(poll=0.2) == Exit.LOST
    assert outcomes(lab) == {"dense": "complete", "ticket": "failed", "report": "complete"}
    (outcome,) = [o for o in lab.records.outcomes() if o.status == "failed"]
    assert "bad input" in outcome.message
    assert "seed 0, 1" in outcome.message
    assert len(lab.pods("ticket")) == 2  # one try each
    log = lab.records.store.get(lab.records.log_path(outcome.job, 0, lab.pods("ticket")[0]["metadata"]["name"]))
    assert b"ends with 2, as it was told to" in (log or b"")
    before = len(lab.cluster.pods())
    assert lab.conductor().run(poll=0.2) == Exit.LOST
    assert len(lab.cluster.pods()) == before


def test_what_may_pass_is_tried_again_within_limits(light_lab: Make) -> None:
    lab = light_lab(*((("replicates: 2", "replicates: 1"),)), LIGHT_FAIL="ticket:5")
    assert begin(lab).run(poll=0.2) == Exit.LOST
    assert len(lab.pods("ticket")) == 3  # once, and two retries


def test_resume_tries_again_under_a_new_name_and_makes_only_what_is_missing(light_lab: Make) -> None:
    from ticketsmith.execute.kubernetes.submit import resume

    lab = light_lab(LIGHT_FAIL="ticket:2")
    assert begin(lab).run(poll=0.2) == Exit.LOST
    failed = {o.job for o in lab.records.outcomes() if o.status == "failed"}
    image = lab.cluster.images[lab.cluster.image]  # type: ignore[union-attr]
    lab.cluster.images[lab.cluster.image] = type(image)(image.entrypoint, env={**image.env, "LIGHT_FAIL": ""})  # type: ignore[union-attr]
    again = resume(lab.records, lab.records.submission())
    assert {outcome.job for outcome in again} == failed
    assert lab.conductor().run(poll=0.2) == Exit.OK
    names = {pod["metadata"]["labels"]["job-name"] for pod in lab.pods("ticket")}
    assert len(names) == 2
    assert len(lab.pods("dense")) == 2


def test_an_image_that_is_missing_is_told_and_does_not_hold_a_node_for_long(light_lab: Make) -> None:
    lab = light_lab(*SMALL)
    lab.cluster.faults.missing_image(lab.cluster.image)
    assert begin(lab).run(poll=0.2) == Exit.LOST
    (outcome,) = [o for o in lab.records.outcomes() if o.status == "stopped"]
    assert "the image cannot be pulled" in outcome.message
    assert not lab.pods("dense")


def test_a_budget_that_does_not_suffice_begins_nothing_and_says_so(light_lab: Make) -> None:
    lab = light_lab()
    lab.set(("budget: {money: 5}", "budget: {money: 0.01}"))
    assert begin(lab).run(poll=0.2) == Exit.OVER_BUDGET
    assert not lab.cluster.pods()
    (outcome,) = lab.records.outcomes()
    assert outcome.reason == "Budget"
    assert "of a budget of 0.01" in outcome.message


def test_what_has_overrun_its_budget_is_stopped_and_says_so(light_lab: Make) -> None:
    lab = light_lab(LIGHT_SECONDS="60")
    conductor = begin(lab)
    conductor.step()
    lab.cluster.wait_for(lambda: lab.pods("dense", "Running"))
    spent = PodRecord.of("earlier", "ts-earlier", "dense", 0, Rate("my-node", 100.0))
    lab.records.keep_pod(replace(spent, seconds=3600.0, ended=True))
    assert conductor.run(poll=0.2) == Exit.OVER_BUDGET
    (outcome,) = [o for o in lab.records.outcomes() if o.status == "stopped"]
    assert "is used up" in outcome.message
    lab.cluster.wait_for(lambda: not lab.pods("dense"))


def test_a_job_waits_for_others_when_both_might_overrun_the_budget(light_lab: Make) -> None:
    """A Job costs 0.038 at most, the report 0.052, what is spent by then about 0.007: enough for one Job, not for two."""
    lab = light_lab(LIGHT_SECONDS="0.3")
    lab.set(("budget: {money: 5}", "budget: {money: 0.12}"))
    assert begin(lab).run(poll=0.2) == Exit.OK
    assert any("waits, since with what runs it might cost" in note for note in lab.notes)


def test_a_wrong_clock_changes_nothing(light_lab: Make) -> None:
    lab = light_lab(*SMALL)
    lab.cluster.faults.shift_clock(-7200)
    assert begin(lab).run(poll=0.2) == Exit.OK
    assert ceiling.total(lab.records.pods()).money < 0.1


def test_pods_that_ended_without_a_word_are_accounted_for(light_lab: Make) -> None:
    # long enough that the pod still runs when its memory ends, on a busy machine, too
    lab = light_lab(*SMALL, LIGHT_SECONDS="4")
    conductor = begin(lab)
    conductor.step()
    lab.cluster.wait_for(lambda: lab.pods("dense", "Running"))
    pod = lab.pods("dense")[0]["metadata"]
    name, rate = pod["name"], Rate("my-node", 0.1)
    lost = PodRecord.of(name, pod["labels"]["job-name"], "dense", 0, rate)
    lab.records.keep_pod(replace(lost, ended=True, reason="its node was lost"))  # and came back
    lab.cluster.faults.out_of_memory(name)
    assert conductor.run(poll=0.2) == Exit.OK
    record = next(pod for pod in lab.records.pods() if pod.pod == name)
    assert record.ended
    assert "out of memory" in record.reason
    assert record.exit == 137
    assert len(lab.pods("dense")) == 2


def test_the_record_of_a_pod_that_went_with_its_node_ends(light_lab: Make) -> None:
    lab = light_lab(*SMALL)
    conductor = begin(lab)
    conductor.step()
    job = lab.cluster.wait_for(lambda: lab.pods("dense"))[0]["metadata"]["labels"]["job-name"]
    lab.records.keep_pod(PodRecord.of("ghost", job, "dense", 0, Rate("my-node", 0.1)).lasting(30.0))
    assert conductor.run(poll=0.2) == Exit.OK
    record = next(pod for pod in lab.records.pods() if pod.pod == "ghost")
    assert (record.ended, record.seconds) == (True, 30.0)
    assert "its node was lost" in record.reason
    assert all(pod.ended for pod in lab.records.pods() if pod.variant == "dense")


def test_a_second_submit_marks_what_is_at_work(light_lab: Make) -> None:
    lab = light_lab(LIGHT_SECONDS="1.5")
    conductor = begin(lab)
    assert running(conductor.cluster, proposal_of(lab)) == set()
    conductor.step()
    lab.cluster.wait_for(lambda: conductor_sees(lab))  # one run is sealed: what is left is another piece of work
    assert running(conductor.cluster, proposal_of(lab)) == {"dense"}


def test_finished_jobs_stay_for_a_while_and_no_longer(light_lab: Make) -> None:
    lab = light_lab(*SMALL)
    lab.set(("poll: 1s", "poll: 1s, keep: 2s"))
    assert begin(lab).run(poll=0.2) == Exit.OK
    lab.cluster.wait_for(lambda: not lab.cluster.pods(), 20)
    assert lab.conductor().run(poll=0.2) == Exit.OK  # nothing begins again
    assert not lab.pods("dense")


def test_a_queue_is_waited_for_and_status_says_so(light_lab: Make) -> None:
    lab = light_lab(*SMALL)
    lab.set(("budget:", "queue: research\nbudget:"))
    kueue = lab.cluster.install_kueue(holding=True)  # type: ignore[union-attr]
    conductor = begin(lab)
    conductor.step()
    lab.cluster.wait_for(
        lambda: (
            any("waits for quota in queue 'research'" in n for n in [*lab.notes, conductor.step() or ""])
            or any("waits for quota in queue 'research'" in n for n in lab.notes)
        )
    )
    kueue.holding = False
    assert conductor.run(poll=0.2) == Exit.OK


def test_a_plan_that_grew_is_taken_up_by_the_conductor_at_work(light_lab: Make) -> None:
    lab = light_lab(("replicates: 2", "replicates: 1"))
    conductor = begin(lab)
    conductor.step()
    lab.set(("levels: 2", "levels: 3"), recipe=True)
    begin(lab)
    assert conductor.run(poll=0.2) == Exit.OK
    plan = lab.records.plan(lab.records.submission())
    assert plan is not None
    assert keys(plan, ["ticket"], levels=[3]) <= conductor_sees(lab)


def test_nothing_secret_is_in_what_the_cluster_is_told(light_lab: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", "DefaultEndpointsProtocol=https;AccountKey=c2VjcmV0LWtleQ==;")
    lab = light_lab(*SMALL)
    assert begin(lab).run(poll=0.2) == Exit.OK
    requests = json.dumps([[request.path, str(request.body)] for request in lab.cluster.audit])  # type: ignore[union-attr]
    assert "c2VjcmV0LWtleQ" not in requests


def test_cluster_is_the_officials_clients(light_lab: Make) -> None:
    lab = light_lab()
    assert isinstance(lab.conductor().cluster, Cluster)


def test_a_conductor_follows_a_search_from_job_to_job_whoever_it_is(light_lab: Make) -> None:
    """Each Job is made by a conductor that knows nothing of those before it; the store says what comes next."""
    lab = light_lab(
        ("levels: 2", "levels: 6"),
        ("replicates: 2", "replicates: 2\nsearch: sweet_spot\nvariants: {random_ticket: false}"),
        LIGHT_CLIFF="3",
    )
    recipe, status = load(lab.recipe), None
    whole = plan_of(lab.recipe.read_text())
    executor = KubernetesExecutor(
        lab.records, lab.conductor().cluster, load_target(lab.target), lab.notes.append, recipe, growth_of(recipe)
    )
    first = executor.propose(whole)
    assert [(job.variant, len(job.shares)) for job in first.assignments] == [("dense", 2), ("ticket", 2)]
    executor.submit(whole)
    while status is None:
        conductor = Conductor(
            lab.records, lab.conductor().cluster, lab.notes.append, growth(lab.records.store, lab.experiment)
        )
        before = len(jobs_created(lab))
        while status is None and len(jobs_created(lab)) == before:
            status = conductor.step()
    assert status == Exit.OK
    search = open_experiment(lab.experiment, lab.store)
    assert search.path is not None
    assert search.path.over
    moves = [(move.variant, move.level) for move in search.path.moves]
    assert moves == [("ticket", n) for n in (2, 4, 3)] + [("random_reinit", n) for n in (3, 4)]
    assert {(run.variant, run.level) for run in search.results} == {("dense", 0), *moves}
    tickets = [name for name in jobs_created(lab) if "-ticket-" in name]
    assert len(set(tickets)) == 3, "a Job for each move"
    shown = lab.run("status", "--experiment", lab.experiment)
    assert "search: over; passes up to level 3, fails at level 4" in shown
