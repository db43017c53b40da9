"""What a recipe may say of its task: data, model, and what is measured; and how a component is named."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, field_validator, model_validator

from ticketsmith.plugins import is_dotted
from ticketsmith.spec import Frozen

BUILTIN_TASKS = ("classification", "language", "denoising", "huggingface")

Fraction = Annotated[float, Field(gt=0, lt=1)]


def _refuse_infinite(value: Any) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is not a finite number")
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _refuse_infinite(part)


class NamedComponent(BaseModel, extra="allow", frozen=True):
    """A component with options: `{name: mnist_cnn, width: 32}`; the options are those of the component itself."""

    name: str = Field(min_length=1, description="A built-in name, or your own `package.module:attribute`.")

    @model_validator(mode="after")
    def _finite(self) -> NamedComponent:
        _refuse_infinite(self.model_extra)
        return self


def component(value: str | NamedComponent) -> str | dict[str, Any]:
    """One form for one meaning: `{name: mnist_cnn}` is `mnist_cnn`."""
    if isinstance(value, str) or not value.model_extra:
        return value if isinstance(value, str) else value.name
    return {"name": value.name, **value.model_extra}


Component = Annotated[str, Field(min_length=1)] | NamedComponent


class ClassificationTask(Frozen):
    """Classification of images or signals: data, model, and how they meet."""

    name: Literal["classification"] = Field("classification", description="The built-in task, the default.")
    data: Component = Field(
        description="Data set: `mnist`, `fashion_mnist`, `cifar10`, `digits`, `mnist1d`; your own as `{name: npz, path: ...}`, "
        "`{name: npy, path: ...}`, `{name: images, path: ...}`, `{name: parquet, path: ...}`, or a function "
        "`package.module:function`."
    )
    model: Component = Field(
        description="Network: `lenet_300_100`, `mlp`, `mnist_cnn`, `conv2`, `conv4`, `conv6`, `resnet20`, `vgg16`, or your own "
        "`package.module:Class`; options beside `name`."
    )
    validation: int = Field(5000, ge=1, description="Training examples held out for validation.")
    augment: Literal["none", "crop_flip"] = Field("none", description="Random crops and mirroring, as for CIFAR.")


class LanguageTask(Frozen):
    """A language model: text, how it is cut into tokens, and a network that tells the next one."""

    name: Literal["language"] = Field(description="The built-in task for text.")
    data: Component = Field(
        description="Text: `pydocs`, your own files as `{name: text, path: my.txt}` (a path, a pattern, or a list), or a "
        "function `package.module:function` that returns a str."
    )
    model: Component = Field(
        description="Network: `gpt`, or your own `package.module:Class` from tokens `[b, t]` to logits; options beside `name`."
    )
    tokenizer: str = Field(
        "characters", min_length=1, description="`characters`, `bytes`, or the path of a `tokenizer.json`."
    )
    context: int = Field(64, ge=1, le=1_000_000, description="Tokens that the model reads at once.")
    validation: Fraction = Field(0.1, description="Part of the text, after the training part, for validation.")
    test: Fraction = Field(0.1, description="Part of the text, its end, for the test split.")
    prompts: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        (), strict=False, description="What the samples of each level begin with; by default, lines of the test part."
    )
    sample_length: int = Field(160, ge=1, le=10_000, description="Tokens that continue each prompt.")
    temperature: float = Field(0.8, ge=0, description="Of the samples; 0 takes the likeliest token each time.")


class DenoisingTask(Frozen):
    """Generation of images: a network learns to remove noise, and makes images from nothing else."""

    name: Literal["denoising"] = Field(description="The built-in task for making images.")
    data: Component = Field(
        description="Images with labels, grey or colour: the data sets of `classification`, your own files too."
    )
    model: Component = Field(
        description="Network: `unet`, or your own `package.module:Class` from `[b, c + 1 + classes, h, w]`, noisy images, their "
        "time and their class, to `[b, c, h, w]`, images without noise; options beside `name`."
    )
    validation: int = Field(5000, ge=1, description="Training images held out for validation.")
    steps: int = Field(16, ge=1, le=1000, description="Calls of the network for an image.")
    measured: int = Field(
        1000,
        ge=50,
        le=50_000,
        description="Held-out images of each split that the loss and the distances are measured on; as many are made.",
    )


class HuggingFaceTask(Frozen):
    """A pretrained model of Hugging Face, by name or folder: its weights are where every ticket begins."""

    name: Literal["huggingface"] = Field(
        description="The built-in task for pretrained models; needs `ticketsmith[hf]`."
    )
    model: str = Field(
        min_length=1,
        description="A folder with config.json, model.safetensors and a tokenizer; `package:NAME/FOLDER`, one inside an "
        "installed Python package; or a name on the hub, such as `google-bert/bert-base-uncased`.",
    )
    data: Component = Field(
        description="Labelled texts: `docstrings`, `{name: table, path: my.csv, text: ..., label: ...}`, `{name: datasets, "
        "dataset: ...}` of the hub, or a function `package.module:function`. For `causal_lm`, text as in the task `language`, "
        "or a split of `{name: datasets, ...}`."
    )
    head: Literal["sequence_classification", "causal_lm"] = Field(
        "sequence_classification", description="What the model is used for: to label texts, or to go on with them."
    )
    length: int = Field(128, ge=2, le=1_000_000, description="Tokens of an example; a longer text is cut.")
    validation: Fraction = Field(0.1, description="Part of the training examples, or of the text, for validation.")
    revision: str | None = Field(None, description="Commit, tag or branch of a model of the hub.")
    test: Fraction = Field(0.1, description="Of `causal_lm`: part of the text, its end, for the test split.")
    prompts: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        (), strict=False, description="Of `causal_lm`: what samples begin with; by default, lines of the test part."
    )
    sample_length: int = Field(160, ge=1, le=10_000, description="Of `causal_lm`: tokens that continue each prompt.")
    temperature: float = Field(0.8, ge=0, description="Of `causal_lm`, its samples; 0 takes the likeliest token.")

    @model_validator(mode="after")
    def _check(self) -> HuggingFaceTask:
        strange = {"test", "prompts", "sample_length", "temperature"} & self.model_fields_set
        if strange and self.head != "causal_lm":
            raise ValueError(f"`{min(strange)}` belongs to `head: causal_lm`")
        return self


class OwnTask(NamedComponent):
    """A task of your own: `name: package.module:Class`, and its options."""

    name: str = Field(
        json_schema_extra={"pattern": ":"},  # what tells it from the built-in ones
        description="Your own task, `package.module:Class`; the other fields are its options.",
    )

    @field_validator("name")
    @classmethod
    def _dotted(cls, name: str) -> str:
        if not is_dotted(name):
            raise ValueError(
                f"unknown task; built in are {', '.join(map(repr, BUILTIN_TASKS))}, your own goes by 'package.module:Class'"
            )
        return name


def task_kind(value: Any) -> str:
    """Which model checks a task: that of a built-in name, or ``own``."""
    name = value.get("name", "classification") if isinstance(value, dict) else getattr(value, "name", "")
    return name if name in BUILTIN_TASKS else "own"
