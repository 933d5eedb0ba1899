"""The process that decodes: image files from its parent, one after the other, and pictures back.

Started by image_process.py, which says how the two talk. Whatever a file does to a decoder, it does it here.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import cv2
import numpy as np
from image_decoding import InvalidImageError, StructureLimits, decode_stored, squash
from memory_file import MemoryFile
from PIL import Image
from pixel_types import PIXEL_TYPES
from triangle_resize import resize_to_planes
from worker_bounds import begin_work, processor_seconds, requests, say


def main() -> None:
    """`image_worker.py FD LIMITS`: serves until its input ends."""
    memory, limits = MemoryFile("", int(sys.argv[1])), json.loads(sys.argv[2])
    # Our own limit, checked on the header, stands in for Pillow's fixed one.
    Image.MAX_IMAGE_PIXELS = None
    # A picture in one piece of memory can be looked at where it lies.
    Image.core.set_use_block_allocator(1)  # type: ignore[attr-defined]
    cv2.setNumThreads(1)
    # Libraries take memory of their own when they are first used.
    resize_to_planes(np.zeros((64, 64, 4), np.uint8), 32)
    begin_work(limits.pop("max_decode_memory_bytes"))
    say({"ready": True})
    for request in requests():
        say(_answer(memory, request, dict(limits)))


def _answer(memory: MemoryFile, request: dict[str, Any], limits: dict[str, int]) -> dict[str, Any]:
    data = memory.read()
    seconds = limits.pop("max_decode_seconds")
    max_bytes, max_pixels = limits.pop("max_image_bytes"), limits.pop("max_image_pixels")
    try:
        with processor_seconds(seconds):
            stored = decode_stored(data, max_bytes, max_pixels, StructureLimits(**limits))
            crop_box = request["crop_box"]
            pixel_type = PIXEL_TYPES[request["data_type"]]
            resized = squash(stored, request["side"], request["resample"], crop_box, pixel_type)
    except InvalidImageError as error:
        return {"refused": str(error)}
    except MemoryError:
        return {"refused": "image: expected a picture that the memory for decoding holds, got more"}
    memory.write(resized.tobytes())
    x0, y0, x1, y1 = crop_box or (0, 0, *stored.upright_size)
    return {
        "shape": resized.shape,
        "dtype": str(resized.dtype),
        "original_hw": [y1 - y0, x1 - x0],
    }


if __name__ == "__main__":
    main()
