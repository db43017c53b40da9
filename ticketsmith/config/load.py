"""From a YAML file to a ``Recipe``: every mistake named by file, line, field and mend."""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, Tag, ValidationError

from ticketsmith.config.schema import Recipe
from ticketsmith.config.tasks import BUILTIN_TASKS
from ticketsmith.config.track import has_secret
from ticketsmith.config.yaml_lines import Dumper, Lines, parse
from ticketsmith.errors import RecipeError
from ticketsmith.plugins import make_importable, nearest

Model = TypeVar("Model", bound=BaseModel)

_TAGS = {
    *BUILTIN_TASKS,
    "own",
    "patterns",
    "blocks",
    "NamedComponent",
    "Draws",
    "Plain",
    "PostTraining",
    "Finetune",
    "str",
    "constrained-str",
}  # union tags in pydantic's locations


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Reads a recipe; ``overrides`` are ``field.path=value`` in YAML, as given to ``--set``.

    The recipe's folder becomes a place to import the user's own components from. Raises RecipeError.
    """
    path = Path(path)
    return parse_recipe(read_text(path, "init"), str(path), path.parent, overrides)


def read_text(path: Path, writer: str | None = None) -> str:
    """A configuration file's text; ``writer`` is the verb that writes a first one. Raises RecipeError."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        hint = f" `ticketsmith {writer} {path.name or 'recipe.yaml'}` writes one." if writer else ""
        raise RecipeError(f"{path}: no such file.{hint}") from None
    except UnicodeDecodeError:
        raise RecipeError(f"{path}: not UTF-8 text.") from None
    except (OSError, ValueError) as error:
        raise RecipeError(f"{path}: cannot be read: {error}") from error


def parse_recipe(text: str, name: str, base: Path, overrides: Sequence[str] = ()) -> Recipe:
    """A recipe from its text; ``name`` stands for it in messages. Raises RecipeError."""
    recipe, plain = parse_model(Recipe, text, name, overrides, "a recipe", "experiment: <name>")
    make_importable(base)
    recipe._base = base.resolve()
    recipe._source = yaml.dump(plain, Dumper=Dumper, sort_keys=False) if overrides else text
    return recipe


def parse_model(
    model: type[Model],
    text: str,
    name: str,
    overrides: Sequence[str],
    what: str,
    first: str,
    context: Mapping[str, Any] | None = None,
) -> tuple[Model, dict[str, Any]]:
    """A checked model from YAML text, and the plain data that it was made of. ``what`` begins with, say, ``first``.

    ``context`` is for the model's own validators.
    Raises RecipeError that names file, line, field and mend.
    """
    plain, lines = parse(text, name)
    if not isinstance(plain, dict):
        raise RecipeError(f"{name}:1: {what} is a mapping of fields, beginning with `{first}`.")
    origins: dict[tuple[str | int, ...], str] = {}
    for override in overrides:
        origins[_override(plain, override)] = f"--set {override}"
    try:
        return model.model_validate(plain, context=context), plain
    except ValidationError as error:
        raise RecipeError(_explain(error, model, name, lines, origins)) from error


def _override(plain: dict[str, Any], override: str) -> tuple[str | int, ...]:
    field, equals, text = override.partition("=")
    path = tuple(field.strip().split("."))
    if not equals or not all(path):
        raise RecipeError(f"--set {override}: expected `field.path=value`, for example `--set training.lr=0.05`.")
    value, _ = parse(text, f"--set {override}")
    place = plain
    for part in path[:-1]:
        inner = place.setdefault(part, {})
        if isinstance(inner, str) and part in ("data", "model", "criterion"):
            inner = place[part] = {"name": inner}
        if inner is None:
            inner = place[part] = {}
        if not isinstance(inner, dict):
            raise RecipeError(f"--set {override}: {part!r} is not a mapping, so it has no field {path[-1]!r}.")
        place = inner
    place[path[-1]] = value
    return path


def _explain(
    error: ValidationError,
    model: type[BaseModel],
    name: str,
    lines: Lines,
    origins: Mapping[tuple[str | int, ...], str],
) -> str:
    messages: dict[str, None] = {}
    for problem in _one_per_place(error):
        path = _path(problem["loc"])
        place = next((f"{name}: {origin}" for set_, origin in origins.items() if path[: len(set_)] == set_), None)
        if place is None:
            line_path = next((path[:end] for end in range(len(path), -1, -1) if path[:end] in lines), ())
            place = f"{name}:{lines.get(line_path, 1)}"
        field = ".".join(str(part) for part in path) or model.__name__.lower()
        messages[f"{place}: {field}: {_words(problem, problem['loc'], model)}"] = None
    return "\n".join(messages)


def _one_per_place(error: ValidationError) -> list[Any]:
    """Of the alternatives of a union that all failed, the last word: the most structured one."""
    by_place: dict[tuple[Any, ...], Any] = {}
    for problem in error.errors():
        place = tuple(_path(problem["loc"]))
        if place in by_place and problem["type"] in ("string_type", "literal_error"):
            continue
        by_place[place] = problem
    for place in list(by_place):
        if any(other != place and other[: len(place)] == place for other in by_place):
            del by_place[place]
    return list(by_place.values())


def _path(location: tuple[str | int, ...]) -> tuple[str | int, ...]:
    return tuple(
        part
        for index, part in enumerate(location)
        if not (index and isinstance(part, str) and (part in _TAGS or part.startswith("function-")))
    )


def _words(problem: Any, path: tuple[str | int, ...], model: type[BaseModel]) -> str:
    if problem["type"] == "extra_forbidden":
        fields = _fields_at(path[:-1], model)
        elsewhere = [f"{outer}.{path[-1]}" for outer in model.model_fields if path[-1] in _fields_at((outer,), model)]
        hint = f" Did you mean {elsewhere[0]!r}?" if elsewhere else nearest(str(path[-1]), fields)
        return f"unknown key.{hint}"
    if problem["type"] == "missing":
        return f"is needed but not given. {_description(path, model)}".strip()
    message = problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
    value = problem["input"]
    hidden = isinstance(value, Mapping | BaseModel) or (isinstance(value, str) and has_secret(value))
    shown = "" if hidden else f" (got {value!r:.60})"
    return f"{message}{shown}."


def _fields_at(path: tuple[str | int, ...], model: type[BaseModel]) -> list[str]:
    inner = _model_at(path, model)
    return list(inner.model_fields) if inner else []


def _description(path: tuple[str | int, ...], model: type[BaseModel]) -> str:
    inner = _model_at(path[:-1], model)
    field = inner.model_fields.get(str(path[-1])) if inner else None
    return (field.description or "") if field else ""


def _model_at(path: tuple[str | int, ...], model: type[BaseModel]) -> type[BaseModel] | None:
    """The model of a place. A tag of a union says which of its models is meant; without one, it is the first."""
    inner: type[BaseModel] | None = model
    annotation: Any = None
    for part in path:
        tagged = next((member for tag, member in _members(annotation) if tag == part), None)
        if tagged is not None:
            inner = tagged
        elif not (annotation is not None and part in _TAGS):
            field = inner.model_fields.get(str(part)) if inner else None
            annotation = field.annotation if field else None
            inner = _first_model(annotation)
    return inner


def _members(annotation: Any) -> list[tuple[str, type[BaseModel]]]:
    """The models of a tagged union by their tags."""
    return [
        (note.tag, get_args(member)[0])
        for member in get_args(annotation)
        for note in getattr(member, "__metadata__", ())
        if isinstance(note, Tag)
    ]


def _first_model(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (Union, types.UnionType) or hasattr(annotation, "__metadata__"):
        return next((model for model in map(_first_model, get_args(annotation)) if model), None)
    return None
