"""One replicate from recipe to report: its gate is judged by examples, and says what that is about."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import ticketsmith
from tests.training.runs import CPU, jobs, sealed_bytes
from ticketsmith import api
from ticketsmith.config import load_recipe
from ticketsmith.errors import DamagedRunError, Exit, RecipeError, TaskError
from ticketsmith.evidence.outcomes import FILE, SealedOutcomes
from ticketsmith.evidence.verdicts import Status
from ticketsmith.report.sentences.caveats import caveats
from ticketsmith.report.sentences.headline import headline
from ticketsmith.report.sentences.verdicts import reason
from ticketsmith.report.story import tell
from ticketsmith.store.contract import MANIFEST, SealedRun
from ticketsmith.store.directory import DirectoryStore
from ticketsmith.tasks.task import Evaluation
from ticketsmith.training import checkpoint
from ticketsmith.training.device import prepare, prepared
from ticketsmith.training.loop import measure
from ticketsmith.training.produce import Hooks, Interrupted, produce

Write = Callable[..., Path]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits with one seed, and a tiny language model that is pruned after training."""
    folder = tmp_path_factory.mktemp("one")
    (folder / "text.txt").write_text(" ".join(f"{i} times {i % 7} is {i * (i % 7)}." for i in range(2_000)))
    for text in (DIGITS, LANGUAGE):
        (folder / "recipe.yaml").write_text(text)
        api.train(
            api.prepare(load_recipe(folder / "recipe.yaml", [f"store={folder / 'runs'}"])), workers=1, device="cpu"
        )
    return folder / "runs"


DIGITS = """
experiment: digits
task: {data: digits, model: {name: mlp, widths: [32]}, validation: 200}
training: {optimizer: adam, lr: 0.003, batch_size: 50, duration: 150it, evaluate_every: 50it}
pruning: {levels: 1, fraction: 0.5}
replicates: 1
variants: {random_reinit: false, random_ticket: false}
gates: {metrics: {accuracy: {max_drop: 5.0}}, target_sparsity: 0.4}
"""

LANGUAGE = """
experiment: text
task: {name: language, data: {name: text, path: text.txt}, model: {name: gpt, width: 16, depth: 1, heads: 2}, context: 32,
  sample_length: 8}
training: {optimizer: adam, lr: 0.01, batch_size: 16, duration: 80it, evaluate_every: 40it}
pruning: {levels: 2, fraction: 0.2}
replicates: 1
variants: {ticket: false, random_reinit: false, random_ticket: false, post_training: {rivals: []}}
gates: {metrics: {loss: {max_relative_increase: 0.25}, perplexity: {max_drop: 3.0}}}
"""


def test_a_gate_of_one_seed_passes_by_its_examples_and_says_so(store: Path) -> None:
    experiment = ticketsmith.open_experiment("digits", store)
    findings = experiment.judge()
    assert experiment.exit_status is Exit.OK
    assert "(95 % confidence over test examples, one network)" in headline(findings)
    (verdict,) = findings.test
    assert verdict.bound is not None
    assert verdict.estimate is not None
    assert verdict.estimate < verdict.bound <= 5.0
    why = reason(verdict, findings.metric, findings.policy)
    assert "with 95 % confidence over 360 test examples at most" in why
    assert why.endswith("(of this network, and not of other seeds)")
    assert "not about the recipe. Another seed may give another answer" in " ".join(caveats(findings))
    assert "paired test of one network over test examples at 95 % confidence" in str(tell(findings))
    document = json.loads((store / "digits/gates.json").read_text())
    assert document["policy"]["method"] == "examples"
    assert document["test"][0]["examples"]["examples"] == 360
    assert document["test"][0]["bound"] == verdict.bound


def test_outcomes_are_what_the_metrics_are_the_mean_of(store: Path) -> None:
    for name in ("digits", "text"):
        experiment = ticketsmith.open_experiment(name, store)
        for result in experiment.results:
            assert isinstance(result.outcomes, SealedOutcomes)
            for at in ("final", "early_stop"):
                scores = result.scores(at)
                assert scores is not None
                for split in ("validation", "test"):
                    for metric, value in scores.on(split).items():
                        outcomes = result.outcomes.of(metric, split, at)
                        assert (outcomes is None) == (name == "digits" and metric == "loss")
                        assert outcomes is None or outcomes.metric == pytest.approx(value, rel=1e-6)
    sizes = [path.stat().st_size for path in (store / "digits").rglob(FILE)]
    assert len(sizes) == 2
    assert max(sizes) < 2 * (200 + 360) // 8 + 1_000


def test_a_language_model_is_judged_by_blocks_of_its_text(store: Path) -> None:
    findings = ticketsmith.open_experiment("text", store).findings
    assert findings.policy.method == "examples"
    mild = findings.verdicts("post_training", 1)
    for verdict in mild:
        assert verdict.examples is not None
        assert (verdict.examples.unit, verdict.examples.clusters) == ("blocks", 8)
        assert verdict.estimate == pytest.approx(verdict.examples.estimate, rel=1e-4, abs=1e-6)
        assert "test examples in 8 blocks" in reason(verdict, findings.metrics[verdict.gate.metric], findings.policy)
    assert {verdict.status for verdict in mild} == {Status.PASS}
    assert "one network" in headline(findings)


def test_runs_of_an_earlier_version_are_compared_by_their_means(store: Path, tmp_path: Path) -> None:
    shutil.copytree(store, tmp_path / "runs")
    for manifest in (tmp_path / "runs/digits/ticket").rglob(MANIFEST):
        (manifest.parent / FILE).unlink()
        document = json.loads(manifest.read_text())
        del document["files"][FILE]
        manifest.write_text(json.dumps(document))
    findings = ticketsmith.open_experiment("digits", tmp_path / "runs").findings
    assert "(1 seed: a point estimate, no confidence)" in headline(findings)
    assert findings.policy.method == "point"
    assert findings.test[0].bound is None


def test_a_changed_file_of_outcomes_is_refused_by_name(store: Path, tmp_path: Path) -> None:
    shutil.copytree(store, tmp_path / "runs")
    place = next((tmp_path / "runs/digits/ticket").rglob(FILE))
    place.write_bytes(place.read_bytes()[:-1] + b"\0")
    experiment = ticketsmith.open_experiment("digits", tmp_path / "runs")
    with pytest.raises(DamagedRunError, match=r"ticket/seed-0/level-01-\w+/outcomes\.safetensors was changed"):
        _ = experiment.findings


def test_several_replicates_are_no_one_network(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(DIGITS.replace("replicates: 1", "replicates: 3"))
    with pytest.raises(RecipeError, match=r"`gates\.method: examples` judges one network, and `replicates` is 3"):
        load_recipe(tmp_path / "recipe.yaml", ["gates.method=examples"])


def test_a_checkpoint_without_outcomes_ends_with_the_same_bytes(recipe_file: Write, tmp_path: Path) -> None:
    """As one of an earlier version is."""
    job = jobs(recipe_file(("120it", "40it"), ("30it", "10it")))["dense", 0, 0]
    prepare("cpu")
    whole, parts = DirectoryStore(tmp_path / "whole"), DirectoryStore(tmp_path / "parts")
    produce(job, whole, CPU, Hooks())
    steps = iter(range(100))
    with pytest.raises(Interrupted):
        produce(job, parts, CPU, Hooks(stop=lambda: next(steps) == 39))
    plain = checkpoint.from_bytes

    def earlier(content: bytes, what: str) -> object:
        tensors, note = plain(content, what)
        assert tensors.pop("outcomes").numel()
        return tensors, note

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "from_bytes", earlier)
        assert produce(job, parts, CPU, Hooks()) == "trained"
    assert FILE in SealedRun(whole, job.folder).files
    assert sealed_bytes(tmp_path / "whole") == sealed_bytes(tmp_path / "parts")


def test_outcomes_of_ones_own_that_do_not_fit_are_told(store: Path) -> None:
    task = ticketsmith.open_experiment("digits", store).task
    plain = type(task).evaluate
    lies = {
        "come to .* and the metric is": lambda right: {"accuracy": right.accuracy(right.values[:50])},
        "is none of its metrics": lambda right: {"recall": right.accuracy(right.values)},
        "one for each example is needed": lambda right: {"accuracy": right.accuracy(right.values[:, None])},
    }

    class Right:
        def __init__(self, evaluation: Evaluation) -> None:
            self.outcomes = evaluation.outcomes["accuracy"]
            self.values = self.outcomes.values

        def accuracy(self, values: object) -> object:
            return type(self.outcomes)(values, scale=100.0)  # type: ignore[arg-type]

    with prepared("cpu"):
        model = task.build_model()
        for message, lie in lies.items():
            task.evaluate = lambda *given, lie=lie: Evaluation(metrics := plain(task, *given), lie(Right(metrics)))
            with pytest.raises(TaskError, match=f"task.evaluate.*{message}"):
                measure(task, model, "test", CPU)
