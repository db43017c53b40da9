"""The sparse runtime: trained networks whose zeros are not multiplied.

    from ticketsmith import runtime

    model = runtime.load("ticket.tsk")
    outputs = model(inputs)          # NumPy arrays, or anything with DLPack

Serving needs NumPy and nothing else. Files are made from PyTorch modules by :mod:`ticketsmith.runtime.from_torch`, and from
ONNX models by :mod:`ticketsmith.runtime.from_onnx`.
"""

from __future__ import annotations

from ticketsmith.runtime.artifact import load, machine_key, save
from ticketsmith.runtime.graph import Graph, GraphError, Node
from ticketsmith.runtime.model import Model
from ticketsmith.runtime.precision import LowPrecisionError, low_precision_error
from ticketsmith.runtime.program import Session
from ticketsmith.runtime.steps import SessionError

__all__ = [
    "Graph",
    "GraphError",
    "LowPrecisionError",
    "Model",
    "Node",
    "Session",
    "SessionError",
    "load",
    "low_precision_error",
    "machine_key",
    "save",
]
