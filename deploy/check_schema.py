"""Checks the arguments in deploy/terraform against the schema of the azurerm provider, without a network.

`terraform validate` needs the provider's binary, which comes from a registry of its own. Its schema is also in a Python
package, the bindings of CDK Terrain: enough to catch unknown arguments and missing ones. Types, allowed values and
dependencies between arguments are left to `terraform validate` and `terraform test`.

    pip install --no-deps -r deploy/requirements-schema.txt
    python deploy/check_schema.py
"""

from __future__ import annotations

import importlib.util
import json
import re
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hcl2

TERRAFORM = Path(__file__).parent / "terraform"
META = {"count", "depends_on", "for_each", "lifecycle", "provider", "provisioner", "timeouts"}

_PAGE = re.compile(r"docs/(resources|data-sources)/(\w+)#(\w+)")


class Schema:
    """Arguments of resources and data sources, by the names that Terraform gives them."""

    def __init__(self, assembly: dict[str, Any]) -> None:
        self.version = ""
        self._types = assembly["types"]
        self._roots: dict[tuple[str, str], str] = {}
        for name, kind in self._types.items():
            if "cdktn.TerraformMetaArguments" not in kind.get("interfaces", []):
                continue
            for argument in kind.get("properties", []):
                if page := _page(argument):
                    self._roots[page[1], page[2]] = name
                    self.version = re.search(r"azurerm/([\d.]+)/", json.dumps(argument["docs"]))[1]  # type: ignore[index]
                    break

    def problems(self, kind: str, name: str, body: dict[str, Any]) -> Iterator[str]:
        """What is wrong with one ``resources`` or ``data-sources`` block."""
        root = self._roots.get((kind, name.removeprefix("azurerm_")))
        if root is None:
            yield "the provider does not have it"
        else:
            yield from self._in(root, body, META, "")

    def _in(self, type_name: str, body: dict[str, Any], meta: set[str], place: str) -> Iterator[str]:
        known = {
            page[3]: argument for argument in self._types[type_name].get("properties", []) if (page := _page(argument))
        }
        given = {name: value for name, value in body.items() if not name.startswith("__") and name != "dynamic"}
        for dynamic in body.get("dynamic", []):
            for name, block in dynamic.items():
                if not name.startswith("__"):
                    given.setdefault(_bare(name), []).extend(block["content"])
        for name in sorted(set(given) - set(known) - meta):
            yield f"{place}{name}: no such argument"
        for name, argument in sorted(known.items()):
            if name not in given:
                if not argument.get("optional"):
                    yield f"{place}{name}: is required"
                continue
            inner = _struct(argument["type"])
            blocks = given[name] if isinstance(given[name], list) else []
            for block in blocks:
                if inner in self._types and isinstance(block, dict) and block.get("__is_block__"):
                    yield from self._in(str(inner), block, set(), f"{place}{name}.")


def load() -> Schema:
    """The schema of the installed package. Raises SystemExit without it."""
    found = importlib.util.find_spec("cdktn_provider_azurerm")
    if found is None or not found.submodule_search_locations:
        sys.exit("cdktn-provider-azurerm is not installed: pip install --no-deps -r deploy/requirements-schema.txt")
    (archive,) = Path(found.submodule_search_locations[0]).glob("_jsii/*.tgz")
    with tarfile.open(archive) as files:
        content = files.extractfile("package/.jsii")
        assert content is not None
        return Schema(json.load(content))


def check(folder: Path, schema: Schema) -> list[str]:
    """Problems in all ``*.tf`` files below ``folder``."""
    problems = []
    for path in sorted(folder.rglob("*.tf")):
        if ".terraform" in path.parts:
            continue
        content = hcl2.loads(path.read_text(encoding="utf-8"))
        for section, kind in (("resource", "resources"), ("data", "data-sources")):
            for block in content.get(section, []):
                for type_name, instances in _named(block):
                    if type_name == "terraform_data":  # Terraform's own
                        continue
                    for name, body in _named(instances):
                        where = f"{path.relative_to(folder)}: {type_name}.{name}"
                        problems += [f"{where}: {problem}" for problem in schema.problems(kind, type_name, body)]
    return problems


def _named(block: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(_bare(name), body) for name, body in block.items() if not name.startswith("__")]


def _bare(name: str) -> str:
    return name.strip('"')


def _page(argument: dict[str, Any]) -> re.Match[str] | None:
    return _PAGE.search(json.dumps(argument.get("docs", {})))


def _struct(kind: dict[str, Any]) -> str | None:
    """The name of the struct within arrays and unions, None for plain values."""
    if "fqn" in kind:
        return str(kind["fqn"]) if not str(kind["fqn"]).startswith("cdktn.") else None
    inner = kind.get("union", {}).get("types", []) or [kind.get("collection", {}).get("elementtype", {})]
    return next((name for part in inner if part and (name := _struct(part))), None)


if __name__ == "__main__":
    schema = load()
    found = check(TERRAFORM, schema)
    print("\n".join(found) or f"deploy/terraform: all arguments are known to azurerm {schema.version}")
    sys.exit(1 if found else 0)
