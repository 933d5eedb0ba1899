"""How a step of a session can be refused; each kind has Triton's status by name."""

from __future__ import annotations


class StepRefusedError(Exception):
    """A step that does not happen; the session stays as it was. `status` names a code of Triton's."""

    status = "INTERNAL"


class InvalidStepError(StepRefusedError):
    """The request is not valid: it names a tensor, what was expected and what came."""

    status = "INVALID_ARG"


class NotHeldError(StepRefusedError):
    """A session, an object or a frame's image that the server does not have."""

    status = "NOT_FOUND"


class SessionExistsError(StepRefusedError):
    """`start` of a session that lives."""

    status = "ALREADY_EXISTS"


class UnsupportedStepError(StepRefusedError):
    """What this server's installation cannot do at all."""

    status = "UNSUPPORTED"


class OverloadedError(StepRefusedError):
    """A limit on what the server takes on was reached; the same request may succeed later."""

    status = "UNAVAILABLE"


class CancelledStepError(StepRefusedError):
    """The client no longer waits for this step."""

    status = "CANCELLED"
