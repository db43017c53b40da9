"""Libraries that report on their use are told not to, before any of them is imported, in this process and in its children.

A choice that is made already stays: a variable that is set, a library that is imported.
"""

from __future__ import annotations

import os
import sys

SWITCHES = {
    "ORT_DISABLE_TELEMETRY": "1",  # ONNX Runtime on Linux: native code sends events to mobile.events.data.microsoft.com
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    "HF_UPDATE_DOWNLOAD_COUNTS": "0",  # datasets
    "DO_NOT_TRACK": "1",  # https://donottrack.sh
}
_SENDERS = ("openvino_telemetry",)  # has no switch but a file in the home folder; openvino does without it


def switch_off() -> None:
    """Sets what is not set; makes modules whose only purpose is to report unavailable."""
    for name, value in SWITCHES.items():
        os.environ.setdefault(name, value)
    for module in _SENDERS:
        sys.modules.setdefault(module, None)  # type: ignore[arg-type]  # what the import system takes for "is not there"
