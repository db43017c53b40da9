"""Mixed files as candidates: a level is searched once, and all of its replicates are written by what was chosen there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from ticketsmith.candidates import shelf
from ticketsmith.candidates.forms import AUTO
from ticketsmith.candidates.mixed import Mixed, write_alike
from ticketsmith.evidence.candidates import Judgement
from ticketsmith.evidence.results import Result
from ticketsmith.runtime.graph import Graph
from ticketsmith.store.contract import Store


@dataclass(frozen=True, eq=False)
class MixedFiles:
    """``search(run)`` finds the files of a run and its replicates; it is not asked where one of them was judged before, at
    ``place``."""

    store: Store
    experiment: str
    place: str
    search: Callable[[Result], Mixed]
    _contents: dict[str, bytes] = field(default_factory=dict)

    def write(self, run: Result, graph: Graph, path: Path) -> None:
        """The file of a run. Raises what the search does."""
        if run.key not in self._contents and (other := self._other(run)) is not None:
            with TemporaryDirectory(prefix="ticketsmith-") as folder:
                file = shelf.get_files(self.store, self.experiment, other, Path(folder))
                if file is not None:
                    write_alike(graph, file, path)
                    return
        if run.key not in self._contents:
            self._contents.update(self.search(run).contents)
        path.write_bytes(self._contents[run.key])

    def _other(self, run: Result) -> Judgement | None:
        """One of another replicate of the level, judged on this machine."""
        place = AUTO, self.place, run.variant, run.level
        own = shelf.judgements(self.store, self.experiment).values()
        return next((one for one in own if (one.form, one.place, one.variant, one.level) == place), None)
