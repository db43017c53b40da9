"""What making one run took and cost, as a document: ``cost.json``, beside the sealed run and not in it.

How long a run takes and what an hour costs are no functions of its spec: in the sealed folder they would break
"the same spec gives the same bytes".
"""

from __future__ import annotations

import json
from typing import Any

from ticketsmith.prices.rate import Rate


def run_cost(
    key: str, run: str, seconds: float, device: str, rate: Rate | None = None, side_by_side: int = 1
) -> dict[str, Any]:
    """The document. ``seconds``: wall clock; ``run``: its folder; ``device``: ``cpu`` or ``cuda``.

    Runs that are made ``side_by_side`` share the machine's hour, and its GPUs: each is charged its part. Without a rate
    everything about money is null.
    """
    part = seconds / side_by_side
    gpus = max(1, rate.gpus if rate else 1) if device == "cuda" else 0
    return {
        "key": key,
        "run": run,
        "seconds": round(seconds, 3),
        "gpu_seconds": round(part * gpus, 3),
        "device": device,
        "side_by_side": side_by_side,
        "machine": rate.machine if rate else None,
        "price_per_hour": rate.per_hour if rate else None,
        "currency": rate.currency if rate else None,
        "spot": rate.spot if rate else None,
        "price": round(rate.price(part), 9) if rate else None,
        "idle_tail_seconds": rate.idle_tail / side_by_side if rate else None,
        "idle_tail_price": round(rate.price(rate.idle_tail / side_by_side), 9) if rate else None,
        "source": rate.source if rate else None,
        "dated": rate.dated if rate else None,
    }


def cost_path(run: str) -> str:
    """Where the cost of a run lies: ``<experiment>/<rest>`` -> ``<experiment>/ledger/<rest>/cost.json``."""
    experiment, _, rest = run.partition("/")
    return f"{experiment}/ledger/{rest}/cost.json"


def cost_paths(run: str, key: str) -> tuple[str, str]:
    """Where to look for it, in order: stores of TicketSmith 0.1 have ``ledger/<key>.json``, times only."""
    return cost_path(run), f"{run.partition('/')[0]}/ledger/{key}.json"


def parse_cost(content: bytes | None, key: str) -> dict[str, Any] | None:
    """The document of a run, None when there is none or it cannot be read: a lost one loses a cost, and no result."""
    try:
        document = json.loads(content) if content is not None else None
    except ValueError:
        return None
    return document if isinstance(document, dict) and document.get("key") == key else None
