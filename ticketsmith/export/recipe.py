"""A recipe as it goes into a file for others."""

from __future__ import annotations

import re

import yaml

from ticketsmith.config.yaml_lines import Dumper, parse

_PRIVATE = ("store", "track")
_BLOCK = re.compile(rf"^(?:{'|'.join(_PRIVATE)}):.*\n?(?:[ \t]+.*\n?|[ \t]*\n|-[ \t].*\n?)*", re.MULTILINE)


def portable(recipe: str) -> str:
    """The recipe's text without ``store`` and ``track``: where the runs of somebody lie is nobody else's business, and no use
    to them."""
    text = _BLOCK.sub("", recipe)
    plain, _ = parse(text, "recipe.yaml")
    if isinstance(plain, dict) and not plain.keys().isdisjoint(_PRIVATE):  # written in another way
        text = yaml.dump({k: v for k, v in plain.items() if k not in _PRIVATE}, Dumper=Dumper, sort_keys=False)
    return text
