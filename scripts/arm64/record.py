"""A pytest plugin: writes every network that a test compares with PyTorch, its inputs and PyTorch's answer, to $CASES."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tests.runtime import networks
from ticketsmith import native, runtime
from ticketsmith.runtime.from_torch import from_torch

networks.ISAS[:] = [native.best_isa()]
_compare = networks.assert_same
_numbers = itertools.count()


def _recorded(module: nn.Module, inputs: Tensor, *given: Any, **options: Any) -> Any:
    model = _compare(module, inputs, *given, **options)
    asked = dict(zip(("isa", "choices", "threads", "tolerance", "precision"), given, strict=False)) | options
    asked.pop("isa", None)
    place = Path(os.environ["CASES"]) / f"{next(_numbers):05d}"
    runtime.save(place.with_suffix(".tsk"), from_torch(module, inputs))
    with torch.inference_mode():
        np.savez(place.with_suffix(".npz"), inputs=inputs.numpy(), expected=module(inputs).numpy())
    place.with_suffix(".json").write_text(json.dumps(asked))
    return model


networks.assert_same = _recorded
