"""The backstop behind the stub watch: periodic probes that never take a busy server for a hung one.

Most ask about one cached image, as a user's clicks do; every few about a fresh one, as a user's next image
does: a hung encoder is seen by nobody else.
"""

import http.client
import re
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import psutil  # type: ignore[import-untyped,unused-ignore]

from sam2_server import direct_http
from sam2_server.probe import MODEL, Asker, ProbeResult, probe

FAILURES_UNTIL_HUNG = 3
RETRY_SECONDS = 5.0
# One in so many probes brings an image that has to be encoded.
FRESH_EVERY = 4
# What a fresh image takes beyond a click; answers and processor time of these tell whether it is stuck.
IMAGE_MODELS = ("sam2_preprocess", "sam2_encoder")
# A process that Triton called unhealthy in so many answers to probes within this window is a suspect,
# whatever the probes in between said: where a model has two processes, they meet the other one.
SUSPECT_ANSWERS = 2
SUSPECT_WINDOW_SECONDS = 60.0
METRICS_TIMEOUT_SECONDS = 5.0
# A tree that computes with a quarter of a core or more is at work, however long it takes.
BUSY_CORES = 0.25
SUCCESSES = re.compile(r'^nv_inference_request_success\{model="([^"]+)",.*?\} (\S+)', re.MULTILINE)


@dataclass(frozen=True)
class Sample:
    """A probe's result, with what tells a busy server from a hung one."""

    result: ProbeResult
    taken_at: float
    # By the models that were asked, None where the metrics did not answer.
    answered_requests: float | None
    cpu_seconds: float
    fresh: bool = False


class HealthWatch:
    """Probes in a thread of its own; `check` only looks at what came back."""

    def __init__(
        self,
        server_pid: int,
        *,
        asker: Asker,
        probe_url: str,
        metrics_url: str,
        interval_seconds: float,
        timeout_seconds: float,
        report: Callable[[str], None],
    ) -> None:
        self._server_pid = server_pid
        self._asker = asker
        self._probe_url = probe_url
        self._metrics_url = metrics_url
        self._interval_seconds = interval_seconds
        self._timeout_seconds = timeout_seconds
        self._report = report
        self._executor = ThreadPoolExecutor(1, "probe")
        self._pending: Future[Sample] | None = None
        self._next_at = time.monotonic() + interval_seconds
        self._silent: list[Sample] = []
        self._probes = 0
        self._stuck_at: dict[str, list[float]] = {}
        self._last_error: str | None = None

    def check(self) -> str | None:
        """Why the server has to be restarted, or None."""
        now = time.monotonic()
        if self._pending is None:
            if now >= self._next_at:
                self._probes += 1
                # Once a fresh image got no answer, a cached one's says nothing about it.
                fresh = self._silent[-1].fresh if self._silent else self._probes % FRESH_EVERY == 0
                self._pending = self._executor.submit(self._sample, fresh)
            return None
        if not self._pending.done():
            return None
        sample = self._pending.result()
        self._pending = None
        verdict = self._judge(sample)
        self._next_at = now + (RETRY_SECONDS if self._silent else self._interval_seconds)
        return verdict

    def suspects(self, now: float) -> set[str]:
        """The model instances that probes have met as unhealthy again and again lately."""
        return {
            instance
            for instance, times in self._stuck_at.items()
            if sum(now - at < SUSPECT_WINDOW_SECONDS for at in times) >= SUSPECT_ANSWERS
        }

    def close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _judge(self, sample: Sample) -> str | None:
        result = sample.result
        if (instance := result.stuck_instance) is not None:
            earlier = self._stuck_at.get(instance, [])[1 - SUSPECT_ANSWERS :]
            self._stuck_at[instance] = [*earlier, sample.taken_at]
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
            f"no answer to {FAILURES_UNTIL_HUNG} health probes of {self._timeout_seconds:g} s each"
            f"{' with a fresh image' if sample.fresh else ''}, none to any other such request, and no "
            "computing"
        )

    def _sample(self, fresh: bool) -> Sample:
        result = probe(self._probe_url, self._timeout_seconds, self._asker, fresh=fresh)
        # Only where it matters: the tree's processor time costs a look at every process.
        silent = result.no_answer
        return Sample(
            result,
            time.monotonic(),
            answered_requests(self._metrics_url, IMAGE_MODELS[-1] if fresh else MODEL)
            if silent
            else None,
            cpu_seconds(self._server_pid, IMAGE_MODELS if fresh else ()) if silent else 0.0,
            fresh,
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


def answered_requests(metrics_url: str, model: str) -> float | None:
    """By that model, or by the public one where there is none of that name."""
    try:
        text = direct_http.get(metrics_url, METRICS_TIMEOUT_SECONDS).decode()
    except (OSError, http.client.HTTPException):
        return None
    counts: dict[str, float] = {}
    for name, count in SUCCESSES.findall(text):
        counts[name] = counts.get(name, 0.0) + float(count)
    return counts.get(model, counts.get(MODEL, 0.0))


def cpu_seconds(server_pid: int, models: tuple[str, ...] = ()) -> float:
    """Processor time that a server and its stubs have used so far, or the stubs of `models` alone."""
    try:
        server = psutil.Process(server_pid)
        children = server.children(recursive=True)
    except psutil.NoSuchProcess:
        return 0.0
    asked = [child for child in children if _runs_any(child, models)]
    # A model without a process of its own runs in the server's.
    complete = bool(models) and all(any(_runs_any(child, (m,)) for child in asked) for m in models)
    total = 0.0
    for process in asked if complete else [server, *children]:
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def _runs_any(stub: psutil.Process, models: tuple[str, ...]) -> bool:
    try:
        words = stub.cmdline()
    except psutil.Error:
        return False
    return any(
        re.fullmatch(rf"{re.escape(model)}_\d+_\d+", word) for word in words for model in models
    )
