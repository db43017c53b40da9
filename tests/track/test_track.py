"""Sealed experiments in real trackers: once, twice, interrupted, and where something is wrong."""

from __future__ import annotations

import importlib.util
import json
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.cli.test_commands import call
from ticketsmith.api import open_experiment
from ticketsmith.config.track import Track
from ticketsmith.errors import Exit, RecipeError
from ticketsmith.track import sink as sinks
from ticketsmith.track.records import records_of
from ticketsmith.track.send import send
from ticketsmith.track.sink import SINKS, TrackError
from ticketsmith.web import redacted

pytestmark = pytest.mark.filterwarnings("ignore")  # those of other people's libraries
SEALED = 8  # two of them under two names: what one-shot pruning makes at level 1 is the ticket


ACCURACY = "curve/validation_accuracy"


def _once(points: Iterable[tuple[int, float]]) -> dict[int, float]:
    """A curve by iteration, each of which it has once."""
    rows = list(points)
    assert len(dict(rows)) == len(rows)
    return dict(rows)


class Reader(Protocol):
    """What a user finds in a tracker, read by its own library."""

    settings: Track

    def names(self) -> list[str]: ...

    def curve(self, name: str) -> dict[int, float]:
        """The validation accuracy of a run by iteration."""
        ...

    def facts(self, name: str) -> dict[str, str]:
        """Its tags and parameters."""
        ...


class TensorBoard:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = Track(to="tensorboard", uri=str(folder))

    def names(self) -> list[str]:
        return [str(path.parent.relative_to(self.folder)) for path in sorted(self.folder.rglob("ticketsmith.json"))]

    def _events(self, name: str) -> Any:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        variant, key8 = name.split()[0], name[-8:]
        [folder] = (self.folder / "digits" / variant).rglob(f"level-*-{key8}")
        return EventAccumulator(str(folder)).Reload()

    def curve(self, name: str) -> dict[int, float]:
        return _once((event.step, event.value) for event in self._events(name).Scalars(ACCURACY))

    def facts(self, name: str) -> dict[str, str]:
        from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

        content = self._events(name).summary_metadata["_hparams_/session_start_info"].plugin_data.content
        values = HParamsPluginData.FromString(content).session_start_info.hparams
        return {key: value.string_value for key, value in values.items()}


class Trackio:
    settings = Track(to="trackio", project="tests")

    def _runs(self) -> list[Any]:
        import trackio

        return list(trackio.Api().runs("tests"))

    def names(self) -> list[str]:
        return [run.name for run in self._runs()]

    def curve(self, name: str) -> dict[int, float]:
        from trackio.sqlite_storage import SQLiteStorage

        logs = SQLiteStorage.get_logs("tests", f"digits {name}")
        return _once((row["step"], row[ACCURACY]) for row in logs if ACCURACY in row)

    def facts(self, name: str) -> dict[str, str]:
        [run] = [run for run in self._runs() if run.name == f"digits {name}"]
        return dict(run.config)


class Offline:
    """Weights & Biases without a server."""

    settings = Track(to="wandb", project="tests")

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "wandb"

    def _read(self, path: Path) -> dict[str, Any]:
        from wandb.proto.wandb_internal_pb2 import Record

        told: dict[str, Any] = {"name": "", "config": {}, "history": []}
        for content in _log_records(next(path.glob("*.wandb")).read_bytes()[7:]):
            record = Record.FromString(content)
            told["name"] = record.run.display_name or told["name"]
            for update in (*record.run.config.update, *record.config.update):
                told["config"][update.key or ".".join(update.nested_key)] = json.loads(update.value_json)
            if record.history.item:
                items = {item.key or ".".join(item.nested_key): item.value_json for item in record.history.item}
                told["history"].append({key: json.loads(value) for key, value in items.items()})
        return told

    def _all(self) -> list[dict[str, Any]]:
        return [self._read(path) for path in sorted(self.folder.glob("offline-run-*"))]

    def names(self) -> list[str]:
        return [told["name"] for told in self._all()]

    def curve(self, name: str) -> dict[int, float]:
        [told] = [told for told in self._all() if told["name"] == name]
        return _once((row["_step"], row[ACCURACY]) for row in told["history"])

    def facts(self, name: str) -> dict[str, str]:
        [told] = [told for told in self._all() if told["name"] == name]
        return dict(told["config"])


def _log_records(content: bytes) -> Iterator[bytes]:
    """The records of a log as LevelDB writes it: blocks of 32 KiB, each part with checksum, length and kind before it."""
    at, whole = 7, b""  # the header of the file is part of its first block
    content = bytes(7) + content
    while at + 7 <= len(content):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        length, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        whole += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # the only part, or the last one
            yield whole
            whole = b""


class Mlflow:
    def __init__(self, address: str, project: str) -> None:
        from mlflow import MlflowClient

        self.client = MlflowClient(address)
        self.settings = Track(to="mlflow", uri=address, project=project)

    def runs(self) -> dict[str, Any]:
        experiment = self.client.get_experiment_by_name(self.settings.project)
        return {run.info.run_name: run for run in self.client.search_runs([experiment.experiment_id])}

    def names(self) -> list[str]:
        experiment = self.client.get_experiment_by_name(self.settings.project)
        return [run.info.run_name for run in self.client.search_runs([experiment.experiment_id])]

    def curve(self, name: str) -> dict[int, float]:
        id_ = self.runs()[name].info.run_id
        return _once((one.step, one.value) for one in self.client.get_metric_history(id_, ACCURACY))

    def facts(self, name: str) -> dict[str, str]:
        data = self.runs()[name].data
        return {**data.params, **{key.removeprefix("ticketsmith."): value for key, value in data.tags.items()}}


@pytest.fixture(scope="session")
def trackio_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where Trackio keeps its projects: it asks for that once, when it is imported."""
    return tmp_path_factory.mktemp("trackio")


@pytest.fixture(params=["tensorboard", "trackio", "wandb", "mlflow"])
def tracker(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reader:
    """One after the other, where their libraries are installed."""
    library = SINKS[request.param][0]
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed: `make test-trackers` installs and tests all of them")
    if request.param == "mlflow":
        address = request.getfixturevalue("mlflow_address")
        return Mlflow(address, request.node.name.replace("[", "-").replace("]", ""))
    if request.param == "tensorboard":
        return TensorBoard(tmp_path / "tensorboard")
    if request.param == "wandb":
        monkeypatch.setenv("WANDB_MODE", "offline")
        monkeypatch.setenv("WANDB_DIR", str(tmp_path))
        return Offline(tmp_path)
    monkeypatch.setenv("TRACKIO_DIR", str(request.getfixturevalue("trackio_folder")))
    import trackio

    trackio.delete_project("tests", force=True)
    return Trackio()


def tell(runs: Path, tracker: Reader) -> tuple[int, int, int]:
    tally = send(open_experiment("digits", runs), tracker.settings)
    return tally.new, tally.renewed, tally.there


def test_an_old_experiment_is_sent_once_and_is_all_there(runs: Path, tracker: Reader) -> None:
    assert tell(runs, tracker) == (SEALED + 1, 0, 0)
    experiment = open_experiment("digits", runs)
    result = next(one for one in experiment.results if (one.variant, one.level, one.seed) == ("ticket", 2, 1))
    name = f"ticket level 2 seed 1 {result.key[:8]}"
    points = {point.step: point.validation["accuracy"] for point in result.curve}
    assert tracker.curve(name) == pytest.approx(points)
    facts = tracker.facts(name)
    assert (facts["variant"], facts["level"], facts["seed"]) == ("ticket", "2", "1")
    assert facts["key"] == result.key
    assert facts["gate"] in ("PASS", "FAIL", "INCONCLUSIVE")
    assert float(facts["sparsity"]) == pytest.approx(result.sparsity, abs=1e-6)
    spec = experiment.sealed(result).read_json("spec.json")
    assert facts["mask.run"] == spec["mask"]["run"]
    assert float(facts["training.lr"]) == spec["training"]["lr"]

    names = tracker.names()
    assert len(names) == SEALED + 1
    (runs.parent / "moved").mkdir()
    moved = runs.rename(runs.parent / "moved/runs")
    assert tell(moved, tracker) == (0, 0, SEALED + 1), "the key counts, and not where the store lies"
    assert tracker.names() == names
    assert tracker.curve(name) == pytest.approx(points), "twice is no more than once"


def test_what_was_interrupted_goes_on_and_what_changed_is_told_anew(
    runs: Path, tracker: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = open_experiment("digits", runs)
    records = list(records_of(experiment))
    sink = sinks.open_sink(tracker.settings, "digits")
    cut = type(sink)

    class Lost(Exception):
        pass

    def broken(*_: object, **__: object) -> None:
        raise Lost("the connection is gone: http://me:hunter22@tracker")

    for record in records[:3]:
        sink.send(record, sink.before(record))
    with monkeypatch.context() as patch:  # in the middle of the fourth
        middle = {"mlflow": "_attach", "wandb": "_attach"}.get(tracker.settings.to)
        patch.setattr(cut, middle or "send", broken)
        with pytest.raises(TrackError) as told:
            tell(runs, tracker)
    assert "hunter22" not in str(told.value)
    assert told.value.exit_status == Exit.INCOMPLETE
    assert tell(runs, tracker) == (SEALED + 1 - 3, 0, 3)
    fourth = records[3]
    curve = {point.step: point.values[ACCURACY] for point in fourth.curve}
    assert tracker.curve(fourth.name) == pytest.approx(curve)

    recipe = runs / "digits/recipe.yaml"
    recipe.write_text(recipe.read_text().replace("max_drop: 50.0", "max_drop: 0.0001"))
    new, renewed, there = tell(runs, tracker)
    assert (new, renewed + there) == (0, SEALED + 1)
    assert renewed > 1, "another gate gives other verdicts: they are told, and nothing twice"
    assert len(tracker.names()) == len(set(tracker.names())) == SEALED + 1
    assert tracker.facts(records[-1].name)["gate"] != records[-1].tags["gate"]
    assert tracker.curve(fourth.name) == pytest.approx(curve)


def test_mlflow_shows_a_parent_with_its_report_and_the_model(runs: Path, mlflow_address: str) -> None:
    tracker = Mlflow(mlflow_address, "whole")
    assert tell(runs, tracker) == (SEALED + 1, 0, 0)
    own = tracker.runs()
    parent = own.pop("digits").info.run_id
    assert {run.data.tags["mlflow.parentRunId"] for run in own.values()} == {parent}
    assert {file.path for file in tracker.client.list_artifacts(parent)} >= {"index.html", "recipe.yaml"}
    with_model = {name for name, run in own.items() if tracker.client.list_artifacts(run.info.run_id)}
    experiment = open_experiment("digits", runs)
    spot = experiment.sweet_spot()
    assert spot is not None
    assert {name.rpartition(" seed")[0] for name in with_model} == {f"ticket level {spot.level}", "dense level 0"}
    assert all(run.info.status == "FINISHED" for run in own.values())
    assert own[next(iter(with_model))].data.tags["ticketsmith.store"].startswith(str(runs))


def test_the_command_takes_trackers_from_the_recipe_and_ends_as_documented(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorboard")
    monkeypatch.chdir(tmp_path)
    prefix = ("track", "--runs-prefix", str(runs))
    status, out, err = call(*prefix, capsys=capsys)
    assert (status, out) == (Exit.BAD_INPUT, "")
    assert "names no tracker" in err
    recipe = runs / "digits/recipe.yaml"
    recipe.write_text(recipe.read_text() + "\ntrack: [{to: tensorboard, uri: board, models: none}]\n")
    status, out, err = call(*prefix, "--json", capsys=capsys)
    assert status == Exit.OK, err
    [told] = json.loads(out)
    assert (told["to"], told["new"], told["error"]) == ("tensorboard", SEALED + 1, None)
    assert (tmp_path / "board/digits/experiment/ticketsmith.json").is_file()
    assert "track" not in next(
        file.read().decode()
        for file in next(records_of(open_experiment("digits", runs))).files
        if "recipe" in file.name
    ), "where somebody's tracker is goes nowhere"
    (tmp_path / "file").write_text("")
    status, _, err = call(*prefix, "--to", "tensorboard", "--uri", str(tmp_path / "file"), capsys=capsys)
    assert status == Exit.INCOMPLETE
    assert "cannot write" in err


@pytest.mark.parametrize(
    ("to", "variables", "message"),
    [
        ("mlflow", {}, "MLFLOW_TRACKING_URI"),
        ("wandb", {"WANDB_MODE": "disabled"}, "WANDB_MODE"),
        ("trackio", {"TRACKIO_SPACE_ID": "me/space"}, "unset TRACKIO_SPACE_ID"),
        ("absent", {}, "pip install 'ticketsmith[mlflow]'"),
    ],
)
def test_what_is_missing_is_said_in_a_line_before_anything_is_sent(
    to: str,
    variables: dict[str, str],
    message: str,
    runs: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    present = to != "absent"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: object() if present else None)
    status, out, err = call("track", "--to", to if present else "mlflow", "--runs-prefix", str(runs), capsys=capsys)
    assert (status, out) == (Exit.BAD_INPUT, "")
    assert message in err
    assert len(err.splitlines()) == 1


def test_secrets_are_refused_in_recipes_and_hidden_in_messages(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    address = "http://me:hunter22@127.0.0.1:1"
    with pytest.raises(ValueError, match="holds no user") as refused:
        Track(to="mlflow", uri=address)
    status, _, err = call("track", "--to", "mlflow", "--uri", address, "--runs-prefix", str(runs), capsys=capsys)
    assert status == Exit.BAD_INPUT
    assert "hunter22" not in err
    recipe = runs / "digits/recipe.yaml"
    recipe.write_text(recipe.read_text() + f"\ntrack: {{to: mlflow, uri: '{address}'}}\n")
    with pytest.raises(RecipeError, match=r"track\.0\.uri") as refused:
        _ = open_experiment("digits", runs).recipe
    assert "hunter22" not in str(refused.value)
    monkeypatch.setenv("WANDB_API_KEY", "abc123def456")
    assert redacted(f"no {address}: abc123def456") == "no http://***@127.0.0.1:1: ***"


class _Refusing(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = json.dumps({"error_code": "PERMISSION_DENIED", "message": f"not you: {self.headers['Authorization']}"})
        self.send_response(403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def trouble(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a server that is down, never answers, or refuses."""
    if request.param == "down":
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            yield f"http://127.0.0.1:{free.getsockname()[1]}"
    elif request.param == "slow":
        with socket.create_server(("127.0.0.1", 0)) as server:
            yield f"http://127.0.0.1:{server.getsockname()[1]}"
    else:
        refusing = ThreadingHTTPServer(("127.0.0.1", 0), _Refusing)
        threading.Thread(target=refusing.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{refusing.server_address[1]}"
        refusing.shutdown()
        refusing.server_close()


@pytest.mark.parametrize("trouble", ["down", "slow", "refuses"], indirect=True)
def test_a_tracker_that_is_down_slow_or_refuses(
    trouble: str, runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("mlflow", reason="`make test-trackers` installs and tests it")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", trouble)
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "s3cr3t-token")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    before = {path: path.read_bytes() for path in runs.rglob("*") if path.is_file() and ".work" not in path.parts}
    status, out, err = call("track", "--to", "mlflow", "--runs-prefix", str(runs), capsys=capsys)
    assert (status, out) == (Exit.INCOMPLETE, "")
    assert "the same command goes on" in err
    assert "s3cr3t" not in err
    assert "Traceback" not in err
    changed = {path for path, content in before.items() if path.read_bytes() != content}
    assert not changed, "sealed runs are read"


def test_prune_tells_the_trackers_of_its_recipe_and_says_what_is_missing_before_it_trains(
    recipe_file: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    undrawn: None,
) -> None:
    pytest.importorskip("tensorboard")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    short = ("duration: 120it", "duration: 40it"), ("replicates: 2", "replicates: 1"), ("levels: 2", "levels: 1")
    recipe = recipe_file(*short, ("evaluate_every: 30it", "evaluate_every: 20it"))
    prune = ("prune", "--config", str(recipe), "--no-benchmark", "--executor", "debug")
    status, _, err = call(*prune, "--set", "track=[tensorboard, mlflow]", capsys=capsys)
    assert status == Exit.BAD_INPUT
    assert "mlflow" in err
    assert not (tmp_path / "runs").exists(), "before hours of training, and not after"

    (tmp_path / "file").write_text("")
    status, out, err = call(*prune, "--set", "track={to: tensorboard, uri: file}", capsys=capsys)
    assert status == Exit.INCOMPLETE
    assert "report: runs/digits/report/index.html" in out
    assert "error: digits: " in err
    sealed = {path: path.read_bytes() for path in (tmp_path / "runs").rglob("level-*/*")}
    status, out, err = call(*prune, "--set", "track=tensorboard", capsys=capsys)
    assert status in (Exit.OK, Exit.GATE_FAILED, Exit.INCONCLUSIVE), err
    assert "0 trained" in err, "a tracker is no part of a run's key"
    assert "digits: TensorBoard in tensorboard/digits: 5 new" in out
    assert {path: path.read_bytes() for path in sealed} == sealed
