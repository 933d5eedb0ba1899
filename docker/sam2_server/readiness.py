"""Waiting until a started tritonserver really answers, and explaining it where it does not."""

import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from rich.console import Console

from sam2_server.errors import StartError
from sam2_server.probe import probe
from sam2_server.process import TritonProcess
from sam2_server.server_log import LoadProgress, ServerLog
from sam2_server.state import ServerState

POLL_SECONDS = 0.1
# Encoding one image, the first time, on a slow processor.
FIRST_ANSWER_SECONDS = 120.0


class StartOptions(Protocol):
    @property
    def probe(self) -> bool: ...
    @property
    def start_timeout_seconds(self) -> float: ...


def wait_until_ready(
    process: TritonProcess,
    log: ServerLog,
    state: ServerState,
    options: StartOptions,
    *,
    console: Console,
    follow_log: Callable[[], object],
    check_stop: Callable[[], None],
) -> None:
    """Return once the server answers; raises StartError with Triton's own words."""
    deadline = time.monotonic() + options.start_timeout_seconds
    shown = ""
    with console.status("Starting tritonserver…") as line:
        while not is_ready(state.urls["http"]):
            check_stop()
            follow_log()
            if process.exit_code() is not None:
                follow_log()
                raise _failed_start(log)
            if time.monotonic() > deadline:
                raise _too_slow(log, options.start_timeout_seconds)
            if (text := describe(log.progress)) != shown:
                shown = text
                line.update(text)
                if not console.is_terminal:
                    console.print(text, highlight=False)
            time.sleep(POLL_SECONDS)
        if options.probe:
            line.update("Waiting for a first mask…")
            _require_answer(state, deadline, check_stop)
    follow_log()


def is_ready(http_url: str) -> bool:
    """Triton's own readiness: all models are loaded."""
    try:
        with urllib.request.urlopen(f"{http_url}/v2/health/ready", timeout=2) as response:  # noqa: S310 - our own URL
            return bool(response.status == 200)
    except (OSError, http.client.HTTPException):
        return False


def describe(progress: LoadProgress) -> str:
    if not progress.begun:
        return "Starting tritonserver…"
    done = f"{len(progress.loaded)} of {len(progress.begun)} models loaded"
    return f"{done}; loading {', '.join(progress.loading)}…" if progress.loading else f"{done}."


def _require_answer(state: ServerState, deadline: float, check_stop: Callable[[], None]) -> None:
    timeout = min(FIRST_ANSWER_SECONDS, max(1.0, deadline - time.monotonic()))
    executor = ThreadPoolExecutor(1, "first-probe")
    try:
        pending = executor.submit(probe, state.urls["probe"], timeout)
        while not pending.done():
            check_stop()
            time.sleep(POLL_SECONDS / 2)
    finally:
        executor.shutdown(wait=False)
    result = pending.result()
    if not result.healthy:
        raise StartError(
            f"tritonserver has loaded all models, but a test request failed: {result.message}",
            f"The full log: {state.log_file}",
        )


def _failed_start(log: ServerLog) -> StartError:
    what = "a model failed to load" if log.progress.failed else "it ended"
    return StartError(
        f"tritonserver did not start, {what}:\n{log.failure()}", f"The full log: {log.path}"
    )


def _too_slow(log: ServerLog, seconds: float) -> StartError:
    loading = ", ".join(log.progress.loading) or "no model"
    return StartError(
        f"tritonserver was not ready after {seconds:g} s; still loading: {loading}.",
        f"Give it more time with --start-timeout. The full log: {log.path}",
    )
