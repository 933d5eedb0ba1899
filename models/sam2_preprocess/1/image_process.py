"""Decodes image files in a process of its own, which can be ended while it decodes.

Why a process: Pillow's decoders (libjpeg, libtiff, libwebp, zlib) do not return to Python before they are
done, so neither a signal handler nor a thread can end one; a default signal action or a kill can, and then
must not hit the model's own process. Why one that stays: starting Python for every picture costs 0.2 s,
handing a picture over costs a copy. A file goes over in shared memory without a name (memfd), as does the
picture; a line of JSON each way says what lies there.
"""

from __future__ import annotations

import contextlib
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
# A decode gets its processor seconds; on a machine so busy that they take this much longer it is given up.
BUSY_SECONDS = 100.0
# sam2_embedding knows by "is not ready" that trying again may help.
NOT_READY = "the process that decodes images is not ready"
ENDED_BY_ITS_FILE = (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL)


class DecodeCancelledError(RuntimeError):
    """Nobody waits for this picture any more."""


class DecoderLostError(RuntimeError):
    """The process was ended from outside, or got too little of the machine; trying again may help."""


@dataclass(frozen=True)
class PreparedImage:
    """The picture [3, S, S], and height and width of the upright original, or of its part."""

    resized: npt.NDArray[Any]
    original_hw: tuple[int, int]


class ImageProcess:
    """A decoding process, replaced when it ends, for one type of pixels. One caller at a time."""

    def __init__(self, limits: Mapping[str, float], data_type: str) -> None:
        self._limits, self._data_type = dict(limits), data_type
        self._worker = _Worker(self._limits)

    @property
    def pid(self) -> int:
        return self._worker.process.pid

    def prepare(
        self,
        data: bytes,
        side: int,
        resample: str = "bilinear",
        crop_box: list[int] | None = None,
        is_cancelled: Callable[[], bool] = lambda: False,
    ) -> PreparedImage:
        """Decodes a file and squashes the picture, or its part x0, y0, x1, y1, to side x side.

        Raises:
            InvalidImageError: the file cannot be used, or takes more time or memory than a decode may.
            DecodeCancelledError: is_cancelled() said so meanwhile; the decode has been ended.
            DecoderLostError: not the file's fault.
        """
        check_length(len(data), int(self._limits["max_image_bytes"]))
        if self._worker.process.poll() is not None:
            self._replace()
        try:
            how = {"side": side, "resample": resample, "crop_box": crop_box}
            how["data_type"] = self._data_type
            answer = self._ask(data, how, is_cancelled)
        except (OSError, MemoryError) as error:
            self._replace()
            raise DecoderLostError(f"{NOT_READY}: the machine has no room for the image") from error
        except BaseException:
            # It has ended, or is busy with what nobody wants any more.
            self._replace()
            raise
        if "refused" in answer:
            self._worker.empty()
            raise InvalidImageError(answer["refused"])
        height, width = answer["original_hw"]
        return PreparedImage(self._worker.collect(answer), (height, width))

    def close(self) -> None:
        """Ends the process."""
        self._worker.close()

    def _replace(self) -> None:
        self._worker.close()
        self._worker = _Worker(self._limits)

    def _ask(
        self, data: bytes, how: dict[str, Any], is_cancelled: Callable[[], bool]
    ) -> dict[str, Any]:
        seconds = self._limits["max_decode_seconds"] + BUSY_SECONDS
        try:
            self._worker.send(data, how)
            return self._worker.receive(time.monotonic() + seconds, is_cancelled)
        except (BrokenPipeError, EOFError):
            raise self._reason_of_end() from None

    def _reason_of_end(self) -> Exception:
        ended_by = -self._worker.process.wait()
        if ended_by == signal.SIGPROF:
            return InvalidImageError(
                f"image: expected a picture that decodes within {self._limits['max_decode_seconds']} s of"
                " processor time (max_decode_seconds), got one that takes longer"
            )
        if ended_by in ENDED_BY_ITS_FILE:
            name = signal.Signals(ended_by).name
            return InvalidImageError(
                f"image: expected a sound file, got one that ended its decoder ({name})"
            )
        return DecoderLostError(f"{NOT_READY}: it was ended from outside")


class _Worker:
    """The process itself, its pipes, and the memory that it shares with this one."""

    def __init__(self, limits: Mapping[str, float]) -> None:
        self._memory = os.memfd_create("sam2-image")
        self._is_open = True
        python = sys.executable or shutil.which("python3") or "python3"
        self.process = subprocess.Popen(
            [python, str(WORKER), str(self._memory), json.dumps(limits)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[self._memory],
            env=os.environ | self._environment(),
        )
        self._input = cast(IO[bytes], self.process.stdin)
        self._output = cast(IO[bytes], self.process.stdout)
        try:
            self.receive(time.monotonic() + START_SECONDS, lambda: False)
        except BaseException:
            self.close()
            raise

    @staticmethod
    def _environment() -> dict[str, str]:
        """Packages where this process finds them; no threads of numpy's, which would only cost memory; memory
        in huge pages where the kernel has them on request, which spares a tenth of a decode (glibc 2.35).
        """
        tunables = os.environ.get("GLIBC_TUNABLES", "")
        return {
            "PYTHONPATH": os.pathsep.join(sys.path),
            "OPENBLAS_NUM_THREADS": "1",
            "GLIBC_TUNABLES": ":".join(filter(None, [tunables, "glibc.malloc.hugetlb=1"])),
        }

    def send(self, data: bytes, how: dict[str, Any]) -> None:
        """Raises BrokenPipeError where the process has ended."""
        os.ftruncate(self._memory, len(data))
        with mmap.mmap(self._memory, len(data)) as file:
            file[:] = data
        self._input.write(json.dumps(how | {"bytes": len(data)}).encode() + b"\n")
        self._input.flush()

    def receive(self, deadline: float, is_cancelled: Callable[[], bool]) -> dict[str, Any]:
        """Its next line. Raises EOFError where the process has ended."""
        while not select.select([self._output], [], [], PATIENCE_SECONDS)[0]:
            if is_cancelled():
                raise DecodeCancelledError("the client cancelled this request")
            if time.monotonic() > deadline:
                raise DecoderLostError(f"{NOT_READY}: it got too little of a busy machine")
        line = self._output.readline()
        if not line:
            raise EOFError
        answer: dict[str, Any] = json.loads(line)
        return answer

    def collect(self, answer: dict[str, Any]) -> npt.NDArray[Any]:
        """The picture that an answer describes."""
        shape, dtype = tuple(answer["shape"]), np.dtype(answer["dtype"])
        with mmap.mmap(self._memory, int(np.prod(shape)) * dtype.itemsize) as picture:
            resized = np.frombuffer(picture[:], dtype).reshape(shape)
        self.empty()
        return resized

    def empty(self) -> None:
        """Nothing of a client's picture stays behind, and the memory returns."""
        os.ftruncate(self._memory, 0)

    def close(self) -> None:
        if not self._is_open:
            return
        self._is_open = False
        self.process.kill()
        self.process.wait()
        self._output.close()
        with contextlib.suppress(BrokenPipeError):  # a request that it never read
            self._input.close()
        os.close(self._memory)
