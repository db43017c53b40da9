"""Networks of Hugging Face as modules of one input: tokens in, logits out; they go back to a folder of Hugging Face."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ticketsmith.data.pretrained import transformers
from ticketsmith.errors import TaskError
from ticketsmith.pruning.criteria import input_axes

Head = Literal["sequence_classification", "causal_lm"]

_CLASSES = {
    "sequence_classification": "AutoModelForSequenceClassification",
    "causal_lm": "AutoModelForCausalLM",
}
# Encoders whose attention is local in some layers are given the plain mask, from which they make their own.
_LOCAL = ("sliding_window", "local_attention", "layer_types")


class Pretrained(nn.Module):
    """``[b, t]`` tokens to logits: ``[b, classes]``, or ``[b, t, vocabulary]`` of a language model.

    What is no token of the text is told by the padding token ``pad``, so that no second input is needed. Pruned by default
    are the linear layers of the body; embeddings, norms and the head are kept.
    """

    def __init__(self, network: nn.Module, pad: int | None, folder: Path) -> None:
        super().__init__()
        self.network = network
        self._pad, self._folder = pad, folder
        config: Any = network.config
        # Then a mask may be given as attention uses it, which leaves nothing to compute from it in an exported graph.
        self._takes_masks = getattr(config, "_attn_implementation", None) == "sdpa" and not any(
            getattr(config, name, None) for name in _LOCAL
        )
        self._is_encoder = _is_encoder(config)
        body = f"network.{getattr(network, 'base_model_prefix', '')}."
        self.dense_by_default = tuple(name for name in input_axes(self) if not name.startswith(body))

    def forward(self, tokens: Tensor) -> Tensor:
        if self._pad is None and self._takes_masks and _is_traced():
            length = tokens.shape[1]
            mask = torch.ones(length, length, dtype=torch.bool, device=tokens.device).tril()[None, None]
            return self.network(input_ids=tokens, attention_mask=mask, use_cache=False).logits  # type: ignore[no-any-return]
        if self._pad is None:
            return self.network(input_ids=tokens, use_cache=False).logits  # type: ignore[no-any-return]
        is_text = tokens.ne(self._pad)
        mask = is_text[:, None, None, :] if self._takes_masks and self._is_encoder else is_text.long()
        return self.network(input_ids=tokens, attention_mask=mask).logits  # type: ignore[no-any-return]

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes a folder that ``from_pretrained`` of transformers reads: weights as safetensors, configuration, tokenizer."""
        self.network.save_pretrained(str(folder))  # type: ignore[operator]
        tokenizer(self._folder).save_pretrained(str(folder))


class PretrainedLanguageModel(Pretrained):
    """One that decodes token by token."""

    def session(self, batch: int = 1, capacity: int | None = None) -> Session:
        """A place to decode ``batch`` sequences; its cache grows with them, whatever ``capacity`` is."""
        return Session(self, batch)


class Session:
    """Decoding with a cache of keys and values: what was read before is not computed again."""

    def __init__(self, model: Pretrained, batch: int) -> None:
        self._network: Any = model.network
        self.batch = batch
        self.rewind()

    @property
    def length(self) -> int:
        """Tokens read so far."""
        return int(self._cache.get_seq_length())

    def __call__(self, tokens: Tensor) -> Tensor:
        """Reads new tokens ``[batch, n]`` and gives their logits ``[batch, n, vocabulary]``."""
        with torch.inference_mode():
            answer = self._network(input_ids=tokens, past_key_values=self._cache, use_cache=True)
        logits: Tensor = answer.logits
        return logits

    def rewind(self, length: int = 0) -> None:
        """Forgets all but the first ``length`` tokens."""
        if length == 0:
            self._cache = transformers().DynamicCache(config=self._network.config)
        elif length < self.length:
            self._cache.crop(length - self.length)


def tokenizer(folder: Path) -> Any:
    """The tokenizer in a folder, which pads on the right. Raises TaskError when it cannot be read."""
    try:
        found = transformers().AutoTokenizer.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # the library may fail in any way
        raise TaskError(f"task.model: the tokenizer of {folder} cannot be read: {_first(error)}.") from error
    found.padding_side = "right"
    return found


def configuration(folder: Path, head: Head, **options: Any) -> Any:
    """The configuration in a folder. Raises TaskError when transformers does not know it, or it cannot have this head."""
    library = transformers()
    try:
        config = library.AutoConfig.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False, **options
        )
    except Exception as error:
        raise TaskError(f"task.model: config.json of {folder} cannot be used: {_first(error)}.") from error
    can = type(config) in getattr(library, _CLASSES[head])._model_mapping
    if getattr(config, "is_encoder_decoder", False) or not can or (head == "causal_lm" and _is_encoder(config)):
        other = "sequence_classification" if head == "causal_lm" else "causal_lm"
        reason = (
            "reads the tokens that follow too" if can and head == "causal_lm" else "has no such head in transformers"
        )
        raise TaskError(
            f"task.head: {head} does not fit a {config.model_type!r} model: it {reason}. Try `head: {other}`."
        )
    return config


def load(folder: Path, config: Any, head: Head, pad: int | None) -> Pretrained:
    """The network with its pretrained weights, in float32; what the folder does not hold, such as a head, is drawn from
    torch's global generator. Raises TaskError."""
    library = transformers()
    try:
        network, told = getattr(library, _CLASSES[head]).from_pretrained(
            str(folder),
            config=copy.deepcopy(config),
            dtype=torch.float32,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # a head for other classes
            output_loading_info=True,
        )
    except Exception as error:
        raise TaskError(f"task.model: the weights of {folder} cannot be loaded: {_first(error)}.") from error
    prefix = f"{network.base_model_prefix}."
    missing = sorted(name for name in {*told["missing_keys"]} if name.startswith(prefix) and "pooler" not in name)
    if missing:
        raise TaskError(
            f"task.model: the weights of {folder} do not belong to its config.json: {missing[0]!r} and {len(missing) - 1} "
            "more are missing."
        )
    return _module(network, head, pad, folder)


def draw(folder: Path, config: Any, head: Head, pad: int | None) -> Pretrained:
    """The same network with all weights drawn as its configuration says, from torch's global generator."""
    config = copy.deepcopy(config)
    config.dtype = torch.float32
    return _module(getattr(transformers(), _CLASSES[head]).from_config(config), head, pad, folder)


def _module(network: nn.Module, head: Head, pad: int | None, folder: Path) -> Pretrained:
    return (PretrainedLanguageModel if head == "causal_lm" else Pretrained)(network, pad, folder)


def _is_traced() -> bool:
    """Whether a graph is being written. What transformers does to find its causal mask then fits into no ONNX file."""
    return torch.compiler.is_exporting() or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]


def _is_encoder(config: Any) -> bool:
    """Whether every token sees every other: it is trained by filling gaps."""
    names = transformers().models.auto.modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    return config.model_type in names and not getattr(config, "is_decoder", False)


def _first(error: Exception) -> str:
    return next((line.strip().rstrip(".") for line in str(error).splitlines() if line.strip()), type(error).__name__)
