"""What can go wrong in an export, as errors whose text is meant for the person at the keyboard."""

from collections.abc import Iterable


class ExportError(Exception):
    """Base of the errors that the command lines print without a traceback."""


class ImageSizeError(ExportError):
    """The image size is none that the architecture can compute."""


class CheckpointError(ExportError):
    """The checkpoint is missing, damaged, or not of the architecture that was asked for."""


class VerificationError(ExportError):
    """A written graph does not compute what PyTorch computes."""


class RepositoryError(ExportError):
    """The model repository cannot be assembled from, or written to, what was given."""


class DownloadError(ExportError):
    """A checkpoint could not be downloaded whole."""


def refuse_unknown(option: str, value: str, known: Iterable[str]) -> None:
    """Raise unless `value` is one of those that there are."""
    if value not in (expected := tuple(known)):
        raise ExportError(f"{option}: expected {' or '.join(expected)}; got {value!r}")
