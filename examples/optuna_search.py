"""Optuna asks, TicketSmith answers: which learning rate and rewind point give the sparsest network that passes its gates?

    pip install "ticketsmith[data]" optuna
    python examples/optuna_search.py --config configs/digits.yaml --trials 10

Kill it at any moment and give the same command again. The study lies in a file of SQLite, and a trial that was cut off is
asked once more, with the same parameters: what is sealed of it has its key and is not trained again. Nor is what two trials
share: a dense run that differs in nothing is the same run.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

import optuna
from optuna.trial import Trial, TrialState

import ticketsmith


def propose(trial: Trial) -> dict[str, object]:
    """What a trial changes in the recipe."""
    return {
        "training.lr": trial.suggest_float("training.lr", 5e-4, 5e-3, log=True),
        "rewind": f"{trial.suggest_int('rewind', 0, 20, step=10)}it",
    }


def answer(config: Path, store: Path, changes: dict[str, object]) -> tuple[float, int, int]:
    """The sparsity that passes its gates, 0 when none does; and how many runs were trained, and were there already."""
    name = hashlib.sha256(json.dumps(changes, sort_keys=True).encode()).hexdigest()[:8]
    overrides = [f"{field}={json.dumps(value)}" for field, value in changes.items()]
    recipe = ticketsmith.load(config, [*overrides, f"experiment=trial_{name}", f"store={json.dumps(str(store))}"])
    experiment = ticketsmith.run(recipe, benchmark=False)
    spot = experiment.sweet_spot()
    return spot.sparsity if spot else 0.0, experiment.outcome.trained, experiment.outcome.cached


def main() -> None:
    """Asks until there are as many trials as wanted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--store", type=Path, default=Path("runs"))
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the sampler")
    arguments = parser.parse_args()

    arguments.store.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        study_name="ticket",
        storage=f"sqlite:///{arguments.store / 'optuna.db'}",
        direction="maximize",
        load_if_exists=True,
    )
    # Another seed after each start: the same one would propose what was proposed before.
    study.sampler = optuna.samplers.TPESampler(seed=arguments.seed + len(study.trials))
    for cut_off in study.get_trials(states=[TrialState.RUNNING]):  # by whatever ended this program the last time
        study.tell(cut_off.number, state=TrialState.FAIL)
        study.enqueue_trial(cut_off.params)
    while len(study.get_trials(states=[TrialState.COMPLETE])) < arguments.trials:
        trial = study.ask()
        changes = propose(trial)
        sparsity, trained, cached = answer(arguments.config, arguments.store, changes)
        study.tell(trial, sparsity)
        print(f"trial {trial.number}: {changes}: {sparsity:.1%} ({trained} trained, {cached} cached)", flush=True)
    print(f"best: {study.best_value:.1%} by {study.best_params}")


if __name__ == "__main__":
    main()
