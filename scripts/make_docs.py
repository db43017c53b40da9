#!/usr/bin/env python
"""Writes ``docs/recipe.md`` and ``docs/target.md``, the references of recipes and targets, from their JSON Schemas, and
``docs/internals/operators.md`` from the runtime's table of operators.

python scripts/make_docs.py           # write them
python scripts/make_docs.py --check   # exit status 1 when one is not current
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic_core import to_jsonable_python

from ticketsmith import models
from ticketsmith.config import schema as config_schema
from ticketsmith.config import target as target_schema_
from ticketsmith.config.json_schema import recipe_schema, target_schema
from ticketsmith.plugins import resolve
from ticketsmith.runtime.ops import OPERATORS

DOCS = Path(__file__).resolve().parent.parent / "docs"

RECIPE_HEAD = """\
# The recipe

<!-- Made by scripts/make_docs.py from the JSON Schema of recipes. Do not edit: run `make docs`. -->

A recipe is one YAML file. It says what is trained, how tickets are found, and when a sparse network is good enough.
`ticketsmith init` writes a commented one, `ticketsmith validate --config <file>` checks one, and `--set field=value`
overrides a field for one command, e.g. `--set training.lr=0.05 --set pruning.levels=4`.

Recipes are checked strictly. An unknown key, a wrong type or a value out of range is refused with the file, the line
and the nearest valid name. YAML is read by its 1.2 core schema: `1e-3` is a number, `no` is a word.

**Durations** are text: `500it` is 500 iterations, `20ep` is 20 epochs, `0.25ep` a quarter of one (rounded up to whole
iterations); a bare whole number means iterations. An epoch is the number of training examples, validation held out,
over the batch size.

**Components** (data, model, criterion) are a name, or a mapping with `name` and the component's own options:
`model: {name: mnist_cnn, width: 32}`. A name with a colon, `package.module:attribute`, is your own code;
[extending.md](extending.md) shows how.

**Layer patterns** (`rates`, `exclude`, `include`) are shell patterns on the names of parameters or of their layers:
`output`, `conv*`, `fc1.weight`. A pattern that matches nothing is refused. When several `rates` match a layer, the last
one counts.

Editors that know the YAML language server complete and check a recipe that begins with this line (the schema lies
beside the shipped recipes; `ticketsmith schema` prints it):

```yaml
# yaml-language-server: $schema=recipe.schema.json
```
"""

TARGET_HEAD = """\
# The target

<!-- Made by scripts/make_docs.py from the JSON Schema of targets. Do not edit: run `make docs`. -->

A target is one YAML file. It says where a recipe runs on Kubernetes, what that costs, and which limits keep the bill
down: see [kubernetes.md](kubernetes.md). The recipe stays as it is. `ticketsmith submit --config <recipe> --target
<target>` uses it, and `--set-target field=value` overrides a field, e.g. `--set-target budget.money=10`. Shipped ones
are in [configs/targets](../configs/targets).

**Times** are `90s`, `20m`, `4h`, `1d`, or a number of seconds. **Quantities** are those of Kubernetes: `500m`, `2`,
`16Gi`. **Machines** are names of the [price table](costs.md), or a name with a price of your own: `my-node=0.10`.
"""

OPERATORS_HEAD = """\
# Operators of the sparse runtime

<!-- Made by scripts/make_docs.py from ticketsmith/runtime/ops.py. Do not edit: run `make docs`. -->

A network in [the sparse runtime](../runtime.md), and in a `.tsk` file, is a graph of these operators. What PyTorch and
ONNX have beside them is made of them. [How to add one](adding.md#add-an-operator).

Shapes are those of one sample: `(features)`, `(tokens, features)`, `(channels, rows, columns)`, or any other of up to
six axes. **By token**: each token's values come from that token alone (of causal attention, also from those before it),
so that the operator can be part of a [session](../runtime.md#decoding-sessions). **In lanes**: of vectors, or of small
images, of many samples at once. What is in brackets may be missing.
"""

_KINDS = {"OwnTask": ", your own", "LanguageTask": ", language", "DenoisingTask": ", denoising"}

MODELS = """
## Built-in models

All of them begin with Gaussian weights (Glorot for `lenet_300_100`, `mlp` and the `conv` networks, GPT-2's for `gpt`,
He for the others) and zero biases, but for `unet`, which begins as PyTorch's layers do. Their last layer is called
`output`, and `head` in `gpt`;
`ticketsmith validate --config <file> --json` lists every layer that can be pruned, with its weights.
"""


def recipe_page() -> str:
    """The page on recipes, from the schema as it is now."""
    parts = [RECIPE_HEAD, *_reference("Recipe", recipe_schema(), config_schema)]
    return "\n".join([*parts, MODELS, *_models()]) + "\n"


def target_page() -> str:
    """The page on targets, from the schema as it is now."""
    return "\n".join([TARGET_HEAD, *_reference("Target", target_schema(), target_schema_)]) + "\n"


def operators_page() -> str:
    """The page on operators, from their table as it is now."""
    rows = ["| Operator | What it computes | Parameters | Attributes | By token | In lanes |", "| --- " * 6 + "|"]
    for name, operator in OPERATORS.items():
        parameters = [*operator.parameters, *(f"[{one}]" for one in operator.optional)]
        columns = [", ".join(each) or "-" for each in (parameters, operator.attributes)]
        cells = (
            f"`{name}`",
            operator.sentence,
            *columns,
            inspect.getdoc(operator.by_token) or "",
            ", ".join(operator.lanes) or "-",
        )
        rows.append("| " + " | ".join(cells) + " |")
    unwritten = [f"`{name}` ({operator.no_onnx})" for name, operator in OPERATORS.items() if operator.no_onnx]
    return "\n".join([OPERATORS_HEAD, *rows, "", f"All are written as ONNX, but for {', '.join(unwritten)}."]) + "\n"


def _reference(top: str, schema: Mapping[str, Any], module: ModuleType) -> list[str]:
    definitions = schema["$defs"]
    parts = ["## Top level\n", *_table(top, schema, definitions, module)]
    places: dict[str, list[str]] = {}
    queue = _children(schema, definitions, "")
    while queue:
        field, name = queue.pop(0)
        places.setdefault(name, []).append(field)
        queue = _children(definitions[name], definitions, field) + queue
    for name, fields in places.items():
        heading = ", ".join(f"`{field}`" for field in fields) + _KINDS.get(name, "")
        table = _table(name, definitions[name], definitions, module)
        parts += [f"\n## {heading}\n", _sentences(definitions[name]), "", *table]
    return parts


def _models() -> list[str]:
    rows = ["| Name | Options | Network |", "| --- | --- | --- |"]
    for name in models.BUILTINS:
        component = resolve("model", name, models.BUILTINS)
        options = [
            f"`{option.name}: {json.dumps(option.default)}`"
            for option in inspect.signature(component).parameters.values()
            if option.name not in ("input_shape", "classes")
        ]
        about = " ".join((inspect.getdoc(component) or "").split()).replace("``", "`")
        rows.append(f"| `{name}` | {', '.join(options) or '-'} | {about} |")
    return rows


def _children(schema: Mapping[str, Any], definitions: Mapping[str, Any], path: str) -> list[tuple[str, str]]:
    """Fields that hold a mapping of their own, each with the name of its definition; components are in the head."""
    found = []
    for field, value in schema.get("properties", {}).items():
        full = f"{path}.{field}" if path else field
        if "additionalProperties" in value and "$ref" in json.dumps(value["additionalProperties"]):
            full += ".<metric>"
        names = re.findall(r'"#/\$defs/(\w+)"', json.dumps({k: v for k, v in value.items() if k != "default"}))
        for name in dict.fromkeys(names):
            if name not in ("NamedComponent", "Plain"):
                found.append((full, name))
    return [(full, name) for full, name in found if "properties" in definitions[name]]


def _table(name: str, schema: Mapping[str, Any], definitions: Mapping[str, Any], module: ModuleType) -> list[str]:
    needed = set(schema.get("required", ()))
    rows = ["| Field | Type | Default | Meaning |", "| --- | --- | --- | --- |"]
    for field, value in schema.get("properties", {}).items():
        default = "**required**" if field in needed else _default(name, field, value, module)
        meaning = value.get("description") or _sentences(_referred(value, definitions))
        cells = (f"`{field}`", _type(value, definitions), default, " ".join(meaning.split()))
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    if schema.get("additionalProperties") is True:
        rows.append("| any other | | | An option of the component itself. |")
    return rows


def _referred(value: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = value.get("$ref", "")
    return definitions[reference.rpartition("/")[2]] if reference else {}


def _sentences(definition: Mapping[str, Any]) -> str:
    return " ".join(str(definition.get("description", "")).split())


def _default(model: str, field: str, value: Mapping[str, Any], module: ModuleType) -> str:
    if "default" not in value and "$ref" in value:
        return "see below"
    default = value.get("default")
    if "default" not in value:  # the schema does not tell what a factory makes
        made = getattr(module, model).model_fields[field].get_default(call_default_factory=True)
        default = to_jsonable_python(made, exclude_none=True)
    if default is None:
        return "none"
    return f"`{default if isinstance(default, str) else json.dumps(default)}`"


def _type(value: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    if "$ref" in value:
        return _named(value["$ref"].rpartition("/")[2])
    for union in ("anyOf", "oneOf"):
        if union in value:
            if any("pattern" in part for part in value[union]):
                return "duration"
            kinds = [_type(part, definitions) for part in value[union]]
            kinds = list(dict.fromkeys(kind for kind in kinds if kind != "null"))
            others = f"list of {' or '.join(kinds[:-1])}"
            return " or ".join("list of these" if kind == others else kind for kind in kinds)
    if "const" in value:
        return f"`{json.dumps(value['const']).strip(chr(34))}`"
    if "enum" in value:
        return " or ".join(f"`{choice}`" for choice in value["enum"])
    if isinstance(value.get("type"), list):
        return "quantity" if "number" in value["type"] else "time"
    kind = str(value.get("type", "any"))
    if kind == "array":
        return f"list of {_type(value.get('items', {}), definitions)}"
    if kind == "object":
        return f"mapping to {_type(value.get('additionalProperties', {}), definitions)}"
    words = {"integer": "whole number", "string": "text", "boolean": "true or false"}
    return words.get(kind, kind) + _range(value)


def _named(definition: str) -> str:
    return {"NamedComponent": "`{name: ...}`", "Plain": "`{}`"}.get(definition, "mapping")


def _range(value: Mapping[str, Any]) -> str:
    signs = (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<"))
    limits = [f"{sign} {value[key]:,}" for key, sign in signs if key in value]
    return f" {', '.join(limits)}" if limits else ""


def main() -> int:
    """Writes the pages, or checks them."""
    stale = 0
    pages = {"recipe.md": recipe_page(), "target.md": target_page(), "internals/operators.md": operators_page()}
    for name, text in pages.items():
        place = DOCS / name
        if "--check" in sys.argv[1:]:
            current = place.is_file() and place.read_text(encoding="utf-8") == text
            print(f"{name} is {'current' if current else 'out of date: run `make docs`'}")
            stale += not current
        else:
            place.write_text(text, encoding="utf-8")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
