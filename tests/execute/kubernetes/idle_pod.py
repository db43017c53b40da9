"""A training pod whose GPU is never used: the real pod, with a GPU meter that reads zero."""

from __future__ import annotations

import os
import sys

from ticketsmith.cli.main import enter
from ticketsmith.cli.progress import Log
from ticketsmith.execute.kubernetes.pod import work


def main(arguments: list[str]) -> int:
    given = dict(zip(arguments[1::2], arguments[2::2], strict=False))
    return work(
        given["--store"],
        given["--experiment"],
        given["--job"],
        given["--sha256"],
        int(os.environ["JOB_COMPLETION_INDEX"]),
        lambda plan, sealed: Log(plan, sealed).show,
        watch=lambda: 0.0,
        beat=0.5,
    )


if __name__ == "__main__":
    import click

    @click.command(context_settings={"ignore_unknown_options": True})
    @click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
    def command(arguments: tuple[str, ...]) -> int:
        return main(list(arguments))

    enter(command) if sys.argv[1] == "work" else sys.exit(0)
