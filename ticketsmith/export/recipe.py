"""A recipe as it goes into a file for others."""

from __future__ import annotations

import re

import yaml

from ticketsmith.config.yaml_lines import Dumper, parse

_STORE = re.compile(r"^store:.*\n?(?:[ \t]+.*\n?|[ \t]*\n)*", re.MULTILINE)


def portable(recipe: str) -> str:
    """The recipe's text without its ``store``: where the runs of somebody lie is nobody else's business, and no use to them."""
    text = _STORE.sub("", recipe)
    plain, _ = parse(text, "recipe.yaml")
    if isinstance(plain, dict) and "store" in plain:  # written in another way
        text = yaml.dump({k: v for k, v in plain.items() if k != "store"}, Dumper=Dumper, sort_keys=False)
    return text
