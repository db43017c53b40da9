"""Which rules mean the same masks as ever: a key must not find a run whose mask was made in another way."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from ticketsmith.pruning.names import matches
from ticketsmith.pruning.weights import Weight, by_default, weights
from ticketsmith.spec import PruneRule


def layout_version(model: nn.Module, rule: PruneRule, criteria: Iterable[str] = ()) -> int:
    """1 where a rule prunes ``model`` as TicketSmith always did; 2 where it would not, so that the runs have other keys.

    It would not where weights are shared under several names that matter, where they are made of others (weight norm), where
    several layers are stacked in one parameter (attention), or where the inputs of an output were not known (``scope: row``
    of recurrent layers; groups of transposed convolutions).
    """
    return 2 if any(_differs(model, weight, rule, set(criteria)) for weight in weights(model)) else 1


def _differs(model: nn.Module, weight: Weight, rule: PruneRule, criteria: set[str]) -> bool:
    name, first, layout = weight.name, weight.holders[0], weight.layout
    kept_dense = any(matches(name, pattern) for pattern in getattr(model, "dense_by_default", ()))
    was_default = first.is_default and first.name == name
    was_chosen = was_default and weight.parameter.requires_grad and not kept_dense
    was_chosen |= any(matches(name, pattern) for pattern in rule.include)
    is_chosen = by_default(model, weight) or any(weight.is_called(pattern) for pattern in rule.include)
    if not (was_chosen and is_chosen):
        return was_chosen != is_chosen
    if layout.parts or (first.through and first.maskable):
        return True
    patterns = [*rule.exclude, *(pattern for pattern, _ in rule.rates)]
    if any(weight.is_called(pattern) != matches(name, pattern) for pattern in patterns):
        return True
    if "wanda" in criteria and len(weight.holders) > 1:
        return True
    was = (layout.inputs, 1) if was_default else (None, 1)
    needs_inputs = rule.scope == "row" or rule.pattern is not None or rule.structure != "unstructured"
    return needs_inputs and (layout.inputs, layout.groups) != was
