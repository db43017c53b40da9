"""A report as files: names and bytes, which any store can take."""

from __future__ import annotations

from collections.abc import Sequence

from ticketsmith.errors import TicketSmithError
from ticketsmith.evidence.findings import Findings
from ticketsmith.evidence.sample_files import Sample
from ticketsmith.evidence.search import Path
from ticketsmith.report import draw
from ticketsmith.report.figures.parts import Figure


def render(findings: Findings, samples: Sequence[Sample] = (), path: Path | None = None) -> dict[str, bytes]:
    """The report of one experiment: file name (with forward slashes) to content.

    ``samples`` is of its models, if they are generative, in the order to show it; ``path`` that of its search, if it is one.
    ``index.html`` needs none of the other files. The same findings give the same bytes on the same versions of the
    drawing libraries.
    """
    from ticketsmith.report.markdown import picture_name, report_markdown
    from ticketsmith.report.page import report_page
    from ticketsmith.report.scorecard import scorecard_csv
    from ticketsmith.report.story import tell
    from ticketsmith.report.tidy import results_csv

    story = tell(findings, samples, path)
    pictures = {picture_name(index): row.png for index, row in enumerate(story.samples.rows) if row.png}
    return {
        "index.html": report_page(story, stills(story.figures)),
        "report.md": report_markdown(story),
        "results.csv": results_csv(findings),
        **({"scorecard.csv": scorecard_csv([findings])} if findings.scorecard else {}),
        **images(story.figures),
        **pictures,
    }


def render_comparison(findings: Sequence[Findings]) -> dict[str, bytes]:
    """A page that compares experiments, its Markdown twin and its figures.

    The page lies in ``<runs>/report/`` and links to ``../<name>/report/index.html``.
    """
    from ticketsmith.report.comparison import compare
    from ticketsmith.report.markdown import comparison_markdown
    from ticketsmith.report.page import comparison_page

    if not findings:
        raise TicketSmithError("there are no experiments to compare.")
    comparison, figures = compare(findings)
    return {
        "index.html": comparison_page(comparison, figures, stills(figures)),
        "report.md": comparison_markdown(comparison, figures),
        **images(figures),
    }


def stills(figures: Sequence[Figure]) -> dict[str, str]:
    """The figures as SVG without a title, by name."""
    return {figure.name: draw.svg(figure) for figure in figures}


def images(figures: Sequence[Figure]) -> dict[str, bytes]:
    """``figures/<name>.svg`` and ``.png``, each with its title: they are made to be taken elsewhere."""
    files = {}
    for figure in figures:
        drawing, pixels = draw.images(figure)
        files[f"figures/{figure.name}.png"] = pixels
        files[f"figures/{figure.name}.svg"] = drawing.encode()
    return files
