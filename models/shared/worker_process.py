"""A Python process that answers lines of JSON with lines of JSON, one at a time, and can be ended meanwhile.

Why a process: decoders of pictures and videos do not return to Python before they are done, so neither a
signal handler nor a thread can end one; a default signal action or a kill can, and then must not hit the
model's own process. Why one that stays: starting Python for every request costs 0.2 s.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, cast

START_SECONDS = 60.0
# How often a request that takes longer than this asks whether somebody still waits for it.
PATIENCE_SECONDS = 0.05
# How processes end by what they were given to decode, not by somebody's hand.
CRASHES = (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL)


class WorkCancelledError(RuntimeError):
    """Nobody waits for this any more."""


class WorkerStarvedError(RuntimeError):
    """The process got so little of a busy machine that it was given up."""


class WorkerEndedError(RuntimeError):
    """The process ended without an answer; `ended_by` is the signal, 0 where it left by itself."""

    def __init__(self, ended_by: int) -> None:
        super().__init__(f"the process ended (signal {ended_by})")
        self.ended_by = ended_by

    @property
    def is_out_of_time(self) -> bool:
        """The kernel ended it after its processor seconds."""
        return self.ended_by == signal.SIGPROF

    @property
    def crash(self) -> str | None:
        """The signal's name where what it worked on ended it."""
        return signal.Signals(self.ended_by).name if self.ended_by in CRASHES else None


def _environment() -> dict[str, str]:
    """Packages where this process finds them; no threads of numpy's, which would only cost memory; memory in
    huge pages where the kernel has them on request, which spares a tenth of a decode (glibc 2.35)."""
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    return {
        "PYTHONPATH": os.pathsep.join(sys.path),
        "OPENBLAS_NUM_THREADS": "1",
        "GLIBC_TUNABLES": ":".join(filter(None, [tunables, "glibc.malloc.hugetlb=1"])),
    }


class WorkerProcess:
    """One process, whose first line says that it is ready. One caller at a time; anybody may kill it."""

    def __init__(self, script: Path, arguments: Sequence[str], pass_fds: Sequence[int]) -> None:
        python = sys.executable or shutil.which("python3") or "python3"
        self._process = subprocess.Popen(
            [python, str(script), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=pass_fds,
            env=os.environ | _environment(),
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def ask(
        self, request: dict[str, Any], seconds: float, is_cancelled: Callable[[], bool]
    ) -> dict[str, Any]:
        """Sends a request and waits for its answer; whatever is raised, the process is of no more use."""
        try:
            self._input.write(json.dumps(request).encode() + b"\n")
            self._input.flush()
        except BrokenPipeError:
            raise self._ended() from None
        return self.wait(seconds, is_cancelled)

    def wait(
        self, seconds: float = START_SECONDS, is_cancelled: Callable[[], bool] = lambda: False
    ) -> dict[str, Any]:
        """The next line from the process, which is one at a time and short.

        Raises:
            WorkCancelledError: is_cancelled() said so meanwhile.
            WorkerStarvedError: it took longer than these seconds.
            WorkerEndedError: the process has ended.
        """
        deadline = time.monotonic() + seconds
        while not select.select([self._output], [], [], PATIENCE_SECONDS)[0]:
            if is_cancelled():
                raise WorkCancelledError("the client cancelled this request")
            if time.monotonic() > deadline:
                raise WorkerStarvedError("it got too little of a busy machine")
        line = self._output.readline()
        if not line:
            raise self._ended()
        answer: dict[str, Any] = json.loads(line)
        return answer

    def kill(self) -> None:
        """Ends it, whatever it is doing; who waits for an answer sees it end."""
        self._process.kill()

    def close(self) -> None:
        """Ends it, for the caller who holds it."""
        self._process.kill()
        self._process.wait()
        self._output.close()
        with contextlib.suppress(BrokenPipeError):  # a request that it never read
            self._input.close()

    def end_input(self) -> None:
        """What its parent's end means to it: it leaves by itself."""
        self._input.close()

    def _ended(self) -> WorkerEndedError:
        return WorkerEndedError(max(-self._process.wait(), 0))

    @property
    def _input(self) -> IO[bytes]:
        return cast(IO[bytes], self._process.stdin)

    @property
    def _output(self) -> IO[bytes]:
        return cast(IO[bytes], self._process.stdout)
