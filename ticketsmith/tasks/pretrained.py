"""Networks of Hugging Face as modules of one input: tokens in, logits out; they go back to a folder of Hugging Face."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ticketsmith.data.pretrained import transformers
from ticketsmith.errors import TaskError
from ticketsmith.pruning.weights import weights

Head = Literal["sequence_classification", "causal_lm"]

_CLASSES = {
    "sequence_classification": "AutoModelForSequenceClassification",
    "causal_lm": "AutoModelForCausalLM",
}


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
        # Then a mask may be given as attention uses it, which leaves nothing to compute from it in an exported graph. Models
        # whose attention is local in some layers are given the plain mask, from which they make their own.
        self._takes_masks = getattr(config, "_attn_implementation", None) == "sdpa" and _sees_all(config)
        self._is_encoder = _is_encoder(config)
        body = f"network.{getattr(network, 'base_model_prefix', '')}."
        layers = (one.name for one in weights(self) if any(holder.is_default for holder in one.holders))
        self.dense_by_default = tuple(name for name in layers if not name.startswith(body))

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
        words = tokenizer(self._folder)
        if words.pad_token_id is None and self._pad is not None:
            words.pad_token_id = self._pad
        words.save_pretrained(str(folder))


class PretrainedLanguageModel(Pretrained):
    """One that decodes token by token."""

    def session(self, batch: int = 1, capacity: int | None = None) -> Session:
        """A place to decode ``batch`` sequences; its cache grows with them, whatever ``capacity`` is."""
        return Session(self, batch)

    def stepper(self) -> Stepper:
        """What a session computes, as a function that keeps nothing. Raises TaskError where keys and values of all tokens
        are not what the model remembers."""
        if not self._takes_masks:
            kind = self.network.config.model_type  # type: ignore[union-attr]
            raise TaskError(f"a step of a {kind!r} model is no function of keys and values of all tokens.")
        return Stepper(self)


class Session:
    """Decoding with a cache of keys and values: what was read before is not computed again."""

    def __init__(self, model: Pretrained, batch: int) -> None:
        if batch < 1:
            raise TaskError(f"a session of {batch} sequences: give 1 or more.")
        self._network: Any = model.network
        self.batch = batch
        self._length, self._cache = 0, self._empty()

    @property
    def length(self) -> int:
        """Tokens read so far. Setting it back forgets those that came after."""
        return self._length

    @length.setter
    def length(self, length: int) -> None:
        if not 0 <= length <= self._length:
            raise TaskError(f"a session of {self._length} tokens cannot go back to {length}.")
        if length == 0:
            self._cache = self._empty()
        elif length < self._length:
            self._crop(self._length - length)
        self._length = length

    def __call__(self, tokens: Tensor) -> Tensor:
        """Reads new tokens ``[batch, n]`` and gives their logits ``[batch, n, vocabulary]``."""
        if tokens.dim() != 2 or len(tokens) != self.batch or not tokens.shape[1]:
            raise TaskError(f"a session of {self.batch} sequences was given tokens of shape {tuple(tokens.shape)}.")
        with torch.no_grad():
            answer = self._network(input_ids=tokens, past_key_values=self._cache, use_cache=True)
        self._length += tokens.shape[1]
        logits: Tensor = answer.logits
        return logits

    def _empty(self) -> Any:
        """Layers that see a few tokens only are given a cache of all, since it is the one that can go back anywhere."""
        kinds = set(getattr(self._network.config, "layer_types", None) or ())
        only_attention = kinds <= {"full_attention", "sliding_attention"} and not getattr(
            self._network, "_is_stateful", False
        )
        return transformers().DynamicCache(config=None if only_attention else self._network.config)

    def _crop(self, last: int) -> None:
        try:
            self._cache.crop(-last)
        except RuntimeError as error:  # a recurrent layer keeps a state, not what led to it
            kind = self._network.config.model_type
            raise TaskError(
                f"a session of a {kind!r} model can only go back to 0: it remembers a state, not what was read."
            ) from error


class Stepper(nn.Module):
    """New tokens ``[b, n]`` and the cache to their logits ``[b, n, vocabulary]`` and the longer cache.

    The cache is keys and values of each layer in turn, ``[b, heads, tokens so far, width of a head]``.
    """

    def __init__(self, model: Pretrained) -> None:
        super().__init__()
        self.network: Any = model.network
        self.train(model.training)

    def cache(self, batch: int) -> tuple[Tensor, ...]:
        """That of ``batch`` sequences of which nothing was read."""
        with torch.no_grad():
            one = torch.zeros(1, 1, dtype=torch.int64, device=self.network.device)
            read = self.network(input_ids=one, past_key_values=_joined(()), use_cache=True).past_key_values
        return tuple(
            value.new_zeros(batch, value.shape[1], 0, value.shape[3])
            for layer in read.layers
            for value in (layer.keys, layer.values)
        )

    def forward(self, tokens: Tensor, *cache: Tensor) -> tuple[Tensor, ...]:
        joined, begin = _joined(cache), cache[0].shape[2]
        places = torch.arange(begin + tokens.shape[1], device=tokens.device)
        answer = self.network(
            input_ids=tokens,
            position_ids=places[None, begin:],
            attention_mask=(places <= places[begin:, None])[None, None],
            past_key_values=joined,
            use_cache=True,
        )
        return answer.logits, *(value for layer in joined.layers for value in (layer.keys, layer.values))


def _joined(cache: Sequence[Tensor]) -> Any:
    """The library's cache that holds these keys and values, as they are."""
    joined = transformers().DynamicCache()
    for keys, values in zip(cache[::2], cache[1::2], strict=True):
        layer = joined.layer_class_to_replicate()
        layer.lazy_initialization(keys, values)
        layer.keys, layer.values = keys, values
        joined.layers.append(layer)
    return joined


def tokenizer(folder: Path) -> Any:
    """The tokenizer in a folder, which pads on the right. Raises TaskError when it cannot be read."""
    try:
        fast = transformers().AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the library may fail in any way
        raise TaskError(f"task.model: the tokenizer of {folder} cannot be read: {_first(error)}.") from error
    fast.padding_side = "right"
    return fast


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
        network, report = getattr(library, _CLASSES[head]).from_pretrained(
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
        raise TaskError(
            f"task.model: the weights of {folder} cannot be loaded: {_first(error)}. Copy or download the folder anew."
        ) from error
    prefix = f"{network.base_model_prefix}."
    missing = sorted(name for name in report["missing_keys"] if name.startswith(prefix) and "pooler" not in name)
    if missing:
        raise TaskError(
            f"task.model: the weights of {folder} do not belong to its config.json: {missing[0]!r} is missing"
            f"{_and_more(missing)}. Name a folder whose files were saved together."
        )
    differing = sorted(one for one in report["mismatched_keys"] if head == "causal_lm" or one[0].startswith(prefix))
    if differing:
        name, stored, expected = differing[0]
        raise TaskError(
            f"task.model: the weights of {folder} do not belong to its config.json: {name!r} is {list(stored)} there and "
            f"{list(expected)} by the configuration{_and_more(differing)}. Name a folder whose files were saved together."
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


def _sees_all(config: Any) -> bool:
    """Whether every layer attends to all tokens that it may see, however far away."""
    kinds = set(getattr(config, "layer_types", None) or ())
    if kinds:
        return kinds == {"full_attention"}
    return not any(getattr(config, name, None) for name in ("sliding_window", "local_attention"))


def _is_encoder(config: Any) -> bool:
    """Whether every token sees every other: it is trained by filling gaps."""
    names = transformers().models.auto.modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    return config.model_type in names and not getattr(config, "is_decoder", False)


def _and_more(items: Sequence[Any]) -> str:
    return f", and {len(items) - 1} more" if len(items) > 1 else ""


def _first(error: Exception) -> str:
    return next((line.strip().rstrip(".") for line in str(error).splitlines() if line.strip()), type(error).__name__)
