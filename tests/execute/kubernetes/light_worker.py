"""A pod that seals runs at once, without training: for tests of what goes on around pods. A real process, a real store.

The conductor is the real one. ``LIGHT_SECONDS`` (a variable of the image) is how long it works on a run; ``LIGHT_FAIL``
(``ticket:2``) is a variant that ends with an exit status instead. With ``LIGHT_CLIFF`` runs have been measured: the ticket
is as good as dense up to this level.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import time

from ticketsmith.execute.kubernetes.pod import pod_name
from ticketsmith.execute.kubernetes.records import PodRecord, Records
from ticketsmith.plan import PlannedRun
from ticketsmith.prices import Rate
from ticketsmith.store import open_store
from ticketsmith.store.contract import MANIFEST, manifest_of, to_json


def measured(node: PlannedRun) -> dict[str, bytes]:
    """What a search reads of a run; nothing without a cliff."""
    cliff = os.environ.get("LIGHT_CLIFF")
    if cliff is None:
        return {}
    fine = node.variant == "dense" or (node.variant == "ticket" and node.level <= int(cliff))
    accuracy = (95.0 if fine else 40.0) + 0.5 * (node.seed % 3) + 0.1 * node.level
    split = {"accuracy": accuracy}
    kept = round(1000 * 0.5**node.level)
    metrics = {
        "status": "trained",
        "weights": {"total": 1000, "kept": kept},
        "steps": 10,
        "metrics": [{"name": "accuracy", "higher_is_better": True, "unit": "%"}],
        "layers": {"output": {"total": 1000, "kept": kept}},
        "final": {"step": 10, "validation": split, "test": split},
        "flops": {"training": 1000},
    }
    return {"metrics.json": to_json(metrics), "curve.csv": b"step,train_loss\n", "model.safetensors": node.key.encode()}


def main(arguments: list[str]) -> int:
    verb, options = arguments[0], dict(zip(arguments[1::2], arguments[2::2], strict=False))
    if verb == "conduct":
        runpy.run_module("ticketsmith", run_name="__main__", alter_sys=True)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # nothing to save: no test waits for its grace period
    store = open_store(options["--store"])
    records = Records(store, options["--experiment"])
    if verb == "finish":
        return 0
    assignment, plan, _ = records.assignment(options["--job"], options["--sha256"])
    index = int(os.environ["JOB_COMPLETION_INDEX"])
    record = PodRecord.of(pod_name(), options["--job"], assignment.variant, index, Rate("my-node", 0.1))
    variant, _, status = os.environ.get("LIGHT_FAIL", "").partition(":")
    if variant == assignment.variant:
        print(f"ends with {status}, as it was told to", flush=True)
        return int(status)
    for key in assignment.shares[index].keys:
        node = plan.by_key[key]
        time.sleep(float(os.environ.get("LIGHT_SECONDS", "0.05")))
        files = {"spec.json": to_json(node.spec.canonical), **measured(node)}
        with store.claim(key) as granted:
            if granted:
                store.publish(node.folder(plan.experiment), {**files, MANIFEST: manifest_of(key, "trained", files)})
    records.keep_pod(record.lasting(1.0))
    print("all sealed", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
