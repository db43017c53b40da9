"""What an installation on Azure stands on, argument by argument, without the provider.

``terraform test`` needs the provider and answers that are made up. Wiring that is wrong, such as a role for another identity,
passes it, since all mocked identities look alike; it does not pass this.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.deploy.hcl import Block, read
from tests.deploy.rendered import TERRAFORM

EXPECTED: dict[str, dict[str, dict[str, str]]] = yaml.safe_load(
    (Path(__file__).parent / "installation.yaml").read_text(encoding="utf-8")
)
FILES = (
    "main",
    "access",
    "budget",
    "cluster",
    "identity",
    "network",
    "registry",
    "storage",
    "variables",
    "outputs",
    "versions",
)
WORDS = {"description", "error_message"}
"""Arguments that nothing depends on."""


def paths(root: Path, place: str) -> list[Path]:
    """The files of a module, or those of all modules that have one name."""
    if place in ("variables", "outputs", "versions"):
        return sorted(root.glob(f"**/{place}.tf"))
    return [root / "main.tf"] if place == "main" else sorted((root / "modules" / place).glob("main.tf"))


def blocks(root: Path, place: str) -> dict[str, dict[str, str]]:
    """Arguments by their path, of each block by its name; modules' variables and outputs begin with the module's."""
    found: dict[str, dict[str, str]] = {}
    for path in paths(root, place):
        module = path.parent.name if place in ("variables", "outputs", "versions") and path.parent != root else ""
        for block in read(path).blocks:
            name = f"{module}/{block.name}" if module else block.name
            assert name not in found, f"{path}: {name} is there twice"
            found[name] = {key: value for key, value in block.flat() if key.rpartition(".")[2] not in WORDS}
    return found


@pytest.mark.parametrize("place", FILES)
def test_every_argument_is_the_one_that_was_looked_at(place: str) -> None:
    there = blocks(TERRAFORM, place)
    assert set(there) == set(EXPECTED[place]), "blocks were added or removed"
    for name, arguments in there.items():
        expected = dict(EXPECTED[place][name])
        why = expected.pop("why", "see the file")
        assert arguments == expected, f"{name}: {why}"


def test_no_file_is_left_out() -> None:
    known = {path for place in FILES for path in paths(TERRAFORM, place)}
    assert set(TERRAFORM.rglob("*.tf")) == known


def test_a_module_is_given_every_variable_that_it_asks_for() -> None:
    declared = blocks(TERRAFORM, "variables")
    for name, arguments in blocks(TERRAFORM, "main").items():
        if not name.startswith("module."):
            continue
        module = name.removeprefix("module.")
        asked = {key.rpartition("variable.")[2] for key in declared if key.startswith(f"{module}/")}
        assert set(arguments) - {"source", "for_each"} == asked, module


def test_the_reader_reads_terraform(tmp_path: Path) -> None:
    file = tmp_path / "a.tf"
    file.write_text(
        'a "b" "c" { # words\n  x = "${f("}", 1)}-\\"" // more\n  y = [\n    1,\n    { z = !g(2) },\n  ]\n  d { name = "e" }\n'
        '  t = <<-EOT\n    } " {\n  EOT\n}\n'
    )
    (block,) = read(file).blocks
    assert block == Block(
        "a",
        ("b", "c"),
        {"x": '"${f("}", 1)}-\\""', "y": "[1, { z = !g(2) }]", "t": '<<-EOT\n    } " {\n  EOT'},
        [Block("d", (), {"name": '"e"'})],
    )
    assert dict(block.flat())["d[e].name"] == '"e"'
    file.write_text("a {}\n}\n")
    with pytest.raises(ValueError, match="one bracket too many"):
        read(file)
