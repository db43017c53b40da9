"""What a recipe may say. Descriptions here become the JSON Schema and ``docs/recipe.md``."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, PrivateAttr, Tag, field_validator, model_validator

from ticketsmith.config.methods import Pruning, Variants
from ticketsmith.config.tasks import (
    ClassificationTask,
    Component,
    DenoisingTask,
    Fraction,
    HuggingFaceTask,
    LanguageTask,
    OwnTask,
    component,
    task_kind,
)
from ticketsmith.evidence.verdicts import Gate, GatePolicy
from ticketsmith.spec import Duration, Frozen, Training
from ticketsmith.store.contract import check_name


class GateSettings(Frozen):
    """The tolerated loss of one metric against dense; one of the two."""

    max_drop: float | None = Field(
        None, gt=0, description="Absolute, in the metric's unit: 2.0 is two points of accuracy."
    )
    max_relative_increase: float | None = Field(
        None, gt=0, description="Relative to dense: 0.05 tolerates a loss higher by 5 %."
    )

    @model_validator(mode="after")
    def _one(self) -> GateSettings:
        if (self.max_drop is None) == (self.max_relative_increase is None):
            raise ValueError("give `max_drop` or `max_relative_increase`, one of the two")
        return self


class Gates(Frozen):
    """When a sparse network is good enough."""

    metrics: dict[str, GateSettings] = Field(
        default_factory=lambda: {"accuracy": GateSettings(max_drop=2.0)},
        min_length=1,
        description="Tolerated loss by metric, e.g. `{accuracy: {max_drop: 2.0}}`.",
    )
    method: Literal["non-inferiority", "point"] | None = Field(
        None,
        description="`non-inferiority`: a one-sided paired test over replicates. `point`: the mean alone. By default the "
        "test when there are two or more replicates.",
    )
    confidence: float = Field(0.95, ge=0.5, lt=1, description="Confidence of each test.")
    at: Literal["final", "early_stop"] = Field(
        "final",
        description="Which weights are judged: after the last iteration, or at the minimum of the validation loss.",
    )
    target_sparsity: Fraction | None = Field(
        None, description="The sparsity that must pass: decides the exit status of `prune` and `gate`."
    )


class BenchmarkSettings(Frozen):
    """Wall-clock inference, measured at the end of `prune`."""

    batch_sizes: tuple[Annotated[int, Field(ge=1, le=65536)], ...] = Field(
        (1, 32), strict=False, min_length=1, description="Inputs a call."
    )
    rounds: int = Field(100, ge=10, le=100_000, description="Interleaved rounds over all models.")


class Recipe(Frozen):
    """One experiment."""

    experiment: str = Field(description="Name of the experiment: its folder in the store.")
    task: Annotated[
        Annotated[ClassificationTask, Tag("classification")]
        | Annotated[LanguageTask, Tag("language")]
        | Annotated[DenoisingTask, Tag("denoising")]
        | Annotated[HuggingFaceTask, Tag("huggingface")]
        | Annotated[OwnTask, Tag("own")],
        Discriminator(task_kind),
    ] = Field(description="Data, model and what is measured.")
    training: Training = Field(description="How the dense network and every ticket are trained.")
    pruning: Pruning = Field(description="How tickets are found.")
    rewind: Duration = Field(
        "0it", description="Where tickets are rewound to: `0it` is the initial weights, more is late rewinding."
    )
    replicates: int = Field(3, ge=1, le=1000, description="Seeds 0, 1, 2, ...: each trains everything anew.")
    variants: Variants = Field(default_factory=Variants, description="Controls and rivals of the winning ticket.")
    gates: Gates = Field(default_factory=Gates, description="When a sparse network is good enough.")
    benchmark: BenchmarkSettings = Field(default_factory=BenchmarkSettings, description="Measured inference speed.")
    store: Component = Field(
        "runs",
        description="Folder that holds all experiments, or a store of your own: `package.module:Class`, with options.",
    )

    _base: Path = PrivateAttr(default_factory=Path.cwd)
    _source: str = PrivateAttr(default="")

    @model_validator(mode="after")
    def _check(self) -> Recipe:
        if float(self.training.duration[:-2]) <= 0 and (trained := self.variants.trained):
            raise ValueError(
                f"`training.duration` must be more than zero: `{trained[0]}` is trained. To prune a pretrained model without "
                "any training, set `variants: {ticket: false, post_training: {}}`"
            )
        return self

    @field_validator("experiment")
    @classmethod
    def _folder_name(cls, name: str) -> str:
        try:
            return check_name(name, "the name")
        except Exception as error:
            raise ValueError(str(error)) from error

    @property
    def base(self) -> Path:
        """The folder that relative paths in ``task`` are taken from: the recipe's own."""
        return self._base

    @property
    def source(self) -> str:
        """The YAML text that this recipe is."""
        return self._source

    @property
    def task_component(self) -> dict[str, Any]:
        """The task as a component: its name, and its options with defaults left out."""
        if isinstance(self.task, OwnTask):
            return {"name": self.task.name, **(self.task.model_extra or {})}
        plain = self.task.model_dump(exclude_defaults=True)
        return {
            **plain,
            "name": self.task.name,
            "data": component(self.task.data),
            "model": component(self.task.model),
        }

    @property
    def store_component(self) -> str | dict[str, Any]:
        """A folder's path, or a store of the user's own by name, with options."""
        return (
            self.store if isinstance(self.store, str) else {"name": self.store.name, **(self.store.model_extra or {})}
        )

    @property
    def criterion(self) -> str | dict[str, Any]:
        """The pruning criterion as a component."""
        return component(self.pruning.criterion)

    @property
    def policy(self) -> GatePolicy:
        """The gates as the evidence judges them."""
        method = self.gates.method or ("non-inferiority" if self.replicates > 1 else "point")
        gates = tuple(
            Gate(name, settings.max_drop, settings.max_relative_increase)
            for name, settings in self.gates.metrics.items()
        )
        return GatePolicy(gates, method, self.gates.confidence, self.gates.at, self.gates.target_sparsity)

    @property
    def sha256(self) -> str:
        """Hash of what the recipe says, whatever its comments and layout; a default ``structure``, which the hashes of earlier
        versions do not know, is left out."""
        plain = self.model_dump(mode="json", exclude={"store"})
        if self.pruning.structure == "unstructured":
            del plain["pruning"]["structure"]
        text = json.dumps(plain)
        return hashlib.sha256(text.encode()).hexdigest()
