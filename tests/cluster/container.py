"""What a pod's process sees: its command line, its environment, its volumes.

There is no own root file system: where a volume is mounted, its folder's real path takes the place of the mount path in
arguments and in values of the environment. ``/tmp`` and ``/dev/shm`` are left alone (``TMPDIR`` names the folder of a volume
on ``/tmp``).
"""

from __future__ import annotations

import base64
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tests.cluster.resources import PODS, SECRETS, SERVICE_ACCOUNTS, Object, at

if TYPE_CHECKING:
    from tests.cluster.fake import FakeCluster

ROOT = Path(__file__).resolve().parents[2]
MARK = "KUBERNETES_POD_UID"
COMMON = {
    "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
    "PYTHONPATH": str(ROOT),
    "PYTHONUNBUFFERED": "1",
    "OMP_NUM_THREADS": "1",  # else imports begin threads, and such a process is not forked from
    "LANG": "C.UTF-8",
}
"""Variables of every pod, and of commands beside them: of one environment, they are forked from one process."""


@dataclass(frozen=True)
class Image:
    """What an image would bring: its entry point and variables."""

    entrypoint: tuple[str, ...] = (sys.executable, "-m", "ticketsmith")
    env: Mapping[str, str] = field(default_factory=dict)


class ConfigError(Exception):
    """Something that the container refers to is not there: CreateContainerConfigError."""


class MountError(ConfigError):
    """Something that a volume is made of is not there: the container waits, and an event tells why."""


@dataclass(frozen=True)
class Container:
    """The first container of a pod, in a folder of its own."""

    cluster: FakeCluster
    pod: Object
    folder: Path

    def prepare(self) -> tuple[list[str], dict[str, str], Path]:
        """Command line, environment, working folder. Raises ConfigError."""
        spec = self.pod["spec"]["containers"][0]
        image = self.cluster.images.get(spec["image"], Image())
        places = self._mounts(spec)
        variables = {one["name"]: self._value(one) for one in spec.get("env") or []}
        environment = self._own_environment(places) | dict(image.env)
        environment |= {name: _substitute(value, places) for name, value in variables.items()}
        entry = spec.get("command") or image.entrypoint
        argv = [*entry, *(_substitute(part, places) for part in spec.get("args") or [])]
        work = Path(places.get("/work", self.folder))
        return argv, environment, work

    def _own_environment(self, places: Mapping[str, str]) -> dict[str, str]:
        meta, spec = self.pod["metadata"], self.pod["spec"]
        environment = {
            **COMMON,
            "HOME": str(self.folder),
            "HOSTNAME": spec.get("hostname") or meta["name"],
            "KUBERNETES_SERVICE_HOST": "127.0.0.1",
            "KUBERNETES_SERVICE_PORT": str(self.cluster.port),
            MARK: meta["uid"],
        }
        if "/tmp" in places:
            environment["TMPDIR"] = places["/tmp"]
        if self._mounts_token():
            token = self.cluster.authority.token(meta["namespace"], spec["serviceAccountName"])
            kubeconfig = self.folder / "kubeconfig"
            self.cluster.write_kubeconfig(kubeconfig, token)
            environment["KUBECONFIG"] = str(kubeconfig)
        return environment

    def _mounts_token(self) -> bool:
        """The pod's own word first, else its account's, else yes."""
        own, namespace = self.pod["spec"], self.pod["metadata"]["namespace"]
        account = self.cluster.storage.find(SERVICE_ACCOUNTS, namespace, own["serviceAccountName"]) or {}
        return bool(own.get("automountServiceAccountToken", account.get("automountServiceAccountToken", True)))

    def _mounts(self, spec: Object) -> dict[str, str]:
        """The real folder of every mount path."""
        volumes = {volume["name"]: volume for volume in self.pod["spec"].get("volumes") or []}
        places = {}
        for mount in spec.get("volumeMounts") or []:
            folder = self.folder / "volumes" / mount["name"]
            folder.mkdir(parents=True, exist_ok=True)
            if secret := at(volumes[mount["name"]], "secret", "secretName"):
                try:
                    for key, content in self._secret(secret).items():
                        (folder / key).write_bytes(content)
                except ConfigError as error:
                    raise MountError(f'"{mount["name"]}" : {error}') from error
            places[mount["mountPath"].rstrip("/")] = str(folder)
        return places

    def _secret(self, name: str) -> dict[str, bytes]:
        secret = self.cluster.storage.find(SECRETS, self.pod["metadata"]["namespace"], name)
        if secret is None:
            raise ConfigError(f'secret "{name}" not found')
        return {key: base64.b64decode(text) for key, text in (secret.get("data") or {}).items()}

    def _value(self, variable: Object) -> str:
        source = variable.get("valueFrom")
        if source is None:
            return str(variable.get("value", ""))
        if reference := source.get("secretKeyRef"):
            content = self._secret(reference["name"])
            if reference["key"] not in content:
                where = f"{self.pod['metadata']['namespace']}/{reference['name']}"
                raise ConfigError(f"couldn't find key {reference['key']} in Secret {where}")
            return content[reference["key"]].decode()
        path = source["fieldRef"]["fieldPath"]
        live = self.cluster.storage.peek(PODS, self.pod) or self.pod
        if match := re.fullmatch(r"metadata\.labels\['([^']+)'\]", path):
            return str((live["metadata"].get("labels") or {}).get(match[1], ""))
        return str(at(live, *path.split(".")) or "")


def _substitute(text: str, places: Mapping[str, str]) -> str:
    for path in sorted(places, key=len, reverse=True):
        if path not in ("/tmp", "/dev/shm"):
            text = re.sub(rf"(?<![\w./-]){re.escape(path)}(?=/|$|[:,;\s\"'])", lambda _, p=path: places[p], text)
    return text
