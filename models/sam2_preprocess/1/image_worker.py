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

from image_decoding import (
    InvalidImageError,
    StructureLimits,
    crop_picture,
    decode_image,
    resize_to_square,
)
from PIL import Image

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
        picture = decode_image(data, max_bytes, max_pixels, StructureLimits(**limits))
        if request["crop_box"] is not None:
            picture = crop_picture(picture, request["crop_box"])
        resized = resize_to_square(picture, request["side"], request["resample"])
    except InvalidImageError as error:
        return {"refused": str(error)}
    except MemoryError:
        return {"refused": "image: expected a picture that the memory for decoding holds, got more"}
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    os.ftruncate(shared, resized.nbytes)
    with mmap.mmap(shared, resized.nbytes) as answer:
        answer[:] = resized.tobytes()
    return {
        "shape": resized.shape,
        "dtype": str(resized.dtype),
        "original_hw": [picture.height, picture.width],
    }


def _limit_memory(max_decode_memory_bytes: int) -> None:
    with open("/proc/self/statm") as statm:  # noqa: PTH123 - a file of the kernel's
        pages = int(statm.read().split()[0])
    most = pages * resource.getpagesize() + max_decode_memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


if __name__ == "__main__":
    main()
