"""What a launcher tells others through files: the state, and the ready file."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from sam2_server.state import ServerState, StateDir, without_secrets, write_json

RETRY_SECONDS = 5.0


class PublishedState:
    """The state and its files. They are for `status` and scripts: where the disk is full, supervision goes
    on, and they are written as soon as there is room.
    """

    def __init__(
        self,
        state_dir: StateDir,
        state: ServerState,
        ready_file: Path | None,
        warn: Callable[[str], None],
    ) -> None:
        self._state_dir = state_dir
        self._ready_file = ready_file
        self._warn = warn
        self._unwritten = False
        self._retry_at = 0.0
        self.state = state

    def update(self, **changes: object) -> None:
        self.state = replace(self.state, **changes)  # type: ignore[arg-type]
        self._write()

    def retry(self, now: float) -> None:
        """Write what could not be written, every now and then."""
        if self._unwritten and now >= self._retry_at:
            self._retry_at = now + RETRY_SECONDS
            self._write()

    def withdraw_ready(self) -> None:
        if self._ready_file is not None:
            self._ready_file.unlink(missing_ok=True)

    def remove(self) -> None:
        self._state_dir.remove()
        self.withdraw_ready()

    def _write(self) -> None:
        try:
            self._state_dir.write(self.state)
            if self._ready_file is not None and self.state.status == "ready":
                write_json(self._ready_file, without_secrets(self.state), 0o644)
        except OSError as error:
            if not self._unwritten:
                self._warn(
                    f"cannot write {error.filename or self._state_dir.path}: {error.strerror}; serving goes "
                    "on, but `status` may say what is no longer so"
                )
            self._unwritten = True
        else:
            self._unwritten = False
