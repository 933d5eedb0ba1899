"""The first half of a stop: new requests are refused, those that were taken on finish.

Triton's own polite end refuses the inner calls of requests that it has taken on (INTERNAL), and answers new
ones for seconds as if the models did not exist (NOT_FOUND). So Triton is not told at all. A file tells the
model through which all requests go, which then answers UNAVAILABLE; once the others rest, the server is
killed, and a connection that breaks is UNAVAILABLE as well.
"""

import http.client
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil  # type: ignore[import-untyped,unused-ignore]

from sam2_server import direct_http
from sam2_server.shared_memory import SHARED_MEMORY_DIR

STOPPING_VARIABLE = "SAM2_STOPPING_FILE"
# The model that refuses goes on being asked; whether it still encodes is what its metric says, once a second.
REFUSING_MODEL = "sam2_embedding"
PENDING_ENCODES = re.compile(
    r"^sam2_embedding_cache_pending_encodes(?:\{[^}]*\})? (\S+)", re.MULTILINE
)
PENDING_REQUESTS = re.compile(
    r'^nv_inference_pending_request_count\{model="([^"]+)"[^}]*\} (\S+)', re.MULTILINE
)
METRICS_SECONDS = 1.2
LOOK_SECONDS = 0.3
# Who uses less of a processor than this is at rest; waking for Triton's health check takes a tenth of it.
RESTING_CORES = 0.05
METRICS_TIMEOUT_SECONDS = 2.0


def stopping_file(shm_prefix: str) -> Path:
    """In shared memory: plain to the models, and removed with the server's regions."""
    return SHARED_MEMORY_DIR / f"{shm_prefix}stopping"


def wait_until_at_rest(
    stubs: Mapping[int, str],
    metrics_url: str,
    timeout_seconds: float,
    hurry: Callable[[], bool],
) -> bool:
    """Whether nothing is in flight any more; gives up after the timeout or once `hurry()`.

    `stubs` are the models' processes (id ► instance). One that sleeps over a request, with no processor time
    and nothing in its queue, is taken for one at rest; its client is told UNAVAILABLE when the server ends.
    """
    began = time.monotonic()
    workers = [pid for pid, name in stubs.items() if not name.startswith(f"{REFUSING_MODEL}_")]
    before = cpu_seconds_of(workers)
    looked_at = began
    while (now := time.monotonic()) - began < timeout_seconds:
        if hurry():
            return False
        time.sleep(LOOK_SECONDS)
        now = time.monotonic()
        after = cpu_seconds_of(workers)
        at_rest = after - before < RESTING_CORES * (now - looked_at)
        before, looked_at = after, now
        if at_rest and now - began > METRICS_SECONDS and not has_pending(metrics_url):
            return True
    return False


def has_pending(metrics_url: str) -> bool:
    """Whether encodes are under way or requests wait for a model; a server that does not say has none."""
    try:
        text = direct_http.get(metrics_url, METRICS_TIMEOUT_SECONDS).decode()
    except (OSError, http.client.HTTPException):
        return False
    waiting = [
        float(count) for model, count in PENDING_REQUESTS.findall(text) if model != REFUSING_MODEL
    ]
    return any(float(count) > 0 for count in PENDING_ENCODES.findall(text)) or any(waiting)


def cpu_seconds_of(pids: list[int]) -> float:
    total = 0.0
    for pid in pids:
        try:
            times = psutil.Process(pid).cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total
