"""The last pass: from instructions to operations.

In: instructions, whose operands and arrays have no address yet. Out: an assembly: memory is assigned to every operand,
shared where lifetimes allow, and each instruction is written as a structure of the ABI.
"""

from __future__ import annotations

import ctypes
from collections import defaultdict, deque
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ticketsmith.native import abi
from ticketsmith.runtime.graph import GraphError
from ticketsmith.runtime.layout import MOST_FLOATS, up
from ticketsmith.runtime.lower.lowering import Instruction, Lowering
from ticketsmith.runtime.operands import Operand, Slot, Tensor

_BEHIND = 64
"""Floats behind a slot's memory: kernels read whole vectors."""


@dataclass(frozen=True)
class Assembly:
    """A program in the making: operations, everything they point to (which must live as long as they), and the floats of
    memory that they need for each sample, for a whole batch, and from call to call of a session."""

    operations: tuple[ctypes.Structure, ...]
    arrays: tuple[NDArray[Any], ...]
    sample_floats: int
    batch_floats: int
    memory_floats: int = 0


def assemble(lowering: Lowering) -> Assembly:
    """Raises GraphError when too much memory is needed."""
    # what is done for each sample comes before all that is done once
    order = sorted(lowering.instructions, key=lambda instruction: instruction.batch)
    uses = [(time, operand.tensor) for time, instruction in enumerate(order) for operand in instruction.uses]
    sample_floats, batch_floats = assign(abi.Space.SAMPLE, uses), assign(abi.Space.BATCH, uses)
    arrays = list(lowering.arrays)
    operations = tuple(_operation(instruction, arrays) for instruction in lowering.instructions)
    return Assembly(operations, tuple(arrays), sample_floats, batch_floats, lowering.memory_floats)


def _operation(instruction: Instruction, arrays: list[NDArray[Any]]) -> ctypes.Structure:
    """The structure of an instruction; arrays that it points to are added to ``arrays``."""
    kind, fields = instruction.kind, dict(instruction.fields)
    for name, value in fields.items():
        if isinstance(value, Operand):
            fields[name] = value.structure()
        elif isinstance(value, np.ndarray):
            arrays.append(value)
            fields[name] = value.ctypes.data
        elif isinstance(value, tuple):
            fields[name] = tuple([one.structure() if isinstance(one, Operand) else one for one in value])
    return kind(op=abi.Op(abi.OPERATIONS.index(kind), instruction.batch, instruction.work), **fields)


def assign(space: abi.Space, uses: Iterable[tuple[int, Tensor]]) -> int:
    """Gives every tensor of ``space`` its memory, shared where lifetimes allow; the floats that are needed in all.

    ``uses`` are (time, tensor) in the order of time. A slot's memory is free after its last use. Raises GraphError when more
    would be needed than any network that is meant to be served needs.
    """
    life: dict[Slot, list[int]] = {}
    for time, tensor in uses:
        slot = tensor.slot
        if slot.space == space:
            life.setdefault(slot, [time, time])[1] = time
    free: dict[Hashable, list[tuple[int, int, Slot]]] = defaultdict(list)  # by layout; the largest first
    grounds: list[Slot] = []
    ground_of: dict[Slot, Slot] = {}
    ending = deque(sorted(life, key=lambda slot: life[slot][1]))
    order = count()
    for slot in sorted(life, key=lambda slot: life[slot][0]):
        while ending and life[ending[0]][1] < life[slot][0]:
            gone = ending.popleft()
            heappush(free[gone.key], (-ground_of[gone].size, next(order), ground_of[gone]))
        if free[slot.key]:
            ground = heappop(free[slot.key])[2]
            ground.size = max(ground.size, slot.size)
        else:
            ground = Slot(space, slot.key, slot.size)
            grounds.append(ground)
        ground_of[slot] = ground
    total = 0
    for ground in grounds:
        ground.offset = total
        total += up(ground.size) + _BEHIND
    if total > MOST_FLOATS:
        raise GraphError(f"the network needs {4 * total:,} bytes of scratch memory; {4 * MOST_FLOATS:,} are allowed.")
    for slot, ground in ground_of.items():
        slot.offset = ground.offset
    return total
