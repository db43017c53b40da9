"""TicketSmith: at what sparsity does quality actually drop, and how much compute do we save?

    import ticketsmith

    recipe = ticketsmith.load("configs/imp_mnist.yaml")
    experiment = ticketsmith.run(recipe)
    experiment.table()                      # pandas DataFrame, one row a level of a variant
    experiment.sweet_spot()                 # the last level that passes its gates, from the mildest on
    model = experiment.ticket(sparsity=0.8) # a ready torch.nn.Module

Importing this package is cheap: torch is imported when something is trained.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ticketsmith import telemetry
from ticketsmith.version import __version__

__all__ = ["Experiment", "TicketSmithError", "__version__", "load", "open_experiment", "run"]

telemetry.switch_off()

if TYPE_CHECKING:
    from ticketsmith.api import Experiment, load, open_experiment, run
    from ticketsmith.errors import TicketSmithError


def __getattr__(name: str) -> Any:
    if name == "TicketSmithError":
        from ticketsmith.errors import TicketSmithError

        return TicketSmithError
    if name in __all__:
        try:
            from ticketsmith import api
        except ImportError as error:
            if find_spec("ticketsmith.api"):
                raise
            raise ImportError(
                f"ticketsmith.{name}: only ticketsmith-runtime is installed, which serves; all of it: pip install ticketsmith"
            ) from error
        return getattr(api, name)
    raise AttributeError(f"module 'ticketsmith' has no attribute {name!r}")
