"""Which engine a configuration asks for, and what is said where it cannot be had."""

import sys
from typing import Any

import pytest
from accelerators import OpenVino, cpu_accelerator
from input_limits import InvalidSettingError
from openvino_session import load_openvino


def asking_for(*accelerators: dict[str, Any], kind: str = "cpu") -> dict[str, Any]:
    """A configuration as Triton hands it to a model."""
    return {
        "optimization": {
            "execution_accelerators": {
                "cpu_execution_accelerator": [],
                "gpu_execution_accelerator": [],
                f"{kind}_execution_accelerator": list(accelerators),
            }
        }
    }


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"optimization": None},
        {"optimization": {"priority": "PRIORITY_DEFAULT"}},
        asking_for({"name": "tensorrt", "parameters": {}}, kind="gpu"),
    ],
)
def test_without_one_it_is_onnx_runtime(config: dict[str, Any]) -> None:
    assert cpu_accelerator(config) is None


def test_openvino_computes_in_fp32_unless_told_otherwise() -> None:
    assert cpu_accelerator(asking_for({"name": "openvino", "parameters": {}})) == OpenVino("FP32")
    assert cpu_accelerator(asking_for({"name": "openvino"})) == OpenVino("FP32")
    bf16 = {"name": "openvino", "parameters": {"precision": "BF16"}}
    assert cpu_accelerator(asking_for(bf16)) == OpenVino("BF16")


@pytest.mark.parametrize(
    ("accelerators", "message"),
    [
        ([{"name": "abacus"}], "cpu_execution_accelerator: expected openvino or none, got abacus"),
        ([{"name": "openvino"}, {"name": "openvino"}], "got openvino, openvino"),
        (
            [{"name": "openvino", "parameters": {"streams": "4"}}],
            "accelerator openvino: expected no parameter but precision, got streams",
        ),
        (
            [{"name": "openvino", "parameters": {"precision": "bf16"}}],
            "accelerator openvino, precision: expected FP32 or BF16, got 'bf16'",
        ),
    ],
)
def test_what_does_not_exist_is_named(accelerators: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(InvalidSettingError, match=message):
        cpu_accelerator(asking_for(*accelerators))


def test_openvino_that_is_not_installed_is_no_other_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(InvalidSettingError, match="not installed here. Install it"):
        load_openvino()
