"""Models that no experiment made: an ONNX file, or a PyTorch module by its dotted name."""

from __future__ import annotations

import hashlib
import inspect
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ticketsmith.engines import CannotRunError, need
from ticketsmith.errors import RecipeError, TicketSmithError, in_a_line
from ticketsmith.inference.measuring.lineup import Candidate
from ticketsmith.inference.measuring.weights import of_module as weights_of
from ticketsmith.inference.measuring.weights import of_onnx as weights_of_onnx
from ticketsmith.inference.onnx_checks import check_values, check_weights
from ticketsmith.inference.runtimes import OnnxFile
from ticketsmith.memory import read_file, require, require_file
from ticketsmith.models.size import Bounded, bounded_by
from ticketsmith.models.state import load, snapshot
from ticketsmith.plugins import is_dotted, resolve
from ticketsmith.runtime.onnx.constants import Constants
from ticketsmith.runtime.onnx.probes import ranges, whole_numbers
from ticketsmith.runtime.torch.trace import table_size

Shape = tuple[int, ...]
Inputs = Callable[[int], Tensor]
_TYPES = {1: torch.float32, 6: torch.int32, 7: torch.int64}
"""ONNX element types of inputs."""


def shape_of(text: str) -> Shape:
    """``1,28,28``: the shape of one input, without the batch. Raises RecipeError."""
    try:
        shape = tuple(int(part) for part in text.replace("x", ",").split(","))
    except ValueError:
        shape = ()
    if not shape or min(shape) < 1:
        raise RecipeError(f"--shape {text!r}: give the sizes of one input without the batch, for example 1,28,28.")
    return shape


def of_module(name: str, shape: Shape | None, weights: str | None = None) -> tuple[Candidate, Inputs]:
    """``package.module:Net``, a class or a function that gives a module, with the weights of a safetensors file.

    Inputs of ``shape`` are drawn at random: numbers, or for a model that reads tables tokens that are in them. Raises
    RecipeError when the model cannot be made, or does not take them.
    """
    if not is_dotted(name):
        raise RecipeError(f"--model {name!r}: give a dotted name, package.module:Net.")
    if shape is None:
        raise RecipeError(f"--model {name}: say what one input looks like, for example --shape 1,28,28.")
    source = resolve("model", name, {})
    torch.manual_seed(0)
    try:
        with Bounded():
            model = source() if inspect.isclass(source) or not isinstance(source, nn.Module) else source
    except Exception as error:
        raise RecipeError(f"--model {name}: it cannot be made without arguments: {_first(error)}") from error
    if not isinstance(model, nn.Module):
        raise RecipeError(f"--model {name}: it gives {type(model).__name__!r}, not a torch.nn.Module.")
    if weights is not None:
        _load(model, weights)
    model.eval()
    inputs, sparsity = _taken(name, model, shape)
    digest = hashlib.sha256(name.encode())
    for tensor in snapshot(model).values():
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    label = name.rpartition(":")[2]
    return Candidate(label, 0, 0, digest.hexdigest(), sparsity, model), inputs


def _taken(name: str, model: nn.Module, shape: Shape) -> tuple[Inputs, float]:
    """Inputs that a model takes, and the share of zeros of what it multiplies them by."""
    inputs = _random(shape, torch.float32)
    mend = "Give a smaller --shape."
    try:
        with bounded_by(inputs(1), mend=mend):
            return inputs, weights_of(model, model, inputs(1))[0].sparsity
    except TicketSmithError:
        raise
    except Exception as error:  # a user's model may fail in any way
        try:
            high = table_size(model, torch.zeros(1, *shape, dtype=torch.int64))
            inputs = _random(shape, torch.int64, high)
            with bounded_by(inputs(1), mend=mend):
                return inputs, weights_of(model, model, inputs(1))[0].sparsity
        except TicketSmithError:
            raise
        except Exception:  # the first one says more
            raise RecipeError(
                f"--model {name}: it does not take inputs of shape {(1, *shape)}: {_first(error)} Mend --shape."
            ) from error


def of_onnx(path: str, shape: Shape | None) -> tuple[Candidate, Inputs]:
    """An ONNX file of one input and one output; free sizes other than the batch's are taken from ``shape``.

    Raises RecipeError when the file cannot be read, or ``shape`` does not fit.
    """
    try:
        need("onnx", "onnxruntime")
    except CannotRunError as error:
        raise RecipeError(f"--onnx {path}: {error}") from error
    import onnx
    import onnx.inliner

    try:
        content = read_file(path)
        model = onnx.load_model_from_string(content)
        check_weights(model, Path(path).parent)
        onnx.checker.check_model(path)
        if model.functions:
            model = onnx.inliner.inline_local_functions(model)
    except RecipeError as error:
        raise RecipeError(f"--onnx {path}: {error}") from error
    except OSError as error:
        raise RecipeError(f"--onnx {path}: cannot be read: {error.strerror}.") from error
    except Exception as error:  # protobuf's and the checker's own failures
        raise RecipeError(f"--onnx {path}: this is no sound ONNX model: {_first(error)}") from error
    constants = {tensor.name for tensor in model.graph.initializer}
    ports = [value for value in model.graph.input if value.name not in constants]
    if len(ports) != 1 or len(model.graph.output) != 1:
        raise RecipeError(
            f"--onnx {path}: it has {len(ports)} inputs and {len(model.graph.output)} outputs; the benchmark runs models "
            "of one each."
        )
    kind = ports[0].type.tensor_type
    if kind.elem_type not in _TYPES:
        name = onnx.TensorProto.DataType.Name(kind.elem_type)
        raise RecipeError(f"--onnx {path}: inputs of {name} are not supported: float32, int32 or int64.")
    sizes = [size.dim_value if size.dim_value > 0 else None for size in kind.shape.dim]  # some write -1 for a free size
    own = _fitting(path, sizes, shape)
    check_values(model, own, f"--onnx {path}")
    batch = sizes[0]
    inputs = _random(own, _TYPES[kind.elem_type], ranges(model).get(ports[0].name))

    def checked(count: int) -> Tensor:
        if batch not in (None, count):
            raise RecipeError(
                f"--onnx {path}: it was exported for batches of {batch}; say --batch-size {batch}, or export it with a "
                "free batch size."
            )
        return inputs(count)

    sparsity = weights_of_onnx(model, Constants(model, Path(path).parent)).sparsity
    key = hashlib.sha256(content).hexdigest()
    return Candidate(Path(path).stem, 0, 0, key, sparsity, OnnxFile(Path(path))), checked


def _fitting(path: str, sizes: list[int | None], shape: Shape | None) -> Shape:
    if not sizes:
        raise RecipeError(f"--onnx {path}: its input has no batch: nothing can be said of batch sizes.")
    if shape is None:
        if any(size is None for size in sizes[1:]):
            raise RecipeError(f"--onnx {path}: its input has free sizes {sizes[1:]}: say which, --shape 1,28,28.")
        return tuple(int(size) for size in sizes[1:] if size is not None)
    fits = len(shape) == len(sizes) - 1 and all(
        size in (None, own) for size, own in zip(sizes[1:], shape, strict=False)
    )
    if not fits:
        raise RecipeError(f"--onnx {path}: its input has the sizes {sizes[1:]} after the batch, not {list(shape)}.")
    return shape


def _load(model: nn.Module, weights: str) -> None:
    from safetensors.torch import load_file

    try:
        require_file(weights)
        load(model, load_file(weights))
    except RecipeError:
        raise
    except OSError as error:
        raise RecipeError(f"--weights {weights}: cannot be read: {error.strerror or error}.") from error
    except Exception as error:
        raise RecipeError(f"--weights {weights}: they do not fit the model: {_first(error)}") from error


def _random(shape: Shape, dtype: torch.dtype, high: int | None = None) -> Inputs:
    """Draws inputs; whole numbers below ``high``, or a mask where a model has no table for them."""

    def inputs(count: int) -> Tensor:
        sizes = ",".join(str(size) for size in shape)
        require(
            count * math.prod(shape) * dtype.itemsize,
            f"--shape {sizes}: {count:,} inputs of that size"
            if count > 1
            else f"--shape {sizes}: an input of that size",
            f"Give a smaller --{'batch-size' if count > 1 else 'shape'}.",
        )
        if dtype == torch.float32:
            return torch.randn(count, *shape, generator=torch.Generator().manual_seed(0))
        drawn = whole_numbers((count, *shape), high, np.random.default_rng(0))
        return torch.from_numpy(drawn).to(dtype)

    return inputs


def _first(error: Exception) -> str:
    if isinstance(error, TicketSmithError):
        return str(error)
    return f"{in_a_line(error).rstrip('.')}."
