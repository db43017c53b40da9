"""What ``export`` wrote, as a repository on the Hugging Face Hub. The library ``huggingface_hub`` does the sending."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ticketsmith.data.extras import need
from ticketsmith.errors import Exit, RecipeError, TicketSmithError
from ticketsmith.export.model_card import FILE
from ticketsmith.web import redacted

_ABOUT = "export.json"
_ASIDE = "ticketsmith"
"""The folder of the repository for what lies beside a folder of ``from_pretrained``."""


class HubError(TicketSmithError):
    """The Hub cannot be reached, or did not take what was sent; the same command goes on."""

    exit_status = Exit.INCOMPLETE


@dataclass(frozen=True)
class Pushed:
    """``url`` is the repository's, ``commit`` what it holds now; ``is_new`` tells whether anything had to be sent."""

    url: str
    commit: str
    is_new: bool


def files_to_push(folder: Path) -> dict[str, Path]:
    """The files of an export by their name in the repository: those of ``hf`` at its top, the others beside.

    Every file is compared with ``export.json``. Raises RecipeError when the folder is no export, lacks a model card, or was
    changed.
    """
    try:
        document: Mapping[str, Any] = json.loads((folder / _ABOUT).read_bytes())
        entries = [(str(entry["format"]), str(entry["name"]), dict(entry["sha256"])) for entry in document["files"]]
    except FileNotFoundError:
        raise RecipeError(
            f"{folder}: no {_ABOUT} is here. Write the files first: ticketsmith export <run> --format hf --output {folder}"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecipeError(f"{folder / _ABOUT} is not what TicketSmith writes: {error!r}") from error
    whole = next((name for format_, name, _ in entries if format_ == "hf"), None)
    files = {}
    for format_, _, digests in entries:
        for name, digest in digests.items():
            path = folder / name
            if Path(name).is_absolute() or ".." in Path(name).parts or not path.is_file():
                raise RecipeError(f"{path} is missing, though {_ABOUT} lists it: export it anew.")
            if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
                raise RecipeError(f"{path} was changed after it was checked and written: export it anew.")
            if whole is None:
                files[name] = path
            elif name.startswith(f"{whole}/"):
                files[name.removeprefix(f"{whole}/")] = path
            elif format_ != "card":  # the folder of from_pretrained has its own
                files[f"{_ASIDE}/{name}"] = path
    if FILE not in files:
        raise RecipeError(f"{folder} has no model card: export it anew, with --format card beside its other formats.")
    return files | {_ABOUT if whole is None else f"{_ASIDE}/{_ABOUT}": folder / _ABOUT}


def push(folder: Path, repository: str, *, private: bool = False, revision: str | None = None) -> Pushed:
    """Brings an export to ``<user or organisation>/<name>``, which is made if it is not there; in one commit, or none.

    The token is that of HF_TOKEN, or of ``hf auth login``. Raises RecipeError for what is wrong here, and HubError.
    """
    files = files_to_push(folder)
    hub = need("huggingface_hub", "push-to-hub", extra="hub")
    if not hub.get_token():
        raise RecipeError(
            "push-to-hub: the Hub asks for a token with the right to write. Set HF_TOKEN, or sign in by `hf auth login`."
        )
    progress_bars = hub.utils.are_progress_bars_disabled()
    hub.utils.disable_progress_bars()
    try:
        api = hub.HfApi(library_name="ticketsmith")
        url = api.create_repo(repository, private=private or None, exist_ok=True)
        before = _head(api, repository, revision)
        operations = [hub.CommitOperationAdd(name, str(path)) for name, path in sorted(files.items())]
        document = json.loads((folder / _ABOUT).read_bytes())
        commit = api.create_commit(
            repository,
            operations,
            commit_message=f"{document['experiment']}: {document['variant']} level {document['level']} seed {document['seed']}",
            commit_description=f"Run {document['key']}",
            revision=revision,
        )
        return Pushed(str(url), str(commit.oid), commit.oid != before)
    except Exception as error:  # the library and its network may fail in any way
        raise _error(error, repository) from None  # its traceback might hold the token
    finally:
        if not progress_bars:
            hub.utils.enable_progress_bars()


def _head(api: Any, repository: str, revision: str | None) -> str:
    """The commit that a repository has now; none is in one that is new."""
    return str(api.repo_info(repository, revision=revision).sha or "")


def _error(error: Exception, repository: str) -> TicketSmithError:
    answer = getattr(error, "response", None)
    status = getattr(answer, "status_code", None)
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    reason = redacted(reason)[:300]
    endpoint = redacted(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
    if type(error).__name__ == "HFValidationError":
        return RecipeError(f"{repository!r} is no name of a repository: write <user or organisation>/<name>.")
    if status in (401, 403):
        return RecipeError(
            f"{endpoint} refuses {repository!r} with this token ({reason}). Take one that may write there, by HF_TOKEN or "
            "`hf auth login`."
        )
    return HubError(f"{endpoint}: {repository!r} was not brought there ({reason}). The same command goes on.")
