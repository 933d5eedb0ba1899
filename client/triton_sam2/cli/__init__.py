"""The command `triton-sam2`."""

import sys

from triton_sam2._errors import TritonSam2Error
from triton_sam2.cli._exit_codes import EXIT_ERROR, exit_code


def app() -> None:
    """Run the command line; an error becomes one readable line and an exit code."""
    try:
        from triton_sam2.cli._commands import commands  # noqa: PLC0415 - typer is in an extra
    except ModuleNotFoundError as error:
        sys.stderr.write(f"error: {error.name} is missing: pip install 'triton-sam2[client]'\n")
        sys.exit(EXIT_ERROR)
    try:
        commands()
    except TritonSam2Error as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(exit_code(error))
