"""The cluster, through the official client: the few requests that are needed, patient with what passes by itself.

Objects go in and come out as plain data, so that everything that reasons about them is pure and does not depend on the
client's models. Every request may be repeated: reading, server-side apply, and deleting what may be gone already.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ticketsmith.errors import ClusterError
from ticketsmith.execute.kubernetes.manifests import BEGUN, MANAGER

Object = dict[str, Any]

PATIENCE = 300.0
"""Seconds for which a cluster may be slow, busy or away before a request is given up."""

_PASSING = frozenset({408, 409, 429, 500, 502, 503, 504})
_TIMEOUT = (10, 60)  # seconds to connect, and between two bytes
_SILENCE = (10, 300)  # the same for a log that is followed
_PAGE = 500


class UnreachableError(ClusterError):
    """The API server does not answer, or only with errors that usually pass."""


class ConflictError(ClusterError):
    """What was to be changed has changed meanwhile."""


class Cluster:
    """Jobs, pods and events of one namespace."""

    def __init__(self, api_client: Any, namespace: str, patience: float = PATIENCE) -> None:
        from kubernetes import client

        self.namespace, self.patience = namespace, patience
        self._batch, self._core = client.BatchV1Api(api_client), client.CoreV1Api(api_client)
        self._host = api_client.configuration.host

    def apply(self, job: Object, dry_run: bool = False) -> Object:
        """Creates a Job, or changes nothing when the same one is there already (server-side apply).

        ``dry_run`` asks the server to check it, admission included, and to keep nothing. Raises ClusterError.
        """
        return self._call(
            "create Jobs",
            self._batch.patch_namespaced_job,
            job["metadata"]["name"],
            self.namespace,
            job,
            field_manager=MANAGER,
            force=True,
            field_validation="Strict",
            _content_type="application/apply-patch+yaml",
            dry_run="All" if dry_run else None,
        )

    def keep_for(self, job: str, seconds: int) -> None:
        """Sets how long a finished Job stays; nothing when it has gone."""
        self._change(job, {"spec": {"ttlSecondsAfterFinished": seconds}})

    def mark_begun(self, job: str, pod: str, deadline: int, keep: int) -> None:
        """Says on a conductor's Job that ``pod`` is at work, and gives it its whole ``deadline`` in seconds.

        Of a Job, unlike of a pod, the deadline may be raised while it runs. ``keep``: seconds that it stays when finished.
        """
        spec = {"activeDeadlineSeconds": deadline, "ttlSecondsAfterFinished": keep}
        self._change(job, {"metadata": {"annotations": {BEGUN: pod}}, "spec": spec})

    def _change(self, job: str, change: Object) -> None:
        self._call(
            "change Jobs",
            self._batch.patch_namespaced_job,
            job,
            self.namespace,
            change,
            absent_is_well=True,
            field_manager=MANAGER,
            _content_type="application/merge-patch+json",
        )

    def delete(self, job: str, unless_changed_from: str | None = None) -> bool:
        """Deletes a Job and its pods, which get SIGTERM and their grace period; well, too, when it has gone.

        ``unless_changed_from``: only while the Job has this version; False when it has another, and then it stays.
        """
        body = {"preconditions": {"resourceVersion": unless_changed_from}} if unless_changed_from else None
        try:
            self._call(
                "delete Jobs",
                self._batch.delete_namespaced_job,
                job,
                self.namespace,
                absent_is_well=True,
                passing=_PASSING - {409} if body else _PASSING,
                propagation_policy="Background",
                body=body,
            )
        except ConflictError:
            return False
        return True

    def job(self, name: str) -> Object | None:
        """One Job, None when there is none."""
        read = self._batch.read_namespaced_job
        return self._call("read Jobs", read, name, self.namespace, absent_is_well=True) or None

    def jobs(self, selector: str) -> list[Object]:
        """Jobs by label selector, oldest first."""
        return _by_age(self._list("list Jobs", self._batch.list_namespaced_job, label_selector=selector))

    def pods(self, selector: str) -> list[Object]:
        """Pods by label selector, oldest first."""
        return _by_age(self._list("list pods", self._core.list_namespaced_pod, label_selector=selector))

    def events(self, about: str | None = None) -> list[Object]:
        """Recent events of the namespace, or of the object of this name."""
        query = {"field_selector": f"involvedObject.name={about}"} if about else {}
        return self._list("list events", self._core.list_namespaced_event, **query)

    def log(self, pod: str) -> bytes | None:
        """What a pod has printed so far; None when it has gone or has not begun."""
        try:
            read = self._core.read_namespaced_pod_log
            return self._raw("read logs", read, pod, self.namespace, absent_is_well=True)
        except UnreachableError:
            raise
        except ClusterError:
            return None  # its container has not begun, or its node has gone

    def follow(self, pod: str) -> Iterator[bytes]:
        """What a pod has printed and prints, as it prints it, until it ends; nothing when it has gone.

        Raises UnreachableError when the connection is cut, or silent for long: ask again, it begins anew.
        """
        response = self._patiently(
            "read logs",
            lambda: self._core.read_namespaced_pod_log(
                pod, self.namespace, follow=True, _preload_content=False, _request_timeout=_SILENCE
            ),
            absent_is_well=True,
        )
        if response is None:
            return
        import urllib3

        try:
            while chunk := response.read1():  # what there is, without waiting for more
                yield chunk
        except urllib3.exceptions.HTTPError as error:
            raise UnreachableError(f"{self._host}: the log of {pod} broke off") from error
        finally:
            response.close()

    def _list(self, what: str, request: Callable[..., Any], **query: str) -> list[Object]:
        items: list[Object] = []
        more: dict[str, Any] = {}
        while True:
            page = self._call(what, request, self.namespace, limit=_PAGE, **query, **more)
            items += page.get("items") or []
            token = (page.get("metadata") or {}).get("continue")
            if not token:
                return items
            more = {"_continue": token}

    def _call(self, what: str, request: Callable[..., Any], *arguments: Any, **options: Any) -> Object:
        content = self._raw(what, request, *arguments, **options)
        try:
            return json.loads(content) if content else {}
        except ValueError as error:
            raise ClusterError(f"{self._host}: the answer is no JSON; is this a Kubernetes API server?") from error

    def _raw(
        self, what: str, request: Callable[..., Any], *arguments: Any, absent_is_well: bool = False,
        passing: frozenset[int] = _PASSING, **options: Any,
    ) -> bytes:  # fmt: skip
        """What the server answers to ``request`` of the client; nothing where that is well."""

        def call() -> bytes:
            return request(*arguments, _preload_content=False, _request_timeout=_TIMEOUT, **options).data  # type: ignore[no-any-return]

        return self._patiently(what, call, absent_is_well, passing) or b""

    def _patiently(
        self, what: str, call: Callable[[], Any], absent_is_well: bool = False, passing: frozenset[int] = _PASSING
    ) -> Any:
        import urllib3
        from kubernetes.client import ApiException

        began, tries = time.monotonic(), 0
        while True:
            try:
                return call()
            except ApiException as error:
                if error.status == 404 and absent_is_well:
                    return None
                if error.status not in passing:
                    kind = ConflictError if error.status == 409 else ClusterError
                    raise kind(self._refused(what, error)) from error
                reason, wait = f"{error.status} {_message(error)}", _retry_after(error)
            except urllib3.exceptions.HTTPError as error:
                if isinstance(error, urllib3.exceptions.SSLError):
                    raise ClusterError(f"{self._host}: cannot {what}: {error}") from error
                reason, wait = type(error).__name__, None
            if time.monotonic() - began > self.patience:
                raise UnreachableError(
                    f"{self._host}: cannot {what}: {reason}, for {self.patience:.0f} s. Jobs that run go on; look again later."
                )
            tries += 1
            time.sleep(wait if wait is not None else random.uniform(0, min(15.0, 0.2 * 2**tries)))

    def _refused(self, what: str, error: Any) -> str:
        if "is being terminated" in _message(error):
            return (
                f"{self._host}: cannot {what}: the namespace {self.namespace!r} is being deleted, and its pods with it."
            )
        mend = {
            401: " Sign in again (`az aks get-credentials`, `kubelogin`).",
            403: f" Ask for a role that may {what} in namespace {self.namespace!r}: deploy/kubernetes has it.",
            404: f" Is there a namespace {self.namespace!r}? `make deploy-kubernetes` makes it.",
        }.get(error.status, "")
        return f"{self._host}: cannot {what}: {_message(error)}.{mend}".replace("..", ".")


def connect(context: str | None, namespace: str, patience: float = PATIENCE) -> Cluster:
    """The cluster of a kubeconfig's context, or the one that this process is a pod of.

    Raises ClusterError when there is neither.
    """
    with _client_is_installed():
        from kubernetes import client, config

    settings = client.Configuration()
    inside = "KUBERNETES_SERVICE_HOST" in os.environ and "KUBECONFIG" not in os.environ
    try:
        if inside:
            config.load_incluster_config(client_configuration=settings)
        else:
            place = os.environ.get("KUBECONFIG")
            config.load_kube_config(place, context=context, client_configuration=settings)
    except (config.ConfigException, OSError) as error:
        raise ClusterError(
            f"no cluster to talk to: {str(error).splitlines()[0].rstrip('.')}. Name a context of your kubeconfig by "
            "`context:` in the target, or sign in: `az aks get-credentials`."
        ) from error
    settings.retries = False  # patience is ours, and told
    return Cluster(client.ApiClient(settings), namespace, patience)


@contextmanager
def _client_is_installed() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise ClusterError("the Kubernetes client is not installed: pip install 'ticketsmith[kubernetes]'") from error


def _message(error: Any) -> str:
    """The server's own words."""
    try:
        return str(json.loads(error.body)["message"])
    except (TypeError, ValueError, KeyError):
        return str(error.reason or "no reason given")


def _retry_after(error: Any) -> float | None:
    try:
        return min(30.0, float(error.headers["Retry-After"]))
    except (KeyError, TypeError, ValueError):
        return None


def _by_age(objects: list[Object]) -> list[Object]:
    return sorted(objects, key=lambda one: (one["metadata"].get("creationTimestamp") or "", one["metadata"]["name"]))
