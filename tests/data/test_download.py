"""Fetching over a real connection to a server that misbehaves in the ways servers do."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from ticketsmith import data
from ticketsmith.data import fashion_mnist
from ticketsmith.data.download import Patience, RemoteFile, addresses, download
from ticketsmith.errors import DataError

CONTENT = np.random.RandomState(3).bytes(900_000)
QUICK = Patience(timeout=5, tries=3, pause=0.01)


class Server:
    """Serves ``files``; ``cut_after`` bytes of an answer it hangs up, ``cuts`` times; it may not know ranges."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.requests: list[tuple[str, str | None]] = []
        self.cut_after, self.cuts = 0, 0
        self.ranges, self.status = True, 200
        self.redirect = ""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/"
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        asked = handler.headers.get("Range")
        self.requests.append((handler.path, asked))
        if self.redirect:
            handler.send_response(302)
            handler.send_header("Location", self.redirect)
            handler.end_headers()
            return
        content = self.files.get(handler.path)
        if content is None or self.status != 200:
            handler.send_error(404 if content is None else self.status)
            return
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.ranges else 0
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        handler.send_header("Content-Length", str(len(content) - start))
        handler.end_headers()
        body = content[start:]
        if self.cuts:
            self.cuts -= 1
            body = body[: self.cut_after]
        with contextlib.suppress(ConnectionError):  # the client may hang up first
            handler.wfile.write(body)

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.delenv("TICKETSMITH_MIRROR", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    running = Server()
    yield running
    running.close()


def remote(*mirrors: str, name: str = "set.bin", content: bytes = CONTENT) -> RemoteFile:
    return RemoteFile(name, hashlib.md5(content).hexdigest(), len(content), mirrors)


def test_a_file_is_fetched_once_with_progress(server: Server, tmp_path: Path) -> None:
    server.files["/set.bin"] = CONTENT
    seen: list[tuple[str, int, int]] = []
    for _ in range(2):
        path = download(remote(server.url), tmp_path / "new", "set", lambda *step: seen.append(step), QUICK)
    assert path.read_bytes() == CONTENT
    assert len(server.requests) == 1
    assert seen[-1] == ("set.bin", len(CONTENT), len(CONTENT))
    assert not list(tmp_path.rglob("*.part"))


def test_cut_connections_are_resumed_where_they_broke(server: Server, tmp_path: Path) -> None:
    server.files["/set.bin"] = CONTENT
    server.cuts, server.cut_after = 2, 300_000
    assert download(remote(server.url), tmp_path, "set", None, QUICK).read_bytes() == CONTENT
    assert [asked for _, asked in server.requests] == [None, "bytes=300000-", "bytes=600000-"]


def test_an_interrupted_fetch_goes_on_in_the_next_process(server: Server, tmp_path: Path) -> None:
    server.files["/set.bin"] = CONTENT
    (tmp_path / "set.bin.part").write_bytes(CONTENT[:1234])
    assert download(remote(server.url), tmp_path, "set", None, QUICK).read_bytes() == CONTENT
    assert server.requests == [("/set.bin", "bytes=1234-")]


def test_a_server_without_ranges_sends_the_whole_again(server: Server, tmp_path: Path) -> None:
    server.files["/set.bin"] = CONTENT
    server.ranges = False
    (tmp_path / "set.bin.part").write_bytes(b"x" * 1234)
    assert download(remote(server.url), tmp_path, "set", None, QUICK).read_bytes() == CONTENT


def test_a_part_of_another_file_is_thrown_away_and_begun_anew(server: Server, tmp_path: Path) -> None:
    server.files["/set.bin"] = CONTENT
    (tmp_path / "set.bin.part").write_bytes(b"x" * 1234)
    assert download(remote(server.url), tmp_path, "set", None, QUICK).read_bytes() == CONTENT
    assert [asked for _, asked in server.requests] == ["bytes=1234-", None]


def test_the_second_mirror_serves_when_the_first_has_nothing(server: Server, tmp_path: Path) -> None:
    server.files["/good/set.bin"] = CONTENT
    path = download(remote(server.url + "bad/", server.url + "good/"), tmp_path, "set", None, QUICK)
    assert path.read_bytes() == CONTENT
    assert [path for path, _ in server.requests] == ["/bad/set.bin", "/good/set.bin"]  # 404 is not asked again


def test_wrong_content_is_never_kept(server: Server, tmp_path: Path) -> None:
    server.files["/set.bin"] = CONTENT[::-1]
    with pytest.raises(DataError, match=r"another md5.*3 tries"):
        download(remote(server.url), tmp_path, "set", None, QUICK)
    assert not (tmp_path / "set.bin").exists()
    assert not (tmp_path / "set.bin.part").exists()


def test_a_file_that_is_too_large_is_not_read_to_its_end(server: Server, tmp_path: Path) -> None:
    server.files["/set.bin"] = CONTENT + bytes(50_000_000)
    with pytest.raises(DataError, match="larger than the published 900,000 bytes"):
        download(remote(server.url), tmp_path, "set", None, QUICK)
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) == 0


def test_a_server_in_trouble_is_asked_a_bounded_number_of_times(server: Server, tmp_path: Path) -> None:
    server.files["/set.bin"] = CONTENT
    server.status = 503
    with pytest.raises(DataError, match=r"503.*3 tries"):
        download(remote(server.url), tmp_path, "set", None, QUICK)
    assert len(server.requests) == 3


def test_a_damaged_file_in_place_is_replaced(server: Server, tmp_path: Path) -> None:
    server.files["/set.bin"] = CONTENT
    (tmp_path / "set.bin").write_bytes(b"damaged")
    assert download(remote(server.url), tmp_path, "set", None, QUICK).read_bytes() == CONTENT


def test_two_that_ask_at_once_share_one_transfer(server: Server, tmp_path: Path) -> None:
    server.files["/set.bin"] = CONTENT
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda _: download(remote(server.url), tmp_path, "set", None, QUICK), range(4)))
    assert {path.read_bytes() for path in paths} == {CONTENT}
    assert len(server.requests) == 1


@pytest.mark.parametrize("scheme", ["file", "ftp"])
def test_only_the_web_is_fetched_from(server: Server, scheme: str, tmp_path: Path) -> None:
    (tmp_path / "set.bin").write_bytes(CONTENT)
    with pytest.raises(DataError, match="only http and https"):
        addresses(remote(f"{scheme}://{tmp_path}/"), "set")
    server.redirect = f"{scheme}://{tmp_path}/set.bin"
    with pytest.raises(DataError):
        download(remote(server.url), tmp_path / "new", "set", None, QUICK)


def test_without_a_network_the_way_by_hand_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKETSMITH_MIRROR", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr("ticketsmith.data.places.SYSTEM", tmp_path)
    monkeypatch.setattr("ticketsmith.data.download.Patience", lambda: QUICK)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as caught:
        data.fetch("fashion_mnist")
    message = str(caught.value)
    for part in ("no connection", "train-images-idx3-ubyte.gz", str(tmp_path), "TICKETSMITH_DATA", "apt-get install"):
        assert part in message


def test_fashion_mnist_comes_from_a_company_mirror(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole way: fetch from one's own mirror into the cache, and find it there."""
    files = []
    for file in fashion_mnist.REMOTE:
        content = file.name.encode() * 50
        server.files[f"/fashion_mnist/{file.name}"] = content
        files.append(remote(name=file.name, content=content))
    monkeypatch.setattr(fashion_mnist, "REMOTE", tuple(files))
    monkeypatch.setenv("TICKETSMITH_MIRROR", server.url)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("ticketsmith.data.places.SYSTEM", tmp_path / "none")
    monkeypatch.chdir(tmp_path)
    folder = data.fetch("fashion_mnist")
    assert folder == tmp_path / "ticketsmith" / "data" / "fashion_mnist"
    assert {file.name for file in folder.glob("*.gz")} == {file.name for file in files}
    holding = fashion_mnist.find()
    assert holding is not None
    assert holding.place == folder
