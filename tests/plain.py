"""``python -m tests.plain <command> ...``: the command line, with a page of one line in the place of a report.

For tests, in processes of their own, of everything but the report: to draw one takes longer than to train all the runs of
a small recipe. What reports hold is tested in ``tests/report`` and ``tests/cli``.
"""

from __future__ import annotations

import sys
from types import ModuleType


class PlainReport(ModuleType):
    """Stands for ``ticketsmith.report.render``, whose libraries take long to import, too."""

    @staticmethod
    def render(*_: object) -> dict[str, bytes]:
        return {"index.html": b"<html>a plain report</html>", "report.md": b"a plain report\n"}


if __name__ == "__main__":
    sys.modules["ticketsmith.report.render"] = PlainReport("ticketsmith.report.render")
    from ticketsmith.cli.main import main

    main()
