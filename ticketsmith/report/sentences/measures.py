"""Values of a metric, differences of them and the sizes of networks as text: each says its unit, and of what it is a share."""

from __future__ import annotations

from ticketsmith import units
from ticketsmith.evidence.resolution import Resolution
from ticketsmith.evidence.results import Metric
from ticketsmith.evidence.size import Size
from ticketsmith.evidence.verdicts import Gate, Summary


def value(metric: Metric, measured: float) -> str:
    """A measured value with its unit: ``98.94 %``, ``0.0312``."""
    text = f"{measured:.{metric.decimals}f}".replace("-", units.MINUS)
    return f"{text} {metric.unit}" if metric.unit else text


def difference(metric: Metric, amount: float) -> str:
    """A difference of two values of ``metric``: points for a percentage (never %, which would read as relative)."""
    text = f"{amount:.{max(metric.decimals, 2)}f}"
    text = text.lstrip("-") if not float(text) else text  # no minus zero
    return f"{text.replace('-', units.MINUS)}{_unit(metric)}"


def small(metric: Metric, amount: float) -> str:
    """A difference to two figures, however small it is: ``0.28 points``, ``0.0001``."""
    return f"{units.number(float(f'{amount:.2g}'), 9)}{_unit(metric)}"


def span(metric: Metric, low: float, high: float) -> str:
    """An interval of differences, the unit once: ``0.12 to 0.55 points``."""
    return f"{difference(metric, low).removesuffix(_unit(metric))} to {difference(metric, high)}"


def worsening(gate: Gate, metric: Metric, amount: float) -> str:
    """A worsening in the terms of the gate: ``0.42 points``, or ``3.1 %`` of the dense value for a relative gate."""
    if gate.relative:
        text = f"{100 * amount:.1f}"
        return f"{text.lstrip('-') if not float(text) else text.replace('-', units.MINUS)} %"
    return difference(metric, amount)


def worse(gate: Gate, metric: Metric, amount: float) -> str:
    """``0.42 points worse`` or, for a negative worsening, ``0.42 points better``."""
    return f"{worsening(gate, metric, abs(amount))} {'better' if amount < 0 else 'worse'}"


def margin(gate: Gate, metric: Metric) -> str:
    """The tolerated worsening: ``2 points``, ``5 %``."""
    if gate.relative:
        return units.percent(gate.margin)
    text = units.number(gate.margin, max(metric.decimals, 4))
    return f"{text} point" if metric.unit == "%" and text == "1" else f"{text}{_unit(metric)}"


def quality(metric: Metric, summary: Summary) -> str:
    """Mean and half-width of its interval: ``98.94 \u00b1 0.14 %``; the mean alone with one seed."""
    if summary.high is None:
        return value(metric, summary.mean)
    unit = f" {metric.unit}" if metric.unit else ""
    text = value(metric, summary.mean).removesuffix(unit)
    return f"{text} \u00b1 {summary.high - summary.mean:.{metric.decimals}f}{unit}"


def interval(metric: Metric, summary: Summary) -> str:
    """The interval of a mean: ``98.80 % to 99.08 %``; that there is none with one seed."""
    if summary.low is None or summary.high is None:
        return "one seed"
    return f"{value(metric, summary.low)} to {value(metric, summary.high)}"


def resolution(finest: Resolution) -> str:
    """What a metric can tell apart: ``what chance does to the test split's examples (0.25 points)``."""
    about = (
        f"what chance does to the {finest.split} split's examples"
        if finest.counts_examples
        else "the last printed decimal"
    )
    return f"{about} ({small(finest.metric, finest.amount)})"


def agreement(finest: Resolution) -> str:
    """Why the spread of seeds was replaced by ``finest``, as a clause on the seeds."""
    return "agree more closely than the metric can tell" if finest.counts_examples else "do not differ"


def removed_share(size: Size) -> str:
    """What is gone, in short: ``0.9 % of the network``, or of the prunable weights where nobody counted the parameters."""
    if size.network_sparsity is None:
        return f"{units.share(size.sparsity)} of the prunable weights"
    return f"{units.share(size.network_sparsity)} of the network"


def sparsity(size: Size) -> str:
    """``75.0 % sparsity of the prunable weights (0.9 % of the network)``; the second where it differs."""
    text = f"{units.share(size.sparsity)} sparsity"
    if not size.partial or size.network_sparsity is None:
        return text
    return f"{text} of the prunable weights ({units.share(size.network_sparsity)} of the network)"


def rest(size: Size) -> str:
    """What stays; of a network of which only a part can be pruned, what is gone of all of it. To stand by a sparsity."""
    if size.kept == size.prunable:
        return "nothing removed"
    if size.partial and size.network_sparsity is not None:
        return f"{units.share(size.network_sparsity)} of the network"
    return f"{units.share(1 - size.sparsity)} left"


def _unit(metric: Metric) -> str:
    if metric.unit == "%":
        return " points"
    return f" {metric.unit}" if metric.unit else ""
