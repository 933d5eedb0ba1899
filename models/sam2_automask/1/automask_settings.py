"""The parameters in sam2_automask's config.pbtxt, checked when the model is loaded."""

from __future__ import annotations

from dataclasses import dataclass

from mask_encoding import OutputLimits
from model_parameters import Parameters, read_whole_numbers

# Every parameter and the least value that makes sense.
LEAST_VALUES = {
    "max_parameters_bytes": 2,
    "max_points": 1,
    "max_crops": 1,
    "max_masks": 1,
    "max_held_bytes": 1,
    "max_seconds": 1,
    "prompts_at_once": 1,
    "planes_at_once": 1,
    "max_running": 1,
    "max_waiting": 0,
    "tenant_percent": 1,
    "max_output_bytes": 0,
    "max_encoded_pixels": 0,
}


@dataclass(frozen=True)
class GenerationLimits:
    """What one request may make of the server; prompts_at_once and planes_at_once bound memory."""

    max_points: int
    max_crops: int
    max_masks: int
    max_held_bytes: int
    prompts_at_once: int
    planes_at_once: int


@dataclass(frozen=True)
class AutomaskSettings:
    """All limits of the model."""

    generation: GenerationLimits
    output: OutputLimits
    max_parameters_bytes: int
    max_seconds: int
    max_running: int
    max_waiting: int
    tenant_percent: int


def parse_settings(parameters: Parameters) -> AutomaskSettings:
    """Reads the `parameters` of the model configuration as Triton hands them over, as JSON.

    Raises:
        InvalidSettingError: naming the first parameter that is missing, unknown or out of range.
    """
    values = read_whole_numbers("sam2_automask", parameters, LEAST_VALUES)
    return AutomaskSettings(
        generation=GenerationLimits(
            values["max_points"],
            values["max_crops"],
            values["max_masks"],
            values["max_held_bytes"],
            values["prompts_at_once"],
            values["planes_at_once"],
        ),
        output=OutputLimits(values["max_output_bytes"], values["max_encoded_pixels"]),
        max_parameters_bytes=values["max_parameters_bytes"],
        max_seconds=values["max_seconds"],
        max_running=values["max_running"],
        max_waiting=values["max_waiting"],
        tenant_percent=values["tenant_percent"],
    )
