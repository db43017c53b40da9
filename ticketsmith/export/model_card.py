"""The model card, ``README.md`` of a repository on the Hugging Face Hub: metadata in YAML, and the evidence in Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from ticketsmith.export.subject import Evidence, Subject
from ticketsmith.units import share

FILE = "README.md"
UNKNOWN = "unknown"
"""The licence where nobody said one, as the Hub names it."""

_FROM_THE_HUB = "transformers"


SPEED_HEAD = ("Runtime", "Batch", "Threads", "Precision", "Median", "Speed-up", "Against")


@dataclass(frozen=True)
class Card:
    """What a card is made of: ``document`` is that of ``export.json``, without the card's own file; ``folder`` the beginning of
    files' names where the card lies in one, ``huggingface/``."""

    document: Mapping[str, Any]
    evidence: Evidence
    licence: str = UNKNOWN
    library: str = "ticketsmith"
    folder: str = ""

    def text(self) -> str:
        """The whole file: metadata between ``---``, then Markdown."""
        meta = yaml.safe_dump(self.metadata(), sort_keys=False, allow_unicode=True, width=1000)
        return f"---\n{meta}---\n\n" + "\n\n".join(self._parts()) + "\n"

    def metadata(self) -> dict[str, Any]:
        """The metadata that the Hub reads; results are this run's own, on the test split."""
        evidence = self.evidence
        kind = evidence.pipeline or "other"
        data = dict(evidence.data).get("Data set", "own data")
        results = [
            {
                "task": {"type": kind},
                "dataset": {"type": (evidence.datasets or [_slug(data)])[0], "name": data, "split": "test"},
                "metrics": [
                    {"type": _slug(name), "name": f"Test {name.replace('_', ' ')}", "value": value}
                    for name, value in self._measured()
                ],
            }
        ]
        meta: dict[str, Any] = {
            "license": self.licence,
            "library_name": self.library,
            "pipeline_tag": evidence.pipeline or None,
            "base_model": evidence.base_model or None,
            "base_model_relation": "finetune" if evidence.base_model else None,
            "datasets": list(evidence.datasets) or None,
            "metrics": [_slug(name) for name, _ in self._measured()] or None,
            "tags": ["lottery-ticket", "pruning", "sparse", "ticketsmith"],
            "model-index": [{"name": self._name, "results": results}] if self._measured() else None,
        }
        return {name: value for name, value in meta.items() if value is not None}

    @property
    def _name(self) -> str:
        one = self.document
        return f"{one['experiment']}-{one['variant']}-level-{one['level']:02d}-seed-{one['seed']}"

    def _measured(self) -> list[tuple[str, float]]:
        values = ((name, metric["this_run"]) for name, metric in self.document["test"].items())
        return [(name, value) for name, value in values if value is not None and math.isfinite(value)]

    def _parts(self) -> Iterator[str]:
        evidence, document = self.evidence, self.document
        yield f"# {document['experiment']}: {document['variant'].replace('_', ' ')}, {_amount(document)}"
        if evidence.headline:
            yield evidence.headline
        yield "## What was pruned"
        yield _table(("", ""), self._pruned())
        yield "## Quality"
        yield _table(("Test metric", "This run", "Mean of its level", "Dense"), list(self._quality()))
        yield from evidence.gates or ["No gate was judged at this sparsity."]
        yield "## Controls"
        yield evidence.controls or "No control was compared."
        yield "## Measured speed"
        yield from self._speed()
        yield "## How to load"
        yield from self._load()
        yield "## Data and licence"
        yield _table(("", ""), [*evidence.data, ("Licence of this model", self._licence())])
        limits = [*document["warnings"], *evidence.limits]
        if limits:
            yield "## Limits"
            yield "\n".join(f"- {line}" for line in limits)
        yield "## Hashes"
        yield from self._hashes()

    def _pruned(self) -> list[tuple[str, str]]:
        document = self.document
        weights = document["weights"]
        rows = [
            ("Removed", document["removed"] if document["sparsity"] else "nothing: this is the dense network"),
            (
                "Prunable weights",
                f"{weights['kept']:,} of {weights['total']:,} stay ({share(document['sparsity'])} removed)",
            ),
            ("All parameters", f"{document['parameters']:,}" if document["parameters"] else "not counted"),
            ("Variant", f"`{document['variant']}`, level {document['level']}, seed {document['seed']}"),
        ]
        return [*rows, *self.evidence.facts]

    def _quality(self) -> Iterator[tuple[str, ...]]:
        for name, metric in self.document["test"].items():
            unit = f" {metric['unit']}" if metric["unit"] else ""
            values = (metric["this_run"], metric["all_seeds"]["mean"], metric["dense"]["mean"])
            yield name.replace("_", " "), *(f"{v:.4g}{unit}" if v is not None else "—" for v in values)

    def _speed(self) -> Iterator[str]:
        if not self.evidence.speeds:
            yield "Inference of this run was not measured: no speed is claimed."
            return
        yield _table(SPEED_HEAD, self.evidence.speeds)
        yield "Against the dense network on the dense runtime that is fastest for it. Measured here:"
        yield _table(("", ""), self.evidence.machine)

    def _load(self) -> Iterator[str]:
        own = [entry for entry in self.document["files"] if entry["format"] != "card"]
        for entry in own:
            name = entry["name"]
            lines = [line.replace(f'"{name}"', '"."') if self.folder == f"{name}/" else line for line in entry["load"]]
            yield f"`{'this folder' if self.folder == f'{name}/' else name}`, {entry['checked']}:"
            yield "\n".join(["```python", *lines, "```"])
        if not any(entry["format"] == "tsk" for entry in own):
            yield (
                "For the sparse runtime, which skips zeros: `ticketsmith export <run> --format tsk` writes `model.tsk` from the "
                'sealed run, and `ticketsmith.runtime.load("model.tsk")` serves it with NumPy alone.'
            )

    def _licence(self) -> str:
        return "nobody said; ask whoever made it" if self.licence == UNKNOWN else self.licence

    def _hashes(self) -> Iterator[str]:
        document = self.document
        made = ", ".join(f"{name} {value}" for name, value in document["trained_with"].items() if value)
        yield _table(
            ("", ""),
            [
                ("Key of the run", f"`{document['key']}`"),
                ("Recipe", f"`{document['recipe_sha256']}`"),
                ("Trained with", made),
            ],
        )
        files = {
            name.removeprefix(self.folder): digest
            for entry in document["files"]
            for name, digest in entry["sha256"].items()
            if name.removeprefix(self.folder) != FILE
        }
        yield _table(("File", "SHA-256"), [(f"`{name}`", f"`{digest}`") for name, digest in files.items()])


def card_of(subject: Subject, document: Mapping[str, Any], licence: str, folder: str = "") -> str:
    """The text of a run's card; ``folder`` is that of the format ``hf``, where the card lies in one."""
    entry = next((one for one in document["files"] if folder == f"{one['name']}/"), None)
    library = _FROM_THE_HUB if entry and any("from transformers" in line for line in entry["load"]) else "ticketsmith"
    return Card(document, subject.evidence(), licence, library, folder).text()


def _amount(document: Mapping[str, Any]) -> str:
    return f"{share(document['sparsity'])} of the prunable weights removed" if document["sparsity"] else "dense"


def _slug(name: str) -> str:
    return "-".join(name.lower().split()).replace("/", "-") or "other"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in row)} |" for row in cells)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
