"""What variants and runtimes are called for a reader; those that are not known here are shown as they are."""

from __future__ import annotations

from ticketsmith.evidence.variants import (
    DENSE,
    POST_TRAINING,
    RANDOM_PRUNING,
    RANDOM_REINIT,
    RANDOM_TICKET,
    TICKET,
    UNSTRUCTURED,
)

_VARIANTS = {
    DENSE: "Dense baseline",
    TICKET: "Winning ticket (IMP)",
    UNSTRUCTURED: "Unstructured ticket",
    "lr_rewind": "Learning-rate rewinding",
    "finetune": "Fine-tuning",
    "one_shot": "One-shot",
    POST_TRAINING: "Post-training pruning",
    RANDOM_REINIT: "Random re-initialisation",
    RANDOM_TICKET: "Random ticket (shuffled mask)",
    RANDOM_PRUNING: "Random pruning",
}

_RUNTIMES = {
    "torch": "PyTorch",
    "torch_compile": "torch.compile",
    "torch_csr": "PyTorch CSR",
    "torch_24": "PyTorch 2:4",
    "cuda_graph": "CUDA graph",
    "compact": "Compacted",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "sparse": "TicketSmith sparse",
}


def display(variant: str) -> str:
    """The name for a reader; a variant that is not known here is shown as it is."""
    if variant not in _VARIANTS and variant.startswith("post_"):
        return f"Post-training pruning, {variant.removeprefix('post_')}"
    return _VARIANTS.get(variant, variant)


def in_sentence(variant: str) -> str:
    """The name in the middle of a sentence: ``the ticket``, ``post-training pruning``."""
    name = display(variant)
    return "the ticket" if variant == TICKET else "dense" if variant == DENSE else f"{name[:1].lower()}{name[1:]}"


def begun(text: str) -> str:
    """As the beginning of a sentence."""
    return f"{text[:1].upper()}{text[1:]}"


def runtime_name(runtime: str) -> str:
    """A runtime's name: ``onnxruntime,threads=2 -> "ONNX Runtime,threads=2"``."""
    name, comma, options = runtime.partition(",")
    return f"{_RUNTIMES.get(name, name)}{comma}{options}"
