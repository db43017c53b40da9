"""What a benchmark is asked to do. Needs no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ticketsmith.errors import RecipeError

PRECISIONS = ("float32", "bfloat16", "int8")
FILE_PRECISIONS = (*PRECISIONS, "int4", "mixed")
"""Those of candidates, which are files: weights of some may have 4 bits, layers of some precisions of their own."""

BATCH_SIZES = (1, 8, 32, 64)
ROUNDS = 100
ALL = "all"
"""In place of runtimes: every one that is built in and runs on the device."""


@dataclass(frozen=True)
class Builtin:
    """A runtime that comes with the package: ``module:Class``, the packages that it needs, and when it is raced unasked.

    ``cpu`` and ``cuda`` say so for each device: ``always``, in the ``whole`` benchmark, which is not the short one that ends
    an experiment, with ``all``, or (empty) when it is named.
    """

    target: str
    packages: tuple[str, ...] = ()
    cpu: str = ""
    cuda: str = ""


_ROOM = "ticketsmith.inference.runtimes"
RUNTIMES = {
    "torch": Builtin(f"{_ROOM}.eager:Eager", cpu="always", cuda="always"),
    "onnxruntime": Builtin(f"{_ROOM}.dense_library:OnnxRuntime", ("onnx", "onnxruntime"), cpu="always"),
    "openvino": Builtin(f"{_ROOM}.dense_library:OpenVino", ("onnx", "openvino"), cpu="whole"),
    "sparse": Builtin(f"{_ROOM}.sparse:Sparse", ("ticketsmith.native",), cpu="always"),
    "compact": Builtin(f"{_ROOM}.compacted:Compacted", cpu="whole"),
    "torch_csr": Builtin(f"{_ROOM}.csr:Csr", cpu="whole"),
    # takes too long to get ready on a CPU
    "torch_compile": Builtin(f"{_ROOM}.eager:Compiled", cpu=ALL, cuda="always"),
    "cuda_graph": Builtin(f"{_ROOM}.cuda:CudaGraph", cuda="always"),
    "torch_24": Builtin(f"{_ROOM}.cuda:SemiStructured", cuda="always"),
}
"""By the names that users give, in the order in which they are raced."""


@dataclass(frozen=True)
class LoadSettings:
    """A load test: ``percentile`` (0..1) of the requests are to be answered within ``target_ms``.

    By default that is 10 times the dense model's latency, and 1 ms at least.
    """

    target_ms: float | None = None
    percentile: float = 0.99

    def __post_init__(self) -> None:
        if self.target_ms is not None and not 0 < self.target_ms < math.inf:
            raise RecipeError(f"a load test's target is a time above 0 ms, not {self.target_ms}.")
        if not 0.5 <= self.percentile < 1:
            raise RecipeError(f"a load test's percentile lies between 50 and 100, not {100 * self.percentile:g}.")


@dataclass(frozen=True)
class BenchmarkSettings:
    """How a benchmark is made.

    ``runtimes`` are names with options (``sparse,tuned=false``); none: those that can run here. Each is taken in every
    one of ``precisions`` that it has. Rivals are raced for each number of ``threads`` and each batch size, for at least
    ``rounds`` rounds and ``seconds`` seconds each. ``budget``, in seconds, is for all of it: when it is spent, rounds
    are left out, and models that are not ready yet. ``confidence`` (0..1) is that of intervals. ``memory``: load times,
    memory and file sizes, in processes of their own. ``layers``: the break-even of each layer. Raises RecipeError for
    what makes no sense.
    """

    runtimes: tuple[str, ...] = ()
    precisions: tuple[str, ...] = ("float32",)
    batch_sizes: tuple[int, ...] = BATCH_SIZES
    threads: tuple[int, ...] = (1,)
    rounds: int = ROUNDS
    seconds: float = 0.0
    budget: float | None = None
    memory: bool = False
    layers: bool = False
    load: LoadSettings | None = None
    device: str = "cpu"
    confidence: float = 0.95

    def __post_init__(self) -> None:
        for precision in self.precisions:
            if precision not in FILE_PRECISIONS:
                raise RecipeError(f"--dtype {precision!r} is not one of {', '.join(FILE_PRECISIONS)}.")
        if not self.precisions:
            raise RecipeError(f"a benchmark needs a precision: {', '.join(PRECISIONS)}.")
        if not self.batch_sizes or min(self.batch_sizes) < 1:
            raise RecipeError(f"a benchmark needs batch sizes of 1 or more, not {list(self.batch_sizes)}.")
        if not self.threads or min(self.threads) < 1:
            raise RecipeError(f"a benchmark needs 1 thread or more, not {list(self.threads)}.")
        if self.rounds < 1:
            raise RecipeError(f"a benchmark needs 1 round or more, not {self.rounds}.")
        if not 0.0 < self.confidence < 1.0:
            raise RecipeError(f"a confidence lies between 0 and 1, not {self.confidence}.")
        if not 0 <= self.seconds < math.inf:
            raise RecipeError(f"--seconds is a time of 0 or more, not {self.seconds}.")
        if self.budget is not None and not 0 < self.budget < math.inf:
            raise RecipeError(f"a benchmark needs some time, not {self.budget} seconds.")
