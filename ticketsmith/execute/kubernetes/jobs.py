"""Which Jobs an experiment needs next. Pure: a plan, and what is known of its runs and Jobs, in; assignments out.

A Job makes all runs of one variant, one index a replicate. Its name derives from the keys that it makes, so the same work
is never submitted twice. A finished or failed Job is never begun again by itself: what came of it is recorded in the store,
and only ``resume`` sets that record aside, which counts as a new attempt.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ticketsmith.errors import DamagedRunError
from ticketsmith.plan import REWIND_POINT, Plan, PlannedRun
from ticketsmith.store.contract import to_json

FORMAT = 1

Group = tuple[str, int]
"""A variant and a seed: the runs that one index of a Job makes."""


@dataclass(frozen=True)
class Share:
    """What one index of a Job makes: keys of one replicate, parents first."""

    seed: int
    keys: tuple[str, ...]


@dataclass(frozen=True)
class Assignment:
    """What one Job makes. ``attempt`` counts how often a user asked to try again after it had failed."""

    experiment: str
    variant: str
    shares: tuple[Share, ...]
    attempt: int = 0

    @property
    def groups(self) -> frozenset[Group]:
        """The groups that it makes."""
        return frozenset((self.variant, share.seed) for share in self.shares)

    def name(self, store: str) -> str:
        """The Job's name: the same work in the same store has the same name."""
        keys = [[share.seed, *share.keys] for share in self.shares]
        return job_name(store, self.experiment, self.variant, [self.attempt, *keys])

    def to_bytes(self, plan: Plan, more: Mapping[str, Any]) -> bytes:
        """``job.json``: all that a pod needs to know. ``more``: how to build the task, and on what terms."""
        part = plan.needed_for(key for share in self.shares for key in share.keys)
        nodes = json.loads(part.to_bytes())["nodes"]
        shares = [{"seed": share.seed, "keys": list(share.keys)} for share in self.shares]
        return to_json(
            {
                "format": FORMAT,
                "experiment": self.experiment,
                "variant": self.variant,
                "attempt": self.attempt,
                "shares": shares,
                "nodes": nodes,
                **more,
            }
        )


def read_assignment(content: bytes) -> tuple[Assignment, Plan, dict[str, Any]]:
    """The inverse of ``to_bytes``: assignment, the plan of its runs and their ancestors, and the rest.

    Raises DamagedRunError when it is something else.
    """
    try:
        plain = json.loads(content)
        if plain["format"] != FORMAT:
            raise ValueError(f"format {plain['format']}, this version reads {FORMAT}")
        shares = tuple(Share(int(s["seed"]), tuple(s["keys"])) for s in plain.pop("shares"))
        assignment = Assignment(plain["experiment"], plain["variant"], shares, int(plain["attempt"]))
        plan = Plan.from_bytes(json.dumps({"experiment": plain["experiment"], "nodes": plain.pop("nodes")}).encode())
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedRunError(f"job.json cannot be read ({error}): submit the experiment again.") from error
    return assignment, plan, plain


@dataclass(frozen=True)
class Known:
    """What is known of an experiment at one moment.

    ``sealed``: keys. ``active``: groups that a Job is making. ``settled``: groups whose Job has ended, well or not, and
    was not set aside. ``attempts``: Jobs that were set aside, by group.
    """

    sealed: Collection[str]
    active: Collection[Group] = frozenset()
    settled: Collection[Group] = frozenset()
    attempts: Mapping[Group, int] | None = None


def groups(plan: Plan) -> dict[Group, list[PlannedRun]]:
    """The runs of a plan by variant and seed; a rewind point is made with the dense run that it belongs to."""
    groups: dict[Group, list[PlannedRun]] = {}
    for node in plan.by_key.values():
        groups.setdefault((_variant(node), node.seed), []).append(node)
    return groups


def ready(plan: Plan, facts: Known) -> list[Assignment]:
    """The Jobs that can begin now: nothing that they need is still to come.

    A variant begins when no replicate of it waits any more, so that its replicates share one Indexed Job.
    """
    look = _Look(plan, facts)
    assignments = []
    for variant in dict.fromkeys(variant for variant, _ in look.groups):
        mine = [group for group in look.groups if group[0] == variant]
        if any(look.waits(group) for group in mine):
            continue
        begin = [group for group in mine if look.can_begin(group)]
        if begin:
            attempt = max((facts.attempts or {}).get(group, 0) for group in begin)
            shares = tuple(Share(group[1], tuple(look.makeable(group))) for group in begin)
            assignments.append(Assignment(plan.experiment, variant, shares, attempt))
    return assignments


def expected(plan: Plan, facts: Known) -> list[Assignment]:
    """The Jobs that are still to come, in order, if all goes well."""
    assignments: list[Assignment] = []
    while begin := ready(plan, facts):
        assignments += begin
        keys = {key for assignment in begin for share in assignment.shares for key in share.keys}
        facts = replace(facts, sealed=set(facts.sealed) | keys)
    return assignments


def unsettled(plan: Plan, facts: Known) -> list[Group]:
    """Groups that still have something to come: active, ready, or waiting for one that is."""
    look = _Look(plan, facts)
    return [group for group in look.groups if not look.resolved(group)]


def job_name(store: str, experiment: str, part: str, content: Any) -> str:
    """A DNS label of at most 52 characters, so that pods' host names (``-<index>``) fit into 63."""
    digest = hashlib.sha256(json.dumps([store, experiment, part, content]).encode()).hexdigest()
    return f"ts-{slug(experiment)[:20].strip('-')}-{slug(part)[:16].strip('-')}-{digest[:10]}"


def job_part(name: str) -> str:
    """The last word of what a Job is about, as its name tells: ``conductor``, ``report``; empty when it tells nothing."""
    return ("", *name.split("-"))[-2]


def experiment_id(store: str, experiment: str) -> str:
    """A label value that tells experiments of all stores apart."""
    return hashlib.sha256(json.dumps([store, experiment]).encode()).hexdigest()[:16]


def slug(text: str) -> str:
    """Small letters, digits and ``-`` only."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "x"


class _Look:
    """Questions about groups, each answered once."""

    def __init__(self, plan: Plan, facts: Known) -> None:
        self.facts = facts
        self.sealed = frozenset(facts.sealed)
        self.groups = groups(plan)
        self.group_of = {node.key: group for group, nodes in self.groups.items() for node in nodes}
        self._resolved: dict[Group, bool] = {}

    def complete(self, group: Group) -> bool:
        return all(node.key in self.sealed for node in self.groups[group])

    def makeable(self, group: Group) -> Iterator[str]:
        """Keys that are sealed or can be made: every ancestor is sealed or among them."""
        here: set[str] = set()
        for node in self.groups[group]:
            if node.key in self.sealed or all(parent in self.sealed or parent in here for parent in node.spec.parents):
                here.add(node.key)
                yield node.key

    def waits(self, group: Group) -> bool:
        """Something that it needs is still to come."""
        if self._over(group):
            return False
        return any(
            parent not in self.sealed and self.group_of[parent] != group and not self.resolved(self.group_of[parent])
            for node in self.groups[group]
            for parent in node.spec.parents
        )

    def can_begin(self, group: Group) -> bool:
        if self._over(group) or group in self.facts.active or self.waits(group):
            return False
        return any(key not in self.sealed for key in self.makeable(group))

    def resolved(self, group: Group) -> bool:
        """Nothing more will come of it: complete, ended, or lost with what it needs."""
        if group not in self._resolved:
            self._resolved[group] = group not in self.facts.active and (
                self._over(group) or not (self.waits(group) or self.can_begin(group))
            )
        return self._resolved[group]

    def _over(self, group: Group) -> bool:
        return self.complete(group) or group in self.facts.settled


def _variant(node: PlannedRun) -> str:
    return "dense" if node.variant == REWIND_POINT else node.variant
