"""The price of a machine's hour."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

HOUR = 3600.0


@dataclass(frozen=True)
class Rate:
    """What an hour of ``machine`` costs, and who says so.

    ``gpus``: GPUs of the machine. ``idle_tail``: seconds that a node idles after a pod, before it is scaled down.
    ``source`` and ``dated`` say where the price comes from, and from when it is. ``on_demand`` is the on-demand price
    of a spot machine, where it is known.
    """

    machine: str
    per_hour: Annotated[float, Field(ge=0)]
    currency: str = "USD"
    gpus: int = 0
    spot: bool = False
    idle_tail: float = 0.0
    source: str = ""
    dated: str = ""
    on_demand: float | None = None

    @property
    def ceiling_per_hour(self) -> float:
        """The most that an hour can cost: for spot, whose price varies, the on-demand price."""
        return self.per_hour if self.on_demand is None else max(self.per_hour, self.on_demand)

    def price(self, seconds: float) -> float:
        """What ``seconds`` of the whole machine cost."""
        return seconds * self.per_hour / HOUR
