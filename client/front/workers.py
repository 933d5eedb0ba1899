"""Several worker processes on the same ports: the kernel deals out connections, the dead are replaced."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import sys
import threading
import time
from dataclasses import replace
from multiprocessing.context import SpawnProcess

from front.server import serve
from front.settings import FrontSettings

# A worker that dies at once is not started more often than this.
RESTART_SECONDS = 1.0


def supervise(settings: FrontSettings, count: int, parent: int) -> int:
    """Runs workers until SIGTERM or SIGINT; returns the exit status."""
    if 0 in (settings.http_port, settings.grpc_port):
        print("several workers need ports of their own choice, not 0", file=sys.stderr)  # noqa: T201
        return 2
    context = multiprocessing.get_context("spawn")
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())

    def start(index: int) -> SpawnProcess:
        own = replace(
            settings, metrics_port=settings.metrics_port and settings.metrics_port + index
        )
        worker = context.Process(target=_work, args=(own, parent), name=f"front-{index}")
        worker.start()
        return worker

    workers = [start(index) for index in range(count)]
    started = time.monotonic()
    while not stopping.wait(0.2):
        for index, worker in enumerate(workers):
            if not worker.is_alive() and time.monotonic() - started > RESTART_SECONDS:
                message = f"worker {index} ended ({worker.exitcode}); starting another"
                print(message, file=sys.stderr)  # noqa: T201
                workers[index], started = start(index), time.monotonic()
    for worker in workers:
        worker.terminate()
    for worker in workers:
        worker.join(settings.stop_grace_s + 5)
        if worker.is_alive():
            worker.kill()
    return 0


def _work(settings: FrontSettings, parent: int) -> None:
    threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()
    asyncio.run(serve(settings, is_shared=True))


def _end_with_parent(parent: int) -> None:
    """A worker whose parent was killed stops too, as if it had been asked to."""
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)
