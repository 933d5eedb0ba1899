"""The `parameters` of a model's config.pbtxt, checked when the model is loaded."""

from __future__ import annotations

from collections.abc import Mapping

# What Triton hands over, as JSON: {"max_objects": {"string_value": "256"}}.
Parameters = Mapping[str, Mapping[str, str]]


class InvalidSettingError(ValueError):
    """A parameter is missing, unknown or out of range; the message names it and what was expected."""


# Parameters that say how much of something one tenant may have.
MOST_PERCENT = 100


def read_whole_numbers(
    model: str, parameters: Parameters, least_values: Mapping[str, int]
) -> dict[str, int]:
    """Every parameter that a model knows, as a whole number of at least its least value; percents to 100.

    Args:
        model: whose parameters they are, for the messages.
        parameters: as in the model configuration that Triton hands to `initialize`.
        least_values: all known parameters, each with the least value that makes sense.

    Raises:
        InvalidSettingError: naming the first parameter that is missing, unknown or out of range.
    """
    unknown = sorted(set(parameters) - set(least_values))
    if unknown:
        raise InvalidSettingError(
            f"{model}: unknown parameter {unknown[0]!r}; known are {', '.join(least_values)}"
        )
    return {name: _read(model, parameters, name, least) for name, least in least_values.items()}


def _read(model: str, parameters: Parameters, name: str, least: int) -> int:
    if name not in parameters:
        raise InvalidSettingError(f"{model}: parameter {name} is missing")
    text = parameters[name].get("string_value", "")
    if not text.isdecimal() or int(text) < least:
        raise InvalidSettingError(
            f"{model}: parameter {name} must be a whole number of at least {least}, got {text!r}"
        )
    if name.endswith("_percent") and int(text) > MOST_PERCENT:
        raise InvalidSettingError(
            f"{model}: parameter {name} must be at most {MOST_PERCENT}, got {text}"
        )
    return int(text)
