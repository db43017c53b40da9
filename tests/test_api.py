"""The Python API as a notebook uses it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import ticketsmith
from ticketsmith.execute.executor import Event
from ticketsmith.execute.worker import Ended
from ticketsmith.store.directory import DirectoryStore

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> ticketsmith.Experiment:
    from tests.conftest import DIGITS

    folder = tmp_path_factory.mktemp("api")
    (folder / "recipe.yaml").write_text(DIGITS)
    recipe = ticketsmith.load(folder / "recipe.yaml", [f"store={folder / 'runs'}", "benchmark.rounds=10"])
    events: list[Event] = []
    made = ticketsmith.run(recipe, workers=2, on_event=events.append)
    assert {event.outcome for event in events if isinstance(event, Ended)} == {"trained"}
    return made


def test_the_table_has_a_row_for_each_level_of_each_variant(experiment: ticketsmith.Experiment) -> None:
    table = experiment.table()
    assert len(table) == 1 + 2 * 3
    assert (folder := Path(experiment.store.url) / "digits/report/index.html").is_file(), folder


def test_the_scorecard_is_priced_anew_without_writing(experiment: ticketsmith.Experiment) -> None:
    card = experiment.scorecard("my-laptop=0.10")
    assert card.lead is not None
    assert card.lead.dense is not None
    assert card.per_million(card.lead.dense) == pytest.approx(
        0.1 / 3600 * 1e6 * card.lead.dense.seconds / card.streams(1)
    )
    assert experiment.scorecard().rate is None


def test_a_ticket_is_a_ready_module(experiment: ticketsmith.Experiment) -> None:
    model = experiment.ticket(sparsity=0.7)
    assert isinstance(model, nn.Module)
    assert not model.training
    weights = [p for name, p in model.named_parameters() if name.endswith("weight")]
    zeros = sum(int((w == 0).sum()) for w in weights) / sum(w.numel() for w in weights)
    assert 0.7 < zeros < 0.8
    assert tuple(model(torch.zeros(3, 1, 8, 8)).shape) == (3, 10)
    result = next(r for r in experiment.results if (r.variant, r.level, r.seed) == ("ticket", 2, 0))
    assert result.final is not None
    images, labels = _test_split()
    correct = 100.0 * float((model(images).argmax(1) == labels).double().mean())
    assert correct == pytest.approx(result.final.test["accuracy"])


def _test_split() -> tuple[Tensor, Tensor]:
    from ticketsmith.data import load

    found = load("digits", {})
    mean, std = (torch.tensor(value).view(1, -1, 1, 1) for value in (found.mean, found.std))
    inputs = torch.tensor(found.test.inputs)
    scaled = inputs.float() / 255 if inputs.dtype == torch.uint8 else inputs
    return (scaled - mean) / std, torch.tensor(found.test.labels)


def test_an_experiment_opens_from_its_store(experiment: ticketsmith.Experiment) -> None:
    again = ticketsmith.open_experiment("digits", experiment.store.url)
    assert again.table().equals(experiment.table())
    spot = again.sweet_spot()
    assert spot is None or spot.variant == "ticket"
    with pytest.raises(ticketsmith.TicketSmithError, match=r"no experiment 'absent'. Here are: digits"):
        ticketsmith.open_experiment("absent", experiment.store.url)
    with pytest.raises(ticketsmith.TicketSmithError, match="no sealed 'ticket' run"):
        again.ticket(sparsity=0.999)


def test_a_user_s_own_model_data_and_criterion(tmp_path: Path, recipe_file: Callable[..., Path]) -> None:
    """Found beside the recipe; editing the model's source or the data is another spec."""
    (tmp_path / "mine.py").write_text(
        "import numpy as np\n"
        "from torch import nn\n\n\n"
        "class Net(nn.Module):\n"
        "    def __init__(self, classes: int, width: int = 8) -> None:\n"
        "        super().__init__()\n"
        "        self.body = nn.Sequential(nn.Flatten(), nn.Linear(6, width), nn.ReLU(), nn.Linear(width, classes))\n\n"
        "    def forward(self, x):\n"
        "        return self.body(x)\n\n\n"
        "def blobs(seed: int = 0):\n"
        "    rng = np.random.default_rng(seed)\n"
        "    y = rng.integers(0, 3, 600)\n"
        "    x = (rng.normal(size=(600, 6)) + y[:, None]).astype('float32')\n"
        "    return x[:400], y[:400], x[400:], y[400:]\n\n\n"
        "def largest(scoring):\n"
        "    return {name: -weight.detach().abs() for name, weight in scoring.weights.items()}\n"
    )
    recipe = ticketsmith.load(
        recipe_file(
            ("data: digits", "data: {name: 'mine:blobs', seed: 1}"),
            ("model: {name: mlp, widths: [32, 16]}", "model: {name: 'mine:Net', width: 12}"),
            ("validation: 200", "validation: 100"),
            ("rates: {output: 0.25}", "criterion: 'mine:largest'"),
            ("replicates: 2", "replicates: 1"),
        ),
        [f"store={tmp_path / 'runs'}"],
    )
    experiment = ticketsmith.run(recipe, benchmark=False, workers=1)
    assert experiment.outcome.failed == {}
    dense, ticket = experiment.ticket(0.0, variant="dense"), experiment.ticket(0.5)
    mask = ticket.get_parameter("body.1.weight") != 0
    assert bool(mask.any())
    scores = dense.get_parameter("body.1.weight").abs()
    assert scores[mask].max() < scores[~mask].min(), "the user's criterion removes the largest"


class NamedStore(DirectoryStore):
    """A store of the user's own, by dotted name."""

    def __init__(self, root: str, tag: str) -> None:
        super().__init__(Path(root) / tag)


def test_a_store_of_the_user_s_own_serves_workers_too(tmp_path: Path, recipe_file: Callable[..., Path]) -> None:
    name = f"{{name: 'tests.test_api:NamedStore', root: '{tmp_path}', tag: mine}}"
    recipe = ticketsmith.load(recipe_file(("replicates: 2", "replicates: 1")), [f"store={name}"])
    experiment = ticketsmith.run(recipe, variants=["ticket"], benchmark=False)
    assert experiment.outcome.failed == {}
    assert len(list((tmp_path / "mine/digits/ticket/seed-0").iterdir())) == 2
    with pytest.raises(ticketsmith.TicketSmithError, match="takes no option 'tga'"):
        ticketsmith.run(ticketsmith.load(recipe_file(), [f"store={name.replace('tag', 'tga')}"]))


def test_a_recipe_in_another_folder_keeps_its_own_modules(
    tmp_path: Path, recipe_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opened later from its store alone, an experiment finds them where the caller says, and nowhere that a store names."""
    (tmp_path / "beside_the_recipe.py").write_text(
        "from ticketsmith.models.lenet import LeNet\n\n\n"
        "def net(input_shape, classes):\n    return LeNet(input_shape, classes, (8,))\n"
    )
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    recipe = recipe_file(("model: {name: mlp, widths: [32, 16]}", "model: 'beside_the_recipe:net'"))
    ticketsmith.run(ticketsmith.load(recipe, ["replicates=1"]), variants=["dense"], benchmark=False)
    again = ticketsmith.open_experiment("digits", "runs", base=tmp_path)
    assert isinstance(again.ticket(0.0, variant="dense"), nn.Module)


def test_importing_the_package_is_cheap() -> None:
    import subprocess
    import sys

    code = "import sys, ticketsmith; sys.exit('torch' in sys.modules or 'pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
