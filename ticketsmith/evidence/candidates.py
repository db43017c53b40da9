"""Candidates as evidence sees them: files as they would be served, what running each gave, and how long calls took.

Plain data and its JSON; ``ticketsmith.candidates`` writes the files, runs them and times them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError, with_config
from pydantic_core import to_jsonable_python

from ticketsmith.evidence.outcomes import SealedOutcomes
from ticketsmith.evidence.serving import STRICT, Count, DocumentError, Number, problem
from ticketsmith.prices.rate import Rate

FORMAT = 1
"""The version of both documents."""


@with_config(STRICT)
@dataclass(frozen=True)
class FileFacts:
    """One file: its name, its size, its SHA-256."""

    name: str
    bytes: Count
    sha256: str


@with_config(STRICT)
@dataclass(frozen=True)
class Judgement:
    """What running one candidate of one replicate on the validation and the test split gave.

    The network is the sealed run ``key`` (``sparsity``: of its prunable weights). ``form`` says how it became ``files``,
    and with what they are run; ``sha256`` is theirs together, of a single file its own. ``dense`` tells a runtime that
    multiplies zeros like any other number. ``place`` names the runtime's version and the processor: elsewhere the same file
    may give other outputs. ``calls`` is how many examples each call was given, 0 where that makes no difference.
    ``validation`` and ``test`` are the task's metrics, None where one was no finite number. ``outcomes`` is the SHA-256 of
    the file with the outcomes of single examples, empty without any. ``making_seconds`` is what writing took (calibration
    and tuning included), ``judging_seconds`` running the splits.
    """

    variant: str
    level: Count
    seed: Count
    key: str
    sparsity: Number
    form: str
    runtime: str
    precision: str
    dense: bool
    sha256: str
    files: tuple[FileFacts, ...]
    place: str
    calls: Count
    validation: Mapping[str, float | None]
    test: Mapping[str, float | None]
    making_seconds: Number
    judging_seconds: Number
    outcomes: str = ""

    @property
    def bytes(self) -> int:
        """What is served takes so much on disk."""
        return sum(file.bytes for file in self.files)


@with_config(STRICT)
@dataclass(frozen=True)
class Entry:
    """One candidate in one cell: the files ``sha256`` loaded as ``form`` says, and the milliseconds a call of each round.

    ``handed_to`` names the dense library to which the runtime gave the whole network, since that was faster.
    """

    variant: str
    level: Count
    seed: Count
    form: str
    sha256: str
    rounds_ms: tuple[Number, ...]
    handed_to: str = ""


@with_config(STRICT)
@dataclass(frozen=True)
class RaceCell:
    """Candidates that were timed in turn, round by round, at one batch size on so many threads.

    ``phase`` is empty for one call of a model as it is, ``prefill`` or ``decode`` where a model generates. ``units`` is what
    a call makes of what the task counts. ``resolution`` is the ratio, 1 or more, by which identical copies of one candidate
    differ.
    """

    batch_size: Count
    threads: Count
    units: Number
    resolution: Number
    entries: tuple[Entry, ...]
    phase: str = ""


@with_config(STRICT)
@dataclass(frozen=True)
class Memory:
    """What a process of its own took to load the files ``sha256`` as ``form`` says, and to answer its first call, on one thread,
    of ``batch_size`` inputs. ``private_bytes`` is its memory at its peak, libraries not counted; ``added_bytes`` what of it
    came after Python and NumPy."""

    form: str
    sha256: str
    batch_size: Count
    load_ms: Number
    first_call_ms: Number
    private_bytes: Count
    added_bytes: Count | None = None


@with_config(STRICT)
@dataclass(frozen=True)
class Lack:
    """A candidate that could not be written, judged or timed, and why."""

    variant: str
    level: Count
    seed: Count
    form: str
    reason: str


@with_config(STRICT)
@dataclass(frozen=True)
class Race:
    """How fast the candidates of one replicate are. ``machine`` holds facts for a reader, in order.

    ``judgements`` names those of all replicates that belong to it, as the store does.
    """

    machine: Mapping[str, str]
    confidence: Number
    unit: str
    judgements: tuple[str, ...]
    cells: tuple[RaceCell, ...]
    lacks: tuple[Lack, ...] = ()
    machine_rate: Rate | None = None
    memories: tuple[Memory, ...] = ()


@dataclass(frozen=True)
class Served:
    """All that an experiment's store holds of its candidates.

    ``outcomes`` are those of single examples by the SHA-256 of their file, each read when somebody asks.
    """

    judgements: tuple[Judgement, ...]
    race: Race
    outcomes: Mapping[str, SealedOutcomes] = field(default_factory=dict)


Document = TypeVar("Document", Judgement, Race)


def to_json(document: Judgement | Race) -> dict[str, Any]:
    """Plain data for ``json.dumps``: the fields by their names, and ``format``."""
    plain: dict[str, Any] = to_jsonable_python(asdict(document))
    return {"format": FORMAT, **plain}


def from_json(kind: type[Document], content: bytes) -> Document:
    """The inverse of ``to_json``, from the bytes of the document. Raises DocumentError."""
    try:
        document = json.loads(content)
        version = document.pop("format", None) if isinstance(document, dict) else None
        if version != FORMAT:
            raise DocumentError(f"candidates: `format` is {version!r}; this version reads {FORMAT}.")
        read: Document = _adapter(kind.__name__).validate_json(json.dumps(document))
    except ValidationError as error:
        raise DocumentError(f"candidates: {problem(error)}") from error
    except ValueError as error:
        raise DocumentError(f"candidates: the document is no JSON: {error}.") from error
    return read


@cache
def _adapter(kind: str) -> TypeAdapter[Any]:
    return TypeAdapter({"Judgement": Judgement, "Race": Race}[kind])
