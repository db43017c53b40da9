"""The API server's HTTP side: routes, lists in pages, logs; and the audit log of all requests."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

import yaml

from tests.cluster.rbac import ADMIN
from tests.cluster.resources import KINDS, PODS, ApiError, Object, Resource, at, bad_request, label, nested, selector

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
    user: str = ADMIN
    verb: str = ""
    status: int = 0

    @property
    def content(self) -> Any:
        """The body, decoded. Raises ApiError 400."""
        try:
            return yaml.load(self.body, getattr(yaml, "CSafeLoader", yaml.SafeLoader)) or {}
        except yaml.YAMLError as error:
            raise bad_request(f"error decoding the body: {error}") from error


@dataclass
class Response:
    """``stream`` gives the body in pieces, and None where nothing is to be sent yet."""

    body: Any = b""
    code: int = 200
    content_type: str = "application/json"
    retry_after: int = 0
    stream: Iterator[bytes | None] | None = None


@dataclass(frozen=True)
class Route:
    """What a path names: ``/apis/batch/v1/namespaces/<namespace>/jobs/<name>``, with a subresource ``sub`` at times."""

    resource: Resource
    namespace: str
    name: str
    sub: str


def route(path: str) -> Route:
    """Raises ApiError 404 for what is not served."""
    parts = [unquote(part) for part in path.strip("/").split("/")]
    group, rest = ("", parts[2:]) if parts[0] == "api" else (parts[1] if len(parts) > 1 else "", parts[3:])
    namespace = ""
    if len(rest) >= 3 and rest[0] == "namespaces":
        namespace, rest = rest[1], rest[2:]
    name, sub, *more = [*rest[1:], "", ""]
    resource = next((r for r in KINDS if rest and (r.group, r.plural) == (group, rest[0])), None)
    if resource is None or sub not in ("", "log") or any(more):
        raise ApiError(404, "NotFound", "the server could not find the requested resource")
    return Route(resource, namespace, name, sub)


class Api:
    """Requests in, responses out."""

    def __init__(self, cluster: FakeCluster) -> None:
        self.cluster, self.storage, self.registry = cluster, cluster.storage, cluster.registry
        self.audit: list[Request] = []
        self.failures: list[BaseException] = []

    def handle(self, request: Request) -> Response:
        """Raises ApiError, and Dropped for connections that a fault cuts."""
        self.audit.append(request)
        request.user = self.cluster.authority.user(request.headers.get("authorization"))
        to = route(request.path)
        verbs = {"POST": "create", "PATCH": "patch", "DELETE": "delete", "GET": "get" if to.name else "list"}
        request.verb = verbs.get(request.method, "")
        if not request.verb:
            raise ApiError(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
        self.cluster.authority.check(request.user, request.verb, to.resource, to.sub, to.namespace)
        return getattr(self, f"_{request.verb}")(request, to)  # type: ignore[no-any-return]

    def _get(self, request: Request, to: Route) -> Response:
        if to.sub == "log":
            return self._log(request, self.storage.get(PODS, to.namespace, to.name))
        return Response(self.storage.get(to.resource, to.namespace, to.name))

    def _list(self, request: Request, to: Route) -> Response:
        labels = selector(request.query.get("labelSelector", ""), label)
        fields = selector(request.query.get("fieldSelector", ""), nested)
        with self.storage.lock:
            meta: Object = {"resourceVersion": str(self.storage.version)}
            items = [thing for thing in self.storage.list(to.resource, to.namespace) if labels(thing) and fields(thing)]
        start, limit = int(request.query.get("continue") or 0), int(request.query.get("limit") or 0)
        if limit and start + limit < len(items):
            meta["continue"] = str(start + limit)
        page = items[start : start + limit] if limit else items[start:]
        for thing in page:  # items of a list carry no kind
            thing.pop("kind", None)
            thing.pop("apiVersion", None)
        kind = {"kind": f"{to.resource.kind}List", "apiVersion": to.resource.api_version}
        return Response({**kind, "metadata": meta, "items": page})

    def _create(self, request: Request, to: Route) -> Response:
        body = request.content
        body["metadata"]["namespace"] = to.namespace
        return Response(self.registry.create(to.resource, body, request.query.get("dryRun") == "All"), 201)

    def _patch(self, request: Request, to: Route) -> Response:
        kind = request.headers.get("content-type", "").partition(";")[0]
        if kind.startswith("application/apply-patch"):
            self.cluster.authority.check(request.user, "create", to.resource, "", to.namespace)
            if not request.query.get("fieldManager"):
                raise ApiError(422, "Invalid", "fieldManager: Required value: is required for apply patch")
        thing, is_new = self.registry.patch(
            to.resource, to.namespace, to.name, request.content, kind, request.query.get("dryRun") == "All"
        )
        return Response(thing, 201 if is_new else 200)

    def _delete(self, request: Request, to: Route) -> Response:
        body = {**request.content, **request.query}
        return Response(self.registry.delete(to.resource, to.namespace, to.name, body))

    def _log(self, request: Request, pod: Object) -> Response:
        meta, container, node = pod["metadata"], pod["spec"]["containers"][0]["name"], at(pod, "spec", "nodeName")
        if node in self.cluster.scheduler.lost:
            address = f"https://{node}:10250/containerLogs/{meta['namespace']}/{meta['name']}/{container}"
            raise ApiError(500, "InternalError", f'Get "{address}": dial tcp 10.0.0.9:10250: connect: no route to host')
        worker = self.cluster.kubelet.workers.get(meta["uid"])
        if worker is None or not worker.log.exists():
            statuses = at(pod, "status", "containerStatuses") or [{}]
            reason = at(statuses[0], "state", "waiting", "reason") or ""
            raise bad_request(f'container "{container}" in pod "{meta["name"]}" is waiting to start: {reason}')

        def stream() -> Iterator[bytes | None]:
            with worker.log.open("rb") as log:
                yield log.read()
                while request.query.get("follow", "").lower() == "true":
                    alive = worker.alive  # asked before the read, so that the last words are not lost
                    if more := log.read():
                        yield more
                    elif not alive:
                        return
                    else:
                        yield None

        return Response(stream=stream(), content_type="text/plain")


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
        for connection in list(server.connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
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
            except Exception as error:  # the fake's own fault: raised when the cluster stops
                self.server.api.failures.append(error)
                response = Response(ApiError(500, "InternalError", f"the fake cluster stumbled: {error!r}").status, 500)
            request.status = response.code
            if response.stream is not None:
                self._stream(response, response.stream)
            else:
                self._send(response)
        except (Dropped, OSError):
            self.close_connection = True
            self.connection.close()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):
            return self._answer
        raise AttributeError(name)

    def _head(self, response: Response) -> None:
        self.send_response(response.code)
        self.send_header("Content-Type", response.content_type)
        if response.retry_after:
            self.send_header("Retry-After", str(response.retry_after))

    def _send(self, response: Response) -> None:
        body = json.dumps(response.body).encode()
        self._head(response)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _stream(self, response: Response, pieces: Iterator[bytes | None]) -> None:
        self._head(response)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        storage, version = self.server.api.storage, 0
        for piece in pieces:
            if self.server.stopping.is_set():
                raise Dropped
            if piece is None:
                if self._client_left():
                    raise Dropped
                version = storage.wait(version, 0.05)
            elif piece:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        self.wfile.write(b"0\r\n\r\n")

    def _client_left(self) -> bool:
        self.connection.setblocking(False)
        try:
            return self.connection.recv(1, socket.MSG_PEEK) == b""
        except BlockingIOError:
            return False
        finally:
            self.connection.setblocking(True)
