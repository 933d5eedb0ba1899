"""Decodes image files in a process of its own, which can be ended while it decodes.

Why a process: Pillow's decoders (libjpeg, libtiff, libwebp, zlib) do not return to Python before they are
done, so neither a signal handler nor a thread can end one; a default signal action or a kill can, and then
must not hit the model's own process. Why one that stays: starting Python for every picture costs 0.2 s,
handing a picture over costs a copy. A file goes over in shared memory without a name (memfd), as does the
picture; a line of JSON each way says what lies there.
"""

from __future__ import annotations

import json
import mmap
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import numpy.typing as npt
from image_errors import InvalidImageError, check_length

WORKER = Path(__file__).with_name("image_worker.py")
START_SECONDS = 60.0
# How often a decode that takes longer than this asks whether somebody still waits for it.
PATIENCE_SECONDS = 0.05
# A decode gets its processor seconds; on a machine that is this many times too busy it is given up.
WALL_SECONDS_PER_SECOND = 6
# sam2_embedding knows by "is not ready" that trying again may help.
NOT_READY = "the process that decodes images is not ready"


class DecodeCancelledError(RuntimeError):
    """Nobody waits for this picture any more."""


class DecoderLostError(RuntimeError):
    """The decoding process was ended from outside, or starved; trying again may help."""


@dataclass(frozen=True)
class PreparedImage:
    """The picture [3, S, S], and height and width of the upright original."""

    resized: npt.NDArray[np.uint8]
    original_hw: tuple[int, int]


class ImageProcess:
    """One decoding process, replaced when it ends. One caller at a time."""

    def __init__(self, limits: Mapping[str, int]) -> None:
        self._limits = dict(limits)
        self._shared: int | None = None
        self._process: subprocess.Popen[bytes]
        self._start()

    def prepare(
        self,
        data: bytes,
        side: int,
        resample: str = "bilinear",
        is_cancelled: Callable[[], bool] = lambda: False,
    ) -> PreparedImage:
        """Decodes a file and squashes the picture to side x side.

        Raises:
            InvalidImageError: the file cannot be used, or takes more time or memory than a decode may.
            DecodeCancelledError: is_cancelled() said so meanwhile; the decode has been ended.
            DecoderLostError: not the file's fault.
        """
        check_length(len(data), self._limits["max_image_bytes"])
        if self._process.poll() is not None:
            self._restart()
        try:
            self._share(data)
            answer = self._ask(
                {"bytes": len(data), "side": side, "resample": resample}, is_cancelled
            )
        except (OSError, MemoryError) as error:
            self._restart()
            raise DecoderLostError(f"{NOT_READY}: the machine has no room for the image") from error
        except BaseException:
            # It has ended, or is busy with what nobody wants any more.
            self._restart()
            raise
        if "refused" in answer:
            self._empty()
            raise InvalidImageError(answer["refused"])
        height, width = answer["original_hw"]
        return PreparedImage(self._collect(answer), (height, width))

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        if self._shared is not None:
            os.close(self._shared)
            self._shared = None

    @property
    def pid(self) -> int:
        return self._process.pid

    def _start(self) -> None:
        self._shared = os.memfd_create("sam2-image")
        python = sys.executable or shutil.which("python3") or "python3"
        self._process = subprocess.Popen(
            [python, str(WORKER), str(self._memory), json.dumps(self._limits)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[self._memory],
            # Packages where this process finds them; numpy's threads would only cost memory.
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OPENBLAS_NUM_THREADS": "1"},
        )
        try:
            self._wait(time.monotonic() + START_SECONDS, lambda: False)
        except BaseException:
            self.close()
            raise

    def _restart(self) -> None:
        self.close()
        self._start()

    def _share(self, data: bytes) -> None:
        os.ftruncate(self._memory, len(data))
        with mmap.mmap(self._memory, len(data)) as file:
            file[:] = data

    def _ask(self, request: dict[str, Any], is_cancelled: Callable[[], bool]) -> dict[str, Any]:
        seconds = self._limits["max_decode_seconds"] * WALL_SECONDS_PER_SECOND
        try:
            self._input.write(json.dumps(request).encode() + b"\n")
            self._input.flush()
        except BrokenPipeError:
            raise self._ended() from None
        return self._wait(time.monotonic() + seconds, is_cancelled)

    def _wait(self, deadline: float, is_cancelled: Callable[[], bool]) -> dict[str, Any]:
        """The next line from the process, which is one at a time and short."""
        while not select.select([self._output], [], [], PATIENCE_SECONDS)[0]:
            if is_cancelled():
                raise DecodeCancelledError("the client cancelled this request")
            if time.monotonic() > deadline:
                raise DecoderLostError(f"{NOT_READY}: it got too little of a busy machine")
        line = self._output.readline()
        if not line:
            raise self._ended()
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _ended(self) -> Exception:
        ended_by = -self._process.wait()
        if ended_by == signal.SIGPROF:
            return InvalidImageError(
                f"image: expected a picture that decodes within {self._limits['max_decode_seconds']} s of"
                " processor time (max_decode_seconds), got one that takes longer"
            )
        if ended_by in (
            signal.SIGSEGV,
            signal.SIGBUS,
            signal.SIGABRT,
            signal.SIGFPE,
            signal.SIGILL,
        ):
            return InvalidImageError(
                "image: expected a sound file, got one that ended its decoder"
                f" ({signal.Signals(ended_by).name})"
            )
        return DecoderLostError(f"{NOT_READY}: it was ended from outside")

    def _collect(self, answer: dict[str, Any]) -> npt.NDArray[np.uint8]:
        shape, dtype = tuple(answer["shape"]), np.dtype(answer["dtype"])
        with mmap.mmap(self._memory, int(np.prod(shape)) * dtype.itemsize) as picture:
            resized = np.frombuffer(picture[:], dtype).reshape(shape)
        self._empty()
        return resized

    def _empty(self) -> None:
        """Nothing of a client's picture stays behind, and the memory returns."""
        os.ftruncate(self._memory, 0)

    @property
    def _input(self) -> IO[bytes]:
        return cast(IO[bytes], self._process.stdin)

    @property
    def _output(self) -> IO[bytes]:
        return cast(IO[bytes], self._process.stdout)

    @property
    def _memory(self) -> int:
        if self._shared is None:
            raise RuntimeError("this decoder is closed")
        return self._shared
