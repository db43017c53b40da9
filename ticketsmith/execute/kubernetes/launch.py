"""Waits until a conductor is at work, tells why it is not yet, and takes it back when that lasts.

A conductor that works says so on its own Job (``Cluster.mark_begun``), after it has read the store and reached the API
server. Until then its Job has a short deadline, so that nothing is held for long should nobody wait here.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from ticketsmith.config.target import Target
from ticketsmith.errors import ClusterError, Exit
from ticketsmith.execute.kubernetes import diagnose, manifests
from ticketsmith.execute.kubernetes.cluster import Cluster, Object
from ticketsmith.execute.kubernetes.records import Outcome, Records

LOOK = 2.0
"""Seconds between two looks."""


class NotBegunError(ClusterError):
    """The conductor did not begin, and was taken back."""

    exit_status = Exit.LOST


def wait_until_begun(
    records: Records, cluster: Cluster, name: str, target: Target, tell: Callable[[str], None], look: float = LOOK
) -> None:
    """Returns when the conductor of the Job ``name`` is at work; ``tell`` hears what it waits for.

    What keeps it from starting may last for ``limits.stuck``. A node that is being started, an image that is being pulled
    and a process that has only begun are waited for as long as the Job's own deadline allows. Raises NotBegunError when
    it was taken back.
    """
    began = looked = time.monotonic()
    blocked, reported = 0.0, ""
    while True:
        job = cluster.job(name)
        if job is None:
            raise NotBegunError(f"the conductor {name} was deleted by somebody before it began.")
        if manifests.has_begun(job) or diagnose.job_state(job).state == "complete":
            return
        start = _start_of(cluster, job)
        now = time.monotonic()
        if not start.passes:  # in all, since reasons come and go: an image is tried again and again
            blocked += now - looked
        looked = now
        if (reason := start.text.partition(" (")[0]) != reported:  # without details, which change at every try
            reported = reason
            tell(f"conductor after {now - began:.0f} s: {start.text}")
        if (blocked > target.limits.stuck or start.over) and _take_back(records, cluster, job, start.text):
            after = "" if start.over else f" for {target.limits.stuck} s (`limits.stuck`)"
            raise NotBegunError(
                f"the conductor {name} did not begin{after}: {start.text}. It was taken back, and nothing new begins. Mend it, "
                "then submit again."
            )
        time.sleep(look)


def _start_of(cluster: Cluster, job: Object) -> diagnose.Start:
    pods = cluster.pods(f"batch.kubernetes.io/job-name={job['metadata']['name']}")
    names = [job["metadata"]["name"], *(p["metadata"]["name"] for p in pods if p["status"].get("phase") == "Pending")]
    return diagnose.start(job, pods, [event for about in names for event in cluster.events(about)])


def _take_back(records: Records, cluster: Cluster, job: Object, why: str) -> bool:
    """Deletes the Job unless it has changed since it was looked at: it may just have begun."""
    name, version = job["metadata"]["name"], job["metadata"].get("resourceVersion")
    for pod in cluster.pods(f"batch.kubernetes.io/job-name={name}"):
        if log := cluster.log(pod["metadata"]["name"]):  # it goes with the pod
            records.store.put(records.log_path(name, None, pod["metadata"]["name"]), log)
    if not cluster.delete(name, unless_changed_from=version):
        return False
    records.conclude(Outcome(name, "stopped", "Stuck", f"taken back before it began: {why}", ()))
    return True
