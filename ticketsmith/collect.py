"""From a store to the evidence's results: reading only, every byte checked against its seal."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from ticketsmith.errors import DamagedRunError, TicketSmithError
from ticketsmith.evidence.billing import Pod, bill_from_json, pod_from_json
from ticketsmith.evidence.curve import Curve
from ticketsmith.evidence.gates import judge
from ticketsmith.evidence.looks import Record
from ticketsmith.evidence.outcomes import FILE as OUTCOMES
from ticketsmith.evidence.outcomes import SealedOutcomes
from ticketsmith.evidence.results import Bill, LayerDensity, Metric, Result, Scores
from ticketsmith.evidence.sample_files import PICTURE, TEXT, Sample, fault
from ticketsmith.evidence.variants import DENSE
from ticketsmith.evidence.verdicts import Gate, GatePolicy
from ticketsmith.plan import Plan
from ticketsmith.prices.ledger import cost_paths, parse_cost
from ticketsmith.store.contract import RunFolder, SealedRun, Store, to_json
from ticketsmith.store.index import Index
from ticketsmith.store.snapshot import Snapshot

_AHEAD = re.compile(
    r"(manifest|metrics|environment|cost)\.json$|curve\.csv$|^[^/]+/(jobs/[^/]+/pods|ledger|looks)/.|/candidates/\w+/[^/]+\.json$"
)
"""The files that results are read from."""

_OUTCOMES = re.compile(rf"/{re.escape(OUTCOMES)}$")

Source = Store | Snapshot
"""Where results are read from; a snapshot reads many at a time, and what this machine knows already not at all."""


def read_plan(store: Store, experiment: str) -> Plan:
    """The plan that an experiment was last run with. Raises TicketSmithError when there is none."""
    content = store.get(f"{experiment}/plan.json")
    if content is None:
        names = store.experiments()
        here = f"Here are: {', '.join(names)}." if names else "There are no experiments here."
        raise TicketSmithError(f"{store.url}: no experiment {experiment!r}. {here}")
    try:
        return replace(Plan.from_bytes(content), experiment=experiment)  # its folder may have been renamed
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedRunError(
            f"{store.url}/{experiment}/plan.json cannot be read; run the experiment again to renew it."
        ) from error


def view(store: Store, experiment: str) -> Snapshot:
    """The experiment as it is now, with what its results are read from read ahead."""
    return Snapshot(store, experiment).read_ahead(_AHEAD)


def read_results(index: Index, plan: Plan) -> list[Result]:
    """The sealed runs of a plan, in its order. Raises DamagedRunError when one was changed."""
    if isinstance(index.store, Snapshot):
        index.store.read_ahead(_OUTCOMES)  # by which gates are judged
    runs = index.runs((node.key for node in plan.results), plan.experiment)
    results = []
    for node in plan.results:
        run = runs.get(node.key)
        if run is None:
            continue
        try:
            results.append(_result(run, node.variant, node.seed, node.level, node.draw, _bill(run)))
        except (KeyError, TypeError, ValueError) as error:
            raise DamagedRunError(
                f"{run.store.url}/{run.folder}/metrics.json is not what TicketSmith writes: {error!r}"
            ) from error
    return results


def read_samples(store: Source, results: Iterable[Result]) -> tuple[Sample, ...]:
    """The samples of these runs, of those that have any. Raises DamagedRunError when a file was changed or is none."""
    samples = []
    for result in results:
        folder = RunFolder.parse(result.path)
        assert folder is not None
        run = SealedRun(store, folder)
        files = {name: run.read(name) for name in (TEXT, PICTURE) if name in run.files}
        for name, content in files.items():
            if what := fault(name, content):
                raise DamagedRunError(f"{store.url}/{folder}/{name} {what}.")
        if files:
            text, picture = files.get(TEXT, b"").decode(), files.get(PICTURE, b"")
            samples.append(Sample(result.variant, result.level, result.seed, result.sparsity, text, picture))
    return tuple(samples)


def read_environment(index: Index, plan: Plan) -> dict[str, str]:
    """Where the runs were made: one value a field, or all that differ, separated by commas."""
    fields: dict[str, dict[str, None]] = {}
    different: dict[object, SealedRun] = {}  # the first of each: most runs have the same bytes
    for run in index.runs((node.key for node in plan.results), plan.experiment).values():
        different.setdefault(run.files.get("environment.json"), run)
    for run in different.values():
        for field, value in run.read_json("environment.json").items():
            if value is not None:
                fields.setdefault(field, {})[str(value)] = None
    return {field: ", ".join(values) for field, values in fields.items()}


def read_pods(store: Source, experiment: str) -> tuple[list[Pod], int]:
    """What a cluster's pods took for an experiment, by path, and how many records could not be read."""
    pods, unreadable = [], 0
    for file in store.files(f"{experiment}/jobs"):
        if not re.fullmatch(r"[^/]+/jobs/[^/]+/pods/[^/]+\.json", file.path):
            continue
        try:
            pods.append(pod_from_json(json.loads(store.get(file.path) or b"")))
        except (ValueError, TypeError):
            unreadable += 1
    return pods, unreadable


def read_looks(store: Source, experiment: str, results: Sequence[Result]) -> list[Record]:
    """The looks that were taken at an experiment, in order.

    ``gates.json`` is a look too, if none is recorded at so many replicates and it judged these very results: that of a version
    which kept no records, or of one that somebody deleted. Raises DamagedRunError when the record of a look was changed or
    removed, as far as the others tell.
    """
    records: list[Record] = []
    files = store.files(f"{experiment}/looks")
    for place, file in enumerate(files, start=1):
        content = store.get(file.path) or b""
        name = _LOOK.search(file.path)
        what = ""
        if name is None or int(name["number"]) > place:
            what = f"comes after one that is missing, look {place}"
        elif name["digest"] and name["digest"] != _digest(content):
            what = "was changed"
        try:
            plain = json.loads(content)
            gates = tuple(Gate(**gate) for gate in plain.get("gates", ()))
            records.append(Record(plain["replicates"], tuple(plain["declared"]), tuple(plain["dense"]), gates))
        except (ValueError, TypeError, KeyError):
            what = "cannot be read"
        if what:
            raise DamagedRunError(
                f"{store.url}/{file.path} {what}: nobody knows what verdicts were shown before. Restore it; or delete the "
                f"folder {experiment}/looks if all looks at this experiment may be forgotten."
            )
    last = _last_look(store.get(f"{experiment}/gates.json"), results)
    if last is not None and not any(
        record.replicates == last.replicates and set(record.dense) & set(last.dense) for record in records
    ):
        records.append(last)
    return records


_LOOK = re.compile(r"/(?P<number>\d+)-\d+-replicates(-(?P<digest>[0-9a-f]{8}))?\.json$")


def look_file(experiment: str, record: Record, before: int) -> tuple[str, bytes]:
    """Path and content of the record of a look that comes after ``before`` others."""
    content = to_json(asdict(record))
    return f"{experiment}/looks/{before + 1:04d}-{record.replicates}-replicates-{_digest(content)}.json", content


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:8]


def _last_look(gates: bytes | None, results: Sequence[Result]) -> Record | None:
    """The look that ``gates.json`` shows, if its estimates are those of the first seeds of ``results``."""
    try:
        document = json.loads(gates or b"{}")
        shown = [verdict for verdict in document["test"] if verdict["replicates"] > 1 and not verdict["missing"]]
        count = max(verdict["seeds"] for verdict in shown)
        declared = tuple(document["policy"].get("looks") or (count,))
        estimates = {(v["variant"], v["level"], v["gate"]["metric"]): (v["seeds"], v["estimate"]) for v in shown}
        policy = GatePolicy(
            tuple(Gate(**gate) for gate in document["policy"]["gates"]), method="point", at=document["policy"]["at"]
        )
        seeds = sorted({run.seed for run in results})[:count]
        first = [run for run in results if run.seed in seeds]
        verdicts = judge(first, policy, "test")
    except (ValueError, TypeError, KeyError, AttributeError, TicketSmithError):
        return None  # no verdicts of several replicates, or of other gates, or no document of this kind
    same = any(
        math.isclose(verdict.estimate, before, rel_tol=1e-9)
        for verdict in verdicts
        for number, before in [estimates.get((verdict.variant, verdict.level, verdict.gate.metric), (0, None))]
        if verdict.estimate is not None and before is not None and verdict.seeds == number
    )
    dense = tuple(sorted(run.key for run in first if run.variant == DENSE))
    return Record(count, declared, dense, policy.gates) if same else None


def _bill(run: SealedRun) -> Bill | None:
    """What making a run took and cost; None when its record is lost or is none."""
    contents = map(run.store.get, cost_paths(run.path, run.key))
    document = parse_cost(next((one for one in contents if one is not None), None), run.key)
    return None if document is None else bill_from_json(document)


def _result(run: SealedRun, variant: str, seed: int, level: int, draw: int, bill: Bill | None) -> Result:
    plain = run.read_json("metrics.json")
    return Result(
        variant=variant,
        seed=seed,
        level=level,
        draw=draw,
        key=run.key,
        path=run.path,
        diverged=plain["status"] == "diverged",
        total=plain["weights"]["total"],
        kept=plain["weights"]["kept"],
        parameters=plain.get("parameters"),
        steps=plain["steps"],
        metrics={metric["name"]: Metric(**metric) for metric in plain["metrics"]},
        layers={name: LayerDensity(layer["total"], layer["kept"]) for name, layer in plain["layers"].items()},
        final=_scores(plain.get("final")),
        early_stop=_scores(plain.get("early_stop")),
        diverged_at=plain.get("diverged_at"),
        training_flops=plain["flops"]["training"],
        seconds=bill.seconds if bill else None,
        bill=bill,
        curve=Curve(run.read("curve.csv"), f"{run.store.url}/{run.folder}/curve.csv"),
        weights=run.files.get("model.safetensors", ("", 0))[0],
        examples=plain.get("examples", {}),
        outcomes=_outcomes(run),
    )


def _outcomes(run: SealedRun) -> SealedOutcomes | None:
    """Those of single examples, of which nothing is read here."""
    if OUTCOMES not in run.files:
        return None
    return SealedOutcomes(partial(run.read, OUTCOMES), f"{run.store.url}/{run.folder}/{OUTCOMES}")


def _scores(plain: dict[str, Any] | None) -> Scores | None:
    if not plain:
        return None
    validation, test = (
        {name: math.nan if value is None else value for name, value in plain[split].items()}
        for split in ("validation", "test")
    )
    return Scores(plain["step"], validation, test)
