"""The one door for extensions: a built-in name, or a user's own ``package.module:attribute``, with checked options.

Tasks, models, data sets, criteria and runtimes are all named in a recipe in the same way::

    model: mnist_cnn                                  # a built-in
    model: {name: mnist_cnn, width: 16}               # with options
    model: {name: "my_package.nets:TinyNet", depth: 3}  # a user's own class or function

The built-in ones use this door too.
"""

from __future__ import annotations

import ast
import difflib
import hashlib
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import PydanticUserError, TypeAdapter, ValidationError

from ticketsmith.errors import RecipeError, TicketSmithError

Builtins = Mapping[str, str]


def is_dotted(name: str) -> bool:
    """True for ``package.module:attribute``."""
    return ":" in name


def nearest(word: str, choices: Mapping[str, Any] | list[str]) -> str:
    """`` Did you mean 'x'?`` for the nearest of ``choices``, or their list when none is near."""
    names = [str(choice) for choice in choices]
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    if close:
        return f" Did you mean {close[0]!r}?"
    return f" Known: {', '.join(sorted(names))}." if names else ""


def make_importable(folder: Path) -> None:
    """Lets dotted names be found beside the recipe and in the current directory, as a script's would be."""
    for place in (str(folder.resolve()), str(Path.cwd())):
        if place not in sys.path:
            sys.path.append(place)


def resolve(kind: str, name: str, builtins: Builtins) -> Callable[..., Any]:
    """The callable that ``name`` stands for.

    Raises RecipeError when a built-in name is unknown (the nearest is suggested), or when a dotted name cannot be
    imported (the reason is told).
    """
    target = name if is_dotted(name) else builtins.get(name)
    if target is None:
        raise RecipeError(
            f"unknown {kind} {name!r}.{nearest(name, list(builtins))} Your own goes by 'package.module:attribute'."
        )
    module_name, _, attribute = target.partition(":")
    try:
        value: Any = importlib.import_module(module_name)
        for part in attribute.split("."):
            value = getattr(value, part)
    except ModuleNotFoundError as error:
        raise RecipeError(
            f"{kind} {name!r}: cannot import {error.name!r}. Put the module beside the recipe, in the current "
            "directory, or install it."
        ) from error
    except AttributeError as error:
        raise RecipeError(f"{kind} {name!r}: module {module_name!r} has no {attribute!r}.") from error
    except Exception as error:  # a user's module may fail in any way while it is imported
        raise RecipeError(f"{kind} {name!r}: importing it failed: {type(error).__name__}: {error}") from error
    if not callable(value):
        raise RecipeError(f"{kind} {name!r} is not callable: name a class or a function.")
    return value  # type: ignore[no-any-return]


@lru_cache(maxsize=64)
def signature(target: Callable[..., Any]) -> inspect.Signature:
    """Of a component, which is asked for each model that is built. Raises TypeError or ValueError where there is none."""
    return inspect.signature(target)


def check_options(kind: str, name: str, target: Callable[..., Any], options: Mapping[str, Any], *own: str) -> None:
    """Refuses options that ``target`` does not take, or lacks, by its signature.

    ``own`` names the parameters that the caller itself will pass. Raises RecipeError.
    """
    try:
        every = signature(target).parameters.values()
    except (TypeError, ValueError):
        return
    parameters = {
        parameter.name: parameter
        for parameter in every
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in every)
    names = [parameter for parameter in parameters if parameter not in own]
    for option in options:
        if option in own or (option not in parameters and not open_ended):
            raise RecipeError(f"{kind} {name!r} takes no option {option!r}.{nearest(option, names)}")
    for parameter in names:
        if parameters[parameter].default is inspect.Parameter.empty and parameter not in options:
            raise RecipeError(f"{kind} {name!r} needs the option {parameter!r}.")


def build(kind: str, name: str, builtins: Builtins, options: Mapping[str, Any], **arguments: Any) -> Any:
    """Calls the component with its options (type-checked against its annotations) and what the caller gives.

    Raises RecipeError for a wrong option; errors of the component itself pass through.
    """
    target = resolve(kind, name, builtins)
    check_options(kind, name, target, options, *arguments)
    return target(**arguments, **_typed(kind, name, target, options))


def _typed(kind: str, name: str, target: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """The options as the types that ``target`` is annotated with; where an annotation says nothing, as they are."""
    if not options:
        return {}
    try:
        hints = get_type_hints(target.__init__ if inspect.isclass(target) else target)
    except (NameError, TypeError, AttributeError):  # annotations that only a type checker can read are the user's right
        hints = {}
    typed = dict(options)
    for option in options.keys() & hints.keys():
        try:
            typed[option] = TypeAdapter(hints[option]).validate_python(options[option])
        except ValidationError as error:
            first = error.errors()[0]
            raise RecipeError(
                f"{kind} {name!r}: option {option!r}: {first['msg']} (got {first['input']!r})."
            ) from error
        except PydanticUserError:  # a class that pydantic does not know
            continue
    return typed


def source_fingerprint(name: str) -> str | None:
    """SHA-256 of the code behind a dotted name, so that an edited model is another spec; None for built-ins.

    Of the module's file and of all that it imports, directly or not, from the same folder or package.
    """
    if not is_dotted(name):
        return None
    module_name = name.partition(":")[0]
    importlib.import_module(module_name)
    sources = _sources(module_name)
    digest = hashlib.sha256()
    for module in sorted(sources):
        digest.update(module.encode() + b"\0" + sources[module] + b"\0")
    return digest.hexdigest()


def _sources(start: str) -> dict[str, bytes]:
    """Sources by module name: ``start`` and the modules beside it that it leads to."""
    root = _file(start)
    if root is None:
        return {}
    folder = root.parents[start.count(".") + (root.name == "__init__.py")]
    sources: dict[str, bytes] = {}
    todo = [start]
    while todo:
        module = todo.pop()
        file = _file(module)
        if module in sources or file is None or not file.is_relative_to(folder) or "site-packages" in file.parts:
            continue
        sources[module] = file.read_bytes()
        package = module if file.name == "__init__.py" else module.rpartition(".")[0]
        for node in ast.walk(ast.parse(sources[module])):
            if isinstance(node, ast.Import):
                todo += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
                source = ".".join([*base, *([node.module] if node.module else [])])
                todo += [source, *(f"{source}.{alias.name}" for alias in node.names)]
    return sources


def _file(module: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, AttributeError, ValueError):
        return None
    return Path(spec.origin).resolve() if spec and spec.origin and spec.origin.endswith(".py") else None


def telling(parameters: Mapping[str, inspect.Parameter], options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that are not at their default: only these change anything."""
    return {
        name: value for name, value in options.items() if name not in parameters or parameters[name].default != value
    }


@contextmanager
def foreign(raises: Callable[[Exception], TicketSmithError]) -> Iterator[None]:
    """Around a user's own code, which may fail in any way: our own errors pass, any other becomes what ``raises`` makes of it."""
    try:
        yield
    except TicketSmithError:
        raise
    except Exception as error:
        raise raises(error) from error


def failure(error: Exception) -> str:
    """An error of a user's code in a line, with its place."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} (in {where.name}, {where.filename}:{where.lineno})"
