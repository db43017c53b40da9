"""A report as files: ``render`` makes the bytes, ``write`` puts them on a disk; any other store can take the former."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from ticketsmith.errors import TicketSmithError, disk_error
from ticketsmith.evidence.findings import Findings
from ticketsmith.evidence.sample_files import Sample
from ticketsmith.report import draw
from ticketsmith.report.figures.base import Figure


def render(findings: Findings, samples: Sequence[Sample] = ()) -> dict[str, bytes]:
    """The report of one experiment: file name (with forward slashes) to content.

    ``samples`` is what its models made, if they are generative, in the order to show it.
    ``index.html`` needs none of the other files. The same findings give the same bytes on the same versions of the
    drawing libraries.
    """
    from ticketsmith.report.markdown import picture_name, report_markdown
    from ticketsmith.report.page import report_page
    from ticketsmith.report.scorecard import scorecard_csv
    from ticketsmith.report.story import tell
    from ticketsmith.report.tidy import results_csv

    story = tell(findings, samples)
    pictures = {picture_name(index): row.png for index, row in enumerate(story.samples.rows) if row.png}
    return {
        "index.html": report_page(story, stills(story.figures)),
        "report.md": report_markdown(story),
        "results.csv": results_csv(findings),
        **({"scorecard.csv": scorecard_csv([findings])} if findings.scorecard else {}),
        **images(story.figures),
        **pictures,
    }


def render_comparison(findings: Sequence[Findings], links: Mapping[str, str] | None = None) -> dict[str, bytes]:
    """A page that compares experiments, its Markdown twin and its figures.

    ``links`` are the addresses of the single reports by experiment name, relative to the page; by default
    ``../<name>/report/index.html``, for a page in ``<runs>/report/``.
    """
    from ticketsmith.report.comparison import compare, comparison_markdown
    from ticketsmith.report.page import comparison_page

    if not findings:
        raise TicketSmithError("there are no experiments to compare.")
    comparison, figures = compare(findings, links or {})
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


def write(findings: Findings | Sequence[Findings], folder: Path) -> Path:
    """Writes one report, or a comparison, into ``folder`` (made if needed); returns the path of the page.

    Every file appears whole or not at all. Raises StoreError when the disk refuses.
    """
    files = render(findings) if isinstance(findings, Findings) else render_comparison(findings)
    for name, content in files.items():
        _write(folder.joinpath(*PurePosixPath(name).parts), content)
    return folder / "index.html"


def _write(path: Path, content: bytes) -> None:
    """Beside its place first, then renamed into it: nobody ever sees half a file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
            try:
                file.write(content)
                file.flush()
                os.fchmod(file.fileno(), 0o644)
                temporary.replace(path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
    except OSError as error:
        raise disk_error(error, path) from error
