"""Decodes image files in a process of its own, which can be ended while it decodes.

A file goes over in shared memory without a name (memfd), as does the picture; a line of JSON each way says
what lies there. See worker_process.py for why it is a process, and one that stays.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt
from image_errors import InvalidImageError, check_length
from memory_file import MemoryFile
from worker_process import (
    WorkCancelledError,
    WorkerEndedError,
    WorkerProcess,
    WorkerStarvedError,
)

WORKER = Path(__file__).with_name("image_worker.py")
# A decode gets its processor seconds; on a machine so busy that they take this much longer it is given up.
BUSY_SECONDS = 100.0
# sam2_embedding knows by "is not ready" that trying again may help.
NOT_READY = "the process that decodes images is not ready"


class DecodeCancelledError(RuntimeError):
    """Nobody waits for this picture any more."""


class DecoderLostError(RuntimeError):
    """The decoding process was ended from outside, or starved; trying again may help."""


@dataclass(frozen=True)
class PreparedImage:
    """The picture [3, S, S], and height and width of the upright original, or of its part."""

    resized: npt.NDArray[Any]
    original_hw: tuple[int, int]


class ImageProcess:
    """One decoding process, replaced when it ends, for one type of pixels. One caller at a time."""

    def __init__(self, limits: Mapping[str, float], data_type: str) -> None:
        self._limits, self._data_type = dict(limits), data_type
        self._start()

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
        if not self._worker.is_alive:
            self._restart()
        try:
            self._memory.write(data)
            request = {"side": side, "resample": resample, "crop_box": crop_box}
            request["data_type"] = self._data_type
            answer = self._ask(request, is_cancelled)
        except (OSError, MemoryError) as error:
            self._restart()
            raise DecoderLostError(f"{NOT_READY}: the machine has no room for the image") from error
        except BaseException:
            # It has ended, or is busy with what nobody wants any more.
            self._restart()
            raise
        if "refused" in answer:
            self._memory.empty()
            raise InvalidImageError(answer["refused"])
        height, width = answer["original_hw"]
        resized = self._memory.read_array(tuple(answer["shape"]), answer["dtype"])
        self._memory.empty()
        return PreparedImage(resized, (height, width))

    def close(self) -> None:
        """Ends the process."""
        self._worker.close()
        self._memory.close()

    @property
    def pid(self) -> int:
        return self._worker.pid

    def _start(self) -> None:
        self._memory = MemoryFile("sam2-image")
        arguments = [str(self._memory.fd), json.dumps(self._limits)]
        self._worker = WorkerProcess(WORKER, arguments, [self._memory.fd])
        try:
            self._worker.wait()
        except BaseException:
            self.close()
            raise

    def _restart(self) -> None:
        self.close()
        self._start()

    def _ask(self, request: dict[str, Any], is_cancelled: Callable[[], bool]) -> dict[str, Any]:
        seconds = self._limits["max_decode_seconds"] + BUSY_SECONDS
        try:
            return self._worker.ask(request, seconds, is_cancelled)
        except WorkCancelledError as error:
            raise DecodeCancelledError(str(error)) from None
        except WorkerStarvedError as error:
            raise DecoderLostError(f"{NOT_READY}: {error}") from None
        except WorkerEndedError as ended:
            raise self._explain(ended) from None

    def _explain(self, ended: WorkerEndedError) -> Exception:
        if ended.is_out_of_time:
            return InvalidImageError(
                f"image: expected a picture that decodes within {self._limits['max_decode_seconds']} s of"
                " processor time (max_decode_seconds), got one that takes longer"
            )
        if ended.crash is not None:
            return InvalidImageError(
                f"image: expected a sound file, got one that ended its decoder ({ended.crash})"
            )
        return DecoderLostError(f"{NOT_READY}: it was ended from outside")
