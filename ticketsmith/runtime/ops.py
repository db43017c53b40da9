"""The table of operators: what the runtime can compute, one entry for each.

Everything else goes by this table. A new operator needs an entry here with its shape rule (``shapes``), a function that
lowers it, and one that writes it as ONNX; and what reads it from PyTorch or ONNX.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ticketsmith.runtime import shapes
from ticketsmith.runtime.node import Node, Shape


def always(node: Node, rank: int) -> bool:
    """yes"""
    return True


def never(node: Node, rank: int) -> bool:
    """no"""
    return False


def behind_tokens(node: Node, rank: int) -> bool:
    """along all but the first axis"""
    return bool(node.attributes.get("axis", rank - 1) != 0)


def over_features(node: Node, rank: int) -> bool:
    """over all but the first axis"""
    return 0 not in node.attributes.get("axes", [])


def tokens_first(node: Node, rank: int) -> bool:
    """where the first axis stays the first"""
    return bool(node.attributes.get("axes", (0,))[0] == 0)


def causal(node: Node, rank: int) -> bool:
    """where it is causal and has no mask"""
    return bool(node.attributes.get("causal")) and len(node.inputs) == 3


@dataclass(frozen=True)
class Operator:
    """An operator: what it is called in graphs and files, and what it does (``sentence``).

    ``shape`` is its shape rule. A node must have the ``parameters``, and may have the ``optional`` ones; ``attributes`` are
    those that it may have. ``by_token`` says of a node, whose output has so many axes, whether each token's values come from
    that token's alone (or, of causal attention, from those before it): such a node can be part of a session. ``lanes`` are
    the kinds of values (``"vector"``, small ``"image"``) that it is computed for with a lane for each sample of a batch.
    ``fuses`` is true of operators that take up the activation that follows them. ``scales`` are the kinds of values
    (``"features"``, ``"channels"``) of which it has a scale, into which that of an affine map goes. ``step_only`` operators
    are those of a session's steps. ``no_onnx`` is why it cannot be written as ONNX.
    """

    name: str
    sentence: str
    shape: Callable[[shapes.Operands], Shape]
    parameters: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()
    by_token: Callable[[Node, int], bool] = never
    lanes: tuple[str, ...] = ()
    fuses: bool = False
    scales: tuple[str, ...] = ()
    step_only: bool = False
    no_onnx: str = ""


_WINDOW = ("stride", "padding", "dilation", "groups")
_POOL = ("kernel", "stride", "padding", "count_padding")
_BOTH = ("vector", "image")


def _elementwise(name: str, sentence: str, lanes: tuple[str, ...] = (), fuses: bool = False) -> Operator:
    return Operator(name, sentence, shapes.elementwise, (), (), ("activation",), always, lanes, fuses)


_TABLE = (
    Operator("linear", "A product of features with weights `[outputs, inputs]`, a bias, a residual and an activation.",
             shapes.linear, ("weight",), ("bias",), ("activation",), always, ("vector",), fuses=True),
    Operator("conv2d", "A convolution over rows and columns, with a bias, a residual and an activation.",
             shapes.conv2d, ("weight",), ("bias",), (*_WINDOW, "activation"), lanes=("image",), fuses=True),
    Operator("matmul", "A product of two values, whose outer axes are broadcast.", shapes.matmul),
    Operator("affine", "A factor and a summand for each channel of an image, or for each feature.",
             shapes.affine, ("scale", "shift"), (), ("activation",), always, _BOTH, fuses=True, scales=("features", "channels")),
    Operator("activation", "A function of each number.", shapes.same, attributes=("activation",), by_token=always, lanes=_BOTH),
    _elementwise("add", "A sum, with broadcasting.", _BOTH, fuses=True),
    _elementwise("sub", "A difference, with broadcasting.", _BOTH, fuses=True),
    _elementwise("mul", "A product of numbers, with broadcasting.", _BOTH, fuses=True),
    _elementwise("div", "A quotient, with broadcasting."),
    _elementwise("maximum", "The larger of two numbers."),
    _elementwise("minimum", "The smaller of two numbers."),
    _elementwise("power", "A number to the power of another."),
    _elementwise("equal", "1 where two numbers are equal, else 0."),
    _elementwise("less", "1 where the first number is less, else 0."),
    _elementwise("less_equal", "1 where the first number is not more, else 0."),
    _elementwise("where", "The second number where the first is not 0, else the third."),
    Operator("add_constant", "A sum with a constant of the value's shape, such as learned positions.",
             shapes.add_constant, ("value",), (), ("activation",), always, ("vector",), fuses=True),
    Operator("max_pool", "The largest number of a window over rows and columns.",
             shapes.pool, attributes=_POOL, lanes=("image",)),
    Operator("avg_pool", "The mean of a window over rows and columns.",
             shapes.pool, attributes=_POOL, lanes=("image",)),
    Operator("upsample", "Each row and column several times.", shapes.upsample, attributes=("factors",)),
    Operator("layer_norm", "Less the mean over the last axis, by the standard deviation; then a scale and a shift.",
             shapes.layer_norm, ("scale", "shift"), (), ("epsilon",), always, ("vector",), scales=("features",)),
    Operator("rms_norm", "By the root of the mean square over the last axis; then a scale.",
             shapes.rms_norm, ("scale",), (), ("epsilon",), always, scales=("features",)),
    Operator("group_norm", "A layer norm over groups of channels and all that is behind them.",
             shapes.group_norm, ("scale", "shift"), (), ("groups", "epsilon"), scales=("channels",)),
    Operator("softmax", "Exponentials along an axis, by their sum.",
             shapes.softmax, attributes=("axis",), by_token=behind_tokens, lanes=("vector",)),
    Operator("reduce", "The sum, mean or largest number over axes.",
             shapes.reduce, attributes=("function", "axes"), by_token=over_features),
    Operator("constant", "A value that depends on no input.", shapes.constant, ("value",), by_token=always),
    Operator("cast", "Whole numbers of an input, as float32.", shapes.same),
    Operator("flatten", "All elements along one axis.", shapes.flatten, lanes=("image",)),
    Operator("reshape", "The same elements in another shape.",
             shapes.reshape, attributes=("shape",), by_token=always, lanes=("image",)),
    Operator("permute", "Axes in another order.", shapes.permute, attributes=("axes",), by_token=tokens_first),
    Operator("concat", "Values one behind the other along an axis.", shapes.concat, attributes=("axis",), by_token=behind_tokens),
    Operator("slice", "A part of an axis, in steps.",
             shapes.slice, attributes=("axis", "begin", "end", "step"), by_token=behind_tokens, lanes=("vector",)),
    Operator("expand", "Repeated along axes of size 1.", shapes.expand, attributes=("shape",)),
    Operator("pad", "A number before, behind and between the elements of each axis.",
             shapes.pad, attributes=("before", "behind", "between", "value")),
    Operator("embedding", "The rows of a table that tokens name.", shapes.embedding, ("table",), by_token=always),
    Operator("rotary", "Rotary positions of queries or keys (Su et al. 2021).",
             shapes.rotary, ("cos", "sin"), (), ("heads", "interleaved"), always),
    Operator("attention", "`softmax(q k * scale + mask) v` for each head.",
             shapes.attention, attributes=("heads", "shared_heads", "causal", "scale"), by_token=causal),
    Operator("rows", "In a step of a session: the rows of a table that belong to the tokens of the step.",
             shapes.rows, ("value",), by_token=always, step_only=True, no_onnx="steps of sessions are not written"),
)  # fmt: skip

OPERATORS = {operator.name: operator for operator in _TABLE}
"""Every operator by its name."""

PRODUCTS = tuple(name for name, operator in OPERATORS.items() if "weight" in operator.parameters)
"""What multiplies by weights, which may have zeros; a node may have a residual as its second input."""

ELEMENTWISE = tuple(name for name, operator in OPERATORS.items() if operator.shape is shapes.elementwise)
"""Of two values, or three (``where``), which are broadcast as in NumPy."""

BINARY = ("add", "sub", "mul")
"""Elementwise operators that kernels compute on whole layouts, in the order of the ABI."""
