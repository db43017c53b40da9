"""The API server's HTTP side: routes, discovery, lists in pages, watches, logs; and the log of all requests."""

from __future__ import annotations

import base64
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

import yaml

from tests.cluster.rbac import ADMIN, User
from tests.cluster.registry import Options
from tests.cluster.resources import (
    PODS,
    ApiError,
    Object,
    Resource,
    at,
    bad_request,
    field_selector,
    label_selector,
)
from tests.cluster.storage import Change
from tests.cluster.validation import VERSION

if TYPE_CHECKING:
    from tests.cluster.fake import FakeCluster


class Dropped(Exception):
    """The connection is cut instead of an answer."""


@dataclass
class Request:
    """One request, as the audit log keeps it."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    user: User = ADMIN
    resource: Resource | None = None
    namespace: str = ""
    name: str = ""
    sub: str = ""
    verb: str = ""
    status: int = 0
    at: float = field(default_factory=time.time)

    @property
    def is_watch(self) -> bool:
        return self.query.get("watch", "").lower() in ("true", "1")

    @property
    def content(self) -> Any:
        """The body, decoded. Raises ApiError 400, or 415 for protobuf."""
        if self.body.startswith(b"k8s\0"):
            if self.sub == "eviction":
                return {}  # as `kubectl drain` sends it; the URL says all that matters
            raise ApiError(415, "UnsupportedMediaType", "the fake cluster does not read protobuf")
        try:
            return yaml.load(self.body, getattr(yaml, "CSafeLoader", yaml.SafeLoader)) if self.body else {}
        except yaml.YAMLError as error:
            raise bad_request(f"error decoding the body: {error}") from error

    @property
    def options(self) -> Options:
        dry_run = self.query.get("dryRun")
        if dry_run not in (None, "", "All"):
            message = f'CreateOptions.meta.k8s.io "" is invalid: dryRun: Unsupported value: "{dry_run}": supported values: "All"'
            raise ApiError(422, "Invalid", message)
        manager = self.query.get("fieldManager") or self.headers.get("user-agent", "").partition("/")[0]
        if self.headers.get("content-type", "").startswith("application/apply-patch"):
            manager = self.query.get("fieldManager", "")
        strictness = self.query.get("fieldValidation") or "Warn"
        return Options(manager, dry_run == "All", self.query.get("force", "").lower() in ("true", "1"), strictness)


@dataclass
class Response:
    """``stream`` gives the body in pieces, and None where nothing is to be sent yet."""

    body: Any = b""
    code: int = 200
    content_type: str = "application/json"
    warnings: list[str] = field(default_factory=list)
    retry_after: int = 0
    stream: Iterator[bytes | None] | None = None


class Api:
    """Requests in, responses out."""

    def __init__(self, cluster: FakeCluster) -> None:
        self.cluster, self.storage, self.registry = cluster, cluster.storage, cluster.registry
        self.audit: list[Request] = []
        self.watches: list[Watch] = []
        self.failures: list[BaseException] = []

    def handle(self, request: Request) -> Response:
        """Raises ApiError, and Dropped for connections that a fault cuts."""
        self.audit.append(request)
        request.user = self.cluster.authority.user(request.headers.get("authorization"))
        parts = [unquote(part) for part in request.path.strip("/").split("/")]
        if (found := self._discover(parts)) is not None:
            return Response(found)
        self._route(request, parts)
        resource = request.resource
        assert resource is not None
        self.cluster.authority.check(request.user, request.verb, resource, request.sub, request.namespace, request.name)
        if resource.plural == "selfsubjectaccessreviews":
            return self._review(request)
        carry_out = {
            "get": self._get,
            "list": self._list,
            "watch": self._watch,
            "create": self._create,
            "update": self._update,
            "patch": self._patch,
            "delete": self._delete,
            "deletecollection": self._delete_collection,
        }
        return carry_out[request.verb](request, resource)

    def _route(self, request: Request, parts: list[str]) -> None:
        if len(parts) < (3 if parts[0] == "api" else 4) or parts[0] not in ("api", "apis"):
            raise ApiError(404, "NotFound", "the server could not find the requested resource", {})
        group, version, rest = ("", parts[1], parts[2:]) if parts[0] == "api" else (*parts[1:3], parts[3:])
        if len(rest) >= 3 and rest[0] == "namespaces":
            request.namespace, rest = rest[1], rest[2:]
            if rest and rest[0] in ("status", "finalize") and len(rest) == 1:
                request.namespace, rest = "", ["namespaces", request.namespace, *rest]
        request.resource = self.cluster.kinds.get((group, version, rest[0] if rest else ""))
        if request.resource is None:
            raise ApiError(404, "NotFound", "the server could not find the requested resource", {})
        request.name, request.sub = (rest[1] if len(rest) > 1 else ""), (rest[2] if len(rest) > 2 else "")
        if request.sub and request.sub not in request.resource.subresources:
            raise ApiError(404, "NotFound", "the server could not find the requested resource", {})
        verbs = {"POST": "create", "PUT": "update", "PATCH": "patch"}
        read = "get" if request.name else "watch" if request.is_watch else "list"
        remove = "delete" if request.name else "deletecollection"
        request.verb = {**verbs, "GET": read, "DELETE": remove}.get(request.method, "")
        if not request.verb:
            raise ApiError(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")

    # Discovery --------------------------------------------------------------------------------------------------------

    def _discover(self, parts: list[str]) -> Any:
        kinds = self.cluster.kinds
        groups = sorted({(group, version) for group, version, _ in kinds if group})
        match parts:
            case ["version"]:
                major, minor = VERSION.split(".")
                return {"major": major, "minor": minor, "gitVersion": f"v{VERSION}.0", "platform": "linux/amd64"}
            case ["healthz" | "readyz" | "livez"]:
                return b"ok"
            case ["api"]:
                return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}
            case ["apis"]:
                return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(*one) for one in groups]}
            case ["apis", group]:
                return next((_group(*one) for one in groups if one[0] == group), None)
            case ["api", version]:
                return self._resources("", version)
            case ["apis", group, version]:
                return self._resources(group, version)
            case ["openapi", "v3"]:
                paths = ["api/v1", *(f"apis/{group}/{version}" for group, version in groups)]
                return {"paths": {path: {"serverRelativeURL": f"/openapi/v3/{path}?hash=0"} for path in paths}}
            case ["openapi", "v3", "api", version]:
                return self._openapi("", version)
            case ["openapi", "v3", "apis", group, version]:
                return self._openapi(group, version)
            case ["openapi", *_] | [""]:
                raise ApiError(404, "NotFound", "the server could not find the requested resource", {})
        return None

    def _resources(self, group: str, version: str) -> Object:
        verbs = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
        found: list[Object] = []
        for (g, v, plural), resource in sorted(self.cluster.kinds.items()):
            if (g, v) != (group, version):
                continue
            one = {"name": plural, "singularName": resource.kind.lower(), "namespaced": resource.namespaced}
            one |= {"kind": resource.kind, "verbs": verbs, "shortNames": list(resource.short)}
            found.append(one)
            for sub in resource.subresources:
                part = {**one, "name": f"{plural}/{sub}", "verbs": ["get", "patch", "update"], "shortNames": []}
                if sub == "eviction":
                    part |= {"group": "policy", "version": "v1", "kind": "Eviction", "verbs": ["create"]}
                elif sub == "token":
                    part |= {
                        "group": "authentication.k8s.io",
                        "version": "v1",
                        "kind": "TokenRequest",
                        "verbs": ["create"],
                    }
                found.append(part)
        if not found:
            raise ApiError(404, "NotFound", "the server could not find the requested resource", {})
        named = f"{group}/{version}" if group else version
        return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": named, "resources": found}

    def _openapi(self, group: str, version: str) -> Object:
        """Just enough for ``kubectl`` to see that the server checks fields by itself."""
        parameters = [{"name": name, "in": "query"} for name in ("fieldValidation", "dryRun", "fieldManager", "force")]
        paths = {}
        for (g, v, plural), resource in self.cluster.kinds.items():
            if (g, v) == (group, version):
                kind = {"group": group, "version": version, "kind": resource.kind}
                operation = {"x-kubernetes-group-version-kind": kind, "parameters": parameters, "responses": {}}
                paths[f"/{'apis/' + group if group else 'api'}/{version}/{plural}/{{name}}"] = {"patch": operation}
        return {"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": VERSION}, "paths": paths}

    # Verbs ------------------------------------------------------------------------------------------------------------

    def _get(self, request: Request, resource: Resource) -> Response:
        if request.sub == "log":
            return self._log(request)
        return Response(self.storage.get(resource, request.namespace, request.name))

    def _matches(self, request: Request) -> Callable[[Object], bool]:
        labels = label_selector(request.query.get("labelSelector", ""))
        fields = field_selector(request.query.get("fieldSelector", ""))
        return lambda thing: labels(thing["metadata"].get("labels") or {}) and fields(thing)

    def _list(self, request: Request, resource: Resource) -> Response:
        matches, start = self._matches(request), 0
        with self.storage.lock:
            version = self.cluster.faults.stale_version(request) or self.storage.version
            if token := request.query.get("continue"):
                version, start = json.loads(base64.urlsafe_b64decode(token))
                if version <= self.storage.compacted:
                    message = "The provided continue parameter is too old to display a consistent list result. "
                    message += "You can start a new list without the continue parameter."
                    raise ApiError(410, "Expired", message)
            if version == self.storage.version:
                items = self.storage.list(resource, request.namespace)
            else:
                items = self.storage.list_as_of(resource, request.namespace, version)
        items = [thing for thing in items if matches(thing)]
        meta: Object = {"resourceVersion": str(version)}
        limit = int(request.query.get("limit") or 0)
        if limit and start + limit < len(items):
            meta["continue"] = base64.urlsafe_b64encode(json.dumps([version, start + limit]).encode()).decode()
            meta["remainingItemCount"] = len(items) - start - limit
        page = items[start : start + limit] if limit else items[start:]
        for thing in page:  # items of a list carry no kind
            thing.pop("kind", None)
            thing.pop("apiVersion", None)
        return Response(
            {"kind": f"{resource.kind}List", "apiVersion": resource.api_version, "metadata": meta, "items": page}
        )

    def _watch(self, request: Request, resource: Resource) -> Response:
        watch = Watch(self, resource, request, self._matches(request))
        self.watches.append(watch)
        return Response(stream=watch.events())

    def _create(self, request: Request, resource: Resource) -> Response:
        options, body = request.options, request.content
        if request.sub == "token":
            token = self.cluster.authority.token(request.namespace, request.name)
            status = {"token": token, "expirationTimestamp": self.cluster.clock.stamp(3600)}
            return Response({**body, "status": status}, 201)
        if request.sub == "eviction":
            return Response(self.registry.evict(request.namespace, request.name, body, options), 201)
        if not isinstance(body, dict):
            raise bad_request("the object provided is unrecognized")
        meta = body.setdefault("metadata", {})
        if resource.namespaced:
            if meta.get("namespace", request.namespace) != request.namespace:
                raise bad_request(
                    "the namespace of the provided object does not match the namespace sent on the request"
                )
            meta["namespace"] = request.namespace
        return Response(self.registry.create(resource, body, options), 201, warnings=options.warnings)

    def _update(self, request: Request, resource: Resource) -> Response:
        options, body = request.options, request.content
        meta = body.setdefault("metadata", {})
        if meta.get("name") != request.name:
            raise bad_request("the name of the object does not match the name on the URL")
        if resource.namespaced:
            meta["namespace"] = request.namespace
        return Response(self.registry.update(resource, body, options, request.sub), warnings=options.warnings)

    def _patch(self, request: Request, resource: Resource) -> Response:
        options, kind = request.options, request.headers.get("content-type", "").partition(";")[0]
        if kind.startswith("application/apply-patch") and not self.storage.find(
            resource, request.namespace, request.name
        ):
            self.cluster.authority.check(request.user, "create", resource, "", request.namespace, request.name)
        made, created = self.registry.patch(
            resource, request.namespace, request.name, request.content, kind, options, request.sub
        )
        return Response(made, 201 if created else 200, warnings=options.warnings)

    def _delete_options(self, request: Request) -> Object:
        body = dict(request.content or {})
        query = request.query
        for name in ("propagationPolicy", "gracePeriodSeconds"):
            if name in query:
                body[name] = int(query[name]) if name == "gracePeriodSeconds" else query[name]
        if query.get("orphanDependents"):
            body.setdefault("propagationPolicy", "Orphan" if query["orphanDependents"] == "true" else "Background")
        return body

    def _delete(self, request: Request, resource: Resource) -> Response:
        options = request.options
        body = self._delete_options(request)
        options.dry_run = options.dry_run or body.get("dryRun") == ["All"]
        done = self.registry.delete(resource, request.namespace, request.name, body, options)
        return Response(done, warnings=options.warnings)

    def _delete_collection(self, request: Request, resource: Resource) -> Response:
        options, body, matches = request.options, self._delete_options(request), self._matches(request)
        with self.storage.lock:
            gone = [thing for thing in self.storage.list(resource, request.namespace) if matches(thing)]
            for thing in gone:
                self.registry.delete(resource, request.namespace, thing["metadata"]["name"], body, options)
        meta = {"resourceVersion": str(self.storage.version)}
        listing = {"kind": f"{resource.kind}List", "apiVersion": resource.api_version, "metadata": meta, "items": gone}
        return Response(listing, warnings=options.warnings[:1])

    def _review(self, request: Request) -> Response:
        body = request.content
        asked = at(body, "spec", "resourceAttributes") or {}
        names = ("verb", "group", "resource", "subresource", "namespace", "name")
        allowed = self.cluster.authority.allows(request.user, *(asked.get(name, "") for name in names))
        return Response({**body, "metadata": {}, "status": {"allowed": allowed}}, 201)

    # Logs -------------------------------------------------------------------------------------------------------------

    def _log(self, request: Request) -> Response:
        pod = self.storage.get(PODS, request.namespace, request.name)
        container = pod["spec"]["containers"][0]["name"]
        wanted = request.query.get("container", container)
        if wanted not in [c["name"] for c in pod["spec"]["containers"]]:
            raise bad_request(f"container {wanted} is not valid for pod {request.name}")
        node = at(pod, "spec", "nodeName")
        if not node:
            raise bad_request(f'container "{container}" in pod "{request.name}" is waiting to start: ')
        if node in self.cluster.scheduler.lost:
            address = f"https://{node}:10250/containerLogs/{request.namespace}/{request.name}/{container}"
            raise ApiError(500, "InternalError", f'Get "{address}": dial tcp 10.0.0.9:10250: connect: no route to host')
        worker = self.cluster.kubelet.workers.get(pod["metadata"]["uid"])
        previous = request.query.get("previous") == "true"
        path = worker.log(previous) if worker else None
        if path is None:
            if previous:
                raise bad_request(f'previous terminated container "{container}" in pod "{request.name}" not found')
            statuses = at(pod, "status", "containerStatuses") or [{}]
            reason = at(statuses[0], "state", "waiting", "reason") or "ContainerCreating"
            raise bad_request(f'container "{container}" in pod "{request.name}" is waiting to start: {reason}')
        tail = request.query.get("tailLines")

        def stream() -> Iterator[bytes | None]:
            with path.open("rb") as log:
                content = log.read()
                if tail is not None:
                    content = b"".join(content.splitlines(keepends=True)[-int(tail) :]) if int(tail) else b""
                yield content
                while request.query.get("follow") == "true" and worker is not None:
                    alive = worker.alive  # asked before the read, so that the last words are not lost
                    if more := log.read():
                        yield more
                    elif not alive:
                        return
                    else:
                        yield None

        return Response(stream=stream(), content_type="text/plain")


class Watch:
    """One open watch."""

    def __init__(self, api: Api, resource: Resource, request: Request, matches: Callable[[Object], bool]) -> None:
        self.api, self.storage, self.resource, self.request, self.matches = api, api.storage, resource, request, matches
        self.namespace, self.query = request.namespace, request.query
        self.ending = ""
        """Set by faults: ``cut`` ends the stream in the middle, ``expired`` ends it with an ERROR event of 410."""

    def events(self) -> Iterator[bytes | None]:
        until = time.monotonic() + float(self.query.get("timeoutSeconds") or 1800)
        bookmarks = self.query.get("allowWatchBookmarks", "").lower() in ("true", "1")
        asked = self.query.get("resourceVersion", "")
        try:
            with self.storage.lock:
                seen = int(asked) if asked not in ("", "0") else self.storage.version
                start = self.storage.list(self.resource, self.namespace) if asked in ("", "0") else []
            if asked not in ("", "0") and seen < self.storage.compacted:
                yield self._expired(seen)
                return
            for thing in start:
                if self.matches(thing):
                    yield _line("ADDED", thing)
            while time.monotonic() < until:
                if self.ending == "cut":
                    raise Dropped
                if self.ending == "expired":
                    yield self._expired(seen)
                    return
                with self.storage.lock:
                    changes = [change for change in self.storage.since(seen) if change.resource is self.resource]
                    seen = self.storage.version
                for change in changes:
                    if (line := self._line_of(change)) is not None:
                        yield line
                if not changes:
                    yield None
            if bookmarks:
                meta = {"resourceVersion": str(seen), "creationTimestamp": None}
                kind = {"kind": self.resource.kind, "apiVersion": self.resource.api_version}
                yield _line("BOOKMARK", {**kind, "metadata": meta})
        finally:
            self.api.watches.remove(self)

    def _line_of(self, change: Change) -> bytes | None:
        """What a change is to this watch: an object that stops to match is DELETED for it."""
        if self.namespace and change.object["metadata"].get("namespace") != self.namespace:
            return None
        now = change.type != "DELETED" and self.matches(change.object)
        before = change.before is not None and self.matches(change.before)
        if not now and not before:
            return None
        return _line("MODIFIED" if now and before else "ADDED" if now else "DELETED", change.object)

    def _expired(self, version: int) -> bytes:
        message = f"too old resource version: {version} ({self.storage.compacted})"
        return _line("ERROR", ApiError(410, "Expired", message).status)


def _line(type_: str, thing: Object) -> bytes:
    return json.dumps({"type": type_, "object": thing}).encode() + b"\n"


def _group(group: str, version: str) -> Object:
    named = {"groupVersion": f"{group}/{version}", "version": version}
    return {"kind": "APIGroup", "apiVersion": "v1", "name": group, "versions": [named], "preferredVersion": named}


# The server ----------------------------------------------------------------------------------------------------------


class Server:
    """Listens on a port of its own; can be taken away and come back on the same one."""

    def __init__(self, api: Api) -> None:
        self.api, self.port = api, 0
        self._server: _Threads | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._server = _Threads(("127.0.0.1", self.port), self.api)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="api server", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Connections are cut, and new ones refused."""
        server, self._server = self._server, None
        if server is None or self._thread is None:
            return
        server.stopping.set()
        server.shutdown()
        server.cut()
        server.server_close()  # joins the threads of all requests
        self._thread.join()


class _Threads(ThreadingHTTPServer):
    daemon_threads = False
    block_on_close = True
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], api: Api) -> None:
        self.api, self.stopping, self.connections = api, threading.Event(), set[socket.socket]()
        super().__init__(address, _Handler)

    def cut(self) -> None:
        for connection in list(self.connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that went away


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Threads

    def setup(self) -> None:
        super().setup()
        self.server.connections.add(self.connection)

    def finish(self) -> None:
        self.server.connections.discard(self.connection)
        super().finish()

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _answer(self) -> None:
        url = urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        headers = {name.lower(): value for name, value in self.headers.items()}
        query = dict(parse_qsl(url.query, keep_blank_values=True))
        request = Request(self.command, url.path, query, headers, self.rfile.read(length) if length else b"")
        faults = self.server.api.cluster.faults
        try:
            try:
                faults.before(request)
                response = self.server.api.handle(request)
                faults.after(request)
            except ApiError as error:
                response = Response(error.status, error.code, retry_after=error.retry_after)
            except Dropped:
                raise
            except Exception as error:  # the fake's own fault: told when the cluster stops
                self.server.api.failures.append(error)
                response = Response(ApiError(500, "InternalError", f"the fake cluster stumbled: {error!r}").status, 500)
            request.status = response.code
            if response.stream is not None:
                self._stream(response)
            else:
                self._send(response)
        except (Dropped, OSError):
            self.close_connection = True
            self.connection.close()

    def __getattr__(self, name: str) -> Any:
        if name in ("do_GET", "do_POST", "do_PUT", "do_PATCH", "do_DELETE"):
            return self._answer
        raise AttributeError(name)

    def _head(self, response: Response) -> None:
        self.send_response(response.code)
        self.send_header("Content-Type", response.content_type)
        for warning in response.warnings:
            text = warning.replace("\\", "\\\\").replace('"', '\\"')
            self.send_header("Warning", f'299 - "{text}"')
        if response.retry_after:
            self.send_header("Retry-After", str(response.retry_after))

    def _send(self, response: Response) -> None:
        body = response.body if isinstance(response.body, bytes) else json.dumps(response.body).encode()
        self._head(response)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _stream(self, response: Response) -> None:
        assert response.stream is not None
        self._head(response)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        storage = self.server.api.storage
        version = 0
        try:
            for piece in response.stream:
                if self.server.stopping.is_set():
                    raise Dropped
                if piece is None:
                    if self._client_left():
                        raise Dropped
                    version = storage.wait(version, 0.05)
                elif piece:
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\n\r\n")
        finally:
            response.stream.close()  # type: ignore[attr-defined]

    def _client_left(self) -> bool:
        self.connection.setblocking(False)
        try:
            return self.connection.recv(1, socket.MSG_PEEK) == b""
        except BlockingIOError:
            return False
        finally:
            self.connection.setblocking(True)
