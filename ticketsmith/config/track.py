"""What a recipe may say of experiment trackers."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import Field, field_validator

from ticketsmith.spec import Frozen

Tracker = Literal["mlflow", "wandb", "trackio", "tensorboard"]
Models = Literal["sweet-spot", "all", "none"]


class Track(Frozen):
    """An experiment tracker that gets what is sealed, after the report is written. Secrets come from the environment alone."""

    to: Tracker = Field(description="Which tracker; its library is an extra of the same name.")
    project: str = Field(
        "ticketsmith",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,99}$",
        description="The project there; of MLflow, the experiment.",
    )
    uri: str | None = Field(
        None,
        description="Of `mlflow`, the server's address, by default MLFLOW_TRACKING_URI; of `tensorboard`, the folder, by "
        "default `tensorboard`.",
    )
    models: Models = Field(
        "sweet-spot",
        description="Whose weights are attached: those of `all` runs, of `none`, or of the sweet spot and its dense network.",
    )

    @field_validator("uri")
    @classmethod
    def _no_secret(cls, uri: str | None) -> str | None:
        if uri and has_secret(uri):
            raise ValueError(
                "an address holds no user, password or token: say these by the environment. If one was written there, renew "
                "it: others may have seen it"
            )
        return uri


def has_secret(address: str) -> bool:
    """Whether an address names a user, a password or a token."""
    return re.search(r"//[^/]*@|[?&#][^=]*(token|key|password|secret|sig)[^=]*=", address, re.IGNORECASE) is not None


def also_by_name(schema: dict[str, Any]) -> None:
    """`track: mlflow` names a tracker with its defaults; several are a list of names and mappings."""
    one = [{"enum": list(Tracker.__args__)}, schema["items"]]  # type: ignore[attr-defined]
    plain = {name: schema.pop(name) for name in ("type", "items")}
    schema["anyOf"] = [*one, {"type": plain["type"], "items": {"anyOf": one}}]


def as_list(value: Any) -> Any:
    """Trackers as mappings in a list, whichever way they were written."""
    several = value if isinstance(value, list | tuple) else [] if value is None else [value]
    return [{"to": one} if isinstance(one, str) else one for one in several]
