"""What the other commands do to a running server: stop it, look at it."""

import contextlib
import time
from pathlib import Path

import psutil  # type: ignore[import-untyped,unused-ignore]

from sam2_server.errors import LauncherError
from sam2_server.plain_paths import remove_private_directory
from sam2_server.process import kill_processes
from sam2_server.readiness import is_ready
from sam2_server.shared_memory import remove_regions
from sam2_server.state import ServerState, StateDir

# The launcher's limit for requests in flight, the time to end all processes, and some.
STOP_SECONDS = 35.0


def running_state(state_dir: StateDir) -> ServerState | None:
    """The state of a living launcher, or None."""
    state = state_dir.read()
    if state is None or state.launcher.process() is None:
        return None
    return state


def stop(state_dir: StateDir) -> str:
    """End the server of a state directory, whatever is left of it; says what was done."""
    state = state_dir.read()
    if state is None:
        return "No server is running."
    launcher = state.launcher.process()
    if launcher is not None:
        with contextlib.suppress(psutil.NoSuchProcess):
            launcher.terminate()
            _wait_until_gone(launcher, state)
    ended = kill_processes(state.shm_prefix)
    removed = remove_regions(state.shm_prefix)
    if state.private_directory is not None:
        remove_private_directory(Path(state.private_directory))
    # A launcher that started in between has written a state of its own.
    if (now := state_dir.read()) is not None and now.launcher == state.launcher:
        state_dir.remove()
    if launcher is not None and not ended:
        return "Stopped."
    return f"Removed what a dead launcher had left: {ended} processes, {removed} memory regions."


def _wait_until_gone(launcher: psutil.Process, state: ServerState) -> None:
    deadline = time.monotonic() + STOP_SECONDS
    while state.launcher.process() is not None:
        if time.monotonic() > deadline:
            launcher.kill()
            raise LauncherError(
                f"The launcher (pid {launcher.pid}) did not end within {STOP_SECONDS:g} s and was "
                "killed.",
                "Run `stop` once more to remove what it left.",
            )
        time.sleep(0.05)


def answers(state: ServerState) -> bool:
    """Whether Triton says that all its models are ready."""
    return is_ready(state.urls["http"])
