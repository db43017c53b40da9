"""Numbers as text, with their units: one way to write a share, a time, a size, a sum of money and a list, wherever it is read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

MINUS = "\u2212"  # the true minus sign: as wide as a plus, and no line breaks after it

_SYMBOLS = {"USD": "$", "EUR": "\u20ac", "GBP": "\u00a3"}


def share(fraction: float) -> str:
    """A part of a whole: ``89.3 %``, with as many decimals as keep two figures of the smaller part (``99.964 %``)."""
    rest = min(abs(fraction), abs(1.0 - fraction))
    decimals = 1 if rest == 0.0 else min(6, max(1, 1 - math.floor(math.log10(rest * 100))))
    return f"{100 * fraction:.{decimals}f} %"


def percent(fraction: float) -> str:
    """A fraction that somebody set, as they would write it: ``0.95 -> "95 %"``, ``0.005 -> "0.5 %"``."""
    return f"{number(100 * fraction, 2)} %"


def number(value: float, decimals: int) -> str:
    """At most ``decimals`` decimals, without trailing zeros, and a true minus sign: ``2``, ``0.35``."""
    text = f"{value:.{decimals}f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text in ("-0", "") else text.replace("-", MINUS)


class Pruned(Protocol):
    """What ``removed`` reads of a network's size."""

    @property
    def prunable(self) -> int: ...
    @property
    def parameters(self) -> int | None: ...
    @property
    def sparsity(self) -> float: ...
    @property
    def network_sparsity(self) -> float | None: ...


def removed(size: Pruned) -> str:
    """What pruning removed: ``0.9 % of the network's 52,874 parameters (75.0 % of the 640 prunable ones)``.

    Where both shares read the same, or nobody counted the parameters, one is said.
    """
    part = share(size.sparsity)
    if size.parameters is None or size.network_sparsity is None:
        return f"{part} of the {size.prunable:,} prunable weights"
    whole = share(size.network_sparsity)
    beside = "" if whole == part else f" ({part} of the {size.prunable:,} prunable ones)"
    return f"{whole} of the network's {size.parameters:,} parameters{beside}"


def plural(count: int, noun: str) -> str:
    """``1 seed``, ``5 seeds``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def seeds(numbers: Sequence[int]) -> str:
    """Seeds by their numbers: ``seed 1``, ``seeds 0 and 2``."""
    return f"{'seed' if len(numbers) == 1 else 'seeds'} {listed([str(number) for number in numbers])}"


def replicates(seeds: int, differing: int) -> str:
    """How many seeds there were: ``3 seeds``; ``3 seeds, all equal`` where they made one network."""
    if seeds <= differing:
        return plural(differing, "seed")
    return f"{plural(seeds, 'seed')}, {'all equal' if differing == 1 else f'{differing} of them differ'}"


def listed(items: Sequence[str], word: str = "and") -> str:
    """``a, b and c``."""
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} {word} {items[-1]}"


def duration(seconds: float) -> str:
    """``0.8 s``, ``42 s``, ``12 min 5 s``, ``3 h 20 min``, ``2 d 4 h``: two figures that matter, no more."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for size, unit, small, smaller in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = (whole % size) // small
            return f"{whole // size} {unit} {rest} {smaller}" if rest else f"{whole // size} {unit}"
    return f"{whole} s"


def times(ratio: float) -> str:
    """``1.8\u00d7``, ``0.62\u00d7``, ``12\u00d7``: two or three figures, more where it would be rounded to a neat 1."""
    decimals = 0 if ratio >= 100 else 1 if ratio >= 10 else 2
    while ratio != 1.0 and decimals in (2, 3) and float(f"{ratio:.{decimals}f}") == 1.0:
        decimals += 1
    return f"{ratio:.{decimals}f}\u00d7"


def size(amount: float) -> str:
    """Bytes, decimal: ``512 B``, ``83 kB``, ``1.2 MB``."""
    for one, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if amount >= 0.9995 * one:
            return f"{_figures(amount / one)} {unit}"
    return f"{amount:.0f} B"


def rate(amount: float) -> str:
    """So many a second, to three figures: ``0.42``, ``8,120``."""
    digits = 0 if amount >= 100 else 1 if amount >= 10 else 2
    rounded = float(f"{amount:.3g}")
    return f"{rounded:,.{digits}f}"


def latency(seconds: float) -> str:
    """The time of one call: ``83 \u00b5s``, ``1.2 ms``, ``0.41 s``, two or three figures."""
    for size, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "\u00b5s")):
        if seconds >= size:
            return f"{_figures(seconds / size)} {unit}"
    return f"{_figures(seconds * 1e9)} ns"


def money(amount: float, currency: str) -> str:
    """``$0.0041``, ``$1.23``, ``$12,345``, ``2.50 CHF``: cents, or two figures of what is less than a few cents."""
    size = abs(amount)
    if 0 < size < 0.0995:
        text = f"{size:.{min(12, 1 - math.floor(math.log10(size)))}f}"
    else:
        text = f"{size:,.2f}" if size < 1000 else f"{size:,.0f}"
    sign = MINUS if amount < 0 and float(text.replace(",", "")) else ""
    symbol = _SYMBOLS.get(currency)
    return f"{sign}{symbol}{text}" if symbol else f"{sign}{text} {currency}"


def hourly(price: float, currency: str) -> str:
    """The price of an hour as it was given: ``$0.526``."""
    text = f"{price:.4f}".rstrip("0")
    text += "0" * max(0, 2 - len(text.partition(".")[2]))
    symbol = _SYMBOLS.get(currency)
    return f"{symbol}{text}" if symbol else f"{text} {currency}"


def count(amount: float) -> str:
    """A large number that is known to two figures: ``840``, ``12,000``, ``1.2 million``, ``35 billion``."""
    for size, name in ((1e12, "trillion"), (1e9, "billion"), (1e6, "million")):
        if amount >= 0.995 * size:
            return f"{_figures(amount / size)} {name}" if amount < 1000 * size else f"{amount / size:,.0f} {name}"
    if amount < 99.5:
        return f"{math.ceil(amount):,}"
    return f"{float(f'{amount:.1e}'):,.0f}"


def three_figures(value: float) -> str:
    """A measured number for a table: ``0.123``, ``12.0``, ``1,234``."""
    return f"{value:#.3g}".rstrip(".") if 1e-4 <= value < 1000 else f"{value:.3g}" if value < 1 else f"{value:,.0f}"


def flops(amount: float) -> str:
    """Floating-point operations with a decimal prefix: ``3.2 PFLOP``."""
    for size, prefix in ((1e21, "Z"), (1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if amount >= size:
            return f"{amount / size:.3g} {prefix}FLOP"
    return f"{amount:.3g} FLOP"


def _figures(value: float) -> str:
    """Two figures, three from a hundred on: ``1.2``, ``83``, ``412``."""
    if value >= 99.5:
        return f"{value:.0f}"
    return f"{value:.0f}" if value >= 9.95 else f"{value:.1f}"
