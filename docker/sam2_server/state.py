"""The state directory: who serves what where, for `stop`, `status` and scripts."""

import fcntl
import json
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO

import psutil  # type: ignore[import-untyped,unused-ignore]

from sam2_server.errors import AlreadyRunningError, LauncherError

STATE_FILE = "server.json"
LOCK_FILE = "server.lock"
LOG_FILE = "tritonserver.log"
LAUNCHER_LOG_FILE = "launcher.log"


@dataclass(frozen=True)
class ProcessId:
    """A process id that stays unambiguous when the number is used again."""

    pid: int
    started_at: float

    @classmethod
    def of(cls, pid: int) -> "ProcessId":
        return cls(pid, psutil.Process(pid).create_time())

    def process(self) -> psutil.Process | None:
        """The living process, or None."""
        try:
            process = psutil.Process(self.pid)
            # create_time is computed from the boot time, whose estimate may shift a little.
            same = abs(process.create_time() - self.started_at) < 2.0
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None


@dataclass(frozen=True)
class ServerState:
    status: str  # starting, ready, restarting, stopping
    launcher: ProcessId
    server: ProcessId | None
    host: str
    http_port: int
    grpc_port: int
    metrics_port: int
    model_repository: str
    shm_prefix: str
    log_file: str
    restarts: int = 0
    last_crash: str | None = None
    # Known to this user alone, so that the container's health check asks as the launcher does.
    probe_token: str = ""
    inner_secret: str = field(default="", repr=False)
    # Files with plain paths, where the given ones are not.
    private_directory: str | None = None
    urls: dict[str, str] = field(default_factory=dict)


class StateDir:
    """A directory that one launcher at a time owns, by a lock that dies with it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.state_file = path / STATE_FILE
        self.log_file = path / LOG_FILE
        self.launcher_log_file = path / LAUNCHER_LOG_FILE
        self._lock: IO[str] | None = None

    def lock(self) -> None:
        """Own the directory, or raise AlreadyRunningError saying what runs there."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            handle = (self.path / LOCK_FILE).open("a")
        except OSError as error:
            raise LauncherError(
                f"Cannot write to the state directory {self.path}: {error.strerror}.",
                "Give a directory that this user can write to with --state-dir.",
            ) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.close()
            raise AlreadyRunningError(
                f"A server of this state directory ({self.path}) is already running: "
                f"{self._describe_owner()}",
                "Stop it first (`just stop`, or the `stop` command with this --state-dir), or "
                "start a second one with other ports and another --state-dir.",
            ) from None
        self._lock = handle

    def unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def read(self) -> ServerState | None:
        """The last written state, or None; the process in it may be dead."""
        try:
            fields = json.loads(self.state_file.read_text())
        except FileNotFoundError:
            return None
        fields["launcher"] = ProcessId(**fields["launcher"])
        fields["server"] = ProcessId(**fields["server"]) if fields["server"] else None
        return ServerState(**fields)

    def write(self, state: ServerState) -> None:
        """For its owner alone: the secrets of the server process are in it."""
        write_json(self.state_file, state, 0o600)

    def remove(self) -> None:
        self.state_file.unlink(missing_ok=True)

    def _describe_owner(self) -> str:
        state = self.read()
        if state is None:
            return "it has only just begun to start."
        return (
            f"pid {state.launcher.pid}, {state.status}, {state.model_repository} on "
            f"{state.urls.get('http')} and {state.urls.get('grpc')}."
        )


def without_secrets(state: ServerState) -> ServerState:
    """The state for everybody to read."""
    return replace(state, probe_token="", inner_secret="")


def write_json(path: Path, state: ServerState, mode: int) -> None:
    """Replaces the file in one step: readers see the old state or the new one, never half."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.unlink(missing_ok=True)
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
            file.write(json.dumps(asdict(state), indent=2) + "\n")
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
