"""What became of each of several images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import typer

from triton_sam2._errors import TritonSam2Error
from triton_sam2.cli._exit_codes import exit_code


@dataclass(frozen=True)
class Outcome:
    """One image's result, or its error."""

    name: str
    text: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    error: TritonSam2Error | None = None


def outcome_of(name: str, call: Callable[[], Outcome]) -> Outcome:
    """What a call for one image came to; its trouble, of whatever kind, is not the others'."""
    try:
        return call()
    except TritonSam2Error as error:
        return Outcome(name, error=error)
    except Exception as error:  # noqa: BLE001
        return Outcome(name, error=unexpected(error))


def unexpected(error: Exception) -> TritonSam2Error:
    """One image's error out of what nobody foresaw."""
    return TritonSam2Error(f"unexpected {type(error).__name__}: {error}")


def finish(outcomes: Sequence[Outcome], print_json: Callable[[Any], None] | None) -> None:
    """Print every outcome, errors on standard error, and exit with the first error's code."""
    for outcome in outcomes:
        if outcome.error is not None:
            typer.echo(f"error: {outcome.name}: {outcome.error}", err=True)
        elif print_json is None:
            typer.echo(f"{outcome.name}: {outcome.text}")
    if print_json is not None:
        print_json([_entry(outcome) for outcome in outcomes])
    errors = [outcome.error for outcome in outcomes if outcome.error is not None]
    if errors:
        raise typer.Exit(exit_code(errors[0]))


def _entry(outcome: Outcome) -> dict[str, Any]:
    if outcome.error is not None:
        return {"image": outcome.name, "error": str(outcome.error)}
    return {"image": outcome.name, "result": outcome.text, **outcome.facts}
