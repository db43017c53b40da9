"""A pytest plugin: writes to $CASES every network that a test compares with PyTorch, its inputs and PyTorch's answer; and of
training what each engine began with, and the weights after its first call."""

from __future__ import annotations

import itertools
import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tests.runtime import networks
from tests.training.native import test_engine
from ticketsmith import native, runtime
from ticketsmith.runtime.from_torch import from_torch
from ticketsmith.training.native.engine import Engine

networks.ISAS[:] = [native.best_isa()]
_compare = networks.assert_same
_numbers = itertools.count()


def _recorded(module: nn.Module, inputs: Tensor, *given: Any, **options: Any) -> Any:
    model = _compare(module, inputs, *given, **options)
    asked = dict(zip(("isa", "choices", "threads", "tolerance", "precision"), given, strict=False)) | options
    asked.pop("isa", None)
    graph = asked.pop("graph", None)
    place = Path(os.environ["CASES"]) / f"{next(_numbers):05d}"
    runtime.save(place.with_suffix(".tsk"), from_torch(module, inputs) if graph is None else graph)
    with torch.inference_mode():
        np.savez(place.with_suffix(".npz"), inputs=inputs.numpy(), expected=module(inputs).numpy())
    place.with_suffix(".json").write_text(json.dumps(asked))
    return model


networks.assert_same = _recorded


class _Recorded(Engine):
    """An engine whose first call is written; what the tests make from now on."""

    def __init__(self, *given: Any, isa: Any = None, **options: Any) -> None:
        super().__init__(*given, isa=isa, **options)
        self._given: Any = (given, options)

    def train(self, *called: Any) -> Any:
        losses = super().train(*called)
        if self._given is not None:
            place = Path(os.environ["CASES"]) / f"{next(_numbers):05d}.training"
            place.write_bytes(pickle.dumps((*self._given, called, self.parameters())))
            self._given = None
        return losses


test_engine.Engine = _Recorded  # type: ignore[misc]
