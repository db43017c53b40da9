"""What the documentation's site has beside ``docs/``, for MkDocs (``mkdocs.yml``).

Pages link to files of the repository: README.md, ``ticketsmith/spec.py``, ``configs/targets``. On the site each of these is a
page below ``source/``, so that links work there as they do on GitHub, without a network. The report of ``ticketsmith demo``,
where there is one, stands in the place of its picture: ``runs/demo/report/index.html``, or what REPORT names.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from posixpath import relpath
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"

_BLOCK = re.compile(r"(^ *```.*?^ *```$)", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(!?\[(?:[^\]]|\]\()*?\]\()([^)\s]+)\)")
_LANGUAGES = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".h": "cpp", ".toml": "toml", ".sh": "bash", "": "text"}
_UNSEARCHED = "---\nsearch: {exclude: true}\n---\n"
_PICTURE = re.compile(r"^!\[[^]]*\]\(images/report\.png\)$", re.MULTILINE)


def place(path: Path) -> str:
    """Where a file or folder of the repository lies on the site, as the path of its Markdown."""
    if path.is_relative_to(DOCS):
        return path.relative_to(DOCS).as_posix()
    name = f"source/{path.relative_to(ROOT).as_posix()}"
    if path.is_dir():
        return f"{name}/README.md" if (path / "README.md").exists() else f"{name}/index.md"
    return name if path.suffix == ".md" else f"{name}.md"


def linked(text: str, origin: Path) -> tuple[str, set[Path]]:
    """Markdown of the file ``origin`` with links as the site has them, and what of the repository it links to."""
    targets: set[Path] = set()
    here = place(origin).rpartition("/")[0]

    def moved(match: re.Match[str]) -> str:
        path, mark, anchor = match[2].partition("#")
        target = (origin.parent / path).resolve()
        if not path or "://" in path or path.startswith("mailto:") or not target.exists():
            return match[0]
        targets.add(target)
        return f"{match[1]}{relpath(place(target), here or '.')}{mark}{anchor})"

    parts = _BLOCK.split(text)
    return "".join(part if part.lstrip().startswith("```") else _LINK.sub(moved, part) for part in parts), targets


def page_of(path: Path) -> tuple[str, set[Path]]:
    """The Markdown that shows a file or folder outside of ``docs/``, and what it links to."""
    if path.is_dir():
        if (path / "README.md").exists():
            return linked((path / "README.md").read_text(encoding="utf-8"), path / "README.md")
        names = "\n".join(
            f"- `{each.name}`" for each in sorted(path.iterdir()) if not each.name.startswith((".", "__pyc"))
        )
        return f"{_UNSEARCHED}# {path.relative_to(ROOT)}/\n\n{names}\n", set()
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return linked(text, path)
    title = f"{_UNSEARCHED}# {path.relative_to(ROOT)}\n\n"
    if path.suffix == ".ipynb":
        cells = [(cell["cell_type"] == "code", "".join(cell["source"])) for cell in json.loads(text)["cells"]]
        return title + "\n\n".join(_code(source, "python") if is_code else source for is_code, source in cells), set()
    return title + _code(text, _LANGUAGES.get(path.suffix, "text")), set()


def _code(text: str, language: str) -> str:
    return f"``````{language}\n{text.rstrip()}\n``````\n"


def report() -> Path | None:
    """The report that is shown, if it was made."""
    path = ROOT / (os.environ.get("REPORT") or "runs/demo/report/index.html")
    return path if path.is_file() else None


def on_files(files: Any, config: Any) -> Any:
    """Adds what pages of ``docs/`` link to outside of it, and what that links to, and so on."""
    pages: dict[str, str] = {}
    waiting = [target for page in DOCS.rglob("*.md") for target in linked(page.read_text(encoding="utf-8"), page)[1]]
    while waiting:
        path = waiting.pop()
        if path.is_relative_to(DOCS) or place(path) in pages:
            continue
        pages[place(path)], targets = page_of(path)
        waiting += targets
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    if shown := report():
        files.append(File.generated(config, "example_report.html", content=shown.read_bytes()))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """The pages of ``docs/``, with links as the site has them, and the report in the place of its picture."""
    if page.file.generated_by:
        return markdown
    if report() and page.file.src_uri == "report.md":
        frame = '<iframe class="report" src="example_report.html" title="A report" loading="lazy"></iframe>'
        markdown = _PICTURE.sub(f"{frame}\n\n[The whole page](example_report.html)", markdown)
    return linked(markdown, DOCS / page.file.src_uri)[0]
