"""Prefill and decode: timed apart on every runtime with sessions, outputs first; units are those of the task."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.inference.rivals import Clock, Clocked, Slow, Still, candidate, images, lenet, raced
from ticketsmith import native
from ticketsmith.errors import TaskError
from ticketsmith.evidence.serving import Benchmark, Timing
from ticketsmith.inference import suite
from ticketsmith.inference.measuring.lineup import Candidate
from ticketsmith.inference.measuring.measure import Contest
from ticketsmith.inference.runtimes import ArrayDecoder, CannotRunError, Decodes, create
from ticketsmith.inference.runtimes.eager import Eager
from ticketsmith.inference.settings import BenchmarkSettings
from ticketsmith.inference.tables import table
from ticketsmith.models.gpt import GPT
from ticketsmith.tasks import task as tasks
from ticketsmith.tasks.task import Decoder, Phase, Serving, Session, serving

CONTEXT, SIZE = 12, 20
PHASES = (Phase("prefill", 0, 6), Phase("decode", 6, 1))
TOKEN = Serving("token", CONTEXT, PHASES)


def gpt(sparsity: float = 0.0, positions: Any = "rotary", kind: type[GPT] = GPT) -> GPT:
    torch.manual_seed(0)
    model = kind((CONTEXT,), SIZE, width=32, depth=2, heads=2, positions=positions)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(torch.rand(parameter.shape) >= sparsity).mul_(10)
    return model.eval()


def windows(batch_size: int) -> Tensor:
    return torch.randint(SIZE, (batch_size, CONTEXT), generator=torch.Generator().manual_seed(0))


def measured(runtimes: Sequence[str | Any], sizes: Sequence[int] = (1,), **how: Any) -> Benchmark:
    return raced(
        candidate(model=gpt()),
        [candidate(1, 0.9, gpt(0.9))],
        windows,
        runtimes=[create(one) if isinstance(one, str) else one for one in runtimes],
        batch_sizes=sizes,
        rounds=10,
        **{"serving": TOKEN, **how},
    )


def test_each_phase_is_a_cell_with_a_dense_rival_of_its_own() -> None:
    found = measured(["torch", "onnxruntime", create("sparse", {"tuned": False})], (3,))
    assert not found.refusals
    assert found.unit == "token"
    places = [(timing.phase, timing.batch_size) for timing in found.timings]
    assert list(dict.fromkeys(places)) == [("prefill", 3), ("decode", 3), ("", 3)]
    assert all(places.count(place) == 6 for place in set(places))
    for timing in found.timings:
        tokens = {"prefill": 6, "decode": 1, "": CONTEXT}[timing.phase] * timing.batch_size
        assert timing.throughput == pytest.approx(tokens / timing.median_ms * 1e3)
        assert timing.against in ("torch", "onnxruntime")
        assert timing.max_error < 1e-4
    assert " at decode, batch size 3" in found.machine["resolution"]


def test_the_work_of_a_phase_is_that_of_its_new_tokens() -> None:
    found = measured(["torch"])

    def flops(phase: str, level: int) -> float:
        (one,) = [t.flops for t in found.timings if (t.phase, t.level) == (phase, level)]
        assert one is not None
        return one

    assert flops("", 0) == CONTEXT * flops("decode", 0) == CONTEXT / 6 * flops("prefill", 0)
    assert 0.05 < flops("decode", 1) / flops("decode", 0) < 0.15


@pytest.mark.parametrize("positions", ["rotary", "learned"])
@pytest.mark.parametrize(
    ("name", "options", "bound"),
    [
        ("torch", {}, 1e-4),
        ("torch", {"precision": "bfloat16"}, 0.05),
        ("torch_csr", {"min_weights": 1000}, 1e-4),
        ("onnxruntime", {}, 1e-4),
        ("onnxruntime", {"precision": "int8"}, 0.1),
        ("openvino", {}, 1e-4),
        ("sparse", {}, 1e-4),
        ("sparse", {"precision": "bfloat16"}, 0.05),
    ],
)
def test_sessions_give_what_the_whole_sequence_gives_however_it_is_cut(
    name: str, options: dict[str, Any], bound: float, positions: str
) -> None:
    model, tokens = gpt(0.9, positions), windows(2)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    runtime = create(name, options)
    assert isinstance(runtime, Decodes)
    decoder = runtime.decoder(model, tokens)
    given: Any = tokens.numpy() if isinstance(decoder, ArrayDecoder) else tokens
    maker = decoder.arrays if isinstance(decoder, ArrayDecoder) else decoder
    with torch.inference_mode():
        expected = model(tokens)

    def check(session: Session, begin: int, end: int) -> None:
        assert session.length == begin
        actual = torch.as_tensor(session(given[:, begin:end])).float()
        assert float((actual - expected[:, begin:end]).abs().max()) <= bound * float(expected.abs().max())

    first, other = maker.session(2, CONTEXT), maker.session(2, CONTEXT)
    for begin, end in ((0, 5), (5, 6), (6, 8)):
        check(first, begin, end)
    check(other, 0, 9)
    check(first, 8, 9)  # the other one has changed nothing
    first.length = 8  # over the last call
    check(first, 8, 12)
    first.length = 3  # further back
    for begin, end in ((3, 4), (4, 5), (5, 12)):
        check(first, begin, end)
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert not model.training


class Forgetful:
    """Runs whole windows as it should, and decodes as if nothing had come before."""

    name = "forgetful"
    prepare = Eager().prepare

    def decoder(self, model: nn.Module, example: Tensor) -> Decoder:
        assert isinstance(model, GPT)

        class Fresh:
            length = 0

            def session(self, batch: int, capacity: int) -> Session:
                return self

            def __call__(self, tokens: Any) -> Any:
                return model.session(len(tokens))(tokens)

        return Fresh()


def test_a_runtime_that_decodes_something_else_is_refused_and_not_timed() -> None:
    found = measured(["torch", Forgetful()])
    assert {timing.phase for timing in found.timings if timing.runtime == "forgetful"} == {"prefill", ""}
    assert [refusal.level for refusal in found.refusals] == [0, 1]
    assert "'forgetful' on dense level 0 seed 0 in decode gives other outputs" in found.refusals[0].reason


def test_a_runtime_without_sessions_is_told_once_and_still_times_whole_calls() -> None:
    found = measured(["torch", Slow()])
    assert {timing.phase for timing in found.timings if timing.runtime == "slow"} == {""}
    assert {timing.phase for timing in found.timings if timing.runtime == "torch"} == {"prefill", "decode", ""}
    (line,) = table.refusal_lines(found)
    assert line.startswith("slow: dense 0, ticket 1: it has no sessions")


def test_a_dense_rival_needs_a_step_of_the_model_and_says_so() -> None:
    class Closed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = gpt()

        def forward(self, tokens: Tensor) -> Tensor:
            outputs: Tensor = self.inner(tokens)
            return outputs

        def session(self, batch: int, capacity: int) -> Session:
            return self.inner.session(batch, capacity)

    runtime = create("onnxruntime")
    assert isinstance(runtime, Decodes)
    with pytest.raises(CannotRunError, match="no method `stepper`"):
        runtime.decoder(Closed(), windows(1))


def test_a_model_without_sessions_has_one_call_and_a_note() -> None:
    model = nn.Sequential(nn.Embedding(SIZE, 8), nn.Linear(8, SIZE))
    found = suite.run(
        Contest(Candidate("dense", 0, 0, "key", 0.0, model), [], windows, TOKEN),
        BenchmarkSettings(runtimes=("torch",), batch_sizes=(1,), rounds=10),
        surroundings=Still(),
    )
    assert {timing.phase for timing in found.timings} == {""}
    assert "prefill and decode: the model has no method `session`" in found.machine["not offered"]


def test_a_sparse_runtime_without_kernels_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> None:
        raise native.NotBuiltError("the sparse runtime is not available: no kernels.")

    monkeypatch.setattr(native, "library", absent)
    found = suite.run(
        Contest(Candidate("dense", 0, 0, "key", 0.0, nn.Sequential(nn.Embedding(SIZE, 8))), [], windows, TOKEN),
        BenchmarkSettings(batch_sizes=(1,), rounds=10),
        quick=True,
        surroundings=Still(),
    )
    assert "sparse" not in {timing.runtime for timing in found.timings}
    assert found.machine["not offered"].startswith("the sparse runtime is not available: no kernels; ")


def test_windows_that_are_too_short_for_a_phase_are_refused() -> None:
    long = Serving("token", CONTEXT, (Phase("decode", CONTEXT, 1),))
    with pytest.raises(TaskError, match="'decode' needs windows of 13 tokens or more"):
        measured(["torch"], serving=long)


def test_a_picture_that_takes_many_calls_is_counted_once() -> None:
    clock = Clock()
    found = raced(
        candidate(),
        [],
        images,
        runtimes=[Clocked("plain", clock, lambda: 2e-3)],
        batch_sizes=[1, 8],
        rounds=10,
        clock=clock,
        serving=Serving("image", 1 / 16),
    )
    assert found.unit == "image"
    assert [timing.throughput for timing in found.timings] == pytest.approx([1 / (16 * 2e-3), 8 / (16 * 2e-3)])


def test_tasks_tell_how_they_are_served(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("the cat sat on the mat. " * 200)
    language = tasks.create(
        {"name": "language", "data": {"name": "text", "path": "text.txt"}, "model": "gpt", "context": 16}, tmp_path
    )
    assert serving(language) == Serving("token", 16.0, (Phase("prefill", 0, 8), Phase("decode", 8, 1)))
    denoising = tasks.create(
        {"name": "denoising", "data": "digits", "model": "unet", "validation": 100, "steps": 16, "measured": 50},
        tmp_path,
    )
    assert serving(denoising) == Serving("image", 1 / 16)

    class Odd:
        unit, units_per_input = "page", 0

    with pytest.raises(TaskError, match="`units_per_input` is 0"):
        serving(Odd())  # type: ignore[arg-type]
    assert serving(lenet()) == Serving("request", 1.0)  # type: ignore[arg-type]


def test_tables_and_the_summary_name_the_phase() -> None:
    found = measured(["torch"])
    assert list(table.cells(found)) == [
        f"{phase}batch size 1, 1 thread, float32" for phase in ("prefill, ", "decode, ", "")
    ]
    assert [one["phase"] for one in table.summary(found)["best"]] == ["prefill", "prefill", "decode", "decode", "", ""]


def test_a_load_test_sends_whole_requests() -> None:
    found = suite.run(
        Contest(Candidate("dense", 0, 0, "key", 0.0, gpt()), [], windows, TOKEN),
        BenchmarkSettings(runtimes=("torch",), batch_sizes=(1,), rounds=10),
        surroundings=Still(),
    )
    chosen: list[tuple[Timing, Timing]] = suite._to_be_loaded(found, 1)
    assert [one.phase for one, _ in chosen] == [""]
