"""Kueue: Jobs that name a queue are suspended as they are admitted, and let go when there is quota."""

from __future__ import annotations

from dataclasses import dataclass

from tests.cluster.jobs import is_over
from tests.cluster.resources import JOBS, Object, Resource, is_leaving, label
from tests.cluster.storage import Storage

QUEUE = "kueue.x-k8s.io/queue-name"


@dataclass
class Kueue:
    """How much quota there is, is up to the test: none at all while ``holding``, else enough."""

    storage: Storage
    holding: bool = False

    def webhook(self, resource: Resource, thing: Object) -> None:
        if resource is JOBS and label(thing, QUEUE):
            thing["spec"]["suspend"] = True

    def step(self) -> None:
        with self.storage.lock:
            for job in [] if self.holding else self.storage.view(JOBS):
                if label(job, QUEUE) and job["spec"]["suspend"] and not is_over(job) and not is_leaving(job):
                    self.storage.edit(JOBS, job, lambda live: live["spec"].update(suspend=False))
