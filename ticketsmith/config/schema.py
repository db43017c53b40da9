"""What a recipe may say. Descriptions here become the JSON Schema and ``docs/recipe.md``."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, PrivateAttr, Tag, field_validator, model_validator

from ticketsmith.config.search import Search
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
from ticketsmith.config.track import Track, also_by_name, as_list
from ticketsmith.evidence.looks import MOST
from ticketsmith.evidence.verdicts import Gate, GatePolicy, Method
from ticketsmith.spec import BlockShape, Duration, Frozen, Pattern, StructureName, Training, n_of_m
from ticketsmith.store.contract import check_name


class Blocks(Frozen):
    """Weights that stay or go together: a block of consecutive outputs and inputs of a layer."""

    block: BlockShape = Field(
        description="Outputs and inputs of a block: `[1, 4]` is four consecutive inputs of an output, `[4, 1]` four consecutive "
        "outputs at one input. Of a convolution inputs are channels, at the same place of the kernel."
    )


def _pattern_kind(value: Any) -> str:
    return "blocks" if isinstance(value, Blocks | Mapping) else "patterns"


def _also_one_pattern(schema: dict[str, Any]) -> None:
    """`pattern: "2:4"` is a list of one."""
    schema["oneOf"].insert(0, schema["oneOf"][0]["items"])


class Pruning(Frozen):
    """Iterative magnitude pruning: what goes in each round, and how many rounds."""

    levels: int = Field(ge=1, le=1000, description="Rounds of pruning; level 0 is the dense network.")
    fraction: Fraction = Field(0.2, description="Part of the surviving weights that a round removes.")
    scope: Literal["layer", "row", "global"] = Field(
        "layer",
        description="`layer`: the same part of every layer. `row`: the same part of every output of a layer, as Wanda asks. "
        "`global`: the smallest weights of all layers together.",
    )
    pattern: Annotated[
        Annotated[tuple[Pattern, ...], Field(strict=False), Tag("patterns")] | Annotated[Blocks, Tag("blocks")],
        Discriminator(_pattern_kind),
    ] = Field(
        (),
        json_schema_extra=_also_one_pattern,
        description='N:M pattern: `"2:4"` keeps 2 of every 4 weights that meet consecutive inputs; a list has one '
        'pattern a level, such as `["6:8", "4:8"]`, in place of `fraction` and `scope`. Or `{block: [1, 4]}`: blocks of one '
        "output and four consecutive inputs stay or go as a whole, and `fraction` and `rates` count blocks.",
    )
    structure: StructureName = Field(
        "unstructured",
        description="What stays or goes as a whole: single weights; `row`: all weights of an output; `channel`: all that meet an "
        "input. `fraction` and `rates` then count outputs or inputs; keep the last layer dense by `exclude`.",
    )
    criterion: Component = Field(
        "magnitude",
        description="What a weight is worth: `magnitude`, `wanda` (its options: `examples`, to calibrate on), `random`, or your "
        "own `package.module:function`.",
    )
    rates: dict[str, Fraction] = Field(
        default_factory=dict,
        description="Other fractions by layer name or pattern, e.g. `{output: 0.1}`; under `scope: layer` or `row`.",
    )
    exclude: tuple[str, ...] = Field((), strict=False, description="Layers that stay dense, by name or pattern.")
    include: tuple[str, ...] = Field(
        (),
        strict=False,
        description="Parameters to prune that are not by default, by name or pattern: those of recurrent layers and of "
        "attention, weights under a norm, embeddings, biases. `ticketsmith validate` lists them.",
    )

    @model_validator(mode="after")
    def _check(self) -> Pruning:
        if self.scope == "global" and self.rates:
            raise ValueError(
                "`rates` are for `scope: layer` and `scope: row`; with `scope: global` keep layers dense by `exclude`"
            )
        if self.scope == "row" and self.structure != "unstructured":
            raise ValueError(
                "within an output, `scope: row`, single weights compete: leave out `structure`, or `scope`"
            )
        if self.block and self.structure != "unstructured":
            raise ValueError(
                "`structure` and a `pattern` of blocks both say what goes as a whole: leave out one of them"
            )
        if self.patterns:
            self._check_patterns()
        return self

    def _check_patterns(self) -> None:
        if superfluous := {"fraction", "scope", "rates", "structure"} & self.model_fields_set:
            raise ValueError(f"`pattern` says how many weights stay, and where: leave out `{min(superfluous)}`")
        if len(self.patterns) != self.levels:
            raise ValueError(f"`pattern` names {len(self.patterns)} pattern(s), one a level: set `levels` to that")
        numbers = [n_of_m(pattern) for pattern in self.patterns]
        for (before, m), (n, same) in pairwise(numbers):
            if m != same or n >= before:
                raise ValueError(
                    'the patterns of the levels have the same M and ever fewer N, such as `["6:8", "4:8"]`'
                )

    @field_validator("pattern", mode="before")
    @classmethod
    def _one_pattern(cls, value: Any) -> Any:
        return value if isinstance(value, list | tuple | Mapping | Blocks) else [value]

    @property
    def patterns(self) -> tuple[str, ...]:
        """The N:M patterns, one a level; none where there are none."""
        return self.pattern if isinstance(self.pattern, tuple) else ()

    @property
    def block(self) -> tuple[int, int] | None:
        """Outputs and inputs of a block; None where single weights go, or a pattern or a structure."""
        return self.pattern.block if isinstance(self.pattern, Blocks) else None

    @property
    def is_free(self) -> bool:
        """Whether each weight stays or goes by itself, wherever it lies."""
        return not self.pattern and self.structure == "unstructured"


class Draws(Frozen):
    """A control with chance in it."""

    draws: int = Field(1, ge=1, le=100, description="How many per ticket.")


class Plain(Frozen):
    """A variant without options."""


class PostTraining(Frozen):
    """Pruning the trained dense network in one round, without any retraining."""

    rivals: tuple[Component, ...] = Field(
        (),
        strict=False,
        description="Other criteria to compare with: `[magnitude, random]`. Each is a variant of its own.",
    )

    @property
    def components(self) -> dict[str, str | dict[str, Any]]:
        """The rivals as components, by the name of their variant."""
        plain = [component(rival) for rival in self.rivals]
        return {f"post_{_short(rival if isinstance(rival, str) else rival['name'])}": rival for rival in plain}


def _short(criterion: str) -> str:
    return re.sub(r"[^a-z0-9_]", "_", criterion.rpartition(":")[2].lower())


class Finetune(Frozen):
    """Fine-tuning: the weights stay, the rate is low and constant."""

    lr: float = Field(gt=0, description="The constant learning rate.")
    duration: Duration = Field(description="Length of training at each level.")

    @field_validator("duration")
    @classmethod
    def _some(cls, duration: str) -> str:
        if float(duration[:-2]) <= 0:
            raise ValueError("`duration` must be more than zero")
        return duration


def _also_true_or_empty(schema: dict[str, Any]) -> None:
    """`one_shot: true` and `one_shot:` switch a variant on with its defaults."""
    schema["anyOf"] += [{"const": True}, {"type": "null"}]


class Variants(Frozen):
    """What is compared with the winning ticket, level by level. `false` switches one off."""

    ticket: Plain | Literal[False] = Field(
        Plain(),
        json_schema_extra=_also_true_or_empty,
        description="The winning ticket itself. Without it there are no `random_reinit` and `random_ticket`.",
    )
    random_reinit: Draws | Literal[False] = Field(
        Draws(),
        json_schema_extra=_also_true_or_empty,
        description="The ticket's mask on newly drawn initial weights: is it the initial weights?",
    )
    random_ticket: Draws | Literal[False] = Field(
        Draws(),
        json_schema_extra=_also_true_or_empty,
        description="The rewound weights under the ticket's mask, shuffled within each layer: is it the place?",
    )
    random_pruning: Draws | Literal[False] = Field(
        False,
        json_schema_extra=_also_true_or_empty,
        description="A random mask, drawn before training, of the same sparsity.",
    )
    one_shot: Plain | Literal[False] = Field(
        False,
        json_schema_extra=_also_true_or_empty,
        description="All of a level's pruning in one round on the dense network, then rewound.",
    )
    finetune: Finetune | Literal[False] = Field(False, description="Prune, then train on at a low constant rate.")
    lr_rewind: Plain | Literal[False] = Field(
        False,
        json_schema_extra=_also_true_or_empty,
        description="Prune, then the whole schedule again from the weights as they are (Renda et al. 2020).",
    )
    unstructured: Plain | Literal[False] = Field(
        False,
        json_schema_extra=_also_true_or_empty,
        description="The ticket without the recipe's `pattern` or `structure`, each weight free to go: what does it cost?",
    )
    post_training: PostTraining | Literal[False] = Field(
        False,
        json_schema_extra=_also_true_or_empty,
        description="The trained dense network, pruned in one round and not trained again: for models too large to retrain.",
    )

    @field_validator("*", mode="before")
    @classmethod
    def _empty_is_on(cls, value: Any) -> Any:
        return {} if value is None or value is True else value

    @model_validator(mode="before")
    @classmethod
    def _no_controls_without_ticket(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("ticket", True) is False:
            return {"random_reinit": False, "random_ticket": False, **given}
        return given

    @model_validator(mode="after")
    def _check(self) -> Variants:
        if not self.ticket and (self.random_reinit or self.random_ticket):
            raise ValueError("`random_reinit` and `random_ticket` are controls of the ticket: they need `ticket`")
        if not self.ticket and self.unstructured:
            raise ValueError("`unstructured` is held against the ticket: it needs `ticket`")
        if not (self.ticket or self.post_training or self.one_shot or self.finetune or self.lr_rewind):
            raise ValueError("without `ticket`, switch on another method, such as `post_training: {}`")
        if self.post_training and len(self.post_training.components) < len(self.post_training.rivals):
            raise ValueError("`post_training.rivals` names one criterion twice")
        return self

    @property
    def trained(self) -> tuple[str, ...]:
        """Those switched on that train; pruning after training does not."""
        return tuple(name for name in type(self).model_fields if name != "post_training" and getattr(self, name))


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
    method: Literal["non-inferiority", "examples", "point"] | None = Field(
        None,
        description="`non-inferiority`: a one-sided paired test over replicates. `examples`: of one network, a paired test over "
        "test examples. `point`: the mean alone. By default the first with two or more replicates; with one the second, or the "
        "third where runs kept no outcomes of single examples.",
    )
    confidence: float = Field(0.95, ge=0.5, lt=1, description="Confidence of each test.")
    at: Literal["final", "early_stop"] = Field(
        "final",
        description="Which weights are judged: after the last iteration, or at the minimum of the validation loss.",
    )
    target_sparsity: Fraction | None = Field(
        None, description="The sparsity that must pass: decides the exit status of `prune` and `gate`."
    )
    looks: tuple[Annotated[int, Field(ge=2, le=MOST)], ...] = Field(
        (),
        strict=False,
        description="Numbers of replicates at which gates are judged, such as `[3, 5, 8]`; `replicates` is one of them. The "
        "error of the tests is shared among them. By default there is one look, at `replicates`.",
    )

    @field_validator("looks")
    @classmethod
    def _increasing(cls, looks: tuple[int, ...]) -> tuple[int, ...]:
        for before, after in pairwise(looks):
            if after <= before:
                raise ValueError(f"numbers of replicates that increase, such as `[3, 5, 8]`: {after} follows {before}")
        return looks

    @model_validator(mode="after")
    def _tested(self) -> Gates:
        if self.looks and self.method == "point":
            raise ValueError("`looks` are for `method: non-inferiority`: a comparison of means has no error to share")
        return self


class BenchmarkSettings(Frozen):
    """Wall-clock inference, measured at the end of `prune`."""

    batch_sizes: tuple[Annotated[int, Field(ge=1, le=65536)], ...] = Field(
        (1, 32), strict=False, min_length=1, description="Inputs a call."
    )
    rounds: int = Field(100, ge=10, le=100_000, description="Interleaved rounds over all models.")
    candidates: bool = Field(
        False,
        description="Also whether to prune, quantise, both or neither, by the files that would be served, as "
        "`ticketsmith benchmark --candidates` does: each is judged in every replicate, which takes minutes.",
    )


def _also_by_name(schema: dict[str, Any]) -> None:
    """`search: sweet_spot` switches the search on with its defaults."""
    schema["anyOf"].insert(0, {"const": "sweet_spot"})


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
    search: Search | None = Field(
        None,
        json_schema_extra=_also_by_name,
        description="`sweet_spot`: train only what the sweet spot asks for, level by level, by what was seen so far; with "
        "options of its own in a mapping. `replicates` is then the most that may be trained. Without it, the full grid.",
    )
    benchmark: BenchmarkSettings = Field(default_factory=BenchmarkSettings, description="Measured inference speed.")
    store: Component = Field(
        "runs",
        description="Folder that holds all experiments, or a store of your own: `package.module:Class`, with options.",
    )

    track: tuple[Track, ...] = Field(
        (),
        strict=False,
        json_schema_extra=also_by_name,
        description="Experiment trackers that get what is sealed, once the report is written: `mlflow`, `wandb`, `trackio`, "
        "`tensorboard`, or one with options, or a list of these.",
    )

    _base: Path = PrivateAttr(default_factory=Path.cwd)
    _source: str = PrivateAttr(default="")

    @model_validator(mode="after")
    def _check(self) -> Recipe:
        if self.gates.method == "examples" and self.replicates > 1:
            raise ValueError(
                f"`gates.method: examples` judges one network, and `replicates` is {self.replicates}: leave the method out, or "
                "set `replicates: 1`"
            )
        if float(self.training.duration[:-2]) <= 0 and (trained := self.variants.trained):
            raise ValueError(
                f"`training.duration` must be more than zero: `{trained[0]}` is trained. To prune a pretrained model without "
                "any training, set `variants: {ticket: false, post_training: {}}`"
            )
        if (looks := self.gates.looks) and self.replicates not in looks:
            raise ValueError(
                f"`replicates` is {self.replicates}, and `gates.looks` are declared at {', '.join(map(str, looks))}: train one "
                "of these numbers"
            )
        return self

    @model_validator(mode="after")
    def _check_unstructured(self) -> Recipe:
        if self.variants.unstructured and self.pruning.is_free:
            raise ValueError(
                "`variants.unstructured` is for a ticket of a `pruning.pattern` or `structure`; this one is unstructured itself"
            )
        return self

    @field_validator("track", mode="before")
    @classmethod
    def _trackers(cls, value: Any) -> Any:
        return as_list(value)

    @field_validator("search", mode="before")
    @classmethod
    def _search_by_name(cls, value: Any) -> Any:
        if isinstance(value, str) and value != "sweet_spot":
            raise ValueError("a search is for the `sweet_spot`")
        return {} if value == "sweet_spot" else value

    @model_validator(mode="after")
    def _check_search(self) -> Recipe:
        if self.search is None:
            return self
        levels, looks = self.pruning.levels, self.gates.looks or (self.replicates,)
        if not self.variants.ticket:
            raise ValueError(
                "`search` looks for the sweet spot of the ticket: leave `variants.ticket` on, or `search` out"
            )
        if self.search.coarse is not None and self.search.coarse > levels:
            raise ValueError(f"`search.coarse` merges {self.search.coarse} rounds of {levels}: at most {levels}")
        if looks[-1] != self.replicates:
            raise ValueError(
                f"the last of `gates.looks` is {looks[-1]}, but `replicates`, the most that a search trains, is "
                f"{self.replicates}: set `replicates: {looks[-1]}`"
            )
        budget = self.search.budget
        for look in looks:
            if budget is not None and budget.runs is not None and budget.runs < 3 * look:
                fewer = "" if look == looks[0] else f", or declare no look beyond {budget.runs // 3}"
                raise ValueError(
                    f"`search.budget.runs: {budget.runs}` cannot pay {look} seeds of dense, of its rewind point and of a level: "
                    f"give at least {3 * look}{fewer}"
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
        by_default: Method = "non-inferiority" if self.replicates > 1 else "examples"
        gates = tuple(
            Gate(name, settings.max_drop, settings.max_relative_increase)
            for name, settings in self.gates.metrics.items()
        )
        merged = self.search.step(self.pruning.levels) if self.search else 1
        return GatePolicy(
            gates,
            self.gates.method or by_default,
            self.gates.confidence,
            self.gates.at,
            self.gates.target_sparsity,
            looks=self.gates.looks,
            coarse=merged if merged > 1 else 0,  # where nothing is merged, there is one family of levels
            fallback="point" if self.gates.method is None and self.replicates == 1 else None,
        )

    @property
    def sha256(self) -> str:
        """Hash of what the recipe says, whatever its comments and layout; defaults that the hashes of earlier versions do not
        know are left out."""
        plain = self.model_dump(mode="json", exclude={"store", "track"})
        if self.pruning.structure == "unstructured":
            del plain["pruning"]["structure"]
        if self.search is None:
            del plain["search"]
        if not self.gates.looks:
            del plain["gates"]["looks"]
        if not self.benchmark.candidates:
            del plain["benchmark"]["candidates"]
        if not self.variants.unstructured:
            del plain["variants"]["unstructured"]
        for name in ("accumulate", "ranks", "activation_checkpointing", "compile", "kernels"):
            if plain["training"][name] == Training.model_fields[name].default:
                del plain["training"][name]
        text = json.dumps(plain)
        return hashlib.sha256(text.encode()).hexdigest()
