"""Starts tritonserver, waits until it answers, watches it, restarts it after a crash, stops it."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType

from rich.console import Console

from sam2_server.errors import CrashLoopError, StartError
from sam2_server.health import HealthWatch
from sam2_server.process import TritonProcess
from sam2_server.readiness import require_answer, wait_until_loaded
from sam2_server.server_log import ServerLog, for_people
from sam2_server.state import ProcessId, ServerState, StateDir, write_json
from sam2_server.stubs import StubWatcher

POLL_SECONDS = 0.2
STOP_TIMEOUT_SECONDS = 20.0
MAX_BACKOFF_SECONDS = 30.0


@dataclass(frozen=True)
class SupervisorOptions:
    supervise: bool
    probe: bool
    start_timeout_seconds: float
    probe_interval_seconds: float
    probe_timeout_seconds: float
    max_crashes: int
    crash_window_seconds: float
    full_log: bool
    ready_file: Path | None


class StopRequestedError(Exception):
    """A signal asked the launcher to stop while it was starting the server."""


class Supervisor:
    """The life of one served repository, over any number of tritonserver processes."""

    def __init__(
        self,
        launch: Callable[[], TritonProcess],
        state_dir: StateDir,
        state: ServerState,
        options: SupervisorOptions,
        console: Console,
    ) -> None:
        self._launch = launch
        self._state_dir = state_dir
        self._state = state
        self._options = options
        self._console = console
        self._signals = 0
        self._crashes: list[float] = []
        self._log = ServerLog(state_dir.log_file)

    def run(self) -> None:
        """Serve until a signal comes; raises StartError or CrashLoopError."""
        with self._handling_signals():
            try:
                self._serve()
            except StopRequestedError:
                self._console.print("Stopped.")
            finally:
                self._state_dir.remove()
                self._remove_ready_file()

    def _serve(self) -> None:
        crash = self._run_once()
        while crash is not None:
            self._back_off(crash)
            try:
                crash = self._run_once()
            except StartError as error:
                crash = error.problem

    def _run_once(self) -> str | None:
        """From start to end of one tritonserver: why it crashed, or None if it was told to stop."""
        self._log.reset()
        process = self._launch()
        crash = None
        try:
            self._update(server=ProcessId.of(process.pid))
            wait_until_loaded(
                process,
                self._log,
                self._state.urls["http"],
                self._options.start_timeout_seconds,
                console=self._console,
                # By default the progress line, or the explained failure, says it all.
                follow_log=self._show_log if self._options.full_log else self._log.new_lines,
                check_stop=self._check_stop,
            )
            stubs = StubWatcher(process.pid, self._state.shm_prefix)
            if self._options.probe:
                require_answer(self._state, self._console, lambda: self._check_alive(stubs))
            self._announce()
            crash = self._watch(process, stubs)
        finally:
            if crash is None:
                self._stop(process)
            else:
                # Dead stubs keep a polite end waiting for half a minute, and requests hanging with it.
                process.kill()
                self._show_log()
        return crash

    def _watch(self, process: TritonProcess, stubs: StubWatcher) -> str | None:
        """Why the server has to be restarted, or None once a signal came."""
        with self._probing(process) as health:
            while not self._signals:
                if (code := process.exit_code()) is not None:
                    return f"tritonserver {describe_exit(code)}"
                if self._options.supervise:
                    if crashed := stubs.crashed():
                        return f"the process of {', '.join(crashed)} died"
                    if health is not None and (hung := health.check()):
                        return hung
                self._show_log()
                time.sleep(POLL_SECONDS)
        return None

    @contextmanager
    def _probing(self, process: TritonProcess) -> Iterator[HealthWatch | None]:
        if not (self._options.supervise and self._options.probe):
            yield None
            return
        health = HealthWatch(
            process.pid,
            probe_url=self._state.urls["probe"],
            metrics_url=self._state.urls["metrics"],
            interval_seconds=self._options.probe_interval_seconds,
            timeout_seconds=self._options.probe_timeout_seconds,
            report=self._warn,
        )
        try:
            yield health
        finally:
            health.close()

    def _back_off(self, crash: str) -> None:
        """Wait before the next start, the longer the more crashes there were lately."""
        now = time.monotonic()
        window = self._options.crash_window_seconds
        self._crashes = [at for at in self._crashes if now - at < window] + [now]
        self._remove_ready_file()
        if not self._options.supervise:
            raise CrashLoopError(
                f"The server crashed: {crash}.",
                f"Start it again; without --no-supervise that happens by itself. {self._log_hint()}",
            )
        if len(self._crashes) >= self._options.max_crashes:
            raise CrashLoopError(
                f"The server crashed {len(self._crashes)} times within {window:g} s, last: {crash}.",
                f"It is not restarted again. {self._log_hint()}",
            )
        pause = min(2.0 ** (len(self._crashes) - 2), MAX_BACKOFF_SECONDS)
        pause = pause if len(self._crashes) > 1 else 0.0
        self._warn(f"{crash}; restarting" + (f" in {pause:g} s" if pause else ""))
        self._update(
            status="restarting", server=None, restarts=self._state.restarts + 1, last_crash=crash
        )
        while time.monotonic() < now + pause:
            self._check_stop()
            time.sleep(POLL_SECONDS)

    def _stop(self, process: TritonProcess) -> None:
        self._remove_ready_file()
        if process.exit_code() is None:
            self._update(status="stopping")
            self._console.print("Stopping…")
            signals = max(self._signals, 1)
            if not process.stop(STOP_TIMEOUT_SECONDS, hurry=lambda: self._signals > signals):
                self._warn("it did not stop by itself and was ended")
        else:
            process.kill()
        self._show_log()

    def _announce(self) -> None:
        self._update(status="ready")
        if self._options.ready_file is not None:
            write_json(self._options.ready_file, self._state)
        urls = self._state.urls
        self._console.print(
            f"Ready. HTTP {urls['http']}  gRPC {urls['grpc']}  metrics {urls['metrics']}"
        )

    def _show_log(self) -> None:
        for line in self._log.new_lines():
            shown = line if self._options.full_log else for_people(line)
            if shown:
                self._console.print(shown, markup=False, highlight=False)

    def _update(self, **changes: object) -> None:
        self._state = replace(self._state, **changes)  # type: ignore[arg-type]
        self._state_dir.write(self._state)

    def _remove_ready_file(self) -> None:
        if self._options.ready_file is not None:
            self._options.ready_file.unlink(missing_ok=True)

    def _warn(self, message: str) -> None:
        self._console.print(f"{time.strftime('%H:%M:%S')} {message}", markup=False, highlight=False)

    def _log_hint(self) -> str:
        return f"The full log: {self._state_dir.log_file}"

    def _check_alive(self, stubs: StubWatcher) -> None:
        """A model that dies of the first image (out of memory, say) would let it wait for long."""
        self._check_stop()
        if crashed := stubs.crashed():
            raise StartError(
                f"The process of {', '.join(crashed)} died during the first test request.",
                f"Is there enough memory? {self._log_hint()}",
            )

    def _check_stop(self) -> None:
        if self._signals:
            raise StopRequestedError

    @contextmanager
    def _handling_signals(self) -> Iterator[None]:
        def count(_number: int, _frame: FrameType | None) -> None:
            self._signals += 1

        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = {number: signal.signal(number, count) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def describe_exit(code: int) -> str:
    """An exit status in words."""
    if code >= 0:
        return f"ended with exit code {code}"
    return f"was ended by {signal.Signals(-code).name}"
