"""Errors that a user can cause and mend: a message that names the place and the mend, and an exit status.

A command prints the message of any of these without a traceback and ends with its ``exit_status``.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from enum import IntEnum
from pathlib import Path


class Exit(IntEnum):
    """What the process exit status means; pipelines may rely on it."""

    OK = 0
    INTERNAL = 1  # a fault of TicketSmith itself
    BAD_INPUT = 2
    GATE_FAILED = 3  # the ticket at its target sparsity fails its gate
    DIVERGED = 4  # at least one run ended in NaN or infinity
    INCOMPLETE = 5  # runs are missing: the store failed, a worker died, memory ran out
    INCONCLUSIVE = 6  # the gate at the target sparsity cannot be decided: too few replicates or examples
    OUT_OF_MEMORY = 7  # a run needs more memory than there is; trying again would not help
    IDLE_GPU = 8  # stopped, since the GPU was paid for and not used
    OVER_BUDGET = 9  # stopped, or not begun, since it would cost more than the budget
    LOST = 10  # on a cluster: some runs could not be made or nothing began, and nothing more will come by itself
    INTERRUPTED = 130


_GRAVEST_FIRST = (
    Exit.INTERRUPTED,
    Exit.INTERNAL,  # nothing else that is told can be relied on
    Exit.BAD_INPUT,  # only a person can mend it
    Exit.OUT_OF_MEMORY,
    Exit.OVER_BUDGET,
    Exit.IDLE_GPU,
    Exit.LOST,
    Exit.INCOMPLETE,  # the same command may mend it
    Exit.DIVERGED,  # from here on results
    Exit.GATE_FAILED,
    Exit.INCONCLUSIVE,
    Exit.OK,
)


def gravest(statuses: Iterable[int]) -> Exit:
    """The one exit status of several things that happened, in whatever order they did; OK for nothing."""
    return min((Exit(status) for status in statuses), key=_GRAVEST_FIRST.index, default=Exit.OK)


class TicketSmithError(Exception):
    """Base of every error that a user can mend."""

    exit_status: Exit = Exit.BAD_INPUT


class RecipeError(TicketSmithError):
    """The recipe is wrong; the message names path, line, and the mend."""


class DataError(TicketSmithError):
    """A data set is missing, damaged or of the wrong form."""


class PruningError(TicketSmithError):
    """A mask cannot be made as asked, for example because a layer would be left empty."""


class TaskError(TicketSmithError):
    """A task, model or data set does not fit the others."""


class DivergedError(TicketSmithError):
    """Training produced a loss that is not finite."""

    exit_status = Exit.DIVERGED


class ClusterError(TicketSmithError):
    """The cluster cannot be reached, or refuses what was asked."""

    exit_status = Exit.INCOMPLETE


class StoreError(TicketSmithError):
    """The store cannot be read or written."""

    exit_status = Exit.INCOMPLETE


class StoreUnreachableError(StoreError):
    """The store did not answer for longer than is worth waiting; later it may."""


class DamagedRunError(StoreError):
    """A sealed run does not hold the bytes that its manifest promises."""


def in_a_line(error: BaseException) -> str:
    """An error of another library, or of a user's code, by its kind and its first line: ``TypeError: ...``."""
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"


def disk_error(error: OSError, path: Path | str) -> StoreError:
    """What a failed write means to a user: which place, and what to do about it."""
    reason = error.strerror or str(error)
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    mend = "Free space, or choose another place" if full else "Mend this, or choose another place"
    return StoreError(
        f"{path}: cannot write: {reason}. {mend} with `store:` or `--store`; "
        "sealed runs are safe, and the same command goes on from them."
    )
