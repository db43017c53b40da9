"""Ways to run a trained model, one file each. ``contract`` says what one is, ``settings.RUNTIMES`` lists those built in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from ticketsmith.errors import RecipeError
from ticketsmith.inference.runtimes.contract import (
    ArrayCall,
    ArrayDecoder,
    Call,
    CannotRunError,
    Decodes,
    Deployable,
    Deployment,
    OnnxFile,
    Runtime,
    is_dense,
    precision_of,
    tolerance_of,
)
from ticketsmith.inference.settings import PRECISIONS, RUNTIMES
from ticketsmith.plugins import build, is_dotted, resolve

__all__ = [
    "ArrayCall",
    "ArrayDecoder",
    "Call",
    "CannotRunError",
    "Decodes",
    "Deployable",
    "Deployment",
    "OnnxFile",
    "Runtime",
    "create",
    "is_dense",
    "lined_up",
    "parse",
    "precision_of",
    "tolerance_of",
]

TARGETS = {name: builtin.target for name, builtin in RUNTIMES.items()}


def create(name: str, options: Mapping[str, Any] | None = None) -> Runtime:
    """The runtime that a recipe or a command names. Raises RecipeError for unknown names and options."""
    runtime = build("runtime", name, TARGETS, options or {})
    if not isinstance(runtime, Runtime):
        raise RecipeError(f"runtime {name!r} gives a {type(runtime).__name__}, which has no `name` and `prepare`.")
    if precision_of(runtime) not in PRECISIONS:
        raise RecipeError(f"runtime {name!r} has the precision {precision_of(runtime)!r}, not {_listed(PRECISIONS)}.")
    return runtime


def lined_up(texts: tuple[str, ...], precisions: tuple[str, ...]) -> tuple[list[Runtime], list[str]]:
    """The runtimes that a user names, in each precision asked for, and notes on what was left out.

    A text is a name, and options after commas: ``sparse``, ``sparse,tuned=false``, ``package.module:Runtime,depth=3``.
    Where a text gives no ``precision``, the runtime is taken in each of ``precisions`` that it has. Raises RecipeError.
    """
    found: list[Runtime] = []
    notes: list[str] = []
    for text in dict.fromkeys(texts):
        name, options = parse(text)
        target = resolve("runtime", name, TARGETS)
        own = str(getattr(target, "precision", "float32"))
        offered = getattr(target, "precisions", (own,))
        if "precision" in options:
            found.append(_named(create(name, options), name, options))
            continue
        lacking = [precision for precision in dict.fromkeys(precisions) if precision not in offered]
        if lacking:
            notes.append(f"{name} has no {' and no '.join(lacking)}")
        for precision in dict.fromkeys(precisions):
            if precision in offered:
                chosen = options if precision == own else {**options, "precision": precision}
                found.append(_named(create(name, chosen), name, options))
    if not found:
        raise RecipeError(f"no runtime is left to measure: {'; '.join(notes)}.")
    return found, notes


def parse(text: str) -> tuple[str, dict[str, Any]]:
    """Name and options of ``sparse,precision=int8``. Raises RecipeError."""
    name, *parts = [part.strip() for part in text.split(",")]
    options: dict[str, Any] = {}
    for part in parts:
        option, equals, value = part.partition("=")
        if not equals or not option:
            raise RecipeError(
                f"runtime {text!r}: options are written NAME,OPTION=VALUE, for example `sparse,tuned=false`."
            )
        try:
            options[option] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise RecipeError(f"runtime {text!r}: the value of {option!r} cannot be read.") from error
    return name, options


def _named(runtime: Runtime, name: str, options: Mapping[str, Any]) -> Runtime:
    """Tells a runtime with options from the same without; precision has a column of its own."""
    told = [f"{option}={value}".lower() for option, value in options.items() if option != "precision"]
    if told and not is_dotted(name):
        runtime.name = ",".join([runtime.name, *told])
    return runtime


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names)
