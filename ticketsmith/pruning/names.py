"""Which layers the patterns of a rule mean. No tensors: the plan uses it as well as the pruning itself."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

from ticketsmith.errors import PruningError
from ticketsmith.plugins import nearest
from ticketsmith.spec import PruneRule


def matches(parameter: str, pattern: str) -> bool:
    """Whether a pattern (``fc3``, ``conv*``, ``fc3.weight``) names a parameter or its layer."""
    return fnmatchcase(parameter, pattern) or fnmatchcase(parameter.rpartition(".")[0], pattern)


def layer_of(parameter: str) -> str:
    """What a message calls a parameter: ``fc3`` for ``fc3.weight``, and all of the name for others."""
    layer, _, name = parameter.rpartition(".")
    return layer if layer and name == "weight" else parameter


def check_patterns(patterns: Iterable[str], parameters: list[str], field: str) -> None:
    """Refuses a pattern that names no layer, so that a typing error never silently prunes something else."""
    for pattern in patterns:
        if not any(matches(parameter, pattern) for parameter in parameters):
            layers = [layer_of(name) for name in parameters if not name.endswith(".bias")]
            hint = nearest(pattern, list(dict.fromkeys(layers)))
            raise PruningError(f"pruning.{field}: {pattern!r} matches no layer.{hint}")


def resolved(rule: PruneRule, names: Mapping[str, Iterable[str]]) -> PruneRule:
    """The rule with the patterns of ``exclude`` and ``rates`` replaced by the layers that they mean.

    ``names``: everything that a pattern may call a layer, by the layer's own name. A weight that is shared has several.
    Raises PruningError for a pattern without a match.
    """
    _check(rule, [name for aliases in names.values() for name in aliases])

    def layers(pattern: str) -> list[str]:
        return [glob.escape(layer) for layer, aliases in names.items() if any(matches(n, pattern) for n in aliases)]

    exclude = tuple(dict.fromkeys(layer for pattern in rule.exclude for layer in layers(pattern)))
    rates = tuple((layer, value) for pattern, value in rule.rates for layer in layers(pattern))
    return rule.model_copy(update={"exclude": exclude, "rates": rates})


def pruned_layers(rule: PruneRule, parameters: list[str]) -> list[str]:
    """The parameters that a round of this rule removes weights from. Raises PruningError for a pattern without a match."""
    _check(rule, parameters)
    layers = [name for name in parameters if not any(matches(name, pattern) for pattern in rule.exclude)]
    if not layers:
        raise PruningError("pruning.exclude leaves no layer to prune. Remove a pattern from it.")
    return layers


def _check(rule: PruneRule, names: list[str]) -> None:
    check_patterns(rule.exclude, names, "exclude")
    check_patterns((pattern for pattern, _ in rule.rates), names, "rates")


def rate(rule: PruneRule, parameter: str) -> float:
    """The fraction that a round removes from this parameter: the last matching entry of ``rates``, else ``fraction``."""
    matching = [value for pattern, value in rule.rates if matches(parameter, pattern)]
    return matching[-1] if matching else rule.fraction
