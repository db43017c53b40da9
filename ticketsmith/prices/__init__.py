"""What machines cost: a dated table with sources, your own prices over it, and what one run took and cost."""

from __future__ import annotations

from ticketsmith.prices.rate import Rate

__all__ = ["Rate", "lookup"]


def lookup(machine: str, region: str | None = None, spot: bool = False) -> Rate:
    """The price of a machine: its size, ``SIZE@REGION``, your own price ``NAME=0.53`` (or ``NAME=0.53 EUR``), or ``0.53``.

    A size is looked for in your own price file, then in the table that comes with TicketSmith. Without a region: ``eastus``,
    or the first region that has a price. ``spot`` takes the dated spot price; where none is known, the on-demand price,
    which is the most that Azure asks. Raises RecipeError for a machine without a price, with the nearest name.
    """
    from ticketsmith.prices.table import find

    return find(machine, region, spot)
