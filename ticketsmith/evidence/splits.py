"""Which examples, and which moment of training, a score is of."""

from typing import Literal

Split = Literal["validation", "test"]
At = Literal["final", "early_stop"]
