"""The commands as a user types them: what they print, what they leave, how they end."""

from __future__ import annotations

import csv
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests import warm
from tests.sockets import watch
from tests.terminal import read_all
from ticketsmith.api import open_experiment
from ticketsmith.cli.main import enter, group
from ticketsmith.config import load_recipe
from ticketsmith.errors import Exit
from ticketsmith.evidence.serving import from_json

ROOT = Path(__file__).resolve().parents[2]
Write = Callable[..., Path]


def run(*arguments: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own; whatever it does, nothing may leave this machine."""
    with tempfile.TemporaryDirectory() as notes:
        watched = watch(Path(notes))
        variables = {**os.environ, "PYTHONPATH": str(ROOT), **watched.environment, **environment}
        done = warm.run(arguments, cwd=cwd, env=variables, timeout=300)
        assert watched.calls() == [], arguments
    return done


def call(*arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """A command within this process: exit status, output, errors."""
    before = sys.argv
    sys.argv = ["ticketsmith", *arguments]
    try:
        with pytest.raises(SystemExit) as ended:
            enter(group)
    finally:
        sys.argv = before
    captured = capsys.readouterr()
    return int(ended.value.code or 0), captured.out, captured.err


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished experiment, made by the command itself."""
    from tests.conftest import DIGITS

    folder = tmp_path_factory.mktemp("cli")
    (folder / "recipe.yaml").write_text(DIGITS)
    few = ("--set", "benchmark.rounds=10", "--set", "benchmark.batch_sizes=[1]")
    done = run("-m", "ticketsmith.prune", "--config", "recipe.yaml", *few, cwd=folder)
    assert done.returncode in (0, 3, 6), done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "report: runs/digits/report/index.html" in done.stdout
    return folder


def test_help_is_quick_and_imports_no_torch() -> None:
    done = run("-X", "importtime", "-m", "ticketsmith", "--help")
    assert done.returncode == 0
    assert "prune" in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert not imported & {"torch", "numpy", "pandas", "scipy", "altair", "pydantic"}


@pytest.mark.parametrize("door", ["train", "prune", "report", "benchmark_cli"])
def test_every_door_opens(door: str) -> None:
    done = run("-m", f"ticketsmith.{door}", "--help")
    assert done.returncode == 0
    assert "Usage:" in done.stdout


def test_an_experiment_leaves_all_that_is_promised(store: Path) -> None:
    experiment = store / "runs/digits"
    for name in ("recipe.yaml", "plan.json", "gates.json", "benchmark.json"):
        assert (experiment / name).is_file()
    for name in ("index.html", "report.md", "results.csv"):
        assert (experiment / "report" / name).is_file()
    assert list((experiment / "report/figures").glob("*.png"))
    assert list((experiment / "report/figures").glob("*.svg"))
    run_folder = next((experiment / "ticket/seed-1").glob("level-02-*"))
    assert {path.name for path in run_folder.iterdir()} == {
        "spec.json",
        "metrics.json",
        "curve.csv",
        "outcomes.safetensors",
        "model.safetensors",
        "mask.safetensors",
        "environment.json",
        "manifest.json",
    }
    environment = json.loads((run_folder / "environment.json").read_text())
    assert {"torch", "python", "cpu", "threads", "git_commit", "recipe_sha256"} <= set(environment)
    assert environment["threads"] == 1
    with (experiment / "report/results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * (1 + 2 * 3)
    assert {row["variant"] for row in rows} == {"dense", "ticket", "random_reinit", "random_ticket"}


def test_a_second_time_trains_nothing(store: Path) -> None:
    done = run("-m", "tests.plain", "prune", "--config", "recipe.yaml", "--no-benchmark", cwd=store)
    assert "0 trained, 16 cached" in done.stderr


def test_reports_of_a_folder_and_of_one_experiment(
    store: Path, capsys: pytest.CaptureFixture[str], undrawn: None
) -> None:
    done = run("-m", "ticketsmith.report", "--runs-prefix", "runs", cwd=store)
    status, out, err = call("report", "--runs-prefix", str(store / "runs/digits"), capsys=capsys)
    assert (done.returncode, status) == (0, 0), done.stderr + err
    for printed in (done.stdout, out):
        assert "report: " in printed
        assert "index.html" in printed


def test_the_benchmark_of_a_checkpoint(store: Path) -> None:
    folder = next((store / "runs/digits/ticket/seed-0").glob("level-02-*"))
    more = ("--rounds", "10", "--batch-size", "4", "--json", "--runtime", "onnxruntime", "--runtime", "sparse")
    done = run("-m", "ticketsmith.benchmark_cli", "--checkpoint", str(folder), *more, cwd=store)
    assert done.returncode == 0, done.stderr
    [document] = json.loads(done.stdout)["benchmarks"]
    timings = document["timings"]
    assert [(timing["variant"], timing["runtime"]) for timing in timings] == [
        (variant, runtime) for variant in ("dense", "ticket") for runtime in ("onnxruntime", "sparse")
    ]
    assert all(timing["batch_size"] == 4 and timing["median_ms"] > 0 for timing in timings)
    assert all(timing["against"] == "onnxruntime" and timing["peak_bytes"] > 0 for timing in timings)
    assert document["peaks"]
    from_json({name: value for name, value in document.items() if name not in ("name", "kept")})
    wrong = run("-m", "ticketsmith.benchmark_cli", "--checkpoint", str(store), cwd=store)
    assert wrong.returncode == 2
    assert "not the folder of a run" in wrong.stderr


def test_nothing_is_told_to_anybody_by_export_and_by_any_library_that_is_raced(store: Path, tmp_path: Path) -> None:
    """``run`` watches: see ``tests/sockets.py``. ``prune`` with its benchmark and report is watched by the fixture."""
    commands = (
        f"export runs/digits --sparsity 0.5 --format all --output {tmp_path}",
        f"benchmark --onnx {tmp_path}/model.onnx --json --rounds 10 --batch-size 1 "
        "--runtime onnxruntime --runtime openvino --runtime sparse",
    )
    for command in commands:
        done = run("-m", "ticketsmith", *command.split(), cwd=store, HOME=str(tmp_path))
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
    [document] = json.loads(done.stdout)["benchmarks"]
    assert {timing["runtime"] for timing in document["timings"]} == {"onnxruntime", "openvino", "sparse"}
    assert not (tmp_path / "intel").exists()
    assert not list(tmp_path.rglob("*onnxruntime/*")), "ONNX Runtime numbers the devices that it reports on"


def test_the_benchmark_of_an_experiment_is_kept_and_ends_with_a_line_for_programs(
    store: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ticketsmith.inference.tables.layers.SPARSITIES", (0.0, 0.9))
    monkeypatch.setattr("ticketsmith.inference.tables.load.FEWEST_REQUESTS", 20)
    monkeypatch.setattr("ticketsmith.inference.tables.load.STEP_SECONDS", 0.02)
    prefix = ("--runs-prefix", str(store / "runs"), "--rounds", "10", "--batch-size", "1", "--no-memory")
    more = ("--runtime", "torch", "--runtime", "sparse", "--dtype", "float32", "--dtype", "int8", "--load", "--layers")
    status, out, err = call("benchmark", *prefix, *more, capsys=capsys)
    assert status == 0, err
    assert "batch size 1, 1 thread, float32; speed-up against dense on torch" in out
    assert "No dense runtime ran in int8" in out
    assert "torch has no int8" in out
    assert "open-loop load test" in out
    assert "each layer alone" in out
    [told] = json.loads(out.splitlines()[-1])["benchmarks"]
    assert (told["name"], told["unit"]) == ("digits", "request")
    assert {one["variant"] for one in told["best"]} == {"dense", "ticket", "random_reinit", "random_ticket"}
    kept = from_json(json.loads(Path(told["kept"]).read_text()))
    assert {load.variant for load in kept.loads} == {"dense", "ticket"}
    assert {(layer.kind, layer.shape) for layer in kept.layers} == {
        ("linear", "32x64"),
        ("linear", "16x32"),
        ("linear", "10x16"),
    }


def test_models_that_no_experiment_made_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_net.py").write_text(
        "import torch\n\n\ndef net():\n    return torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Linear(8, 3))\n"
    )
    few = ("--rounds", "10", "--batch-size", "2", "--no-memory", "--json", "--runtime", "onnxruntime")
    status, out, err = call("benchmark", "--model", "own_net:net", "--shape", "6", *few, capsys=capsys)
    assert status == 0, err
    [document] = json.loads(out)["benchmarks"]
    assert [(one["variant"], one["runtime"]) for one in document["timings"]] == [("net", "onnxruntime")]

    model = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Linear(8, 3)).eval()
    for name in ("dense", "sparse"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            free = {"input": {0: "batch"}}
            given = (torch.zeros(1, 6),)
            torch.onnx.export(model, given, f"{name}.onnx", dynamo=False, input_names=["input"], dynamic_axes=free)
        with torch.no_grad():
            model[0].weight[:, ::2] = 0
    files = ("--onnx", "sparse.onnx", "--against", "dense.onnx", "--runtime", "torch")
    status, out, err = call("benchmark", *files, *few, capsys=capsys)
    assert status == 0, err
    [document] = json.loads(out)["benchmarks"]
    assert [(one["variant"], one["against"]) for one in document["timings"]] == [
        ("dense", "onnxruntime"),
        ("sparse", "onnxruntime"),
    ]
    assert document["timings"][1]["sparsity"] == pytest.approx(24 / 72)
    assert {refusal["reason"] for refusal in document["refusals"]} == {
        "it runs PyTorch modules, and this is an ONNX file."
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--onnx", "none.onnx"), "none.onnx: cannot be read"),
        (("--onnx", "text.onnx"), "this is no sound ONNX model"),
        (("--model", "torch.nn:Flatten"), "say what one input looks like"),
        (("--model", "torch.nn:Flatten", "--shape", "a,b"), "give the sizes of one input"),
        (("--model", "torch.nn:Linear", "--shape", "4"), "cannot be made without arguments"),
        (("--model", "torch.nn:Nothing", "--shape", "4"), "torch.nn:Nothing"),
        (("--model", "Flatten", "--shape", "4"), "give a dotted name"),
        (("--model", "torch.nn:Flatten", "--shape", "4", "--dtype", "float8"), "'float8' is not one of float32"),
        (("--model", "torch.nn:Flatten", "--shape", "4", "--runtime", "onnx"), "unknown runtime 'onnx'"),
        (("--model", "torch.nn:Flatten", "--shape", "4", "--budget", "0"), "needs some time"),
        (("--model", "torch.nn:Flatten", "--shape", "4", "--load", "--target-ms", "0"), "a time above 0 ms"),
        (("--model", "torch.nn:Flatten", "--shape", "4", "--load", "--percentile", "100"), "between 50 and 100"),
        (("--model", "torch.nn:Flatten", "--shape", "4", "--percentile", "99"), "are those of --load"),
        (("--model", "torch.nn:Flatten", "--shape", "4", "--device", "cuda:99"), "cannot be used here"),
        (("--model", "torch.nn:Flatten", "--shape", "4", "--weights", "none.safetensors"), "cannot be read"),
        (("--model", "torch.nn:Flatten", "--onnx", "x"), "one model at a time"),
        (("--shape", "4"), "--shape is for --onnx and --model"),
        (("--against", "x.onnx"), "--against names the dense model"),
        (("--model", "torch.nn:Flatten", "--shape", "900000,900000"), "would take about 3,017.5 GiB"),
    ],
)
def test_what_cannot_be_measured_is_told(
    arguments: tuple[str, ...],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.onnx").write_text("this is text")
    status, out, err = call("benchmark", *arguments, capsys=capsys)
    assert (status, out) == (2, "")
    assert message in err
    assert "Traceback" not in err


def test_listings_in_json(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = ("--runs-prefix", str(store / "runs"), "--json")
    recipe = ("--config", str(store / "recipe.yaml"))
    code, out, _ = call("status", *runs, capsys=capsys)
    assert code == 0
    assert {row["status"] for row in json.loads(out)} == {"trained"}
    code, out, _ = call("gate", *runs, capsys=capsys)
    assert code in (0, 3, 6)
    verdicts = json.loads(out)
    assert {row["status"] for row in verdicts} <= {"PASS", "FAIL", "INCONCLUSIVE"}
    assert all(row["network_sparsity"] < row["sparsity"] and row["prunable"] < row["parameters"] for row in verdicts)
    assert {len(row["diverged"]) + len(row["missing"]) for row in verdicts} == {0}
    code, out, _ = call("plan", *recipe, "--set", f"store={store / 'runs'}", "--json", capsys=capsys)
    nodes = json.loads(out)["nodes"]
    assert {node["status"] for node in nodes} == {"trained"}
    assert all(node["training_flops"] > 0 for node in nodes if node["variant"] != "rewind_point")
    code, out, _ = call("validate", *recipe, "--json", capsys=capsys)
    assert json.loads(out)["runs"] == 16
    code, out, _ = call("data", "list", "--json", capsys=capsys)
    named = {entry["name"] for entry in json.loads(out)}
    assert named == {"mnist", "fashion_mnist", "cifar10", "digits", "mnist1d", "pydocs"}
    code, out, _ = call("verify", *runs, capsys=capsys)
    assert (code, json.loads(out)) == (0, {"runs": 16, "damaged": []})


def test_where_the_time_of_a_run_goes(recipe_file: Write, capsys: pytest.CaptureFixture[str]) -> None:
    command = ("profile", "--config", str(recipe_file()), "--steps", "5", "--device", "cpu")
    status, out, _ = call(*command, capsys=capsys)
    assert status == 0
    first, *_ = out.splitlines()
    assert re.match(r"A run of [\d,]+ steps takes about .* on one core", first)
    for part in ("forward", "backward", "masks", "waiting", "peak: ", "With the kernels of today (torch)"):
        assert part in out
    status, out, _ = call(*command, "--sparsity", "0", "--json", capsys=capsys)
    document = json.loads(out)
    assert status == 0
    assert sum(document["parts"].values()) == pytest.approx(document["seconds"])
    assert document["bound"]["speedup_at_this_sparsity"] == pytest.approx(1.0)
    status, _, err = call(*command, "--sparsity", "1", capsys=capsys)
    assert (status, "--sparsity" in err) == (2, True)


def test_the_scorecard(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = ("--runs-prefix", str(store / "runs"))
    code, out, _ = call("scorecard", *runs, "--machine", "my-laptop=0.10", capsys=capsys)
    assert code == 0
    assert out.startswith("digits: ")
    assert "dense on " in out
    assert "my-laptop at $0.10 an hour" in out
    code, out, _ = call("scorecard", *runs, "--json", "--machine", "my-laptop=0.10", capsys=capsys)
    (card,) = json.loads(out)
    (dense,) = [
        row for row in card["groups"][0]["rows"] if (row["variant"], row["runtime"]) == ("dense", row["against"])
    ]
    assert dense["per_million"] > 0
    assert dense["speedup"] == 1.0
    code, out, _ = call("scorecard", *runs, "--csv", capsys=capsys)
    rows = list(csv.DictReader(out.splitlines()))
    measured = json.loads((store / "runs/digits/benchmark.json").read_text())["timings"]
    assert len(rows) == sum(timing["against"] != "" for timing in measured), "without a dense rival there is no card"
    assert {row["per_million"] for row in rows} == {""}, "the price of before was not written"
    elsewhere = tmp_path / "runs"
    shutil.copytree(store / "runs", elsewhere)
    (elsewhere / "digits/benchmark.json").unlink()
    code, _, err = call("scorecard", "--runs-prefix", str(elsewhere), capsys=capsys)
    assert code == 2
    assert "inference was not measured. Measure it: ticketsmith benchmark" in err
    code, _, err = call("scorecard", *runs, "--machine", "no-such-machine", capsys=capsys)
    assert (code, "no-such-machine" in err) == (2, True)
    code, _, err = call("benchmark", "--onnx", "no-such-file.onnx", "--machine", "no-such-machine", capsys=capsys)
    assert (code, "no-such-machine" in err) == (2, True), "a price is looked up before anything is read or measured"
    assert call("scorecard", *runs, "--json", "--csv", capsys=capsys)[0] == 2


def test_the_exit_status_follows_the_gate(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A changed threshold judges anew and trains nothing."""
    text = (store / "recipe.yaml").read_text()
    for margin, expected in (("90.0", Exit.OK), ("0.000001", None)):
        changed = tmp_path / "gates.yaml"
        changed.write_text(text.replace("max_drop: 5.0", f"max_drop: {margin}"))
        code, out, _ = call("gate", "--runs-prefix", str(store / "runs"), "--config", str(changed), capsys=capsys)
        assert code == expected if expected is not None else code in (Exit.GATE_FAILED, Exit.INCONCLUSIVE)
        assert "digits:" in out


def test_bytes_that_were_changed_are_found(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import shutil

    copy = tmp_path / "runs"
    shutil.copytree(store / "runs", copy)
    model = next(copy.glob("digits/ticket/seed-0/level-01-*/model.safetensors"))
    content = bytearray(model.read_bytes())
    content[-1] ^= 1
    model.write_bytes(content)
    code, _, err = call("verify", "--runs-prefix", str(copy), capsys=capsys)
    assert code == Exit.INCOMPLETE
    assert "was changed after it was sealed" in err
    shutil.copytree(store / "runs", copy, dirs_exist_ok=True)
    run = next(copy.glob("digits/dense/seed-0/*"))
    (run / "notes.txt").write_text("mine")
    assert call("verify", "--runs-prefix", str(copy), capsys=capsys)[0] == Exit.INCOMPLETE
    (run / "notes.txt").unlink()
    _sealed_again_with_another_spec(run)
    code, _, err = call("verify", "--runs-prefix", str(copy), capsys=capsys)
    assert code == Exit.INCOMPLETE
    assert "spec.json is not the spec of this run" in err
    metrics = next(copy.glob("digits/dense/seed-0/*/metrics.json"))
    metrics.write_text(metrics.read_text().replace("accuracy", "accurate"))
    code, _, err = call("report", "--runs-prefix", str(copy), capsys=capsys)
    assert code == Exit.INCOMPLETE
    assert "metrics.json was changed after it was sealed" in err


def _sealed_again_with_another_spec(run: Path) -> None:
    from ticketsmith.store.contract import manifest_of

    spec, manifest = run / "spec.json", run / "manifest.json"
    spec.write_text(spec.read_text().replace('"lr"', '"momentum"'))
    seal = json.loads(manifest.read_text())
    files = {name: (run / name).read_bytes() for name in seal["files"]}
    manifest.write_bytes(manifest_of(seal["key"], seal["status"], files))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prune", "--config", "absent.yaml"], "no such file"),
        (["prune"], "Missing option '--config'"),
        (["prnue"], "No such command"),
        (["report", "--runs-prefix", "/nowhere/at/all"], "no runs here"),
        (["report", "--experiment", "absent"], "no experiment 'absent'"),
        (["status", "--runs-prefix", "\0"], "NUL"),
        (["data", "verify", "mnits"], "Did you mean 'mnist'"),
        (["data", "fetch", "nothing"], "nothing"),
        (["validate", "--config", "{recipe}", "--set", "task.model=lenet"], "unknown model 'lenet'"),
        (["validate", "--config", "{recipe}", "--set", "task.model={name: mlp, width: 3}"], "takes no option 'width'"),
        (["validate", "--config", "{recipe}", "--set", "task.model.widths=wide"], "option 'widths'"),
        (["validate", "--config", "{recipe}", "--set", "task.model=nosuch.module:Net"], "cannot import 'nosuch'"),
        (["validate", "--config", "{recipe}", "--set", "task.model=json:Net"], "has no 'Net'"),
        (["validate", "--config", "{recipe}", "--set", "task.model=tests.cli.test_commands:TooFew"], "shape"),
        (["validate", "--config", "{recipe}", "--set", "task.model=tests.cli.test_commands:WrongIn"], "does not fit"),
        (["validate", "--config", "{recipe}", "--set", "task.model=vgg16"], "does not fit the data"),
        (["validate", "--config", "{recipe}", "--set", "task.data={name: npz, path: absent.npz}"], "absent.npz"),
        (["validate", "--config", "{recipe}", "--set", "task.validation=100000"], "hold out at least 1 and fewer"),
        (
            ["validate", "--config", "{recipe}", "--set", "gates.metrics={acuracy: {max_drop: 1}}"],
            "Did you mean 'accuracy'",
        ),
        (["validate", "--config", "{recipe}", "--set", "pruning.rates={ouput: 0.1}"], "Did you mean 'output'"),
        (
            ["validate", "--config", "{recipe}", "--set", "pruning.fraction=0.9", "--set", "pruning.levels=9"],
            "without any",
        ),
        (["validate", "--config", "{recipe}", "--set", "pruning.criterion=magnitud"], "Did you mean 'magnitude'"),
        (["prune", "--config", "{recipe}", "--device", "warp"], "--device warp: cannot be used here"),
        (["prune", "--config", "{recipe}", "--store", "{recipe}"], "cannot write"),
        (["init", "{recipe}"], "is there already"),
        (
            ["validate", "--config", "{recipe}", "--set", "task={name: 'tests.cli.test_commands:Absent'}"],
            "has no 'Absent'",
        ),
        (["validate", "--config", "{recipe}", "--set", "task={name: 'tests.cli.test_commands:BrokenTask'}"], "no luck"),
        (
            ["validate", "--config", "{recipe}", "--set", "task={name: 'tests.cli.test_commands:HalfTask', data: [1]}"],
            "'loss'",
        ),
        (["prune", "--config", "{recipe}", "--set", "gates.target_sparsity=0.99"], "is never reached"),
        (["report", "--runs-prefix", "a:b"], "no runs here"),
    ],
    ids=lambda value: " ".join(value)[-40:] if isinstance(value, list) else "",
)
def test_bad_input_ends_in_one_message(
    recipe_file: Write,
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    recipe = recipe_file()
    monkeypatch.chdir(tmp_path)
    code, out, err = call(*(part.replace("{recipe}", str(recipe)) for part in arguments), capsys=capsys)
    assert code == (Exit.INCOMPLETE if "cannot write" in message else Exit.BAD_INPUT), err
    assert message in err
    assert "Traceback" not in out + err


def TooFew(input_shape: tuple[int, ...]) -> object:
    from torch import nn

    return nn.Sequential(nn.Flatten(), nn.Linear(64, 7))


def WrongIn() -> object:
    from torch import nn

    return nn.Sequential(nn.Flatten(), nn.Linear(63, 10))


class BrokenTask:
    def __init__(self) -> None:
        raise ZeroDivisionError("no luck")


class HalfTask:
    metrics = ()
    train_size = 10

    def __init__(self, data: list[int]) -> None:
        self.build_model = self.batch = self.loss = self.evaluate = self.example = None


def test_corrupted_recipes_never_end_in_a_traceback(
    recipe_file: Write, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    chance = random.Random(0)
    text = recipe_file().read_text()
    refused = 0
    for _ in range(100):
        words = text.split(" ")
        for _ in range(chance.randint(1, 3)):
            at = chance.randrange(len(words))
            words[at] = chance.choice(
                [
                    "-1",
                    "0",
                    "1e9",
                    "x",
                    "[]",
                    "{}",
                    "null",
                    "mnist",
                    "1.5",
                    "output",
                    "'",
                    words[at][:-1],
                    "!!int x",
                    "9" * 99 + "ep",
                    "!!bool y",
                ]
            )
        path = tmp_path / "corrupted.yaml"
        path.write_text(" ".join(words))
        code, out, err = call("validate", "--config", str(path), capsys=capsys)
        assert code in (Exit.OK, Exit.BAD_INPUT), (path.read_text(), err)
        assert "Traceback" not in out + err
        refused += code != Exit.OK
    assert refused > 50


def test_init_writes_a_recipe_that_is_valid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call("init", str(tmp_path / "mine.yaml"), capsys=capsys)
    assert code == 0
    assert "ticketsmith prune --config" in out
    code, out, _ = call("validate", "--config", str(tmp_path / "mine.yaml"), capsys=capsys)
    assert code == 0
    assert "valid" in out


def test_init_asks_for_native_kernels_only_where_they_were_built(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for built, kernels in ((True, "native"), (False, "torch")):
        monkeypatch.setattr("ticketsmith.native.available", lambda built=built: built)
        place = tmp_path / f"{kernels}.yaml"
        assert call("init", str(place), capsys=capsys)[0] == 0
        assert load_recipe(place, ()).training.kernels == kernels


def test_train_makes_the_dense_runs_only(recipe_file: Write, tmp_path: Path) -> None:
    done = run("-m", "ticketsmith.train", "--config", str(recipe_file()), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "dense seed 1: test accuracy" in done.stdout
    assert {path.name for path in (tmp_path / "runs/digits").iterdir() if path.is_dir()} == {"dense", "ledger"}


def shell(command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_output_that_cannot_be_written(store: Path) -> None:
    python = f"{sys.executable} -m ticketsmith"
    closed = shell(f"{python} status --runs-prefix runs --json | head -c 10", store)
    assert "Traceback" not in closed.stderr
    full = shell(f"{python} status --runs-prefix runs --json > /dev/full", store)
    assert full.returncode == Exit.INCOMPLETE
    assert "error: cannot write: No space left on device" in full.stderr
    assert "Traceback" not in full.stderr


def test_progress_that_nobody_reads_any_more_stops_nothing(recipe_file: Write, tmp_path: Path) -> None:
    done = shell(f"{sys.executable} -m ticketsmith.train --config {recipe_file()} 2> >(head -1 >/dev/null)", tmp_path)
    assert done.returncode == 0
    assert "dense seed 1: test accuracy" in done.stdout


def test_a_dense_run_that_diverges_leaves_a_report_of_the_others(recipe_file: Write, tmp_path: Path) -> None:
    """Its gate fails, the other replicate goes on, and the exit status says what happened."""
    own = ("model: {name: mlp, widths: [32, 16]}", "model: tests.cli.test_commands:unlucky")
    few = (("levels: 2", "levels: 1"), ("sparsity: 0.4", "sparsity: 0.3"))
    recipe = str(recipe_file(own, *few))
    done = run("-m", "tests.undrawn", "prune", "--config", recipe, "--no-benchmark", cwd=tmp_path)
    assert done.returncode == Exit.DIVERGED, done.stderr
    assert "diverged: dense level 0 seed 0" in done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "runs/digits/report/index.html").is_file()
    page = (tmp_path / "runs/digits/report/report.md").read_text()
    assert "Inconclusive: the dense run of seed 0 diverged" in page
    assert "planned runs are missing" not in page
    stored = open_experiment("digits", tmp_path / "runs")
    assert stored.exit_status == Exit.DIVERGED, "later commands say what prune said"


def unlucky(input_shape: tuple[int, ...], classes: int) -> object:
    """A model that is NaN from the start in the first replicate."""

    from ticketsmith.models.lenet import LeNet
    from ticketsmith.streams import derive

    first = torch.initial_seed() == derive(0, "init", 0)
    model = LeNet(input_shape, classes, (8,))
    if first:
        torch.nn.init.constant_(model.fc1.weight, float("nan"))  # type: ignore[arg-type]
    return model


def test_an_interruption_is_told_as_one_even_where_a_library_makes_an_error_of_it(
    recipe_file: Write, tmp_path: Path
) -> None:
    own = ("model: {name: mlp, widths: [32, 16]}", "model: tests.cli.test_commands:swallowing")
    done = run("-m", "ticketsmith", "validate", "--config", str(recipe_file(own)), cwd=tmp_path)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (Exit.INTERRUPTED, "interrupted")


def swallowing(input_shape: tuple[int, ...], classes: int) -> object:
    """Meets Ctrl-C as some imports do: what comes out is no KeyboardInterrupt."""
    try:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)
    except KeyboardInterrupt:
        raise AttributeError("module has no attribute") from None


def test_the_live_view_on_a_terminal(recipe_file: Write, tmp_path: Path) -> None:
    """On a real pseudo-terminal: bars with level, seed, step and loss."""
    import pty

    recipe = recipe_file(("duration: 120it", "duration: 2000it"))
    leader, follower = pty.openpty()
    process = warm.start(
        ("-m", "ticketsmith", "train", "--config", str(recipe)),
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", "COLUMNS": "120"},
        stderr=follower,
        stdout=subprocess.DEVNULL,
    )
    os.close(follower)
    text = read_all(leader, 120)
    process.wait(timeout=60)
    assert "dense level 0 seed 1" in text
    assert "loss 0." in text
    assert "/2000" in text
    assert "2/2 runs" in text
