"""Forms of a model that decodes: one file serves whole windows, prefill and decode."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.inference.test_phases import CONTEXT, PHASES, SIZE, gpt, windows
from ticketsmith.candidates.forms import FORMS, Network
from ticketsmith.candidates.timing import Work


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [
        ("onnxruntime", 1e-4),
        ("onnxruntime-int8-dynamic", 0.2),
        ("onnxruntime-int4-weights", 0.4),
        ("openvino", 1e-4),
        ("openvino-int8-nncf", 0.2),
        ("openvino-int4-weights", 0.4),
        ("sparse-int8", 0.1),
        ("sparse-int8-static", 0.1),
        ("torch-int8-weights", 0.1),
    ],
)
def test_one_file_of_a_decoder_serves_windows_prefill_and_decode(
    name: str, tolerance: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ticketsmith.export.tsk_file.tuned_choices", lambda *_: {})
    form, model, tokens = FORMS[name], gpt(), windows(3)
    if not form.installed:
        pytest.skip(f"{form.packages[0]} is not installed")
    (tmp_path / "out").mkdir()
    calibration = [windows(4).numpy()]
    network = Network(model=model, example=windows(1), calibration=lambda: calibration, folder=tmp_path, decodes=True)
    form.write(network, tmp_path / "out")
    path = tmp_path / "out" / form.files[0]
    with torch.inference_mode():
        expected = model(tokens).numpy()
    reach = tolerance * np.abs(expected).max()
    whole = form.load(path, 1, None)(tokens.numpy())
    assert whole.shape == (3, CONTEXT, SIZE)
    np.testing.assert_allclose(whole, expected, rtol=0, atol=reach)
    for part in PHASES if form.decoder else ():
        runner, _ = Work(tokens.numpy(), 1, 3.0, part).runner(form, path)
        logits = runner.run(runner.inputs)
        np.testing.assert_allclose(logits, expected[:, part.past : part.past + part.new], rtol=0, atol=reach)
