"""A ticket put back into a store, and trained again: the same bytes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import ticketsmith
from tests.cli.test_commands import call
from tests.store.azurite import KEY
from ticketsmith.errors import Exit, RecipeError, TaskError
from ticketsmith.export import ticket
from ticketsmith.export.bring_in import bring_in
from ticketsmith.export.masked_bytes import TicketFileError
from ticketsmith.export.retrain import retrain, task_of
from ticketsmith.store.directory import DirectoryStore
from ticketsmith.training.device import prepare


@pytest.fixture
def as_in_a_worker() -> Iterator[None]:
    threads = torch.get_num_threads()
    prepare("cpu")
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("as_in_a_worker")
@pytest.mark.parametrize(
    ("variant", "start"), [("ticket", False), ("ticket", True), ("random_reinit", False), ("finetune", False)]
)
def test_training_again_gives_the_same_bytes(
    experiment: ticketsmith.Experiment, tmp_path: Path, variant: str, start: bool
) -> None:
    experiment.export(tmp_path / "x.ticket", ["ticket"], sparsity=0.7, variant=variant, start_weights=start)
    found = ticket.read(tmp_path / "x.ticket")
    assert (found.start is not None) == (start or variant == "finetune")
    steps: list[int] = []
    again = retrain(found, task_of(found), lambda step, of: steps.append(step))
    assert again.same
    assert again.max_difference == 0
    assert again.test == found.metrics["final"]["test"]
    assert steps[-1] == found.metrics["steps"]


@pytest.mark.usefixtures("as_in_a_worker")
def test_another_start_gives_other_weights_and_it_is_said(experiment: ticketsmith.Experiment, tmp_path: Path) -> None:
    experiment.export(tmp_path / "x.ticket", ["ticket"], sparsity=0.7, start_weights=True)
    found = ticket.read(tmp_path / "x.ticket")
    assert found.start_file is not None
    other = found.files["model.safetensors"]  # the trained weights in the place of those that training began with
    again = retrain(ticket.Ticket(found.folder, found.files, found.recipe, found.chain, other), task_of(found))
    assert not again.same
    assert again.max_difference > 1e-3


def test_a_file_without_its_start_says_so(experiment: ticketsmith.Experiment, tmp_path: Path) -> None:
    experiment.export(tmp_path / "x.ticket", ["ticket"], sparsity=0.7, variant="finetune")
    found = ticket.read(tmp_path / "x.ticket")
    without = ticket.Ticket(found.folder, found.files, found.recipe, found.chain)
    with pytest.raises(TicketFileError, match="went on from another run's weights"):
        retrain(without, task_of(found))


def test_code_of_a_stranger_does_not_run_unless_its_folder_is_named(
    experiment: ticketsmith.Experiment, tmp_path: Path
) -> None:
    experiment.export(tmp_path / "x.ticket", ["ticket"], sparsity=0.7)
    found = ticket.read(tmp_path / "x.ticket")
    evil = found.recipe.replace("data: digits", "data: {name: 'os:mkdir', path: evil}")
    hostile = ticket.Ticket(found.folder, found.files, evil, found.chain)
    with pytest.raises(RecipeError, match=r"no part of TicketSmith: os:mkdir. If you trust it"):
        task_of(hostile)
    assert not Path("evil").exists()


def test_other_data_than_the_spec_s_is_refused(experiment: ticketsmith.Experiment, tmp_path: Path) -> None:
    experiment.export(tmp_path / "x.ticket", ["ticket"], sparsity=0.7)
    found = ticket.read(tmp_path / "x.ticket")
    other = ticket.Ticket(
        found.folder, found.files, found.recipe.replace("validation: 200", "validation: 100"), found.chain
    )
    with pytest.raises(TaskError, match="not those that were planned"):
        task_of(other)


def test_a_store_takes_it_back_and_every_command_works_on_it(
    experiment: ticketsmith.Experiment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment.export(tmp_path / "x.ticket", ["ticket"], sparsity=0.7)
    found = ticket.read(tmp_path / "x.ticket")
    store = DirectoryStore(tmp_path / "runs2")
    assert bring_in(found, store) == (found.folder, True)
    assert bring_in(found, store) == (found.folder, False)
    runs = str(tmp_path / "runs2")
    for name, content in found.files.items():
        assert (tmp_path / "runs2" / str(found.folder) / name).read_bytes() == content
    code, out, _ = call("verify", "--runs-prefix", runs, capsys=capsys)
    assert (code, out.strip()) == (0, "1 sealed runs, 0 damaged")
    code, out, _ = call("status", "--runs-prefix", runs, "--json", capsys=capsys)
    states = {row["key"]: row["status"] for row in json.loads(out)}
    assert states.pop(found.key) == "trained"
    assert set(states.values()) == {"missing"}
    code, _, err = call(
        "export", f"{runs}/{found.folder}", "--format", "ticket", "--output", str(tmp_path / "y.ticket"), capsys=capsys
    )
    assert code == 0, err
    assert (tmp_path / "y.ticket").read_bytes() == (tmp_path / "x.ticket").read_bytes()


def test_an_experiment_with_other_runs_is_left_alone(experiment: ticketsmith.Experiment, tmp_path: Path) -> None:
    experiment.export(tmp_path / "x.ticket", ["ticket"], sparsity=0.7)
    experiment.export(tmp_path / "y.ticket", ["ticket"], sparsity=0.7, seed=1)
    store = DirectoryStore(tmp_path / "runs2")
    bring_in(ticket.read(tmp_path / "x.ticket"), store)
    with pytest.raises(RecipeError, match=r"'digits' is there and has other runs. Name another with --experiment"):
        bring_in(ticket.read(tmp_path / "y.ticket"), store)
    folder, _ = bring_in(ticket.read(tmp_path / "y.ticket"), store, "other")
    assert ticketsmith.open_experiment("other", store.url).results[0].seed == folder.seed == 1
    with pytest.raises(RecipeError, match=r"experiment '../x'"):
        bring_in(ticket.read(tmp_path / "y.ticket"), store, "../x")


def test_the_commands(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    runs = str(finished)
    code, out, err = call(
        "export", runs, "--format", "ticket", "--format", "safetensors", "--sparsity", "0.7", capsys=capsys
    )
    assert code == 0, err
    assert "model.ticket" in out
    assert "(dense weights)" in out
    assert "of the network's" in " ".join(out.split())
    made = next(tmp_path.glob("exports/digits/ticket/seed-0/level-02-*/model.ticket"))
    code, out, _ = call("ticket", "show", str(made), capsys=capsys)
    assert code == 0
    assert "start weights: the seed's, trained to the rewind point" in out
    code, out, _ = call("ticket", "import", str(made), "--store", "again", capsys=capsys)
    assert (code, (tmp_path / out.strip()).is_dir()) == (0, True)
    code, out, err = call("export", runs, "--format", "ticket", "--sparsity", "0.7", capsys=capsys)
    assert code == Exit.BAD_INPUT
    assert "is there already" in err
    run = next(finished.glob("digits/ticket/seed-1/level-01-*"))
    code, out, err = call("export", str(run), "--format", "safetensors", "--output", "x", "--json", capsys=capsys)
    assert json.loads(out)["seed"] == 1
    code, out, err = call("export", str(run), "--format", "onnx", "--sparsity", "0.5", capsys=capsys)
    assert code == Exit.BAD_INPUT
    assert "is one run already" in err
    for wrong in ("nowhere", "/", "az:/x"):
        code, out, err = call("export", wrong, "--format", "onnx", capsys=capsys)
        assert code == Exit.BAD_INPUT, wrong
        assert err.startswith("error: ")


def test_a_run_without_a_seal_and_one_that_diverged(
    experiment: ticketsmith.Experiment, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    from ticketsmith.store.contract import MANIFEST, manifest_of

    shutil.copytree(finished, tmp_path / "runs")
    run = tmp_path / "runs" / experiment.find(0.7).path
    key = experiment.find(0.7).key
    metrics = json.loads((run / "metrics.json").read_text())
    metrics |= {"status": "diverged", "diverged_at": 7}
    metrics.pop("final"), metrics.pop("early_stop")
    (run / "metrics.json").write_text(json.dumps(metrics))
    (run / "model.safetensors").unlink()
    files = {path.name: path.read_bytes() for path in run.iterdir() if path.name != MANIFEST}
    (run / MANIFEST).write_bytes(manifest_of(key, "diverged", files))
    code, _, err = call("export", str(run), "--format", "ticket", "--output", str(tmp_path / "x"), capsys=capsys)
    assert code == Exit.DIVERGED
    assert "diverged and left no weights" in err
    (run / MANIFEST).unlink()
    code, _, err = call("export", str(run), "--format", "ticket", "--output", str(tmp_path / "x"), capsys=capsys)
    assert code == Exit.INCOMPLETE
    assert "the run is not sealed" in err


def test_runs_in_azure_are_exported_and_taken_back(
    experiment: ticketsmith.Experiment,
    finished: Path,
    container: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TICKETSMITH_CACHE", str(tmp_path / "cache"))
    store = f"az://{container}/team/runs"
    assert call("push", str(finished / "digits"), store, capsys=capsys)[0] == 0
    run = experiment.find(0.7).path
    for address in (f"{store}/digits", f"{store}/{run}", f"{store}/digits/ticket/seed-0/level-02-*"):
        place = tmp_path / "x.ticket"
        chosen = ("--sparsity", "0.7") if address.endswith("digits") else ()
        options = ("--format", "ticket", "--output", str(place), "--force", *chosen)
        code, _, err = call("export", address, *options, capsys=capsys)
        assert code == 0, err
        assert str(ticket.read(place).folder) == run
        about = place.with_name("x.ticket.export.json").read_text()
        assert KEY not in about
        assert container not in about
    code, out, err = call("ticket", "import", str(place), "--store", f"az://{container}/other", capsys=capsys)
    assert code == 0, err
    code, out, _ = call("verify", "--runs-prefix", f"az://{container}/other", capsys=capsys)
    assert out.strip() == "1 sealed runs, 0 damaged"
