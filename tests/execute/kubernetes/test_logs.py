"""Following logs: what waits is told, what is printed comes once, and nothing is asked for twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from tests.execute.kubernetes.conftest import Lab
from tests.execute.kubernetes.test_conductor import begin
from ticketsmith.execute.kubernetes.conductor import ensure_conductor
from ticketsmith.execute.kubernetes.logs import Choice, Line, follow, logs

Make = Callable[..., Lab]
ONE = ("replicates: 2", "replicates: 1")


def logs_asked(lab: Lab) -> Counter[str]:
    """How often the API server was asked for the log of each pod."""
    paths = [request.path for request in lab.cluster.audit]  # type: ignore[union-attr]
    return Counter(path.split("/")[-2] for path in paths if path.endswith("/log"))


def test_an_experiment_is_followed_to_its_end_over_a_cut_connection(light_lab: Make) -> None:
    lab = light_lab(ONE, LIGHT_SECONDS="0.7")
    cluster = begin(lab).cluster
    ensure_conductor(lab.records, cluster, lab.submitted)
    lines, cut = list[Line](), False
    for line in follow(lab.records, cluster, lab.submitted, Choice(), look=0.3):
        lines.append(line)
        if not cut and line.text == "all sealed":
            lab.cluster.faults.refuse(0.5)
            cut = True
    counts = Counter((line.title, line.text) for line in lines if line.printed)
    for variant in ("dense", "ticket", "random_reinit", "random_ticket"):
        assert counts[f"{variant} 0", "all sealed"] == 1
    assert any(title == "conductor" and text.endswith(": complete") for title, text in counts)
    assert [one for one, count in counts.items() if count > 1] == []
    # Once by us, once by the conductor that keeps what a pod did not, once more where the connection was cut.
    assert sorted(logs_asked(lab).values()) <= [2, 2, 2, 3, 3, 3]


def test_what_a_pod_and_a_variant_wait_for(light_lab: Make) -> None:
    lab = light_lab(ONE)
    conductor = begin(lab)
    lab.cluster.faults.missing_image(lab.cluster.image)
    conductor.step()
    lines = follow(lab.records, conductor.cluster, lab.submitted, Choice("dense"), look=0.2)
    said = next(line for line in lines if "cannot be pulled" in line.text)
    assert (said.title, said.printed) == ("dense 0", False)
    before = logs_asked(lab)
    assert not before
    now = list(logs(lab.records, conductor.cluster, lab.submitted, Choice()))
    assert [(line.title, line.printed) for line in now] == [("dense 0", False)]
    ensure_conductor(lab.records, conductor.cluster, lab.submitted)
    later = next(follow(lab.records, conductor.cluster, lab.submitted, Choice("ticket"), look=0.2))
    assert later == Line("ticket", "has not begun: the conductor begins it when what it needs is sealed", False)


def test_a_pod_that_nobody_has_room_for_and_a_queue(light_lab: Make) -> None:
    lab = light_lab(ONE)
    lab.set(("budget:", "queue: research\nbudget:"))
    lab.cluster.install_kueue(holding=True)  # type: ignore[union-attr]
    conductor = begin(lab)
    conductor.step()
    lines = follow(lab.records, conductor.cluster, lab.submitted, Choice("dense"), look=0.2)
    assert "waits for quota in queue 'research'" in next(line for line in lines if "quota" in line.text).text


def test_one_replicate_is_followed_no_longer_than_it_lives(light_lab: Make) -> None:
    lab = light_lab()
    conductor = begin(lab)
    conductor.step()
    lines = list(follow(lab.records, conductor.cluster, lab.submitted, Choice("dense", 1), look=0.2))
    assert {line.title for line in lines} == {"dense 1"}
    assert lines[-1].text == "all sealed"
    for pod in lab.pods("dense"):  # kept by the conductor when the pods have gone
        conductor._save_log(pod["metadata"]["labels"]["job-name"], 1, pod["metadata"]["name"])
    conductor.cluster.delete(lab.pods("dense")[0]["metadata"]["labels"]["job-name"])
    lab.cluster.wait_for(lambda: not lab.pods("dense"))
    stored = list(follow(lab.records, conductor.cluster, lab.submitted, Choice("dense", 1), look=0.2))
    assert [line.text for line in stored if line.text == "all sealed"]
