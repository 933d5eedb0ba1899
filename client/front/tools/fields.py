"""Fields of tools' JSON, checked one by one: a refusal names the field, what was expected and what came."""

from __future__ import annotations

import math
from typing import Any

from front.refusals import invalid


def kind(value: object) -> str:
    """What a JSON value is, in words."""
    names: dict[type, str] = {
        dict: "an object",
        list: "a list",
        str: "text",
        bool: "a truth value",
        type(None): "null",
    }
    return names.get(type(value), "a number")


def an_object(name: str, value: Any) -> dict[str, Any]:
    """A JSON object."""
    if not isinstance(value, dict):
        raise invalid(f"{name}: expected an object, got {kind(value)}")
    return value


def a_list(name: str, value: Any, most: int | None = None) -> list[Any]:
    """A JSON list, of at most so many elements."""
    if not isinstance(value, list):
        raise invalid(f"{name}: expected a list, got {kind(value)}")
    if most is not None and len(value) > most:
        raise invalid(f"{name}: expected at most {most} elements, got {len(value)}")
    return value


def a_text(name: str, value: Any, longest: int = 2048) -> str:
    """A JSON string."""
    if not isinstance(value, str):
        raise invalid(f"{name}: expected text, got {kind(value)}")
    if len(value) > longest:
        raise invalid(f"{name}: expected at most {longest} characters, got {len(value)}")
    return value


def a_number(name: str, value: Any) -> float:
    """A finite JSON number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise invalid(f"{name}: expected a number, got {kind(value)}")
    return float(value)


def a_flag(name: str, value: Any) -> bool:
    """true or false; 1 and 0, which some tools write instead."""
    if isinstance(value, bool) or (isinstance(value, int) and value in (0, 1)):
        return bool(value)
    raise invalid(f"{name}: expected true or false, got {kind(value)}")


def numbers(name: str, value: Any, count: int) -> list[float]:
    """Exactly so many numbers."""
    values = a_list(name, value)
    if len(values) != count:
        raise invalid(f"{name}: expected {count} numbers, got {len(values)} elements")
    return [a_number(name, each) for each in values]
