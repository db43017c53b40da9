"""From a store to the evidence's results: reading only, every byte checked against its seal."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from typing import Any

from ticketsmith.errors import DamagedRunError, TicketSmithError
from ticketsmith.evidence.results import CurvePoint, LayerDensity, Measured, Metric, Result
from ticketsmith.plan import Plan
from ticketsmith.store.contract import SealedRun, Store


def read_plan(store: Store, experiment: str) -> Plan:
    """The plan that an experiment was last run with. Raises TicketSmithError when there is none."""
    content = store.get(f"{experiment}/plan.json")
    if content is None:
        known = store.experiments()
        here = f"Here are: {', '.join(known)}." if known else "There are no experiments here."
        raise TicketSmithError(f"{store.url}: no experiment {experiment!r}. {here}")
    try:
        return replace(Plan.from_bytes(content), experiment=experiment)  # its folder may have been renamed
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedRunError(
            f"{store.url}/{experiment}/plan.json cannot be read; run the experiment again to renew it."
        ) from error


def read_results(store: Store, plan: Plan) -> list[Result]:
    """The sealed runs of a plan, in its order. Raises DamagedRunError when one was changed."""
    folders = {folder.key8: folder for folder in store.folders(plan.experiment)}
    results = []
    for node in plan.results:
        folder = folders.get(node.key[:8])
        if folder is None:
            continue
        run = SealedRun(store, folder)
        if run.key != node.key:
            continue
        try:
            results.append(_result(run, node.variant, node.seed, node.level, node.draw, _seconds(store, run)))
        except (KeyError, TypeError, ValueError) as error:
            raise DamagedRunError(
                f"{store.url}/{folder}/metrics.json is not what TicketSmith writes: {error!r}"
            ) from error
    return results


def read_environment(store: Store, plan: Plan) -> dict[str, str]:
    """Where the runs were made: one value a field, or all that differ, separated by commas."""
    folders = {folder.key8: folder for folder in store.folders(plan.experiment)}
    seen: dict[str, dict[str, None]] = {}
    for node in plan.results:
        if (folder := folders.get(node.key[:8])) is not None:
            for field, value in SealedRun(store, folder).read_json("environment.json").items():
                if value is not None:
                    seen.setdefault(field, {})[str(value)] = None
    return {field: ", ".join(values) for field, values in seen.items()}


def _seconds(store: Store, run: SealedRun) -> float | None:
    entry = store.get(f"{run.folder.experiment}/ledger/{run.key}.json")
    try:
        return float(json.loads(entry)["seconds"]) if entry is not None else None
    except (ValueError, KeyError, TypeError):
        return None


def _result(run: SealedRun, variant: str, seed: int, level: int, draw: int, seconds: float | None) -> Result:
    plain = run.read_json("metrics.json")
    return Result(
        variant=variant,
        seed=seed,
        level=level,
        draw=draw,
        key=run.key,
        path=str(run.folder),
        diverged=plain["status"] == "diverged",
        total=plain["weights"]["total"],
        kept=plain["weights"]["kept"],
        parameters=plain.get("parameters"),
        steps=plain["steps"],
        metrics={metric["name"]: Metric(**metric) for metric in plain["metrics"]},
        layers={name: LayerDensity(layer["total"], layer["kept"]) for name, layer in plain["layers"].items()},
        final=_measured(plain.get("final")),
        early_stop=_measured(plain.get("early_stop")),
        diverged_at=plain.get("diverged_at"),
        training_flops=plain["flops"]["training"],
        seconds=seconds,
        curve=_curve(run.read("curve.csv").decode()),
    )


def _measured(plain: dict[str, Any] | None) -> Measured | None:
    return Measured(plain["step"], plain["validation"], plain["test"]) if plain else None


def _curve(text: str) -> list[CurvePoint]:
    points = []
    for row in csv.DictReader(io.StringIO(text)):
        validation = {
            name.removeprefix("validation_"): float(value)
            for name, value in row.items()
            if name.startswith("validation_")
        }
        points.append(CurvePoint(int(row["step"]), float(row["train_loss"]), validation))
    return points
