"""Loading a data set by its name in a recipe, and saying what in that name and its options decides the content."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ticketsmith import plugins
from ticketsmith.data import userfiles
from ticketsmith.errors import DataError

if TYPE_CHECKING:
    from ticketsmith.data.dataset import Dataset, Text

KIND = "data set"
BUILTINS = {"datasets": "ticketsmith.data.hub:load"} | {
    name: f"ticketsmith.data.{name}:load"
    for name in (
        "mnist",
        "fashion_mnist",
        "cifar10",
        "digits",
        "mnist1d",
        "npz",
        "npy",
        "images",
        "parquet",
        "pydocs",
        "text",
    )
}
# Of a user's own files: what lists them. Their content, not their place, is what a run depends on.
FILES = {name: f"ticketsmith.data.{name}:files" for name in ("npz", "npy", "images", "parquet", "text")}
# Options that say where the files lie, as paths; they never change the content.
PLACES = {
    "fashion_mnist": ("root",),
    "cifar10": ("root",),
    "npz": ("path",),
    "npy": ("path",),
    "images": ("path",),
    "parquet": ("path", "train", "test"),
    "text": ("path",),
    "datasets": ("dataset",),
}
_OF_THE_CONTENT = {"datasets": ("revision",)}  # options that are told by the content that they lead to
_PICTURES = ("images", "parquet")  # of which the rules of reading have grown
_TOLD_BY_CONTENT = ("pydocs", "datasets")  # neither name nor files tell what these are
ARRAYS = ("x_train", "y_train", "x_test", "y_test")

_loaded: dict[str, Dataset | Text] = {}


def load(name: str, options: Mapping[str, Any], base: Path | None = None) -> Dataset:
    """The labelled data set ``name``: a built-in, or a user's ``package.module:function``.

    A user's function returns a Dataset, or the arrays x_train, y_train, x_test, y_test as a tuple or a dict. Relative
    paths in ``options`` are taken from ``base`` (the recipe's folder) if they exist there, else from the current
    directory. The same data set is loaded once in a process; its arrays cannot be written to. Raises RecipeError for a
    wrong name or option, DataError for data that is missing, damaged or of the wrong form.
    """
    from ticketsmith.data.dataset import Text

    data = _once(name, options, base)
    if isinstance(data, Text):
        raise DataError(f"{KIND} {name!r} is text, without labels: it is for `task: {{name: language, ...}}`.")
    return data


def load_text(name: str, options: Mapping[str, Any], base: Path | None = None) -> Text:
    """The text ``name``: a built-in, or what a user's function returns as a ``str``; else as ``load``."""
    from ticketsmith.data.dataset import Text

    data = _once(name, options, base)
    if not isinstance(data, Text):
        raise DataError(
            f"{KIND} {name!r} holds labelled inputs, not text. Text is `pydocs`, `{{name: text, path: my.txt}}`, or a "
            "function of your own that returns a str."
        )
    return data


def _once(name: str, options: Mapping[str, Any], base: Path | None) -> Dataset | Text:
    # Where only the result tells what the content is, the question has to do.
    told_by_result = plugins.is_dotted(name) or name in _TOLD_BY_CONTENT
    asked = [name, dict(options), str(base)] if told_by_result else identity(name, options, base)
    key = json.dumps(asked, sort_keys=True, default=repr)
    if key not in _loaded:
        _loaded[key] = read(name, options, base)
    return _loaded[key]


def read(name: str, options: Mapping[str, Any], base: Path | None = None) -> Dataset | Text:
    """As ``load`` or ``load_text``, but always from the files."""
    options = _settled(name, options, base)
    if not plugins.is_dotted(name):
        return plugins.build(KIND, name, BUILTINS, options)  # type: ignore[no-any-return]
    with plugins.foreign(lambda error: DataError(f"{KIND} {name!r} failed: {type(error).__name__}: {error}")):
        return _as_dataset(name, plugins.build(KIND, name, BUILTINS, options))


def fingerprint(name: str, options: Mapping[str, Any], base: Path | None = None) -> str | None:
    """SHA-256 of what the content comes from, where the name alone does not fix it.

    Of the user's files for ``npz``, ``npy``, ``images``, ``parquet`` and ``text``; of what a user's function gives; of the
    text of ``datasets``, and of ``pydocs``, which is another text in another Python. None for the published sets, whose
    content is fixed by their checksums.
    """
    _check(name, options)
    if name in FILES:
        files = plugins.build(KIND, name, FILES, _settled(name, options, base))
        return userfiles.digest(files)
    if plugins.is_dotted(name) or name in _TOLD_BY_CONTENT:
        from ticketsmith.data.arrays import digest
        from ticketsmith.data.dataset import Text

        data = _once(name, options, base)
        return hashlib.sha256(data.content.encode()).hexdigest() if isinstance(data, Text) else digest(data)
    return None


def identity(name: str, options: Mapping[str, Any], base: Path | None = None) -> dict[str, Any]:
    """What goes into a run's spec: ``name``, ``options`` that change the content, ``fingerprint``; no empty parts.

    Options at their default, and those that only say where files lie, are left out: neither moving a file nor writing
    a default down changes a key.
    """
    content = fingerprint(name, options, base)
    parameters = inspect.signature(plugins.resolve(KIND, name, BUILTINS)).parameters
    silent = (*PLACES.get(name, ()), *_OF_THE_CONTENT.get(name, ()))
    own = {option: value for option, value in sorted(options.items()) if option not in silent}
    options = plugins.telling(parameters, own)
    return {"name": name} | ({"options": options} if options else {}) | ({"fingerprint": content} if content else {})


def rules(name: str, options: Mapping[str, Any], base: Path | None = None) -> dict[str, int]:
    """What goes beside the identity of a set of which an older version read the same files otherwise; else nothing.

    So what was trained on that is not taken for what this version trains. It reads the set.
    """
    version = load(name, options, base).rules if name in _PICTURES else 1
    return {"rules": version} if version > 1 else {}


def _check(name: str, options: Mapping[str, Any]) -> None:
    plugins.check_options(KIND, name, plugins.resolve(KIND, name, BUILTINS), options)


def _settled(name: str, options: Mapping[str, Any], base: Path | None) -> dict[str, Any]:
    """``options`` with the built-in sets' paths resolved; a value of the wrong type is left for the check of types."""

    def settle(value: Any) -> Any:
        if isinstance(value, list):
            return [settle(part) for part in value]
        return userfiles.settle(value, base) if isinstance(value, str) else value

    return {option: settle(value) if option in PLACES.get(name, ()) else value for option, value in options.items()}


def _as_dataset(name: str, answer: Any) -> Dataset | Text:
    from ticketsmith.data.arrays import check, make_dataset
    from ticketsmith.data.dataset import Dataset, Text

    if isinstance(answer, str):
        return Text(name, answer)
    if isinstance(answer, Text):
        return answer
    if isinstance(answer, Dataset):
        return check(answer)
    if isinstance(answer, Mapping) and set(answer) == set(ARRAYS):
        answer = [answer[key] for key in ARRAYS]
    if not isinstance(answer, list | tuple) or len(answer) != len(ARRAYS):
        raise DataError(
            f"{KIND} {name!r} returned {type(answer).__name__}; return a Dataset, or the four arrays {', '.join(ARRAYS)} "
            "as a tuple or a dict, or a str that is text."
        )
    return make_dataset(name, (answer[0], answer[1]), (answer[2], answer[3]))
