"""The process that decodes: image files come from its parent, one by one, and pictures go back.

Started by image_process.py, which says how the two talk. Whatever a file does to a decoder, it does it here:
the kernel ends this process after so many seconds of processor time (no decoder can look away from that), and
allocations beyond the limit fail in it.
"""

from __future__ import annotations

import json
import mmap
import os
import resource
import signal
import sys
import warnings
from typing import Any

import cv2
import numpy as np
from image_decoding import InvalidImageError, StructureLimits, decode_stored, squash
from PIL import Image
from pixel_types import PIXEL_TYPES
from triangle_resize import resize_to_planes

# Cached clicks of others go first where processors are short.
NICENESS = 5


def main() -> None:
    """`image_worker.py FD LIMITS`: serves until its input ends."""
    shared, limits = int(sys.argv[1]), json.loads(sys.argv[2])
    os.nice(NICENESS)
    # Ctrl-C is for the server, which then closes this process's input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGPROF})
    # What is odd about a file is the client's business, not the log's.
    warnings.simplefilter("ignore")
    # Our own limit, checked on the header, stands in for Pillow's fixed one.
    Image.MAX_IMAGE_PIXELS = None
    # A picture in one piece of memory can be looked at where it lies.
    Image.core.set_use_block_allocator(1)  # type: ignore[attr-defined]
    cv2.setNumThreads(1)
    # Libraries take memory of their own when they are first used.
    resize_to_planes(np.zeros((64, 64, 4), np.uint8), 32)
    _limit_memory(limits.pop("max_decode_memory_bytes"))
    _say({"ready": True})
    for line in sys.stdin:
        _say(_answer(shared, json.loads(line), dict(limits)))


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def _answer(shared: int, request: dict[str, Any], limits: dict[str, int]) -> dict[str, Any]:
    with mmap.mmap(shared, request["bytes"], prot=mmap.PROT_READ) as file:
        data = file[:]
    seconds = limits.pop("max_decode_seconds")
    max_bytes, max_pixels = limits.pop("max_image_bytes"), limits.pop("max_image_pixels")
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        stored = decode_stored(data, max_bytes, max_pixels, StructureLimits(**limits))
        crop_box = request["crop_box"]
        pixel_type = PIXEL_TYPES[request["data_type"]]
        resized = squash(stored, request["side"], request["resample"], crop_box, pixel_type)
    except InvalidImageError as error:
        return {"refused": str(error)}
    except MemoryError:
        return {"refused": "image: expected a picture that the memory for decoding holds, got more"}
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    os.ftruncate(shared, resized.nbytes)
    with mmap.mmap(shared, resized.nbytes) as answer:
        np.frombuffer(answer, resized.dtype).reshape(resized.shape)[:] = resized
    x0, y0, x1, y1 = crop_box or (0, 0, *stored.upright_size)
    return {
        "shape": resized.shape,
        "dtype": str(resized.dtype),
        "original_hw": [y1 - y0, x1 - x0],
    }


def _limit_memory(max_decode_memory_bytes: int) -> None:
    with open("/proc/self/statm") as statm:  # noqa: PTH123 - a file of the kernel's
        pages = int(statm.read().split()[0])
    most = pages * resource.getpagesize() + max_decode_memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


if __name__ == "__main__":
    main()
