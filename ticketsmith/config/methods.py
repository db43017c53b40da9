"""What a recipe may say of pruning, and of what winning tickets are compared with."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from ticketsmith.config.tasks import Component, Fraction, component
from ticketsmith.spec import Duration, Frozen, Pattern, StructureName, n_of_m


class Pruning(Frozen):
    """Iterative magnitude pruning: what goes in each round, and how many rounds."""

    levels: int = Field(ge=1, le=1000, description="Rounds of pruning; level 0 is the dense network.")
    fraction: Fraction = Field(0.2, description="Part of the surviving weights that a round removes.")
    scope: Literal["layer", "row", "global"] = Field(
        "layer",
        description="`layer`: the same part of every layer. `row`: the same part of every output of a layer, as Wanda asks. "
        "`global`: the smallest weights of all layers together.",
    )
    pattern: tuple[Pattern, ...] = Field(
        (),
        strict=False,
        description='N:M pattern: `"2:4"` keeps 2 of every 4 weights that meet consecutive inputs; a list has one '
        'pattern a level, such as `["6:8", "4:8"]`. In place of `fraction` and `scope`.',
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
        if self.pattern:
            self._check_pattern()
        return self

    def _check_pattern(self) -> None:
        if superfluous := {"fraction", "scope", "rates", "structure"} & self.model_fields_set:
            raise ValueError(f"`pattern` says how many weights stay, and where: leave out `{min(superfluous)}`")
        if len(self.pattern) != self.levels:
            raise ValueError(f"`pattern` names {len(self.pattern)} pattern(s), one a level: set `levels` to that")
        numbers = [n_of_m(pattern) for pattern in self.pattern]
        for (before, m), (n, same) in pairwise(numbers):
            if m != same or n >= before:
                raise ValueError(
                    'the patterns of the levels have the same M and ever fewer N, such as `["6:8", "4:8"]`'
                )

    @field_validator("pattern", mode="before")
    @classmethod
    def _one_pattern(cls, value: Any) -> Any:
        return value if isinstance(value, list | tuple) else [value]


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
        if not (self.ticket or self.post_training or self.one_shot or self.finetune or self.lr_rewind):
            raise ValueError("without `ticket`, switch on another method, such as `post_training: {}`")
        if self.post_training and len(self.post_training.components) < len(self.post_training.rivals):
            raise ValueError("`post_training.rivals` names one criterion twice")
        return self

    @property
    def trained(self) -> tuple[str, ...]:
        """Those switched on that train; pruning after training does not."""
        return tuple(name for name in type(self).model_fields if name != "post_training" and getattr(self, name))
