"""Which engine a configuration asks for, by the words that Triton's C++ backend reads.

    optimization { execution_accelerators { cpu_execution_accelerator : [ { name : "openvino" } ] } }

An engine that is asked for and cannot be had is an error: never another one in its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from input_limits import InvalidSettingError

OPENVINO = "openvino"
# Types that OpenVINO computes in. FP32 by default, and never what a processor does best: that changes masks.
OPENVINO_PRECISIONS = ("FP32", "BF16")
PRECISION = "precision"


@dataclass(frozen=True)
class OpenVino:
    """The engine and its one parameter, which the C++ backend does not look at."""

    precision: str = "FP32"


def cpu_accelerator(config: Mapping[str, Any]) -> OpenVino | None:
    """The engine for an instance on the CPU; None: ONNX Runtime's own.

    Raises:
        InvalidSettingError: an unknown engine, parameter or precision.
    """
    asked = (config.get("optimization") or {}).get("execution_accelerators") or {}
    found = asked.get("cpu_execution_accelerator") or []
    if not found:
        return None
    names = [accelerator["name"] for accelerator in found]
    if names != [OPENVINO]:
        raise InvalidSettingError(
            f"cpu_execution_accelerator: expected {OPENVINO} or none, got {', '.join(names)}"
        )
    parameters = found[0].get("parameters") or {}
    if unknown := sorted(set(parameters) - {PRECISION}):
        raise InvalidSettingError(
            f"accelerator {OPENVINO}: expected no parameter but {PRECISION}, got {', '.join(unknown)}"
        )
    precision = parameters.get(PRECISION, OPENVINO_PRECISIONS[0])
    if precision not in OPENVINO_PRECISIONS:
        raise InvalidSettingError(
            f"accelerator {OPENVINO}, {PRECISION}: expected {' or '.join(OPENVINO_PRECISIONS)}, got"
            f" {precision!r}"
        )
    return OpenVino(precision)
