"""What the cluster really billed: every pod that ran, with start-up, relaunches and idle tails, against its runs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from ticketsmith.evidence.results import Bill, Result


@dataclass(frozen=True)
class Pod:
    """What one pod took. ``seconds``: while its node was paid for on its behalf; ``index``: of its Job's replicates.

    ``gpu_utilisation`` is a mean, 0..1, None when it was not watched. ``price_per_hour`` is None where no price is known.
    ``exit`` is None while it runs, and when nobody saw it end; ``ended`` tells these apart.
    """

    pod: str
    job: str
    variant: str
    seconds: float
    index: int = 0
    gpu_seconds: float = 0.0
    gpu_utilisation: float | None = None
    machine: str = ""
    price_per_hour: float | None = None
    currency: str = ""
    gpus: int = 0
    spot: bool = False
    idle_tail_seconds: float = 0.0
    exit: int | None = None
    reason: str = ""
    ended: bool = True

    @property
    def price(self) -> float | None:
        """What its time cost, without the idle tail."""
        return None if self.price_per_hour is None else self.seconds * self.price_per_hour / 3600

    @property
    def idle_price(self) -> float:
        """What its node cost that idled after it; nothing while it runs."""
        return self.idle_seconds * (self.price_per_hour or 0.0) / 3600

    @property
    def idle_seconds(self) -> float:
        return self.idle_tail_seconds if self.ended else 0.0


@dataclass(frozen=True)
class Part:
    """The pods of one kind. ``price`` is without idle tails; None where it cannot be said."""

    pods: int
    seconds: float
    price: float | None


@dataclass(frozen=True)
class ClusterBill:
    """All pods of an experiment. ``useful_seconds`` is what of their time the runs themselves took that were made on
    these machines; the rest is starting, loading, measuring, and work that an eviction or a failure threw away.

    ``again`` counts pods that were started after another of the same replicate; ``failed`` those that ended without
    success, ``running`` those that have not ended. ``price`` (with ``idle_price`` in it) is None when a pod has no price
    or they are in several currencies. ``utilisation`` is weighted by GPU time. ``unreadable`` records were left out.
    """

    pods: int
    seconds: float
    gpu_seconds: float
    idle_seconds: float
    price: float | None
    idle_price: float
    currency: str
    unpriced: int
    utilisation: float | None
    useful_seconds: float
    again: int
    failed: Part
    running: int
    by_variant: Mapping[str, Part]
    reasons: Mapping[str, int]
    unreadable: int = 0


def pod_from_json(document: Any) -> Pod:
    """A pod's record. Raises ValueError for one that is no record; fields that this version does not know are left out."""
    if not isinstance(document, dict):
        raise ValueError("no record")
    names = {field.name for field in fields(Pod)}
    pod = Pod(**{name: value for name, value in document.items() if name in names and value is not None})
    numbers = (pod.seconds, pod.gpu_seconds, pod.idle_tail_seconds, pod.price_per_hour or 0.0, pod.gpu_utilisation or 0)
    if not all(isinstance(number, int | float) and math.isfinite(number) and number >= 0 for number in numbers):
        raise ValueError("a number that is none")
    if not all(
        isinstance(text, str) for text in (pod.pod, pod.job, pod.variant, pod.machine, pod.currency, pod.reason)
    ):
        raise ValueError("a text that is none")
    return pod


def bill_from_json(document: Mapping[str, Any]) -> Bill | None:
    """What making a run took and cost, from its ``cost.json``; None where a number in it is none."""

    def number(name: str) -> float:
        value = float(document.get(name) or 0.0)
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(name)
        return value

    try:
        return Bill(
            seconds=number("seconds"),
            device=str(document.get("device") or ""),
            side_by_side=max(1, int(number("side_by_side"))),
            gpu_seconds=number("gpu_seconds"),
            machine=str(document.get("machine") or ""),
            price_per_hour=None if document.get("price_per_hour") is None else number("price_per_hour"),
            currency=str(document.get("currency") or ""),
            spot=bool(document.get("spot")),
            price=None if document.get("price") is None else number("price"),
            idle_seconds=number("idle_tail_seconds"),
            idle_price=number("idle_tail_price"),
            source=str(document.get("source") or ""),
            dated=str(document.get("dated") or ""),
            copied="copied_from" in document,
            origin=str(document.get("copied_from", "")).partition("/")[0],
        )
    except (ValueError, TypeError):
        return None


def cluster_bill(pods: Sequence[Pod], results: Sequence[Result], unreadable: int = 0) -> ClusterBill | None:
    """The sum over all pods; None when there are none."""
    if not pods and not unreadable:
        return None
    currencies = {pod.currency for pod in pods if pod.price is not None}
    unpriced = sum(pod.price is None for pod in pods)
    whole = len(currencies) == 1 and unpriced == 0
    idle = math.fsum(pod.idle_price for pod in pods) if whole else 0.0
    watched = [(pod.gpu_utilisation, pod.gpu_seconds) for pod in pods if pod.gpu_utilisation is not None]
    watched_seconds = math.fsum(seconds for _, seconds in watched)
    failed = [pod for pod in pods if pod.ended and pod.exit != 0]
    machines = {pod.machine for pod in pods}
    bills_here = {
        run.key: run.bill for run in results if run.bill and run.bill.machine in machines and not run.bill.copied
    }
    return ClusterBill(
        pods=len(pods),
        seconds=math.fsum(pod.seconds for pod in pods),
        gpu_seconds=math.fsum(pod.gpu_seconds for pod in pods),
        idle_seconds=math.fsum(pod.idle_seconds for pod in pods),
        price=math.fsum(pod.price or 0.0 for pod in pods) + idle if whole else None,
        idle_price=idle,
        currency=next(iter(currencies)) if whole else "",
        unpriced=unpriced,
        utilisation=math.fsum(u * s for u, s in watched) / watched_seconds if watched_seconds > 0 else None,
        useful_seconds=math.fsum(bill.machine_seconds for bill in bills_here.values()),
        again=len(pods) - len({(pod.job, pod.index) for pod in pods}),
        failed=_part(failed, whole),
        running=sum(not pod.ended for pod in pods),
        by_variant={
            name: _part([pod for pod in pods if pod.variant == name], whole)
            for name in dict.fromkeys(pod.variant for pod in pods)
        },
        reasons=dict(Counter(pod.reason or f"exit {pod.exit}" for pod in failed)),
        unreadable=unreadable,
    )


def _part(pods: Sequence[Pod], whole: bool) -> Part:
    price = math.fsum(pod.price or 0.0 for pod in pods) if whole else None
    return Part(len(pods), math.fsum(pod.seconds for pod in pods), price)
