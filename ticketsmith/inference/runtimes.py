"""The contract of a runtime: a way to run a trained model; and the door through which they are named.

Your own is named as ``my_package.my_module:MyRuntime``, with the same door as the built-in ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from ticketsmith.errors import RecipeError, TicketSmithError
from ticketsmith.plugins import build

BUILTINS = {
    "torch": "ticketsmith.inference.eager:Eager",
    "torch_csr": "ticketsmith.inference.csr:Csr",
    "sparse": "ticketsmith.inference.sparse:Sparse",
}

Call = Callable[[Tensor], Tensor]
"""One inference: inputs ``[batch, ...]`` to outputs ``[batch, ...]``."""


class CannotRunError(TicketSmithError):
    """A runtime cannot run a model, or would run it exactly as another runtime does; the message says why."""


@runtime_checkable
class Runtime(Protocol):
    """A way to run a trained model, whatever it costs to get it ready."""

    name: str
    """What tables and reports call it."""

    def prepare(self, model: nn.Module, example: Tensor) -> Call:
        """A call that does what ``model`` does on inputs shaped like ``example`` (``[batch, ...]``).

        ``model`` is in evaluation mode on the device of ``example``, pruned weights are zeros in it, and it must be
        left as it is. The call may give the same output buffer each time. Raises CannotRunError with the reason when
        the runtime has nothing to offer for this model.
        """
        ...


def create(name: str, options: Mapping[str, Any] | None = None) -> Runtime:
    """The runtime that a recipe or a command names. Raises RecipeError for unknown names and options."""
    runtime = build("runtime", name, BUILTINS, options or {})
    if not isinstance(runtime, Runtime):
        raise RecipeError(f"runtime {name!r} gives a {type(runtime).__name__}, which has no `name` and `prepare`.")
    return runtime
