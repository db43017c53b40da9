"""Every recorded network of $CASES on this machine's instruction sets; the status is 1 where an answer is another."""

from __future__ import annotations

import itertools
import json
import os
import pickle
import sys
from pathlib import Path

import numpy as np

from ticketsmith.native import Isa, has_isa
from ticketsmith.runtime.artifact import open_artifact
from ticketsmith.runtime.model import Model
from ticketsmith.training.native.engine import Engine

if not hasattr(np, "_core"):  # arrays were written by a NumPy whose modules have other names than this one's
    sys.modules |= {"numpy._core": np.core, "numpy._core.multiarray": np.core.multiarray}
isas = [isa for isa in Isa if has_isa(isa)]
wrong = 0
places = sorted(Path(os.environ["CASES"]).glob("*.json"))
for place in places:
    asked = json.loads(place.read_text())
    tolerance, choices = asked.pop("tolerance", 1e-4), asked.pop("choices", [None])
    asked.pop("threads", None)  # answers do not depend on them
    graph = open_artifact(place.with_suffix(".tsk")).graph
    with np.load(place.with_suffix(".npz")) as case:
        inputs, expected = case["inputs"], case["expected"]
    for isa, choice in itertools.product(isas, choices):
        model = Model(graph, choice, isa=isa, **asked)
        for _ in range(2):  # scratch memory is used again
            error = np.abs(model(inputs) - expected).max() / max(1e-3, float(np.abs(expected).max()))
            if not error <= tolerance:
                wrong += 1
                print(f"{place.stem} on {isa.name}: {error:.1e}, {choice}, {asked}")
trainings = sorted(Path(os.environ["CASES"]).glob("*.training"))
for place in trainings:
    given, options, called, expected = pickle.loads(place.read_bytes())  # written beside this by record.py
    for isa in isas:
        engine = Engine(*given, isa=isa, **options)
        engine.train(*called)
        weights = engine.parameters()
        off = sum(float(np.square(weights[name] - value).sum()) for name, value in expected.items())
        error = (off / sum(float(np.square(value).sum()) for value in expected.values())) ** 0.5
        if not error <= 1e-3:
            wrong += 1
            print(f"training {place.stem} on {isa.name}: {error:.1e}, {given[-2:]}")
print(
    f"{len(trainings)} trainings, {len(places)} networks on {', '.join(isa.name for isa in isas)}: {wrong} wrong answers"
)
sys.exit(1 if wrong or not places or not trainings else 0)
