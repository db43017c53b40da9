"""Model cards, and a repository on the Hugging Face Hub: a server on this machine that speaks what the library asks."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import ticketsmith
from tests.cli.test_commands import call
from ticketsmith.errors import Exit

hub = pytest.importorskip("huggingface_hub")
TOKEN = "hf_thisIsASecretOfTheTests"


@pytest.fixture
def written(experiment: ticketsmith.Experiment, tmp_path: Path) -> Path:
    experiment.export(
        tmp_path / "out", ["safetensors", "ticket", "card"], sparsity=0.7, licence="apache-2.0", force=True
    )
    return tmp_path / "out"


def test_a_model_card_tells_the_evidence_and_has_metadata_that_the_hub_reads(
    written: Path, experiment: ticketsmith.Experiment
) -> None:
    card = hub.ModelCard.load(written / "README.md")
    document = json.loads((written / "export.json").read_text())
    assert card.data.license == "apache-2.0"
    assert (card.data.library_name, card.data.pipeline_tag) == ("ticketsmith", "image-classification")
    results = {result.metric_type: result for result in card.data.eval_results}
    accuracy = results["accuracy"]
    assert isinstance(accuracy, hub.EvalResult)
    assert accuracy.metric_value == document["test"]["accuracy"]["this_run"]
    assert (accuracy.dataset_name, accuracy.dataset_split) == ("digits", "test")

    verdict = next(v for v in experiment.findings.test if (v.variant, v.level) == ("ticket", document["level"]))
    assert verdict.status.value in card.text
    assert f"{verdict.estimate:.2f}".lstrip("-") in card.text.replace("−", "")
    assert "95 % confidence" in card.text
    assert "Random re-initialisation" in card.text or "random re-initialisation" in card.text
    assert "no speed is claimed" in card.text
    assert "CC BY 4.0" in card.text
    for entry in document["files"][:2]:
        for line in entry["load"]:
            assert line in card.text
        for digest in entry["sha256"].values():
            assert digest in card.text
    assert document["key"] in card.text
    assert experiment.store.url not in card.text, "where it was is nobody's business"


class Hub:
    """The few endpoints that an upload uses. ``trouble`` is the status that it answers everything with, 0 for none."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.commits: list[str] = []
        self.authorization: set[str] = set()
        self.trouble = 0
        self._objects: dict[str, bytes] = {}
        hub_ = self

        class Handler(BaseHTTPRequestHandler):
            def _handle(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if not self.path.startswith("/objects"):
                    hub_.authorization.add(self.headers.get("Authorization", ""))
                status, answer = hub_.answer(self.command, self.path, body, self.headers["Host"])
                content = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PUT = _handle  # noqa: N815

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, verb: str, path: str, body: bytes, host: str) -> tuple[int, Any]:
        if self.trouble:
            return self.trouble, {"error": f"no, whatever you say: {TOKEN}"}
        if (verb, path) == ("POST", "/api/repos/create"):
            return 200, {"url": f"{self.url}/{self._name(body)}"}
        if path == "/api/validate-yaml":  # the Hub itself looks at a card's metadata
            return 200, {"errors": [], "warnings": []}
        if path.endswith("/preupload/main"):
            asked = json.loads(body)["files"]
            return 200, {
                "files": [
                    {
                        "path": one["path"],
                        "uploadMode": "lfs" if one["path"].endswith(".safetensors") else "regular",
                        "shouldIgnore": False,
                        "oid": self._oid(one["path"]),
                    }
                    for one in asked
                ]
            }
        if path.endswith(".git/info/lfs/objects/batch"):
            objects = []
            for one in json.loads(body)["objects"]:
                action = {"upload": {"href": f"http://{host}/objects/{one['oid']}"}}
                objects.append(one if one["oid"] in self._objects else {**one, "actions": action})
            return 200, {"transfer": "basic", "objects": objects}
        if match := re.fullmatch(r"/objects/(\w+)", path):
            assert hashlib.sha256(body).hexdigest() == match[1]
            self._objects[match[1]] = body
            return 200, {}
        if path.endswith("/commit/main"):
            return 200, self._commit([json.loads(line) for line in body.splitlines()])
        if re.fullmatch(r"/api/models/me/digits(/revision/main)?(\?.*)?", path):
            return 200, {"id": "me/digits", "sha": self.commits[-1] if self.commits else None, "siblings": []}
        raise AssertionError(f"{verb} {path}")

    def _name(self, body: bytes) -> str:
        asked = json.loads(body)
        return f"{asked.get('organization') or 'me'}/{asked['name']}"

    def _oid(self, path: str) -> str | None:
        content = self.files.get(path)
        if content is None:
            return None
        if path.endswith(".safetensors"):
            return hashlib.sha256(content).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

    def _commit(self, lines: list[dict[str, Any]]) -> dict[str, str]:
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                self.files[value["path"]] = base64.b64decode(value["content"])
            if line["key"] == "lfsFile":
                self.files[value["path"]] = self._objects[value["oid"]]
        self.commits.append(f"{len(self.commits) + 1:040x}")
        return {"commitUrl": f"{self.url}/me/digits/commit/{self.commits[-1]}", "commitOid": self.commits[-1]}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    one = Hub()
    for module in (hub.constants, hub.hf_api.constants):  # read when the library is imported
        monkeypatch.setattr(module, "ENDPOINT", one.url)
    monkeypatch.setattr(
        hub.constants, "HF_HUB_DISABLE_XET", True
    )  # large files go by the protocol of git, which is public
    monkeypatch.setenv("HF_ENDPOINT", one.url)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    yield one
    one.server.shutdown()
    one.server.server_close()


def test_an_export_is_pushed_once_with_its_card(
    written: Path, server: Hub, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    push = ("push-to-hub", str(written), "--repo", "me/digits")
    status, out, err = call(*push, capsys=capsys)
    assert status == Exit.OK, err
    assert out.strip() == f"{server.url}/me/digits"
    assert server.files == {path.name: path.read_bytes() for path in written.iterdir()}
    assert server.authorization == {f"Bearer {TOKEN}"}
    again, second, err = call(*push, "--json", capsys=capsys)
    assert again == Exit.OK, err
    assert json.loads(second)["new"] is False
    assert len(server.commits) == 1, "what is there is not sent again"
    assert TOKEN not in out + second + err + caplog.text


def test_a_hub_without_a_token_one_that_refuses_and_one_that_is_down(
    written: Path,
    server: Hub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    push = ("push-to-hub", str(written), "--repo", "me/digits")

    def ends(status: Exit, message: str) -> None:
        ended, out, err = call(*push, capsys=capsys)
        assert (ended, out) == (status, ""), err
        assert message in err
        assert TOKEN not in err
        assert len(err.splitlines()) == 1

    for trouble, status, message in (
        (403, Exit.BAD_INPUT, "refuses 'me/digits' with this token"),
        (409, Exit.INCOMPLETE, "The same command goes on"),
    ):
        server.trouble = trouble
        ends(status, message)
    server.trouble = 0
    server.server.shutdown()
    server.server.server_close()
    ends(Exit.INCOMPLETE, "The same command goes on")
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(hub.constants, "HF_TOKEN_PATH", str(tmp_path / "absent"))
    ends(Exit.BAD_INPUT, "Set HF_TOKEN, or sign in by `hf auth login`")
    (written / "model.ticket").write_bytes(b"another")
    ends(Exit.BAD_INPUT, "was changed after it was checked")
    (written / "export.json").unlink()
    ends(Exit.BAD_INPUT, "ticketsmith export")
    assert server.commits == []
