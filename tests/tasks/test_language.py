"""Language as a task: its windows, its figures checked by hand, its samples, and the promises of every run."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.training.runs import CPU, ROOT, goes_on_to_the_same_bytes, in_parts, jobs, sealed_bytes
from ticketsmith import api
from ticketsmith.config import load_recipe
from ticketsmith.errors import DataError, PruningError, RecipeError, TaskError, TicketSmithError
from ticketsmith.evidence.sample_files import Sample
from ticketsmith.models.gpt import GPT
from ticketsmith.store.contract import SealedRun
from ticketsmith.store.directory import DirectoryStore
from ticketsmith.tasks import task as tasks
from ticketsmith.tasks.generation import continuation
from ticketsmith.tasks.language import Language
from ticketsmith.training.device import prepare
from ticketsmith.training.produce import Hooks, produce

TINY: dict[str, Any] = {"name": "gpt", "width": 16, "depth": 1, "heads": 2}


@pytest.fixture(autouse=True)
def _deterministic() -> None:
    prepare("cpu")


@pytest.fixture
def language(tmp_path: Path) -> Callable[..., Language]:
    """A language task on a text that tells for each of its places which one it is."""

    def make(text: str = "".join(chr(0x4E00 + i) for i in range(1_000)), **options: Any) -> Language:
        (tmp_path / "text.txt").write_text(text)
        return Language({"name": "text", "path": "text.txt"}, TINY, base=tmp_path, **{"context": 10, **options})

    return make


class Uniform(nn.Module):
    """Every token is as likely as any other."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, tokens: Tensor) -> Tensor:
        return torch.zeros(*tokens.shape, self.size)


class Table(nn.Module):
    """What comes next depends on the last token alone."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.randn(size, size, generator=torch.Generator().manual_seed(5)))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.logits[tokens]


def test_windows_are_of_the_training_part_and_targets_one_ahead(language: Callable[..., Language]) -> None:
    task = language()
    inputs, targets = task.batch(torch.arange(task.train_size), CPU, torch.Generator().manual_seed(0))
    assert task.train_size == 80  # windows of 10 in the first 801 places, each with a place after it
    assert inputs.shape == targets.shape == (80, 10)
    assert inputs.dtype == torch.int64
    assert torch.equal(inputs[:, 1:], inputs[:, :-1] + 1)
    assert torch.equal(targets, inputs + 1)
    begins = inputs[:, 0] - 1  # token 0 is the line break at the end
    own = torch.arange(80) * 10
    assert int(begins.max()) + 10 <= 800
    assert bool(((begins >= own) & (begins < own + 10)).all()), "each window begins in its own part of the text"
    assert len(set((begins - own).tolist())) > 5, "at a place that is drawn"
    again = task.batch(torch.arange(task.train_size), CPU, torch.Generator().manual_seed(0))[0]
    assert torch.equal(inputs, again)


def test_every_token_but_the_first_is_judged_once(language: Callable[..., Language]) -> None:
    text = "".join("abcde"[(i * i + i // 7) % 5] for i in range(1_037))
    task = language(text)
    for split, part in (("validation", text[830:934]), ("test", text[934:] + "\n")):
        tokens = torch.tensor([sorted({*text, "\n"}).index(c) for c in part])
        with torch.no_grad():
            measured = task.evaluate(Table(6), split, CPU)  # type: ignore[arg-type]
            expected = nn.functional.cross_entropy(Table(6)(tokens[None, :-1])[0], tokens[1:])
        assert measured["loss"] == pytest.approx(float(expected), rel=1e-6)
        assert measured["perplexity"] == pytest.approx(math.exp(float(expected)), rel=1e-6)
        assert measured["bits_per_character"] == pytest.approx(float(expected) / math.log(2), rel=1e-6)


def test_a_model_of_another_form_is_refused(language: Callable[..., Language]) -> None:
    task = language()
    batch = task.batch(torch.arange(2), CPU, torch.Generator())
    with pytest.raises(TaskError, match=r"task.model gives \(2, 10, 3\) for tokens of shape \(2, 10\)"):
        task.loss(Uniform(3), batch, torch.Generator())


def test_bits_are_of_characters_whatever_the_tokens_are(language: Callable[..., Language]) -> None:
    task = language("éü" * 500 + "\n", tokenizer="bytes")
    measured = task.evaluate(Uniform(256), "test", CPU)
    assert measured["loss"] == pytest.approx(math.log(256))
    assert measured["bits_per_character"] == pytest.approx(16, rel=0.01)  # two bytes each, and one line break


def test_a_loss_without_bounds_is_no_overflow(language: Callable[..., Language]) -> None:
    class Sure(Uniform):
        def forward(self, tokens: Tensor) -> Tensor:
            return torch.cat((torch.full((*tokens.shape, 1), 1e4), torch.zeros(*tokens.shape, self.size - 1)), dim=-1)

    assert math.isfinite(language().evaluate(Sure(1001), "test", CPU)["perplexity"])


def test_examples_are_real_and_serving_is_told(language: Callable[..., Language]) -> None:
    task = language()
    example = task.example(150)
    assert example.shape == (150, 10)
    assert int(example.min()) >= 900
    assert (task.unit, task.units_per_input) == ("token", 10)
    assert [(phase.name, phase.past, phase.new) for phase in task.phases()] == [("prefill", 0, 5), ("decode", 5, 1)]


def test_a_phase_can_be_timed_again_and_again(language: Callable[..., Language]) -> None:
    task = language()
    torch.manual_seed(0)
    model = task.build_model().eval()
    assert isinstance(model, GPT)
    tokens = task.example(3)
    with torch.inference_mode():
        whole = model(tokens)
    for phase in task.phases():
        call, new = phase.begin(model, tokens)
        assert new.shape == (3, phase.new)
        expected = whole[:, phase.past : phase.past + phase.new]
        for _ in range(20):
            torch.testing.assert_close(call(new), expected)


def test_samples_continue_their_prompts_alike_each_time(language: Callable[..., Language]) -> None:
    task = language("the cat sat on the mat. " * 60, prompts=("the cat", "a\nmat"), sample_length=33)
    torch.manual_seed(0)
    model = task.build_model().eval()
    with torch.inference_mode():
        made = task.samples(model, CPU)
        torch.manual_seed(99)
        assert task.samples(model, CPU) == made
    headings = [heading for heading, _ in Sample("x", 0, 0, 0.0, made["samples.txt"].decode()).passages]
    assert headings == ["the cat", "a mat"]
    cold = language("the cat sat on the mat. " * 60, temperature=0.0)
    with torch.inference_mode():
        assert cold.samples(model, CPU) != made


def test_default_prompts_are_lines_of_the_test_part(language: Callable[..., Language]) -> None:
    lines = [f"{word} is the word of line {i}" for i, word in enumerate(["alpha", "beta", "gamma", "delta"] * 60)]
    task = language("\n".join(lines), context=12, sample_length=3)
    with torch.inference_mode():
        text = task.samples(task.build_model(), CPU)["samples.txt"].decode()
    headings = [heading for heading, _ in Sample("x", 0, 0, 0.0, text).passages]
    assert len(headings) == 3
    assert all(any(line[:12] == heading or heading in line for line in lines[-60:]) for heading in headings)


def test_what_a_model_writes_is_never_taken_for_a_heading(language: Callable[..., Language]) -> None:
    written = b"one\n=== no heading ===\ntwo"

    class Writer(nn.Module):
        """Gives what is to be written, byte by byte, whatever it reads."""

        def forward(self, tokens: Tensor) -> Tensor:
            return nn.functional.one_hot(torch.tensor([list(written)]), 256).float()[:, : tokens.shape[1]] * 1e3

    task = language("x" * 600, tokenizer="bytes", context=len(written), prompts=("\x09",), sample_length=len(written))
    made = task.samples(Writer(), CPU)["samples.txt"].decode()
    passages = Sample("x", 0, 0, 0.0, made).passages
    assert [heading for heading, _ in passages] == ["'\\t'"]
    assert "=== no heading ===" in passages[0][1]


def test_the_cache_writes_what_the_model_writes_without_it() -> None:
    torch.manual_seed(1)
    model = GPT((12,), 30, width=16, depth=2, heads=2).eval()
    for parameter in model.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape)

    class Plain(nn.Module):
        def forward(self, tokens: Tensor) -> Tensor:
            assert tokens.shape[1] <= 12
            return model(tokens)  # type: ignore[no-any-return]

    with torch.inference_mode():
        for temperature in (0.0, 1.0):
            for prompt in ([3], list(range(9)), list(range(29))):
                given = (prompt, 40, 12, temperature, 0, CPU)
                assert continuation(model, *given) == continuation(Plain(), *given)
        streams = [continuation(model, [3], 20, 12, 1.0, stream, CPU) for stream in (0, 1)]
    assert streams[0] != streams[1]


def test_tokens_are_drawn_as_likely_as_they_are() -> None:
    class Fixed(nn.Module):
        def forward(self, tokens: Tensor) -> Tensor:
            return torch.tensor([0.1, 0.2, 0.7]).log().expand(1, tokens.shape[1], 3)

    drawn = torch.tensor(continuation(Fixed(), [0], 3_000, 4, 1.0, 0, CPU)).bincount(minlength=3) / 3_000
    torch.testing.assert_close(drawn, torch.tensor([0.1, 0.2, 0.7]), atol=0.03, rtol=0)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"text": "short"}, TaskError, r"the train part of 'text' has 5 tokens \(5 characters\): a window needs 11"),
        ({"context": 100}, TaskError, "the validation part of 'text' has 100 tokens.* a window needs 101"),
        ({"validation": 0.5, "test": 0.5}, TaskError, "above 0 and together below 1"),
        ({"prompts": ("ABC",)}, DataError, "the text of the task has no 'A'"),
        ({"tokenizer": "words"}, DataError, "task.tokenizer: unknown 'words'"),
    ],
)
def test_what_does_not_fit_is_refused(
    language: Callable[..., Language], options: dict[str, Any], error: type[TicketSmithError], message: str
) -> None:
    with pytest.raises(error, match=message):
        language(**options)


RECIPE = """
experiment: tiny
task:
  name: language
  data: {name: text, path: words.txt}
  model: {name: gpt, width: 16, depth: 1, heads: 2, dropout: 0.1}
  context: 16
  sample_length: 20
training: {optimizer: adamw, lr: 0.01, weight_decay: 0.1, batch_size: 8, duration: 24it, evaluate_every: 8it}
pruning: {levels: 2, fraction: 0.5, rates: {"blocks.*.mlp.*": 0.6}}
rewind: 2it
replicates: 1
variants: {random_ticket: false}
gates: {metrics: {loss: {max_relative_increase: 0.05}}, target_sparsity: 0.5}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / "words.txt").write_text("".join(f"{i} squared is {i * i}\n" for i in range(120)))
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "recipe.json").write_text('{"no": "tokenizer"}')
    return tmp_path / "recipe.yaml"


def test_the_same_spec_gives_the_same_bytes_interrupted_or_not(tmp_path: Path, recipe: Path) -> None:
    made = jobs(recipe)
    names = [("rewind_point", 0, 0), ("dense", 0, 0), ("ticket", 1, 0), ("ticket", 2, 0), ("random_reinit", 2, 0)]
    whole, broken = DirectoryStore(tmp_path / "whole"), DirectoryStore(tmp_path / "broken")
    for name in names:
        assert produce(made[name], whole, CPU, Hooks()) == "trained"
    interruptions = sum(in_parts(made[name], broken, 5) for name in names)
    assert interruptions > 12
    assert sealed_bytes(tmp_path / "whole") == sealed_bytes(tmp_path / "broken")
    run = SealedRun(whole, made["ticket", 2, 0].folder)
    assert run.read("samples.txt").count(b"===") == 6
    layers = run.read_json("metrics.json")["layers"]
    kept = {name: layer["kept"] / layer["total"] for name, layer in layers.items()}
    assert kept["blocks.0.attention.qkv.weight"] == pytest.approx(0.25, abs=0.01)
    assert kept["blocks.0.mlp.up.weight"] == pytest.approx(0.16, abs=0.01)
    assert not any(name.startswith(("embedding", "head")) for name in kept)


def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path: Path, recipe: Path) -> None:
    goes_on_to_the_same_bytes(recipe, tmp_path)


def test_what_changes_a_run_changes_its_key_and_a_moved_file_does_not(tmp_path: Path, recipe: Path) -> None:
    key = jobs(recipe)["ticket", 1, 0].spec.key
    for override in (
        "task.context=17",
        "task.tokenizer=bytes",
        "task.temperature=0.5",
        "task.model.positions=learned",
        "task.validation=0.2",
    ):
        assert jobs(recipe, override)["ticket", 1, 0].spec.key != key, override
    for override in ("task.tokenizer=characters", "task.temperature=0.8", "task.model.positions=rotary"):
        assert jobs(recipe, override)["ticket", 1, 0].spec.key == key, override
    (tmp_path / "elsewhere").mkdir()
    moved = (tmp_path / "words.txt").rename(tmp_path / "elsewhere" / "w.txt")
    assert jobs(recipe, f"task.data.path={moved}")["ticket", 1, 0].spec.key == key
    moved.write_text(moved.read_text().replace("squared", "Squared"))
    assert jobs(recipe, f"task.data.path={moved}")["ticket", 1, 0].spec.key != key


@pytest.mark.parametrize(
    ("override", "error", "message"),
    [
        ("task.data=text", DataError, "the data set 'text' needs a file: write"),
        ("task.data.path=no.txt", DataError, "there is no file .*no.txt"),
        ("task.contxt=9", RecipeError, "task.contxt: unknown key. Did you mean 'context'"),
        ("task.model.positions=absolute", RecipeError, "option 'positions': Input should be 'rotary' or 'learned'"),
        ("task.model.heads=3", TaskError, "width 16 is not 3 heads"),
        ("task.name=langauge", RecipeError, "built in are 'classification', 'language'"),
        ("pruning.rates={'blocks.*.ml': 0.5}", PruningError, "pruning.rates: 'blocks.*.ml' matches no layer"),
        ("gates.metrics={accuracy: {max_drop: 1}}", RecipeError, "does not measure 'accuracy'"),
        ("task.context=500", TaskError, "a window needs 501"),
        ("task.tokenizer=recipe.json", DataError, "recipe.json is not the file of a tokenizer .*Name a tokenizer.json"),
        ("task.data.path=.", DataError, r"is a folder. Its files go by a pattern, such as .*/\*\.txt"),
    ],
)
def test_mistakes_in_a_recipe_are_named(
    recipe: Path, override: str, error: type[TicketSmithError], message: str
) -> None:
    with pytest.raises(error, match=message):
        api.prepare(load_recipe(recipe, [override]))


def test_the_protocols_are_kept(language: Callable[..., Language]) -> None:
    assert isinstance(language(), tasks.Task)


@pytest.mark.parametrize("name", ["imp_gpt_pydocs", "imp_gpt_shakespeare"])
def test_the_shipped_recipes_are_ready(name: str, tmp_path: Path) -> None:
    (tmp_path / "plays.txt").write_text("ROMEO:\nAy me!\n\nJULIET:\nWherefore art thou Romeo?\n\n" * 60)
    path = ROOT / "configs" / f"{name}.yaml"
    override = [f"task.data.path={tmp_path / 'plays.txt'}"] if name.endswith("shakespeare") else []
    ready = api.prepare(load_recipe(path, override))
    assert 100_000 <= ready.facts.parameters <= 400_000
    if override:
        with pytest.raises(DataError, match=r"--set task\.data\.path=my\.txt"):
            api.prepare(load_recipe(path))
