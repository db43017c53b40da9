"""Recipes: what is right is read, what is wrong is named with its line and the mend, and nothing ends in a traceback."""

from __future__ import annotations

import json
import random
import string
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest
import yaml

from ticketsmith.config import load_recipe
from ticketsmith.config.json_schema import recipe_schema
from ticketsmith.config.load import parse_recipe
from ticketsmith.errors import RecipeError

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = sorted((ROOT / "configs").glob("*.yaml"))
TEMPLATE = ROOT / "ticketsmith/config/template.yaml"
Write = Callable[..., Path]


@pytest.mark.parametrize("path", [*SHIPPED, TEMPLATE], ids=lambda path: path.name)
def test_shipped_recipes_are_valid_and_fit_the_published_schema(path: Path) -> None:
    load_recipe(path)
    jsonschema.validate(yaml.safe_load(path.read_text()), recipe_schema())


def test_shipped_recipes_name_the_published_schema_which_is_current() -> None:
    published = json.loads((ROOT / "configs/recipe.schema.json").read_text())
    assert published == recipe_schema(), "renew it: ticketsmith schema > configs/recipe.schema.json"
    for path in SHIPPED:
        assert path.read_text().startswith("# yaml-language-server: $schema=recipe.schema.json\n")


WRONG = [
    (("lr: 0.003", "lrr: 0.003"), r"recipe.yaml:9: training.lrr: unknown key. Did you mean 'lr'\?"),
    (("replicates: 2", "lr: 2"), r"recipe.yaml:17: lr: unknown key. Did you mean 'training.lr'\?"),
    (("lr: 0.003", "lr: fast"), r"recipe.yaml:9: training.lr: should be a valid number \(got 'fast'\)"),
    (("fraction: 0.5", "fraction: 1.0"), r"recipe.yaml:15: pruning.fraction: should be less than 1"),
    (("fraction: 0.5", "fraction: 0"), r"recipe.yaml:15: pruning.fraction: should be greater than 0"),
    (("output: 0.25", "output: 1.25"), r"recipe.yaml:16: pruning.rates.output: should be less than 1"),
    (("levels: 2", "levels: 2.5"), r"recipe.yaml:14: pruning.levels: should be a valid integer"),
    (("optimizer: adam", "optimizer: adan"), r"recipe.yaml:8: training.optimizer: should be 'adam', 'adamw' or 'sgd'"),
    (
        ("duration: 120it", "duration: 2 weeks"),
        r"recipe.yaml:11: training.duration: expected a duration such as '500it'",
    ),
    (("duration: 120it", "duration: 0it"), r"recipe.yaml:\d+: .*training.*must be more than zero"),
    (("experiment: digits", "experiment: ../../etc"), r"recipe.yaml:2: experiment: .*use letters, digits"),
    (
        ("replicates: 2", "replicates: 2\nreplicates: 3"),
        r"recipe.yaml:18: 'replicates' is given twice \(first in line 17\)",
    ),
    (("data: digits\n", "dta: digits\n"), r"recipe.yaml:4: task.dta: unknown key. Did you mean 'data'\?"),
    (("max_drop: 5.0", "max_drop: -1"), r"recipe.yaml:20: .*max_drop: should be greater than 0"),
    (("{max_drop: 5.0}", "{}"), r"recipe.yaml:20: .*give `max_drop` or `max_relative_increase`"),
    (("{max_drop: 5.0}", "{max_drop: .nan}"), r"recipe.yaml:20: .*finite number"),
    (
        ("replicates: 2", "variants: {random_reinit: {drws: 2}}"),
        r"recipe.yaml:17: variants.random_reinit.drws: unknown key",
    ),
    (("replicates: 2", "replicates: ["), r"recipe.yaml:19: not valid YAML"),
    (("replicates: 2", "replicates: &a [*a]"), r"recipe.yaml:17: nested more than 50 deep"),
    (("replicates: 2", "replicates: !!python/name:os.system"), r"recipe.yaml:17: .*not used in recipes"),
    (("replicates: 2", "replicates: !!bool maybe"), r"recipe.yaml: not valid YAML"),
    (("replicates: 2", "replicates: !!int ''"), r"recipe.yaml: not valid YAML"),
    (("replicates: 2", "variants: {finetune: {lr: 0.1, duration: 0it}}"), r"recipe.yaml:17: .*must be more than zero"),
    (("duration: 120it", "duration: " + "9" * 400 + "ep"), r"recipe.yaml:11: training.duration: expected a duration"),
    (("widths: [32, 16]", "widths: [.inf]"), r"recipe.yaml:5: task.model: inf is not a finite number"),
    (("replicates: 2", "replicates: 2\nlrstr: 3"), r"recipe.yaml:18: lrstr: unknown key"),
    (("replicates: 2", "rewind: '1\x00'"), r"recipe.yaml: not valid YAML"),
]


@pytest.mark.parametrize(("replacement", "message"), WRONG, ids=[new[:30] for (_, new), _ in WRONG])
def test_a_mistake_is_named_by_line_and_mend(recipe_file: Write, replacement: tuple[str, str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe(recipe_file(replacement))


def test_numbers_and_words_are_those_of_yaml_1_2(recipe_file: Write) -> None:
    assert load_recipe(recipe_file(("lr: 0.003", "lr: 3e-3"))).training.lr == 0.003
    assert load_recipe(recipe_file(("replicates: 2", "replicates: 010"))).replicates == 10
    stored = load_recipe(recipe_file(), ["experiment='1e3'"])
    assert parse_recipe(stored.source, "stored", Path()).experiment == "1e3"
    with pytest.raises(RecipeError, match="got 'no'"):
        load_recipe(recipe_file(("replicates: 2", "replicates: no")))


def test_a_variant_can_be_switched_off_and_on(recipe_file: Write) -> None:
    recipe = load_recipe(
        recipe_file(("replicates: 2", "variants: {random_ticket: false, one_shot: , lr_rewind: true}"))
    )
    assert not recipe.variants.random_ticket
    assert recipe.variants.random_reinit
    assert recipe.variants.one_shot
    assert recipe.variants.lr_rewind
    jsonschema.validate(yaml.safe_load(recipe.source), recipe_schema())


def test_overrides(recipe_file: Write) -> None:
    path = recipe_file()
    recipe = load_recipe(
        path, ["training.lr=0.05", "task.model.widths=[8]", "gates.confidence=0.9", "pruning.exclude=[fc1]"]
    )
    assert recipe.training.lr == 0.05
    assert recipe.task_component["model"] == {"name": "mlp", "widths": [8]}
    assert recipe.pruning.exclude == ("fc1",)
    assert parse_recipe(recipe.source, "stored", path.parent).sha256 == recipe.sha256
    for wrong, message in (
        ("training.lr", "expected `field.path=value`"),
        ("training.lrr=1", r"--set training.lrr=1: training.lrr: unknown key. Did you mean 'lr'"),
        ("replicates.x=1", "'replicates' is not a mapping"),
        ("training.lr=[", "not valid YAML"),
    ):
        with pytest.raises(RecipeError, match=message):
            load_recipe(path, [wrong])


def test_comments_and_layout_do_not_change_a_recipes_hash(recipe_file: Write) -> None:
    plain = load_recipe(recipe_file())
    other = load_recipe(recipe_file(("replicates: 2", "# a comment\n\nreplicates:    2"), name="other.yaml"))
    assert plain.sha256 == other.sha256
    assert plain.sha256 != load_recipe(recipe_file(("replicates: 2", "replicates: 3"))).sha256


def test_files_that_are_no_recipes(tmp_path: Path) -> None:
    for content, message in (
        (b"", "a recipe is a mapping"),
        (b"- a\n- b\n", "a recipe is a mapping"),
        (b"\xff\xfe\x00", "not UTF-8|not valid YAML"),
        (b"a: " + b"[" * 5000, "not valid YAML|nested"),
        (
            b"a: &a [1,1,1,1,1,1,1,1,1]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n"
            b"d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: [*d,*d,*d,*d,*d,*d,*d,*d,*d]\n",
            "more than 20,000 values",
        ),
        (b"x" * 2_000_000, "that is no recipe"),
    ):
        path = tmp_path / "bad.yaml"
        path.write_bytes(content)
        with pytest.raises(RecipeError, match=message):
            load_recipe(path)
    with pytest.raises(RecipeError, match="no such file"):
        load_recipe(tmp_path / "absent.yaml")
    with pytest.raises(RecipeError):
        load_recipe(tmp_path)


@pytest.mark.parametrize("seed", range(300))
def test_corrupted_recipes_are_read_or_refused_never_worse(seed: int) -> None:
    chance = random.Random(seed)
    text = chance.choice(SHIPPED).read_text()
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(text))
        kind = chance.randrange(5)
        if kind == 0:
            text = text[:at] + text[at + chance.randint(1, 30) :]
        elif kind == 1:
            text = text[:at] + chance.choice(string.printable + "\0\x85\u2028é😀") + text[at:]
        elif kind == 2:
            line = text.splitlines()
            chance.shuffle(line)
            text = "\n".join(line)
        elif kind == 3:
            words = text.split(" ")
            words[chance.randrange(len(words))] = chance.choice(
                ["null", "[]", "{}", "-1", "1e999", ".nan", "'", "&x", "*x", "!!set"]
            )
            text = " ".join(words)
        else:
            text = text[:at] + text[at:].replace(":", chance.choice(["", "::", ": :", "="]), 1)
    try:
        parse_recipe(text, "fuzzed.yaml", Path())
    except RecipeError as error:
        assert str(error).startswith(("fuzzed.yaml", "--set"))
