"""What the store knows of an experiment's Jobs: what was submitted, what each Job makes, took, and came to.

All of it is loose files of the experiment, so that the conductor keeps nothing in memory and whoever reads only the store
sees why something is missing.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from ticketsmith.config.target import Target
from ticketsmith.errors import DamagedRunError, TicketSmithError
from ticketsmith.execute.kubernetes.ceiling import HOUR, Amount
from ticketsmith.execute.kubernetes.jobs import Assignment, Group, job_part, read_assignment
from ticketsmith.plan import Plan
from ticketsmith.prices import Rate
from ticketsmith.store.contract import Store, to_json

FORMAT = 1
WHOLE = "search.json"
"""All runs that a search may ask for."""


@dataclass(frozen=True)
class Submission:
    """What a user asked for. ``task`` and ``recipe_sha256`` are the recipe's; ``plan_sha256`` is of ``plan.json``.

    In a ``search`` it is of ``search.json``, all runs that may be asked for: ``plan.json`` grows.
    """

    target: Target
    task: str | Mapping[str, Any]
    recipe_sha256: str
    plan_sha256: str
    cancelled: bool = False
    search: bool = False


@dataclass(frozen=True)
class PodRecord:
    """What one pod took, kept up to date by the pod itself; ``seconds`` by a clock that cannot be set.

    ``price_per_hour`` is what the pod pays of its machine. ``exit`` is None while the pod lives, or when it was ended from
    outside before it could say.
    """

    pod: str
    job: str
    variant: str
    index: int | None
    machine: str
    price_per_hour: float
    currency: str
    gpus: int
    spot: bool
    idle_tail_seconds: float
    seconds: float = 0.0
    gpu_seconds: float = 0.0
    gpu_utilisation: float | None = None
    node: str = ""
    exit: int | None = None
    reason: str = ""
    ended: bool = False

    @property
    def amount(self) -> Amount:
        """What it has cost so far, its idle tail included."""
        money = (self.seconds + self.idle_tail_seconds) / HOUR * self.price_per_hour
        return Amount(money, self.gpu_seconds / HOUR)

    def lasting(self, seconds: float) -> PodRecord:
        """The same pod after so many seconds."""
        return replace(self, seconds=round(seconds, 3), gpu_seconds=round(seconds * self.gpus, 3))

    @classmethod
    def of(cls, pod: str, job: str, variant: str, index: int | None, rate: Rate) -> PodRecord:
        """The record of a pod that has just begun."""
        return cls(
            pod=pod,
            job=job,
            variant=variant,
            index=index,
            machine=rate.machine,
            price_per_hour=rate.per_hour,
            currency=rate.currency,
            gpus=rate.gpus,
            spot=rate.spot,
            idle_tail_seconds=rate.idle_tail,
        )


@dataclass(frozen=True)
class Outcome:
    """What a Job came to. ``set_aside``: a user asked to try again, so it no longer stands in the way."""

    job: str
    status: Literal["complete", "failed", "stopped"]
    reason: str
    message: str
    groups: tuple[Group, ...]
    set_aside: bool = False

    @property
    def component(self) -> str:
        """``train``, ``report`` or ``conductor``."""
        return "train" if self.groups else job_part(self.job)


class Records:
    """The job files of one experiment. What does not change any more is read once."""

    def __init__(self, store: Store, experiment: str) -> None:
        self.store, self.experiment = store, experiment
        self._plan: tuple[str, Plan] | None = None
        self._assignments: dict[str, tuple[Assignment, Plan, dict[str, Any]]] = {}
        self._pods: dict[str, tuple[float, str | None, PodRecord]] = {}  # by path: monotonic time of reading, version
        self._outcomes: dict[tuple[str, str | None], Outcome] = {}  # by path and version

    def submit(self, submission: Submission) -> None:
        """Writes ``submission.json``; ``plan.json`` and ``recipe.yaml`` must be there already."""
        plain = asdict(replace(submission, target=None))  # type: ignore[arg-type]
        plain["target"] = json.loads(submission.target.to_bytes())
        self.store.put(self._path("submission.json"), to_json({"format": FORMAT, **plain}))

    def submission(self) -> Submission:
        """What was asked for last. Raises TicketSmithError when nothing was."""
        content = self.store.get(self._path("submission.json"))
        if content is None:
            raise TicketSmithError(
                f"{self.store.url}/{self.experiment}: nothing was submitted. `ticketsmith submit --config <recipe> "
                "--target <target>` does."
            )
        try:
            plain = json.loads(content)
            target = Target.from_bytes(json.dumps(plain["target"]).encode())
            fields = {name: plain[name] for name in ("task", "recipe_sha256", "plan_sha256", "cancelled")}
            return Submission(target=target, search=plain.get("search", False), **fields)
        except (ValueError, KeyError, TypeError) as error:
            raise self._damaged("submission.json", error) from error

    def plan(self, submission: Submission) -> Plan | None:
        """The plan that was submitted, of a search all of it; None while another submission is half written."""
        if self._plan is not None and self._plan[0] == submission.plan_sha256:
            return self._plan[1]
        content = self.store.get(self._path(WHOLE if submission.search else "plan.json"))
        if content is None or sha256(content) != submission.plan_sha256:
            return None
        plan = replace(Plan.from_bytes(content), experiment=self.experiment)
        self._plan = submission.plan_sha256, plan
        return plan

    def keep_plan(self, plan: Plan) -> None:
        """Writes ``plan.json`` anew, as far as a search has come, for those who read only the store."""
        self.store.put(self._path("plan.json"), plan.to_bytes())

    def assign(self, name: str, content: bytes) -> str:
        """Writes a Job's ``job.json`` unless it is there; the SHA-256 of what is there."""
        path = self._path(f"jobs/{name}/job.json")
        there = self.store.get(path)
        if there is None:
            self.store.put(path, content)
        return sha256(there or content)

    def is_assigned(self, name: str) -> bool:
        """Whether a Job of this name was ever begun."""
        return name in self._assignments or self.store.get(self._path(f"jobs/{name}/job.json")) is not None

    def assignment(self, name: str, digest: str | None = None) -> tuple[Assignment, Plan, dict[str, Any]]:
        """What a Job makes. Raises DamagedRunError when it is missing, or not what ``digest`` says."""
        if digest is None and name in self._assignments:
            return self._assignments[name]
        path = self._path(f"jobs/{name}/job.json")
        content = self.store.get(path)
        if content is None or (digest is not None and sha256(content) != digest):
            fault = "is missing" if content is None else "was changed"
            raise DamagedRunError(f"{self.store.url}/{path} {fault}: submit again.")
        self._assignments[name] = read_assignment(content)
        return self._assignments[name]

    def outcomes(self) -> list[Outcome]:
        """What ended Jobs came to; what a version tells to be unchanged is not read again."""
        outcomes = []
        for file in self.store.files(self._path("jobs")):
            if not file.path.endswith("/outcome.json"):
                continue
            outcome = self._outcomes.get((file.path, file.version)) if file.version else None
            if outcome is None and (content := self.store.get(file.path)) is not None:
                try:
                    plain = json.loads(content)
                    plain["groups"] = tuple((variant, seed) for variant, seed in plain["groups"])
                    outcome = self._outcomes[file.path, file.version] = Outcome(**plain)
                except (ValueError, KeyError, TypeError) as error:
                    raise self._damaged(file.path, error) from error
            if outcome is not None:
                outcomes.append(outcome)
        return outcomes

    def conclude(self, outcome: Outcome) -> None:
        """Writes down what a Job came to, or that it is set aside."""
        self.store.put(self._path(f"jobs/{outcome.job}/outcome.json"), to_json(asdict(outcome)))

    def pods(self, live: Collection[str] = ()) -> list[PodRecord]:
        """What all pods took so far, of all attempts.

        A record that was read before is not read again while its pod is among the ``live`` ones of the cluster: then it has
        lasted longer by the time since. Nor once its pod has ended, unless the pod is live all the same, or has written
        again: it was out of sight.
        """
        records, now = [], time.monotonic()
        for file in self.store.files(self._path("jobs")):
            if "/pods/" not in file.path:
                continue
            read, version, record = self._pods.get(file.path, (now, None, None))
            if record is not None and not record.ended and record.pod in live:
                records.append(record.lasting(record.seconds + now - read))
                continue
            if record is not None and record.ended and record.pod not in live and version == file.version:
                records.append(record)
                continue
            content = self.store.get(file.path)
            if content is None:
                continue
            try:
                record = PodRecord(**json.loads(content))
            except (ValueError, TypeError) as error:
                raise self._damaged(file.path, error) from error
            self._pods[file.path] = now, file.version, record
            records.append(record)
        return records

    def pod(self, job: str, pod: str) -> PodRecord | None:
        """What one pod took so far."""
        content = self.store.get(self._path(f"jobs/{job}/pods/{pod}.json"))
        return PodRecord(**json.loads(content)) if content is not None else None

    def keep_pod(self, record: PodRecord) -> None:
        """Writes down what a pod took so far."""
        self.store.put(self._path(f"jobs/{record.job}/pods/{record.pod}.json"), to_json(asdict(record)))

    def log_path(self, job: str, index: int | None, pod: str) -> str:
        """Where the log of a pod lies."""
        return self._path(f"logs/{job}/{0 if index is None else index}-{pod}.log")

    def _path(self, name: str) -> str:
        return f"{self.experiment}/{name}"

    def _damaged(self, name: str, error: Exception) -> DamagedRunError:
        return DamagedRunError(
            f"{self.store.url}/{self.experiment}/{name.removeprefix(f'{self.experiment}/')} cannot be read ({error!r}): "
            "delete it and submit the experiment again."
        )


def sha256(content: bytes) -> str:
    """Hexadecimal SHA-256."""
    return hashlib.sha256(content).hexdigest()
