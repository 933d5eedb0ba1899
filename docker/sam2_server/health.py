"""The backstop behind the stub watch: periodic probes that never take a busy server for a hung one."""

import http.client
import re
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import psutil  # type: ignore[import-untyped,unused-ignore]

from sam2_server.probe import MODEL, ProbeResult, probe

FAILURES_UNTIL_HUNG = 3
RETRY_SECONDS = 5.0
# A tree that computes with a quarter of a core or more is at work, however long it takes.
BUSY_CORES = 0.25
SUCCESSES = re.compile(
    rf'^nv_inference_request_success\{{model="{MODEL}",.*?\}} (\S+)', re.MULTILINE
)


@dataclass(frozen=True)
class Sample:
    """A probe's result, with what tells a busy server from a hung one."""

    result: ProbeResult
    taken_at: float
    answered_requests: float | None  # by the public model, None where the metrics did not answer
    cpu_seconds: float


class HealthWatch:
    """Probes in a thread of its own; `check` only looks at what came back."""

    def __init__(
        self,
        server_pid: int,
        *,
        probe_url: str,
        metrics_url: str,
        interval_seconds: float,
        timeout_seconds: float,
        report: Callable[[str], None],
    ) -> None:
        self._server_pid = server_pid
        self._probe_url = probe_url
        self._metrics_url = metrics_url
        self._interval_seconds = interval_seconds
        self._timeout_seconds = timeout_seconds
        self._report = report
        self._executor = ThreadPoolExecutor(1, "probe")
        self._pending: Future[Sample] | None = None
        self._next_at = time.monotonic() + interval_seconds
        self._silent: list[Sample] = []
        self._last_error: str | None = None

    def check(self) -> str | None:
        """Why the server has to be restarted, or None."""
        now = time.monotonic()
        if self._pending is None:
            if now >= self._next_at:
                self._pending = self._executor.submit(self._sample)
            return None
        if not self._pending.done():
            return None
        sample = self._pending.result()
        self._pending = None
        verdict = self._judge(sample)
        self._next_at = now + (RETRY_SECONDS if self._silent else self._interval_seconds)
        return verdict

    def close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _judge(self, sample: Sample) -> str | None:
        result = sample.result
        if result.healthy:
            self._silent.clear()
            self._last_error = None
            return None
        if not result.no_answer:
            # An answer, if an unwelcome one (a broken model loaded by hand, full queues): a restart
            # would cost the cache and mend nothing.
            self._silent.clear()
            if result.message != self._last_error:
                self._report(f"the health probe got an error: {result.message}")
                self._last_error = result.message
            return None
        self._silent.append(sample)
        if len(self._silent) < FAILURES_UNTIL_HUNG:
            return None
        first, self._silent = self._silent[0], []
        if is_busy(first, sample):
            self._report("the health probe gets no answer in time; the server is busy, not hung")
            return None
        return (
            f"no answer to {FAILURES_UNTIL_HUNG} health probes of {self._timeout_seconds:g} s each, "
            "none to any other request, and no computing"
        )

    def _sample(self) -> Sample:
        result = probe(self._probe_url, self._timeout_seconds)
        # Only where it matters: the tree's processor time costs a look at every process.
        silent = result.no_answer
        return Sample(
            result,
            time.monotonic(),
            answered_requests(self._metrics_url) if silent else None,
            cpu_seconds(self._server_pid) if silent else 0.0,
        )


def is_busy(first: Sample, last: Sample) -> bool:
    """Whether requests were answered, or processors at work, between two silent probes."""
    if (
        first.answered_requests is not None
        and last.answered_requests is not None
        and last.answered_requests > first.answered_requests
    ):
        return True
    elapsed = last.taken_at - first.taken_at
    return last.cpu_seconds - first.cpu_seconds > BUSY_CORES * elapsed


def answered_requests(metrics_url: str) -> float | None:
    try:
        with urllib.request.urlopen(metrics_url, timeout=5) as response:  # noqa: S310 - our own URL
            text = response.read().decode()
    except (OSError, http.client.HTTPException):
        return None
    return sum(float(value) for value in SUCCESSES.findall(text))


def cpu_seconds(server_pid: int) -> float:
    """Processor time that a server and its stubs have used so far."""
    total = 0.0
    try:
        server = psutil.Process(server_pid)
        tree = [server, *server.children(recursive=True)]
    except psutil.NoSuchProcess:
        return total
    for process in tree:
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total
