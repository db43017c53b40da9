"""What a run is: everything that can change its weights, and a key over it.

A run is a pure function of its ``RunSpec``. Specs refer to other runs by key, so a key is a Merkle hash over the whole
history of a run: a ticket's key holds its dense run's key, that one's training, and so on. Fields at their default are
left out of the canonical form, so that a new field with a default changes no key that exists.

    task      which data, model, loss and metrics          (the identity: content, not paths)
    training  optimizer, schedule, batch size, duration
    seed      the replicate: initial weights, data order, augmentation and masks, each from its own stream
    weights   init(draw) | rewind(point, step) | continue(run)
    mask      dense | prune(run, rule) | same(run) | shuffle(run, draw) | at_init(rule)
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

SCIENCE_VERSION = 1
"""Raised by hand whenever the same spec would train to other weights; part of every key."""


KERNELS_VERSION = 4
"""The same for runs of ``kernels: native``: part of their keys alone. Raised whenever the native kernels, or the rule which
layers they keep sparse, give other weights."""


class Frozen(BaseModel):
    """Strict, immutable, no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


_PATTERN = re.compile(r"([1-9]\d?):([1-9]\d?)")


def _normal_pattern(value: Any) -> str:
    match = _PATTERN.fullmatch(value.replace(" ", "")) if isinstance(value, str) else None
    if match is None or int(match[1]) >= int(match[2]):
        raise ValueError('expected "N:M", N of every M weights stay with N below M, for example 2:4')
    return match[0]


Pattern = Annotated[
    str, BeforeValidator(_normal_pattern), WithJsonSchema({"type": "string", "pattern": r"^[1-9]\d?:[1-9]\d?$"})
]
"""``2:4``: of every 4 weights in a row that meet consecutive inputs, 2 stay."""


def n_of_m(pattern: str) -> tuple[int, int]:
    """N and M of ``N:M``."""
    n, _, m = pattern.partition(":")
    return int(n), int(m)


def _block_shape(value: Any) -> tuple[int, int]:
    sizes = value if isinstance(value, list | tuple) else ()
    if len(sizes) != 2 or not all(type(size) is int and 1 <= size <= 256 for size in sizes):
        raise ValueError("expected [outputs, inputs], two whole numbers from 1 to 256, for example [1, 4]")
    if tuple(sizes) == (1, 1):
        raise ValueError("a block of one output and one input is a single weight: leave `pattern` out")
    return sizes[0], sizes[1]


BlockShape = Annotated[
    tuple[int, int],
    BeforeValidator(_block_shape),
    WithJsonSchema(
        {
            "type": "array",
            "items": {"type": "integer", "minimum": 1, "maximum": 256},
            "minItems": 2,
            "maxItems": 2,
        }
    ),
]
"""``(1, 4)``: one output and four consecutive inputs, whose weights stay or go together."""


_DURATION = re.compile(r"(\d{1,12}(?:\.\d{1,6})?)\s*(it|ep)")


def _normal_duration(value: Any) -> str:
    text = f"{value}it" if isinstance(value, int) and not isinstance(value, bool) else value
    match = _DURATION.fullmatch(text.strip()) if isinstance(text, str) else None
    if match is None or (match[2] == "it" and "." in match[1]):
        raise ValueError(
            "expected a duration such as '500it' (iterations), '20ep' (epochs), or a whole number of iterations"
        )
    return f"{Decimal(match[1]).normalize():f}{match[2]}"


Duration = Annotated[
    str,
    BeforeValidator(_normal_duration),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": r"^\d{1,12}(\.\d{1,6})?\s*(it|ep)$"},
                {"type": "integer", "minimum": 0},
            ]
        }
    ),
]
"""A length of training: ``500it`` (iterations) or ``20ep`` (epochs); kept as text, in one normal form."""


def in_steps(duration: str, train_size: int, batch_size: int) -> int:
    """The duration in iterations, rounded up: an epoch is ``train_size / batch_size`` iterations."""
    number, unit = duration[:-2], duration[-2:]
    if unit == "it":
        return int(number)
    return math.ceil(Fraction(number) * train_size / batch_size)


class Training(Frozen):
    """How weights are trained."""

    optimizer: Literal["adam", "adamw", "sgd"] = Field(description="The optimizer.")
    lr: float = Field(gt=0, description="Learning rate at its peak.")
    batch_size: int = Field(ge=1, le=1_000_000, description="Examples an iteration.")
    duration: Duration = Field(description="Length of training, e.g. `50000it` or `160ep`; `0it` trains nothing.")
    momentum: float = Field(0.0, ge=0, lt=1, description="Momentum of `sgd`.")
    nesterov: bool = Field(False, description="Nesterov's form of the momentum.")
    weight_decay: float = Field(0.0, ge=0, description="Weight decay: L2 for `adam` and `sgd`, decoupled for `adamw`.")
    schedule: Literal["constant", "step", "cosine", "linear"] = Field(
        "constant", description="What the learning rate does after warm-up; `cosine` and `linear` fall to zero."
    )
    milestones: tuple[Duration, ...] = Field(
        (), strict=False, description="When `step` multiplies the rate by `gamma`."
    )
    gamma: float = Field(0.1, gt=0, le=1, description="Factor at each milestone.")
    warmup: Duration = Field("0it", description="Linear warm-up from zero.")
    evaluate_every: Duration = Field("1ep", description="Interval of the validation curve and of early stopping.")
    dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="`bfloat16`: mixed precision; weights and optimizer stay in float32."
    )
    ema: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Decay a step of a moving average of the weights, which is what a run gives; 0 is off.",
    )
    accumulate: int = Field(
        1, ge=1, le=65_536, description="Parts of a batch that are computed one after another, their gradients summed."
    )
    ranks: int = Field(
        1, ge=1, le=64, description="Processes that share each batch, of one run; on GPUs, one GPU each."
    )
    activation_checkpointing: bool = Field(
        False, description="Blocks of the model keep no activations, and are computed once more for the gradient."
    )
    compile: bool = Field(False, description="Training steps by `torch.compile`; needs a C++ compiler.")

    @property
    def parts(self) -> int:
        """Equal parts that a batch is cut into, over all ranks."""
        return self.accumulate * self.ranks

    kernels: Literal["torch", "native"] = Field(
        "torch",
        description="What computes: PyTorch, or on CPUs `native` kernels, whose step costs what its density costs.",
    )

    @model_validator(mode="after")
    def _check(self) -> Training:
        if (self.schedule == "step") != bool(self.milestones):
            raise ValueError("`schedule: step` and `milestones` need each other")
        if self.optimizer != "sgd" and (self.momentum or self.nesterov):
            raise ValueError("`momentum` and `nesterov` belong to `optimizer: sgd`")
        if self.nesterov and not self.momentum:
            raise ValueError("`nesterov` needs a `momentum` above 0")
        if float(self.evaluate_every[:-2]) <= 0:
            raise ValueError("`evaluate_every` must be more than zero")
        if self.batch_size % self.parts:
            raise ValueError(
                f"`accumulate` {self.accumulate} x `ranks` {self.ranks} equal parts do not make a `batch_size` of "
                f"{self.batch_size}: choose one that {self.parts} divides"
            )
        if self.compile and self.activation_checkpointing:
            raise ValueError(
                "`compile` decides by itself what is computed once more: leave out `activation_checkpointing`"
            )
        return self


StructureName = Literal["unstructured", "row", "channel"]


class PruneRule(Frozen):
    """Which weights a round of pruning removes.

    ``fraction`` of the surviving weights goes in each round, within each layer (``scope: layer``), within each output of
    a layer (``scope: row``), or over all layers together (``scope: global``). With a ``pattern`` N:M, N of every M weights
    of an output that meet consecutive inputs stay: ``fraction`` is 1 - N/M. With a ``structure``, all weights of an output
    (``row``) or all that meet an input (``channel``) stay or go together, and ``fraction`` is that of outputs or inputs.
    With a ``block`` (outputs, inputs), so do the weights between that many consecutive outputs and inputs; ``fraction`` is
    that of blocks, and ``scope: row`` means the outputs of a row of blocks.
    ``rounds`` > 1 removes at once what that many rounds would remove. ``criterion_source`` is the fingerprint of a criterion
    of the user's own. ``rates`` are pairs of pattern and fraction; the last match counts. ``layout`` is 2 where the model
    has weights that earlier versions took together in another way (``pruning.layout_version``).

    Recipes refuse what has no meaning. A rule that a store holds stays readable: its ``pattern`` says alone what stays, and
    ``scope: global`` knows no ``rates``.
    """

    criterion: str | dict[str, Any] = "magnitude"
    criterion_source: str | None = None
    fraction: float = Field(gt=0, lt=1)
    scope: Literal["layer", "row", "global"] = "layer"
    pattern: Pattern | None = None
    rates: tuple[tuple[str, float], ...] = Field((), strict=False)
    exclude: tuple[str, ...] = Field((), strict=False)
    include: tuple[str, ...] = Field((), strict=False)
    rounds: int = Field(1, ge=1)
    layout: int = Field(1, ge=1, le=2)
    structure: StructureName = "unstructured"
    block: BlockShape | None = None

    @model_validator(mode="after")
    def _check(self) -> PruneRule:
        if self.block is not None and (self.pattern is not None or self.structure != "unstructured"):
            raise ValueError("a `block` goes without an N:M `pattern`, and without a `structure`")
        if self.structure != "unstructured" and (self.pattern is not None or self.scope == "row"):
            raise ValueError("a `structure` goes with `scope: layer` or `global`, and without a `pattern`")
        return self


class Init(Frozen):
    """Fresh weights from the replicate's init stream; ``draw`` 0 is the dense baseline's own, others are re-initialisations."""

    kind: Literal["init"] = "init"
    draw: int = 0


class Rewind(Frozen):
    """Weights rewound to an early state: the final weights of the rewind point ``run``, which is the dense run stopped
    after ``step`` iterations. Training goes on from that step of the schedule and of the data order."""

    kind: Literal["rewind"] = "rewind"
    run: str
    step: int = 0


class Continue(Frozen):
    """The final weights of ``run``; the schedule begins anew."""

    kind: Literal["continue"] = "continue"
    run: str


class Dense(Frozen):
    """No mask."""

    kind: Literal["dense"] = "dense"


class Prune(Frozen):
    """The mask of ``run`` with more removed, scored on its final weights."""

    kind: Literal["prune"] = "prune"
    run: str
    rule: PruneRule


class Same(Frozen):
    """The mask of ``run``."""

    kind: Literal["same"] = "same"
    run: str


class Shuffle(Frozen):
    """The mask of ``run``, shuffled within each layer: the same density, another place.

    With ``groups`` of M weights that meet consecutive inputs, within each group: an N:M pattern stays one. With a
    ``structure``, whole outputs or inputs change places; with a ``block``, whole blocks.
    """

    kind: Literal["shuffle"] = "shuffle"
    run: str
    draw: int = 0
    groups: int | None = None
    structure: StructureName = "unstructured"
    block: BlockShape | None = None


class AtInit(Frozen):
    """A mask scored on the starting weights, before any training."""

    kind: Literal["at_init"] = "at_init"
    rule: PruneRule
    draw: int = 0


Weights = Annotated[Init | Rewind | Continue, Field(discriminator="kind")]
Mask = Annotated[Dense | Prune | Same | Shuffle | AtInit, Field(discriminator="kind")]


class RunSpec(Frozen):
    """One trained network. ``stop_after`` ends training early, which is how a late rewind point is made."""

    task: dict[str, Any]
    training: Training
    seed: int = Field(ge=0)
    weights: Weights = Init()
    mask: Mask = Dense()
    stop_after: int | None = None

    @cached_property
    def canonical(self) -> dict[str, Any]:
        """The spec as plain data, fields at their default left out."""
        plain = self.model_dump(mode="json", exclude_defaults=True)
        for part in ("weights", "mask"):
            value = getattr(self, part)
            plain[part] = {"kind": value.kind, **value.model_dump(mode="json", exclude_defaults=True)}
        return plain

    @cached_property
    def key(self) -> str:
        """SHA-256 over the canonical form and the version of the science, 64 hex digits."""
        return key_of(self.canonical)

    @property
    def parents(self) -> tuple[str, ...]:
        """Keys of the runs that must exist before this one can be made."""
        weights = () if isinstance(self.weights, Init) else (self.weights.run,)
        mask = () if isinstance(self.mask, Dense | AtInit) else (self.mask.run,)
        return tuple(dict.fromkeys(weights + mask))

    @property
    def begin(self) -> int:
        """The iteration that training begins at."""
        return self.weights.step if isinstance(self.weights, Rewind) else 0

    def end(self, train_size: int) -> int:
        """The iteration that training ends at, of a task with so many training examples."""
        if self.stop_after is not None:
            return self.stop_after
        return in_steps(self.training.duration, train_size, self.training.batch_size)

    def until(self, step: int) -> RunSpec:
        """The rewind point: this run stopped after ``step`` iterations, so that it ends with the weights of that step."""
        fields = {name: getattr(self, name) for name in ("task", "training", "seed", "weights", "mask")}
        return RunSpec(**fields, stop_after=step)


def key_of(canonical: Mapping[str, Any], science: int = SCIENCE_VERSION, kernels: int = KERNELS_VERSION) -> str:
    """The key of a canonical spec, as it was or is under a version of the science, and of the kernels where they are native."""
    versions = {"science": science} | ({"kernels": kernels} if _is_native(canonical) else {})
    text = json.dumps({**versions, **canonical}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def is_key_of(key: str, canonical: Mapping[str, Any]) -> bool:
    """Whether ``key`` is that of a spec, under these versions or earlier ones: what is sealed stays readable."""
    kernels = range(1, KERNELS_VERSION + 1) if _is_native(canonical) else (1,)
    return any(key == key_of(canonical, science, one) for science in range(1, SCIENCE_VERSION + 1) for one in kernels)


def _is_native(canonical: Mapping[str, Any]) -> bool:
    training = canonical.get("training")
    return isinstance(training, Mapping) and training.get("kernels") == "native"


def from_canonical(plain: dict[str, Any]) -> RunSpec:
    """The spec that ``RunSpec.canonical`` came from."""
    return RunSpec.model_validate_json(json.dumps(plain))
