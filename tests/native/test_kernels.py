"""Every kernel by itself, on every instruction set of this machine, against NumPy in float64."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.kernel_cases import CASES
from tests.runtime.networks import ISAS
from ticketsmith.native import Isa, abi

SIZES = (1, 5, 16, 47, 129)
NAMES = {operation.__name__: operation for operation in CASES}


def test_every_operation_has_a_case() -> None:
    assert set(CASES) == set(abi.KERNELS)


@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)
@pytest.mark.parametrize("name", NAMES)
def test_answers_are_right_and_no_byte_depends_on_how_work_is_divided(name: str, isa: Isa) -> None:
    for size in SIZES:
        for case in CASES[NAMES[name]](size):
            answers = []
            for parts in (1, 2, 5):
                assert case.run(isa, parts) == abi.Status.OK
                answers.append(case.outputs())
            tolerance = case.tolerance * max(1.0, float(np.abs(case.expected).max()))
            np.testing.assert_allclose(answers[0], case.expected, rtol=0, atol=tolerance, err_msg=f"{case.name} {size}")
            for other in answers[1:]:
                assert other.tobytes() == answers[0].tobytes(), f"{case.name} {size}: other bytes when it is divided"
