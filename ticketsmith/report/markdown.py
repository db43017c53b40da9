"""The Markdown twin of a report: the same story for whoever reads it beside code, with the figures as images."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from ticketsmith.report.comparison import Comparison
from ticketsmith.report.figures.parts import Figure
from ticketsmith.report.gallery import Gallery
from ticketsmith.report.story import SAMPLES, Story
from ticketsmith.report.tables import NOT_MEASURED, Row


def report_markdown(story: Story) -> bytes:
    """CommonMark with tables; images are taken from ``figures/``."""
    parts = [
        f"# {escaped(story.headline)}",
        escaped(story.candidates.verdict if story.candidates else story.served),
        escaped(story.special),
        escaped(story.interval),
        f"*TicketSmith \u00b7 {escaped(story.name)}*",
    ]
    parts.append(
        table(("Key number", "", ""), [(card.label, f"**{escaped(card.value)}**", card.note) for card in story.cards])
    )
    parts += ["## The result", _mission(story, story.shown), escaped(story.table_note)]
    if story.samples.rows:
        parts += [f"## {SAMPLES}", *_samples(story.samples)]
    for key, question, figures in story.sections():
        parts.append(f"## {question}")
        if key == "cost":
            parts.append(f"**{escaped(story.bottom_line)}**")
        if key == "search":
            parts.append(f"**{escaped(story.savings)}**")
        if key == "candidates" and story.candidates:
            parts += [f"**{escaped(story.candidates.verdict)}**", _lines(story.candidates.why)]
        if key == "speed":
            parts += _scorecard(story)
        for figure in figures:
            image = f"![{escaped(figure.alt)}](figures/{figure.name}.png)"
            parts += [f"### {escaped(figure.title)}", image, escaped(figure.caption)]
        if key == "quality" and story.pattern_costs.rows:
            parts += ["### What the pattern costs", table(story.pattern_costs.header, story.pattern_costs.rows)]
        if key == "candidates" and story.candidates:
            for name, one in story.candidates.tables:
                parts += [f"### {name}", table(one.header, one.rows)]
            parts.append(_lines(story.candidates.together))
            for name, one in story.candidates.every:
                parts += [f"### Every candidate: {name}", table(one.header, one.rows)]
        if key == "speed":
            parts += _measured(story)
        if key == "speed" and story.machine:
            parts.append(table(("Measured on", ""), story.machine))
            parts += [f"- {escaped(line)}" for line in story.refusals]
        if key == "search":
            parts.append(table(story.moves.header, story.moves.rows))
        if key == "cost":
            parts.append(table(story.spending.header, story.spending.rows))
            if story.serving.rows:
                parts += ["### When it pays for itself", table(story.serving.header, story.serving.rows)]
            if story.cluster.rows:
                parts += ["### What the cluster billed", escaped(story.cluster_line)]
                parts.append(table(story.cluster.header, story.cluster.rows))
            parts.append("\n".join(f"- {escaped(line)}" for line in story.cost_notes))
    if story.caveats:
        parts += ["## What is uncertain", "\n".join(f"- {escaped(note)}" for note in story.caveats)]
    parts.append("## How to reproduce it")
    if story.facts:
        parts.append(table(("", ""), story.facts))
    if story.recipe:
        parts += [f"Save this recipe as `recipe.yaml` and run `{story.command}`.", fenced(story.recipe, "yaml")]
    if story.environment:
        parts.append(table(("Environment", ""), story.environment))
    parts.append(table(("Run", "Key"), [(f"`{path}`", f"`{key}`") for path, key in story.keys], raw=True))
    parts += ["## All levels", _mission(story, story.rows)]
    parts += ["## The words", "\n".join(f"- **{escaped(term)}**: {escaped(text)}" for term, text in story.definitions)]
    parts.append(escaped(story.footer))
    return ("\n\n".join(part for part in parts if part) + "\n").encode()


def comparison_markdown(comparison: Comparison, figures: Sequence[Figure]) -> bytes:
    """The page that compares experiments, as Markdown."""
    lines = [
        (
            f"[{escaped(row.name)}]({row.link})",
            *(
                escaped(cell)
                for cell in (
                    row.dense,
                    f"{row.spot} ({row.left})" if row.left else row.spot,
                    f"{row.quality} ({row.change})" if row.change else row.quality,
                    row.status,
                    row.speedup if row.speedup == NOT_MEASURED else f"{row.speedup} {row.speed_note}",
                    row.runs,
                    row.cost,
                )
            ),
        )
        for row in comparison.rows
    ]
    parts = [f"# {escaped(comparison.headline)}", table(comparison.columns, lines, raw=True), escaped(comparison.note)]
    for figure in figures:
        parts += [f"## {escaped(figure.title)}", f"![{escaped(figure.alt)}](figures/{figure.name}.png)"]
        parts.append(escaped(figure.caption))
    parts += ["\n".join(f"- **{escaped(row.name)}**: {escaped(row.headline)}" for row in comparison.rows)]
    return ("\n\n".join([*parts, escaped(comparison.footer)]) + "\n").encode()


def picture_name(index: int) -> str:
    """The file of the picture in a row of the samples."""
    return f"figures/samples-{index:02d}.png"


def _samples(gallery: Gallery) -> list[str]:
    parts = [escaped(gallery.note)]
    for index, row in enumerate(gallery.rows):
        marks = f" ({', '.join(row.marks)})" if row.marks else ""
        parts.append(f"### {escaped(row.sparsity)} sparsity: {escaped(row.name)}, {row.status}{marks}")
        if row.png:
            parts.append(f"![What this level made]({picture_name(index)})")
        for heading, text in zip(gallery.columns, row.passages, strict=True):
            if text:
                parts += [escaped(heading), fenced(text, "text")]
    return parts


def _scorecard(story: Story) -> list[str]:
    parts = [f"**{escaped(story.served)}**", "\n".join(f"- {escaped(line)}" for line in story.served_why)]
    if story.scorecard.rows:
        parts += [table(story.scorecard.header, story.scorecard.rows), escaped(story.scorecard_note)]
    return parts


def _lines(sentences: Sequence[str]) -> str:
    return "\n".join(f"- {escaped(line)}" for line in sentences)


def _measured(story: Story) -> list[str]:
    tables = [("By setting", story.settings), ("By kind of layer", story.layers), ("Under load", story.loads)]
    tables += [(f"Every level: {name}", cell) for name, cell in story.cells]
    return [part for name, one in tables if one.rows for part in (f"### {name}", table(one.header, one.rows))]


def table(header: Sequence[str], rows: Iterable[Sequence[str]], raw: bool = False) -> str:
    """A pipe table; ``raw`` cells hold Markdown already."""
    lines = [header, ["---"] * len(header)]
    lines += [
        [cell if raw or cell.startswith("**") else escaped(cell.replace("\n", ", ")) for cell in row] for row in rows
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def escaped(text: str) -> str:
    """Plain text as Markdown: nothing in it is taken for markup, and it stays on one line."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(text.split()))


def fenced(text: str, language: str = "") -> str:
    """A code block whose fence is longer than any in the text."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def _mission(story: Story, rows: Sequence[Row]) -> str:
    header = ("Variant", "Sparsity", story.metric, "Gate Status", "Speedup (BS=1)")
    lines = []
    for row in rows:
        marks = f" ({', '.join(row.marks)})" if row.marks else ""
        gate = f"{row.status}: {row.gate}" if row.gate else row.status
        speed = row.speedup if row.speedup == NOT_MEASURED else f"{row.speedup} {row.speed_note}"
        lines.append(
            (f"{row.name}{marks}", f"{row.sparsity} ({row.left})", f"{row.quality} ({row.seeds})", gate, speed)
        )
    return table(header, lines)
