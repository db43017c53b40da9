"""Labelled English that comes with Python: first paragraphs of docstrings, by the part of the library they belong to."""

from __future__ import annotations

import ast
import re
import sysconfig
from pathlib import Path

import numpy as np

from ticketsmith.data.labelled import LabelledTexts
from ticketsmith.errors import DataError

# Parts of the standard library that are written in Python, after the sections of its reference.
SECTIONS = {
    "code": "ast inspect dis tokenize pdb bdb cmd trace traceback doctest pyclbr symtable timeit profile cProfile pstats "
    "unittest importlib runpy pkgutil code codeop types typing dataclasses",
    "concurrency": "threading queue sched subprocess asyncio multiprocessing concurrent selectors contextvars",
    "files": "os pathlib shutil tempfile zipfile tarfile glob fnmatch fileinput filecmp gzip bz2 lzma mailbox posixpath "
    "ntpath genericpath shelve dbm",
    "network": "http urllib ftplib smtplib imaplib poplib socket socketserver ssl xmlrpc wsgiref ipaddress webbrowser uuid",
    "numbers": "statistics fractions _pydecimal random numbers colorsys _pydatetime datetime calendar bisect heapq",
    "text": "string textwrap difflib re csv configparser json html xml email locale gettext pprint reprlib plistlib argparse "
    "optparse",
}
_SHORTEST, _LONGEST = 20, 400
_TEST_SEED = 0
_TEST_FRACTION = 0.2


def load() -> LabelledTexts:
    """The first paragraph of every docstring of these modules that says at least 20 characters, each once.

    One in five is held out as test. Another version of Python has other texts.
    """
    library = Path(sysconfig.get_path("stdlib"))
    names_by_text: dict[str, set[str]] = {}
    for section, modules in SECTIONS.items():
        for module in modules.split():
            for file in _files(library, module):
                for text in _paragraphs(file):
                    names_by_text.setdefault(text, set()).add(section)
    texts = sorted(text for text, sections in names_by_text.items() if len(sections) == 1)
    if len(texts) < 1000:
        raise DataError("the data set 'docstrings' reads the sources of Python's standard library, which are not here.")
    names = sorted(SECTIONS)
    labels = [names.index(next(iter(names_by_text[text]))) for text in texts]
    # RandomState: its streams are frozen, so the cut is the same with every version of NumPy.
    order = np.random.RandomState(_TEST_SEED).permutation(len(texts))
    test, train = np.split(order, [round(len(texts) * _TEST_FRACTION)])

    def part(indices: np.ndarray) -> tuple[tuple[str, ...], tuple[int, ...]]:
        return tuple(texts[i] for i in indices), tuple(labels[i] for i in indices)

    return LabelledTexts("docstrings", *part(train), *part(test), classes=tuple(names))


def _files(library: Path, module: str) -> list[Path]:
    if (file := library / f"{module}.py").is_file():
        return [file]
    return sorted(file for file in (library / module).rglob("*.py") if "test" not in file.parts)


def _paragraphs(file: Path) -> list[str]:
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return []
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    paragraphs = []
    for node in ast.walk(tree):
        text = ast.get_docstring(node) if isinstance(node, kinds) else None
        first = re.sub(r"\s+", " ", (text or "").split("\n\n")[0]).strip()
        if _SHORTEST <= len(first) <= _LONGEST:
            paragraphs.append(first)
    return paragraphs
