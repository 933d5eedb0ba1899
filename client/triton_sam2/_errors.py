"""What can go wrong, as a tree: catch `TritonSam2Error` for all of it, or a leaf for one cause.

TritonSam2Error
├── InvalidInputError (also ValueError)      an argument, or what the server refused as one
│   └── SessionExistsError                   a video session of this id lives already
├── NoImageError (also RuntimeError)         predict before set_image
├── ImageNotFoundError                       the server does not have the image, and we cannot resend it
│   └── ImageChangedError                    its id stands for another image now
├── SessionNotFoundError                     the server does not hold this video session (any more)
├── ServerUnavailableError                   overloaded, loading or restarting: try again later
│   └── ServerUnreachableError               nobody answers at this URL
├── CallTimeoutError (also TimeoutError)     no answer within the timeout
├── CallCancelledError                       the call was cancelled
├── AccessDeniedError                        credentials missing or not sufficient
├── ServerError                              the server failed, or answered what it should not
│   └── ModelNotFoundError                   the server runs, but without our models
├── NotRequestedError (also AttributeError)  a part of a result that was not asked for
├── NotOverServerError                       a part of Meta's package that a server cannot give
│                                            (also NotImplementedError)
└── MissingExtraError (also ImportError)     a library of an extra is not installed
"""


class TritonSam2Error(Exception):
    """The root of everything this package raises on purpose."""


class InvalidInputError(TritonSam2Error, ValueError):
    """An argument (named in the message) is not what was expected; found here or by the server."""


class SessionExistsError(InvalidInputError):
    """A video session of this id lives already: attach to it, or choose another id."""


class NoImageError(TritonSam2Error, RuntimeError):
    """A prediction was asked for before any image was set."""


class ImageNotFoundError(TritonSam2Error):
    """The server does not have this image (any more), and its bytes are not at hand to send again."""


class ImageChangedError(ImageNotFoundError):
    """The id stands for another image now than the one that the call was about: no mask is handed over."""


class SessionNotFoundError(TritonSam2Error):
    """The server does not hold this video session: it was closed, idle for too long, or the server restarted.

    `replay(state)` starts it again with the same prompts.
    """


class ServerUnavailableError(TritonSam2Error):
    """The server is overloaded, loading or restarting; the same call may succeed later."""


class ServerUnreachableError(ServerUnavailableError):
    """Nothing answers at this URL, or what answers speaks another protocol."""


class CallTimeoutError(TritonSam2Error, TimeoutError):
    """No answer within the call's timeout, its retries included."""


class CallCancelledError(TritonSam2Error):
    """The call was cancelled before its answer arrived."""


class AccessDeniedError(TritonSam2Error):
    """The server, or a gateway before it, wants credentials that the call did not carry."""


class ServerError(TritonSam2Error):
    """The server failed at a valid request, or its answer is not one of this protocol."""


class ModelNotFoundError(ServerError):
    """The server answers but does not serve the model that was called."""


class NotRequestedError(TritonSam2Error, AttributeError):
    """This part of the result was not asked for, so it was not transferred."""


class NotOverServerError(TritonSam2Error, NotImplementedError):
    """Meta's package has this, but it needs the network itself, which stays in the server."""


class MissingExtraError(TritonSam2Error, ImportError):
    """A library of the extra that the message names is needed here and is not installed."""
