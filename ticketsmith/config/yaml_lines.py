"""YAML with line numbers. The core schema of YAML 1.2: ``1e-3`` is a number, ``no`` is a word."""

from __future__ import annotations

import re
from typing import Any

import yaml

from ticketsmith.errors import RecipeError

Lines = dict[tuple[str | int, ...], int]
"""Path of a value in the document to its line, counted from 1."""

_MAX_BYTES = 1_000_000
_MAX_DEPTH = 50
_MAX_VALUES = 20_000  # an alias counts as often as it is used


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = {}  # noqa: RUF012 - PyYAML's own way; ours are added below


class Dumper(yaml.SafeDumper):
    """Writes what ``parse`` reads back as it was."""

    yaml_implicit_resolvers = {}  # noqa: RUF012


_CORE = {
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "int": (r"[-+]?[0-9][0-9_]*|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    "float": (
        r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+0123456789.",
    ),
}
for _tag, (_pattern, _first) in _CORE.items():
    for _kind in (_Loader, Dumper):
        _kind.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_pattern})$"), list(_first))


def _integer(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = node.value.replace("_", "")
    return int(text, 0 if text[:2] in ("0o", "0x") else 10)


_Loader.add_constructor("tag:yaml.org,2002:int", _integer)


def parse(text: str, name: str) -> tuple[Any, Lines]:
    """The document as plain data, and the line of every value. Raises RecipeError with the line of what is wrong."""
    if len(text) > _MAX_BYTES:
        raise RecipeError(f"{name}: larger than {_MAX_BYTES:,} characters: that is no recipe.")
    lines: Lines = {}
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None, lines
        return _value(loader, node, (), lines, name), lines
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        raise RecipeError(f"{name}{line}: not valid YAML: {error.problem or error.context}.") from error
    except yaml.YAMLError as error:
        raise RecipeError(f"{name}: not valid YAML: {' '.join(str(error).split())}") from error
    except (RecursionError, ValueError, OverflowError, KeyError, IndexError, TypeError) as error:
        raise RecipeError(f"{name}: not valid YAML: {error}") from error


def _value(loader: _Loader, node: yaml.Node, path: tuple[str | int, ...], lines: Lines, name: str) -> Any:
    line = node.start_mark.line + 1
    lines.setdefault(path, line)
    if len(lines) > _MAX_VALUES:
        raise RecipeError(f"{name}:{line}: more than {_MAX_VALUES:,} values: that is no recipe.")
    if len(path) > _MAX_DEPTH:
        raise RecipeError(f"{name}:{line}: nested more than {_MAX_DEPTH} deep.")
    if isinstance(node, yaml.MappingNode):
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            key = loader.construct_object(key_node) if isinstance(key_node, yaml.ScalarNode) else None
            if not isinstance(key, str):
                raise RecipeError(f"{name}:{line}: a key must be a word, not {key_node.value!r:.40}.")
            if key in mapping:
                raise RecipeError(f"{name}:{line}: {key!r} is given twice (first in line {lines[(*path, key)]}).")
            lines[(*path, key)] = line
            mapping[key] = _value(loader, value_node, (*path, key), lines, name)
        return mapping
    if isinstance(node, yaml.SequenceNode):
        return [_value(loader, item, (*path, index), lines, name) for index, item in enumerate(node.value)]
    if node.tag not in {f"tag:yaml.org,2002:{tag}" for tag in (*_CORE, "str")}:
        raise RecipeError(f"{name}:{line}: {node.tag!r} is not used in recipes.")
    return loader.construct_object(node)
