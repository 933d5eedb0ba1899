"""The launcher's word that the server is about to stop: what was taken on finishes, nothing new begins.

It is a file, whose path is in the environment; without a launcher there is neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

STOPPING_VARIABLE = "SAM2_STOPPING_FILE"


class ServerStoppingError(RuntimeError):
    """The server takes no new requests."""


class StopNotice:
    """Looks for the file, which takes microseconds, whenever it is asked."""

    def __init__(self, file: Path | None) -> None:
        self._file = file

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> StopNotice:
        path = environment.get(STOPPING_VARIABLE)
        return cls(Path(path) if path else None)

    def check(self) -> None:
        """Raises ServerStoppingError once the server is stopping."""
        if self._file is not None and self._file.exists():
            raise ServerStoppingError("the server is stopping; try again in a moment")
