"""One node of an ONNX model, as the functions that translate it see it."""

from __future__ import annotations

from typing import Any

from ticketsmith.runtime.builder.core import Array, Builder, Value

_MEANINGLESS = {
    "auto_pad", "pads", "kernel_shape", "storage_order", "stash_type", "momentum", "saturate", "round_mode", "hidden_size",
    "consumed_inputs", "seed", "ratio", "is_test", "nearest_mode", "cubic_coeff_a", "value", "to", "output_sequence",
    "noop_with_empty_axes", "extrapolation_value",
}  # fmt: skip
"""Attributes that change no number of an output, or do so only together with another one that is read."""


class Call:
    """One node: its inputs, the builder, and its attributes with their defaults. It remembers what was asked for."""

    def __init__(self, b: Builder, inputs: list[Any], attributes: dict[str, Any], opset: int, outputs: int) -> None:
        self.b, self.attributes, self.opset, self.outputs = b, attributes, opset, outputs
        self._inputs = inputs
        self._read: set[str | int] = set()

    @property
    def inputs(self) -> list[Any]:
        """All of them."""
        self._read.update(range(len(self._inputs)))
        return self._inputs

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute."""
        self._read.add(name)
        return self.attributes.get(name, default)

    def check(self) -> None:
        """Raises ValueError for an attribute or an input that nobody asked for: it would be ignored."""
        for name in self.attributes.keys() - self._read - _MEANINGLESS:
            raise ValueError(f"the attribute {name!r}")
        for place, one in enumerate(self._inputs):
            if one is not None and place not in self._read:
                raise ValueError(f"its input {place}")

    @property
    def x(self) -> Value:
        """The first input, which is computed."""
        return self.value(0)

    def value(self, index: int) -> Value:
        one = self.input(index)
        if not isinstance(one, Value):
            raise ValueError(f"its input {index} is a constant")
        return one

    def input(self, index: int) -> Any:
        """An input, or None."""
        self._read.add(index)
        return self._inputs[index] if index < len(self._inputs) else None

    def constant(self, index: int) -> Array | None:
        """An input that must be a constant, or None."""
        one = self.input(index)
        if isinstance(one, Value):
            raise ValueError(f"its input {index} is computed")
        return one  # type: ignore[no-any-return]

    def numbers(self, index: int, name: str) -> list[int] | None:
        """Whole numbers that newer opsets have as an input and older ones as an attribute."""
        array = self.constant(index)
        if array is not None:
            return [int(n) for n in array.reshape(-1)]
        listed = self.get(name)
        return None if listed is None else [int(n) for n in listed]
