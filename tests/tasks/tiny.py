"""Tiny models of Hugging Face, made on the spot: random weights, and a tokenizer trained on the test's own words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ticketsmith.data.pretrained import transformers

WORDS = {"cold": ["snow", "ice", "frost", "winter"], "hot": ["fire", "sun", "flame", "summer"]}
SENTENCES = [
    (f"the {word} {verb} {rest}", label)
    for label, words in WORDS.items()
    for word in words
    for verb in ("is", "was", "came", "stays")
    for rest in ("near", "far away", "here today", "over the hills", "at night")
]


def tokenizer(folder: Path, kind: str) -> Any:
    """A word-level tokenizer in ``folder``, of BERT's kind (padded, with [CLS] and [SEP]) or GPT's (no padding)."""
    import tokenizers
    from tokenizers import models, pre_tokenizers, processors, trainers

    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"] if kind == "bert" else ["<unk>", "<end>"]
    made = tokenizers.Tokenizer(models.WordLevel(unk_token=marks[1] if kind == "bert" else "<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.train_from_iterator([text for text, _ in SENTENCES], trainers.WordLevelTrainer(special_tokens=marks))
    named: dict[str, str] = {"unk_token": "<unk>", "eos_token": "<end>"}
    if kind == "bert":
        made.post_processor = processors.TemplateProcessing(
            "[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
        named = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token"), marks, strict=True))
    found = transformers().PreTrainedTokenizerFast(tokenizer_object=made, **named)
    found.save_pretrained(str(folder))
    return found


def bert(folder: Path, **options: Any) -> Path:
    """A folder with a 2-layer BERT of width 32."""
    library = transformers()
    words = len(tokenizer(folder, "bert"))
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = library.BertConfig(vocab_size=words, max_position_embeddings=32, **{**sizes, **options})
    torch.manual_seed(7)
    library.BertModel(config).save_pretrained(str(folder))
    return folder


def gpt2(folder: Path) -> Path:
    """A folder with a 2-layer GPT-2 of width 32, whose linear layers are ``Conv1D``."""
    library = transformers()
    words = len(tokenizer(folder, "gpt2"))
    config = library.GPT2Config(vocab_size=words + 3, n_positions=32, n_embd=32, n_layer=2, n_head=2, eos_token_id=1)
    torch.manual_seed(7)
    library.GPT2LMHeadModel(config).save_pretrained(str(folder))
    return folder


def llama(folder: Path) -> Path:
    """A folder with a 1-layer Llama of width 32, whose queries share keys, and which says how it goes on with a text."""
    library = transformers()
    words = len(tokenizer(folder, "gpt2"))
    heads = {"num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = library.LlamaConfig(
        vocab_size=words, hidden_size=32, intermediate_size=64, eos_token_id=1, bos_token_id=1, **heads
    )
    torch.manual_seed(7)
    network = library.LlamaForCausalLM(config)
    network.generation_config = library.GenerationConfig(eos_token_id=1, top_k=7, do_sample=True)
    network.save_pretrained(str(folder))
    return folder


def table(folder: Path, name: str = "sentences.csv") -> Path:
    """The sentences as a CSV of ``text`` and ``label``."""
    path = folder / name
    path.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in SENTENCES))
    return path
