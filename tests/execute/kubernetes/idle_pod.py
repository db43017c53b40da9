"""A training pod whose GPU is never used: the real pod, with a GPU meter that reads zero from the first step of training on."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping

from ticketsmith.cli.main import enter
from ticketsmith.cli.progress import Log
from ticketsmith.execute.executor import Event
from ticketsmith.execute.kubernetes.pod import work
from ticketsmith.execute.worker import Stepped
from ticketsmith.plan import Plan


def main(arguments: list[str]) -> int:
    options = dict(zip(arguments[1::2], arguments[2::2], strict=False))
    steps: list[Stepped] = []

    def view(plan: Plan, sealed: Mapping[str, str]) -> Callable[[Event], None]:
        log = Log(plan, sealed)

        def show(event: Event) -> None:
            if isinstance(event, Stepped):
                steps.append(event)
            log.show(event)

        return show

    return work(
        options["--store"],
        options["--experiment"],
        options["--job"],
        options["--sha256"],
        int(os.environ["JOB_COMPLETION_INDEX"]),
        view,
        watch=lambda: 0.0 if steps else None,  # before there is nothing that a checkpoint could hold
        beat=0.5,
    )


if __name__ == "__main__":
    import click

    @click.command(context_settings={"ignore_unknown_options": True})
    @click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
    def command(arguments: tuple[str, ...]) -> int:
        return main(list(arguments))

    enter(command) if sys.argv[1] == "work" else sys.exit(0)
