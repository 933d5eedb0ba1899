"""Starts tritonserver, waits until it answers, watches it, restarts it after a crash, stops it."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from rich.console import Console

from sam2_server.backoff import BackOff
from sam2_server.drain import stopping_file, wait_until_at_rest
from sam2_server.errors import CrashError, StartError
from sam2_server.health import HealthWatch
from sam2_server.probe import Asker
from sam2_server.process import TritonProcess
from sam2_server.published_state import PublishedState
from sam2_server.readiness import require_answer, wait_until_loaded
from sam2_server.reaper import Reaper
from sam2_server.server_log import ServerLog, for_people
from sam2_server.signs_of_life import SERVER, SignsOfLife
from sam2_server.state import ProcessId, ServerState, StateDir
from sam2_server.stubs import StubWatcher

POLL_SECONDS = 0.2
# Requests in flight get so long to finish once the launcher was told to stop.
DRAIN_SECONDS = 20.0


@dataclass(frozen=True)
class SupervisorOptions:
    supervise: bool
    probe: bool
    start_timeout_seconds: float
    probe_interval_seconds: float
    probe_timeout_seconds: float
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
        self._options = options
        self._console = console
        self._published = PublishedState(state_dir, state, options.ready_file, self._warn)
        self._signals = 0
        self._ready_seconds = 0.0
        self._signs = SignsOfLife()
        self._log = ServerLog(state_dir.log_file)

    @property
    def _state(self) -> ServerState:
        return self._published.state

    def run(self) -> None:
        """Serve until a signal comes; raises StartError or CrashError."""
        private = self._state.private_directory
        directory = None if private is None else Path(private)
        with self._handling_signals():
            try:
                with Reaper(self._state.shm_prefix, directory):
                    self._serve()
            except StopRequestedError:
                self._console.print("Stopped.")
            finally:
                self._published.remove()

    def _serve(self) -> None:
        """Never gives up on a server that once was ready: whoever crashes it would take it away for good."""
        back_off = BackOff()
        crash = self._run_once()
        while crash is not None:
            if not self._options.supervise:
                raise CrashError(
                    f"The server crashed: {crash}.",
                    "Start it again; without --no-supervise that happens by itself. "
                    f"The full log: {self._log.path}",
                )
            self._pause(crash, back_off.pause_seconds(self._ready_seconds))
            try:
                crash = self._run_once()
            except StartError as error:
                crash = error.problem
            except OSError as error:
                crash = f"tritonserver could not be started ({error})"

    def _run_once(self) -> str | None:
        """From start to end of one tritonserver: why it crashed, or None if it was told to stop."""
        self._ready_seconds = 0.0
        self._log.reset()
        process = self._launch()
        try:
            self._published.update(status="starting", server=ProcessId.of(process.pid))
            stubs = StubWatcher(process.pid, self._state.shm_prefix)
            wait_until_loaded(
                process,
                self._log,
                stubs,
                self._state.urls["http"],
                self._options.start_timeout_seconds,
                console=self._console,
                # By default the progress line, or the explained failure, says it all.
                follow_log=self._show_log if self._options.full_log else self._log.new_lines,
                check_stop=self._check_stop,
            )
            if self._options.probe:
                require_answer(self._state, self._console, lambda: self._check_alive(stubs))
            self._announce()
            ready_at = time.monotonic()
            crash = self._watch(process, stubs)
            self._ready_seconds = time.monotonic() - ready_at
            if crash is None:
                self._drain(stubs)
        finally:
            process.kill()
            self._show_log()
        return crash

    def _watch(self, process: TritonProcess, stubs: StubWatcher) -> str | None:
        """Why the server has to be restarted, or None once a signal came."""
        with self._probing(process) as health:
            while not self._signals:
                now = time.monotonic()
                if (code := process.exit_code()) is not None:
                    return f"tritonserver {describe_exit(code)}"
                if self._options.supervise:
                    if crashed := stubs.crashed():
                        return f"the process of {', '.join(crashed)} died"
                    processes = {process.pid: SERVER, **stubs.processes()}
                    suspects = health.suspects(now) if health is not None else ()
                    if missing := self._signs.missing(processes, suspects, now):
                        return "; ".join(
                            f"the process of {name} is hung, no sign of life for {seconds:.0f} s"
                            for name, seconds in missing
                        )
                    if health is not None and (hung := health.check()):
                        return hung
                self._published.retry(now)
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
            asker=Asker(self._state.probe_token, self._state.inner_secret),
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

    def _pause(self, crash: str, pause_seconds: float) -> None:
        """Wait before the next start."""
        deadline = time.monotonic() + pause_seconds
        self._published.withdraw_ready()
        self._warn(f"{crash}; restarting" + (f" in {pause_seconds:g} s" if pause_seconds else ""))
        self._published.update(
            status="restarting", server=None, restarts=self._state.restarts + 1, last_crash=crash
        )
        while time.monotonic() < deadline:
            self._check_stop()
            time.sleep(POLL_SECONDS)

    def _drain(self, stubs: StubWatcher) -> None:
        """Refuse what comes, let finish what is in flight; a second signal cuts that short."""
        self._published.withdraw_ready()
        self._published.update(status="stopping")
        self._console.print("Stopping…")
        signals = self._signals
        try:
            stopping_file(self._state.shm_prefix).touch()
        except OSError as error:
            self._warn(f"cannot tell the models to refuse new requests: {error}")
        if not wait_until_at_rest(
            stubs.processes(),
            self._state.urls["metrics"],
            DRAIN_SECONDS,
            hurry=lambda: self._signals > signals,
        ):
            self._warn("requests were still in flight and were broken off")

    def _announce(self) -> None:
        self._published.update(status="ready")
        urls = self._state.urls
        self._console.print(
            f"Ready. HTTP {urls['http']}  gRPC {urls['grpc']}  metrics {urls['metrics']}"
        )

    def _show_log(self) -> None:
        for line in self._log.new_lines():
            shown = line if self._options.full_log else for_people(line)
            if shown:
                self._console.print(shown, markup=False, highlight=False)

    def _warn(self, message: str) -> None:
        self._console.print(f"{time.strftime('%H:%M:%S')} {message}", markup=False, highlight=False)

    def _check_alive(self, stubs: StubWatcher) -> None:
        """A model that dies of the first image (out of memory, say) would let it wait for long."""
        self._check_stop()
        if crashed := stubs.crashed():
            raise StartError(
                f"The process of {', '.join(crashed)} died during the first test request.",
                f"Is there enough memory? The full log: {self._log.path}",
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
