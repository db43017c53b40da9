"""Reads Terraform's files as far as tests need it: blocks, and the text of each argument, without what it evaluates to."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_TOKEN = re.compile(
    r"""(?P<space>[ \t\r]+|\#[^\n]*|//[^\n]*|/\*.*?\*/)|(?P<line>\n)|(?P<heredoc><<-?(\w+)\n.*?\n\s*\4(?=\n))"""
    r"""|(?P<word>[\w.-]+)|(?P<sign>==|!=|<=|>=|&&|\|\||=>|\.\.\.|.)""",
    re.DOTALL,
)
_OPEN, _CLOSE = "([{", ")]}"


@dataclass
class Block:
    """``kind "label" { name = expression ... }``. Expressions have one blank between all their tokens."""

    kind: str
    labels: tuple[str, ...] = ()
    arguments: dict[str, str] = field(default_factory=dict)
    blocks: list[Block] = field(default_factory=list)

    @property
    def name(self) -> str:
        return ".".join((self.kind, *self.labels))

    def flat(self, before: str = "") -> Iterator[tuple[str, str]]:
        """Every argument by its path. Blocks of one kind are told apart by what they are called, or by their number."""
        for name, value in self.arguments.items():
            yield f"{before}{name}", value
        numbers: dict[str, int] = {}
        for block in self.blocks:
            called = block.arguments.get("name", "").strip('"')
            number = numbers[block.name] = numbers.get(block.name, -1) + 1
            yield from block.flat(f"{before}{block.name}[{called or number}].")


def read(path: Path) -> Block:
    """A file as a block of all its blocks. Raises ValueError for what is no Terraform."""
    text = path.read_text(encoding="utf-8")
    tokens = list(_tokens(text))
    top, end = _body(tokens, 0, Block("file"))
    if end != len(tokens):
        raise ValueError(f"{path}: one bracket too many")
    return top


def _tokens(text: str) -> Iterator[str]:
    at = 0
    while at < len(text):
        if text[at] == '"':
            end = _string_end(text, at)
            yield text[at:end]
        else:
            match = _TOKEN.match(text, at)
            assert match is not None
            end = match.end()
            if match["space"] is None:
                yield match[0]
        at = end


def _string_end(text: str, at: int) -> int:
    """Behind the quote that ends the string which begins at ``at``; within ``${ }`` may be other strings."""
    at += 1
    while text[at] != '"':
        if text[at] == "\\":
            at += 1
        elif text.startswith("${", at):
            at += 2
            while text[at] != "}":
                at = _string_end(text, at) if text[at] == '"' else at + 1
        at += 1
    return at + 1


def _body(tokens: list[str], at: int, block: Block) -> tuple[Block, int]:
    while at < len(tokens) and tokens[at] != "}":
        if tokens[at] in ("\n", ","):
            at += 1
            continue
        name = tokens[at]
        at += 1
        if tokens[at] == "=":
            block.arguments[name], at = _expression(tokens, at + 1)
            continue
        labels = []
        while tokens[at] != "{":
            labels.append(tokens[at].strip('"'))
            at += 1
        inner, at = _body(tokens, at + 1, Block(name, tuple(labels)))
        block.blocks.append(inner)
        at += 1
    return block, at


def _expression(tokens: list[str], at: int) -> tuple[str, int]:
    parts, depth = [], 0
    while at < len(tokens):
        value = tokens[at]
        if depth == 0 and (value == "\n" or value in _CLOSE):
            break
        depth += (value in _OPEN) - (value in _CLOSE)
        if value != "\n":
            parts.append(value)
        at += 1
    return _plain(" ".join(parts)), at


def _plain(text: str) -> str:
    """Without the blanks that nobody writes, and without commas at the end of lists."""
    text = re.sub(r" ,(?= [\])}])", "", text)
    return re.sub(r"(?<=[(\[!]) | (?=[,)\]])|(?<=\w) (?=\()", "", text)
