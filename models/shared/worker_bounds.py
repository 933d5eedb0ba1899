"""What a process that decodes lets the kernel hold it to: processor seconds and memory. Its side of the talk.

No decoder can look away from either: the kernel ends the process after so many seconds of processor time, and
allocations beyond the limit fail in it.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import sys
import warnings
from collections.abc import Iterator
from typing import Any

# Cached clicks of others go first where processors are short.
NICENESS = 5


def begin_work(max_memory_bytes: int) -> None:
    """Called once, when everything needed is imported: memory beyond what is held now is bounded."""
    os.nice(NICENESS)
    # Ctrl-C is for the server, which then closes this process's input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGPROF})
    # What is odd about a file is the client's business, not the log's.
    warnings.simplefilter("ignore")
    with open("/proc/self/statm") as statm:  # noqa: PTH123 - a file of the kernel's
        pages = int(statm.read().split()[0])
    most = pages * resource.getpagesize() + max_memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


@contextlib.contextmanager
def processor_seconds(seconds: float) -> Iterator[None]:
    """The kernel ends the process (SIGPROF) where the block takes longer."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def requests() -> Iterator[dict[str, Any]]:
    """What the parent asks, until its end is closed."""
    for line in sys.stdin:
        yield json.loads(line)


def say(what: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()
