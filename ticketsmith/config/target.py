"""What a target file may say: a Kubernetes cluster, its pools and their prices, and the limits that keep the bill down.

The recipe says what is trained and stays as it is; the target says where, with what, and for how much at most.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from ticketsmith.config.load import parse_model, read_text
from ticketsmith.spec import Frozen

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_QUANTITY = re.compile(r"\d+(\.\d+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?")


def _seconds(value: Any) -> Any:
    """``90s``, ``20m``, ``4h``, ``1d`` in seconds."""
    if isinstance(value, str):
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", value.strip())
        if match is None:
            raise ValueError("expected a time such as `90s`, `20m`, `4h` or `1d`")
        return int(float(match[1]) * _UNITS[match[2]])
    return value


def _quantity(value: Any) -> Any:
    """Kubernetes takes quantities as text."""
    text = str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
    if not isinstance(text, str) or not _QUANTITY.fullmatch(text):
        raise ValueError("expected a quantity such as `2`, `500m`, `16Gi`")
    return text


def _name(value: Any) -> Any:
    if isinstance(value, str) and not _LABEL.fullmatch(value):
        raise ValueError("expected a Kubernetes name: small letters, digits and '-', at most 63")
    return value


Seconds = Annotated[int, BeforeValidator(_seconds), Field(gt=0, json_schema_extra={"type": ["integer", "string"]})]
Quantity = Annotated[
    str, BeforeValidator(_quantity), Field(json_schema_extra={"type": ["integer", "number", "string"]})
]
Name = Annotated[str, BeforeValidator(_name)]


class Toleration(Frozen):
    """A taint that pods of this pool put up with."""

    key: str = Field(description="The taint's key.")
    operator: Literal["Equal", "Exists"] = Field("Equal", description="`Equal` compares the value too.")
    value: str | None = Field(None, description="The taint's value, for `Equal`.")
    effect: Literal["NoSchedule", "NoExecute", "PreferNoSchedule"] | None = Field(
        "NoSchedule", description="The taint's effect."
    )


class Pool(Frozen):
    """Nodes of one kind: what a pod gets there, and what that costs."""

    machine: str = Field(
        description="Machine size, for the price: `Standard_NC4as_T4_v3`; or `name=0.53`, your own price."
    )
    share: float = Field(
        1.0, gt=0, le=1, description="Part of the machine that a pod pays for. 1: a pod may be alone on its node."
    )
    spot: bool = Field(False, description="Evictable nodes at a lower price; runs go on from their checkpoints.")
    gpus: int = Field(
        0,
        ge=0,
        le=8,
        description="GPUs of a pod; more than one make each run together, by as many ranks, unless the recipe has "
        "`training.ranks`.",
    )
    cpu: Quantity = Field("1", description="CPU of a pod, requested and limited.")
    memory: Quantity = Field("4Gi", description="Memory of a pod, requested and limited.")
    disk: Quantity = Field("10Gi", description="Scratch space of a pod.")
    shared_memory: Quantity = Field("1Gi", description="Size of /dev/shm; counts toward `memory`.")
    workers: int | None = Field(
        None,
        ge=1,
        le=256,
        description="Runs side by side in a pod, of one rank each; by default one a GPU, or one a whole CPU.",
    )
    parallelism: int = Field(4, ge=1, le=1000, description="Pods of one Job at the same time, at most.")
    idle_tail: Seconds = Field(
        600,
        description="How long the autoscaler keeps a node that nobody uses: paid for, and part of the price ceiling.",
    )
    node_selector: dict[str, str] = Field(default_factory=dict, description="Labels of the pool's nodes.")
    tolerations: tuple[Toleration, ...] = Field((), strict=False, description="Taints of the pool's nodes.")

    @property
    def processes(self) -> int:
        """Runs side by side in one pod."""
        if self.workers is not None:
            return self.workers
        return self.gpus or max(1, int(_cores(self.cpu)))


class Limits(Frozen):
    """Guardrails of every Job."""

    deadline: Seconds = Field(
        description="A training Job is stopped after this time, all its replicates, retries and waiting for nodes included."
    )
    report_deadline: Seconds = Field(1800, description="The same for the Job that writes the report.")
    experiment: Seconds = Field(
        86400, description="The same for the conductor once it is at work: after it, nothing new is begun."
    )
    retries: int = Field(
        3,
        ge=0,
        le=20,
        description="Tries again of a failed replicate. Evictions are free; bad input is never tried again.",
    )
    grace: Seconds = Field(60, description="From SIGTERM to SIGKILL: must be enough to save a checkpoint and the logs.")
    keep: Seconds = Field(
        3600, description="How long a finished Job stays in the cluster, once its logs are in the store."
    )
    stuck: Seconds = Field(
        600,
        description="A Job whose pods have a node and cannot start (image missing, ...) is stopped after this, and a "
        "conductor that does not begin is taken back.",
    )
    poll: Seconds = Field(10, description="Seconds between two looks of the conductor.")
    checkpoint_every: Seconds = Field(60, description="Seconds between checkpoints within a run.")


class Budget(Frozen):
    """What an experiment may cost in all. Nothing is begun, and nothing goes on, that would exceed it."""

    money: float | None = Field(
        None, gt=0, description="In the currency of the prices (US dollars in the shipped table)."
    )
    gpu_hours: float | None = Field(None, gt=0, description="Hours of one GPU.")


class IdleGpu(Frozen):
    """A Job whose GPU is paid for and not used is stopped."""

    below: float = Field(0.05, ge=0, lt=1, description="Mean utilisation under which a GPU counts as idle.")
    window: Seconds = Field(900, description="Over this time.")


class Secret(Frozen):
    """A key of a Secret in the namespace. Manifests refer to it; its value is seen by pods only."""

    name: Name = Field(description="Name of the Secret.")
    key: str = Field("connection-string", description="Key in the Secret.")


class Volume(Frozen):
    """A volume claim with data of your own, mounted read-only in every pod."""

    claim: Name = Field(description="Name of the PersistentVolumeClaim.")
    path: str = Field(description="Where it is mounted.", pattern="^/.+$")


class Target(Frozen):
    """A Kubernetes cluster that experiments run on."""

    context: str | None = Field(None, description="Context of your kubeconfig; by default the current one.")
    namespace: Name = Field("ticketsmith", description="Namespace of all Jobs.")
    image: str = Field(min_length=1, description="The image, best by digest: `<registry>/ticketsmith@sha256:...`.")
    pull: Literal["IfNotPresent", "Always", "Never"] = Field("IfNotPresent", description="Image pull policy.")
    pull_secrets: tuple[Name, ...] = Field(
        (), strict=False, description="Secrets for a private registry, if it needs any."
    )
    store: str = Field(
        description="Where runs live: `az://<container>/<prefix>`, read by pods, by you, and by reports."
    )
    account: str | None = Field(
        None, description="Storage account, name or URL, when pods sign in by Workload Identity."
    )
    connection_secret: Secret | None = Field(
        None, description="Secret with the storage connection string, when pods do not sign in by Workload Identity."
    )
    worker_account: Name = Field("ticketsmith-worker", description="Service account of training and report pods.")
    conductor_account: Name = Field("ticketsmith-conductor", description="Service account of the conductor.")
    region: str | None = Field(None, description="Region of the prices, such as `westeurope`.")
    train: Pool = Field(description="Where training runs.")
    cpu: Pool = Field(description="Where conductor and report run.")
    limits: Limits = Field(description="Guardrails of every Job.")
    budget: Budget = Field(default_factory=Budget, description="What an experiment may cost in all.")
    idle_gpu: IdleGpu | Literal[False] = Field(default_factory=IdleGpu, description="Watch for idle GPUs.")
    queue: Name | None = Field(None, description="Kueue's LocalQueue; without one, plain Jobs.")
    priority_class: Name | None = Field(None, description="PriorityClass of training pods.")
    conductor_priority_class: Name | None = Field(None, description="PriorityClass of the conductor.")
    benchmark: bool = Field(True, description="Measure inference in the report Job, on the `cpu` pool.")
    base: str = Field("/app/recipe", description="Folder in the image with the recipe's own modules and data.")
    volumes: tuple[Volume, ...] = Field((), strict=False, description="Volumes with data of your own.")

    @field_validator("image", "account")
    @classmethod
    def _filled_in(cls, value: str | None, info: ValidationInfo) -> str | None:
        may_be_blank = bool(info.context and info.context.get("blanks"))
        if value is not None and (("<" in value and not may_be_blank) or value != value.strip()):
            raise ValueError("put your own value in the place of the <...>")
        return value

    @field_validator("store")
    @classmethod
    def _reachable(cls, store: str) -> str:
        if not re.match(r"az://[a-z0-9]|/", store):
            raise ValueError("pods need `az://<container>/<prefix>` (or an absolute folder that every pod mounts)")
        return store

    @model_validator(mode="after")
    def _check(self) -> Target:
        if self.store.startswith("az://") and (self.account is None) == (self.connection_secret is None):
            raise ValueError(
                "say how pods sign in to the store: `account` (Workload Identity) or `connection_secret`, one of the two"
            )
        return self

    @property
    def blanks(self) -> dict[str, str]:
        """Fields that are not filled in: `<...>` stands there."""
        return {name: value for name in ("image", "account") if "<" in (value := getattr(self, name) or "")}

    def to_bytes(self) -> bytes:
        """Canonical JSON of what was set."""
        return json.dumps(self.model_dump(mode="json", exclude_defaults=True), sort_keys=True).encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> Target:
        """The inverse of ``to_bytes``."""
        return cls.model_validate_json(content)


def load_target(path: str | Path, overrides: Sequence[str] = (), blanks: bool = False) -> Target:
    """Reads a target file; ``overrides`` are ``field.path=value``. Raises RecipeError that names line, field and mend.

    With ``blanks``, image and account may still be `<...>`: good for a look, and for nothing that begins.
    """
    place, first = Path(path), "image: <registry>/ticketsmith"
    return parse_model(Target, read_text(place), str(place), overrides, "a target", first, {"blanks": blanks})[0]


def _cores(quantity: str) -> float:
    return float(quantity[:-1]) / 1000 if quantity.endswith("m") else float(quantity)
