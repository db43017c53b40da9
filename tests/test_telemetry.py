"""Nothing phones home: what libraries would tell about their use, and that they do not."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sockets import Watch, watch
from ticketsmith import telemetry

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def watched(tmp_path: Path) -> Watch:
    return watch(tmp_path)


def python(code: str, watched: Watch, home: Path, **environment: str) -> str:
    inherited = {name: value for name, value in os.environ.items() if name not in telemetry.SWITCHES}
    whole = {**inherited, "PYTHONPATH": str(ROOT), "HOME": str(home), **watched.environment, **environment}
    done = subprocess.run([sys.executable, "-c", code], env=whole, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout


def test_the_watch_sees_python_and_native_code_and_lets_nothing_out(watched: Watch, tmp_path: Path) -> None:
    code = """
import ctypes, socket
for kind, address in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"), (socket.AF_INET, "127.0.0.1")):
    try:
        socket.socket(kind, socket.SOCK_DGRAM).connect((address, 9))
    except OSError as error:
        print(error.errno)
assert ctypes.CDLL(None).getaddrinfo(b"example.org", None, None, None)
socket.getaddrinfo("localhost", 80)
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as there, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as here:
    there.bind(("127.0.0.1", 0))
    here.sendmsg([b"here"], [], 0, there.getsockname())
    for send in (lambda to: here.sendto(b"x", to), lambda to: here.sendmsg([b"x"], [], 0, to)):
        try:
            send(("192.0.2.2", 9))
        except OSError as error:
            print(error.errno)
    address = ctypes.create_string_buffer(socket.AF_INET.to_bytes(2, "little") + bytes([0, 9, 192, 0, 2, 3]), 16)
    header = (ctypes.c_uint64 * 8)(ctypes.addressof(address), 16)  # struct mmsghdr: its address first
    print(ctypes.CDLL(None).sendmmsg(here.fileno(), header, 1, 0))
"""
    assert python(code, watched, tmp_path).split() == ["101", "101", "101", "101", "-1"]
    assert watched.calls() == [
        "connect 192.0.2.1",
        "connect 2001:db8::1",
        "getaddrinfo example.org",
        "sendto 192.0.2.2",
        "sendmsg 192.0.2.2",
        "sendmmsg 192.0.2.3",
    ]


@pytest.mark.parametrize(("ci", "ends"), [("", "skipped"), ("1", "failed")])
def test_a_watch_that_would_see_nothing_is_none(ci: str, ends: str, tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("from tests.sockets import watch\ndef test(tmp_path):\n    watch(tmp_path)\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rsf", "-p", "no:cacheprovider", str(tmp_path / "test_it.py")],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PATH": "",
            "CI": ci,
            "PYTEST_ADDOPTS": "",
        },  # of this test's own run
        capture_output=True,
        text=True,
    )
    assert f"1 {ends}" in done.stdout, done.stdout
    assert "needs Linux and a C compiler" in done.stdout


def test_openvino_reports_its_import_unless_ticketsmith_is_there_first(watched: Watch, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    python("import ticketsmith, openvino; openvino.Core()", watched, tmp_path)
    assert watched.calls() == []
    assert not (tmp_path / "intel").exists()
    if not (Path(str(importlib.util.find_spec("openvino").origin)).parents[1] / "openvino_telemetry").is_dir():  # type: ignore[union-attr]
        return  # as in the image: there is nothing that could report
    python("import openvino", watched, tmp_path)
    assert any("google-analytics" in call for call in watched.calls()), (
        "the watch is blind, or openvino has mended its ways"
    )


def test_a_choice_of_the_user_stays(watched: Watch, tmp_path: Path) -> None:
    code = "import json, os, ticketsmith; print(json.dumps(dict(os.environ)))"
    chosen = json.loads(python(code, watched, tmp_path, ORT_DISABLE_TELEMETRY="0", DO_NOT_TRACK="0"))
    assert {name: chosen[name] for name in telemetry.SWITCHES} == {
        **telemetry.SWITCHES,
        "ORT_DISABLE_TELEMETRY": "0",
        "DO_NOT_TRACK": "0",
    }
