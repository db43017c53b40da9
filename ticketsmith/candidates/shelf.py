"""Where a store keeps candidates: each file under its SHA-256, and beside it what running it gave. Nothing is replaced.

<experiment>/candidates/<16 digits>/model.onnx               the file, as it would be served
<experiment>/candidates/<16 digits>/<form>-<8 digits>.json   one judgement: on one machine, in calls of one size
<experiment>/candidates/outcomes/<64 digits>.safetensors     outcomes of single examples
<experiment>/candidates.json                                 the last race, which is replaced
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from ticketsmith.errors import DamagedRunError, StoreError
from ticketsmith.evidence.candidates import FileFacts, Judgement, Race, Served, from_json, to_json
from ticketsmith.evidence.outcomes import SealedOutcomes
from ticketsmith.evidence.serving import DocumentError
from ticketsmith.store.contract import Store, check_path
from ticketsmith.store.contract import to_json as as_bytes
from ticketsmith.store.snapshot import Snapshot

FOLDER = "candidates"
RACE = "candidates.json"

Source = Store | Snapshot


def identity(files: Mapping[str, bytes]) -> str:
    """The SHA-256 of one file, or of the names and sums of several."""
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())}
    if len(sums) == 1:
        return next(iter(sums.values()))
    return hashlib.sha256(json.dumps(sums, sort_keys=True).encode()).hexdigest()


def facts(files: Mapping[str, bytes]) -> tuple[FileFacts, ...]:
    """Name, size and SHA-256 of each."""
    return tuple(FileFacts(name, len(content), hashlib.sha256(content).hexdigest()) for name, content in files.items())


def folder(experiment: str, sha256: str) -> str:
    """Where the files of an identity lie in a store."""
    return f"{experiment}/{FOLDER}/{sha256[:16]}"


def put_files(store: Store, experiment: str, files: Mapping[str, bytes]) -> str:
    """Puts what is not there yet; gives their identity."""
    sha256 = identity(files)
    for name, content in files.items():
        path = f"{folder(experiment, sha256)}/{check_path(name)}"
        if not store.exists(path):
            store.put(path, content)
    return sha256


def get_files(store: Source, experiment: str, one: Judgement, target: Path) -> Path | None:
    """Copies the very files of a judgement into a folder, and gives the first; None where one is missing.

    Raises DamagedRunError for one that is not what was judged.
    """
    for file in one.files:
        path = f"{folder(experiment, one.sha256)}/{check_path(file.name)}"
        content = store.get(path)
        if content is None:
            return None
        if hashlib.sha256(content).hexdigest() != file.sha256:
            raise DamagedRunError(
                f"{store.url}/{path} is not the file that was judged (SHA-256 differs). Delete its folder and measure again."
            )
        (target / file.name).write_bytes(content)
    return target / one.files[0].name


def put_judgement(store: Store, experiment: str, one: Judgement, outcomes: bytes) -> None:
    """Keeps a judgement, with the outcomes of single examples if there are any."""
    if outcomes:
        path = f"{experiment}/{FOLDER}/outcomes/{one.outcomes}.safetensors"
        if not store.exists(path):
            store.put(path, outcomes)
    store.put(f"{experiment}/{FOLDER}/{name(one)}", as_bytes(to_json(one)))


def name(one: Judgement) -> str:
    """Where a judgement lies in the folder of candidates."""
    where = hashlib.sha256(f"{one.key} {one.place} {one.calls}".encode()).hexdigest()[:8]
    return f"{one.sha256[:16]}/{one.form}-{where}.json"


def judgements(store: Source, experiment: str) -> dict[str, Judgement]:
    """All that were made, by name. Raises StoreError for a document that is none."""
    start = f"{experiment}/{FOLDER}/"
    names = [file.path.removeprefix(start) for file in store.files(start.rstrip("/")) if file.path.endswith(".json")]
    return {one: _read(store, start + one) for one in names}


def _read(store: Source, path: str) -> Judgement:
    try:
        return from_json(Judgement, store.get(path) or b"")
    except DocumentError as error:
        raise StoreError(f"{store.url}/{path} cannot be read ({error}). Delete it and measure again.") from error


def served(store: Source, experiment: str) -> Served | None:
    """The last race, with the judgements that it names and that are there; None where candidates were never measured.

    Raises StoreError.
    """
    content = store.get(f"{experiment}/{RACE}")
    if content is None:
        return None
    try:
        race = from_json(Race, content)
    except DocumentError as error:
        raise StoreError(
            f"{store.url}/{experiment}/{RACE} cannot be read ({error}). Delete it and measure again."
        ) from error
    paths = [check_path(f"{experiment}/{FOLDER}/{one}") for one in race.judgements]
    own = [
        _read(store, path) for path in paths if store.get(path) is not None
    ]  # without one, its candidate lacks a replicate
    outcomes = {one.outcomes: _outcomes(store, experiment, one.outcomes) for one in own if one.outcomes}
    return Served(tuple(own), race, outcomes)


def _outcomes(store: Source, experiment: str, sha256: str) -> SealedOutcomes:
    path = f"{experiment}/{FOLDER}/outcomes/{sha256}.safetensors"
    return SealedOutcomes(partial(_checked, store, path, sha256), f"{store.url}/{path}")


def _checked(store: Source, path: str, sha256: str) -> bytes:
    content = store.get(path)
    if content is None or hashlib.sha256(content).hexdigest() != sha256:
        raise DamagedRunError(f"{store.url}/{path} is missing, or was changed. Delete {FOLDER}/ and measure again.")
    return content
