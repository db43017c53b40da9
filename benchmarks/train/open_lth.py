"""The training of open_lth (github.com/facebookresearch/open_lth) as a rival: its own model, loader, mask and loop.

Its sources take two changes to run with a PyTorch of today: ``models/base.py``, where ``DistributedDataParallel(Model)`` needs no
second base, and ``np.product`` in ``training/optimizers.py``, which is ``np.prod`` now. torchvision comes from a folder
(``pip install --no-deps --target``): its compiled operators, which nothing here calls, need not fit the installed PyTorch.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

_operators: list[Any] = []


def rival(sources: Path, torchvision: Path, data: Path, sparsity: float) -> Callable[[int], float]:
    """Trains so many steps of LeNet-300-100 with batch 60 and Adam; steps a second of CPU time, without start and evaluation.

    ``data`` holds mnist/MNIST/raw/*-ubyte.
    """
    if not _operators:
        sys.path[:0] = [str(sources), str(torchvision)]
        _operators.append(torch.library.Library("torchvision", "DEF"))
        for name in ("nms", "qnms"):
            _operators[0].define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import datasets.registry  # type: ignore[import-not-found]
    import models.registry  # type: ignore[import-not-found]
    import platforms.platform  # type: ignore[import-not-found]
    from foundations.hparams import DatasetHparams, ModelHparams, TrainingHparams  # type: ignore[import-not-found]
    from foundations.step import Step  # type: ignore[import-not-found]
    from platforms.base import Platform  # type: ignore[import-not-found]
    from pruning.mask import Mask  # type: ignore[import-not-found]
    from pruning.pruned_model import PrunedModel  # type: ignore[import-not-found]
    from training.train import train  # type: ignore[import-not-found]

    class Here(Platform):  # type: ignore[misc]
        root = tempfile.gettempdir()
        dataset_root = str(data)
        imagenet_root = str(data)

    platforms.platform._PLATFORM = Here()
    model = models.registry.get(ModelHparams("mnist_lenet_300_100", "kaiming_normal", "uniform"))
    mask = Mask()
    for name in model.prunable_layer_names:
        mask[name] = (torch.rand_like(model.state_dict()[name]) >= sparsity).float()
    model = PrunedModel(model, mask)
    hyperparameters = TrainingHparams("adam", 0.0012, "100000it")
    loader = datasets.registry.get(DatasetHparams("mnist", 60))

    def run(steps: int) -> float:
        ends: list[float] = []

        def tick(_: Any, step: Any, *__: Any) -> None:
            if step.it in (2, steps + 2):
                ends.append(time.process_time())

        end = Step.from_iteration(steps + 2, loader.iterations_per_epoch)
        with tempfile.TemporaryDirectory() as folder:
            train(hyperparameters, model, loader, folder, [tick], end_step=end)
        return steps / (ends[1] - ends[0])

    return run
