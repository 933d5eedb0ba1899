"""Errors as exit codes."""

from triton_sam2._errors import (
    ImageNotFoundError,
    InvalidInputError,
    ServerUnavailableError,
    SessionNotFoundError,
    TritonSam2Error,
)

EXIT_ERROR = 1
EXIT_INVALID_INPUT = 2  # also what a wrong option exits with
EXIT_UNAVAILABLE = 3
EXIT_IMAGE_NOT_FOUND = 4


def exit_code(error: TritonSam2Error) -> int:
    """1 in general, 2 invalid input, 3 server not available, 4 image or session unknown to the server."""
    if isinstance(error, InvalidInputError):
        return EXIT_INVALID_INPUT
    if isinstance(error, ServerUnavailableError):
        return EXIT_UNAVAILABLE
    if isinstance(error, ImageNotFoundError | SessionNotFoundError):
        return EXIT_IMAGE_NOT_FOUND
    return EXIT_ERROR
