"""Waiting until a started tritonserver really answers, and explaining it where it does not."""

import http.client
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from rich.console import Console

from sam2_server import direct_http
from sam2_server.errors import StartError
from sam2_server.probe import Asker, probe
from sam2_server.process import TritonProcess
from sam2_server.server_log import LoadProgress, ServerLog
from sam2_server.state import ServerState
from sam2_server.stubs import StubWatcher

POLL_SECONDS = 0.1
# Encoding one image, the first time, on a slow processor.
FIRST_ANSWER_SECONDS = 120.0


def wait_until_loaded(
    process: TritonProcess,
    log: ServerLog,
    stubs: StubWatcher,
    http_url: str,
    timeout_seconds: float,
    *,
    console: Console,
    follow_log: Callable[[], object],
    check_stop: Callable[[], None],
) -> None:
    """Return once all models are loaded; raises StartError with Triton's own words."""
    deadline = time.monotonic() + timeout_seconds
    shown = ""
    with console.status("Starting tritonserver…") as line:
        while not is_ready(http_url):
            check_stop()
            follow_log()
            if process.exit_code() is not None:
                follow_log()
                raise _failed_start(log)
            if crashed := stubs.crashed():
                follow_log()
                raise _dead_stub(log, crashed)
            if time.monotonic() > deadline:
                raise _too_slow(log, timeout_seconds)
            if (text := describe(log.progress)) != shown:
                shown = text
                line.update(text)
                if not console.is_terminal:
                    console.print(text, highlight=False)
            time.sleep(POLL_SECONDS)
    follow_log()


def is_ready(http_url: str) -> bool:
    """Triton's own readiness: all models are loaded."""
    try:
        direct_http.get(f"{http_url}/v2/health/ready", timeout_seconds=2)
    except (OSError, http.client.HTTPException):
        return False
    return True


def describe(progress: LoadProgress) -> str:
    if not progress.begun:
        return "Starting tritonserver…"
    done = f"{len(progress.loaded)} of {len(progress.begun)} models loaded"
    return f"{done}; loading {', '.join(progress.loading)}…" if progress.loading else f"{done}."


def require_answer(state: ServerState, console: Console, check: Callable[[], None]) -> None:
    """Return once a first mask has come; `check` raises where waiting on is of no use."""
    executor = ThreadPoolExecutor(1, "first-probe")
    try:
        pending = executor.submit(
            probe,
            state.urls["probe"],
            FIRST_ANSWER_SECONDS,
            Asker(state.probe_token, state.inner_secret),
        )
        with console.status("Waiting for a first mask…"):
            while not pending.done():
                check()
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


def _dead_stub(log: ServerLog, instances: Sequence[str]) -> StartError:
    """Triton would wait for it for good."""
    return StartError(
        f"The process of {', '.join(instances)} died while its model was loading:\n{log.failure()}",
        f"The full log: {log.path}",
    )


def _too_slow(log: ServerLog, seconds: float) -> StartError:
    loading = ", ".join(log.progress.loading) or "no model"
    return StartError(
        f"tritonserver was not ready after {seconds:g} s; still loading: {loading}.",
        f"Give it more time with --start-timeout. The full log: {log.path}",
    )
